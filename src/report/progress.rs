//! What is asked before an apply begins, and the lines that are told while it goes on.

use std::time::Duration;

use crate::apply::{BatchKind, Goal, Readiness};
use crate::control::apply::Waited;
use crate::model::id::RunId;
use crate::plan::{Answer, Plan};

/// What a person is asked before a plan is carried out.
pub fn question(plan: &Plan, doing: &str) -> String {
    let lab = &plan.lab;
    let without = if plan.refusals.is_empty() { "" } else { " without what is refused" };
    match doing {
        "apply" => format!("Apply this plan to lab `{lab}`{without}?"),
        "destroy" => format!("Take lab `{lab}` down{without}: stop its vms and set their disks aside?"),
        other => {
            let words = other.strip_prefix("vm ").unwrap_or(other);
            let (first, rest) = words.split_at(1);
            format!("{}{rest}{without}?", first.to_uppercase())
        }
    }
}

/// The vms that were asked for by name and are as they should be.
pub fn already(plan: &Plan) -> String {
    let already = plan.answers.iter().filter_map(|(vm, answer)| match answer {
        Answer::Already(why) => Some(format!("{vm} {why}\n")),
        Answer::Planned | Answer::NotDone(_) => None,
    });
    already.collect()
}

/// One line for a batch.
pub fn batch(kind: BatchKind, done: usize, failed: usize, took: Duration) -> String {
    let (one, many, participle) = kind.words();
    let what = if done == 1 { one } else { many };
    let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    format!("  {done} {what} {participle}{failures} ({:.1} s)", took.as_secs_f64())
}

/// One line for effects that are tried again.
pub fn retry(kind: BatchKind, number: usize, pause: Duration, why: &str) -> String {
    let (one, many, participle) = kind.words();
    let what = if number == 1 { one } else { many };
    format!("  {number} {what} not {participle} yet: {why}; another try in {:.1} s", pause.as_secs_f64())
}

/// How far the guests are that are waited for.
pub fn guests(readiness: &Readiness, goal: Goal) -> String {
    let Readiness { wanted, queued, starting, running, ended, gone, unheard, .. } = readiness;
    let booting = if goal == Goal::Ready { format!("{running} booting, ") } else { String::new() };
    format!(
        "  {}/{wanted} {}, {booting}{starting} starting, {queued} queued, {} ended{}",
        readiness.reached(goal),
        goal.word(),
        ended.len() + gone.len(),
        if *unheard > 0 { format!(", {unheard} unknown") } else { String::new() }
    )
}

/// A line for each guest that ended while it was waited for.
pub fn ends(waited: &Waited) -> Vec<String> {
    let name = |run: &RunId| waited.vms.get(run).map_or_else(|| run.to_string(), ToString::to_string);
    let ended = waited.readiness.ended.iter().map(|(run, reason)| format!("{} is over: {reason}", name(run)));
    let gone = waited.gone.iter().map(|(run, said)| {
        let how = said.as_ref().map_or_else(|| " without a word".to_owned(), |said| format!("; it said: {said}"));
        format!("{} is gone: its job ended{how}", name(run))
    });
    ended.chain(gone).collect()
}
