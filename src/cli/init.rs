//! `labwright init`: a lab that runs, to begin from.

use std::path::PathBuf;

use super::{Ended, shown};
use crate::control::init::{SMALL_IMAGE, make_template, write};
use crate::exit::Exit;
use crate::model::id::LabName;
use crate::report::{Failure, Ui, init as words};

/// Write a new lab to begin from: manifest, roster, editor settings, a check for continuous integration, and a small
/// template that boots.
///
/// The template is a Debian kernel with busybox, some 16 MB, made on this machine: that takes Debian's packages and, the
/// first time, the network. With `--image` the lab derives from an image of your own instead, and nothing is fetched.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folder to write to; made if it does not exist.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Name of the lab; the folder's name if not given.
    #[arg(long)]
    name: Option<String>,
    /// A qcow2 image with an installed system, for the template. It stays where it is.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> Ended {
    let Arguments { folder, image, .. } = arguments;
    let name = arguments.lab_name()?;
    if write(folder, &name, image.as_deref())? {
        ui.data(&format!("wrote the lab {name} to {}\n", folder.display()));
    }
    if image.is_none() {
        ui.say(&words::making(&folder.join(SMALL_IMAGE)));
        make_template(folder)?;
    }
    shown(ui, &words::next(folder))
}

impl Arguments {
    /// The name that is given, or the folder's.
    fn lab_name(&self) -> Result<LabName, Failure> {
        let absolute = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let folder = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
        let text = self.name.clone().or(folder).unwrap_or_default();
        LabName::new(text)
            .map_err(|error| Failure::from_error(Exit::Usage, &error).hint("give the lab a name with `--name my-lab`"))
    }
}
