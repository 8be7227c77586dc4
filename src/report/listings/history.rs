//! Applies, what each did, and who asked for what.

use super::shown;
use crate::control::view::{Act, Apply, Effect};
use crate::model::audit::Verdict;
use crate::report::table::{Column, Row, column, word, yielding};
use crate::report::times;
use crate::state::{About, Someone};

impl Row for Apply {
    const COLUMNS: &'static [Column<Self>] = &[
        column("id", |apply| apply.id.to_string()),
        column("when", |apply| times::moment(&apply.began_at)),
        column("who", |apply| format!("{}@{}", apply.who, apply.host)),
        column("command", |apply| shown(apply.command.as_ref())),
        yielding(1, "commit", commit),
        column("plan", |apply| apply.summary.clone()),
        column("outcome", |apply| {
            apply.outcome.as_deref().unwrap_or("not ended: it is under way, or was killed").to_owned()
        }),
    ];
}

fn commit(apply: &Apply) -> String {
    let dirty = if apply.dirty { "+" } else { "" };
    apply.commit.as_ref().map(|commit| format!("{commit}{dirty}")).unwrap_or_default()
}

impl Row for Effect {
    const COLUMNS: &'static [Column<Self>] = &[
        column("when", |effect| times::moment(&effect.when)),
        column("address", |effect| effect.address.clone()),
        column("effect", |effect| effect.effect.clone()),
        column("outcome", |effect| effect.outcome.as_deref().unwrap_or("cut short").to_owned()),
        column("detail", |effect| shown(effect.detail.as_ref())),
    ];
}

impl Row for Act {
    const COLUMNS: &'static [Column<Self>] = &[
        column("id", |act| act.id.to_string()),
        column("when", |act| times::moment(&act.at)),
        column("who", who),
        yielding(1, "via", |act| word(&act.via)),
        column("command", command),
        column("about", about),
        column("came of it", |act| match &act.verdict {
            Verdict::Refused { why } => format!("refused: {why}"),
            Verdict::Begun => outcome(act),
            Verdict::Other => "a newer labwright's".to_owned(),
        }),
    ];
}

fn who(act: &Act) -> String {
    let behind = act.behind.as_ref().map(|behind| format!(" ({})", login(behind))).unwrap_or_default();
    format!("{}{behind}", login(&act.who))
}

/// What was done by somebody who was erased stays together by their number.
fn login(someone: &Someone) -> String {
    someone.login.clone().unwrap_or_else(|| format!("erased {}", someone.id))
}

fn command(act: &Act) -> String {
    let words = std::iter::once(&act.asked.command).chain(&act.asked.options);
    words.map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// The first of them; `-o json` has all.
fn about(act: &Act) -> String {
    const NAMED_MAX: usize = 3;
    let name = |about: &About| match about {
        About::Person(someone) => format!("user/{}", login(someone)),
        About::Vm { name: Some(name), .. } => format!("vm/{name}"),
        About::Vm { name: None, id, .. } => format!("vm/erased {id}"),
        About::Thing(address) => address.clone(),
    };
    let mut names: Vec<String> = act.about.iter().take(NAMED_MAX).map(name).collect();
    let more = act.about.len() - names.len();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

fn outcome(act: &Act) -> String {
    match (act.apply, &act.outcome) {
        (None, _) => "let".to_owned(),
        (Some(apply), Some(outcome)) => format!("{apply}: {outcome}"),
        (Some(apply), None) => format!("{apply}: not ended, or forgotten"),
    }
}
