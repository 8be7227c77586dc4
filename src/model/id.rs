//! Names and identifiers, each a type of its own, checked where it is made, so later code need not check again.
//!
//! A name appears in file names, Grid Engine job names, DHCP host names and YAML keys; the rule below is what all of
//! these allow: `qsub(1)` forbids `/ : @ \ * ?` and white space, a file name must not start with `.` or `-`, RFC 952
//! host names know letters, digits and `-`.

mod mac;

use std::fmt;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

pub use mac::{InvalidMac, InvalidMacPrefix, Mac, MacPrefix};

/// Longest name of a vm, template, group, session or lab, in bytes. A job name (at most 511 bytes, `qsub(1)`) carries
/// a lab and a batch, a file name (255 bytes) a vm and a disk slot: 63 leaves room in both and is a DNS label.
pub const NAME_BYTES_MAX: usize = 63;

/// Longest login name that `useradd(8)` creates.
pub const USER_NAME_BYTES_MAX: usize = 32;

/// Why a text is not a valid name; the text is a full sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("a {what} cannot be empty")]
    Empty { what: &'static str },
    #[error("a {what} has at most {max} characters, this one has {length}")]
    TooLong { what: &'static str, max: usize, length: usize },
    #[error("a {what} starts with a letter{or}, not with {found:?}")]
    Start { what: &'static str, or: &'static str, found: char },
    #[error("a {what} is made of letters, digits, `.`, `_` and `-`; {found:?} is not one of them")]
    Character { what: &'static str, found: char },
}

const PATTERN_DIGIT_FIRST: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";
const PATTERN_LETTER_FIRST: &str = "^[A-Za-z_][A-Za-z0-9._-]*$";

fn check_name(what: &'static str, text: &str, max: usize, digit_first: bool) -> Result<(), InvalidName> {
    let Some(first) = text.chars().next() else { return Err(InvalidName::Empty { what }) };
    if let Some(found) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        return Err(InvalidName::Character { what, found });
    }
    let starts_well = first.is_ascii_alphabetic() || (digit_first && first.is_ascii_digit());
    if !(starts_well || (!digit_first && first == '_')) {
        let or = if digit_first { " or digit" } else { " or `_`" };
        return Err(InvalidName::Start { what, or, found: first });
    }
    if text.len() > max {
        return Err(InvalidName::TooLong { what, max, length: text.chars().count() });
    }
    Ok(())
}

/// A name, or a person's and a name with `/` between them.
fn check_owned_name(what: &'static str, text: &str, max: usize, digit_first: bool) -> Result<(), InvalidName> {
    let Some((owner, name)) = text.split_once('/') else { return check_name(what, text, max, digit_first) };
    check_name(UserName::WHAT, owner, UserName::BYTES_MAX, false)?;
    check_name(what, name, max, digit_first)
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, digit_first: $digit:literal) => {
        name_type!($(#[$doc])* $name, $what, $max, digit_first: $digit, check_name, r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", $max);
    };
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, digit_first: $digit:literal, owned) => {
        name_type!(
            $(#[$doc])* $name, $what, $max, digit_first: $digit, check_owned_name,
            r"^([A-Za-z_][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$", USER_NAME_BYTES_MAX + 1 + $max
        );
    };
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, digit_first: $digit:literal, $check:ident, $pattern:literal, $all:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(#[schemars(regex(pattern = $pattern), length(min = 1, max = $all))] String);

        impl $name {
            /// What this name is called in messages.
            pub const WHAT: &'static str = $what;
            /// Longest name, in bytes.
            pub const BYTES_MAX: usize = $max;
            /// The rule as a regular expression, for schemas.
            pub const PATTERN: &'static str = if $digit { PATTERN_DIGIT_FIRST } else { PATTERN_LETTER_FIRST };

            /// Refuses what is too long, has other characters than may be, or is reserved.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                $check($what, &text, $max, $digit)?;
                Ok(Self(text))
            }

            /// As a manifest may have it.
            pub fn in_manifest(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                check_name($what, &text, $max, $digit)?;
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A folder of manifests under one name; unique within a site.
    LabName, "lab name", NAME_BYTES_MAX, digit_first: true
);
name_type!(
    /// A login name of a person.
    UserName, "user name", USER_NAME_BYTES_MAX, digit_first: false
);
name_type!(
    /// A set of users; `admin` and `all_users` are predefined.
    UserGroupName, "user group name", NAME_BYTES_MAX, digit_first: true
);
name_type!(
    /// An address range and its network; `all_vms` is predefined.
    VmGroupName, "vm group name", NAME_BYTES_MAX, digit_first: true
);
name_type!(
    /// A vm whose disks others derive from.
    TemplateName, "template name", NAME_BYTES_MAX, digit_first: true
);
name_type!(
    /// One virtual machine. What a person makes by command lives in that person's name space, as `doraz/mine`: no manifest can
    /// need such a name.
    VmName, "vm name", NAME_BYTES_MAX, digit_first: true, owned
);
name_type!(
    /// The key under `vms:`: one vm, or the family of vms of one `for_each` or `count`.
    FamilyName, "family name", NAME_BYTES_MAX, digit_first: true, owned
);
name_type!(
    /// An exam or a class.
    SessionName, "session name", NAME_BYTES_MAX, digit_first: true
);
name_type!(
    /// What somebody is called where nobody is to know who they are: on what they submit.
    Candidate, "candidate number", NAME_BYTES_MAX, digit_first: true
);
name_type!(
    /// A state of a running vm that it can go back to. No digit comes first: qemu numbers snapshots too, and looks a name
    /// up among the numbers before it looks among the names.
    SnapshotName, "snapshot name", NAME_BYTES_MAX, digit_first: false
);

impl VmName {
    /// The name of a vm that a person makes by command.
    pub fn owned(owner: &UserName, name: &VmName) -> Self {
        Self(format!("{owner}/{}", name.short()))
    }

    /// Whose name space it is in; `None` for a name of a manifest.
    pub fn owner(&self) -> Option<&str> {
        self.0.split_once('/').map(|(owner, _)| owner)
    }

    /// As the vm's owner calls it.
    pub fn short(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// As one part of a path, or of another program's name: no other vm has it, since names know no `~`.
    pub fn file_name(&self) -> String {
        self.0.replace('/', "~")
    }
}

impl UserGroupName {
    /// Predefined: full control over the site; its members are root and the site's `admins`.
    pub const ADMIN: &'static str = "admin";
    /// Predefined: every user of the lab.
    pub const ALL_USERS: &'static str = "all_users";
    /// Every lab has these.
    pub const PREDEFINED: [&'static str; 2] = [Self::ADMIN, Self::ALL_USERS];
}

impl VmGroupName {
    /// Predefined and the default (paper, section V.A): 192.168.0.1-192.168.0.254 unless the site says otherwise.
    pub const ALL_VMS: &'static str = "all_vms";
}

/// Four characters, drawn at random when a site's state is made, that tell the things of one site from another's on
/// the same host or cluster. Part of every mark.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct SiteTag([u8; SiteTag::BYTES]);

impl SiteTag {
    pub const BYTES: usize = 4;

    /// Refuses anything but `BYTES` lower case letters and digits.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
        let text = text.as_ref();
        let what = "site tag";
        if let Some(found) = text.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit())) {
            return Err(InvalidName::Character { what, found });
        }
        let length = text.len();
        text.as_bytes().try_into().map(Self).map_err(|_| match length {
            0 => InvalidName::Empty { what },
            _ => InvalidName::TooLong { what, max: Self::BYTES, length },
        })
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("letters and digits")
    }
}

impl fmt::Debug for SiteTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for SiteTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl TryFrom<String> for SiteTag {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl From<SiteTag> for String {
    fn from(tag: SiteTag) -> String {
        tag.as_str().to_owned()
    }
}

/// One start of a vm: the site's tag and a number that the site's state counts up and never gives out twice.
/// Written `k3f9-104`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(into = "String")]
#[schemars(with = "String")]
pub struct RunId {
    site: SiteTag,
    number: u64,
}

/// Why a text is not a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a run: a run reads like `k3f9-104`")]
pub struct InvalidRunId {
    text: String,
}

impl RunId {
    /// Largest run number. An interface name has 15 bytes (`IFNAMSIZ` - 1): `lw`, the site's tag and nine digits.
    pub const NUMBER_MAX: u64 = 999_999_999;
    /// From here on run numbers are of no record: a vm that a person starts by hand, or a trial of a host. Bits of its
    /// address are added. A site that starts a thousand vms a day comes here in two thousand years.
    pub const BY_HAND: u64 = 900_000_000;
    /// From here on, trials of hosts.
    pub const TRIAL: u64 = 990_000_000;

    /// A run of the site. Numbers above `NUMBER_MAX` are a bug: they would have no name for an interface.
    pub fn new(site: SiteTag, number: u64) -> Self {
        assert!(number <= Self::NUMBER_MAX, "run {number} of site {site} has no name for its interface");
        Self { site, number }
    }

    /// The run of a vm that a person starts: the last 26 bits of its address tell it from others', in vm groups of any
    /// size.
    pub fn by_hand(site: SiteTag, ip: Ipv4Addr) -> Self {
        Self::new(site, Self::BY_HAND + u64::from(u32::from(ip) & 0x03ff_ffff))
    }

    pub fn site(&self) -> &SiteTag {
        &self.site
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether it is one of a trial of a host, and no vm's.
    pub fn is_trial(&self) -> bool {
        self.number >= Self::TRIAL
    }

    /// Name of the run's tap on its host; every tap of ours starts with `lw`, which the host's drop table matches.
    pub fn tap(&self) -> String {
        format!("lw{}{}", self.site, self.number)
    }

    /// Name of the run's table in the nftables `bridge` family.
    pub fn nft_table(&self) -> String {
        format!("lw_{}_{}", self.site, self.number)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.site, self.number))
    }
}

impl FromStr for RunId {
    type Err = InvalidRunId;
    fn from_str(text: &str) -> Result<Self, InvalidRunId> {
        let invalid = || InvalidRunId { text: text.to_owned() };
        let (site, number) = text.split_once('-').ok_or_else(invalid)?;
        let canonical = !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && !(number.len() > 1 && number.starts_with('0'));
        let number = number.parse().ok().filter(|n| canonical && *n <= Self::NUMBER_MAX).ok_or_else(invalid)?;
        Ok(Self { site: SiteTag::new(site).map_err(|_| invalid())?, number })
    }
}

/// Each line of each report names its run: no text is kept on the way.
impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(PhantomData))
    }
}

/// Reads what is written as text from wherever the text stands.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> String {
        run.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reads_back_only_as_it_was_written() {
        let run = RunId::new(SiteTag::new("k3f9").unwrap(), 104);
        assert_eq!(run.to_string().parse(), Ok(run.clone()));
        assert_eq!((run.tap().as_str(), run.nft_table().as_str()), ("lwk3f9104", "lw_k3f9_104"));
        let largest = RunId::new(SiteTag::new("k3f9").unwrap(), RunId::NUMBER_MAX);
        assert_eq!(largest.tap().len(), 15);
        for wrong in ["", "k3f9", "k3f9-", "k3f9-01", "k3f9-+1", "K3F9-1", "k3f-1", "k3f9-1000000000"] {
            assert!(wrong.parse::<RunId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_hold_what_every_place_allows() {
        assert!(VmName::new("doraz-gsr").is_ok());
        assert!(VmName::new("2024.final_a").is_ok());
        for wrong in ["", "-a", ".a", "a b", "a/", "/b", "1a/b", "a/b/c", "a/../b", "a:b", "a~b", "é", &"a".repeat(64)]
        {
            assert!(VmName::new(wrong).is_err(), "{wrong}");
        }
        assert!(TemplateName::new("doraz/gsr").is_err(), "vms alone live in people's name spaces");
        assert!(UserName::new("1doraz").is_err());
        assert!(UserName::new("_doraz").is_ok());
    }

    #[test]
    fn a_vm_of_a_persons_own_has_a_name_that_no_manifest_can_have() {
        let mine = VmName::new("doraz/mine").unwrap();
        assert_eq!((mine.owner(), mine.short(), mine.file_name().as_str()), (Some("doraz"), "mine", "doraz~mine"));
        assert_eq!(VmName::owned(&UserName::new("doraz").unwrap(), &VmName::new("mine").unwrap()), mine);
        assert!(VmName::in_manifest("doraz/mine").is_err());
        let plain = VmName::new("mine").unwrap();
        assert_eq!((plain.owner(), plain.short(), plain.file_name().as_str()), (None, "mine", "mine"));
    }
}
