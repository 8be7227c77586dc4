//! Templates and vms: what each stands on, what its computer looks like, and every vm of a family written out.

use std::collections::BTreeMap;

use super::disks::DisksOf;
use super::networks::VmGroups;
use super::people::People;
use super::{Families, Resolver, pick, vm_group_all_vms};
use crate::manifest::{At, Defaults, FilePath, NamePattern, PatternPart, Size, Spanned, TemplateDecl, VmDecl};
use crate::model::id::{FamilyName, TemplateName, UserName, VmGroupName, VmName};
use crate::model::lab::{
    DisplayModel, Firmware, Hardware, NicModel, PowerState, RestartPolicy, Template, Vm, VmSource,
};
use crate::model::rules::Rule;

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Most vms of one `count`.
const COUNT_MAX: u32 = 10_000;
/// Most vms of a lab.
const VMS_MAX: usize = 100_000;
/// What a computer has when nobody says otherwise.
const HARDWARE: Hardware = Hardware {
    memory_mib: 1024,
    cpus: 1,
    firmware: Firmware::Bios,
    nic: NicModel::Virtio,
    display: DisplayModel::Std,
    cdrom: None,
};

pub(super) type Templates = BTreeMap<TemplateName, Template>;

pub(super) struct Machines {
    pub(super) vms: BTreeMap<VmName, Vm>,
    pub(super) families: Families,
}

/// The keys about the computer that a template and a vm have in common.
struct Written<'a> {
    memory: Option<&'a Spanned<Size>>,
    cpus: Option<&'a Spanned<u32>>,
    firmware: Option<&'a Spanned<Firmware>>,
    nic: Option<&'a Spanned<NicModel>>,
    display: Option<&'a Spanned<DisplayModel>>,
    cdrom: Option<&'a Spanned<FilePath>>,
}

impl<'a> Resolver<'a> {
    fn defaults(&self) -> Option<&'a Defaults> {
        self.manifest.defaults.as_ref().map(|defaults| &defaults.value)
    }

    pub(super) fn templates(&mut self, people: &mut People, groups: &VmGroups) -> Templates {
        let manifest = self.manifest;
        let mut templates = Templates::new();
        if let Some(defaults) = self.defaults() {
            if let Some(owner) = &defaults.owner {
                people.mention(self, owner);
            }
            self.bind_vm_group(defaults.vm_group.as_ref(), groups);
            self.check_hardware(defaults.memory.as_ref(), defaults.cpus.as_ref());
        }
        for entry in &manifest.templates.0 {
            let Some(decl) = &entry.value else { continue };
            if let Some(template) = self.template(&entry.key, decl, people, groups) {
                templates.insert(entry.key.value.clone(), template);
            }
        }
        templates
    }

    fn template(
        &mut self,
        name: &Spanned<TemplateName>,
        decl: &TemplateDecl,
        people: &mut People,
        groups: &VmGroups,
    ) -> Option<Template> {
        let defaults = self.defaults();
        let disks = self.disks(&decl.disks, DisksOf::Template);
        if decl.disks.is_empty() && decl.key("disks").is_none_or(|key| self.is_written_empty(key)) {
            let place = name.at;
            let message = format!("the template `{}` has no disk that others could derive from", name.value);
            self.note(
                Rule::NoDisks,
                place,
                message,
                "add `disks: [{ image: images/NAME.qcow2 }]`, or `disks: [{ size: 5G }]` for an empty one",
            );
        }
        let owner = match decl.key("owner") {
            // What was written could not be read, which was said already.
            Some(_) if decl.owner.is_none() => None,
            _ => self.owner(decl.owner.as_ref(), defaults, name.at, &format!("the template `{}`", name.value)),
        };
        if let Some(owner) = &decl.owner {
            people.mention(self, owner);
        }
        let vm_group = self.bind_vm_group(decl.vm_group.as_ref(), groups);
        let written = Written {
            memory: decl.memory.as_ref(),
            cpus: decl.cpus.as_ref(),
            firmware: decl.firmware.as_ref(),
            nic: decl.nic.as_ref(),
            display: decl.display.as_ref(),
            cdrom: decl.cdrom.as_ref(),
        };
        let hardware = self.hardware(&written, &self.default_hardware());
        Some(Template {
            description: decl.description.as_ref().map(|text| text.0.clone()),
            owner: owner?,
            vm_group: vm_group.or_else(|| self.default_vm_group()).unwrap_or_else(vm_group_all_vms),
            disks,
            hardware,
            seed: self.seed(decl.seed.as_ref(), None),
            keep_days: decl.keep.as_ref().map(|keep| u32::try_from(keep.0.div_ceil(DAY_SECONDS)).unwrap_or(u32::MAX)),
            origin: self.origin(name.at),
        })
    }

    fn default_vm_group(&self) -> Option<VmGroupName> {
        Some(self.defaults()?.vm_group.as_ref()?.value.clone())
    }

    /// The owner that is written, or the default one; `None` after a finding.
    fn owner(
        &mut self,
        written: Option<&Spanned<UserName>>,
        defaults: Option<&Defaults>,
        place: At,
        what: &str,
    ) -> Option<UserName> {
        let owner = written.or_else(|| defaults.and_then(|d| d.owner.as_ref())).map(|owner| owner.value.clone());
        if owner.is_none() {
            let message = format!("nobody owns {what}");
            self.note(Rule::NoOwner, place, message, "add `owner: NAME`, or a line `owner: NAME` under `defaults:`");
        }
        owner
    }

    fn bind_vm_group(&mut self, written: Option<&Spanned<VmGroupName>>, groups: &VmGroups) -> Option<VmGroupName> {
        let written = written?;
        if !groups.contains_key(&written.value) {
            let known = groups.keys().map(VmGroupName::as_str);
            self.unknown(Rule::UnknownVmGroup, "vm group", (written.as_str(), written.at), known);
        }
        Some(written.value.clone())
    }

    fn default_hardware(&self) -> Hardware {
        let Some(defaults) = self.defaults() else { return HARDWARE };
        Hardware {
            memory_mib: defaults.memory.as_ref().map_or(HARDWARE.memory_mib, |size| mib(size.value)),
            cpus: defaults.cpus.as_ref().map_or(HARDWARE.cpus, |cpus| cpus.value),
            firmware: pick(&[defaults.firmware.as_ref()]).unwrap_or(HARDWARE.firmware),
            nic: pick(&[defaults.nic.as_ref()]).unwrap_or(HARDWARE.nic),
            display: pick(&[defaults.display.as_ref()]).unwrap_or(HARDWARE.display),
            cdrom: None,
        }
    }

    fn hardware(&mut self, written: &Written<'_>, below: &Hardware) -> Hardware {
        self.check_hardware(written.memory, written.cpus);
        Hardware {
            memory_mib: written.memory.map_or(below.memory_mib, |size| mib(size.value)),
            cpus: written.cpus.map_or(below.cpus, |cpus| cpus.value),
            firmware: pick(&[written.firmware]).unwrap_or(below.firmware),
            nic: pick(&[written.nic]).unwrap_or(below.nic),
            display: pick(&[written.display]).unwrap_or(below.display),
            cdrom: written.cdrom.map(|path| {
                let full = self.manifest.path(path);
                self.image_exists(path.at, &path.value.0, &full);
                self.manifest.path(path)
            }),
        }
    }

    fn check_hardware(&mut self, memory: Option<&Spanned<Size>>, cpus: Option<&Spanned<u32>>) {
        const MIB: u64 = 1 << 20;
        if let Some(memory) = memory {
            let bytes = memory.0;
            if !Hardware::MEMORY_MIB.contains(&bytes.div_ceil(MIB)) || !bytes.is_multiple_of(MIB) {
                let message = format!("a computer with {} of memory cannot be built", memory.display());
                self.note(Rule::Hardware, memory.at, message, "write whole MiB, from `16M` to `4T`, such as `2G`");
            }
        }
        if let Some(cpus) = cpus
            && !Hardware::CPUS.contains(&cpus.value)
        {
            let message = format!("a computer with {} processors cannot be built", cpus.value);
            self.note(Rule::Hardware, cpus.at, message, format!("write a number from 1 to {}", Hardware::CPUS.end()));
        }
    }

    pub(super) fn machines(&mut self, people: &mut People, groups: &VmGroups, templates: &Templates) -> Machines {
        let manifest = self.manifest;
        let mut machines = Machines { vms: BTreeMap::new(), families: Families::new() };
        let mut places: BTreeMap<VmName, At> = BTreeMap::new();
        let mut lower: BTreeMap<String, VmName> = BTreeMap::new();
        for entry in &manifest.vms.0 {
            // The family is known even where nothing can be made of it.
            machines.families.entry(entry.key.value.clone()).or_default();
            let family = entry.value.as_ref().and_then(|decl| {
                let broken_group = decl.for_each.as_ref().is_some_and(|group| people.is_broken(&group.value));
                self.vms_missing |= broken_group;
                Some((decl, self.family(&entry.key, decl, people, groups, templates)?))
            });
            let Some((decl, (model, instances))) = family else {
                self.vms_missing = true;
                continue;
            };
            let mut doubled = false;
            for (name, owner) in instances {
                if machines.vms.len() >= VMS_MAX {
                    let message = format!("the lab has more than {VMS_MAX} vms");
                    self.note(Rule::TooBig, entry.key.at, message, "make several labs of it");
                    return machines;
                }
                // The vm's name is its name as a host, and there capitals do not count.
                if let Some(first) = lower.insert(name.as_str().to_ascii_lowercase(), name.clone()) {
                    if !doubled {
                        self.double_vm((&first, places[&first]), (&name, entry.key.at), decl);
                    }
                    doubled = true;
                    if first == name {
                        continue;
                    }
                }
                places.insert(name.clone(), entry.key.at);
                machines.families.entry(entry.key.value.clone()).or_default().insert(name.clone());
                machines.vms.insert(name, Vm { owner, ..model.clone() });
            }
        }
        self.families_and_vms(&machines, &places);
        self.vms_alike(&machines.vms, &places);
        machines
    }

    fn double_vm(&mut self, (other, first): (&VmName, At), (name, at): (&VmName, At), decl: &VmDecl) {
        let message = if name == other {
            format!("two vms would be called `{name}`")
        } else {
            format!("two vms would be called `{other}` and `{name}`: as names of hosts both are the same")
        };
        let hint = if name != other {
            "write a login name in the same way everywhere, or give one of the vms another name"
        } else if at == first {
            "use `{user}` or `{n}` in `name` so that each vm gets a name of its own"
        } else if decl.name.is_some() {
            "change one of the two `name` patterns"
        } else {
            "rename one of the two, or give it a `name`"
        };
        self.note_both(Rule::DuplicateVm, (at, &message), (first, "the other one comes from here"), hint);
    }

    /// `vm/exam` must not mean a vm of one family while `exam` is another.
    fn families_and_vms(&mut self, machines: &Machines, places: &BTreeMap<VmName, At>) {
        for entry in &self.manifest.vms.0 {
            let family = entry.key.as_str();
            let Some((name, at)) = places.get_key_value(family) else { continue };
            let own = machines.families.get(&entry.key.value).is_some_and(|vms| vms.contains(name) && vms.len() == 1);
            if !own {
                let message = format!("`{family}` is a family here, and a vm is called so too");
                let hint = "a session or permission that names it could mean either: rename one of the two";
                self.note_both(Rule::FamilyAndVm, (entry.key.at, &message), (*at, "the vm comes from here"), hint);
            }
        }
    }

    /// What all vms of a family have in common, and each one's name and owner.
    fn family(
        &mut self,
        name: &Spanned<FamilyName>,
        decl: &VmDecl,
        people: &mut People,
        groups: &VmGroups,
        templates: &Templates,
    ) -> Option<(Vm, Vec<(VmName, UserName)>)> {
        let defaults = self.defaults();
        let source = self.source(name, decl, templates);
        let vm_group = self.bind_vm_group(decl.vm_group.as_ref(), groups);
        let template = decl.derive.as_ref().or(decl.clone.as_ref()).and_then(|template| templates.get(&template.value));
        let below =
            template.map_or_else(|| self.default_hardware(), |t| Hardware { cdrom: None, ..t.hardware.clone() });
        let written = Written {
            memory: decl.memory.as_ref(),
            cpus: decl.cpus.as_ref(),
            firmware: decl.firmware.as_ref(),
            nic: decl.nic.as_ref(),
            display: decl.display.as_ref(),
            cdrom: decl.cdrom.as_ref(),
        };
        let hardware = self.hardware(&written, &below);
        if let Some(owner) = &decl.owner {
            people.mention(self, owner);
        }
        let seed = self.seed(decl.seed.as_ref(), template.and_then(|template| template.seed.as_ref()));
        let instances = self.instances(name, decl, people);
        let vm_group = vm_group
            .or_else(|| template.map(|template| template.vm_group.clone()))
            .or_else(|| self.default_vm_group())
            .unwrap_or_else(vm_group_all_vms);
        let model = Vm {
            owner: UserName::new("nobody").expect("it is a valid name"),
            vm_group,
            description: decl.description.as_ref().map(|text| text.0.clone()),
            family: name.value.clone(),
            for_each: decl.for_each.as_ref().map(|group| group.value.clone()),
            source: source?,
            hardware,
            isolated: pick(&[decl.isolated.as_ref(), defaults.and_then(|d| d.isolated.as_ref())]).unwrap_or(false),
            state: pick(&[decl.state.as_ref(), defaults.and_then(|d| d.state.as_ref())])
                .unwrap_or(PowerState::OnDemand),
            restart: pick(&[decl.restart.as_ref(), defaults.and_then(|d| d.restart.as_ref())])
                .unwrap_or(RestartPolicy::OnFailure),
            may_reimage: decl.may_reimage.as_ref().is_some_and(|may| may.value),
            collect: decl.collect.iter().map(|pattern| pattern.value.clone()).collect(),
            seed,
            origin: self.origin(name.at),
        };
        Some((model, instances?))
    }

    fn source(&mut self, name: &Spanned<FamilyName>, decl: &VmDecl, templates: &Templates) -> Option<VmSource> {
        let written: Vec<(&str, At)> =
            ["derive", "clone", "disks"].into_iter().filter_map(|key| Some((key, decl.key(key)?))).collect();
        match written.as_slice() {
            [] => {
                let message = format!("`{}` has no disks", name.value);
                let hint = match self.manifest.templates.0.first() {
                    Some(template) => format!("add `derive: {}`, `clone: …` or `disks: […]`", template.key.value),
                    None => "add `derive: TEMPLATE`, `clone: TEMPLATE` or `disks: [{ size: 5G }]`".to_owned(),
                };
                self.note(Rule::NoDisks, name.at, message, hint);
                return None;
            }
            [_] => {}
            // Both come from a merge key, which was said to have no meaning.
            [(_, first), (_, second), ..] if first == second => return None,
            [(first, first_at), (second, second_at), ..] => {
                let message = format!("`{}` has its disks from `{first}` and from `{second}`", name.value);
                let other = format!("`{first}` is written here");
                self.note_both(
                    Rule::ConflictingKeys,
                    (*second_at, &message),
                    (*first_at, &other),
                    "keep one of the two",
                );
                return None;
            }
        }
        if let Some(template) = &decl.derive {
            return self.bind_template(template, templates).map(VmSource::Derive);
        }
        if let Some(template) = &decl.clone {
            return self.bind_template(template, templates).map(VmSource::Clone);
        }
        let disks = self.disks(&decl.disks, DisksOf::Vm);
        if let (true, Some(at)) = (decl.disks.is_empty(), decl.key("disks")) {
            if self.is_written_empty(at) {
                let message = format!("`{}` has no disks", name.value);
                self.note(Rule::NoDisks, at, message, "write `disks: [{ size: 5G }]`");
            }
            return None;
        }
        Some(VmSource::Disks(disks))
    }

    fn bind_template(&mut self, written: &Spanned<TemplateName>, templates: &Templates) -> Option<TemplateName> {
        if templates.contains_key(&written.value) {
            return Some(written.value.clone());
        }
        let declared = &self.manifest.templates.0;
        if declared.iter().any(|entry| entry.key.value == written.value) {
            // It is there, and what is wrong with it was said where it stands.
            return None;
        }
        let vm = (self.suggestions > 0)
            .then(|| self.manifest.vms.0.iter().find(|entry| entry.key.as_str() == written.as_str()))
            .flatten();
        if let Some(vm) = vm {
            let message = format!("`{}` is a vm, and a vm's disks cannot be derived from", written.value);
            let hint =
                "only a template's disks stay as they are: define a template from an image and derive both from it";
            self.note_both(Rule::DerivedTemplate, (written.at, &message), (vm.key.at, "the vm"), hint);
            return None;
        }
        let known: Vec<&str> = declared.iter().map(|entry| entry.key.as_str()).collect();
        self.unknown(Rule::UnknownTemplate, "template", (written.as_str(), written.at), known.iter().copied());
        None
    }

    /// Name and owner of each vm of a family.
    fn instances(
        &mut self,
        name: &Spanned<FamilyName>,
        decl: &VmDecl,
        people: &People,
    ) -> Option<Vec<(VmName, UserName)>> {
        let count = self.count(decl)?;
        let members = match &decl.for_each {
            Some(group) => Some((group, self.members(name, group, people)?)),
            None if decl.key("for_each").is_some() => return None,
            None => None,
        };
        let pattern = self.pattern(name, decl, members.is_some(), count)?;
        let group = members.as_ref().map_or("", |(group, _)| group.as_str());
        let owner = if members.is_some() && decl.owner.is_none() {
            None
        } else if decl.owner.is_none() && decl.key("owner").is_some() {
            return None;
        } else {
            Some(self.owner(decl.owner.as_ref(), self.defaults(), name.at, &format!("`{}`", name.value))?)
        };
        let mut users = members.map(|(_, users)| users).unwrap_or_default();
        if decl.for_each.is_none() {
            users.extend(owner.clone());
        }
        let numbers = count.unwrap_or(1);
        if users.len().saturating_mul(numbers as usize) > VMS_MAX {
            let message =
                format!("`{}` would be {} times {numbers} vms; a lab has at most {VMS_MAX}", name.value, users.len());
            self.note(Rule::TooBig, name.at, message, "make several labs of it");
            return None;
        }
        let mut instances = Vec::new();
        for user in users {
            for number in 1..=numbers {
                let text = pattern.expand(user.as_str(), group, number);
                match VmName::new(&*text) {
                    Ok(vm) => instances.push((vm, owner.clone().unwrap_or_else(|| user.clone()))),
                    Err(error) => {
                        let at = decl.name.as_ref().map_or(name.at, |pattern| pattern.at);
                        let message = format!("the vm of `{user}` would be called `{text}`: {error}");
                        self.note(Rule::InvalidName, at, message, "shorten or change `name`");
                        return None;
                    }
                }
            }
        }
        Some(instances)
    }

    fn count(&mut self, decl: &VmDecl) -> Option<Option<u32>> {
        match &decl.count {
            Some(count) if !(1..=COUNT_MAX).contains(&count.value) => {
                let message = format!("a family of {} vms cannot be", count.value);
                self.note(Rule::BadValue, count.at, message, format!("write a number from 1 to {COUNT_MAX}"));
                None
            }
            Some(count) => Some(Some(count.value)),
            None => Some(None),
        }
    }

    fn members(
        &mut self,
        name: &Spanned<FamilyName>,
        group: &Spanned<crate::model::id::UserGroupName>,
        people: &People,
    ) -> Option<Vec<UserName>> {
        let Some(members) = people.members(&group.value) else {
            self.unknown(Rule::UnknownUserGroup, "user group", (group.as_str(), group.at), people.group_names());
            return None;
        };
        if members.is_empty() && !people.is_broken(&group.value) {
            let message =
                format!("the user group `{}` has no members, so `{}` makes no vm at all", group.value, name.value);
            self.note(Rule::EmptyGroup, group.at, message, "add `members` or a `roster` to the group");
        }
        Some(members)
    }

    /// The pattern that is written, or one that gives each vm a name of its own.
    fn pattern(
        &mut self,
        name: &Spanned<FamilyName>,
        decl: &VmDecl,
        for_each: bool,
        count: Option<u32>,
    ) -> Option<NamePattern> {
        let Some(written) = &decl.name else {
            if decl.key("name").is_some() {
                return None;
            }
            let mut parts = Vec::new();
            if for_each {
                parts.extend([PatternPart::User, PatternPart::Literal("-".to_owned())]);
            }
            let called = for_each.then(|| self.named_after_exam(&name.value)).flatten();
            parts.push(PatternPart::Literal(called.unwrap_or_else(|| name.to_string())));
            if count.is_some() {
                parts.extend([PatternPart::Literal("-".to_owned()), PatternPart::Number]);
            }
            return Some(NamePattern { parts });
        };
        let mut wrong = |message: String, hint: &str| {
            self.note(Rule::NamePattern, written.at, message, hint);
            None
        };
        let has = |part| written.has(&part);
        if for_each && !has(PatternPart::User) {
            return wrong(
                "all vms of the group would have the same name".to_owned(),
                "use `{user}` in the name: `\"{user}-gsr\"`",
            );
        }
        if !for_each && (has(PatternPart::User) || has(PatternPart::Group)) {
            return wrong(
                "`{user}` and `{group}` mean something only with `for_each`".to_owned(),
                "add `for_each: GROUP`, or write the name out",
            );
        }
        if count.is_some_and(|count| count > 1) && !has(PatternPart::Number) {
            return wrong(
                "all vms of the `count` would have the same name".to_owned(),
                "use `{n}` in the name: `\"lab-{n}\"`",
            );
        }
        if count.is_none() && has(PatternPart::Number) {
            return wrong(
                "`{n}` means something only with `count`".to_owned(),
                "add `count: 3`, or write the name out",
            );
        }
        Some(written.value.clone())
    }
}

fn mib(size: Size) -> u32 {
    u32::try_from(size.mib()).unwrap_or(u32::MAX)
}
