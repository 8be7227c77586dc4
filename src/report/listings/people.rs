//! Users, groups, permissions and sessions.

use super::{few, shown, yes_no};
use crate::control::view::{Permission, Session, User, UserGroup};
use crate::model::disk::size;
use crate::model::lab::Limits;
use crate::report::table::{Row, word};
use crate::report::times;

impl Row for User {
    const COLUMNS: &'static [&'static str] = &["name", "groups", "vms", "may_run", "may_store", "extra_time", "uid"];
    const WIDE: &'static [&'static str] = &["uid"];
    const YIELDING: &'static [&'static str] = &["extra_time"];
    fn cells(&self) -> Vec<String> {
        let extra = if self.extra_time_percent == 0 { String::new() } else { format!("{} %", self.extra_time_percent) };
        vec![
            self.name.to_string(),
            self.groups.join(", "),
            self.vms.to_string(),
            self.limits.running_vms.to_string(),
            size(self.limits.storage_bytes),
            extra,
            shown(self.uid.as_ref()),
        ]
    }
}

impl Row for UserGroup {
    const COLUMNS: &'static [&'static str] = &["name", "members", "who", "may_run", "may_store", "predefined"];
    const WIDE: &'static [&'static str] = &["predefined"];
    const YIELDING: &'static [&'static str] = &["may_store", "may_run"];
    fn cells(&self) -> Vec<String> {
        let limit = |shown: fn(&Limits) -> String| self.limits.as_ref().map(shown).unwrap_or_default();
        vec![
            self.name.clone(),
            self.members.len().to_string(),
            few(self.members.iter()),
            limit(|limits| limits.running_vms.to_string()),
            limit(|limits| size(limits.storage_bytes)),
            yes_no(self.predefined),
        ]
    }
}

impl Row for Permission {
    const COLUMNS: &'static [&'static str] = &["to", "on", "allow", "force_isolated"];
    fn cells(&self) -> Vec<String> {
        let allow: Vec<String> = self.allow.iter().map(word).collect();
        vec![self.to.clone(), self.on.clone(), allow.join(", "), yes_no(self.force_isolated)]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Session {
    const COLUMNS: &'static [&'static str] =
        &["name", "state", "start", "end", "vms", "at_end", "opens", "closes", "egress"];
    const WIDE: &'static [&'static str] = &["opens", "closes", "egress"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            word(&self.state),
            times::moment(&self.start),
            times::moment(&self.end),
            self.vms.len().to_string(),
            word(&self.at_end),
            times::moment(&self.opens),
            times::moment(&self.closes),
            self.egress.join(", "),
        ]
    }
}
