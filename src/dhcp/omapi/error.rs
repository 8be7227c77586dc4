//! What can go wrong between us and dhcpd, told apart by what mends it.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::key::KeyError;
use crate::model::site::OmapiSettings;

#[derive(Debug, thiserror::Error)]
pub enum OmapiError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("dhcpd at {server}:{port} {problem}")]
    Server { server: Ipv4Addr, port: u16, problem: Problem },
}

/// What a server did, or did not.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot be reached: {0}; does it run, with `omapi-port` in its configuration?")]
    Unreachable(std::io::Error),
    #[error("did not answer within {0:?}")]
    Silent(Duration),
    #[error("broke the conversation off: {0}")]
    Broken(std::io::Error),
    #[error("does not speak OMAPI: {0}")]
    Foreign(String),
    #[error("does not know the key `{key}` with {algorithm}; its configuration needs `omapi-key {key};`")]
    UnknownKey { key: String, algorithm: &'static str },
    #[error("does not accept the secret of the key `{key}`: is it the one in its configuration?")]
    WrongSecret { key: String },
    #[error(
        "has another host with the name {mark} or the hardware address {mac}; look for it in its configuration and \
         its leases file"
    )]
    Taken { mark: String, mac: String },
    #[error("refused to {action} {mark}: {words} (result {result:#x})")]
    Refused { action: &'static str, mark: String, words: String, result: u32 },
}

impl OmapiError {
    pub(super) fn new(settings: &OmapiSettings, problem: Problem) -> Self {
        Self::Server { server: settings.server, port: settings.port, problem }
    }

    /// The other side has gone away in the middle.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Server { problem: Problem::Broken(_), .. })
    }

    /// A dhcpd that starts is broken off or refuses connections until it is there.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Server { problem: Problem::Broken(_) | Problem::Unreachable(_), .. })
    }
}
