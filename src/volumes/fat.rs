//! FAT12, FAT16 and FAT32, as on sticks and EFI partitions.

use std::io::Read as _;

use fatfs::{Dir, FileSystem as Fatfs, FsOptions};

use super::part::Part;
use super::walk::{FileSystem, Found, Kind, Look};

pub(super) struct Fat(Fatfs<Part>);

impl Fat {
    pub(super) fn open(part: Part) -> Result<Self, String> {
        Fatfs::new(part, FsOptions::new()).map(Self).map_err(|error| error.to_string())
    }

    fn folder(&self, path: &[u8]) -> Result<Dir<'_, Part>, String> {
        let root = self.0.root_dir();
        if path.is_empty() { Ok(root) } else { root.open_dir(text(path)?).map_err(|error| error.to_string()) }
    }
}

/// Names were made text when they were read.
fn text(path: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(path).map_err(|error| error.to_string())
}

impl FileSystem for Fat {
    fn list(&self, folder: &[u8], each: &mut dyn FnMut(&[u8], &Look<'_>) -> bool) -> Result<(), String> {
        for entry in self.folder(folder)?.iter() {
            let entry = entry.map_err(|error| error.to_string())?;
            let look = || {
                let kind = if entry.is_dir() { Kind::Folder } else { Kind::File };
                Ok(Found { kind, bytes: entry.len(), modified: modified(&entry) })
            };
            if !each(entry.file_name().as_bytes(), &look) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, file: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
        let file = self.0.root_dir().open_file(text(file)?).map_err(|error| error.to_string())?;
        let mut content = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut content).map_err(|error| error.to_string())?;
        Ok(content)
    }
}

/// FAT knows no time zone: its clock is taken for UTC.
fn modified(entry: &fatfs::DirEntry<'_, Part>) -> Option<i64> {
    let at = entry.modified();
    let number = |value: u16| i8::try_from(value).ok();
    let date = jiff::civil::Date::new(i16::try_from(at.date.year).ok()?, number(at.date.month)?, number(at.date.day)?);
    let time = jiff::civil::Time::new(number(at.time.hour)?, number(at.time.min)?, number(at.time.sec)?, 0);
    let there = date.ok()?.to_datetime(time.ok()?);
    Some(jiff::tz::TimeZone::UTC.to_timestamp(there).ok()?.as_second())
}
