//! Addresses of things: `vm/doraz-gsr`, `template/gsr`. Plans, `explain`, `--target` and `moved` speak in them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds that a plan covers, in the order in which a plan lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    UserGroup,
    User,
    VmGroup,
    Template,
    Vm,
    Permission,
    Session,
    /// In what a plan says of the queue, of a lab as a whole and of the site; no manifest has these.
    Job,
    Lab,
    Site,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::UserGroup,
        Self::User,
        Self::VmGroup,
        Self::Template,
        Self::Vm,
        Self::Permission,
        Self::Session,
        Self::Job,
        Self::Lab,
        Self::Site,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserGroup => "user-group",
            Self::User => "user",
            Self::VmGroup => "vm-group",
            Self::Template => "template",
            Self::Vm => "vm",
            Self::Permission => "permission",
            Self::Session => "session",
            Self::Job => "job",
            Self::Lab => "lab",
            Self::Site => "site",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A kind and a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Address {
    pub kind: Kind,
    pub name: String,
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an address: write a kind and a name, like `vm/doraz-gsr`; kinds are user, user-group, vm-group, template, vm, permission and session"
)]
pub struct InvalidAddress {
    text: String,
}

impl Address {
    pub fn new(kind: Kind, name: impl fmt::Display) -> Self {
        Self { kind, name: name.to_string() }
    }

    /// The address of a vm.
    pub fn vm(name: impl fmt::Display) -> Self {
        Self::new(Kind::Vm, name)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.kind, self.name))
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress { text: text.to_owned() };
        let (kind, name) = text.split_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(invalid)?;
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(invalid)?;
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;
    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

/// Addresses picked on the command line: a kind and a name in which `*` stands for anything, like `vm/*-gsr`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct AddressPattern(Address);

impl AddressPattern {
    /// Whether an address is of the kind that is meant, and its name fits.
    pub fn matches(&self, address: &Address) -> bool {
        self.0.kind == address.kind && glob(&self.0.name, &address.name)
    }
}

/// Whether `name` fits `pattern`, where `*` stands for any run of characters.
pub(crate) fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// This one alone.
impl From<Address> for AddressPattern {
    fn from(address: Address) -> Self {
        Self(address)
    }
}

impl FromStr for AddressPattern {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for AddressPattern {
    type Error = InvalidAddress;
    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<AddressPattern> for String {
    fn from(pattern: AddressPattern) -> String {
        pattern.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let fits = |pattern: &str, address: &str| {
            pattern.parse::<AddressPattern>().unwrap().matches(&address.parse::<Address>().unwrap())
        };
        assert!(fits("vm/a", "vm/a") && !fits("vm/a", "vm/ab") && !fits("vm/a", "template/a"));
        assert!(fits("vm/*", "vm/a") && fits("vm/*-gsr", "vm/doraz-gsr") && !fits("vm/*-gsr", "vm/doraz-gs"));
        assert!(fits("vm/a*b*c", "vm/a-b-b-c") && !fits("vm/a*b*c", "vm/a-c-b"));
        assert!(!fits("vm/ab*b", "vm/ab"), "the two ends must not share a letter");
    }
}
