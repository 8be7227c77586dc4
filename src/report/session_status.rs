//! How a session stands, what became of one person in it, and whether it will find what it needs, for people.

use super::page::{OnPage, page};
use super::table::{Column, Format, Row, column, json, render, wide, word, yaml};
use super::{session::length, times};
use crate::control::session::{Finding, Happened, Machine, Status};
use crate::host::machine::check::Verdict;
use crate::model::id::SessionName;

/// Most that are named one by one.
const NAMED_MAX: usize = 10;

/// The line that counts, and each machine.
pub fn text(status: &Status, format: Format) -> String {
    match format {
        Format::Json => json(status),
        Format::Yaml => yaml(status),
        Format::Csv | Format::Name => render(&status.machines, format),
        Format::Table | Format::Wide => heading(status) + "\n\n" + &render(&status.machines, format),
    }
}

/// `final is running: 297/300 ready; not ready: ana (queued: no host has room), …`.
fn heading(status: &Status) -> String {
    let Status { session, state, wanted, ready, machines, .. } = status;
    let counted = format!("{session} is {}: {ready}/{wanted} ready", word(state));
    let waits =
        |machine: &&Machine| !machine.is_ready && machine.sitter.state != crate::control::session::Sitting::Over;
    let name = |machine: &Machine| {
        let why = machine.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("{} ({}{why})", machine.sitter.user, word(&machine.machine))
    };
    let mut names: Vec<String> = machines.iter().filter(waits).map(name).collect();
    if names.is_empty() {
        return counted;
    }
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    names.extend((more > 0).then(|| format!("and {more} more")));
    format!("{counted}; not ready: {}", names.join(", "))
}

impl Row for Machine {
    const COLUMNS: &'static [Column<Self>] = &[
        column("user", |machine| machine.sitter.user.to_string()),
        column("state", |machine| word(&machine.sitter.state)),
        column("vm", |machine| machine.vm.to_string()),
        column("machine", |machine| word(&machine.machine)),
        column("host", |machine| machine.host.clone().unwrap_or_default()),
        column("left", |machine| machine.sitter.left_seconds.map_or_else(String::new, length)),
        column("lost", lost),
        column("screen", |machine| {
            machine.locked.as_ref().map_or_else(String::new, |lock| format!("shut, {}", word(lock)))
        }),
        wide("warned", |machine| machine.warned_seconds.map_or_else(String::new, length)),
        wide("viewers", |machine| machine.viewers.map_or_else(String::new, |viewers| viewers.to_string())),
        wide("dropped", dropped),
        wide("seen", |machine| machine.last_seen.as_ref().map_or_else(String::new, times::moment)),
        wide("why", |machine| machine.why.clone().unwrap_or_default()),
    ];
    fn name(&self) -> String {
        self.vm.to_string()
    }
}

fn lost(machine: &Machine) -> String {
    let causes = machine.lost_seconds.iter().map(|(cause, seconds)| format!("{} {cause}", length(*seconds)));
    causes.collect::<Vec<_>>().join(", ")
}

fn dropped(machine: &Machine) -> String {
    let Some(dropped) = machine.dropped else { return String::new() };
    let reasons = dropped.by_reason().into_iter().filter(|(_, count)| *count > 0);
    reasons.map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
}

impl Row for Happened {
    const COLUMNS: &'static [Column<Self>] = &[
        column("when", |happened| times::moment(&happened.at)),
        column("what", |happened| happened.what.clone()),
        column("who", |happened| happened.by.clone().unwrap_or_default()),
        column("why", |happened| happened.why.clone().unwrap_or_default()),
    ];
}

impl Row for Finding {
    const COLUMNS: &'static [Column<Self>] = &[
        column("what", |finding| finding.what.clone()),
        column("verdict", |finding| finding.verdict.as_str().to_owned()),
        column("found", |finding| finding.found.clone()),
        column("mend", |finding| finding.mend.clone().unwrap_or_default()),
    ];
}

impl OnPage for Finding {
    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn what(&self) -> String {
        self.what.clone()
    }

    fn found(&self) -> (&str, Option<&str>) {
        (&self.found, self.mend.as_deref())
    }
}

/// The page, and for people what it comes to: whether nothing is to be mended.
pub fn checked(session: &SessionName, findings: &[Finding], format: Format) -> (bool, String) {
    let red = findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count();
    let verdict = match red {
        0 => format!("green: {session} has what it needs; `labwright host check --exam` boots a guest on each host"),
        1 => "red: 1 thing to mend".to_owned(),
        many => format!("red: {many} things to mend"),
    };
    let last = if format == Format::Table { verdict + "\n" } else { String::new() };
    (red == 0, page(findings, format) + &last)
}
