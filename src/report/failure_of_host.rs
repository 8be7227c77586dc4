//! What a machine and a new lab's folder say no with, as it is told to a person at a command line.

use super::Failure;
use crate::control::by_hand::ByHandError;
use crate::control::init::InitError;
use crate::exit::Exit;
use crate::host::machine::setup::SetupError;

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        let failure = Self::from_error(error.code().into(), &error);
        match &error {
            InitError::Image { .. } | InitError::Write { .. } => failure,
            InitError::NoImage { image } => {
                failure.hint(format!("convert it: `qemu-img convert -O qcow2 {} base.qcow2`", image.display()))
            }
            InitError::NotText { .. } => failure.hint("rename it"),
            InitError::Exists { .. } => failure.hint("name another folder, or move the file away"),
            InitError::Template { folder, .. } => {
                let shown = folder.display();
                failure.hint(format!(
                    "mend that and run `labwright init {shown}` again; or put an image of your own in its place and name it in \
                     {shown}/lab.yaml"
                ))
            }
        }
    }
}

impl From<ByHandError> for Failure {
    fn from(error: ByHandError) -> Self {
        Self::from_error(error.code().into(), &error).hint(match &error {
            ByHandError::NoGroup { .. } => "put it back: it says which network the vm is on",
            ByHandError::NotMade { .. } => "`labwright apply` makes them",
            ByHandError::Accel(_) => "or say `--accel kvm`, or `--accel tcg`, which works everywhere",
        })
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        match &error {
            SetupError::Taken { .. } => Self::new(Exit::Refused, format!("{error}; nothing was changed")).hint(
                "take the other lab's away with `labwright host teardown`, give this lab a `bridge` and addresses of its own, or \
                 put both into one site: `site.yaml` in docs/admins.md",
            ),
            _ => Self::of_all(Exit::Failed, "cannot prepare this host", &[error]),
        }
    }
}
