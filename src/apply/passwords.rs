//! The passwords of guests that have a seed, one for each disk that boots. They stand beside the state, on the controller's own
//! disk, where nobody but its account reads them; shared storage has their salted hashes alone.
//!
//! ```text
//! state.db.passwords/   0700
//!   LAB/                0700
//!     INSTANCE          0600: the password and its hash, a line each
//! ```

use std::fs::DirBuilder;
use std::io::{Error, ErrorKind, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha_crypt::{PasswordHasher as _, ShaCrypt};

use crate::files::{self, FileError, Flush, Folder};
use crate::model::id::LabName;

/// Neither letters nor digits that are taken for others, nor those that keyboards have in other places.
const LETTERS: &[u8; 25] = b"bcdefghjknprstuvx23456789";
/// Some 65 bits.
const LETTERS_DRAWN: usize = 14;
const FILE_BYTES_MAX: u64 = 1024;

/// A password, and what a guest is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestPassword {
    pub text: String,
    /// As `crypt(3)` has it, with SHA-512 and a salt.
    pub hash: String,
}

/// The password of a disk, drawn now where it has none.
pub fn drawn(state: &Path, lab: &LabName, instance: &str) -> Result<GuestPassword, FileError> {
    if let Some(known) = known(state, lab, instance)? {
        return Ok(known);
    }
    let path = folder(state, lab);
    let io = |action| {
        let path = path.clone();
        move |source| FileError { action, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io("create"))?;
    let opened = Folder::open(&path)?.ok_or_else(|| io("open")(ErrorKind::NotFound.into()))?;
    let GuestPassword { text, hash } = draw().map_err(io("draw a password for"))?;
    // Who comes second takes what the first has drawn.
    opened.write_first(instance, format!("{text}\n{hash}\n").as_bytes(), 0o600, Flush::Now)?;
    known(state, lab, instance)?.ok_or_else(|| io("read")(ErrorKind::NotFound.into()))
}

/// The password of a disk; `None` where none was drawn.
pub fn known(state: &Path, lab: &LabName, instance: &str) -> Result<Option<GuestPassword>, FileError> {
    let path = folder(state, lab).join(instance);
    let Some(bytes) = files::read_bounded(&path, FILE_BYTES_MAX)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = text.lines().map(str::to_owned);
    match (lines.next(), lines.next()) {
        (Some(text), Some(hash)) if hash.starts_with("$6$") => Ok(Some(GuestPassword { text, hash })),
        _ => Err(FileError { action: "understand", path, source: Error::other("it holds no password and its hash") }),
    }
}

/// The disk is gone for good.
pub fn forget(state: &Path, lab: &LabName, instance: &str) -> Result<(), FileError> {
    let path = folder(state, lab).join(instance);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(FileError { action: "remove", path, source }),
        _ => Ok(()),
    }
}

fn folder(state: &Path, lab: &LabName) -> PathBuf {
    let mut all = state.as_os_str().to_owned();
    all.push(".passwords");
    PathBuf::from(all).join(lab.as_str())
}

fn draw() -> std::io::Result<GuestPassword> {
    let mut random = std::fs::File::open("/dev/urandom")?;
    let mut text = String::new();
    while text.len() < LETTERS_DRAWN {
        let mut byte = [0_u8];
        random.read_exact(&mut byte)?;
        // 250 is a multiple of 25: every letter is as likely.
        if byte[0] < 250 {
            text.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
        }
    }
    let mut salt = [0_u8; 12];
    random.read_exact(&mut salt)?;
    let hash = ShaCrypt::SHA512.hash_password_with_salt(text.as_bytes(), &salt).map_err(Error::other)?;
    Ok(GuestPassword { text, hash: hash.to_string() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_password_stays_and_nobody_else_reads_it() {
        let root = tempfile::tempdir().unwrap();
        let (state, lab) = (root.path().join("state.db"), LabName::new("lan").unwrap());
        assert_eq!(known(&state, &lab, "a-1").unwrap(), None);
        let first = drawn(&state, &lab, "a-1").unwrap();
        assert_eq!(drawn(&state, &lab, "a-1").unwrap(), first);
        assert_ne!(drawn(&state, &lab, "a-2").unwrap().text, first.text);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = root.path().join("state.db.passwords/lan");
        assert_eq!([mode(folder.parent().unwrap()), mode(&folder), mode(&folder.join("a-1"))], [0o700, 0o700, 0o600]);
        forget(&state, &lab, "a-1").unwrap();
        forget(&state, &lab, "a-1").unwrap();
        assert_eq!(known(&state, &lab, "a-1").unwrap(), None);
        std::fs::write(folder.join("a-2"), "torn").unwrap();
        assert!(drawn(&state, &lab, "a-2").unwrap_err().source.to_string().contains("no password"));
    }

    /// Guests check it with their own `crypt(3)`.
    #[test]
    fn the_hash_is_what_others_make_of_the_password() {
        let GuestPassword { text, hash } = draw().unwrap();
        let parts: Vec<&str> = hash.split('$').collect();
        assert_eq!(parts[1], "6", "{hash}");
        let salt = parts[parts.len() - 2];
        let openssl =
            std::process::Command::new("openssl").args(["passwd", "-6", "-salt", salt, &text]).output().unwrap();
        let theirs = String::from_utf8(openssl.stdout).unwrap();
        assert_eq!(hash.replace("rounds=5000$", ""), theirs.trim());
    }
}
