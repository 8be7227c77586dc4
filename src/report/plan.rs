//! A plan as text and as a line stream (see `stream`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::harmless;
use super::stream::{self, ChangeLine, PlanLine, Remark, Version};
use crate::address::Kind;
use crate::apply::effect_name;
use crate::plan::{Change, Effect, Note, Plan, Refusal, Verb};

/// From how many changes of one kind a line stands for all of them.
const FOLD_FROM: usize = 4;

/// Most names that a folded line spells out.
const FOLDED_NAMES_MAX: usize = 3;

/// The whole plan: in plain words, line by line, and counted.
pub fn text(plan: &Plan, verbose: bool) -> String {
    let mut text = String::new();
    if plan.is_empty() && plan.refusals.is_empty() {
        writeln!(text, "no changes: {} things of lab `{}` are as they should be", plan.unchanged, plan.lab)
            .expect(TAKES_ALL);
    } else {
        text.push_str(&in_plain_words(plan));
        text.push('\n');
        text.push_str(&lines(plan, verbose));
        text.push('\n');
        writeln!(text, "plan: {}", counts(plan)).expect(TAKES_ALL);
    }
    for drift in &plan.drift {
        writeln!(text, "drift: {}: {}", drift.address, harmless(&drift.text)).expect(TAKES_ALL);
    }
    for note in &plan.notes {
        writeln!(text, "note: {}: {}", note.address, harmless(&note.text)).expect(TAKES_ALL);
    }
    for refusal in &plan.refusals {
        writeln!(
            text,
            "refused: {}: {}\n  hint: {}",
            refusal.address,
            harmless(&refusal.text),
            harmless(&refusal.hint)
        )
        .expect(TAKES_ALL);
    }
    text
}

const TAKES_ALL: &str = "a string takes all";

/// For a teacher: what happens to vms, and whether anybody would notice.
fn in_plain_words(plan: &Plan) -> String {
    let vms =
        |verbs: &[Verb]| plan.changes.iter().filter(|c| c.address.kind == Kind::Vm && verbs.contains(&c.verb)).count();
    let starts = plan.actions().filter(|(_, action)| matches!(action.effect, Effect::Start { .. })).count();
    let stops = plan.actions().filter(|(_, action)| matches!(action.effect, Effect::Stop { .. })).count();
    let restarts = vms(&[Verb::Restart]);
    let new = vms(&[Verb::Create]);
    let leave = vms(&[Verb::SetAside]);
    let replaced = vms(&[Verb::Replace]);
    let mut text = format!("{} start, {} stop, {restarts} of them to restart.\n", vms_word(starts), vms_word(stops));
    if new + leave + replaced > 0 {
        writeln!(
            text,
            "{} new, {} leave, {} with new disks; disks that leave are set aside, none is deleted.",
            vms_word(new),
            leave,
            replaced
        )
        .expect(TAKES_ALL);
    }
    let running_touched = match stops {
        0 => "No running vm is touched.".to_owned(),
        1 => "1 running vm is interrupted.".to_owned(),
        n => format!("{n} running vms are interrupted."),
    };
    writeln!(text, "{running_touched}").expect(TAKES_ALL);
    text
}

fn vms_word(count: usize) -> String {
    if count == 1 { "1 vm".into() } else { format!("{count} vms") }
}

fn lines(plan: &Plan, verbose: bool) -> String {
    let mut folded: BTreeMap<(Kind, Verb), Vec<&Change>> = BTreeMap::new();
    for change in &plan.changes {
        folded.entry((change.address.kind, change.verb)).or_default().push(change);
    }
    let foldable = |kind: Kind| matches!(kind, Kind::User | Kind::UserGroup | Kind::Permission);
    let mut rows: Vec<[String; 4]> = Vec::new();
    for ((kind, verb), changes) in folded {
        if foldable(kind) && changes.len() >= FOLD_FROM && !verbose {
            let names: Vec<&str> = changes.iter().take(FOLDED_NAMES_MAX).map(|c| c.address.name.as_str()).collect();
            let detail = format!("{}, … ({} in all)", names.join(", "), changes.len());
            rows.push([verb.symbol().into(), verb.as_str().into(), format!("{kind}/…"), detail]);
            continue;
        }
        rows.extend(changes.into_iter().map(|change| {
            let ip = change.after.get("ip").or_else(|| change.before.get("ip"));
            let ip = ip.map(|ip| format!("{ip}  ")).unwrap_or_default();
            [verb.symbol().into(), verb.as_str().into(), change.address.to_string(), format!("{ip}{}", change.reason)]
        }));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (symbol, verb, address) = (width(0), width(1), width(2));
    rows.iter().fold(String::new(), |mut text, row| {
        let [s, v, a, detail] = row;
        writeln!(text, "  {s:<symbol$} {v:<verb$}  {a:<address$}  {}", harmless(detail)).expect(TAKES_ALL);
        text
    })
}

/// How many of what, in one line.
pub fn counts(plan: &Plan) -> String {
    let mut by_verb: BTreeMap<Verb, usize> = BTreeMap::new();
    for change in &plan.changes {
        *by_verb.entry(change.verb).or_default() += 1;
    }
    let mut parts: Vec<String> =
        by_verb.into_iter().map(|(verb, count)| format!("{count} to {}", verb.as_str())).collect();
    parts.push(format!("{} unchanged", plan.unchanged));
    parts.join(", ")
}

/// The line stream of a plan.
pub fn stream(plan: &Plan) -> String {
    let mut lines = vec![PlanLine::Version(Version::of("plan"))];
    lines.extend(plan.changes.iter().map(change_line));
    lines.extend(plan.drift.iter().map(|note| PlanLine::Drift(remark(note))));
    lines.extend(plan.notes.iter().map(|note| PlanLine::Note(remark(note))));
    lines.extend(plan.refusals.iter().map(|Refusal { address, text, hint }| PlanLine::Refusal { address, text, hint }));
    lines.push(PlanLine::Summary {
        lab: &plan.lab,
        serial: plan.serial,
        changes: plan.changes.len(),
        unchanged: plan.unchanged,
    });
    stream::text(lines)
}

fn change_line(change: &Change) -> PlanLine<'_> {
    let Change { address, verb, reason, before, after, actions } = change;
    let effects = actions.iter().map(|action| effect_name(&action.effect)).collect();
    PlanLine::Change(ChangeLine { address, verb: *verb, reason, before, after, effects })
}

fn remark(note: &Note) -> Remark<'_> {
    Remark { address: &note.address, text: &note.text }
}
