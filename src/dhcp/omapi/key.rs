//! The shared key of OMAPI: read from a file that nobody else can read, never from a manifest, and never shown.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use nix::fcntl::OFlag;
use sha2::{Sha256, Sha512};

use crate::model::site::{Algorithm, OmapiSettings};

/// Longest key file; a secret of 512 bits has 88 characters.
const FILE_BYTES_MAX: u64 = 4096;

/// Why there is no key. None of these repeats what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the DHCP key {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the DHCP key {path} is not a regular file")]
    NotAFile { path: PathBuf },
    #[error(
        "others can read or change the DHCP key {path} (mode {mode:04o}); run `chmod 600 {path}`, and think of a new key"
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "the DHCP key {path} is not a secret in base64, as dhcpd.conf has it: letters, digits, `+`, `/` and `=` at the end, and nothing else"
    )]
    NotBase64 { path: PathBuf },
}

impl KeyError {
    /// No such file: only the machine that plans and applies needs one.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

pub(super) struct Key {
    algorithm: Algorithm,
    secret: Vec<u8>,
}

impl Key {
    pub(super) fn read(settings: &OmapiSettings) -> Result<Self, KeyError> {
        let text = read_private(&settings.key_file)?;
        let secret = decode_base64(text.trim()).filter(|secret| !secret.is_empty());
        let secret = secret.ok_or_else(|| KeyError::NotBase64 { path: settings.key_file.clone() })?;
        Ok(Self { algorithm: settings.algorithm, secret })
    }

    pub(super) fn signature_bytes(&self) -> u32 {
        match self.algorithm {
            Algorithm::HmacMd5 => 16,
            Algorithm::HmacSha256 => 32,
            Algorithm::HmacSha512 => 64,
        }
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        macro_rules! hmac {
            ($digest:ty) => {{
                let mut mac = Hmac::<$digest>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
                mac.update(bytes);
                mac.finalize().into_bytes().to_vec()
            }};
        }
        match self.algorithm {
            Algorithm::HmacMd5 => hmac!(Md5),
            Algorithm::HmacSha256 => hmac!(Sha256),
            Algorithm::HmacSha512 => hmac!(Sha512),
        }
    }

    /// Whether `signature` is ours of `bytes`; how long it looks tells nobody how much of a guess was right.
    pub(super) fn signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let right = self.sign(bytes);
        let differing = right.iter().zip(signature).fold(0, |all, (a, b)| all | (a ^ b));
        right.len() == signature.len() && differing == 0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// The text of a file that only its owner can read. The open file is looked at, not its name, so that it cannot become
/// another in between; and a pipe under that name is not waited for.
fn read_private(path: &Path) -> Result<String, KeyError> {
    let failed = |source| KeyError::Read { path: path.to_owned(), source };
    let file = std::fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| KeyError::NotBase64 { path: path.to_owned() })
}

/// The name by which OMAPI asks for an algorithm: that of TSIG's old registry.
pub(super) fn omapi_name(algorithm: Algorithm) -> String {
    format!("{}.SIG-ALG.REG.INT.", algorithm.as_str())
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 || !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
pub(super) fn for_tests(secret: &[u8]) -> Key {
    Key { algorithm: Algorithm::HmacSha256, secret: secret.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(key_file: PathBuf) -> OmapiSettings {
        let algorithm = Algorithm::HmacSha256;
        OmapiSettings { server: [10, 0, 0, 5].into(), port: 7911, key_name: "lab".to_owned(), algorithm, key_file }
    }

    fn read(text: &str, mode: u32) -> Result<Key, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("omapi.key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let root = folder.path().display().to_string();
        Key::read(&settings(path)).map_err(|error| error.to_string().replace(&root, "ROOT"))
    }

    #[test]
    fn a_secret_is_base64_and_never_shown() {
        assert_eq!(decode_base64("aGVsbG8="), Some(b"hello".to_vec()));
        assert_eq!(decode_base64("aGVsbG8h"), Some(b"hello!".to_vec()));
        for wrong in ["aGVsbG8", "a===", "aGV sbG8", "????"] {
            assert_eq!(decode_base64(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{:?}", read("aGVsbG8=\n", 0o600).unwrap()), "Key { algorithm: HmacSha256, .. }");
    }

    #[test]
    fn only_its_owner_may_read_a_key_file() {
        for open in [0o640, 0o604, 0o620, 0o601, 0o666] {
            let error = read("aGVsbG8=\n", open).unwrap_err();
            assert!(error.contains(&format!("(mode {open:04o})")), "{error}");
        }
        assert!(read("aGVsbG8=\n", 0o400).is_ok());
    }

    #[test]
    fn what_is_no_key_is_told_without_its_text() {
        let long = "A".repeat(1 << 20);
        let mut said: Vec<String> = ["", "key lab { secret aGVsbG8=; };", "pass word", &long[..4095]]
            .map(|text| read(text, 0o600).unwrap_err())
            .into();
        said.dedup();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(!said[0].contains("aGVs") && !said[0].contains("pass"), "{said:?}");

        let folder = tempfile::tempdir().unwrap();
        let none = Key::read(&settings(folder.path().join("none"))).unwrap_err();
        assert!(none.is_absent(), "{none}");
        assert!(matches!(Key::read(&settings(folder.path().to_owned())), Err(KeyError::NotAFile { .. })));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(Key::read(&settings(pipe)), Err(KeyError::NotAFile { .. })), "and it is not waited for");
    }

    /// RFC 4231, test case 2.
    #[test]
    fn a_signature_is_that_of_the_rfc() {
        let key = for_tests(b"Jefe");
        let signature = key.sign(b"what do ya want for nothing?");
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(key.signed(b"what do ya want for nothing?", &signature));
        assert!(!key.signed(b"what do ya want for nothing?", &signature[..31]));
        assert!(!key.signed(b"what do ya want for nothing?", &[]));
        assert!(!key.signed(b"what do ya want for something?", &signature));
    }

    #[test]
    fn signatures_have_their_length() {
        for algorithm in [Algorithm::HmacMd5, Algorithm::HmacSha256, Algorithm::HmacSha512] {
            let key = Key { algorithm, secret: b"hello".to_vec() };
            assert_eq!(key.sign(b"x").len(), key.signature_bytes() as usize);
        }
    }
}
