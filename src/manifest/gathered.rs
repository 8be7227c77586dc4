//! A lab's files as one text, to be understood by somebody who has no folder to look into: what `load` would read of it, and the
//! names of what it would warn of.
//!
//! ```text
//! {"folder": …, "shown": …, "manifests": […], …, "files": [["/home/ana/lan/lab.yaml", 412], …]}   one line
//! the bytes of the files, one behind the other
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, Error, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::compose::{Loaded, Loader};
use super::files::{self, Files, Found, LoadError};
use super::images::Checksums;

/// Longest line with the names of a lab's files.
const HEAD_BYTES_MAX: u64 = 4 << 20;

/// What a lab's files hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    /// Absolute.
    pub folder: PathBuf,
    /// The folder as its user named it.
    pub shown: PathBuf,
    names: Names,
    /// By absolute path; rosters may lie elsewhere.
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// By paths relative to the lab's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    manifests: Vec<PathBuf>,
    alike: Vec<PathBuf>,
    lost_links: Vec<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    folder: PathBuf,
    shown: PathBuf,
    names: Names,
    files: Vec<(PathBuf, u64)>,
}

/// Reads a lab as `load` does, and keeps what was read.
pub fn gather(folder: &Path) -> Result<(Loaded, Gathered), LoadError> {
    let absolute =
        std::path::absolute(folder).map_err(|source| LoadError::Folder { path: folder.to_owned(), source })?;
    let kept = RefCell::default();
    let mut loader = Loader::new(absolute.clone(), folder.to_owned(), Files::Kept(&kept), Checksums::Small);
    let mut ignore = loader.read_ignore()?;
    let Found { manifests, alike, not_text, lost_links } = files::find(folder, &mut ignore)?;
    let names = Names { manifests: manifests.clone(), alike: alike.clone(), lost_links: lost_links.clone() };
    let loaded = loader.load(Found { manifests, alike, not_text, lost_links })?;
    Ok((loaded, Gathered { folder: absolute, shown: folder.to_owned(), names, files: kept.into_inner() }))
}

impl Gathered {
    /// The lab that these files are. Its images are out of sight.
    pub fn load(&self) -> Result<Loaded, LoadError> {
        let Names { manifests, alike, lost_links } = self.names.clone();
        let loader = Loader::new(self.folder.clone(), self.shown.clone(), Files::Memory(&self.files), Checksums::Small);
        loader.load(Found { manifests, alike, lost_links, not_text: Vec::new() })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let files = self.files.iter().map(|(path, bytes)| (path.clone(), bytes.len() as u64)).collect();
        let (folder, shown, names) = (self.folder.clone(), self.shown.clone(), self.names.clone());
        let head = Head { folder, shown, names, files };
        let mut bytes = serde_json::to_vec(&head).expect("paths of manifests are text");
        bytes.push(b'\n');
        bytes.extend(self.files.values().flatten());
        bytes
    }

    /// Takes no more memory than `bytes_max` and a bit, whatever the first line says.
    pub fn read(from: &mut impl BufRead, bytes_max: u64) -> std::io::Result<Self> {
        let mut head = Vec::new();
        from.by_ref().take(HEAD_BYTES_MAX).read_until(b'\n', &mut head)?;
        let Head { folder, shown, names, files } = serde_json::from_slice(&head)?;
        let wrong = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
        let all = files.iter().try_fold(0_u64, |all, (_, bytes)| all.checked_add(*bytes));
        if all.is_none_or(|all| all > bytes_max) {
            return Err(wrong("the files are longer than a lab's may be"));
        }
        if !folder.is_absolute() || files.iter().any(|(path, _)| !path.is_absolute()) {
            return Err(wrong("a path is not absolute"));
        }
        let mut kept = BTreeMap::new();
        for (path, length) in files {
            let mut bytes = Vec::new();
            from.by_ref().take(length).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != length {
                return Err(wrong("the files end before their end"));
            }
            kept.insert(path, bytes);
        }
        Ok(Self { folder, shown, names, files: kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_the_same_when_it_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let lab = folder.path().join("lab");
        std::fs::create_dir_all(lab.join("sub")).unwrap();
        let manifest = "lab: a\nuser_groups: { s: { roster: ../s.csv } }\nsessions: { f: { vms: [], start: 2027-01-12T09:00Z, \
                        duration: 2h, accommodations: ../needs.csv } }\n";
        // For its owner alone to read, who sends it along.
        let needs = folder.path().join("needs.csv");
        std::fs::write(&needs, "user,minutes\nana,15\n").unwrap();
        std::fs::set_permissions(&needs, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(lab.join("lab.yaml"), manifest).unwrap();
        std::fs::write(lab.join("sub/more.yml"), "users: { bob: {} }\n").unwrap();
        std::fs::write(lab.join("old.yaml.txt"), "no").unwrap();
        std::fs::write(folder.path().join("s.csv"), b"user,name\nana,\xc4nne\n").unwrap();
        let (loaded, gathered) = gather(&lab).unwrap();
        let sent = Gathered::read(&mut gathered.to_bytes().as_slice(), 1 << 20).unwrap();
        assert_eq!(sent, gathered);
        let again = sent.load().unwrap();
        let said = |loaded: &Loaded| loaded.diagnostics.list.iter().map(|d| d.message.clone()).collect::<Vec<_>>();
        assert_eq!(said(&again), said(&loaded));
        assert_eq!(format!("{:?}", again.manifest.rosters), format!("{:?}", loaded.manifest.rosters));
        assert_eq!(again.manifest.users.0.len(), 1);
        assert_eq!(again.manifest.accommodations, loaded.manifest.accommodations);
        assert_eq!(again.manifest.accommodations.len(), 1);
        for (spoilt, bytes_max) in [(gathered.to_bytes(), 20), (gathered.to_bytes()[..90].to_vec(), 1 << 20)] {
            assert!(Gathered::read(&mut spoilt.as_slice(), bytes_max).is_err());
        }
        let lies = |files: &str| {
            let names = r#"{"manifests":[],"alike":[],"lost_links":[]}"#;
            let head = format!("{{\"folder\":\"/a\",\"shown\":\"a\",\"names\":{names},\"files\":{files}}}\n");
            Gathered::read(&mut head.as_bytes(), 1 << 20).unwrap_err().to_string()
        };
        assert_eq!(
            lies(r#"[["/a/b", 18446744073709551615], ["/a/c", 2]]"#),
            "the files are longer than a lab's may be"
        );
        assert_eq!(lies(r#"[["/a/b", 5]]"#), "the files end before their end");
        assert_eq!(lies(r#"[["b", 0]]"#), "a path is not absolute");
    }
}
