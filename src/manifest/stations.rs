//! Machines on the guests' wire that are no guests: gateways and their routers, name servers, DHCP servers, and what an
//! isolated guest may reach. Each is an address, or a group of keys where its Ethernet address is written, too.

use std::net::Ipv4Addr;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::decode::{Decode, Decoder, Spanned};
use super::record::{record, text};
use super::scalar::{Mistake, Scalar};
use super::tree::{Node, Value};
use super::values::shorten;
use crate::model::id::Mac;
use crate::model::lab::Egress;

record! {
    /// The guests' way out, with its Ethernet address or its routers.
    pub struct GatewayKeys as "a gateway" {
        /// The address that guests send to.
        #[example("192.168.100.1")]
        pub address: Spanned<Ipv4Addr>,
        /// Ethernet address that answers for it; each host asks for it once if it is not written.
        #[example("00:00:5e:00:01:01")]
        pub mac: Option<Spanned<Mac>>,
        /// Routers that share the address: each sends, and asks for guests, from addresses of its own.
        #[example([{ "address": "192.168.100.251", "mac": "00:00:5e:00:53:fb" }])]
        pub routers: Vec<Spanned<RouterDecl>>,
    }
}

record! {
    /// One of several routers behind a gateway's address.
    pub struct RouterDecl as "a router" {
        /// Its own address.
        #[example("192.168.100.251")]
        pub address: Spanned<Ipv4Addr>,
        /// Its own Ethernet address.
        #[example("00:00:5e:00:53:fb")]
        pub mac: Spanned<Mac>,
    }
}

record! {
    /// A server, with its Ethernet address.
    pub struct ServerKeys as "a server" {
        /// Its address.
        #[example("192.168.100.5")]
        pub address: Spanned<Ipv4Addr>,
        /// Its Ethernet address, where it is on the guests' wire; each host asks for it once if it is not written.
        #[example("00:00:5e:00:53:05")]
        pub mac: Option<Spanned<Mac>>,
    }
}

record! {
    /// What an isolated guest may reach, with its Ethernet address.
    pub struct EgressKeys as "a destination" {
        /// Address, port and protocol.
        #[example("192.168.100.5:443/tcp")]
        pub to: Spanned<Egress>,
        /// Ethernet address of a machine on the guests' wire; each host asks for it once if it is not written.
        #[example("00:00:5e:00:53:05")]
        pub mac: Option<Spanned<Mac>>,
    }
}

/// A value alone, or a group of keys about it.
macro_rules! short_or_keys {
    ($(#[doc = $doc:literal])+ $name:ident: $short:ty as $field:ident, or $keys:ty) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            Short(Spanned<$short>),
            Keys(Box<$keys>),
        }

        impl $name {
            pub fn $field(&self) -> &Spanned<$short> {
                match self {
                    Self::Short(value) => value,
                    Self::Keys(keys) => &keys.$field,
                }
            }

            /// The Ethernet address, where it is written.
            pub fn mac(&self) -> Option<&Spanned<Mac>> {
                match self {
                    Self::Short(_) => None,
                    Self::Keys(keys) => keys.mac.as_ref(),
                }
            }
        }

        impl Decode for $name {
            fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
                match &node.value {
                    Value::Mapping(_) => <$keys>::decode(node, decoder).map(|keys| Self::Keys(Box::new(keys))),
                    _ => Spanned::decode(node, decoder).map(Self::Short),
                }
            }

            fn schema(generator: &mut SchemaGenerator) -> Schema {
                let short = <$short as Decode>::schema(generator);
                let keys = <$keys>::schema(generator);
                json_schema!({ "anyOf": [short, keys] })
            }
        }
    };
}

short_or_keys!(
    /// A gateway.
    GatewayDecl: Ipv4Addr as address, or GatewayKeys
);
short_or_keys!(
    /// A name server or a DHCP server.
    ServerDecl: Ipv4Addr as address, or ServerKeys
);
short_or_keys!(
    /// Something that an isolated guest may reach.
    EgressDecl: Egress as to, or EgressKeys
);

impl GatewayDecl {
    pub fn routers(&self) -> &[Spanned<RouterDecl>] {
        match self {
            Self::Short(_) => &[],
            Self::Keys(keys) => &keys.routers,
        }
    }
}

/// One machine's Ethernet address: no group's, and not none.
impl Scalar for Mac {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let mac: Self = text.parse().map_err(|_| {
            Mistake::new(format!("`{}` is not an Ethernet address", shorten(text)))
                .hint("write six bytes in hexadecimal, like `00:00:5e:00:01:01`; `ip neigh` shows those of neighbours")
        })?;
        if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
            let message = format!("`{mac}` is not the Ethernet address of a single machine");
            return Err(Mistake::new(message).hint("write the one that `ip neigh` shows for the machine"));
        }
        Ok(mac)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$" })
    }
}
text!(Mac, "an Ethernet address such as `00:00:5e:00:01:01`");
