//! A plan in three lines, for a teacher: which vms start and stop, which come and go, and who would notice.

use std::collections::BTreeSet;

use crate::model::address::Kind;
use crate::plan::{Change, Effect, Plan, Touched, Verb};

/// Most names that a line spells out.
const NAMES_MAX: usize = 3;

pub(super) fn lines(plan: &Plan) -> String {
    let vms: Vec<&Change> = plan.changes.iter().filter(|change| change.address.kind == Kind::Vm).collect();
    format!("{}\n{}\n{}\n", power(&vms), life(&vms), reach(&vms))
}

/// What happens to a vm's guest.
#[derive(PartialEq, Eq)]
enum Power {
    Starts,
    Stops,
    Restarts,
    Stays,
}

fn power_of(change: &Change) -> Power {
    let has = |wanted: fn(&Effect) -> bool| change.actions.iter().any(|action| wanted(&action.effect));
    let starts = has(|effect| matches!(effect, Effect::Start { .. } | Effect::TurnOn { .. }));
    let stops = has(|effect| matches!(effect, Effect::Stop { .. } | Effect::TurnOff { .. }));
    match (starts, stops) {
        (true, false) => Power::Starts,
        (false, true) => Power::Stops,
        (true, true) => Power::Restarts,
        (false, false) => Power::Stays,
    }
}

fn power(vms: &[&Change]) -> String {
    let with = |power: &Power| vms.iter().filter(|change| power_of(change) == *power).count();
    let happens = [
        (with(&Power::Starts), "starts", "start"),
        (with(&Power::Stops), "stops", "stop"),
        (with(&Power::Restarts), "restarts", "restart"),
    ];
    let Some(text) = vms_that(&happens) else { return "No vm starts or stops.".into() };
    let in_use = vms.iter().filter(|change| power_of(change) != Power::Stays);
    let in_use: Vec<&str> =
        in_use.filter(|change| is_in_use(change)).map(|change| change.address.name.as_str()).collect();
    match in_use.len() {
        0 => format!("{text}, none of them in use."),
        n => format!("{text}, {n} of them in use: {}.", names(&in_use)),
    }
}

fn life(vms: &[&Change]) -> String {
    let with = |verb: Verb| vms.iter().filter(|change| change.verb == verb).count();
    let (new, gone, replaced) = (with(Verb::Create), with(Verb::SetAside), with(Verb::Replace));
    let happens =
        [(new, "is new", "are new"), (gone, "leaves", "leave"), (replaced, "gets new disks", "get new disks")];
    let kept = if gone + replaced > 0 { "; old disks are set aside, none is deleted" } else { "" };
    vms_that(&happens)
        .map_or_else(|| "No vm comes or goes, all keep their disks.".into(), |text| format!("{text}{kept}."))
}

/// `2 vms start, 1 stops`: what happens to at least one; nothing, if nothing does.
fn vms_that(happens: &[(usize, &str, &str)]) -> Option<String> {
    let mut parts = happens.iter().filter(|(number, ..)| *number > 0);
    let (number, one, many) = parts.next()?;
    let first = count(*number, &format!("vm {one}"), &format!("vms {many}"));
    Some(parts.fold(first, |text, (number, one, many)| format!("{text}, {}", count(*number, one, many))))
}

/// Whom the plan reaches, and how many of their guests run now.
fn reach(vms: &[&Change]) -> String {
    let touched: Vec<&Touched> = vms.iter().filter_map(|change| change.touches.as_ref()).collect();
    let owners = |student: bool| -> BTreeSet<&str> {
        touched.iter().filter(|touched| touched.student == student).map(|touched| touched.owner.as_str()).collect()
    };
    let (students, others) = (owners(true), owners(false));
    let running = touched.iter().filter(|touched| touched.in_use).count();
    if students.is_empty() && others.is_empty() {
        return "Touches no student, 0 running.".into();
    }
    let spelled = |owners: &BTreeSet<&str>, what: String| {
        let list: Vec<&str> = owners.iter().copied().collect();
        if list.is_empty() { None } else { Some(format!("{what} ({})", names(&list))) }
    };
    let students = spelled(&students, count(students.len(), "student", "students"));
    let others = spelled(&others, count(others.len(), "other owner", "other owners"));
    let parts: Vec<String> = students.into_iter().chain(others).collect();
    format!("Touches {}, {running} running.", parts.join(" and "))
}

fn is_in_use(change: &Change) -> bool {
    change.touches.as_ref().is_some_and(|touched| touched.in_use)
}

/// The first few of some names.
fn names(all: &[&str]) -> String {
    let shown = all[..all.len().min(NAMES_MAX)].join(", ");
    if all.len() > NAMES_MAX { format!("{shown}, …") } else { shown }
}

/// The first few, and how many more.
pub(super) fn shortened<N: ToString>(names: impl ExactSizeIterator<Item = N>) -> String {
    const NAMED_MAX: usize = 5;
    let more = names.len().saturating_sub(NAMED_MAX);
    let shown = names.take(NAMED_MAX).map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// A number and what it counts or what they do.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
