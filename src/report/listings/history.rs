//! Applies, and what each did.

use super::shown;
use crate::control::view::{Apply, Effect};
use crate::report::table::{Column, Row, column, yielding};
use crate::report::times;

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
