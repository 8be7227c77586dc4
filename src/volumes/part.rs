//! A part of a disk, as what reads file systems wants it: nothing outside it can be reached, and nothing is written.

use std::io::{self, Error, ErrorKind, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use ext4_view::Ext4Read;

use super::disk::Disk;

#[derive(Clone)]
pub(super) struct Part {
    disk: Rc<Disk>,
    start: u64,
    bytes: u64,
    position: u64,
}

impl Part {
    /// From there on, as far as the disk goes.
    pub(super) fn new(disk: &Rc<Disk>, start: u64, bytes: u64) -> Self {
        let bytes = bytes.min(disk.bytes().saturating_sub(start));
        Self { disk: disk.clone(), start, bytes, position: 0 }
    }

    pub(super) fn read_at(&self, from: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = from.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.disk.read_at(self.start + from, buffer)
    }
}

impl Ext4Read for Part {
    fn read(&mut self, from: u64, buffer: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.read_at(from, buffer)?)
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        self.read_at(self.position, &mut buffer[..length])?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// What reads FAT could write, too.
impl Write for Part {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(Error::from(ErrorKind::ReadOnlyFilesystem))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
