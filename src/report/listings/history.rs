//! Applies, and what each did.

use super::shown;
use crate::control::view::{Apply, Effect};
use crate::report::table::Row;
use crate::report::times;

impl Row for Apply {
    const COLUMNS: &'static [&'static str] = &["id", "when", "who", "command", "commit", "plan", "outcome"];
    const YIELDING: &'static [&'static str] = &["commit"];
    fn cells(&self) -> Vec<String> {
        let dirty = if self.dirty { "+" } else { "" };
        let outcome = self.outcome.as_deref().unwrap_or("not ended: it is under way, or was killed");
        vec![
            self.id.to_string(),
            times::moment(&self.began_at),
            format!("{}@{}", self.who, self.host),
            shown(self.command.as_ref()),
            self.commit.as_ref().map(|commit| format!("{commit}{dirty}")).unwrap_or_default(),
            self.summary.clone(),
            outcome.to_owned(),
        ]
    }
}

impl Row for Effect {
    const COLUMNS: &'static [&'static str] = &["when", "address", "effect", "outcome", "detail"];
    fn cells(&self) -> Vec<String> {
        vec![
            times::moment(&self.when),
            self.address.clone(),
            self.effect.clone(),
            self.outcome.as_deref().unwrap_or("cut short").to_owned(),
            shown(self.detail.as_ref()),
        ]
    }
}
