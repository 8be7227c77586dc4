//! Users, groups, vm groups, permissions and sessions: nothing outside changes with them, they are recorded.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Effect, Planner, Verb};
use crate::address::{Address, Kind};
use crate::id::LabName;
use crate::resolve::{Desired, Permission, VmGroup};
use crate::state::Recorded;

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
                Some(before) if *before == body => self.plan.unchanged.push(address),
                Some(before) => {
                    let reason = Edits::new(fields(before), fields(&body)).words().join("; ");
                    self.object_change(address, Verb::Update, reason, Some(body));
                }
                None => self.object_change(address, Verb::Create, "new in the manifest".into(), Some(body)),
            }
        }
    }

    fn object_change(&mut self, address: Address, verb: Verb, reason: String, body: Option<String>) {
        let before = self.inputs.recorded.objects.get(&address).map(|body| fields(body)).unwrap_or_default();
        let after = body.as_deref().map(fields).unwrap_or_default();
        let Edits { before, after } = Edits::new(before, after);
        let action = self.action(Vec::new(), Effect::RecordObject { address: address.clone(), body });
        self.plan.changes.push(Change { address, verb, reason, before, after, touches: None, actions: vec![action] });
    }
}

fn overlap(one: &VmGroup, other: &VmGroup) -> bool {
    one.range.first <= other.range.last && other.range.first <= one.range.last
}

pub(super) fn bodies(desired: &Desired) -> BTreeMap<Address, String> {
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

/// The lab as it was last applied: what `bodies` and the vms' records say, for when the manifest cannot be used. Fails with
/// what is recorded in a shape that we do not know.
pub fn as_applied(lab: LabName, recorded: &Recorded) -> Result<Desired, (Address, serde_json::Error)> {
    let mut desired = Desired::nothing(lab);
    for (address, body) in &recorded.objects {
        let put = match address.kind {
            Kind::UserGroup => put(&mut desired.user_groups, address, body),
            Kind::User => put(&mut desired.users, address, body),
            Kind::VmGroup => put(&mut desired.vm_groups, address, body),
            Kind::Template => put(&mut desired.templates, address, body),
            Kind::Session => put(&mut desired.sessions, address, body),
            Kind::Permission => serde_json::from_str(body).map(|permission| desired.permissions.push(permission)),
            Kind::Vm | Kind::Job | Kind::Lab | Kind::Site => Ok(()),
        };
        put.map_err(|error| (address.clone(), error))?;
    }
    desired.vms = recorded.vms.iter().map(|(name, known)| (name.clone(), known.vm.clone())).collect();
    Ok(desired)
}

fn put<N, T>(things: &mut BTreeMap<N, T>, address: &Address, body: &str) -> serde_json::Result<()>
where
    N: std::str::FromStr<Err: std::fmt::Display> + Ord,
    T: serde::de::DeserializeOwned,
{
    let name = address.name.parse().map_err(serde::de::Error::custom)?;
    things.insert(name, serde_json::from_str(body)?);
    Ok(())
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
pub fn permission_address(permission: &Permission) -> Address {
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

/// The fields of a recorded or wanted thing as a user knows them, each as text.
pub(super) fn fields(body: &str) -> BTreeMap<String, String> {
    let mut fields = parsed(body);
    let hardware = fields.remove("hardware").map(|hardware| parsed(&hardware)).unwrap_or_default();
    fields.extend(hardware);
    // Where it stands in the manifest is shown by `explain`; a line that moves is no change.
    fields.remove("origin");
    if let Some(mib) = fields.remove("memory_mib") {
        fields.insert("memory".into(), format!("{mib} MiB"));
    }
    fields
}

/// The top-level fields of a JSON object.
fn parsed(body: &str) -> BTreeMap<String, String> {
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

/// The fields that differ, as they were and as they will be.
#[derive(Debug, Default)]
pub(super) struct Edits {
    pub(super) before: BTreeMap<String, String>,
    pub(super) after: BTreeMap<String, String>,
}

impl Edits {
    pub(super) fn new(mut before: BTreeMap<String, String>, mut after: BTreeMap<String, String>) -> Self {
        before.retain(|name, value| match after.get(name) {
            Some(other) if other == value => {
                after.remove(name);
                false
            }
            _ => true,
        });
        Self { before, after }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// Each field in half a sentence: short values in full, long ones by name, since a report shows their difference.
    pub(super) fn words(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.before.keys().chain(self.after.keys()).collect();
        let value =
            |fields: &BTreeMap<String, String>, name| fields.get(name).cloned().unwrap_or_else(|| "none".into());
        names
            .into_iter()
            .map(|name| match (value(&self.before, name), value(&self.after, name)) {
                (before, after) if is_long(&before) || is_long(&after) => format!("{name} changed"),
                (before, after) => format!("{name} {before} -> {after}"),
            })
            .collect()
    }
}

/// Most characters of a value that is shown beside the one it replaces, in the same line.
const SHORT_MAX: usize = 40;

/// Whether a value is shown in lines of its own: a long text, or a list.
pub fn is_long(value: &str) -> bool {
    value.contains('\n') || value.starts_with(['[', '{']) || value.chars().count() > SHORT_MAX
}
