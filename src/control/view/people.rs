//! Users, their groups, what they may do and when they meet: the paper's tables, and the predefined groups.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Listed, Moment, View, sorted};
use crate::control::ControlError;
use crate::model::claim::{self, ClaimBody};
use crate::model::id::{SessionName, UserGroupName, UserName, VmName};
use crate::model::lab::{self, AtEnd, Limits, Object, Right, SessionState, Subject};
use crate::plan::permission_address;
use crate::resolve::why_idle;

/// The groups that every lab has.
const ADMIN: &str = "admin";

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// As they log in.
    pub name: UserName,
    /// As it is recorded. What is in it may be another with each version of the program.
    #[serde(serialize_with = "sorted")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub value: lab::User,
    /// The account's number, where the manifest has it.
    pub uid: Option<u32>,
    /// By the lab's rosters, for those who must tell who sits there.
    pub full_name: Option<String>,
    /// As `full_name`.
    pub student_id: Option<String>,
    /// Stands for their name on submissions.
    pub candidate: Option<String>,
    /// By name, `admin` among them.
    pub groups: Vec<String>,
    /// How many are the user's own.
    pub vms: usize,
    /// What they may use.
    pub limits: Limits,
    /// What they get on top of a session.
    pub extra_time_percent: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct UserGroup {
    /// As its manifest calls it.
    pub name: String,
    /// As it is recorded. What is in it may be another with each version of the program.
    #[serde(serialize_with = "sorted")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub value: lab::UserGroup,
    /// It is there in every lab.
    pub predefined: bool,
    /// Who is in it.
    pub members: Vec<UserName>,
    /// Who else is in it is not told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    /// What each member may use, where the group says so.
    pub limits: Option<Limits>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Permission {
    /// Whom and what it joins.
    pub name: String,
    /// As it is recorded. What is in it may be another with each version of the program.
    #[serde(serialize_with = "sorted")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub value: lab::Permission,
    /// Kind and name.
    pub to: String,
    /// Kind and name.
    pub on: String,
    /// What it lets them do.
    pub allow: Vec<Right>,
    /// Whatever they run of it runs isolated.
    pub force_isolated: bool,
    /// The claim by which it is given; `None`: it is the manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// As the manifest calls it.
    pub name: SessionName,
    /// As it is recorded. What is in it may be another with each version of the program.
    #[serde(serialize_with = "sorted")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub value: lab::Session,
    /// How this moment stands to it.
    pub state: SessionState,
    /// When its vms are held for it.
    pub opens: Moment,
    /// When it begins.
    pub start: Moment,
    /// When it ends, as the manifest says.
    pub end: Moment,
    /// When the last one's time is over, with all that people were given.
    pub closes: Moment,
    /// Vms that take part.
    pub vms: Vec<VmName>,
    /// How many people have more time, or another start, than others.
    #[serde(default)]
    pub accommodated: usize,
    /// What happens to them at the end.
    pub at_end: AtEnd,
    /// As the manifest writes it.
    pub egress: Vec<String>,
}

impl Listed for User {
    const KIND: &'static str = "user";
    fn key(&self) -> &str {
        self.name.as_str()
    }
}

impl Listed for UserGroup {
    const KIND: &'static str = "user-group";
    fn key(&self) -> &str {
        &self.name
    }
}

impl Listed for Permission {
    const KIND: &'static str = "permission";
    fn key(&self) -> &str {
        &self.name
    }
}

impl Listed for Session {
    const KIND: &'static str = "session";
    fn key(&self) -> &str {
        self.name.as_str()
    }
}

impl View<'_> {
    /// Everybody whom the lab knows, by name.
    pub fn users(&self) -> Result<Vec<User>, ControlError> {
        let mut vms: BTreeMap<&UserName, usize> = BTreeMap::new();
        self.recorded.vms.values().for_each(|vm| *vms.entry(&vm.vm.owner).or_default() += 1);
        let store = self.context.store_if_any()?;
        let mut particulars = store.map(|store| store.particulars(&self.desired.lab)).transpose()?.unwrap_or_default();
        let of = |(name, value): (UserName, lab::User)| {
            let lab::Particulars { name: full_name, student_id, candidate } =
                particulars.remove(&name).unwrap_or_default();
            let is_admin = self.context.site.admins.contains(&name);
            User {
                uid: value.uid,
                full_name,
                student_id,
                candidate: candidate.map(Into::into),
                groups: value
                    .groups
                    .iter()
                    .map(ToString::to_string)
                    .chain(is_admin.then(|| ADMIN.to_owned()))
                    .collect(),
                vms: vms.get(&name).copied().unwrap_or_default(),
                limits: value.limits,
                extra_time_percent: value.extra_time_percent,
                name,
                value,
            }
        };
        Ok(self.applied()?.users.into_iter().map(of).collect())
    }

    /// The predefined groups come first, as in the paper.
    pub fn user_groups(&self) -> Result<Vec<UserGroup>, ControlError> {
        let (applied, site) = (self.applied()?, &self.context.site);
        let of = |name: &str, value: lab::UserGroup, predefined| UserGroup {
            name: name.to_owned(),
            predefined,
            members: value.members.iter().cloned().collect(),
            is_partial: false,
            limits: value.limits,
            value,
        };
        let admin = lab::UserGroup { members: site.admins.clone(), limits: Some(Limits::ADMIN) };
        let everybody =
            lab::UserGroup { members: applied.users.into_keys().collect(), limits: Some(site.default_limits) };
        let predefined = [of(ADMIN, admin, true), of(UserGroupName::ALL_USERS, everybody, true)];
        let own =
            applied.user_groups.into_iter().map(|(name, group): (UserGroupName, _)| of(name.as_str(), group, false));
        Ok(predefined.into_iter().chain(own).collect())
    }

    /// The manifest's first, then those that were given by command and count.
    pub fn permissions(&self) -> Result<Vec<Permission>, ControlError> {
        let counts = |claim: &&claim::Claim| why_idle(&self.desired, claim, |_| true).is_none();
        let given = self.recorded.claims.iter().filter(counts).filter_map(|claim| match &claim.body {
            ClaimBody::Grant(grant) => {
                Some(of_permission(grant.permission.clone(), Some(format!("{} of {}", claim.id, claim.by))))
            }
            _ => None,
        });
        let written = self.applied()?.permissions.into_iter().map(|value| of_permission(value, None));
        Ok(written.chain(given).collect())
    }

    /// By name, each as it stands at this moment.
    pub fn sessions(&self) -> Result<Vec<Session>, ControlError> {
        let now = Timestamp::now();
        Ok(self.applied()?.sessions.into_iter().map(|(name, session)| of_session(name, session, now)).collect())
    }
}

fn of_permission(value: lab::Permission, claim: Option<String>) -> Permission {
    Permission {
        name: permission_address(&value).name,
        to: match &value.to {
            Subject::User(user) => format!("user {user}"),
            Subject::Group(group) => format!("group {group}"),
        },
        on: match &value.on {
            Object::Vm(vm) => format!("vm {vm}"),
            Object::Template(template) => format!("template {template}"),
            Object::VmGroup(group) => format!("vm group {group}"),
        },
        allow: value.allow.iter().copied().collect(),
        force_isolated: value.force_isolated,
        claim,
        value,
    }
}

fn of_session(name: SessionName, value: lab::Session, now: Timestamp) -> Session {
    let (opens, closes) = value.window();
    Session {
        name,
        state: value.state(now),
        opens: opens.into(),
        start: value.start.into(),
        end: value.end.into(),
        closes: closes.into(),
        vms: value.vms.iter().cloned().collect(),
        accommodated: value.added.accommodated.len(),
        at_end: value.at_end,
        egress: value.egress.iter().map(ToString::to_string).collect(),
        value,
    }
}
