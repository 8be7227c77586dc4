//! How what people may do differs between two moments of a lab. In: both. Out: each difference once, with all whom it is about:
//! people in the same groups are one, so that a class of hundreds is a line.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::World;
use super::person::is_one_of;
use crate::model::id::{UserGroupName, UserName};
use crate::model::lab::{Desired, Object, Permission, Right, Subject};

/// What some people may do with a thing from now on, or no longer. Admins, who may do everything anyway, are not among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightsChange {
    pub who: Whom,
    pub on: Object,
    pub gained: BTreeSet<Right>,
    pub lost: BTreeSet<Right>,
    /// What they run of it is isolated by a permission: before, and now.
    pub isolated: (bool, bool),
}

/// People, as shortly as they can be named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    Group(UserGroupName),
    /// Some, who may all be in one group.
    Users {
        names: BTreeSet<UserName>,
        of: Option<UserGroupName>,
    },
}

/// What one person may do with one thing, by permissions and by owning it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    rights: BTreeSet<Right>,
    forced: bool,
}

type Holdings<'a> = BTreeMap<&'a Object, Held>;

/// What a difference is, apart from whom it is about.
type Difference<'a> = (&'a Object, Held, Held);

/// What of permissions differs; a thing that comes or goes says so itself.
pub fn changes(before: &World<'_>, after: &World<'_>) -> Vec<RightsChange> {
    let (was, is) = (BySubject::of(before), BySubject::of(after));
    let everybody: BTreeSet<&UserName> = before.lab.users.keys().chain(after.lab.users.keys()).collect();
    let plain = everybody.into_iter().filter(|user| !after.roles.is_admin(user));
    // People to whom the same permissions speak hold the same.
    let mut alike: BTreeMap<_, BTreeSet<&UserName>> = BTreeMap::new();
    for user in plain {
        alike.entry((was.speaking_to(before.lab, user), is.speaking_to(after.lab, user))).or_default().insert(user);
    }
    let mut differing: BTreeMap<Difference<'_>, BTreeSet<UserName>> = BTreeMap::new();
    for ((to_them_before, to_them_now), users) in &alike {
        let (had, have) = (was.holdings(to_them_before), is.holdings(to_them_now));
        for on in had.keys().chain(have.keys()).copied().collect::<BTreeSet<_>>() {
            let (had, have) = (held(before, &had, on), held(after, &have, on));
            // What its owners may do is theirs without any permission.
            let is_owner = |user: &UserName| [before.owner(on), after.owner(on)].contains(&Some(user));
            let others = users.iter().copied().filter(|user| !is_owner(user)).cloned();
            let others: BTreeSet<UserName> = if had == have { BTreeSet::new() } else { others.collect() };
            if after.exists(on) && !others.is_empty() {
                differing.entry((on, had, have)).or_default().extend(others);
            }
        }
    }
    let change = |((on, had, have), users): (Difference<'_>, BTreeSet<UserName>)| RightsChange {
        who: whom(users, before.lab, after.lab),
        on: on.clone(),
        gained: have.rights.difference(&had.rights).copied().collect(),
        lost: had.rights.difference(&have.rights).copied().collect(),
        isolated: (had.forced, have.forced),
    };
    let mut all: Vec<RightsChange> = differing.into_iter().map(change).collect();
    all.extend(of_owners(before, after));
    all
}

/// What is held of a thing, or of all in its vm group.
fn held(world: &World<'_>, holdings: &Holdings<'_>, on: &Object) -> Held {
    let of_all = world.objects_with_this_right(on);
    of_all.iter().filter_map(|object| holdings.get(object)).fold(Held::default(), |mut all, held| {
        // A template has no screen.
        let means_something = |right: &&Right| **right != Right::View || !matches!(on, Object::Template(_));
        all.rights.extend(held.rights.iter().filter(means_something));
        all.forced |= held.forced;
        all
    })
}

/// Permissions that count, by whom they speak to.
struct BySubject<'a>(BTreeMap<&'a Subject, Vec<&'a Permission>>);

impl<'a> BySubject<'a> {
    fn of(world: &World<'a>) -> Self {
        let mut by_subject: BTreeMap<&Subject, Vec<&Permission>> = BTreeMap::new();
        for (permission, _) in world.permissions() {
            by_subject.entry(&permission.to).or_default().push(permission);
        }
        Self(by_subject)
    }

    /// Of many permissions to single users, each is asked for its own alone.
    fn speaking_to(&self, lab: &Desired, user: &UserName) -> Vec<&'a Subject> {
        let by_name = self.0.get_key_value(&Subject::User(user.clone())).map(|(to, _)| *to);
        let to_groups = self.0.keys().copied().filter(|to| matches!(to, Subject::Group(_)));
        by_name.into_iter().chain(to_groups).filter(|to| is_one_of(lab, user, to)).collect()
    }

    fn holdings(&self, subjects: &[&Subject]) -> Holdings<'a> {
        let mut holdings = Holdings::new();
        for permission in subjects.iter().filter_map(|subject| self.0.get(subject)).flatten() {
            let held = holdings.entry(&permission.on).or_default();
            held.rights.extend(&permission.allow);
            held.forced |= permission.force_isolated;
        }
        holdings
    }
}

/// What those may do otherwise who own a thing, or did: of things that permissions are about, or that become somebody else's.
fn of_owners(before: &World<'_>, after: &World<'_>) -> Vec<RightsChange> {
    let named = before.permissions().chain(after.permissions()).map(|(permission, _)| permission.on.clone());
    let given = before.things().filter(|on| before.owner(on) != after.owner(on));
    let meant: BTreeSet<Object> = named.chain(given).filter(|on| before.exists(on) && after.exists(on)).collect();
    let mut all = Vec::new();
    for on in meant {
        let owners: BTreeSet<&UserName> = [before.owner(&on), after.owner(&on)].into_iter().flatten().collect();
        for user in owners.into_iter().filter(|user| !after.roles.is_admin(user)) {
            let (had, have) = (rights(before, user, &on), rights(after, user, &on));
            let (gained, lost): (BTreeSet<Right>, _) = (&have - &had, &had - &have);
            if !(gained.is_empty() && lost.is_empty()) {
                let who = Whom::Users { names: [user.clone()].into(), of: None };
                all.push(RightsChange { who, on: on.clone(), gained, lost, isolated: (false, false) });
            }
        }
    }
    all
}

fn rights(world: &World<'_>, user: &UserName, on: &Object) -> BTreeSet<Right> {
    Right::ALL.into_iter().filter(|right| world.right(user, *right, on).is_some()).collect()
}

/// The group that has exactly these members, or the smallest in which they all are.
fn whom(users: BTreeSet<UserName>, before: &Desired, after: &Desired) -> Whom {
    let listed = |lab: &Desired| -> BTreeSet<UserName> {
        lab.users.iter().filter(|(_, user)| !user.is_mentioned_only).map(|(name, _)| name.clone()).collect()
    };
    let all_users = UserGroupName::new(UserGroupName::ALL_USERS).expect("the predefined groups have names");
    let groups = [after, before].into_iter().flat_map(|lab| {
        let own = lab.user_groups.iter().map(|(name, group)| (name.clone(), group.members.iter().cloned().collect()));
        own.chain([(all_users.clone(), listed(lab))]).collect::<Vec<(UserGroupName, BTreeSet<UserName>)>>()
    });
    let around: Vec<_> = groups.filter(|(_, members)| users.is_subset(members)).collect();
    match around.iter().find(|(_, members)| *members == users) {
        Some((group, _)) if users.len() > 1 => Whom::Group(group.clone()),
        _ => {
            let smallest = around.iter().filter(|_| users.len() > 1).min_by_key(|(_, members)| members.len());
            Whom::Users { of: smallest.map(|(group, _)| group.clone()), names: users }
        }
    }
}
