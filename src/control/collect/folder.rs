//! Where it goes: a folder for each vm of each time, which has its name once all of it is there, and the list of all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::CollectError;
use super::receipt::{Kept, Receipt};
use crate::model::hexadecimal;
use crate::state::RecordedDisk;
use crate::volumes::place;

pub(super) const LIST: &str = "collected.csv";
pub(super) const MANIFEST: &str = "manifest.json";
const RECEIPT: &str = "receipt.txt";
const COLUMNS: [&str; 10] =
    ["student", "vm", "result", "submission", "files", "bytes", "collected", "by", "why", "note"];
/// Students' work is read by who collects it.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const COPIED_BYTES: usize = 1 << 20;

fn write(path: &Path) -> impl FnOnce(io::Error) -> CollectError {
    let path = path.to_owned();
    move |source| CollectError::Write { path, source }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// What stands where a vm's submission goes.
pub(super) struct Place {
    pub(super) earlier: Option<PathBuf>,
    /// What it is called the first time.
    name: String,
}

impl Place {
    /// `vm` is the name of its folder.
    pub(super) fn of(student: &Path, vm: &str, is_look: bool) -> Self {
        let name = if is_look { format!("{vm}.look") } else { vm.to_owned() };
        let first = student.join(&name);
        Self { earlier: first.symlink_metadata().is_ok().then_some(first), name }
    }
}

/// A folder on its way.
pub(super) struct Folder {
    student: PathBuf,
    name: String,
    draft: PathBuf,
    /// Names of one file system are in one folder.
    volume: usize,
    is_volume_used: bool,
}

impl Folder {
    /// `process` tells drafts of two who collect at the same time apart.
    pub(super) fn begin(student: &Path, place: Place, process: u32) -> Result<Self, CollectError> {
        make(student).map_err(write(student))?;
        let draft = student.join(format!(".{}.{}.part", place.name, process));
        let made = make(&draft);
        made.map_err(write(&draft))?;
        Ok(Self { student: student.to_owned(), name: place.name, draft, volume: 1, is_volume_used: false })
    }

    /// What comes is of another file system.
    pub(super) fn next_volume(&mut self) {
        self.volume += usize::from(std::mem::take(&mut self.is_volume_used));
    }

    /// Writes a file; answers with its path below the folder and its sha256, or nothing where its name is another's already, as
    /// that of a folder.
    pub(super) fn take(
        &mut self,
        written: &str,
        bytes: u64,
        content: &mut dyn Read,
    ) -> Result<Option<(String, String)>, CollectError> {
        let Some(below) = place(written) else { return drain(content, &self.draft).map(|()| None) };
        let top = if self.volume == 1 { "files".to_owned() } else { format!("files.{}", self.volume) };
        let path = self.draft.join(&top).join(below);
        let file = make(path.parent().unwrap_or(&self.draft)).and_then(|()| create(&path));
        let mut file = match file {
            Ok(file) => file,
            Err(error) if is_taken(&error) => return drain(content, &path).map(|()| None),
            Err(error) => return Err(write(&path)(error)),
        };
        self.is_volume_used = true;
        let (mut hash, mut buffer) =
            (Sha256::new(), vec![0; COPIED_BYTES.min(usize::try_from(bytes).unwrap_or(0) + 1)]);
        loop {
            match content.read(&mut buffer).map_err(write(&path))? {
                0 => break,
                length => {
                    hash.update(&buffer[..length]);
                    file.write_all(&buffer[..length]).map_err(write(&path))?;
                }
            }
        }
        Ok(Some((format!("{top}/{written}"), hexadecimal(&hash.finalize()))))
    }

    /// Copies a disk as it is; where it is empty, the copy has holes.
    pub(super) fn keep(&self, disk: &File, recorded: &RecordedDisk) -> Result<Kept, CollectError> {
        let name = format!("disk-{}.qcow2", recorded.slot);
        let path = self.draft.join(&name);
        let copy = create(&path).map_err(write(&path))?;
        let (mut at, mut hash, mut buffer) = (0, Sha256::new(), vec![0; COPIED_BYTES]);
        loop {
            let reading = |source| CollectError::Read { path: recorded.path.clone(), source };
            let length = disk.read_at(&mut buffer, at).map_err(reading)?;
            if length == 0 {
                break;
            }
            hash.update(&buffer[..length]);
            if buffer[..length].iter().any(|byte| *byte != 0) {
                copy.write_all_at(&buffer[..length], at).map_err(write(&path))?;
            }
            at += length as u64;
        }
        copy.set_len(at).map_err(write(&path))?;
        Ok(Kept { path: name, bytes: at, sha256: hexadecimal(&hash.finalize()) })
    }

    /// Writes what is to be known of it, and gives it the first name that is free.
    pub(super) fn end(self, receipt: &Receipt, page: fn(&Receipt) -> String) -> Result<PathBuf, CollectError> {
        let manifest = serde_json::to_string_pretty(receipt).expect("a receipt has only string keys") + "\n";
        for (name, text) in [(MANIFEST, manifest), (RECEIPT, page(receipt))] {
            let path = self.draft.join(name);
            create(&path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(write(&path))?;
        }
        for number in 1.. {
            let name = if number == 1 { self.name.clone() } else { format!("{}.{number}", self.name) };
            let place = self.student.join(name);
            if place.symlink_metadata().is_ok() {
                continue;
            }
            // A folder that somebody made meanwhile is not empty, and is not replaced.
            match std::fs::rename(&self.draft, &place) {
                Ok(()) => return Ok(place),
                Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {}
                Err(error) => return Err(write(&place)(error)),
            }
        }
        unreachable!("numbers do not end")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Once it has its name, there is nothing here; what a failure leaves has a name that begins with a dot.
        let _ = std::fs::remove_dir_all(&self.draft);
        // Where it was the only one, an empty folder would look as if there were something.
        let _ = std::fs::remove_dir(&self.student);
    }
}

/// Another file or folder has the name.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename
    )
}

fn drain(content: &mut dyn Read, path: &Path) -> Result<(), CollectError> {
    io::copy(content, &mut io::sink()).map(drop).map_err(write(path))
}

/// One line for each vm of each time; lines are added and none is changed.
pub(super) struct List {
    path: PathBuf,
    file: File,
}

impl List {
    pub(super) fn open(folder: &Path) -> Result<Self, CollectError> {
        make(folder).map_err(write(folder))?;
        let path = folder.join(LIST);
        let opened = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&path);
        let list = Self { file: opened.map_err(write(&path))?, path };
        if list.file.metadata().map_err(write(&list.path))?.len() == 0 {
            list.line(&COLUMNS.map(str::to_owned))?;
        }
        Ok(list)
    }

    pub(super) fn add(&self, receipt: &Receipt, note: fn(&Receipt) -> String) -> Result<(), CollectError> {
        let word = serde_json::to_value(receipt.verdict).ok().and_then(|word| word.as_str().map(str::to_owned));
        self.line(&[
            receipt.student.clone(),
            receipt.vm.clone(),
            word.unwrap_or_default(),
            (if receipt.is_submission { "yes" } else { "no" }).to_owned(),
            receipt.files.len().to_string(),
            receipt.bytes().to_string(),
            format!("{:.0}", receipt.collected),
            receipt.by.clone(),
            receipt.why.clone().unwrap_or_default(),
            note(receipt),
        ])
    }

    fn line(&self, cells: &[String; 10]) -> Result<(), CollectError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(cells.iter().map(|cell| harmless(cell))).expect("memory takes all");
        let line = writer.into_inner().expect("memory takes all");
        (&self.file).write_all(&line).map_err(write(&self.path))
    }

    /// All that was collected is on the disk when this returns.
    pub(super) fn end(self) -> Result<(), CollectError> {
        nix::unistd::syncfs(&self.file).map_err(|errno| write(&self.path)(errno.into()))
    }
}

/// A spreadsheet takes a cell that begins like this for a formula.
fn harmless(cell: &str) -> String {
    let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell }
}
