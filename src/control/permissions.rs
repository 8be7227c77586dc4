//! Who may do what in a lab: the question, and the answers that people give by command.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::aside::refuse_frozen;
use super::journal::{Decides, Lab, Step};
use super::{Context, ControlError};
use crate::access::{Because, Decision, Effective, Exams, Forced, Person, Refused, Roles, World};
use crate::model::address::{Address, Kind};
use crate::model::claim::{Claim, ClaimBody, GivenAs, GrantClaim};
use crate::model::id::{LabName, UserGroupName, UserName, VmName};
use crate::model::lab::{Desired, Object, Permission, Right, Subject};
use crate::model::site::Site;
use crate::plan::permission_address;
use crate::resolve::with_claims;
use crate::state::{Change, Recorded};

/// Everybody's rights in a lab at one moment.
pub struct Rights<'a> {
    lab: &'a Desired,
    claims: &'a [Claim],
    roles: Roles,
    owners_may_share: bool,
    in_session: BTreeSet<VmName>,
    exams: Exams,
    caller: &'a Person,
}

impl<'a> Rights<'a> {
    /// `lab` is the lab with its claims.
    pub fn of(context: &'a Context, lab: &'a Desired, recorded: &'a Recorded) -> Self {
        let now = jiff::Timestamp::now();
        let open = lab.sessions.values().filter(|session| session.is_open(now));
        Self {
            lab,
            claims: &recorded.claims,
            roles: roles(&context.site, &lab.lab, &context.caller.person),
            owners_may_share: context.site.owners_may_share,
            in_session: open.flat_map(|session| session.vms.iter().cloned()).collect(),
            exams: exams(lab, now),
            caller: &context.caller.person,
        }
    }

    /// The same, about somebody.
    pub fn about(context: &'a Context, lab: &'a Desired, recorded: &'a Recorded, who: &Person) -> Self {
        Self { roles: roles(&context.site, &lab.lab, who), ..Self::of(context, lab, recorded) }
    }

    pub fn world(&self) -> World<'_> {
        let Self { lab, claims, roles, owners_may_share, in_session, exams, caller: _ } = self;
        World { lab, claims, roles, owners_may_share: *owners_may_share, in_session, exams }
    }

    /// Whether a vm of this name could only ever be theirs, or they may do everything.
    pub fn is_in_own_name_space(&self, name: &VmName) -> bool {
        let is_theirs = |user: &UserName| name.owner() == Some(user.as_str());
        self.world().all_rights(self.caller).is_some() || self.caller.user().is_some_and(is_theirs)
    }

    /// Refuses unless who asks may.
    pub fn require(&self, right: Right, on: &Object) -> Result<(), ControlError> {
        let decision = self.world().may(self.caller, right, on);
        decision.map(drop).map_err(|refused| ControlError::NotAllowed { right: Some(right), on: on.clone(), refused })
    }

    /// The same where a vm is to get other disks.
    pub fn require_reimage(&self, vm: &VmName) -> Result<(), ControlError> {
        let on = || Object::Vm(vm.clone());
        let decision = self.world().may_reimage(self.caller, vm);
        let not_allowed = |refused| ControlError::NotAllowed { right: Some(Right::Modify), on: on(), refused };
        decision.map(drop).map_err(not_allowed)
    }

    /// All that somebody may do.
    pub fn of_person(&self, who: &Person) -> Vec<EffectiveRights> {
        let of = |(object, Effective { rights, forced })| EffectiveRights { object, allow: rights, isolated: forced };
        self.world().effective(who).into_iter().map(of).collect()
    }

    /// What who asks may do with a thing.
    pub fn on(&self, thing: &Object) -> Vec<Right> {
        let may = |right: &Right| self.world().may(self.caller, *right, thing).is_ok();
        Right::ALL.into_iter().filter(may).collect()
    }

    /// Whether who asks is this user.
    pub fn is_own(&self, user: &UserName) -> bool {
        self.caller.user() == Some(user)
    }

    /// Whether what is given to somebody is given to who asks.
    pub fn concerns_caller(&self, to: &Subject) -> bool {
        self.caller.user().is_some_and(|user| self.world().is_one_of(user, to))
    }

    /// Whether everything of the lab is who asks' to do and to see.
    pub fn are_all(&self) -> bool {
        self.world().all_rights(self.caller).is_some()
    }

    /// A lab of which who asks may know nothing is none to them.
    pub fn require_any(&self) -> Result<(), ControlError> {
        if self.are_all() || !self.of_person(self.caller).is_empty() {
            return Ok(());
        }
        Err(ControlError::NoSuchLab { lab: self.lab.lab.clone() })
    }

    /// What somebody makes counts against its owner's limits.
    pub fn refuse_for_others(&self, owner: &UserName) -> Result<(), ControlError> {
        if self.is_own(owner) || self.are_all() { Ok(()) } else { Err(ControlError::ForOthers) }
    }

    /// Whether who asks may know that a thing is there.
    pub fn sees(&self, on: &Object) -> bool {
        self.world().is_visible(self.caller, on)
    }

    /// The same as a refusal.
    pub fn require_sight(&self, on: &Object) -> Result<(), ControlError> {
        if self.sees(on) { Ok(()) } else { Err(Self::not_known(on)) }
    }

    /// What is not there, and what somebody may not know of, reads alike.
    pub fn not_known(on: &Object) -> ControlError {
        ControlError::NotAllowed { right: None, on: on.clone(), refused: Refused::NotKnown }
    }

    /// A user whom the lab does not know may do nothing, which would look like an answer.
    fn refuse_stranger(&self, who: &Person) -> Result<(), ControlError> {
        let is_stranger =
            |user: &&UserName| !self.lab.users.contains_key(*user) && self.world().all_rights(who).is_none();
        match who.user().filter(is_stranger) {
            Some(user) => Err(ControlError::NoUser { user: user.clone(), lab: self.lab.lab.clone() }),
            None => Ok(()),
        }
    }

    /// Why a vm runs isolated when who asks starts it.
    pub fn forced(&self, vm: &VmName) -> Option<Forced> {
        self.world().forced(self.caller.user(), vm)
    }
}

/// What a lab's exams mean for people's rights at this moment. Who sits one sees the vms of no other one that is theirs.
fn exams(lab: &Desired, now: jiff::Timestamp) -> Exams {
    let mut exams = Exams::default();
    for session in lab.sessions.values().filter(|session| session.is_exam()) {
        for name in &session.vms {
            let Some(vm) = lab.vms.get(name) else { continue };
            exams.vms.insert(name.clone());
            if session.is_closed_to(&vm.owner, now) {
                exams.closed.insert(name.clone());
            } else {
                exams.sitting.entry(vm.owner.clone()).or_default().insert(name.clone());
            }
        }
    }
    exams
}

/// Who has all rights in a lab, as far as `who` is concerned: of the groups whose members own it, accounts that have one as
/// their own group stand in no list.
pub fn roles(site: &Site, lab: &LabName, who: &Person) -> Roles {
    let Some(share) = site.labs.get(lab) else {
        return Roles { admins: site.admins.clone(), lab_owners: BTreeSet::new() };
    };
    let mut lab_owners = share.owners.clone();
    let is_in_a_group = |user: &UserName| share.owner_groups.iter().any(|group| is_member(user, group));
    lab_owners.extend(who.user().filter(|user| is_in_a_group(user)).cloned());
    Roles { admins: site.admins.clone(), lab_owners }
}

/// Whether an account of this machine is in a group of it.
fn is_member(user: &UserName, group: &UserGroupName) -> bool {
    use nix::unistd::{Group, User};
    let Ok(Some(group)) = Group::from_name(group.as_str()) else { return false };
    let own_group = || User::from_name(user.as_str()).ok().flatten().map(|account| account.gid);
    group.mem.iter().any(|member| member == user.as_str()) || own_group() == Some(group.gid)
}

/// Whether somebody may do something, and why.
pub fn check(
    context: &Context,
    desired: &Desired,
    who: &Person,
    right: Right,
    on: &Object,
) -> Result<Decision, ControlError> {
    let recorded = context.recorded(&desired.lab)?;
    let lab = with_claims(desired, &recorded.claims);
    let rights = Rights::about(context, &lab, &recorded, who);
    rights.refuse_stranger(who)?;
    Ok(rights.world().may(who, right, on))
}

/// All that somebody may do with one thing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EffectiveRights {
    /// Such as `vm/doraz/mine`.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    #[schemars(with = "String")]
    pub object: Object,
    /// Each right, and why they have it.
    pub allow: BTreeMap<Right, Because>,
    /// Why it runs isolated, if it must.
    pub isolated: Option<Forced>,
}

/// The same as `check`, by all that somebody may do.
pub fn decision(rights: Vec<EffectiveRights>, right: Right, on: &Object) -> Decision {
    let about = rights.into_iter().find(|about| about.object == *on).ok_or(Refused::NotKnown)?;
    about.allow.get(&right).cloned().ok_or(Refused::NoRight)
}

fn as_text<T: ToString, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn from_text<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Object, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// All that one person may do.
pub fn effective(context: &Context, desired: &Desired, user: &UserName) -> Result<Vec<EffectiveRights>, ControlError> {
    Ok(effective_of(context, desired, Some(user))?.into_iter().map(|of| of.rights).collect())
}

/// What one person may do with one thing.
#[derive(Debug, Clone, Serialize)]
pub struct PersonsRights {
    pub user: UserName,
    #[serde(flatten)]
    pub rights: EffectiveRights,
}

/// All that the people of a lab may do, or one of them.
pub fn effective_of(
    context: &Context,
    desired: &Desired,
    user: Option<&UserName>,
) -> Result<Vec<PersonsRights>, ControlError> {
    let recorded = context.recorded(&desired.lab)?;
    let lab = with_claims(desired, &recorded.claims);
    let everybody = || lab.users.keys().collect();
    let mut all = Vec::new();
    for user in user.map_or_else(everybody, |user| vec![user]) {
        let who = Person::User(user.clone());
        let rights = Rights::about(context, &lab, &recorded, &who);
        rights.refuse_stranger(&who)?;
        all.extend(rights.of_person(&who).into_iter().map(|rights| PersonsRights { user: user.clone(), rights }));
    }
    Ok(all)
}

/// Lets others do something, beside what the manifest allows.
pub fn grant(context: &Context, desired: &Desired, permission: &Permission) -> Result<(), ControlError> {
    context.audited(Some(&desired.lab), claim(context, desired, permission))
}

fn claim(context: &Context, desired: &Desired, permission: &Permission) -> Result<(), ControlError> {
    let mut store = context.store()?;
    let decides = Decides::begin(context, "permission grant".to_owned())?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let lab = with_claims(desired, &recorded.claims);
    let rights = Rights::of(context, &lab, &recorded);
    let on = permission.on.clone();
    let given_as = rights.world().may_grant(rights.caller, permission);
    let given_as = given_as.map_err(|refused| ControlError::NotAllowed { right: None, on, refused })?;
    // Who else is in the lab is nothing that the owner of a vm could find out this way; a grant to nobody lets nobody in.
    if given_as == GivenAs::Admin {
        refuse_unknown_subject(&lab, permission)?;
    }
    let name = permission_address(permission).name;
    let body = GrantClaim { version: ClaimBody::VERSION, permission: permission.clone(), given_as };
    let by = context.caller.name.clone();
    let put = Change::PutClaim { name: name.clone(), body: ClaimBody::Grant(body), by };
    let step = Step::record(Address::new(Kind::Permission, &name), "claim the permission", vec![put]);
    let of_lab = Lab { name: &desired.lab, after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, decides, &format!("permission grant {name}"), vec![step])?;
    Ok(())
}

/// Takes back what was given by command to the same people on the same thing; answers how many grants that were.
pub fn revoke(context: &Context, desired: &Desired, permission: &Permission) -> Result<usize, ControlError> {
    context.audited(Some(&desired.lab), end_claims(context, desired, permission))
}

fn end_claims(context: &Context, desired: &Desired, permission: &Permission) -> Result<usize, ControlError> {
    let mut store = context.known_store()?;
    let decides = Decides::begin(context, "permission revoke".to_owned())?;
    let recorded = store.recorded(&desired.lab)?;
    let lab = with_claims(desired, &recorded.claims);
    let rights = Rights::of(context, &lab, &recorded);
    let world = rights.world();
    let may_end = |claim: &&Claim| {
        let is_own = rights.caller.user().is_some_and(|user| user.as_str() == claim.by);
        is_own || world.all_rights(rights.caller).is_some()
    };
    let name = permission_address(permission).name;
    let is_this = |claim: &&Claim| claim.name == name && matches!(claim.body, ClaimBody::Grant(_));
    let why = format!("{} took it back", context.caller.name);
    let steps: Vec<Step<'_>> = recorded
        .claims
        .iter()
        .filter(is_this)
        .filter(may_end)
        .map(|claim| {
            let end = Change::EndClaim { id: claim.id, why: why.clone() };
            Step::record(Address::new(Kind::Permission, &name), "end the permission", vec![end])
        })
        .collect();
    let number = steps.len();
    if number == 0 {
        let on = permission.on.clone();
        return Err(match lab.written_permissions.get(&(permission.to.clone(), on.clone())) {
            Some(place) => ControlError::WrittenPermission { name, place: place.to_string() },
            None => ControlError::NoGrant { name },
        });
    }
    let of_lab = Lab { name: &desired.lab, after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, decides, &format!("permission revoke {name}"), steps)?;
    Ok(number)
}

/// Whom the lab does not know would be let in as soon as somebody by that name comes.
fn refuse_unknown_subject(lab: &Desired, permission: &Permission) -> Result<(), ControlError> {
    match &permission.to {
        Subject::User(user) if !lab.users.contains_key(user) => {
            Err(ControlError::NoUser { user: user.clone(), lab: lab.lab.clone() })
        }
        Subject::Group(group)
            if !lab.user_groups.contains_key(group) && !UserGroupName::PREDEFINED.contains(&group.as_str()) =>
        {
            Err(ControlError::NoUserGroup { group: group.clone(), lab: lab.lab.clone() })
        }
        _ => Ok(()),
    }
}
