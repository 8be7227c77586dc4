//! Texts of the language that name things outside it: files, interfaces, checksums; and patterns of vm names.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::decode::{Decode, Decoder, list, nearest};
use super::record::text;
use super::scalar::{Mistake, Scalar};
use super::tree::Node;
use super::values::shorten;
use crate::model::address::Address;
use crate::model::rules::Rule;

/// A path, relative to the file that names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePath(pub String);

impl Scalar for FilePath {
    fn parse(text: &str) -> Result<Self, Mistake> {
        const BYTES_MAX: usize = 1024;
        if text.is_empty() {
            return Err(Mistake::new("a path cannot be empty").hint("write the name of a file"));
        }
        if text.len() > BYTES_MAX {
            return Err(Mistake::new(format!("a path has at most {BYTES_MAX} bytes, this one has {}", text.len())));
        }
        if text.contains(|c: char| c.is_control()) {
            return Err(Mistake::new("a path cannot have control characters").hint("remove them"));
        }
        if text.starts_with('~') {
            let mistake = Mistake::new("`~` is not expanded: manifests mean the same for everybody");
            return Err(mistake.hint("write the path in full, or relative to this file"));
        }
        if text.contains("://") {
            let mistake = Mistake::new(format!("`{}` is an address of the web, not a file", shorten(text)));
            return Err(mistake.hint("download it and write the file's path"));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[^~]" })
    }
}
text!(FilePath, "a path");

/// Where an image is: a file, or an address of the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePlace {
    File(FilePath),
    Web(String),
}

impl ImagePlace {
    /// As it is written.
    pub fn text(&self) -> &str {
        match self {
            Self::File(path) => &path.0,
            Self::Web(url) => url,
        }
    }
}

impl Scalar for ImagePlace {
    fn parse(text: &str) -> Result<Self, Mistake> {
        const BYTES_MAX: usize = 1024;
        let Some((scheme, rest)) = text.split_once("://") else { return FilePath::parse(text).map(Self::File) };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii();
        if scheme != "https" {
            let mistake = Mistake::new(format!("`{}` is not an address that begins with `https://`", shorten(text)));
            return Err(mistake.hint("images are fetched by https alone; or download it and write the file's path"));
        }
        if host.contains('@') {
            let mistake = Mistake::new("no password stands in a manifest, and none in an address");
            return Err(mistake.hint("download it where the password is known, and write the file's path"));
        }
        if text.len() > BYTES_MAX || host.is_empty() || rest.len() == host.len() || text.contains(is_odd) {
            let mistake = Mistake::new(format!("`{}` is no address of a file on the web", shorten(text)));
            return Err(mistake.hint("write it like `https://example.org/images/debian-12.qcow2`"));
        }
        Ok(Self::Web(text.to_owned()))
    }

    fn schema() -> Schema {
        <FilePath as Scalar>::schema()
    }
}
text!(ImagePlace, "a path");

/// The name of a key, as dhcpd.conf has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(pub String);

impl Scalar for KeyName {
    fn parse(text: &str) -> Result<Self, Mistake> {
        const BYTES_MAX: usize = 253;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !text.is_empty() && text.len() <= BYTES_MAX && text.chars().all(known) {
            return Ok(Self(text.to_owned()));
        }
        let message = format!("`{}` is not the name of a key", shorten(text));
        Err(Mistake::new(message).hint("write the name that stands behind `key` in dhcpd.conf, such as `labwright`"))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,253}$" })
    }
}
text!(KeyName, "the name of a key");

/// A port of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(pub u16);

impl Decode for Port {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let number = u32::decode(node, decoder)?;
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            let message = format!("`{number}` is not a port: they go from 1 to 65535");
            decoder.note(Rule::BadValue, &node.at, message, None);
        }
        port.map(Self)
    }

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 65535 })
    }
}

/// A checksum, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sha256(pub String);

impl Scalar for Sha256 {
    fn parse(text: &str) -> Result<Self, Mistake> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        let message =
            format!("a sha256 checksum has 64 hexadecimal digits; this text has {} characters", text.chars().count());
        Err(Mistake::new(message).hint("print it with `sha256sum FILE`"))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" })
    }
}
text!(Sha256, "a sha256 checksum");

/// The name of a network interface, as Linux allows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceName(pub String);

impl InterfaceName {
    /// `IFNAMSIZ` less the closing zero.
    pub const BYTES_MAX: usize = 15;
}

impl Scalar for InterfaceName {
    const RULE: Rule = Rule::InterfaceName;

    fn parse(text: &str) -> Result<Self, Mistake> {
        if text.len() > Self::BYTES_MAX {
            let message = format!(
                "an interface's name has at most {} bytes, `{}` has {}",
                Self::BYTES_MAX,
                shorten(text),
                text.len()
            );
            return Err(Mistake::new(message).hint("write a shorter name, like `vbr0`"));
        }
        if let Some(found) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            let message = format!("{found:?} cannot stand in the name of an interface");
            return Err(Mistake::new(message).hint("use letters, digits, `.`, `_` and `-`"));
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(
                Mistake::new("an interface's name begins with a letter or digit").hint("write a name like `vbr0`")
            );
        }
        if text.starts_with("lw") {
            let message = "names that begin with `lw` are those of labwright's own taps, which hosts drop frames of";
            return Err(Mistake::new(message).hint("write another name, like `vbr0`"));
        }
        if ["all", "default"].contains(&text) {
            let message = format!("`{text}` is the kernel's word for every interface");
            return Err(Mistake::new(message).hint("write another name, like `vbr0`"));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^(?!lw|all$|default$)[A-Za-z0-9][A-Za-z0-9._-]{0,14}$" })
    }
}
text!(InterfaceName, "the name of a bridge such as `vbr0`");

/// A DNS domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain(pub String);

impl Scalar for Domain {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            return Ok(Self(text.to_owned()));
        }
        let message = format!("`{}` is not a domain name", shorten(text));
        Err(Mistake::new(message).hint("write words of letters, digits and `-` with dots between: `lab.example.org`"))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "maxLength": 253, "pattern": "^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$" })
    }
}
text!(Domain, "a domain name");

/// What a family's vms are called: literal text and placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    pub parts: Vec<PatternPart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternPart {
    Literal(String),
    /// `{user}`: the member of the group.
    User,
    /// `{group}`: the group of `for_each`.
    Group,
    /// `{n}`: 1, 2, … up to `count`.
    Number,
}

impl NamePattern {
    pub fn has(&self, part: &PatternPart) -> bool {
        self.parts.contains(part)
    }

    /// The name of one vm.
    pub fn expand(&self, user: &str, group: &str, number: u32) -> String {
        let part = |part: &PatternPart| match part {
            PatternPart::Literal(text) => text.clone(),
            PatternPart::User => user.to_owned(),
            PatternPart::Group => group.to_owned(),
            PatternPart::Number => number.to_string(),
        };
        self.parts.iter().map(part).collect()
    }
}

impl Scalar for NamePattern {
    const RULE: Rule = Rule::NamePattern;

    fn parse(text: &str) -> Result<Self, Mistake> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once('{') {
            if !literal.is_empty() {
                parts.push(PatternPart::Literal(literal.to_owned()));
            }
            let (name, tail) = tail.split_once('}').ok_or_else(|| {
                Mistake::new(format!("`{{` in the name `{}` is never closed", shorten(text))).hint("write `{user}`")
            })?;
            parts.push(match name {
                "user" => PatternPart::User,
                "group" => PatternPart::Group,
                "n" => PatternPart::Number,
                other => return Err(unknown_placeholder(other)),
            });
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(PatternPart::Literal(rest.to_owned()));
        }
        let foreign = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        for part in &parts {
            if let PatternPart::Literal(literal) = part
                && let Some(found) = literal.chars().find(|c| foreign(*c))
            {
                let message =
                    format!("a vm name is made of letters, digits, `.`, `_` and `-`; {found:?} is not one of them");
                let mistake = Mistake::new(message).rule(Rule::InvalidName);
                // As shells and templates of other tools have it.
                let is_dollar = found == '$' && text.contains("${");
                let without = is_dollar.then(|| format!("write `\"{}\"`", shorten(&text.replace("${", "{"))));
                return Err(match without {
                    Some(hint) => mistake.hint(hint),
                    None => mistake,
                });
            }
        }
        Ok(Self { parts })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^([A-Za-z0-9._-]|\\{user\\}|\\{group\\}|\\{n\\})*$" })
    }
}
text!(NamePattern, "a name such as `\"{user}-gsr\"`");

fn unknown_placeholder(name: &str) -> Mistake {
    let known = ["user", "group", "n"];
    let hint = match nearest(name, known) {
        Some(near) => format!("did you mean `{{{near}}}`?"),
        None => format!("known placeholders are {}", list(["{user}", "{group}", "{n}"])),
    };
    Mistake::new(format!("`{{{}}}` stands for nothing", shorten(name))).hint(hint)
}

impl Scalar for Address {
    fn parse(text: &str) -> Result<Self, Mistake> {
        text.parse().map_err(|_| {
            Mistake::new(format!("`{}` is not an address of a thing", shorten(text)))
                .hint("write a kind and a name, like `vm/doraz-gsr` or `template/gsr`")
        })
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(user-group|user|vm-group|template|vm|permission|session)/.+$",
        })
    }
}
text!(Address, "an address such as `vm/doraz-gsr`");
