//! A plan as text and as a line stream (see `stream`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::edits::{self, Detail};
use super::plain_words::{self, count};
use super::remarks::code;
use super::stream::{self, ChangeLine, PlanLine, Remark, Version};
use super::values::values;
use super::{escaped, one_line, permissions, reasons, steps};
use crate::access::{RightsChange, Whom};
use crate::model::address::{Address, Kind};
use crate::model::lab::Right;
use crate::plan::{ActionId, Change, Held, Note, Plan, Refusal, Verb};

/// From how many changes of one kind a line stands for all of them.
const FOLD_FROM: usize = 4;

/// The same for vms, of which each has an owner who may ask: only what no terminal holds is folded.
const FOLD_VMS_FROM: usize = 40;

/// Most names that a folded line spells out.
const FOLDED_NAMES_MAX: usize = 3;

/// Most things that a refusal names as held back.
const HELD_NAMES_MAX: usize = 6;

const TAKES_ALL: &str = "a string takes all";

/// The whole plan: in plain words, line by line, and counted. With everything, also all fields, each step, and what stays
/// as it is.
pub fn text(plan: &Plan, verbose: bool) -> String {
    let mut text = String::new();
    if plan.is_empty() {
        text.push_str(&nothing_to_do(plan));
    } else {
        text.push_str(&plain_words::lines(plan));
        text.push('\n');
        text.push_str(&lines(plan, verbose));
        text.push_str(&permissions::changes(&plan.rights, verbose));
    }
    if verbose {
        plan.unchanged.iter().for_each(|address| writeln!(text, "    unchanged  {address}").expect(TAKES_ALL));
    }
    if !plan.is_empty() {
        writeln!(text, "\nplan: {}", plan.counts()).expect(TAKES_ALL);
    }
    let remarks = [("drift", &plan.drift), ("waits", &plan.waits), ("note", &plan.notes)];
    for (what, notes) in remarks {
        for Note { address, what: said } in notes {
            writeln!(text, "{what}: {address}: {}", brief(&said.to_string())).expect(TAKES_ALL);
        }
    }
    for refusal in &plan.refusals {
        writeln!(text, "refused: {}: {}", refusal.address, escaped(&refusal.why.to_string())).expect(TAKES_ALL);
        if let Some(others) = others_held(refusal) {
            writeln!(text, "  holds back: {}", escaped(&others)).expect(TAKES_ALL);
        }
        writeln!(text, "  hint: {}", escaped(&refusal.hint())).expect(TAKES_ALL);
    }
    text
}

/// Our own sentences as they are; of what a program said in several lines the beginning, since `explain` has all of it.
fn brief(text: &str) -> Cow<'_, str> {
    if text.contains('\n') { Cow::Owned(one_line(text)) } else { escaped(text) }
}

/// What a refusal holds back besides what it is about.
fn others_held(refusal: &Refusal) -> Option<String> {
    let Held::Only(held) = &refusal.holds else { return None };
    let others: Vec<String> =
        held.iter().filter(|address| **address != refusal.address).map(ToString::to_string).collect();
    let shown = others[..others.len().min(HELD_NAMES_MAX)].join(", ");
    match others.len() {
        0 => None,
        number if number > HELD_NAMES_MAX => Some(format!("{shown}, … ({number} in all)")),
        _ => Some(shown),
    }
}

fn nothing_to_do(plan: &Plan) -> String {
    let (things, lab) = (plan.unchanged.len(), &plan.lab);
    let are = if things == 1 { "is" } else { "are" };
    let as_they_should = format!(
        "{} of lab `{lab}` {are} as {} should be",
        count(things, "thing", "things"),
        if things == 1 { "it" } else { "they" }
    );
    match plan.refusals.len() {
        0 if things == 0 => format!("no changes: there is nothing to do in lab `{lab}`\n"),
        0 => format!("no changes: {as_they_should}\n"),
        refused if things == 0 => format!("nothing can be done: {refused} refused\n"),
        refused => format!("nothing can be planned: {as_they_should}, {refused} refused\n"),
    }
}

fn lines(plan: &Plan, verbose: bool) -> String {
    let mut by_kind: BTreeMap<(Kind, Verb), Vec<&Change>> = BTreeMap::new();
    for change in &plan.changes {
        by_kind.entry((change.address.kind, change.verb)).or_default().push(change);
    }
    let fold_from = |kind: Kind| match kind {
        Kind::User | Kind::UserGroup | Kind::Permission => FOLD_FROM,
        Kind::Vm => FOLD_VMS_FROM,
        _ => usize::MAX,
    };
    let owners = verbose.then(|| owners(plan));
    let mut rows: Vec<Row> = Vec::new();
    for ((kind, verb), changes) in by_kind {
        // Vms that change for different reasons are different things to know.
        let reason = |change: &Change| if kind == Kind::Vm { reasons::of_many(change) } else { String::new() };
        let mut by_reason: BTreeMap<String, Vec<&Change>> = BTreeMap::new();
        changes.iter().for_each(|change| by_reason.entry(reason(change)).or_default().push(change));
        by_reason.retain(|_, changes| changes.len() >= fold_from(kind) && !verbose);
        rows.extend(by_reason.iter().map(|(reason, changes)| folded(kind, verb, changes, reason)));
        let others = changes.into_iter().filter(|change| !by_reason.contains_key(&reason(change)));
        rows.extend(others.map(|change| row(change, owners.as_ref())));
    }
    let width = |column: usize| rows.iter().map(|row| row.cells[column].chars().count()).max().unwrap_or(0);
    let (symbol, verb, address) = (width(0), width(1), width(2));
    rows.iter().fold(String::new(), |mut text, row| {
        let [s, v, a, detail] = &row.cells;
        writeln!(text, "  {s:<symbol$} {v:<verb$}  {a:<address$}  {}", brief(detail)).expect(TAKES_ALL);
        row.below.iter().for_each(|line| writeln!(text, "{line}").expect(TAKES_ALL));
        text
    })
}

/// A change's line, and lines below it.
struct Row {
    cells: [String; 4],
    below: Vec<String>,
}

fn folded(kind: Kind, verb: Verb, changes: &[&Change], reason: &str) -> Row {
    let names: Vec<&str> = changes.iter().take(FOLDED_NAMES_MAX).map(|c| c.address.name.as_str()).collect();
    let more = if reason.is_empty() { String::new() } else { format!("  {reason}; `--verbose` lists them") };
    let detail = format!("{}, … ({} in all){more}", names.join(", "), changes.len());
    Row { cells: [verb.symbol().into(), verb.as_str().into(), format!("{kind}/…"), detail], below: Vec::new() }
}

/// `owners` tells which change each action belongs to, where everything is to be shown.
fn row(change: &Change, owners: Option<&BTreeMap<ActionId, &Address>>) -> Row {
    let Change { address, verb, before, after, .. } = change;
    let reason = change.reason();
    let ip = after.get("ip").or_else(|| before.get("ip")).map(|ip| format!("{ip}  ")).unwrap_or_default();
    let cells = [verb.symbol().into(), verb.as_str().into(), address.to_string(), format!("{ip}{reason}")];
    let below = match owners {
        None => edits::lines(before, after, Detail::Differences),
        Some(owners) => {
            [edits::lines(before, after, Detail::Everything), steps::lines(change, &needs(change, owners))].concat()
        }
    };
    Row { cells, below }
}

fn owners(plan: &Plan) -> BTreeMap<ActionId, &Address> {
    plan.actions().map(|(change, action)| (action.id, &change.address)).collect()
}

/// The other changes that must be done before this one.
fn needs<'a>(change: &Change, owners: &BTreeMap<ActionId, &'a Address>) -> BTreeSet<&'a Address> {
    let needs = change.actions.iter().flat_map(|action| &action.needs);
    needs.filter_map(|id| owners.get(id).copied()).filter(|address| **address != change.address).collect()
}

/// The line stream of a plan.
pub fn stream(plan: &Plan) -> String {
    let owners = owners(plan);
    let mut lines = vec![PlanLine::Version(Version::of("plan"))];
    lines.extend(plan.changes.iter().map(|change| change_line(change, &owners)));
    lines.extend(plan.drift.iter().map(|note| PlanLine::Drift(remark(note))));
    lines.extend(plan.waits.iter().map(|note| PlanLine::Wait(remark(note))));
    lines.extend(plan.notes.iter().map(|note| PlanLine::Note(remark(note))));
    lines.extend(plan.rights.iter().map(rights_line));
    lines.extend(plan.refusals.iter().map(refusal_line));
    lines.push(PlanLine::Summary {
        lab: &plan.lab,
        serial: plan.serial,
        changes: plan.changes.len(),
        unchanged: plan.unchanged.len(),
    });
    stream::text(lines)
}

fn change_line<'a>(change: &'a Change, owners: &BTreeMap<ActionId, &'a Address>) -> PlanLine<'a> {
    let Change { address, verb, reasons, before, after, touches, actions } = change;
    let (reason, codes) = (change.reason(), reasons.iter().map(code).collect());
    let (before, after) = (values(before), values(after));
    let effects = actions.iter().map(|action| action.effect.name()).collect();
    let needs = needs(change, owners).into_iter().collect();
    let (owner, in_use) = (touches.as_ref().map(|touched| &touched.owner), touches.as_ref().is_some_and(|t| t.in_use));
    PlanLine::Change(ChangeLine { address, verb: *verb, reason, codes, before, after, owner, in_use, needs, effects })
}

fn rights_line(change: &RightsChange) -> PlanLine<'_> {
    let RightsChange { who, on, gained, lost, isolated } = change;
    let (group, users) = match who {
        Whom::Group(group) => (Some(group), Vec::new()),
        Whom::Users { names, .. } => (None, names.iter().collect()),
    };
    let words = |rights: &BTreeSet<Right>| rights.iter().map(ToString::to_string).collect();
    PlanLine::Rights {
        group,
        users,
        on: on.to_string(),
        gained: words(gained),
        lost: words(lost),
        isolated: isolated.1,
    }
}

fn refusal_line(refusal: &Refusal) -> PlanLine<'_> {
    let Refusal { address, why, holds } = refusal;
    let holds = match holds {
        Held::Everything => None,
        Held::Only(held) => Some(held.iter().collect()),
    };
    PlanLine::Refusal { address, code: code(why), text: why.to_string(), hint: refusal.hint(), holds }
}

fn remark(note: &Note) -> Remark<'_> {
    Remark { address: &note.address, code: code(&note.what), text: note.what.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_said_in_many_lines_takes_one() {
        let said = format!("qemu-system-x86_64: cannot lock\nIs another process using the image? {}", "x".repeat(400));
        let shown = brief(&said);
        assert!(
            shown.starts_with("qemu-system-x86_64: cannot lock Is another process using the image? xxx"),
            "{shown}"
        );
        assert_eq!((shown.lines().count(), shown.chars().count()), (1, 160));
        let ours = format!("192.168.100.2  new: {}", "word ".repeat(60));
        assert_eq!(brief(&ours), ours, "our own sentences are not cut");
    }
}
