//! A qcow2 disk over its base, as the bytes that the guest saw.

use std::fs::File;
use std::io::{self, Error};

use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder as _, StorageOpenOptions};

/// A disk that is read.
pub(super) struct Disk(FormatAccess<Storage>);

impl Disk {
    /// A disk by its files, the guest's own first, each over the next. Nothing that a header names is opened.
    pub(super) fn open(files: Vec<File>) -> io::Result<Self> {
        let mut below: Option<FormatAccess<Storage>> = None;
        for file in files.into_iter().rev() {
            let storage = Storage::from_open_file(file, StorageOpenOptions::new())?;
            let is_lowest = below.is_none();
            let opening = Qcow2::<Storage>::builder(storage).backing(below.take());
            let image = opening.open(DenyImplicitOpenGate::default())?;
            if is_lowest && image.implicit_backing_file().is_some() {
                return Err(Error::other("it derives from a disk that is not recorded"));
            }
            below = Some(FormatAccess::new(image));
        }
        below.map(Self).ok_or_else(|| Error::other("no file of it was given"))
    }

    /// What the guest saw as its size.
    pub(super) fn bytes(&self) -> u64 {
        self.0.size()
    }

    /// Fills the buffer from there on; beyond the end it is an error.
    pub(super) fn read_at(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = start.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.bytes()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.read(buffer, start)
    }
}
