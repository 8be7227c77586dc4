//! Ethernet addresses, and how the paper makes them.

use std::fmt;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::Text;

/// An Ethernet address, written `de:af:de:af:64:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(into = "String")]
#[schemars(with = "String")]
pub struct Mac(pub [u8; 6]);

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(PhantomData))
    }
}

/// Why a text is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an Ethernet address: six bytes in hexadecimal, like `de:af:de:af:64:02`")]
pub struct InvalidMac {
    text: String,
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;
    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let read = || {
            let (mut bytes, mut parts) = ([0; 6], text.split(':'));
            for byte in &mut bytes {
                *byte = hex_byte(parts.next()?)?;
            }
            parts.next().is_none().then_some(Self(bytes))
        };
        read().ok_or_else(|| InvalidMac { text: text.to_owned() })
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

/// Bytes written in hexadecimal and separated by `:`, each two digits.
fn parse_hex_bytes(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(hex_byte).collect()
}

fn hex_byte(two_digits: &str) -> Option<u8> {
    let &[high, low] = two_digits.as_bytes() else { return None };
    let digit = |byte| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// The first bytes of a vm group's Ethernet addresses; the rest are the last bytes of the IP address (paper, section
/// III: "the last 16 bits are converted to hexadecimal"). Two to five bytes, unicast and locally administered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct MacPrefix(Vec<u8>);

/// Why a text is not the prefix of our Ethernet addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMacPrefix {
    #[error("{text:?} is not the start of an Ethernet address: two to five bytes in hexadecimal, like `de:af:de:af`")]
    Form { text: String },
    #[error("{text:?} starts a multicast address: the lowest bit of the first byte must be 0")]
    Multicast { text: String },
    #[error(
        "{text:?} belongs to a manufacturer: the second lowest bit of the first byte must be 1, as in `de` or `52`"
    )]
    Universal { text: String },
}

impl MacPrefix {
    /// The paper's prefix.
    pub const DEFAULT: [u8; 4] = [0xde, 0xaf, 0xde, 0xaf];

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The address of the vm that has `ip`: 192.168.100.2 under `de:af:de:af` is `de:af:de:af:64:02`.
    pub fn mac(&self, ip: Ipv4Addr) -> Mac {
        let mut mac = [0; 6];
        let tail = mac.len() - self.0.len();
        mac[..self.0.len()].copy_from_slice(&self.0);
        let octets = ip.octets();
        let copied = tail.min(octets.len());
        mac[6 - copied..].copy_from_slice(&octets[octets.len() - copied..]);
        Mac(mac)
    }
}

impl Default for MacPrefix {
    fn default() -> Self {
        Self(Self::DEFAULT.to_vec())
    }
}

impl fmt::Display for MacPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|b| format!("{b:02x}")).collect();
        f.pad(&parts.join(":"))
    }
}

impl FromStr for MacPrefix {
    type Err = InvalidMacPrefix;
    fn from_str(text: &str) -> Result<Self, InvalidMacPrefix> {
        let owned = || text.to_owned();
        let bytes = parse_hex_bytes(text)
            .filter(|b| (2..=5).contains(&b.len()))
            .ok_or_else(|| InvalidMacPrefix::Form { text: owned() })?;
        if bytes[0] & 1 != 0 {
            return Err(InvalidMacPrefix::Multicast { text: owned() });
        }
        if bytes[0] & 2 == 0 {
            return Err(InvalidMacPrefix::Universal { text: owned() });
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacPrefix {
    type Error = InvalidMacPrefix;
    fn try_from(text: String) -> Result<Self, InvalidMacPrefix> {
        text.parse()
    }
}

impl From<MacPrefix> for String {
    fn from(prefix: MacPrefix) -> String {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_mac_rule() {
        let mac = MacPrefix::default().mac(Ipv4Addr::new(192, 168, 100, 2));
        assert_eq!(mac.to_string(), "de:af:de:af:64:02");
        let short: MacPrefix = "de:af".parse().unwrap();
        assert_eq!(short.mac(Ipv4Addr::new(10, 1, 2, 3)).to_string(), "de:af:0a:01:02:03");
        let long: MacPrefix = "de:af:de:af:01".parse().unwrap();
        assert_eq!(long.mac(Ipv4Addr::new(10, 1, 2, 3)).to_string(), "de:af:de:af:01:03");
    }
}
