//! `labwright vm collect`: files out of the disks of guests that are off.

use std::path::{Path, PathBuf};

use super::{Ended, vm};
use crate::control::collect::{Wanted, collect};
use crate::model::file_pattern::FilePattern;
use crate::report::{Ui, collect as report};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright vm collect exam -o submissions              # what the manifest's `collect` says
  labwright vm collect exam --path 'home/*/answer*' --path etc/hosts -o submissions
  labwright vm collect alice-exam -o submissions --why 'her save was late'
  labwright vm collect alice-exam -o looks --look       # while it runs; no submission

Files are read out of the disk itself. A guest that runs is refused, since what it saved last may
be in its memory yet. A folder that fits means all that is below it. What was collected is never
replaced. Exit code 1: a disk could not be read, or not all of it, and was kept as it is.")]
pub(super) struct Arguments {
    #[command(flatten)]
    of: vm::Vms,
    /// Which files, from the top of the file system; `*` stands for anything within one name. Those of the manifest's `collect` if not
    /// given.
    #[arg(long = "path", value_name = "PATTERN")]
    files: Vec<FilePattern>,
    /// Folder for it all: one folder for each student, and a list.
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// Read running guests, too: what they saved in the last minute may be missing, so that it is no submission.
    #[arg(long)]
    look: bool,
    /// Why it is collected again, where it was before; both stay.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let Arguments { of: vm::Vms { vms, lab }, files, output, look, why } = arguments;
    let (context, desired) = lab.way(site)?.here_to_collect(vms)?;
    let wanted =
        Wanted { vms: vms.clone(), files: files.clone(), into: output.clone(), is_look: *look, why: why.clone() };
    let ended = collect(&context, &desired, &wanted, report::WORDS, &mut |told, progress| {
        ui.say(&report::line(&told, progress));
    });
    report::ended(&ended?, output)
}
