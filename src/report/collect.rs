//! What was collected: a line for each vm, the note in the list, and the receipt that lies beside the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{Failure, escaped, times};
use crate::control::collect::{DiskRead, Progress, Receipt, Told, Verdict, VolumeRead, Words};
use crate::exit::Exit;
use crate::model::disk::size;
use crate::volumes::{Holds, Left};

pub const WORDS: Words = Words { note, page };

/// In a cell, and in a line.
const NAMED_MAX: usize = 5;

/// One vm, as it is done.
pub fn line(told: &Told<'_>, Progress { done, of }: Progress) -> String {
    let words = match told {
        Told::Collected { receipt, .. } => {
            let note = note(receipt);
            let behind = if note.is_empty() { String::new() } else { format!("; {note}") };
            format!("{}: {}{behind}", receipt.vm, came(receipt))
        }
        Told::Before { vm, folder } => {
            format!("{vm}: collected before, see {}; `--why TEXT` collects it a second time", folder.display())
        }
        Told::Not { vm, error } => format!("{vm}: not collected: {error}"),
    };
    format!("  {done}/{of} {words}")
}

fn came(receipt: &Receipt) -> String {
    let files = files(receipt);
    match receipt.verdict {
        Verdict::Submitted if receipt.is_submission => format!("submitted, {files}"),
        Verdict::Submitted => format!("looked at, {files}"),
        Verdict::Nothing => "nothing fits".to_owned(),
        Verdict::Unreadable => format!("unreadable, {files}"),
        Verdict::Absent => "it has no disk".to_owned(),
    }
}

fn files(receipt: &Receipt) -> String {
    let (number, bytes) = (receipt.files.len(), receipt.bytes());
    let bytes = if bytes < 1 << 10 { format!("{bytes} bytes") } else { size(bytes) };
    format!("{number} {}, {bytes}", if number == 1 { "file" } else { "files" })
}

/// What somebody who reads the list should know besides.
fn note(receipt: &Receipt) -> String {
    let mut notes = Vec::new();
    if !receipt.is_submission {
        notes.push("no submission: what was saved in the last minute may be missing".to_owned());
    }
    for disk in &receipt.disks {
        notes.extend(disk.fault.iter().map(|fault| format!("disk {}: {fault}", disk.slot)));
        let unread = |volume: &VolumeRead| match &volume.holds {
            Holds::Unreadable(what) => Some(format!("disk {}, {}: {what}", disk.slot, volume.place)),
            Holds::Files(_) | Holds::Nothing(_) => None,
        };
        notes.extend(disk.volumes.iter().filter_map(unread));
        notes.extend(disk.kept.iter().map(|kept| format!("the whole disk is in {}", kept.path)));
    }
    let left = receipt.left.iter().map(|left| format!("{} ({})", left.path, reason(&left.why)));
    notes.extend(listed("not taken: ", left.collect()));
    notes.extend(listed("written last: ", receipt.newest.iter().map(|file| file.path.clone()).collect()));
    notes.join("; ")
}

/// The first few, and how many more.
fn listed(heading: &str, mut things: Vec<String>) -> Option<String> {
    let more = things.len().saturating_sub(NAMED_MAX);
    things.truncate(NAMED_MAX);
    let behind = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!things.is_empty()).then(|| format!("{heading}{}{behind}", things.join(", ")))
}

/// Why something was not taken.
fn reason(left: &Left) -> String {
    match left {
        Left::Link => "a link".to_owned(),
        Left::Special => "a device, a pipe or a socket".to_owned(),
        Left::TooLarge { bytes } => format!("too large: {}", size(*bytes)),
        Left::TooMuch => "more than is taken of one disk".to_owned(),
        Left::TooManyFiles => "more files than are taken of one disk".to_owned(),
        Left::TooManyNames => "more names than are looked at".to_owned(),
        Left::TooDeep => "too deep".to_owned(),
        Left::Name => "a name in it cannot be a file's here".to_owned(),
        Left::Broken { error } => format!("broken: {error}"),
    }
}

/// `receipt.txt`.
fn page(receipt: &Receipt) -> String {
    let kind = if receipt.is_submission { "Submission" } else { "Not a submission: a look" };
    let mut text = format!("{kind}\n\n");
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{:<10} {}", format!("{name}:"), escaped(value)).expect("a string takes all");
    };
    line("student", &receipt.student);
    line("vm", &receipt.vm);
    line("lab", receipt.lab.as_str());
    line("collected", &times::local(receipt.collected));
    line("by", &receipt.by);
    receipt.why.iter().for_each(|why| line("why", why));
    let patterns: Vec<String> = receipt.patterns.iter().map(ToString::to_string).collect();
    line("wanted", &patterns.join(", "));
    line("result", &came(receipt));
    let note = note(receipt);
    if !note.is_empty() {
        line("note", &note);
    }
    let sums = receipt.files.iter().map(|file| (&file.sha256, file.path.as_str()));
    let kept =
        receipt.disks.iter().flat_map(|DiskRead { kept, .. }| kept).map(|kept| (&kept.sha256, kept.path.as_str()));
    let sums: Vec<_> = sums.chain(kept).collect();
    if !sums.is_empty() {
        text.push_str("\nsha256 of what is in this folder, as `sha256sum` writes them:\n\n");
    }
    for (sum, path) in sums {
        writeln!(text, "{sum}  {path}").expect("a string takes all");
    }
    text
}

/// How the whole of it ended.
pub fn ended(counts: &BTreeMap<Verdict, usize>, into: &Path) -> Result<Exit, Failure> {
    match counts.get(&Verdict::Unreadable) {
        None => Ok(Exit::Done),
        Some(number) => {
            let vms = if *number == 1 { "vm" } else { "vms" };
            let message = format!("{number} {vms} could not be read, or not all of what is there");
            let list = into.join("collected.csv");
            Err(Failure::new(Exit::Failed, message).hint(format!("{} says of each what was wrong", list.display())))
        }
    }
}
