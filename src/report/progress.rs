//! What is asked before an apply begins, and the lines that are told while it goes on.

use std::time::Duration;

use crate::apply::{BatchKind, Goal, Readiness};
use crate::control::apply::Waited;
use crate::disks::Copied;
use crate::model::disk::size;
use crate::model::id::{RunId, VmName};
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

/// Before vms get new disks that are in their first run.
pub fn restart_first(vms: &[VmName]) -> String {
    let (who, disks) = match vms {
        [vm] => (format!("`{vm}` was"), "its disk"),
        several => (format!("{} vms were", several.len()), "their disks"),
    };
    format!("{who} never restarted, which keeps {disks} and may be enough. Restart first?")
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

/// How far a copy is, with its rate, and with the time that is left where that can be told.
pub fn copied(copied: &Copied) -> String {
    let Copied { what, bytes, of_bytes, new_bytes, took } = copied;
    let rate = (*new_bytes * 1000) / u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let of = of_bytes.map(|whole| format!(" of {}", size(whole))).unwrap_or_default();
    let left = of_bytes.filter(|_| rate > 0).map(|whole| whole.saturating_sub(*bytes).div_ceil(rate.max(1)));
    let left = left.map(|seconds| format!(", {} left", length(seconds))).unwrap_or_default();
    format!("{}: {}{of}, {}/s{left}", what.display(), size(*bytes), size(rate))
}

fn length(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_its_rate_and_what_is_left() {
        let line = |of_bytes, new_bytes, seconds| {
            let (what, took) = ("https://a/b".into(), Duration::from_secs(seconds));
            copied(&Copied { what, bytes: 128 << 20, of_bytes, new_bytes, took })
        };
        assert_eq!(line(Some(512 << 20), 64 << 20, 4), "https://a/b: 128M of 512M, 16M/s, 24 s left");
        assert_eq!(line(Some(1 << 40), 64 << 20, 4), "https://a/b: 128M of 1024G, 16M/s, 18 h left");
        assert_eq!(line(None, 64 << 20, 4), "https://a/b: 128M, 16M/s");
        assert_eq!(line(Some(512 << 20), 0, 0), "https://a/b: 128M of 512M, 0/s");
    }
}
