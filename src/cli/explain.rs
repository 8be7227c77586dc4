//! `labwright explain`: why something is as it is, from its line in the manifest to its latest run.

use std::fmt::Write as _;
use std::path::Path;

use super::context::Context;
use super::plan::Scope;
use super::{Ended, LabOption};
use crate::address::{Address, Kind};
use crate::exit::Exit;
use crate::report::Ui;
use crate::resolve::{Desired, Origin};
use crate::state::{Recorded, Store};

/// How much of the past is shown.
const MOST: u32 = 5;

/// Say why something is as it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright explain vm/alice-gsr
  labwright explain template/gsr --lab exam")]
pub(super) struct Arguments {
    /// A kind and a name, like `vm/alice-gsr`.
    address: Address,

    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let context = Context::new(site, &arguments.lab.lab, ui)?;
    let desired = context.desired(ui)?;
    let recorded = context.recorded(&desired.lab)?;
    let address = &arguments.address;
    let mut text = format!("{address}\n");
    let mut line = |what: &str, value: String| {
        writeln!(text, "  {what:<10} {}", crate::report::harmless(&value)).expect("a string takes all");
    };
    match origin(&desired, address) {
        Some(Origin { file, line: number }) => line("manifest", format!("{file}:{number}")),
        None => line("manifest", "not written there by itself".into()),
    }
    recorded_lines(&recorded, address, &mut line);
    if context.site.state.exists() {
        past_lines(&Store::open(&context.site.state)?, &desired, address, &mut line)?;
    }
    let plan = Scope::default().plan(&context, &desired, &recorded)?;
    for change in plan.changes.iter().filter(|change| change.address == *address) {
        line("plan", format!("{}: {}", change.verb.as_str(), change.reason));
    }
    for note in plan.drift.iter().chain(&plan.waits).chain(&plan.notes).filter(|note| note.address == *address) {
        line("note", note.text.clone());
    }
    for refusal in plan.refusals.iter().filter(|refusal| refusal.address == *address) {
        line("refused", format!("{}; {}", refusal.text, refusal.hint));
    }
    ui.data(&text);
    Ok(Exit::Done)
}

fn origin<'a>(desired: &'a Desired, address: &Address) -> Option<&'a Origin> {
    match address.kind {
        Kind::Vm => desired.vms.get(address.name.as_str()).map(|vm| &vm.origin),
        Kind::Template => desired.templates.get(address.name.as_str()).map(|template| &template.origin),
        _ => None,
    }
}

fn recorded_lines(recorded: &Recorded, address: &Address, line: &mut dyn FnMut(&str, String)) {
    if let Some(vm) = recorded.vms.get(address.name.as_str()).filter(|_| address.kind == Kind::Vm) {
        line("owner", vm.vm.owner.to_string());
        line("address", format!("{} ({})", vm.ip, vm.mac));
        for disk in &vm.disks {
            let base = disk.base.as_ref().map(|base| format!(" over {}", base.display())).unwrap_or_default();
            line("disk", format!("{}{base}", disk.path.display()));
        }
    } else if let Some(body) = recorded.objects.get(address) {
        line("recorded", body.clone());
    } else {
        line("recorded", "nothing: it was never applied".into());
    }
}

fn past_lines(
    store: &Store,
    desired: &Desired,
    address: &Address,
    line: &mut dyn FnMut(&str, String),
) -> Result<(), crate::state::StateError> {
    for effect in store.effects(&desired.lab, &address.to_string(), MOST)? {
        let outcome = effect.outcome.unwrap_or_else(|| "cut short".into());
        let detail = effect.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
        line("effect", format!("{} {} {outcome}, apply {}{detail}", effect.intended_at, effect.effect, effect.apply));
    }
    if let Some(id) = store.last_apply_of(&desired.lab, &address.to_string())? {
        let applies = store.history(&desired.lab, u32::MAX)?;
        for apply in applies.into_iter().filter(|apply| apply.id == id) {
            let dirty = if apply.dirty { " with changes that were not committed" } else { "" };
            let commit = apply.commit.map(|commit| format!(" at commit {commit}{dirty}")).unwrap_or_default();
            line("apply", format!("{id} by {}@{}{commit}, {}", apply.who, apply.host, apply.began_at));
        }
    }
    if address.kind == Kind::Vm {
        for run in store.runs(&desired.lab, &address.name, MOST)? {
            let job = run.job.map(|job| format!(", job {job}.{}", run.task)).unwrap_or_default();
            let reason = run.end().map(|reason| format!(": {reason}")).unwrap_or_default();
            line("run", format!("{}{job}, {}{reason}", run.run, run.state));
        }
    }
    Ok(())
}
