//! Users, groups, vm groups, permissions and sessions: nothing outside changes with them, they are recorded.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Effect, Planner, Verb};
use crate::address::{Address, Kind};
use crate::resolve::{Desired, Permission, VmGroup};

impl Planner<'_> {
    /// Ranges of two labs of a site must not overlap: their guests would fight over addresses.
    pub(super) fn plan_collisions_with_other_labs(&mut self) {
        for (name, group) in &self.inputs.desired.vm_groups {
            let other = self.inputs.recorded.other_groups.iter().find(|(_, _, other)| overlap(group, other));
            if let Some((lab, other_name, other)) = other {
                let text = format!(
                    "its range {}-{} overlaps {}-{} of vm group `{other_name}` in lab `{lab}`",
                    group.range.first, group.range.last, other.range.first, other.range.last
                );
                self.refuse(&Address::new(Kind::VmGroup, name), text, "give one of the two groups another `ip_range`");
            }
        }
    }

    pub(super) fn plan_objects(&mut self) {
        let wanted = bodies(self.inputs.desired);
        let recorded = &self.inputs.recorded.objects;
        let leaving =
            recorded.keys().filter(|address| address.kind != Kind::Template && !wanted.contains_key(*address));
        for address in leaving {
            self.object_change(address.clone(), Verb::Delete, "left the manifest".into(), None);
        }
        for (address, body) in wanted {
            match recorded.get(&address) {
                Some(before) if *before == body => self.plan.unchanged += 1,
                Some(before) => {
                    let reason = changed_fields(before, &body);
                    self.object_change(address, Verb::Update, reason, Some(body));
                }
                None => self.object_change(address, Verb::Create, "new in the manifest".into(), Some(body)),
            }
        }
    }

    fn object_change(&mut self, address: Address, verb: Verb, reason: String, body: Option<String>) {
        let before = self.inputs.recorded.objects.get(&address).map(|body| fields(body)).unwrap_or_default();
        let after = body.as_deref().map(fields).unwrap_or_default();
        let action = self.action(Vec::new(), Effect::RecordObject { address: address.clone(), body });
        self.plan.changes.push(Change { address, verb, reason, before, after, actions: vec![action] });
    }
}

fn overlap(one: &VmGroup, other: &VmGroup) -> bool {
    one.range.first <= other.range.last && other.range.first <= one.range.last
}

fn bodies(desired: &Desired) -> BTreeMap<Address, String> {
    let mut bodies = BTreeMap::new();
    let groups = desired.user_groups.iter().map(|(name, group)| (Address::new(Kind::UserGroup, name), to_json(group)));
    let users = desired.users.iter().map(|(name, user)| (Address::new(Kind::User, name), to_json(user)));
    let vm_groups = desired.vm_groups.iter().map(|(name, group)| (Address::new(Kind::VmGroup, name), to_json(group)));
    let permissions =
        joined_permissions(desired).into_iter().map(|(address, permission)| (address, to_json(&permission)));
    let sessions = desired.sessions.iter().map(|(name, session)| (Address::new(Kind::Session, name), to_json(session)));
    bodies.extend(groups.chain(users).chain(vm_groups).chain(permissions).chain(sessions));
    bodies
}

/// Several entries for the same two are one permission.
fn joined_permissions(desired: &Desired) -> BTreeMap<Address, Permission> {
    let mut joined: BTreeMap<Address, Permission> = BTreeMap::new();
    for permission in &desired.permissions {
        let entry = joined.entry(permission_address(permission)).or_insert_with(|| permission.clone());
        entry.allow.extend(&permission.allow);
        entry.force_isolated |= permission.force_isolated;
    }
    joined
}

/// A permission has no name of its own: whom and what it joins names it.
fn permission_address(permission: &Permission) -> Address {
    use crate::resolve::{Object, Subject};
    let to = match &permission.to {
        Subject::User(user) => format!("user:{user}"),
        Subject::Group(group) => format!("group:{group}"),
    };
    let on = match &permission.on {
        Object::Vm(vm) => format!("vm:{vm}"),
        Object::Template(template) => format!("template:{template}"),
        Object::VmGroup(group) => format!("vm-group:{group}"),
    };
    Address::new(Kind::Permission, format!("{to},{on}"))
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("what is desired has only string keys")
}

/// The top-level fields of a JSON object, each as text.
pub(super) fn fields(body: &str) -> BTreeMap<String, String> {
    let parsed: BTreeMap<String, serde_json::Value> = serde_json::from_str(body).unwrap_or_else(|_| {
        // A body that older programs wrote in another shape is shown as it is rather than not at all.
        BTreeMap::from([("recorded".to_owned(), serde_json::Value::String(body.to_owned()))])
    });
    parsed
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect()
}

fn changed_fields(before: &str, after: &str) -> String {
    format!("changed: {}", changed_names(&fields(before), &fields(after)))
}

/// The names of the fields that differ, in order.
pub(super) fn changed_names(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed: Vec<&str> =
        names.into_iter().filter(|name| before.get(*name) != after.get(*name)).map(String::as_str).collect();
    changed.join(", ")
}
