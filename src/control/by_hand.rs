//! A start as a shell script, from what is recorded. It asks neither the queue nor the DHCP server: it is for the day on which
//! they do not answer.

use std::path::Path;

use super::{Code, Context};
use crate::host::RUN_ROOT;
use crate::host::machine::break_glass::{ByHand, script};
use crate::host::run::accel::{self, AccelError, Accelerator};
use crate::model::id::{RunId, VmGroupName, VmName};
use crate::model::lab::Desired;
use crate::observe::{Phase, fold};
use crate::plan::{Seat, run_spec};
use crate::run::{SEED, read_report};
use crate::state::{Recorded, RecordedVm, RunState};

/// Below it, each start by hand has a folder of its own for sockets and the password.
const FOLDERS: &str = "/run/labwright-by-hand";

/// Why there is no script.
#[derive(Debug, thiserror::Error)]
pub enum ByHandError {
    #[error("the vm group `{group}` of vm `{vm}` has left the manifest; there is no script")]
    NoGroup { vm: VmName, group: VmGroupName },
    #[error("the disks of vm `{vm}` are not made yet; there is no script")]
    NotMade { vm: VmName },
    #[error(transparent)]
    Accel(#[from] AccelError),
}

impl ByHandError {
    pub fn code(&self) -> Code {
        Code::Failed
    }
}

/// What a person does in the place of a starter.
#[derive(Debug)]
pub struct Script {
    /// For `sh`.
    pub text: String,
    /// Where the vm runs by what is recorded, in words; the script says how to stop it first.
    pub running: Option<String>,
}

/// The start of a recorded vm; `accel` in the place of what the site says.
pub fn of_vm(
    context: &Context,
    desired: &Desired,
    recorded: &Recorded,
    name: &VmName,
    accel: Option<Accelerator>,
) -> Result<Script, ByHandError> {
    let known = &recorded.vms[name];
    // A vm that has left the manifest is still as it was recorded.
    let vm = desired.vms.get(name).unwrap_or(&known.vm);
    let no_group = || ByHandError::NoGroup { vm: name.clone(), group: vm.vm_group.clone() };
    let group = desired.vm_groups.get(&vm.vm_group).ok_or_else(no_group)?;
    if known.disks.iter().any(|disk| !disk.made) {
        return Err(ByHandError::NotMade { vm: name.clone() });
    }
    let accel = match accel {
        Some(accel) => accel,
        None => accel::choose(context.site.qemu.accel, Path::new(RUN_ROOT))?,
    };
    let run = RunId::by_hand(recorded.site.clone(), known.ip);
    let folder = Path::new(FOLDERS).join(run.to_string());
    let seat = Seat { run, generation: known.generation, ip: known.ip, mac: known.mac, disks: &known.disks };
    let mut spec = run_spec(&context.site, desired, recorded, (name, vm, group), &seat);
    let seed = known.run.as_ref().map(|run| context.site.storage.runs.join(run.run.to_string()).join(SEED));
    spec.seed = seed.filter(|seed| seed.exists());
    let running = running(context, known);
    let by_hand = ByHand {
        spec: &spec,
        group,
        network: &context.site.network,
        accel,
        folder: &folder,
        running: running.as_deref(),
    };
    Ok(Script { text: script(&by_hand), running })
}

/// Where the vm runs, in words.
fn running(context: &Context, known: &RecordedVm) -> Option<String> {
    let run = known.run.as_ref().filter(|run| !matches!(run.state, RunState::Ended { .. }))?;
    let folder = context.site.storage.runs.join(run.run.to_string());
    // Storage that does not answer is one of the days on which this is needed.
    match read_report(&folder).ok().and_then(|records| fold(&records)) {
        Some(report) if matches!(report.phase, Phase::Stopped { .. }) => None,
        Some(report) => Some(match report.mapping {
            Some(mapping) => format!("run {} on host {}, where qemu is process {}", run.run, mapping.host, mapping.pid),
            None => format!("run {} is being started", run.run),
        }),
        None => Some(format!("run {} waits in the queue, or its host has not said a word", run.run)),
    }
}
