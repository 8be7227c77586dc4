//! Where a lab stands, in one screen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::table::{Format, json, render, word, yaml};
use super::{escaped, one_line, times};
use crate::control::view::{Freeze, Status, Vm};
use crate::state::FreezeScope;

/// Most reasons that are told below the table, one line each.
const REASONS_MAX: usize = 10;

const TAKES_ALL: &str = "a string takes all";

/// `apply` is the command that makes the lab's vms.
pub fn text(status: &Status, format: Format, apply: &str) -> String {
    match format {
        Format::Json => json(status),
        Format::Yaml => yaml(status),
        Format::Csv | Format::Name => render(&status.vms, format),
        Format::Table | Format::Wide => {
            heading(status, apply) + "\n" + &render(&status.vms, format) + &reasons(&status.vms)
        }
    }
}

/// One of many: JSON stands on one line.
pub fn text_of_look(status: &Status, format: Format, apply: &str) -> String {
    match format {
        Format::Json => serde_json::to_string(&status).expect("it has only string keys") + "\n",
        _ => text(status, format, apply),
    }
}

fn heading(status: &Status, apply: &str) -> String {
    let counts: Vec<String> = status.states.iter().map(|(state, count)| format!("{count} {}", word(state))).collect();
    let counts = match (counts.is_empty(), status.serial) {
        (false, _) => counts.join(", "),
        (true, 0) => format!("no vms yet: `{apply}` makes them"),
        (true, _) => "it has no vms".to_owned(),
    };
    let mut text = format!("lab {} (serial {}): {counts}\n", status.lab, status.serial);
    if let Some(Freeze { scope, who, why, since }) = &status.frozen {
        let (thing, all) = match scope {
            FreezeScope::Site => ("the whole site", " --all"),
            FreezeScope::Lab => ("the lab", ""),
        };
        let (since, why) = (times::moment(since), escaped(why));
        writeln!(text, "frozen: {who} froze {thing} at {since} ({why}); `labwright thaw{all}` ends it")
            .expect(TAKES_ALL);
    }
    text
}

/// Why vms are not what was wanted of them. What many have in common is said once.
fn reasons(vms: &[Vm]) -> String {
    let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for vm in vms {
        if let Some(why) = &vm.why {
            by_reason.entry(one_line(why)).or_default().push(vm.name.as_str());
        }
    }
    let mut text = String::new();
    for (why, vms) in by_reason.iter().take(REASONS_MAX) {
        let lead = if text.is_empty() { "\n" } else { "" };
        let others = match vms.len() {
            1 => String::new(),
            2 => " and 1 more".to_owned(),
            n => format!(" and {} more", n - 1),
        };
        writeln!(text, "{lead}{}{others}: {why}", vms[0]).expect(TAKES_ALL);
    }
    if by_reason.len() > REASONS_MAX {
        writeln!(text, "… {} more reasons: `-o wide` shows them all", by_reason.len() - REASONS_MAX).expect(TAKES_ALL);
    }
    text
}
