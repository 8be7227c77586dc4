//! Finds and reads the files of a lab: every `*.yaml` and `*.yml` below its folder, in the order of their names, and says
//! what looks like one and is not read. Bounded in size and number, since the folder may come from anybody.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ignore::Ignore;
use crate::model::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::model::rules::Rule;

/// Largest file. 10,000 vms written out have 9 MB.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;
/// All files of a lab together.
const LAB_BYTES_MAX: u64 = 48 << 20;
/// Most manifest files of a lab.
const FILES_MAX: usize = 2000;
/// Most folder entries that are looked at.
const ENTRIES_MAX: usize = 100_000;

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

/// Where files of people's homes seem to be, for who reads a lab's files as they were sent: a manifest says `~/`.
pub(super) const HOME: &str = "/~";

/// One file that was read.
#[derive(Debug, Clone)]
pub struct ManifestFile {
    pub source: Arc<Source>,
    /// Relative to the lab's folder, for `Origin`.
    pub relative: String,
    /// Absolute folder of the file, which its paths are relative to.
    pub folder: PathBuf,
}

/// What a look through the lab's folder found, by paths relative to it, each list sorted.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) manifests: Vec<PathBuf>,
    /// Looks like a manifest, and is not read: `lab.yaml.txt`.
    pub(super) alike: Vec<PathBuf>,
    /// Would be a manifest, if its path were text.
    pub(super) not_text: Vec<PathBuf>,
    /// Links that lead nowhere, or back up to a folder that holds the lab.
    pub(super) lost_links: Vec<PathBuf>,
}

/// Looks through everything below `folder`, linked folders too, but what `ignore` leaves out.
pub(super) fn find(folder: &Path, ignore: &mut Ignore) -> Result<Found, LoadError> {
    let metadata = std::fs::metadata(folder).map_err(|source| error_at(folder, source))?;
    if !metadata.is_dir() {
        return Err(LoadError::NotAFolder { path: folder.to_owned() });
    }
    let mut walk = Walk {
        folder,
        ignore,
        found: Found::default(),
        entries: 0,
        folders: vec![PathBuf::new()],
        links: Vec::new(),
        seen: HashSet::new(),
    };
    walk.all()?;
    let mut found = walk.found;
    for list in [&mut found.manifests, &mut found.alike, &mut found.not_text, &mut found.lost_links] {
        list.sort();
    }
    Ok(found)
}

fn error_at(path: &Path, source: std::io::Error) -> LoadError {
    LoadError::Folder { path: path.to_owned(), source }
}

struct Walk<'a> {
    folder: &'a Path,
    ignore: &'a mut Ignore,
    found: Found,
    entries: usize,
    folders: Vec<PathBuf>,
    /// Linked folders wait until all others were looked through, so that what can be reached in two ways has its plain name.
    links: Vec<PathBuf>,
    /// Device and inode of the folders that were looked through: no link leads round in circles.
    seen: HashSet<(u64, u64)>,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), LoadError> {
        while let Some(relative) = self.folders.pop().or_else(|| self.links.pop()) {
            let path = self.folder.join(&relative);
            let metadata = std::fs::metadata(&path).map_err(|source| error_at(&path, source))?;
            if !self.seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            for entry in std::fs::read_dir(&path).map_err(|source| error_at(&path, source))? {
                let entry = entry.map_err(|source| error_at(&path, source))?;
                let kind = entry.file_type().map_err(|source| error_at(&path, source))?;
                self.entries += 1;
                if self.entries > ENTRIES_MAX {
                    return Err(LoadError::TooMany { path: self.folder.to_owned() });
                }
                self.entry(relative.join(entry.file_name()), kind);
            }
        }
        Ok(())
    }

    fn entry(&mut self, relative: PathBuf, kind: std::fs::FileType) {
        let name = relative.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            return;
        }
        let target = kind.is_symlink().then(|| std::fs::metadata(self.folder.join(&relative)));
        let is_folder = kind.is_dir() || matches!(&target, Some(Ok(target)) if target.is_dir());
        if self.ignore.covers(&relative, is_folder) {
            return;
        }
        match target {
            // What ends in `.yaml` is read and then said to be missing; what has another ending is no manifest.
            Some(Err(_)) if !name.contains('.') => self.found.lost_links.push(relative),
            Some(_) if is_folder && self.leads_up(&relative) => self.found.lost_links.push(relative),
            Some(_) if is_folder => self.links.push(relative),
            _ if is_folder => self.folders.push(relative),
            _ => self.file(relative, &name),
        }
    }

    fn file(&mut self, relative: PathBuf, name: &str) {
        let list = match (is_manifest(name), relative.to_str()) {
            (true, Some(_)) => &mut self.found.manifests,
            (true, None) => &mut self.found.not_text,
            (false, _) if is_like_manifest(name) => &mut self.found.alike,
            (false, _) => return,
        };
        list.push(relative);
    }

    /// Whether a linked folder holds the lab itself.
    fn leads_up(&self, relative: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().ok();
        let both = real(&self.folder.join(relative)).zip(real(self.folder));
        both.is_some_and(|(link, lab)| link != lab && lab.starts_with(link))
    }
}

/// Whether a file of this name is part of a lab.
pub fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    is_yaml(extension) && !matches!(name, "site.yaml" | "site.yml")
}

fn is_yaml(extension: &str) -> bool {
    extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
}

/// Whether somebody may take a file for a manifest though its name does not end like one's: a copy, an ending that Windows
/// hid, a slip of the fingers.
fn is_like_manifest(name: &str) -> bool {
    if matches!(name, "site.yaml" | "site.yml") {
        return false;
    }
    let words = |part: &str| part.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let endings: Vec<String> = name.split('.').skip(1).map(words).collect();
    let slip = endings.last().is_some_and(|last| strsim::damerau_levenshtein(&last.to_lowercase(), "yaml") <= 1);
    slip || endings.iter().any(|ending| is_yaml(ending))
}

/// The folder of the lab that a path means: itself, or the folder of a file.
pub fn lab_folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if path.is_file() => {
            if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            }
        }
        _ => path,
    }
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
    /// The same, and what was read is kept, by its path.
    Kept(&'a RefCell<BTreeMap<PathBuf, Vec<u8>>>),
    /// By absolute path; nothing else exists.
    Memory(&'a BTreeMap<PathBuf, Vec<u8>>),
}

impl Files<'_> {
    /// A file's bytes up to one more than the largest allowed; `None` for what is no ordinary file.
    fn read(self, path: &Path) -> Result<Option<Vec<u8>>, std::io::Error> {
        match self {
            Self::Disk => {
                let below_home = path.strip_prefix(HOME).ok().and_then(|below| Some(std::env::home_dir()?.join(below)));
                let path = below_home.as_deref().unwrap_or(path);
                // A named pipe would block here for ever, before anything could say so.
                if !std::fs::metadata(path)?.is_file() {
                    return Ok(None);
                }
                let mut bytes = Vec::new();
                std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Self::Kept(kept) => {
                let read = Self::Disk.read(path)?;
                kept.borrow_mut().extend(read.clone().map(|bytes| (path.to_owned(), bytes)));
                Ok(read)
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
