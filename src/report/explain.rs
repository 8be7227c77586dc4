//! Why one thing is as it is, line by line.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde_json::Value;

use super::table::{json, word, yaml};
use super::{escaped, times};
use crate::control::view::{Apply, Effect, Explanation, Past, PastClaim, RecordedAs, Run, Said, VmState};
use crate::model::claim::ClaimBody;

/// How it is told.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum Form {
    #[default]
    Text,
    Json,
    Yaml,
}

pub fn text(explanation: &Explanation, form: Form) -> String {
    match form {
        Form::Text => words(explanation),
        Form::Json => json(explanation),
        Form::Yaml => yaml(explanation),
    }
}

fn words(explanation: &Explanation) -> String {
    let Explanation { address, manifest, recorded, past, said, changes, notes, refusals } = explanation;
    let mut lines = Lines(format!("{address}\n"));
    lines.add("manifest", manifest.as_deref().unwrap_or("it has no line of its own"));
    recorded_lines(recorded, &mut lines);
    past_lines(past, &mut lines);
    if let Some(said) = said {
        lines.add("report", said_words(said));
    }
    for change in changes {
        lines.add("plan", format!("{}: {}", change.verb.as_str(), change.reason()));
    }
    for note in notes {
        lines.add("note", note.what.to_string());
    }
    for refusal in refusals {
        lines.add("refused", format!("{}; {}", refusal.why, refusal.hint()));
    }
    lines.0
}

struct Lines(String);

impl Lines {
    fn add(&mut self, what: &str, value: impl AsRef<str>) {
        writeln!(self.0, "  {what:<10} {}", escaped(value.as_ref())).expect("a string takes all");
    }
}

fn recorded_lines(recorded: &RecordedAs, lines: &mut Lines) {
    match recorded {
        RecordedAs::Vm { owner, ip, mac, disks } => {
            lines.add("owner", owner.as_str());
            lines.add("address", format!("{ip} ({mac})"));
            for disk in disks {
                let base = disk.base.as_ref().map(|base| format!(" over {}", base.display())).unwrap_or_default();
                lines.add("disk", format!("{}{base}", disk.path.display()));
            }
        }
        RecordedAs::Thing(Value::Object(fields)) => {
            for (name, value) in fields.iter().filter(|(name, value)| !value.is_null() && *name != "origin") {
                lines.add("recorded", format!("{name}: {}", value_words(value)));
            }
        }
        RecordedAs::Thing(other) => lines.add("recorded", value_words(other)),
        RecordedAs::Nothing => lines.add("recorded", "nothing: it was never applied"),
    }
}

/// A value without the signs of JSON, as far as it can be told without them.
fn value_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "none".into(),
        Value::Array(all) => all.iter().map(value_words).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let known = fields.iter().filter(|(_, value)| !value.is_null());
            known.map(|(name, value)| format!("{name} {}", value_words(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn past_lines(Past { effects, apply, claims, runs }: &Past, lines: &mut Lines) {
    for Effect { when, apply, effect, outcome, detail, .. } in effects {
        let outcome = outcome.as_deref().unwrap_or("cut short");
        let detail = detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        lines.add("effect", format!("{}: {effect}: {outcome}, apply {apply}{detail}", times::moment(when)));
    }
    if let Some(Apply { id, who, host, commit, dirty, began_at, .. }) = apply {
        let dirty = if *dirty { " with changes that were not committed" } else { "" };
        let commit = commit.as_ref().map(|commit| format!(" at commit {commit}{dirty}")).unwrap_or_default();
        lines.add("apply", format!("{id} by {who}@{host}{commit}, {}", times::moment(began_at)));
    }
    claims.iter().for_each(|claim| lines.add("claim", claim_words(claim)));
    for Run { run, job, state, end } in runs {
        let job = job.as_ref().map(|job| format!(", job {job}")).unwrap_or_default();
        let end = end.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        lines.add("run", format!("{run}{job}, {state}{end}"));
    }
}

fn claim_words(PastClaim { id, kind, body, by, at, ended_at, ended }: &PastClaim) -> String {
    let wants = match ClaimBody::read(kind, body) {
        Ok(ClaimBody::Power(power)) => format!("it shall be {}", power.wanted.as_str()),
        Ok(ClaimBody::Hold(hold)) => format!("its disks are {hold}"),
        _ => format!("{kind} {body}"),
    };
    let why = ended.as_deref().unwrap_or("nobody said why");
    let ended = ended_at.as_ref().map(|at| format!("; ended {}: {why}", times::moment(at)));
    format!("{id} by {by}, {}: {wants}{}", times::moment(at), ended.unwrap_or_default())
}

fn said_words(Said { state, reason, host, vnc, last_heard_of }: &Said) -> String {
    let state = match (state, reason) {
        (VmState::Off, reason) => format!("over: {}", reason.as_deref().unwrap_or_default()),
        (state, Some(reason)) => format!("{}, {reason}", word(state)),
        (state, None) => word(state),
    };
    let place = host.as_ref().zip(vnc.as_ref()).map(|(host, vnc)| format!(" on {host}, vnc {vnc}"));
    format!("{state}{}, last heard of {}", place.unwrap_or_default(), times::moment(last_heard_of))
}
