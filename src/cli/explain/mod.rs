//! `labwright explain`: why something is as it is, from its line in the manifest to its latest run.

mod origin;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::context::of_known_lab;
use super::{Ended, LabOption};
use crate::control::pick;
use crate::control::plan::Scope;
use crate::exit::Exit;
use crate::model::address::{Address, Kind};
use crate::model::claim::ClaimBody;
use crate::model::lab::Desired;
use crate::observe::{Observed, Phase};
use crate::report::{Failure, Ui, times};
use crate::state::{PastClaim, Recorded, Store};

/// How much of the past is shown.
const MOST: u32 = 5;

/// Say why something is as it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright explain alice-gsr
  labwright explain session/final
  labwright explain template/gsr --lab exam")]
pub(super) struct Arguments {
    /// A kind and a name, like `template/gsr`; a name alone is a vm's.
    #[arg(value_parser = pick::address)]
    address: Address,

    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, &arguments.lab.lab)?;
    let recorded = context.recorded(&desired.lab)?;
    let address = &arguments.address;
    let past = context.store_if_any()?;
    refuse_unknown(address, &desired, &recorded, past.as_ref())?;
    let mut text = format!("{address}\n");
    let mut line = |what: &str, value: String| {
        writeln!(text, "  {what:<10} {}", crate::report::harmless(&value)).expect("a string takes all");
    };
    match origin::place(&context.lab_folder, &desired, address) {
        Some(place) => line("manifest", place),
        None => line("manifest", "it has no line of its own".into()),
    }
    recorded_lines(&recorded, address, &mut line);
    if let Some(store) = &past {
        past_lines(store, &desired, address, &mut line)?;
    }
    let observed = context.observe(&desired, &recorded)?;
    report_lines(&recorded, &observed, address, &mut line);
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

/// Nothing can be said of what neither the manifest nor the state has ever heard of.
fn refuse_unknown(
    address: &Address,
    desired: &Desired,
    recorded: &Recorded,
    past: Option<&Store>,
) -> Result<(), Failure> {
    let wanted = desired_addresses(desired);
    let is_known = wanted.contains(address)
        || recorded.objects.contains_key(address)
        || (address.kind == Kind::Vm && recorded.vms.contains_key(address.name.as_str()));
    let had = |store: &Store| store.last_apply_of(&desired.lab, &address.to_string());
    if is_known || past.map(had).transpose()?.flatten().is_some() {
        return Ok(());
    }
    let failure = Failure::new(Exit::Failed, format!("lab `{}` has no {address}, and never had", desired.lab));
    let likeness = |known: &&Address| strsim::jaro_winkler(&known.name, &address.name);
    let near = wanted.iter().filter(|known| known.kind == address.kind);
    let near = near.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    Err(match near {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("`labwright plan --verbose` shows all that there is"),
    })
}

fn desired_addresses(desired: &Desired) -> BTreeSet<Address> {
    let of = |kind: Kind, names: Vec<String>| names.into_iter().map(move |name| Address::new(kind, name));
    fn names<N: ToString>(names: impl Iterator<Item = N>) -> Vec<String> {
        names.map(|name| name.to_string()).collect()
    }
    of(Kind::UserGroup, names(desired.user_groups.keys()))
        .chain(of(Kind::User, names(desired.users.keys())))
        .chain(of(Kind::VmGroup, names(desired.vm_groups.keys())))
        .chain(of(Kind::Template, names(desired.templates.keys())))
        .chain(of(Kind::Vm, names(desired.vms.keys())))
        .chain(of(Kind::Session, names(desired.sessions.keys())))
        .collect()
}

/// What the starter of a vm's run last said.
fn report_lines(recorded: &Recorded, observed: &Observed, address: &Address, line: &mut dyn FnMut(&str, String)) {
    let vm = recorded.vms.get(address.name.as_str()).filter(|_| address.kind == Kind::Vm);
    let Some(run) = vm.and_then(|vm| vm.run.as_ref()) else { return };
    let Some(report) = observed.runs.get(&run.run) else { return };
    let phase = match &report.phase {
        Phase::Starting => "starting".to_owned(),
        Phase::Running => "booting".to_owned(),
        Phase::Ready => "ready".to_owned(),
        Phase::Paused { reason } => format!("paused, {reason}"),
        Phase::CutOff { reason } => format!("cut off, {reason}"),
        Phase::Stopping => "stopping".to_owned(),
        Phase::Stopped { .. } => format!("over: {}", report.phase.end().unwrap_or_default()),
    };
    let place = report.mapping.as_ref().map(|mapping| format!(" on {}, vnc {}", mapping.host, mapping.vnc));
    line("report", format!("{phase}{}, last heard of {}", place.unwrap_or_default(), times::local(report.last_beat)));
}

/// What is recorded of a thing, field by field.
fn body_lines(body: &str, line: &mut dyn FnMut(&str, String)) {
    let fields: serde_json::Map<String, serde_json::Value> = match serde_json::from_str(body) {
        Ok(fields) => fields,
        // Older programs may have written it in another shape: better shown as it is than not at all.
        Err(_) => return line("recorded", body.to_owned()),
    };
    for (name, value) in fields.iter().filter(|(name, value)| !value.is_null() && *name != "origin") {
        line("recorded", format!("{name}: {}", value_words(value)));
    }
}

/// A value without the signs of JSON, as far as it can be told without them.
fn value_words(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "none".into(),
        Value::Array(all) => all.iter().map(value_words).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let known = fields.iter().filter(|(_, value)| !value.is_null());
            known.map(|(name, value)| format!("{name} {}", value_words(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
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
    } else if let Some(recorded) = recorded.objects.get(address) {
        body_lines(&recorded.body, line);
    } else {
        line("recorded", "nothing: it was never applied".into());
    }
}

fn claim_words(claim: &PastClaim) -> String {
    let wants = match ClaimBody::read(&claim.kind, &claim.body) {
        Ok(ClaimBody::Power(power)) => format!("it shall be {}", power.wanted.as_str()),
        _ => format!("{} {}", claim.kind, claim.body),
    };
    let ended = claim.ended_at.as_ref().map(|at| {
        format!("; ended {}: {}", times::local_text(at), claim.ended.as_deref().unwrap_or("nobody said why"))
    });
    format!("{} by {}, {}: {wants}{}", claim.id, claim.by, times::local_text(&claim.at), ended.unwrap_or_default())
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
        let at = times::local_text(&effect.intended_at);
        line("effect", format!("{at}: {}: {outcome}, apply {}{detail}", effect.effect, effect.apply));
    }
    if let Some(id) = store.last_apply_of(&desired.lab, &address.to_string())?
        && let Some(apply) = store.past_apply(&desired.lab, id)?
    {
        let dirty = if apply.dirty { " with changes that were not committed" } else { "" };
        let commit = apply.commit.map(|commit| format!(" at commit {commit}{dirty}")).unwrap_or_default();
        line("apply", format!("{id} by {}@{}{commit}, {}", apply.who, apply.host, times::local_text(&apply.began_at)));
    }
    if address.kind == Kind::Vm {
        for claim in store.claims_on(&desired.lab, &address.name, MOST)? {
            line("claim", claim_words(&claim));
        }
        for run in store.runs(&desired.lab, &address.name, MOST)? {
            let job = run.job.map(|job| format!(", job {job}.{}", run.task)).unwrap_or_default();
            let reason = run.end().map(|reason| format!(": {reason}")).unwrap_or_default();
            line("run", format!("{}{job}, {}{reason}", run.run, run.state));
        }
    }
    Ok(())
}
