//! How an apply went, as text and as a line stream (see `stream`).

use std::fmt::Write as _;

use super::harmless;
use super::stream::{self, ApplyLine, Version};
use crate::apply::{Failure, Summary};

/// Most skipped changes that are named.
const SKIPPED_NAMES_MAX: usize = 5;

/// The last lines of an apply: what was done, what failed and why, what was not begun, what to type next. `again` is the
/// command that was typed, `look` the one that shows how the lab stands.
pub fn text(summary: &Summary, again: &str, look: &str) -> String {
    let mut text = String::new();
    let takes_all = "a string takes all";
    for failure in &summary.failed {
        writeln!(text, "failed: {}: cannot {}: {}", failure.address, failure.effect, harmless(&failure.detail))
            .expect(takes_all);
    }
    if !summary.skipped.is_empty() {
        let names: Vec<String> = summary.skipped.iter().take(SKIPPED_NAMES_MAX).map(ToString::to_string).collect();
        let more = if summary.skipped.len() > names.len() { ", …" } else { "" };
        writeln!(text, "skipped: {}{more}", harmless(&names.join(", "))).expect(takes_all);
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
    } else if !summary.started.is_empty() {
        writeln!(text, "next: `{look}` shows how they come up").expect(takes_all);
    }
    text
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
