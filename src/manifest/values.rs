//! The words, figures and addresses of the language: each says what it accepts, and what to write instead.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::decode::{Decode, Decoder, list, nearest};
use super::record::{choice, text};
use super::scalar::{Mistake, Scalar};
use super::secrets::is_secret_text;
use super::slips::odd_character;
use super::tree::{Node, Value};
use crate::model::file_pattern::{FilePattern, InvalidPattern};
use crate::model::id::{
    FamilyName, InvalidName, LabName, MacPrefix, SessionName, TemplateName, UserGroupName, UserName, VmGroupName,
    VmName,
};
use crate::model::lab::{
    AtEnd, DisplayModel, Egress, Firmware, Late, NicModel, PowerState, Protocol, RestartPolicy, Right, SessionKind,
};
use crate::model::rules::Rule;

/// A text that is none of the words it may be.
pub(super) fn unknown_choice(what: &str, text: &str, known: &[&str]) -> Mistake {
    let hint = match nearest(text, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("write one of {}", list(known.iter().copied())),
    };
    Mistake::new(format!("`{}` is not {what}", shorten(text))).hint(hint)
}

/// The beginning of a text, for messages.
pub(super) fn shorten(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

choice!(Firmware as "a firmware" {
    "bios" => Bios "the classic PC firmware",
    "uefi" => Uefi "UEFI firmware",
});
choice!(NicModel as "a network card" {
    "virtio" => Virtio "fast; needs a driver that every Linux has",
    "e1000" => E1000 "an Intel card that old systems know",
    "rtl8139" => Rtl8139 "a Realtek card that very old systems know",
});
choice!(DisplayModel as "a display" {
    "std" => Std "plain VGA",
    "cirrus" => Cirrus "an old card that old systems know",
    "virtio" => Virtio "fast; needs a driver",
    "qxl" => Qxl "for SPICE drivers",
});
choice!(PowerState as "a state" {
    "running" => Running "apply starts it",
    "stopped" => Stopped "apply stops it",
    "on_demand" => OnDemand "people start and stop it",
});
choice!(RestartPolicy as "a restart policy" {
    "on_failure" => OnFailure "a guest that powers itself off stays off",
    "always" => Always "the next apply starts it again",
});
choice!(Right as "a right" {
    "run" => Run "start, stop and look at it",
    "modify" => Modify "reimage it, delete what somebody made; memory, cpus, cdrom, rename and snapshot are to come",
    "derive" => Derive "make vms from it, derived or cloned",
    "view" => View "see its screen, without control",
});
choice!(AtEnd as "an end" {
    "keep" => Keep "vms go on running",
    "stop" => Stop "each is stopped at its owner's own end",
    "collect" => Collect "the same; nothing is collected by itself yet",
});
choice!(Late as "what becomes of whoever starts late" {
    "until_end" => UntilEnd "their time ends with everybody's",
    "full_time" => FullTime "they have the whole time from their own start on, up to `latest_end`",
});
choice!(SessionKind as "a kind of session" {
    "class" => Class "vms keep their disks from one to the next",
    "exam" => Exam "vms are this session's alone, and closed to their owners before it and after it",
});

macro_rules! names {
    ($($type:ty, $what:literal;)*) => {$(
        impl Scalar for $type {
            const RULE: Rule = Rule::InvalidName;

            fn parse(text: &str) -> Result<Self, Mistake> {
                Self::in_manifest(text).map_err(|error| invalid_name(Self::WHAT, text, &error))
            }

            fn schema() -> Schema {
                json_schema!({ "type": "string", "pattern": <$type>::PATTERN, "maxLength": <$type>::BYTES_MAX })
            }
        }
        text!($type, $what);
    )*};
}

names! {
    LabName, "the lab's name";
    UserName, "a user's name";
    UserGroupName, "a user group's name";
    VmGroupName, "a vm group's name";
    TemplateName, "a template's name";
    VmName, "a vm's name";
    FamilyName, "a name of `vms:`";
    SessionName, "a session's name";
}

/// Why a text is no name, and the nearest text that is one where that is no guess: a login name is what it is.
pub(super) fn invalid_name(what: &str, text: &str, error: &InvalidName) -> Mistake {
    let mistake = Mistake::new(error.to_string());
    if let Some((_, c, name)) = odd_character(text) {
        let without: String = text.chars().filter(|other| *other != c).collect();
        let message = format!("in this name stands {name} (U+{:04X})", u32::from(c));
        return Mistake::new(message).hint(format!("write `{}`", shorten(&without)));
    }
    if what == UserName::WHAT {
        return match text.split_once('@') {
            Some((login, _)) if UserName::new(login).is_ok() => {
                mistake.hint(format!("write the login name alone: `{login}`"))
            }
            _ => mistake.hint("write the login name as the hosts know it"),
        };
    }
    let mended = text.replace([' ', '/', ':'], "-");
    match error {
        InvalidName::Character { .. } if VmName::new(&*mended).is_ok() => mistake.hint(format!("write `{mended}`")),
        InvalidName::TooLong { .. } | InvalidName::Empty { .. } => mistake,
        _ => mistake.hint("take a name like `year-2` or `exam.2027`"),
    }
}

/// Bytes. `G` is GiB, as qemu-img counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// As a manifest writes it; what is wrong with it, in a line.
    pub fn read(text: &str) -> Result<Self, String> {
        <Self as Scalar>::parse(text).map_err(Mistake::in_a_line)
    }

    pub fn mib(self) -> u64 {
        self.0 >> 20
    }

    /// As it would be written: `2G`, `1536M`.
    pub fn display(self) -> String {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        let unit = units.into_iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        unit.map_or_else(|| format!("{} bytes", self.0), |(shift, name)| format!("{}{name}", self.0 >> shift))
    }
}

impl Scalar for Size {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim_start());
        let wrong = || {
            Mistake::new(format!("`{}` is not a size", shorten(text)))
                .hint("write a whole number and a unit: `512M`, `2G`; G is 1024 M")
        };
        let value: u64 = number.parse().map_err(|_| wrong())?;
        let shift = match unit {
            "K" | "KiB" => 10,
            "M" | "MiB" => 20,
            "G" | "GiB" => 30,
            "T" | "TiB" => 40,
            "" => {
                let hint = format!("write `{value}M` or `{value}G`");
                return Err(Mistake::new(format!("the size `{value}` has no unit")).hint(hint));
            }
            "kB" | "KB" | "MB" | "GB" | "TB" | "k" | "m" | "g" | "t" | "kb" | "mb" | "gb" | "tb" => {
                let hint = format!("write `{value}{}`, which counts in powers of 1024", unit[..1].to_uppercase());
                return Err(Mistake::new(format!("`{unit}` is not a unit of sizes here")).hint(hint));
            }
            _ => return Err(wrong()),
        };
        value.checked_mul(1 << shift).filter(|bytes| *bytes <= 1 << 60).map(Self).ok_or_else(|| {
            Mistake::new(format!("`{}` is more than any storage holds", shorten(text))).hint("is a digit too many?")
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *(K|M|G|T|KiB|MiB|GiB|TiB)$" })
    }
}
text!(Size, "a size such as `2G`");

/// A length of time, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub u64);

impl Duration {
    /// As a manifest writes it; what is wrong with it, in a line.
    pub fn read(text: &str) -> Result<Self, String> {
        <Self as Scalar>::parse(text).map_err(Mistake::in_a_line)
    }
}

impl Scalar for Duration {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let wrong = || {
            Mistake::new(format!("`{}` is not a length of time", shorten(text)))
                .hint("write numbers with `d`, `h`, `m` or `s`, largest first: `20m`, `1h30m`")
        };
        let mut seconds: u64 = 0;
        let mut rest = text;
        let mut last_unit = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            let unit = match rest.as_bytes()[digits] {
                b'd' => 86_400,
                b'h' => 3600,
                b'm' => 60,
                b's' => 1,
                _ => return Err(wrong()),
            };
            if unit >= last_unit {
                return Err(wrong());
            }
            last_unit = unit;
            seconds = number.checked_mul(unit).and_then(|n| n.checked_add(seconds)).ok_or_else(wrong)?;
            rest = &rest[digits + 1..];
        }
        const CENTURY: u64 = 100 * 366 * 86_400;
        if text.is_empty() || seconds > CENTURY {
            return Err(wrong());
        }
        Ok(Self(seconds))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2 })
    }
}
text!(Duration, "a length of time such as `20m`");

/// Percent of something, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u32);

impl Percent {
    const MAX: u32 = 1000;
}

impl Scalar for Percent {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let number = text.strip_suffix('%').map(str::trim_end).filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
        number.and_then(|n| n.parse().ok()).filter(|n| *n <= Self::MAX).map(Self).ok_or_else(|| {
            let hint =
                if text.parse::<u32>().is_ok() { format!("write `{text}%`") } else { "write it like `25%`".to_owned() };
            Mistake::new(format!("`{}` is not a percentage from 0% to {}%", shorten(text), Self::MAX)).hint(hint)
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{1,4} *%$" })
    }
}
text!(Percent, "a percentage such as `25%`");

/// `192.168.100.2-60`, which others read as what it looks like.
fn short_end(first: &str, last: &str) -> Option<Mistake> {
    let number: u8 = last.parse().ok()?;
    let (network, _) = first.rsplit_once('.')?;
    let message = format!("the range ends at `{last}`, which is not a whole address");
    Some(Mistake::new(message).hint(format!("write `{first}-{network}.{number}`")))
}

/// The addresses of a vm group, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpRange {
    /// First and last, both included.
    Addresses(Ipv4Addr, Ipv4Addr),
    /// All hosts of a network.
    Network(Ipv4Net),
}

impl Scalar for IpRange {
    fn parse(text: &str) -> Result<Self, Mistake> {
        if text.contains('/') {
            return Ipv4Net::parse(text).map(Self::Network);
        }
        let (first, last) = text.split_once('-').ok_or_else(|| {
            Mistake::new(format!("`{}` is not a range of addresses", shorten(text)))
                .hint("write `192.168.100.2-192.168.100.254`, or a network like `192.168.100.0/24`")
        })?;
        let (first, last) = (first.trim(), last.trim());
        Ok(Self::Addresses(
            Ipv4Addr::parse(first)?,
            Ipv4Addr::parse(last).map_err(|error| short_end(first, last).unwrap_or(error))?,
        ))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+( *- *[0-9.]+|/[0-9]{1,2})$" })
    }
}
text!(IpRange, "a range of addresses such as `192.168.100.2-192.168.100.254`");

/// One address or several that no vm gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excluded {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

impl Scalar for Excluded {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (Ipv4Addr::parse(first.trim())?, Ipv4Addr::parse(last.trim())?);
        if last < first {
            return Err(Mistake::new(format!("`{text}` ends before it begins")).hint(format!("write `{last}-{first}`")));
        }
        Ok(Self { first, last })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+( *- *[0-9.]+)?$" })
    }
}
text!(Excluded, "an address or a range of addresses");

impl Scalar for Ipv4Addr {
    fn parse(text: &str) -> Result<Self, Mistake> {
        text.parse().map_err(|_| {
            let leading_zero = text.split('.').any(|part| part.len() > 1 && part.starts_with('0'));
            let hint = if leading_zero {
                "write its numbers without leading zeros"
            } else {
                "write four numbers from 0 to 255, like `192.168.100.1`"
            };
            Mistake::new(format!("`{}` is not an IPv4 address", shorten(text))).hint(hint)
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "format": "ipv4", "pattern": "^[0-9]{1,3}(\\.[0-9]{1,3}){3}$" })
    }
}
text!(Ipv4Addr, "an address such as `192.168.100.1`");

impl Scalar for Ipv4Net {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let net: Self = text.parse().map_err(|_| {
            Mistake::new(format!("`{}` is not a network", shorten(text)))
                .hint("write its first address and the length of its prefix, like `192.168.100.0/24`")
        })?;
        if net.trunc() != net {
            let mistake = Mistake::new(format!("`{net}` is not the first address of its network"));
            return Err(mistake.hint(format!("write `{}`", net.trunc())));
        }
        Ok(net)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+/[0-9]{1,2}$" })
    }
}
text!(Ipv4Net, "a network such as `192.168.100.0/24`");

impl Scalar for MacPrefix {
    fn parse(text: &str) -> Result<Self, Mistake> {
        text.parse().map_err(|error: crate::model::id::InvalidMacPrefix| {
            Mistake::new(error.to_string().replace('"', "`")).hint("leave the key out for the default `de:af:de:af`")
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9A-Fa-f][26AaEe](:[0-9A-Fa-f]{2}){1,4}$" })
    }
}
text!(MacPrefix, "the start of an Ethernet address such as `de:af:de:af`");

/// What an isolated guest may reach: `141.85.224.15:53/udp`.
impl Scalar for Egress {
    const RULE: Rule = Rule::Egress;

    fn parse(text: &str) -> Result<Self, Mistake> {
        const FORM: &str = "write address, port and protocol: `10.0.0.5:443/tcp`, `141.85.224.15:53/udp`";
        let (place, port) = text.rsplit_once(':').ok_or_else(|| {
            Mistake::new(format!("`{}` has no port: everything on that address would be open", shorten(text)))
                .hint(FORM)
        })?;
        let (port, protocol) = port.split_once('/').ok_or_else(|| {
            Mistake::new(format!("`{}` has no protocol", shorten(text))).hint(format!("write `{}/tcp`", shorten(text)))
        })?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => {
                let message = format!("`{}` is not a protocol that can be let out", shorten(other));
                return Err(Mistake::new(message).hint("write `tcp` or `udp`"));
            }
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            Mistake::new(format!("`{}` is not a port", shorten(port))).hint("ports are numbers from 1 to 65535")
        })?;
        let net = if place.contains('/') {
            Ipv4Net::parse(place)?
        } else {
            let address = Ipv4Addr::parse(place).map_err(|mistake| {
                if place.contains(|c: char| c.is_ascii_alphabetic()) {
                    mistake
                        .hint("names are not looked up, since an answer may change during an exam: write the address")
                } else {
                    mistake
                }
            })?;
            Ipv4Net::from(address)
        };
        Ok(Self { net, port, protocol, mac: None })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+(/[0-9]{1,2})?:[0-9]{1,5}/(tcp|udp)$" })
    }
}
text!(Egress, "a destination such as `10.0.0.5:443/tcp`");

fn plain_quotes(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Scalar { text, .. } => super::slips::plain_quotes(text),
        Value::Sequence(_) | Value::Mapping(_) => None,
    }
}

/// A whole number.
impl Decode for u32 {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            // YAML 1.1 reads it as octal, YAML 1.2 as decimal, and a wrong uid is costly.
            Value::Scalar { text, plain: true }
                if text.len() > 1 && text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()) =>
            {
                let without = text.trim_start_matches('0');
                let hint = format!("write `{}`", if without.is_empty() { "0" } else { without });
                let message =
                    format!("`{}` begins with 0, which readers of YAML take for different numbers", shorten(text));
                decoder.note(Rule::BadValue, &node.at, message, Some(hint));
                None
            }
            Value::Scalar { text, plain: true } if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() => {
                let number = text.parse().ok();
                if number.is_none() {
                    let message = format!("`{}` is too large: at most {} fits", shorten(text), Self::MAX);
                    decoder.note(Rule::BadValue, &node.at, message, None);
                }
                number
            }
            Value::Scalar { text, plain: false } if text.parse::<Self>().is_ok() => {
                decoder.wrong_type(node, "a number", Some(format!("write it without quotes: `{text}`")));
                None
            }
            _ => {
                let is_word = matches!(node.value, Value::Scalar { .. }) && !node.is_null();
                let digits = is_word.then(|| "write it in digits, like `2`".to_owned());
                decoder.wrong_type(node, "a whole number", plain_quotes(node).or(digits));
                None
            }
        }
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32 })
    }
}

impl Decode for bool {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let text = match &node.value {
            Value::Scalar { text, plain: true } => &**text,
            _ => "",
        };
        match text {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            "yes" | "on" | "no" | "off" => {
                let word = if matches!(text, "yes" | "on") { "true" } else { "false" };
                decoder.wrong_type(node, "`true` or `false`", Some(format!("write `{word}`")));
                None
            }
            _ => {
                decoder.wrong_type(node, "`true` or `false`", plain_quotes(node));
                None
            }
        }
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

/// Which files of a guest's disk are meant: `home/*/answer*`.
impl Scalar for FilePattern {
    fn parse(text: &str) -> Result<Self, Mistake> {
        text.parse().map_err(|error: InvalidPattern| {
            Mistake::new(format!("`{}` names no files: {error}", shorten(&text.escape_debug().to_string())))
                .hint("write paths such as `home/*/answer*` or `etc/hosts`")
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 4096 })
    }
}
text!(FilePattern, "a path such as `home/*/answer*`");

/// Free text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl Scalar for Text {
    fn parse(text: &str) -> Result<Self, Mistake> {
        // A family's vms each carry the text.
        const BYTES_MAX: usize = 1000;
        if text.len() > BYTES_MAX {
            return Err(Mistake::new(format!("a text has at most {BYTES_MAX} bytes, this one has {}", text.len())));
        }
        if is_secret_text(text) {
            let mistake = Mistake::new("this text holds a private key or the hash of a password").rule(Rule::Secret);
            return Err(mistake.hint("remove it, and change what was exposed: git forgets nothing"));
        }
        if let Some(found) = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
            let message = format!("the text has the control character U+{:04X} in it", u32::from(found));
            return Err(Mistake::new(message).hint("remove it"));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "maxLength": 1000 })
    }
}
text!(Text, "a text");
