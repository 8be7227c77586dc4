//! Seed disks as a manifest writes them: the keys of `seed:`, public keys of people, and the files that both name. Those are read
//! with the lab; what is wrong in them is shown at its place in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::compose::{Loader, Manifest};
use super::decode::{At, Decode, Decoder, Spanned};
use super::files::{self, HOME};
use super::record::{record, text};
use super::scalar::{Mistake, Scalar};
use super::secrets::{is_password_key, is_secret_text};
use super::tree::{self, Node, Value};
use super::values::shorten;
use super::words::FilePath;
use crate::model::diagnostic::{Diagnostic, Source, Span};
use crate::model::rules::Rule;
use crate::model::seed::{Keyboard, PLACEHOLDERS, SshKey};

/// Most bytes of `user_data`: more belongs onto the template. Every vm of a family has a copy.
const USER_DATA_BYTES_MAX: usize = 16 << 10;
/// Most keys of one file.
const KEYS_MAX: usize = 100;

record! {
    /// What a guest learns of itself at its disk's first boot, as cloud-init reads it from a disk called `cidata`.
    pub struct SeedKeys as "`seed`" {
        /// The guest's name as a host; `{vm}` and `{user}` are filled in. The vm's name if not written.
        #[example("{vm}")]
        pub hostname: Option<Spanned<HostPattern>>,
        /// Accounts that the guest gets; `{user}` is the vm's owner. The first is its owner's and has the password. The owner alone
        /// if not written.
        #[example(["{user}", "teacher"])]
        pub users: Vec<Spanned<GuestName>>,
        /// Whether these accounts may become root without a password; no if not written.
        #[example(true)]
        pub sudo: Option<Spanned<bool>>,
        /// Layout of the keyboard, with a variant in brackets where there is one.
        #[example("de", "de(nodeadkeys)")]
        pub keyboard: Option<Spanned<Keyboard>>,
        /// Public keys that open all these accounts, besides those of their users: each as `authorized_keys` has it, or a file of
        /// such lines.
        #[example(["keys/assistants.pub", "~/.ssh/id_ed25519.pub"])]
        pub ssh_keys: Vec<Spanned<KeySource>>,
        /// A file of your own for cloud-init, as YAML; `{user}`, `{vm}` and `{ip}` are filled in. What it says goes before what stands
        /// here, and lists are joined.
        #[example("user-data.yaml")]
        pub user_data: Option<Spanned<FilePath>>,
    }
}

/// `true`, `false`, or a group of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedDecl {
    Switch(bool),
    Keys(Box<SeedKeys>),
}

impl SeedDecl {
    pub fn keys(&self) -> Option<&SeedKeys> {
        match self {
            Self::Switch(_) => None,
            Self::Keys(keys) => Some(keys),
        }
    }
}

impl Decode for SeedDecl {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Mapping(_) => SeedKeys::decode(node, decoder).map(|keys| Self::Keys(Box::new(keys))),
            _ => bool::decode(node, decoder).map(Self::Switch),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let (switch, keys) = (<bool as Decode>::schema(generator), SeedKeys::schema(generator));
        json_schema!({ "anyOf": [switch, keys] })
    }
}

/// A host's name with `{vm}` and `{user}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(pub String);

impl Scalar for HostPattern {
    fn parse(text: &str) -> Result<Self, Mistake> {
        // Whatever is filled in is one part of a name.
        let filled = text.replace("{vm}", "v").replace("{user}", "u");
        if let Some(found) = filled.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))) {
            let message = format!("{found:?} cannot stand in a host's name");
            return Err(Mistake::new(message).hint("use letters, digits and `-`, and `{vm}` or `{user}`"));
        }
        let is_label =
            |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
        if filled.len() <= 253 && filled.split('.').all(is_label) {
            return Ok(Self(text.to_owned()));
        }
        let message = format!("`{}` is not a host's name", shorten(text));
        Err(Mistake::new(message).hint("write a word of letters, digits and `-`, such as `\"{vm}\"`"))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "maxLength": 253, "pattern": "^([A-Za-z0-9.-]|\\{vm\\}|\\{user\\})+$" })
    }
}
text!(HostPattern, "a host's name such as `\"{vm}\"`");

/// The name of an account in a guest: `{user}`, or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestName(pub String);

impl Scalar for GuestName {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if text == "root" {
            let mistake = Mistake::new("`root` is in every guest already");
            return Err(mistake.hint("write `sudo: true`, so that the accounts may become root"));
        }
        if text == "{user}" || (begins && text.len() <= 32 && text.chars().all(is_plain)) {
            return Ok(Self(text.to_owned()));
        }
        let message = format!("`{}` is not the name of an account", shorten(text));
        Err(Mistake::new(message).hint("write `\"{user}\"`, or up to 32 lower-case letters, digits, `_` and `-`"))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^(\\{user\\}|(?!root$)[a-z_][a-z0-9_-]{0,31})$" })
    }
}
text!(GuestName, "the name of an account");

impl Scalar for Keyboard {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let is_word = |word: &str| !word.is_empty() && word.len() <= 32 && word.bytes().all(is_layout);
        let (layout, variant) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            Some((layout, variant)) => (layout, Some(variant)),
            None => (text, None),
        };
        if is_word(layout) && variant.is_none_or(is_word) {
            return Ok(Self { layout: layout.to_owned(), variant: variant.map(str::to_owned) });
        }
        let mistake = Mistake::new(format!("`{}` is not a keyboard's layout", shorten(text)));
        Err(mistake.hint("write one of X11's, like `de`, `ro` or `de(nodeadkeys)`"))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z0-9_-]{1,32}(\\([a-z0-9_-]{1,32}\\))?$" })
    }
}
text!(Keyboard, "a keyboard's layout");

fn is_layout(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
}

/// A public key, or a file of such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    Key(SshKey),
    /// Below the home of whoever reads the lab, where it begins with `~/`.
    File(String),
}

impl Scalar for KeySource {
    const RULE: Rule = Rule::SshKey;

    fn parse(text: &str) -> Result<Self, Mistake> {
        if SshKey::is_meant(text) {
            return SshKey::new(text).map(Self::Key).map_err(|why| Mistake::new(format!("this key {why}")));
        }
        let path = FilePath::parse(text.strip_prefix("~/").unwrap_or(text))?;
        if path.0.contains("id_") && !path.0.ends_with(".pub") {
            let message =
                format!("`{}` is called like a private key, which nobody but its owner may have", shorten(text));
            return Err(Mistake::new(message).hint(format!("write `{text}.pub`")));
        }
        Ok(Self::File(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 4096 })
    }
}
text!(KeySource, "a public key, or a file with keys");

impl Manifest {
    /// The file that a key is in; `None` where the key itself is written.
    pub(super) fn key_file(&self, written: &Spanned<KeySource>) -> Option<PathBuf> {
        match &written.value {
            KeySource::Key(_) => None,
            KeySource::File(text) if text.starts_with("~/") => Some(Path::new(HOME).join(&text[2..])),
            KeySource::File(text) => Some(self.path_from(written.at, text)),
        }
    }

    /// The keys that are meant; those of a file that could not be read are none.
    pub fn ssh_keys(&self, written: &[Spanned<KeySource>]) -> Vec<SshKey> {
        let keys = written.iter().flat_map(|written| match (&written.value, self.key_file(written)) {
            (KeySource::Key(key), _) => std::slice::from_ref(key),
            (_, file) => file.and_then(|file| self.keys.get(&file)).map(Vec::as_slice).unwrap_or_default(),
        });
        keys.cloned().collect()
    }

    /// The text of a file that `user_data` names.
    pub fn user_data(&self, written: &Spanned<FilePath>) -> Option<String> {
        self.user_data.get(&self.path(written)).cloned()
    }

    fn seeds(&self) -> impl Iterator<Item = &SeedKeys> {
        let templates = self.templates.iter().filter_map(|(_, template)| template.seed.as_ref());
        let vms = self.vms.iter().filter_map(|(_, vm)| vm.seed.as_ref());
        templates.chain(vms).filter_map(|seed| seed.value.keys())
    }
}

impl Loader<'_> {
    /// Reads every file that a seed names, once.
    pub(super) fn read_seed_files(&mut self) {
        let manifest = &self.manifest;
        let of_people = manifest.users.iter().flat_map(|(_, user)| &user.ssh_keys);
        let keys = manifest.seeds().flat_map(|seed| &seed.ssh_keys).chain(of_people);
        let keys: Vec<(PathBuf, At)> = keys.filter_map(|key| Some((manifest.key_file(key)?, key.at))).collect();
        let texts = manifest.seeds().filter_map(|seed| seed.user_data.as_ref());
        let texts: Vec<(PathBuf, At)> = texts.map(|text| (manifest.path(text), text.at)).collect();
        for (path, at) in keys {
            if !self.manifest.keys.contains_key(&path) {
                let keys = self.read_seed_file(&path, at).map(|source| self.keys_in(&source)).unwrap_or_default();
                self.manifest.keys.insert(path, keys);
            }
        }
        for (path, at) in texts {
            if !self.manifest.user_data.contains_key(&path) {
                let source = self.read_seed_file(&path, at);
                let text = source.map(|source| self.checked_user_data(&source, at)).unwrap_or_default();
                self.manifest.user_data.insert(path, text);
            }
        }
    }

    fn read_seed_file(&mut self, path: &Path, at: At) -> Option<Arc<Source>> {
        let name = match path.strip_prefix(HOME) {
            Ok(below) => format!("~/{}", below.display()),
            Err(_) => self.shown_name(path),
        };
        let read = files::read_bytes(self.files, path, &name, &mut self.budget, &mut self.diagnostics);
        match read {
            Ok(bytes) => bytes.and_then(|bytes| files::text(&name, bytes, &mut self.diagnostics)),
            Err(error) => {
                let message = format!("`{name}` cannot be read: {error}");
                let hint = "a path is relative to the file that names it; `~` is the home of whoever reads the lab";
                let place = self.manifest.span(at);
                self.diagnostics.push(Diagnostic::new(Rule::SeedFile, message).at(place).hint(hint));
                None
            }
        }
    }

    /// One key per line; empty lines and comments are none.
    fn keys_in(&mut self, source: &Arc<Source>) -> Vec<SshKey> {
        let mut keys = Vec::new();
        let mut start = 0;
        for line in source.text.split_inclusive('\n') {
            let (bytes, key) = (start..start + line.trim_end().len().max(1), line.trim());
            start += line.len();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            let wrong = match SshKey::new(key) {
                Ok(_) if keys.len() == KEYS_MAX => format!("more than {KEYS_MAX} keys stand in this file"),
                Ok(key) => {
                    keys.push(key);
                    continue;
                }
                Err(why) => format!("this line {why}"),
            };
            let hint = "a line is a key as `~/.ssh/id_ed25519.pub` has it: `ssh-ed25519 AAAA… ana@home`";
            self.diagnostics.push(Diagnostic::new(Rule::SshKey, wrong).at(Span::new(source, bytes)).hint(hint));
            break;
        }
        keys
    }

    fn checked_user_data(&mut self, source: &Arc<Source>, at: At) -> String {
        if source.text.len() > USER_DATA_BYTES_MAX {
            let (bytes, place) = (source.text.len(), self.manifest.span(at));
            let message = format!("`{}` has {bytes} bytes; `user_data` has at most {USER_DATA_BYTES_MAX}", source.name);
            let hint = "install what is larger on the template, or fetch it from there";
            self.diagnostics.push(Diagnostic::new(Rule::SeedFile, message).at(place).hint(hint));
            return String::new();
        }
        match no_user_data(source) {
            Some(finding) => self.diagnostics.push(finding),
            None => return source.text.clone(),
        }
        String::new()
    }
}

/// What is wrong with a file for cloud-init.
fn no_user_data(source: &Arc<Source>) -> Option<Diagnostic> {
    // What will stand in a placeholder's place is a word, and no group of keys.
    let sample =
        PLACEHOLDERS.iter().fold(source.text.clone(), |text, name| text.replace(name, &"x".repeat(name.len())));
    if let Err(finding) = tree::check_mapping(source, &sample) {
        return Some(*finding);
    }
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        let (bytes, key) = (start..start + line.trim_end().len().max(1), line.split(':').next().unwrap_or_default());
        start += line.len();
        if is_password_key(key, line) || (line.contains("-----BEGIN") && is_secret_text(line)) {
            let message = "a password or a private key stands here, for everybody who reads the repository";
            let hint = "each guest gets a password of its own, which `labwright vm show` tells its owner";
            return Some(Diagnostic::new(Rule::Secret, message).at(Span::new(source, bytes)).hint(hint));
        }
    }
    None
}
