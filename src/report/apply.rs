//! How an apply went, as text and as a line stream (see `stream`).

use std::fmt::Write as _;

use super::escaped;
use super::stream::{self, ApplyLine, Version};
use crate::apply::{Failure, Summary};
use crate::model::address::Address;

/// Most changes that are named where one line is about many.
const NAMES_MAX: usize = 5;

/// The last lines of an apply: what was done, what failed and why, what was not begun, what to type next. `again` is the
/// command that was typed, `look` the one that shows how the lab stands; none where that is watched anyway.
pub fn text(summary: &Summary, again: &str, look: Option<&str>) -> String {
    let mut text = String::new();
    let takes_all = "a string takes all";
    for alike in alike(&summary.failed) {
        let Failure { effect, detail, .. } = alike[0];
        let names = shortened(alike.iter().map(|failure| &failure.address));
        let times = if alike.len() > 1 { format!("{} changes: {names}", alike.len()) } else { names };
        writeln!(text, "failed: {times}: cannot {effect}: {}", escaped(detail)).expect(takes_all);
    }
    if !summary.skipped.is_empty() {
        writeln!(text, "skipped: {}", shortened(summary.skipped.iter())).expect(takes_all);
    }
    let (done, failed, skipped) = (summary.done.len(), summary.failed.len(), summary.skipped.len());
    writeln!(text, "apply: {done} done, {failed} failed, {skipped} skipped").expect(takes_all);
    if summary.interrupted {
        writeln!(text, "stopped on your request; everything that was begun is recorded").expect(takes_all);
    }
    if failed > 0 {
        writeln!(text, "hint: mend what failed, then `{again}` goes on where this one stopped").expect(takes_all);
    } else if skipped > 0 {
        writeln!(text, "next: `{again}` goes on where this one stopped").expect(takes_all);
    } else if let Some(look) = look.filter(|_| !summary.started.is_empty()) {
        writeln!(text, "next: `{look}` shows how they come up").expect(takes_all);
    }
    text
}

/// Failures of one kind for one reason stand together, each kind where its first was.
fn alike(failed: &[Failure]) -> Vec<Vec<&Failure>> {
    let mut kinds: Vec<Vec<&Failure>> = Vec::new();
    for failure in failed {
        let is_like = |kind: &&mut Vec<&Failure>| kind[0].effect == failure.effect && kind[0].detail == failure.detail;
        match kinds.iter_mut().find(is_like) {
            Some(kind) => kind.push(failure),
            None => kinds.push(vec![failure]),
        }
    }
    kinds
}

fn shortened<'a>(addresses: impl ExactSizeIterator<Item = &'a Address>) -> String {
    let more = if addresses.len() > NAMES_MAX { ", …" } else { "" };
    let names: Vec<String> = addresses.take(NAMES_MAX).map(ToString::to_string).collect();
    escaped(&names.join(", ")).into_owned() + more
}

/// The line stream of an outcome.
pub fn stream(summary: &Summary) -> String {
    let mut lines = vec![ApplyLine::Version(Version::of("apply"))];
    lines.extend(summary.done.iter().map(|address| ApplyLine::Done { address }));
    lines.extend(summary.failed.iter().map(|Failure { address, effect, detail }| ApplyLine::Failed {
        address,
        effect,
        detail,
    }));
    lines.extend(summary.skipped.iter().map(|address| ApplyLine::Skipped { address }));
    lines.push(ApplyLine::Summary {
        done: summary.done.len(),
        failed: summary.failed.len(),
        skipped: summary.skipped.len(),
        started: &summary.started,
        interrupted: summary.interrupted,
    });
    stream::text(lines)
}
