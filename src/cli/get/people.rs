//! `labwright get users`, `user-groups`, `permissions` and `sessions`: the paper's tables, and the predefined groups.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{few, size, yes_no};
use crate::control::view::Listed;
use crate::model::id::UserName;
use crate::model::lab::{
    AtEnd, Desired, Egress, Limits, Object, Permission, Protocol, Right, Session, Subject, User, UserGroup,
};
use crate::model::site::Site;
use crate::plan::permission_address;
use crate::report::table::Row;
use crate::report::times;
use crate::state::Recorded;

/// The groups that every lab has.
const ADMIN: &str = "admin";
const ALL_USERS: &str = "all_users";

/// A value as it is recorded, for programs.
fn recorded_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("a recorded value has only string keys")
}

#[derive(Debug, Serialize)]
pub(super) struct UserRow {
    name: String,
    value: Value,
    uid: Option<u32>,
    groups: Vec<String>,
    vms: usize,
    limits: Limits,
    extra_time_percent: u32,
}

impl Row for UserRow {
    const COLUMNS: &'static [&'static str] = &["name", "groups", "vms", "may_run", "may_store", "extra_time", "uid"];
    const WIDE: &'static [&'static str] = &["uid"];
    const YIELDING: &'static [&'static str] = &["extra_time"];
    fn cells(&self) -> Vec<String> {
        let extra = if self.extra_time_percent == 0 { String::new() } else { format!("{} %", self.extra_time_percent) };
        vec![
            self.name.clone(),
            self.groups.join(", "),
            self.vms.to_string(),
            self.limits.running_vms.to_string(),
            size(self.limits.storage_bytes),
            extra,
            self.uid.map(|uid| uid.to_string()).unwrap_or_default(),
        ]
    }
}

impl Listed for UserRow {
    fn key(&self) -> &str {
        &self.name
    }
}

pub(super) fn user_rows(applied: &Desired, recorded: &Recorded, site: &Site) -> Vec<UserRow> {
    let mut vms: BTreeMap<&UserName, usize> = BTreeMap::new();
    recorded.vms.values().for_each(|vm| *vms.entry(&vm.vm.owner).or_default() += 1);
    let row = |(name, user): (&UserName, &User)| UserRow {
        name: name.to_string(),
        value: recorded_value(user),
        uid: user.uid,
        groups: user
            .groups
            .iter()
            .map(ToString::to_string)
            .chain(site.admins.contains(name).then(|| ADMIN.to_owned()))
            .collect(),
        vms: vms.get(name).copied().unwrap_or_default(),
        limits: user.limits,
        extra_time_percent: user.extra_time_percent,
    };
    applied.users.iter().map(row).collect()
}

#[derive(Debug, Serialize)]
pub(super) struct GroupRow {
    name: String,
    value: Value,
    /// It is there in every lab.
    predefined: bool,
    members: Vec<String>,
    limits: Option<Limits>,
}

impl Row for GroupRow {
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

impl Listed for GroupRow {
    fn key(&self) -> &str {
        &self.name
    }
}

/// The predefined groups come first, as in the paper.
pub(super) fn group_rows(applied: &Desired, site: &Site) -> Vec<GroupRow> {
    let row = |name: &str, group: &UserGroup, predefined| GroupRow {
        name: name.to_owned(),
        value: recorded_value(group),
        predefined,
        members: group.members.iter().map(ToString::to_string).collect(),
        limits: group.limits,
    };
    let admin = UserGroup { members: site.admins.clone(), limits: Some(Limits::ADMIN) };
    let everybody = UserGroup {
        members: applied.users.keys().cloned().collect::<BTreeSet<_>>(),
        limits: Some(site.default_limits),
    };
    let own = applied.user_groups.iter().map(|(name, group)| row(name.as_str(), group, false));
    [row(ADMIN, &admin, true), row(ALL_USERS, &everybody, true)].into_iter().chain(own).collect()
}

#[derive(Debug, Serialize)]
pub(super) struct PermissionRow {
    name: String,
    value: Value,
    to: String,
    on: String,
    allow: Vec<&'static str>,
    force_isolated: bool,
}

impl Row for PermissionRow {
    const COLUMNS: &'static [&'static str] = &["to", "on", "allow", "force_isolated"];
    fn cells(&self) -> Vec<String> {
        vec![self.to.clone(), self.on.clone(), self.allow.join(", "), yes_no(self.force_isolated)]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Listed for PermissionRow {
    fn key(&self) -> &str {
        &self.name
    }
}

pub(super) fn permission_rows(applied: &Desired) -> Vec<PermissionRow> {
    let row = |permission: &Permission| PermissionRow {
        name: permission_address(permission).name,
        value: recorded_value(permission),
        to: match &permission.to {
            Subject::User(user) => format!("user {user}"),
            Subject::Group(group) => format!("group {group}"),
        },
        on: match &permission.on {
            Object::Vm(vm) => format!("vm {vm}"),
            Object::Template(template) => format!("template {template}"),
            Object::VmGroup(group) => format!("vm group {group}"),
        },
        allow: permission.allow.iter().map(|right| right_word(*right)).collect(),
        force_isolated: permission.force_isolated,
    };
    applied.permissions.iter().map(row).collect()
}

fn right_word(right: Right) -> &'static str {
    match right {
        Right::Run => "run",
        Right::Modify => "modify",
        Right::Derive => "derive",
    }
}

#[derive(Debug, Serialize)]
pub(super) struct SessionRow {
    name: String,
    value: Value,
    /// `ahead`, `open` or `over`.
    state: &'static str,
    #[serde(serialize_with = "times::serialize")]
    opens: Timestamp,
    #[serde(serialize_with = "times::serialize")]
    start: Timestamp,
    #[serde(serialize_with = "times::serialize")]
    end: Timestamp,
    /// With the longest extra time.
    #[serde(serialize_with = "times::serialize")]
    closes: Timestamp,
    vms: Vec<String>,
    at_end: &'static str,
    egress: Vec<String>,
}

impl Row for SessionRow {
    const COLUMNS: &'static [&'static str] =
        &["name", "state", "start", "end", "vms", "at_end", "opens", "closes", "egress"];
    const WIDE: &'static [&'static str] = &["opens", "closes", "egress"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.into(),
            times::local(self.start),
            times::local(self.end),
            self.vms.len().to_string(),
            self.at_end.into(),
            times::local(self.opens),
            times::local(self.closes),
            self.egress.join(", "),
        ]
    }
}

impl Listed for SessionRow {
    fn key(&self) -> &str {
        &self.name
    }
}

pub(super) fn session_rows(applied: &Desired, now: Timestamp) -> Vec<SessionRow> {
    applied.sessions.iter().map(|(name, session)| session_row(name.to_string(), session, now)).collect()
}

fn session_row(name: String, session: &Session, now: Timestamp) -> SessionRow {
    let (opens, closes) = session.window();
    let egress = session.egress.iter();
    SessionRow {
        name,
        value: recorded_value(session),
        state: match now {
            now if now < opens => "ahead",
            now if now < closes => "open",
            _ => "over",
        },
        opens,
        start: session.start,
        end: session.end,
        closes,
        vms: session.vms.iter().map(ToString::to_string).collect(),
        at_end: match session.at_end {
            AtEnd::Keep => "keep",
            AtEnd::Stop => "stop",
            AtEnd::Collect => "collect",
        },
        egress: egress.map(egress_words).collect(),
    }
}

/// As the manifest writes it.
fn egress_words(to: &Egress) -> String {
    let net = to.net.to_string();
    let protocol = match to.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}:{}/{protocol}", net.trim_end_matches("/32"), to.port)
}
