//! The sealed side: an order comes in, what it wants of the disk goes out.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::rc::Rc;

use super::disk::Disk;
use super::ext::Ext;
use super::fat::Fat;
use super::part::Part;
use super::partitions::{Region, find};
use super::sniff::{Content, sniff};
use super::walk::{FileSystem, Walk};
use super::{DISK_BYTES_MAX, FILES_MAX, Holds, LISTED_MAX, LOOKS_MAX, Left, Order, Record};

/// More patterns than anybody writes.
const ORDER_BYTES_MAX: u64 = 1 << 20;
/// Things that were left are told one by one, up to here.
const LEFT_MAX: usize = 1000;

/// Reads one disk by its open files, the guest's own first, each over the next.
pub fn read_out(files: Vec<File>, from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let order: Order = serde_json::from_reader(from.take(ORDER_BYTES_MAX))?;
    let mut out = Out::new(to);
    out.looks_max = if order.lists { LISTED_MAX } else { LOOKS_MAX };
    match Disk::open(files) {
        Ok(disk) => read_disk(&Rc::new(disk), &order, &mut out)?,
        Err(error) => {
            let holds = Holds::Unreadable(format!("a disk that is not understood ({error})"));
            out.say(&Record::Volume { place: "the whole disk".to_owned(), holds })?;
        }
    }
    out.end()
}

fn read_disk(disk: &Rc<Disk>, order: &Order, out: &mut Out<'_>) -> io::Result<()> {
    let whole = Part::new(disk, 0, disk.bytes());
    let regions = if sniff(&whole) == Content::Unknown { find(&whole) } else { Vec::new() };
    let mut parts: Vec<(String, Part)> = regions
        .iter()
        .map(|Region { number, start, bytes }| (format!("partition {number}"), Part::new(disk, *start, *bytes)))
        .collect();
    if parts.is_empty() {
        parts.push(("the whole disk".to_owned(), whole));
    }
    let mut opened = Vec::new();
    for (place, part) in parts {
        let (holds, files) = open(part);
        out.say(&Record::Volume { place: place.clone(), holds: holds.clone() })?;
        let Some(files) = files else { continue };
        let mut walk = Walk { files: &*files, out, told: BTreeSet::new() };
        if order.lists {
            walk.tell_all()?;
            continue;
        }
        for pattern in &order.patterns {
            walk.take_fitting(pattern.steps())?;
        }
        opened.push((place, holds, files));
    }
    if out.files == 0 && !order.lists {
        out.looks = 0;
        for (place, holds, files) in opened {
            out.say(&Record::Volume { place, holds })?;
            Walk { files: &*files, out, told: BTreeSet::new() }.tell_newest()?;
        }
    }
    Ok(())
}

fn open(part: Part) -> (Holds, Option<Box<dyn FileSystem>>) {
    let content = sniff(&part);
    let (name, opened): (_, Result<Box<dyn FileSystem>, String>) = match content {
        Content::Ext => ("ext", Ext::open(part).map(|files| Box::new(files) as _)),
        Content::Fat => ("FAT", Fat::open(part).map(|files| Box::new(files) as _)),
        Content::Idle(name) => return (Holds::Nothing(name.to_owned()), None),
        Content::Other(name) => return (Holds::Unreadable(name.to_owned()), None),
        Content::Unknown => return (Holds::Unreadable("no file system that is known".to_owned()), None),
    };
    match opened {
        Ok(files) => (Holds::Files(name.to_owned()), Some(files)),
        Err(error) => (Holds::Unreadable(format!("a broken file system, {name} ({error})")), None),
    }
}

/// The answer, and what of its bounds is used.
pub(super) struct Out<'o> {
    to: BufWriter<&'o mut dyn Write>,
    files: usize,
    bytes: u64,
    left: usize,
    /// Names that were looked at.
    pub(super) looks: usize,
    pub(super) looks_max: usize,
}

impl<'o> Out<'o> {
    pub(super) fn new(to: &'o mut dyn Write) -> Self {
        Self { to: BufWriter::new(to), files: 0, bytes: 0, left: 0, looks: 0, looks_max: LOOKS_MAX }
    }

    pub(super) fn end(&mut self) -> io::Result<()> {
        self.say(&Record::End)?;
        self.to.flush()
    }

    pub(super) fn say(&mut self, record: &Record) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, record)?;
        self.to.write_all(b"\n")
    }

    pub(super) fn file(&mut self, path: String, modified: Option<i64>, content: &[u8]) -> io::Result<()> {
        let bytes = content.len() as u64;
        self.files += 1;
        self.bytes += bytes;
        self.say(&Record::File { path, bytes, modified })?;
        self.to.write_all(content)
    }

    /// Why no file of this size is taken any more.
    pub(super) fn refuses(&self, bytes: u64) -> Option<Left> {
        if self.files >= FILES_MAX {
            Some(Left::TooManyFiles)
        } else if self.bytes.saturating_add(bytes) > DISK_BYTES_MAX {
            Some(Left::TooMuch)
        } else {
            None
        }
    }

    pub(super) fn may_tell(&mut self) -> bool {
        self.left += 1;
        self.left <= LEFT_MAX
    }
}
