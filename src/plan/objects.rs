//! Users, groups, vm groups, permissions and sessions: nothing outside changes with them, they are recorded.

use std::collections::{BTreeMap, BTreeSet};

use super::{ActionId, Change, Effect, Ground, Leaves, Planner, Reason, Remark, Verb};
use crate::model::address::{Address, Kind};
use crate::model::id::{LabName, VmGroupName, VmName};
use crate::model::lab::{Desired, Permission, Session, Vm, VmGroup, VmSource};
use crate::state::{Entry, Recorded, Thing};

impl Planner<'_> {
    /// Ranges of two labs of a site must not overlap: their guests would fight over addresses. The predefined group is the
    /// site's own, and all labs have its addresses in common.
    pub(super) fn plan_collisions_with_other_labs(&mut self) {
        let is_common = |name: &VmGroupName| name.as_str() == VmGroupName::ALL_VMS;
        for (name, group) in &self.inputs.desired.vm_groups {
            let other =
                self.inputs.recorded.other_groups.iter().find(|(_, other_name, other)| {
                    overlap(group, other) && !(is_common(name) && is_common(other_name))
                });
            if let Some((lab, other_name, other)) = other {
                let ends = |group: &VmGroup| (group.range.first, group.range.last);
                let (lab, other_name) = (lab.clone(), other_name.clone());
                let why = Ground::RangeOverlaps { range: ends(group), lab, group: other_name, other: ends(other) };
                let vms = self.inputs.desired.vms.iter().filter(|(_, vm)| vm.vm_group == *name);
                let vms: Vec<Address> = vms.map(|(name, _)| Address::vm(name)).collect();
                self.refuse_with(&Address::new(Kind::VmGroup, name), why, vms);
            }
        }
    }

    pub(super) fn plan_objects(&mut self) {
        let recorded = &self.inputs.recorded.objects;
        for (address, wanted) in wanted_things(self.inputs.desired) {
            if self.is_held(&address) {
                continue;
            }
            let needs = self.to_accommodate(&address);
            match recorded.get(&address) {
                Some(before) if is_same(&before.thing, &wanted) && needs.is_none() => {
                    self.plan.unchanged.push(address);
                    continue;
                }
                // What people need is recorded beside it.
                Some(before) if is_same(&before.thing, &wanted) => self.plan.changes.push(updated(address)),
                Some(before) => {
                    let body = before.body_of(&wanted);
                    let why = Edits::new(fields(&before.thing.body()), fields(&wanted.body())).reasons();
                    self.object_change(address, Verb::Update, why, Some(body), Vec::new());
                }
                None => {
                    self.object_change(address, Verb::Create, vec![Reason::New], Some(wanted.body()), Vec::new());
                }
            }
            if let Some((entry, why)) = needs {
                let action = self.action(Vec::new(), entry);
                let change = self.plan.changes.last_mut().expect("one was just made");
                change.actions.push(action);
                change.reasons.push(why);
            }
        }
    }

    /// What is wanted no more goes after the last vm that needs it: a vm whose group is forgotten could not be stopped by
    /// name, and another lab could take its addresses.
    pub(super) fn plan_gone_objects(&mut self) {
        let recorded = self.inputs.recorded;
        let Desired { templates, users, user_groups, vm_groups, sessions, .. } = self.inputs.desired;
        let permissions = joined_permissions(self.inputs.desired);
        let is_wanted = |address: &Address| match (address.kind, address.name.as_str()) {
            (Kind::Template, name) => templates.contains_key(name),
            (Kind::User, name) => users.contains_key(name),
            (Kind::UserGroup, name) => user_groups.contains_key(name),
            (Kind::VmGroup, name) => vm_groups.contains_key(name),
            (Kind::Session, name) => sessions.contains_key(name),
            _ => permissions.contains_key(address),
        };
        let leaving: Vec<&Address> = recorded.objects.keys().filter(|address| !is_wanted(address)).collect();
        if leaving.is_empty() {
            return;
        }
        let users = self.users_of_things();
        for address in leaving {
            if self.is_held(address) {
                continue;
            }
            let of_thing = users.get(address).map(Vec::as_slice).unwrap_or_default();
            let stays = of_thing.iter().find_map(|(vm, let_go)| let_go.is_none().then_some(vm));
            if let Some(vm) = stays {
                // Of a user the vm itself tells; there may be hundreds.
                if address.kind != Kind::User {
                    self.wait(address, Remark::StillNeeded { by: vm.clone() });
                }
                continue;
            }
            let needs = of_thing.iter().filter_map(|(_, let_go)| *let_go).collect();
            let kept = (address.kind == Kind::Template).then_some(Reason::VersionsKept);
            let why = [Reason::Leaves { why: self.leaves() }].into_iter().chain(kept).collect();
            self.object_change(address.clone(), Verb::Delete, why, None, needs);
        }
    }

    /// The recorded vms of each user, vm group and template, with the action that lets go of it; `None`: it stays in use.
    fn users_of_things(&self) -> BTreeMap<Address, Vec<(Address, Option<ActionId>)>> {
        let mut after: BTreeMap<&VmName, (ActionId, Option<&Vm>)> = BTreeMap::new();
        for (_, action) in self.plan.actions() {
            match &action.effect {
                Effect::Record(Entry::ForgetVm { name }) => drop(after.insert(name, (action.id, None))),
                Effect::Record(Entry::Vm { name, vm, .. }) => {
                    let name = self.moves.vms.get(name).unwrap_or(name);
                    after.insert(name, (action.id, Some(vm)));
                }
                _ => {}
            }
        }
        let mut users: BTreeMap<Address, Vec<(Address, Option<ActionId>)>> = BTreeMap::new();
        for (name, known) in &self.inputs.recorded.vms {
            for thing in needs_of(&known.vm) {
                let let_go = after.get(name).filter(|(_, vm)| vm.is_none_or(|vm| !needs_of(vm).contains(&thing)));
                users.entry(thing).or_default().push((Address::vm(name), let_go.map(|(id, _)| *id)));
            }
        }
        users
    }

    pub(super) fn leaves(&self) -> Leaves {
        if self.inputs.desired.is_nothing() { Leaves::WithItsLab } else { Leaves::Manifest }
    }

    /// Why something leaves.
    pub(super) fn gone(&self) -> &'static str {
        if self.inputs.desired.is_nothing() { "the lab is taken down" } else { "left the manifest" }
    }

    fn object_change(
        &mut self,
        address: Address,
        verb: Verb,
        reasons: Vec<Reason>,
        body: Option<String>,
        needs: Vec<ActionId>,
    ) {
        let before = self.inputs.recorded.objects.get(&address).map(|before| fields(&before.body)).unwrap_or_default();
        let after = body.as_deref().map(fields).unwrap_or_default();
        let Edits { before, after } = Edits::new(before, after);
        let is_kept = body.is_some();
        let action = self.action(needs, Entry::Object { address: address.clone(), body });
        if is_kept {
            self.pending.insert(address.clone(), action.id);
        }
        self.plan.changes.push(Change { address, verb, reasons, before, after, touches: None, actions: vec![action] });
    }
}

/// A change of which nothing is known yet.
fn updated(address: Address) -> Change {
    let (before, after) = Default::default();
    Change { address, verb: Verb::Update, reasons: Vec::new(), before, after, touches: None, actions: Vec::new() }
}

/// Whether what is recorded is what is wanted. What people gave a session's time by command is no matter of its record.
fn is_same(recorded: &Thing, wanted: &Thing) -> bool {
    match (recorded, wanted) {
        (Thing::Session(recorded), Thing::Session(wanted)) => {
            Session { added: wanted.added.clone(), ..recorded.clone() } == *wanted
        }
        _ => recorded == wanted,
    }
}

/// What must be recorded for as long as a vm is.
pub(super) fn needs_of(vm: &Vm) -> Vec<Address> {
    let mut needs = vec![Address::new(Kind::User, &vm.owner), Address::new(Kind::VmGroup, &vm.vm_group)];
    if let VmSource::Derive(template) | VmSource::Clone(template) = &vm.source {
        needs.push(Address::new(Kind::Template, template));
    }
    needs
}

fn overlap(one: &VmGroup, other: &VmGroup) -> bool {
    one.range.first <= other.range.last && other.range.first <= one.range.last
}

/// All that a lab wants besides vms and templates.
pub(super) fn wanted_things(desired: &Desired) -> BTreeMap<Address, Thing> {
    let Desired { user_groups, users, vm_groups, sessions, .. } = desired;
    let mut things = BTreeMap::new();
    things.extend(
        user_groups.iter().map(|(name, group)| (Address::new(Kind::UserGroup, name), Thing::UserGroup(group.clone()))),
    );
    things.extend(users.iter().map(|(name, user)| (Address::new(Kind::User, name), Thing::User(user.clone()))));
    things.extend(
        vm_groups.iter().map(|(name, group)| (Address::new(Kind::VmGroup, name), Thing::VmGroup(group.clone()))),
    );
    things.extend(
        sessions.iter().map(|(name, session)| (Address::new(Kind::Session, name), Thing::Session(session.clone()))),
    );
    let permissions = joined_permissions(desired).into_iter();
    things.extend(permissions.map(|(address, permission)| (address, Thing::Permission(permission))));
    things
}

/// The lab as it was last applied, for when the manifest cannot be used. Fails with what bears no name of its kind.
pub fn as_applied(lab: LabName, recorded: &Recorded) -> Result<Desired, Address> {
    let mut desired = Desired::nothing(lab);
    for (address, recorded) in &recorded.objects {
        let Address { name, .. } = address;
        let put = match recorded.thing.clone() {
            Thing::UserGroup(group) => put(&mut desired.user_groups, name, group),
            Thing::User(user) => put(&mut desired.users, name, user),
            Thing::VmGroup(group) => put(&mut desired.vm_groups, name, group),
            Thing::Template(template) => put(&mut desired.templates, name, template),
            Thing::Session(session) => put(&mut desired.sessions, name, session),
            Thing::Permission(permission) => {
                desired.permissions.push(permission);
                Some(())
            }
        };
        put.ok_or_else(|| address.clone())?;
    }
    // What people made by command is in their claims.
    let of_manifest = recorded.vms.iter().filter(|(name, _)| name.owner().is_none());
    desired.vms = of_manifest.map(|(name, known)| (name.clone(), known.vm.clone())).collect();
    Ok(desired)
}

fn put<N: std::str::FromStr + Ord, T>(things: &mut BTreeMap<N, T>, name: &str, thing: T) -> Option<()> {
    things.insert(name.parse().ok()?, thing);
    Some(())
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
    use crate::model::lab::{Object, Subject};
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
    // Its family says the same to people.
    fields.remove("for_each");
    let seed = fields.remove("seed").map(|seed| parsed(&seed));
    fields.extend(seed.into_iter().flatten().map(|(name, value)| (format!("seed {name}"), value)));
    // As its key is called.
    if let Some(seconds) = fields.remove("open_before_seconds") {
        fields.insert("boot_before".into(), format!("{seconds} s"));
    }
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

    /// One for each field: short values in full, long ones by name, since a report shows their difference.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        let names: BTreeSet<&String> = self.before.keys().chain(self.after.keys()).collect();
        let reason = |name: &String| {
            let (before, after) = (self.before.get(name).cloned(), self.after.get(name).cloned());
            let at_length = [&before, &after].into_iter().flatten().any(|value| is_long(value));
            let field = name.clone();
            if at_length { Reason::EditedAtLength { field } } else { Reason::Edited { field, before, after } }
        };
        names.into_iter().map(reason).collect()
    }
}

/// Most characters of a value that is shown beside the one it replaces, in the same line.
const SHORT_MAX: usize = 40;

/// Whether a value is shown in lines of its own: a long text, or a list.
pub fn is_long(value: &str) -> bool {
    value.contains('\n') || value.starts_with(['[', '{']) || value.chars().count() > SHORT_MAX
}
