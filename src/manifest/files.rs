//! Finds and reads the files of a lab: every `*.yaml` and `*.yml` below its folder, in the order of their names. Bounded
//! in size and number, since the folder may come from anybody.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rules::Rule;
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};

/// Largest file. 10,000 vms written out have 9 MB.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;
/// All files of a lab together.
const LAB_BYTES_MAX: u64 = 48 << 20;
/// Most manifest files of a lab.
const FILES_MAX: usize = 2000;
/// Most folder entries that are looked at.
const ENTRIES_MAX: usize = 100_000;
/// Deepest folder below the lab's.
const DEPTH_MAX: usize = 16;

/// The folder or a file in it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the lab's folder {path}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("cannot read {path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a folder: name the folder that holds the lab's files")]
    NotAFolder { path: PathBuf },
    #[error("{path} has more than {ENTRIES_MAX} files and folders below it: is it the lab's folder?")]
    TooMany { path: PathBuf },
}

/// One file that was read.
#[derive(Debug, Clone)]
pub struct ManifestFile {
    pub source: Arc<Source>,
    /// Relative to the lab's folder, for `Origin`.
    pub relative: String,
    /// Absolute folder of the file, which its paths are relative to.
    pub folder: PathBuf,
}

/// The manifest files below `folder`, sorted by name.
pub(super) fn find(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let error = |path: &Path, source| LoadError::Folder { path: path.to_owned(), source };
    let metadata = std::fs::metadata(folder).map_err(|source| error(folder, source))?;
    if !metadata.is_dir() {
        return Err(LoadError::NotAFolder { path: folder.to_owned() });
    }
    let mut found = Vec::new();
    let mut entries = 0;
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((relative, depth)) = folders.pop() {
        let path = folder.join(&relative);
        for entry in std::fs::read_dir(&path).map_err(|source| error(&path, source))? {
            let entry = entry.map_err(|source| error(&path, source))?;
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(LoadError::TooMany { path: folder.to_owned() });
            }
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            let kind = entry.file_type().map_err(|source| error(&path, source))?;
            let relative = relative.join(name);
            // A link to a folder is not followed: it could lead back up.
            if kind.is_dir() && depth < DEPTH_MAX {
                folders.push((relative, depth + 1));
            } else if !kind.is_dir() && is_manifest(name) {
                found.push(relative);
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn is_manifest(name: &str) -> bool {
    let path = Path::new(name);
    let extension = path.extension().and_then(|e| e.to_str());
    matches!(extension, Some("yaml" | "yml")) && !matches!(name, "site.yaml" | "site.yml")
}

/// Counts what a lab's files take together.
#[derive(Debug, Default)]
pub(super) struct Budget {
    bytes: u64,
    files: usize,
}

/// Where the bytes of files come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Files<'a> {
    Disk,
    /// By absolute path; nothing else exists.
    Memory(&'a BTreeMap<PathBuf, Vec<u8>>),
}

impl Files<'_> {
    /// A file's bytes up to one more than the largest allowed; `None` for what is no ordinary file.
    fn read(self, path: &Path) -> Result<Option<Vec<u8>>, std::io::Error> {
        match self {
            Self::Disk => {
                // A named pipe would block here for ever, before anything could say so.
                if !std::fs::metadata(path)?.is_file() {
                    return Ok(None);
                }
                let mut bytes = Vec::new();
                std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Self::Memory(files) => match files.get(path) {
                Some(bytes) => Ok(Some(bytes.clone())),
                None => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
            },
        }
    }
}

/// Reads a file whole, as bytes. `None` after a finding: too big, or no ordinary file.
pub(super) fn read_bytes(
    files: Files<'_>,
    path: &Path,
    name: &str,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> Result<Option<Vec<u8>>, std::io::Error> {
    let mut too_big = |message: String, hint: &str| {
        diagnostics.push(Diagnostic::new(Rule::TooBig, message).hint(hint));
        Ok(None)
    };
    budget.files += 1;
    if budget.files > FILES_MAX {
        return too_big(
            format!("`{name}` is one file too many: a lab has at most {FILES_MAX}"),
            "name the folder of one lab, or put several things into one file",
        );
    }
    let Some(bytes) = files.read(path)? else {
        return too_big(format!("`{name}` is not an ordinary file"), "put a regular file there");
    };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return too_big(
            format!("`{name}` is larger than {} MiB", FILE_BYTES_MAX >> 20),
            "is it a manifest? images and archives do not belong into files that end in `.yaml` or into a roster",
        );
    }
    budget.bytes += bytes.len() as u64;
    if budget.bytes > LAB_BYTES_MAX {
        return too_big(
            format!("with `{name}` the lab's files are larger than {} MiB", LAB_BYTES_MAX >> 20),
            "use `for_each` and rosters instead of vms written out one by one",
        );
    }
    Ok(Some(bytes))
}

/// The text of a manifest, which is UTF-8. `None` after a finding.
pub(super) fn text(name: &str, bytes: Vec<u8>, diagnostics: &mut Diagnostics) -> Option<Arc<Source>> {
    let (source, bad) = match String::from_utf8(bytes) {
        Ok(text) => {
            let nul = text.find('\0');
            (Arc::new(Source::new(name, text)), nul.map(|at| (at, "a NUL byte")))
        }
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            (Arc::new(Source::new(name, text)), Some((at, "a byte that is not UTF-8")))
        }
    };
    let Some((at, what)) = bad else { return Some(source) };
    let message = format!("the file has {what} here, so it is not text that we can read");
    let hint = "save it as UTF-8; most editors have \"Save with encoding\"";
    diagnostics.push(Diagnostic::new(Rule::NotText, message).at(Span::new(&source, at..at + 1)).hint(hint));
    None
}
