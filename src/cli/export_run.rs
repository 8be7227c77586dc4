//! `labwright vm export-run`: a start as a shell script, from what is recorded. It asks neither the queue nor the DHCP
//! server: it is for the day on which they do not answer.

use std::path::Path;

use super::Ended;
use crate::control::{Context, pick};
use crate::exit::Exit;
use crate::host::machine::by_hand::{ByHand, script};
use crate::host::run::accel::{self, Accelerator};
use crate::model::id::RunId;
use crate::model::lab::Desired;
use crate::observe::{Phase, fold};
use crate::plan::{Seat, run_spec};
use crate::report::{Failure, Ui};
use crate::run::read_report;
use crate::state::{RecordedVm, RunState};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Accel {
    Kvm,
    Tcg,
}

pub(super) fn run(context: &Context, desired: &Desired, word: &str, accel: Option<Accel>, ui: &Ui) -> Ended {
    let recorded = context.recorded(&desired.lab)?;
    let name = &pick::one(&desired.lab, word, &recorded)?;
    let known = &recorded.vms[name];
    // A vm that has left the manifest is still as it was recorded.
    let vm = desired.vms.get(name).unwrap_or(&known.vm);
    let group = desired.vm_groups.get(&vm.vm_group).ok_or_else(|| {
        let message =
            format!("the vm group `{}` of vm `{name}` has left the manifest; there is no script", vm.vm_group);
        Failure::new(Exit::Failed, message).hint("put it back: it says which network the vm is on")
    })?;
    if known.disks.iter().any(|disk| !disk.made) {
        let message = format!("the disks of vm `{name}` are not made yet; there is no script");
        return Err(Failure::new(Exit::Failed, message).hint("`labwright apply` makes them"));
    }
    let accel = match accel {
        Some(Accel::Kvm) => Accelerator::Kvm,
        Some(Accel::Tcg) => Accelerator::Tcg,
        None => accel::choose(context.site.qemu.accel, Path::new(crate::host::RUN_ROOT)).map_err(|error| {
            Failure::from_error(Exit::Failed, &error)
                .hint("or say `--accel kvm`, or `--accel tcg`, which works everywhere")
        })?,
    };
    let run = RunId::by_hand(recorded.site.clone(), known.ip);
    let folder = Path::new("/run/labwright-by-hand").join(run.to_string());
    let seat = Seat { run, generation: known.generation, ip: known.ip, mac: known.mac, disks: &known.disks };
    let spec = run_spec(&context.site, desired, &recorded, (name, vm, group), &seat);
    let running = running(context, known);
    let by_hand = ByHand {
        spec: &spec,
        group,
        network: &context.site.network,
        accel,
        folder: &folder,
        running: running.as_deref(),
    };
    ui.data(&script(&by_hand));
    if let Some(running) = &running {
        ui.say(&format!("warning: {name} runs by what is recorded: {running}; the script says how to stop it first"));
    }
    Ok(Exit::Done)
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
