//! Disks that were set aside: which vms are meant, and what can be wrong with a wish to have them back or deleted.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Code, ControlError, pick};
use crate::disks::DiskError;
use crate::model::address::Kind;
use crate::model::id::{InvalidName, VmName};
use crate::model::job::TaskId;
use crate::model::lab::Desired;
use crate::state::{AsideSet, Recorded};

#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    #[error("no disk of vm `{vm}` was set aside")]
    None { vm: String },
    #[error("a {kind} has no disks that were set aside: write `vm/NAME`")]
    NoVm { kind: String },
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("{} is on its way back and must be put back first", set.words())]
    Returning { vm: VmName, set: Box<AsideSet> },
    #[error("no set of vm `{vm}` is called `{wanted}` or of that date; nothing was changed")]
    NoSet { vm: VmName, wanted: String, sets: Vec<AsideSet> },
    #[error("{} sets of disks of vm `{vm}` are set aside; nothing was changed", sets.len())]
    Sets { vm: VmName, sets: Vec<AsideSet> },
    #[error("{} was {was}'s, and the vm is {owner}'s; nothing was changed", set.words())]
    Stranger { set: Box<AsideSet>, was: String, owner: String },
    #[error("vm `{vm}` is not off; nothing was changed")]
    NotOff { vm: VmName },
    #[error("job {job} is of a run that no record knows, and may use these disks; nothing was changed")]
    UnknownJob { job: TaskId },
    #[error("vm `{vm}` is recorded, and its disks are in use; nothing was changed")]
    InUse { vm: VmName },
    #[error("no disk waits for vm `{vm}`; nothing was changed")]
    NothingWaits { vm: VmName },
    #[error("{} is not there; nothing was changed", disk.display())]
    Gone { disk: PathBuf },
    /// The same request goes on where this ended.
    #[error("{source}")]
    Move { vm: VmName, source: DiskError },
    #[error("nobody knows any more what machine vm `{vm}` was; nothing was copied")]
    NoMachine { vm: VmName },
    #[error("disks of vm `{vm}` were not copied")]
    NotCopied { vm: VmName, source: DiskError },
    #[error("{until} is over; nothing was changed")]
    Past { until: jiff::civil::Date },
    #[error("disks of vm `{vm}` are not held; nothing was changed")]
    NotHeld { vm: VmName },
    #[error("{} of {} not deleted", failed.len(), disks_word(*asked))]
    NotDeleted { asked: usize, failed: Vec<ControlError> },
}

impl AsideError {
    pub fn code(&self) -> Code {
        match self {
            Self::NoVm { .. } | Self::Name(_) | Self::Past { .. } => Code::Usage,
            Self::None { .. }
            | Self::NothingWaits { .. }
            | Self::NotHeld { .. }
            | Self::NoMachine { .. }
            | Self::NotCopied { .. }
            | Self::Gone { .. }
            | Self::Move { .. }
            | Self::NotDeleted { .. } => Code::Failed,
            Self::Returning { .. }
            | Self::NoSet { .. }
            | Self::Sets { .. }
            | Self::Stranger { .. }
            | Self::NotOff { .. }
            | Self::UnknownJob { .. }
            | Self::InUse { .. } => Code::Refused,
        }
    }
}

/// The vms that are named, of those that have such disks. A name alone is taken as it is: what is wrong with it, who uses it
/// says best.
pub(super) fn among<'a>(
    having: impl Iterator<Item = &'a VmName> + Clone,
    words: &[String],
    desired: &Desired,
    recorded: &Recorded,
) -> Result<BTreeSet<VmName>, AsideError> {
    let of = |name: &VmName| desired.vms.get(name).or_else(|| recorded.vms.get(name).map(|known| &known.vm));
    let known: Vec<(&VmName, _)> = having.map(|name| (name, of(name).map(|vm| &vm.family))).collect();
    let mut meant = BTreeSet::new();
    for word in words {
        let bare = word.strip_prefix("vm/").unwrap_or(word);
        // `doraz/mine` is a vm of somebody's own.
        let is_kind = |kind: &str| bare == word && Kind::ALL.iter().any(|known| known.as_str() == kind);
        if let Some((kind, _)) = bare.split_once('/').filter(|(kind, _)| is_kind(kind)) {
            return Err(AsideError::NoVm { kind: kind.to_owned() });
        }
        match pick::vms(&desired.lab, std::slice::from_ref(word), known.iter().copied()) {
            Ok(found) => meant.extend(found),
            Err(_) if bare.contains('*') => return Err(AsideError::None { vm: bare.to_owned() }),
            Err(_) => drop(meant.insert(VmName::new(bare)?)),
        }
    }
    Ok(meant)
}

pub(super) fn refuse_frozen(recorded: &Recorded) -> Result<(), ControlError> {
    match &recorded.frozen {
        Some(frozen) => Err(ControlError::Frozen { frozen: frozen.clone() }),
        None => Ok(()),
    }
}

pub fn disks_word(count: usize) -> String {
    if count == 1 { "1 disk".into() } else { format!("{count} disks") }
}
