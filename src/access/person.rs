//! Who somebody is to a lab.

use std::collections::BTreeSet;

use super::Because;
use crate::model::id::{UserGroupName, UserName};
use crate::model::lab::{Desired, Subject};

/// Who has all rights, beside root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    /// The site's admins, by their login names.
    pub admins: BTreeSet<UserName>,
    /// Those who own the lab.
    pub lab_owners: BTreeSet<UserName>,
}

impl Roles {
    /// Whether a user may do everything.
    pub(super) fn is_admin(&self, user: &UserName) -> bool {
        self.admins.contains(user) || self.lab_owners.contains(user)
    }

    /// Why somebody may do everything, if they may.
    pub fn all_rights(&self, who: &Person) -> Option<Because> {
        match who {
            Person::Root => Some(Because::Root),
            Person::User(user) if self.admins.contains(user) => Some(Because::SiteAdmin),
            Person::User(user) if self.lab_owners.contains(user) => Some(Because::LabOwner),
            Person::User(_) | Person::Nobody => None,
        }
    }
}

/// Somebody who asks, as the kernel knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Person {
    Root,
    /// An account by its login name.
    User(UserName),
    /// An account of which nothing is known.
    Nobody,
}

impl Person {
    pub fn user(&self) -> Option<&UserName> {
        match self {
            Self::Root | Self::Nobody => None,
            Self::User(user) => Some(user),
        }
    }
}

/// Who a user is to permissions: the user, the groups with this member, and `all_users` where the lab lists them.
pub(super) fn is_one_of(lab: &Desired, user: &UserName, subject: &Subject) -> bool {
    let Some(known) = lab.users.get(user) else { return false };
    match subject {
        Subject::User(name) => name == user,
        Subject::Group(group) if group.as_str() == UserGroupName::ALL_USERS => !known.is_mentioned_only,
        Subject::Group(group) => known.groups.contains(group),
    }
}

/// The same, all of them. The owner of a vm is somebody also where the lab does not list them: a site's admin, say.
pub(super) fn subjects(lab: &Desired, user: &UserName) -> Vec<Subject> {
    let known = lab.users.get(user);
    let groups = known.into_iter().flat_map(|known| known.groups.iter().cloned());
    let all_users = || UserGroupName::new(UserGroupName::ALL_USERS).expect("the predefined name is valid");
    let everybody = known.is_some_and(|known| !known.is_mentioned_only).then(all_users);
    std::iter::once(Subject::User(user.clone())).chain(groups.chain(everybody).map(Subject::Group)).collect()
}
