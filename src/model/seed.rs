//! Seed disks: what a guest learns of itself when its disk boots for the first time, as cloud-init reads it. In: what a manifest
//! says, and whose vm it is. Out: all that stands on one vm's disk but its password's hash.

use std::fmt;
use std::net::Ipv4Addr;

use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Serialize};

use super::id::{UserName, VmName};

/// What a manifest says of the seed disks of a vm, or of all that are made from a template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// With placeholders; the vm's own name where nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Accounts in the guest, with placeholders. The first is its owner's; nobody written means an account of the owner's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Whether these accounts may become root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sudo: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyboard: Option<Keyboard>,
    /// Keys that open all these accounts, besides their users' own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<SshKey>,
    /// The teacher's own part, with placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

/// What stands on the seed disk of one vm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedDisk {
    /// Of the vm's first disk. Another one makes cloud-init begin anew.
    pub instance: String,
    pub hostname: String,
    /// The first is the owner's: it has the password.
    pub users: Vec<GuestUser>,
    pub sudo: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyboard: Option<Keyboard>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

/// An account in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestUser {
    pub name: String,
    pub ssh_keys: Vec<SshKey>,
}

/// A keyboard's layout, and which variant of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyboard {
    pub layout: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// The owner of a vm, and the vm, as a seed's words name them.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    pub vm: &'a VmName,
    pub owner: &'a UserName,
    pub ip: Ipv4Addr,
}

/// What the manifest's texts may name.
pub const PLACEHOLDERS: [&str; 3] = ["{user}", "{vm}", "{ip}"];
/// A DNS name's parts are no longer (RFC 1035, section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

impl Seed {
    /// What stands on the disk of one vm. `keys_of` are those of a user of the lab.
    pub fn disk(&self, whose: Whose<'_>, instance: String, keys_of: impl Fn(&str) -> Vec<SshKey>) -> SeedDisk {
        let Whose { vm, owner, ip } = whose;
        let (user, host) = (host_label(owner.as_str()), host_label(vm.as_str()));
        let pattern = self.hostname.as_deref().unwrap_or("{vm}");
        let names: Vec<String> = match self.users.as_slice() {
            [] => vec![owner.to_string()],
            written => written.iter().map(|name| name.replace("{user}", owner.as_str())).collect(),
        };
        let account = |(place, name): (usize, String)| {
            // Whatever the first is called, it is its owner's.
            let own = keys_of(if place == 0 { owner.as_str() } else { &name });
            let mut ssh_keys: Vec<SshKey> = own.into_iter().chain(self.ssh_keys.iter().cloned()).collect();
            let mut seen = std::collections::BTreeSet::new();
            ssh_keys.retain(|key| seen.insert(key.clone()));
            GuestUser { name, ssh_keys }
        };
        let fill = |text: &String| {
            let text = text.replace("{user}", owner.as_str()).replace("{vm}", vm.as_str());
            text.replace("{ip}", &ip.to_string())
        };
        SeedDisk {
            instance,
            hostname: pattern.replace("{user}", &user).replace("{vm}", &host),
            users: names.into_iter().enumerate().map(account).collect(),
            sudo: self.sudo,
            keyboard: self.keyboard.clone(),
            user_data: self.user_data.as_ref().map(fill),
        }
    }
}

/// A name as one part of a host's name.
fn host_label(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let label: String = name.chars().map(plain).take(LABEL_BYTES_MAX).collect();
    label.trim_matches('-').to_owned()
}

/// A public key, as a line of `authorized_keys` has it: kind, key, comment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SshKey(String);

/// Why a text is no public key, as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSshKey {
    #[error("is a private key, which nobody but its owner may have: write the line of the file that ends in `.pub`")]
    Private,
    #[error("begins with no kind of key that OpenSSH has, such as `ssh-ed25519`")]
    Kind,
    #[error("breaks off, or is damaged: write the whole line of the file that ends in `.pub`")]
    Damaged,
    #[error("is longer than any key")]
    TooLong,
}

impl SshKey {
    const KINDS: [&'static str; 7] = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    /// One of RSA with 16,384 bits takes 2,800.
    const BYTES_MAX: usize = 4096;

    pub fn new(text: &str) -> Result<Self, NoSshKey> {
        let text = text.trim();
        if text.starts_with("-----BEGIN") {
            return Err(NoSshKey::Private);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(NoSshKey::TooLong);
        }
        let mut words = text.split_whitespace();
        let kind = words.next().filter(|kind| Self::KINDS.contains(kind)).ok_or(NoSshKey::Kind)?;
        let blob = words.next().and_then(|key| Base64::decode_vec(key).ok()).ok_or(NoSshKey::Damaged)?;
        if !is_whole(&blob, kind) || text.contains(|c: char| c.is_control() && c != '\t') {
            return Err(NoSshKey::Damaged);
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether a text is meant for a key, right or wrong.
    pub fn is_meant(text: &str) -> bool {
        text.contains(' ') || text.starts_with("-----BEGIN") || Self::KINDS.contains(&text)
    }
}

/// Whether the bytes are the parts of a key of this kind, each behind its length, to the very end (RFC 4253, section 6.6).
fn is_whole(blob: &[u8], kind: &str) -> bool {
    let mut rest = blob;
    let mut parts = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let Some((part, behind)) = behind.split_at_checked(u32::from_be_bytes(*length) as usize) else { return false };
        parts.push(part);
        rest = behind;
    }
    rest.is_empty() && parts.len() >= 2 && parts[0] == kind.as_bytes() && parts.iter().all(|part| !part.is_empty())
}

impl TryFrom<String> for SshKey {
    type Error = NoSshKey;
    fn try_from(text: String) -> Result<Self, NoSshKey> {
        Self::new(&text)
    }
}

impl From<SshKey> for String {
    fn from(key: SshKey) -> Self {
        key.0
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ana@home";

    #[test]
    fn a_key_is_whole_or_refused() {
        assert_eq!(SshKey::new(ANA).unwrap().to_string(), ANA);
        for (wrong, why) in [
            (ANA[..40].to_owned(), NoSshKey::Damaged),
            (ANA.replace("AAAAC3", "AAAAC4"), NoSshKey::Damaged),
            (ANA.replace("ssh-ed25519", "ssh-rsa"), NoSshKey::Damaged),
            (ANA.replace("ssh-ed25519", "ssh-dss"), NoSshKey::Kind),
            (format!("command=\"x\" {ANA}"), NoSshKey::Kind),
            ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), NoSshKey::Private),
            (format!("{ANA}{}", "x".repeat(5000)), NoSshKey::TooLong),
        ] {
            assert_eq!(SshKey::new(&wrong), Err(why), "{wrong}");
        }
    }

    fn disk(seed: &Seed, vm: &str) -> SeedDisk {
        let (vm, owner) = (VmName::new(vm).unwrap(), UserName::new("Ana.Pop").unwrap());
        let whose = Whose { vm: &vm, owner: &owner, ip: [10, 0, 0, 7].into() };
        seed.disk(whose, "k3f9-1".to_owned(), |user| {
            if user == "Ana.Pop" { vec![SshKey::new(ANA).unwrap()] } else { Vec::new() }
        })
    }

    #[test]
    fn nothing_written_means_the_owner_on_a_host_of_the_vms_name() {
        let disk = disk(&Seed::default(), "Ana.Pop-gsr");
        assert_eq!(disk.hostname, "ana-pop-gsr");
        let owner = GuestUser { name: "Ana.Pop".to_owned(), ssh_keys: vec![SshKey::new(ANA).unwrap()] };
        assert_eq!(disk.users, [owner]);
    }

    #[test]
    fn the_first_account_is_the_owners_whatever_it_is_called() {
        let key = SshKey::new(ANA).unwrap();
        let seed = Seed {
            hostname: Some("{vm}.lab.example".to_owned()),
            users: vec!["student".to_owned(), "teacher".to_owned()],
            ssh_keys: vec![key.clone()],
            user_data: Some("a: {user} {vm} {ip} {{ v1 }} ${HOME}".to_owned()),
            ..Seed::default()
        };
        let disk = disk(&seed, "gsr_1");
        assert_eq!(disk.hostname, "gsr-1.lab.example");
        let names: Vec<(&str, usize)> = disk.users.iter().map(|user| (&*user.name, user.ssh_keys.len())).collect();
        assert_eq!(names, [("student", 1), ("teacher", 1)], "no key stands there twice");
        assert_eq!(disk.user_data.as_deref(), Some("a: Ana.Pop gsr_1 10.0.0.7 {{ v1 }} ${HOME}"));
    }
}
