//! Users, groups, permissions and sessions.

use super::{few, shown, yes_no};
use crate::control::view::{Permission, Session, User, UserGroup};
use crate::model::disk::size;
use crate::model::lab::SessionState;
use crate::report::table::{Column, Row, column, wide, word, yielding};
use crate::report::times;

impl Row for User {
    const COLUMNS: &'static [Column<Self>] = &[
        column("name", |user| user.name.to_string()),
        yielding(3, "full_name", |user| shown(user.full_name.as_ref())),
        yielding(2, "student_id", |user| shown(user.student_id.as_ref())),
        column("groups", |user| user.groups.join(", ")),
        column("vms", |user| user.vms.to_string()),
        column("may_run", |user| user.limits.running_vms.to_string()),
        column("may_store", |user| size(user.limits.storage_bytes)),
        yielding(1, "extra_time", |user| match user.extra_time_percent {
            0 => String::new(),
            percent => format!("{percent} %"),
        }),
        wide("candidate", |user| shown(user.candidate.as_ref())),
        wide("uid", |user| shown(user.uid.as_ref())),
    ];
}

impl Row for UserGroup {
    const COLUMNS: &'static [Column<Self>] = &[
        column("name", |group| group.name.clone()),
        column("members", |group| if group.is_partial { String::new() } else { group.members.len().to_string() }),
        column("who", who),
        yielding(2, "may_run", |group| shown(group.limits.map(|limits| limits.running_vms).as_ref())),
        yielding(1, "may_store", |group| shown(group.limits.map(|limits| size(limits.storage_bytes)).as_ref())),
        wide("predefined", |group| yes_no(group.predefined)),
    ];
}

/// Of others than those who are told.
fn who(group: &UserGroup) -> String {
    match (few(group.members.iter()), group.is_partial) {
        (members, true) if !members.is_empty() => format!("{members}, among others"),
        (members, _) => members,
    }
}

impl Row for Permission {
    const COLUMNS: &'static [Column<Self>] = &[
        column("to", |permission| permission.to.clone()),
        column("on", |permission| permission.on.clone()),
        column("allow", |permission| permission.allow.iter().map(word).collect::<Vec<_>>().join(", ")),
        column("force_isolated", |permission| yes_no(permission.force_isolated)),
        wide("claim", |permission| shown(permission.claim.as_ref())),
    ];
    fn name(&self) -> String {
        self.name.clone()
    }
}

/// What happens to it next, and when.
fn next(session: &Session) -> String {
    let (what, at) = match session.state {
        SessionState::Scheduled if session.value.boots() => ("boots", &session.opens),
        SessionState::Scheduled | SessionState::Preparing => ("starts", &session.start),
        SessionState::Running => ("ends", &session.closes),
        SessionState::Ended | SessionState::Closed => return String::new(),
    };
    format!("{what} {}", times::moment(at))
}

impl Row for Session {
    const COLUMNS: &'static [Column<Self>] = &[
        column("name", |session| session.name.to_string()),
        column("state", |session| word(&session.state)),
        column("start", |session| times::moment(&session.start)),
        column("end", |session| times::moment(&session.end)),
        column("vms", |session| session.vms.len().to_string()),
        column("at_end", |session| word(&session.at_end)),
        yielding(1, "next", next),
        wide("kind", |session| word(&session.value.kind)),
        wide("opens", |session| times::moment(&session.opens)),
        wide("closes", |session| times::moment(&session.closes)),
        wide("accommodated", |session| session.accommodated.to_string()),
        wide("egress", |session| session.egress.join(", ")),
    ];
}
