//! How an apply went, as text and as a line stream (see `stream`).

use std::fmt::Write as _;

use super::harmless;
use super::stream::{self, ApplyLine, Version};
use crate::apply::{Failure, Summary};

/// The last lines of an apply: what was done, what failed and why, what to type next.
pub fn text(summary: &Summary) -> String {
    let mut text = String::new();
    let takes_all = "a string takes all";
    for failure in &summary.failed {
        writeln!(text, "failed: {}: cannot {}: {}", failure.address, failure.effect, harmless(&failure.detail))
            .expect(takes_all);
    }
    let (done, failed, skipped) = (summary.done.len(), summary.failed.len(), summary.skipped.len());
    writeln!(text, "apply: {done} done, {failed} failed, {skipped} skipped").expect(takes_all);
    if summary.interrupted {
        writeln!(text, "stopped on your request; everything that was begun is recorded").expect(takes_all);
    }
    if failed + skipped > 0 {
        writeln!(text, "hint: mend what failed, then run `labwright apply` again: it goes on where this one stopped")
            .expect(takes_all);
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
