//! What changes something: each is one ask among others in a plan of the loop, and is told in the words of the command line.

use std::path::{Path, PathBuf};

use axum::http::StatusCode;

use super::api::No;
use super::messages::{Acted, Derive, Edit, Install, Power};
use crate::apply::Summary;
use crate::control::edit;
use crate::control::own::{self, Lab};
use crate::control::round::{Asking, of_vm};
use crate::control::{Code, Context, ControlError, template};
use crate::model::address::Address;
use crate::model::claim::ClaimBody;
use crate::model::id::{LabName, TemplateName, VmName};
use crate::plan::{Answer, Ground, NotDone, Plan, Refusal, Wish};
use crate::report;
use crate::state::PastClaim;

/// How many of the latest claims on a vm are looked through for one that comes again.
const CLAIMS_LOOKED_AT: u32 = 16;

/// Claims a vm for its owner; answers its name.
pub(super) fn claim(context: &Context, lab: &LabName, wanted: Derive, key: Option<String>) -> Result<VmName, No> {
    let wanted = wanted.wanted(&context.caller.name);
    let wanted = wanted.map_err(|error| No::of(StatusCode::BAD_REQUEST, Code::Usage, error.to_string()))?;
    let wanted = own::Wanted { key, ..wanted };
    own::derive(context, Lab::AsApplied(lab), &wanted).map_err(|error| No::told(&error))
}

/// Ends the claim on a vm of which nothing came.
pub(super) fn withdraw(context: &Context, lab: &LabName, vm: &VmName) -> Result<(), No> {
    own::withdraw(context, Lab::AsApplied(lab), vm).map_err(|error| No::told(&error))
}

/// Ends the claim on a vm of somebody's own; the answer, where nothing more is to be done.
pub(super) fn give_up(context: &Context, lab: &LabName, vm: &VmName) -> Result<Option<Acted>, No> {
    if own::give_up(context, Lab::AsApplied(lab), vm).map_err(|error| No::told(&error))? {
        return Ok(None);
    }
    let plan = format!("vm {vm} was never made; nobody claims it any more\n");
    Ok(Some(Acted { vm: vm.clone(), changed: true, plan, outcome: String::new() }))
}

/// Whether the same was asked for before and is seen to, as its claim remembers; the answer was lost then. Where its run was not
/// begun any more, nothing is.
pub(super) fn asked_before(context: &Context, lab: &LabName, vm: &VmName, key: &str) -> Result<Option<Acted>, No> {
    let claimed = |claim: PastClaim| match ClaimBody::read(&claim.kind, &claim.body) {
        Ok(ClaimBody::Power(power)) if claim.by == context.caller.name && power.key.as_deref() == Some(key) => {
            Some(power)
        }
        _ => None,
    };
    let look = || -> Result<bool, ControlError> {
        let mut store = context.known_store()?;
        let claims = store.claims_on(lab, vm.as_str(), CLAIMS_LOOKED_AT)?;
        let Some(power) = claims.into_iter().find_map(claimed) else { return Ok(false) };
        let known = store.recorded(lab)?.vms.get(vm).map(|known| known.generation);
        Ok(known.is_some_and(|generation| generation >= power.generation))
    };
    let was = look().map_err(|error| No::told(&error))?;
    let plan = format!("{vm}: this was asked for before, and is seen to\n");
    Ok(was.then(|| Acted { vm: vm.clone(), changed: false, plan, outcome: String::new() }))
}

/// Writes down what is to be otherwise about a vm of somebody's own; answers its name.
pub(super) fn edit(context: &Context, lab: &LabName, vm: &VmName, wanted: Edit) -> Result<VmName, No> {
    edit::edit(context, Lab::AsApplied(lab), vm, &wanted.into()).map_err(|error| No::told(&error))
}

/// The CD with which a vm is started, if it may be.
pub(super) fn cd(context: &Context, lab: &LabName, vm: &VmName, wanted: Wish, file: &Path) -> Result<PathBuf, No> {
    if wanted != Wish::Start {
        return Err(No::of(StatusCode::BAD_REQUEST, Code::Usage, "a CD is for a start; nothing was done"));
    }
    let look = || {
        let (context, desired) = context.of_seen_lab(lab)?;
        template::cd_to_install(&context, &desired, vm, file)
    };
    look().map_err(|error| No::told(&error))
}

/// Claims the vm on which a template is installed; answers its name, and the CD.
pub(super) fn install(
    context: &Context,
    lab: &LabName,
    template: &TemplateName,
    wanted: &Install,
) -> Result<(VmName, PathBuf), No> {
    let act = || {
        let (context, desired) = context.of_seen_lab(lab)?;
        let cdrom = template::cd_for_template(&context, &desired, template, &wanted.cdrom)?;
        Ok((template::claim(&context, &desired, template, wanted.isolated)?, cdrom))
    };
    act().map_err(|error: ControlError| No::told(&error))
}

/// For the history, and to type again.
pub(super) fn edit_command(vm: &VmName, wanted: &Edit) -> String {
    let Edit { memory_mib, cpus, cdrom, ejects, name } = wanted;
    if let Some(name) = name {
        return format!("vm rename {vm} {name}");
    }
    let memory = memory_mib.map(|mib| format!(" --memory {mib}M")).unwrap_or_default();
    let cpus = cpus.map(|cpus| format!(" --cpus {cpus}")).unwrap_or_default();
    let cdrom = cdrom.as_ref().map(|file| format!(" --cdrom {}", file.display())).unwrap_or_default();
    format!("vm set {vm}{memory}{cpus}{cdrom}{}", if *ejects { " --eject" } else { "" })
}

/// For the history, and to type again.
pub(super) fn power_command(vm: &VmName, power: &Power) -> String {
    let (verb, cdrom) = match &power.cdrom {
        Some(file) => ("install", format!(" --cdrom {}", file.display())),
        None => (power.wanted.verb(), String::new()),
    };
    format!("vm {verb} {vm}{cdrom}{}", if power.isolated { " --isolate" } else { "" })
}

/// What came of one ask.
pub(super) enum Outcome {
    Told(Result<Acted, No>),
    /// Somebody works on the vm: to be asked again, or told so.
    Later(No),
}

/// What became of the vm. What else the plan speaks of is somebody else's.
pub(super) fn outcome(asking: &Asking, plan: &Plan, summary: &Summary) -> Outcome {
    let vm = &asking.vm;
    let own = about(plan, vm);
    let is_worked_on = |refusal: &Refusal| matches!(refusal.why, Ground::Worked { .. });
    let answers_so = matches!(plan.answers.get(vm), Some(Answer::NotDone(why)) if matches!(**why, NotDone::Worked(_)));
    let told = told(asking, plan, &own, &of_vm(summary, plan, vm));
    match told {
        Err(no) if answers_so || own.refusals.iter().any(is_worked_on) => Outcome::Later(no),
        told => Outcome::Told(told),
    }
}

fn told(asking: &Asking, plan: &Plan, own: &Plan, summary: &Summary) -> Result<Acted, No> {
    let vm = &asking.vm;
    let again = format!("labwright {}", asking.caller.command);
    if !summary.failed.is_empty() || summary.interrupted {
        let outcome = report::apply::text(summary, &again, None);
        let lines = outcome.lines().map(str::to_owned).collect();
        let no = No::of(StatusCode::INTERNAL_SERVER_ERROR, Code::Failed, format!("`{again}` was not done in full"));
        return Err(no.because(lines, None));
    }
    if !own.refusals.is_empty() {
        let no = No::of(StatusCode::FORBIDDEN, Code::Refused, format!("`{again}` was refused"));
        return Err(refused(no, own, vm));
    }
    if let Some(Answer::NotDone(why)) = plan.answers.get(vm) {
        return Err(No::of(StatusCode::CONFLICT, Code::NotReady, format!("not done: {vm}: {why}")));
    }
    let look = format!("labwright get mappings {vm}");
    Ok(match plan.answers.get(vm) {
        Some(Answer::Already(why)) if own.is_empty() => {
            Acted { vm: vm.clone(), changed: false, plan: format!("{vm} {why}\n"), outcome: String::new() }
        }
        _ => Acted {
            vm: vm.clone(),
            changed: !own.is_empty(),
            plan: report::plan::text(own, false),
            outcome: report::apply::text(summary, &again, Some(&look)),
        },
    })
}

/// Why the plan for this vm is refused; not whose other things come into it.
fn refused(no: No, plan: &Plan, vm: &VmName) -> No {
    let address = Address::vm(vm);
    let refusals: Vec<_> = plan.refusals.iter().filter(|refusal| refusal.holds(&address)).collect();
    let hint = refusals.first().map(|refusal| refusal.hint());
    let words = |refusal: &&Refusal| match &refusal.why {
        // What else its owner runs is theirs.
        Ground::OverQuota { owner, limit, .. } => format!("{owner} may run {limit} vms at once"),
        // And what else runs in the lab is somebody's.
        Ground::OverShare { .. } => "the lab runs as much as the site lets it".to_owned(),
        why => why.to_string(),
    };
    no.because(refusals.iter().map(words).collect(), hint)
}

/// A plan without what is about other things.
fn about(plan: &Plan, vm: &VmName) -> Plan {
    let address = Address::vm(vm);
    let mut own = plan.clone();
    own.changes.retain(|change| change.address == address);
    own.refusals.retain(|refusal| refusal.holds(&address));
    for notes in [&mut own.drift, &mut own.waits, &mut own.notes] {
        notes.retain(|note| note.address == address);
    }
    own.rights.clear();
    own.unchanged.retain(|other| *other == address);
    own
}
