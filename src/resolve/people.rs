//! Users and user groups: lists and rosters into members, uids, extra time and limits.

use std::collections::{BTreeMap, BTreeSet};

use super::Resolver;
use crate::manifest::{At, LimitsDecl, RosterRow, Spanned, UserGroupDecl};
use crate::model::id::{Candidate, UserGroupName, UserName};
use crate::model::lab::{Desired, Limits, Particulars, User, UserGroup};
use crate::model::rules::Rule;

/// Everybody the lab knows, while it is being resolved.
pub(super) struct People {
    /// With the place that first named each.
    users: BTreeMap<UserName, (User, At)>,
    groups: BTreeMap<UserGroupName, UserGroup>,
    /// Members of groups and users with an entry: who `all_users` means. Owners who are nowhere else are none of them,
    /// or the admin who made a template would sit in every exam.
    declared: BTreeSet<UserName>,
    /// Group names whose declaration is broken: known, but without members.
    broken: BTreeSet<UserGroupName>,
    /// Where each uid was written first.
    uids: BTreeMap<u32, (UserName, At)>,
    particulars: BTreeMap<UserName, Particulars>,
    /// Where each candidate number was written first.
    candidates: BTreeMap<Candidate, (UserName, At)>,
}

impl People {
    /// Members of a group, the predefined ones too; `None` for an unknown name.
    pub(super) fn members(&self, group: &UserGroupName) -> Option<Vec<UserName>> {
        match group.as_str() {
            UserGroupName::ALL_USERS => Some(self.declared.iter().cloned().collect()),
            UserGroupName::ADMIN => Some(Vec::new()),
            _ => match self.groups.get(group) {
                Some(declared) => Some(declared.members.iter().cloned().collect()),
                None => self.broken.contains(group).then(Vec::new),
            },
        }
    }

    /// Whether the group's declaration could not be read, so that nothing can be said of its members.
    pub(super) fn is_broken(&self, group: &UserGroupName) -> bool {
        self.broken.contains(group)
    }

    /// Every user, and the place that first named each.
    pub(super) fn places(&self) -> impl Iterator<Item = (&UserName, At)> {
        self.users.iter().map(|(name, (_, at))| (name, *at))
    }

    pub(super) fn group_names(&self) -> impl Iterator<Item = &str> + Clone {
        let predefined = UserGroupName::PREDEFINED;
        self.groups.keys().map(UserGroupName::as_str).chain(predefined)
    }

    /// Takes note of a user who is named as an owner or in a permission. Somebody new is welcome, unless the name looks
    /// like a known one mistyped.
    pub(super) fn mention(&mut self, resolver: &mut Resolver<'_>, user: &Spanned<UserName>) {
        if self.users.contains_key(&user.value) || resolver.site.admins.contains(&user.value) {
            return;
        }
        if let Some(near) = resolver.suggest(user.as_str(), self.users.keys().map(UserName::as_str)) {
            let message = format!("no group or roster has a user `{}`", user.value);
            let hint = format!("did you mean `{near}`? if `{}` is somebody else, list them under `users:`", user.value);
            resolver.note(Rule::UnknownUser, user.at, message, hint);
        }
        self.add(resolver, &user.value, user.at);
    }

    fn add(&mut self, resolver: &Resolver<'_>, user: &UserName, at: At) -> &mut User {
        let limits = if resolver.site.admins.contains(user) { Limits::ADMIN } else { resolver.site.default_limits };
        let fresh = || User {
            uid: None,
            groups: BTreeSet::new(),
            limits,
            storage_folder: None,
            extra_time_percent: 0,
            ssh_keys: Vec::new(),
            is_mentioned_only: false,
        };
        &mut self.users.entry(user.clone()).or_insert_with(|| (fresh(), at)).0
    }

    fn set_uid(&mut self, resolver: &mut Resolver<'_>, user: &UserName, uid: &Spanned<u32>) {
        let entry = self.add(resolver, user, uid.at);
        match entry.uid.replace(uid.value) {
            Some(before) if before != uid.value => {
                entry.uid = Some(before);
                let first = self.uids.get(&before).map_or(uid.at, |(_, at)| *at);
                let message = format!("`{user}` has uid {} here and {before} elsewhere", uid.value);
                let hint = "an account has one number: `id -u NAME` prints it";
                resolver.note_both(Rule::UidConflict, (uid.at, &message), (first, "the other uid"), hint);
                return;
            }
            Some(_) => return,
            None => {}
        }
        match self.uids.get(&uid.value) {
            Some((other, at)) => {
                let message = format!("`{user}` has uid {}, and so has `{other}`", uid.value);
                let hint = "each account has a number of its own: `id -u NAME` prints it";
                resolver.note_both(Rule::UidConflict, (uid.at, &message), (*at, "here for the other user"), hint);
            }
            None => {
                self.uids.insert(uid.value, (user.clone(), uid.at));
            }
        }
    }

    /// What the first roster says of somebody counts; in candidate numbers all must agree, since they are a person's name.
    fn set_particulars(&mut self, resolver: &mut Resolver<'_>, row: &RosterRow) {
        let user = &row.user.value;
        let known = self.particulars.entry(user.clone()).or_insert_with(|| row.particulars.clone());
        let (Some(candidate), Some(at)) = (&row.particulars.candidate, row.candidate) else { return };
        let before = known.candidate.get_or_insert_with(|| candidate.clone());
        let (message, first, hint) = if before != candidate {
            let first = self.candidates.get(before).map_or(at, |(_, at)| *at);
            let message = format!("`{user}` is candidate `{candidate}` here and `{before}` elsewhere");
            (message, first, "write the same number in every roster of the lab")
        } else {
            let (other, first) = self.candidates.entry(candidate.clone()).or_insert_with(|| (user.clone(), at));
            if other == user {
                return;
            }
            let message = format!("`{user}` is candidate `{candidate}`, and so is `{other}`");
            (message, *first, "give each of the two a number of their own")
        };
        resolver.note_both(Rule::RosterDuplicate, (at, &message), (first, "here for the first time"), hint);
    }

    /// Puts users and groups into what is desired.
    pub(super) fn finish(self, desired: &mut Desired) {
        let is_mentioned_only = |name: &UserName| !self.declared.contains(name);
        let user = |(name, (user, _)): (UserName, (User, At))| {
            let user = User { is_mentioned_only: is_mentioned_only(&name), ..user };
            (name, user)
        };
        desired.users = self.users.into_iter().map(user).collect();
        desired.user_groups = self.groups;
        desired.particulars = Some(self.particulars);
    }
}

impl Resolver<'_> {
    pub(super) fn people(&mut self) -> People {
        let mut people = People {
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            declared: BTreeSet::new(),
            broken: BTreeSet::new(),
            uids: BTreeMap::new(),
            particulars: BTreeMap::new(),
            candidates: BTreeMap::new(),
        };
        let manifest = self.manifest;
        for entry in &manifest.user_groups.0 {
            let predefined = UserGroupName::PREDEFINED;
            if predefined.contains(&entry.key.as_str()) {
                let message = format!("the user group `{}` exists by itself and cannot be defined", entry.key.value);
                let hint = "take another name; admins are named in the site's settings, not in a lab";
                self.note(Rule::PredefinedName, entry.key.at, message, hint);
            } else if let Some(decl) = &entry.value {
                self.group(&mut people, &entry.key, decl);
            } else {
                people.broken.insert(entry.key.value.clone());
            }
        }
        for (name, decl) in manifest.users.iter() {
            people.add(self, &name.value, name.at);
            if let Some(uid) = &decl.uid {
                people.set_uid(self, &name.value, uid);
            }
            let folder = decl.storage_folder.as_ref().map(|folder| manifest.path(folder));
            let user = people.add(self, &name.value, name.at);
            user.storage_folder = folder;
            if let Some(extra) = &decl.extra_time {
                user.extra_time_percent = extra.0;
            }
            for key in manifest.ssh_keys(&decl.ssh_keys) {
                user.add_key(key);
            }
        }
        self.user_limits(&mut people);
        people.declared = people.users.keys().cloned().collect();
        people
    }

    fn group(&mut self, people: &mut People, name: &Spanned<UserGroupName>, decl: &UserGroupDecl) {
        let mut members: BTreeMap<UserName, At> = BTreeMap::new();
        for member in &decl.members {
            if let Some(first) = members.insert(member.value.clone(), member.at) {
                let message = format!("`{}` stands in this group twice", member.value);
                let hint = "remove one of the two";
                self.note_both(Rule::MemberTwice, (member.at, &message), (first, "here for the first time"), hint);
            }
        }
        let roster = self.manifest.rosters.get(&name.value);
        for row in roster.iter().flat_map(|roster| &roster.rows) {
            members.insert(row.user.value.clone(), row.user.at);
            if let Some(uid) = &row.uid {
                people.set_uid(self, &row.user.value, uid);
            }
            let user = people.add(self, &row.user.value, row.user.at);
            let extra = row.extra_time.as_ref().map_or(0, |extra| extra.0);
            user.extra_time_percent = user.extra_time_percent.max(extra);
            row.ssh_key.iter().for_each(|key| user.add_key(key.clone()));
            if row.particulars != Particulars::default() {
                people.set_particulars(self, row);
            }
        }
        if decl.roster.is_some() && roster.is_none_or(|roster| roster.broken) {
            people.broken.insert(name.value.clone());
        }
        for (member, at) in &members {
            people.add(self, member, *at).groups.insert(name.value.clone());
        }
        let limits = decl.limits.as_ref().map(|limits| limits_over(self.site.default_limits, limits));
        let members = members.into_keys().collect();
        people.groups.insert(name.value.clone(), UserGroup { members, limits });
    }

    /// A user's own limits win; else the most generous of the user's groups; else the site's.
    fn user_limits(&mut self, people: &mut People) {
        let own: BTreeMap<_, _> =
            self.manifest.users.iter().filter_map(|(n, d)| Some((&n.value, d.limits.as_ref()?))).collect();
        for (name, (user, _)) in &mut people.users {
            let of_groups = user.groups.iter().filter_map(|group| people.groups.get(group)?.limits);
            let generous = of_groups.reduce(|a, b| Limits {
                running_vms: a.running_vms.max(b.running_vms),
                storage_bytes: a.storage_bytes.max(b.storage_bytes),
            });
            user.limits = generous.unwrap_or(user.limits);
            if let Some(own) = own.get(name) {
                user.limits = limits_over(user.limits, own);
            }
        }
    }
}

fn limits_over(below: Limits, written: &LimitsDecl) -> Limits {
    Limits {
        running_vms: written.running_vms.as_ref().map_or(below.running_vms, |n| n.value),
        storage_bytes: written.storage.as_ref().map_or(below.storage_bytes, |size| size.0),
    }
}
