//! Templates that are installed by hand: a vm begins with empty disks and a CD, and when it is off, its disks become a version of
//! the template. The vm keeps its own; what is published is a full image, whatever its disks derive from.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::aside::refuse_frozen;
use super::journal::{Decides, Lab, Order, Step};
use super::permissions::Rights;
use super::pick::{is_named, nothing_fits, one};
use super::restore::refuse_running;
use super::{Code, Context, ControlError, cd};
use crate::disks::{self, DiskError, Owner};
use crate::model::address::{Address, Kind};
use crate::model::claim::{ClaimBody, VmClaim};
use crate::model::id::{TemplateName, VmName};
use crate::model::lab::{Desired, DiskSource, Object, Right, Template, VmSource};
use crate::model::seed::{SshKey, Whose};
use crate::plan::{Ask, Wish};
use crate::resolve::with_claims;
use crate::state::{Change, Making, PublishedDisk, Recorded, RecordedVm, TemplateVersion};

#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("cannot read the CD {}", file.display())]
    CdUnread { file: PathBuf, source: std::io::Error },
    #[error("{} is no image of a CD (ISO 9660); nothing was changed", file.display())]
    NoCd { file: PathBuf },
    #[error("{} is no file below the image roots of the lab, with no link on the way; nothing was changed", file.display())]
    CdOutside { file: PathBuf },
    #[error("others than root can change {}, or put another file in its place; nothing was changed", file.display())]
    CdOfOthers { file: PathBuf },
    #[error("vm `{vm}` has its disks from a template, so there is nothing to install; nothing was started")]
    Installed { vm: VmName },
    #[error("template `{template}` is made of the images that its manifest names; nothing was changed")]
    OfImages { template: TemplateName },
    #[error("template `{template}` has {} by its manifest, and vm `{vm}` has {has}; nothing was published", disks(*wanted))]
    Disks { template: TemplateName, vm: VmName, wanted: usize, has: usize },
    #[error("not all disks of vm `{vm}` are there; nothing was published")]
    NotMade { vm: VmName },
    #[error("the disks of vm `{vm}` were not published")]
    NotPublished { vm: VmName, source: DiskError },
}

impl TemplateError {
    pub fn code(&self) -> Code {
        match self {
            Self::CdUnread { .. } | Self::NotPublished { .. } => Code::Failed,
            Self::NoCd { .. } => Code::Usage,
            Self::CdOutside { .. }
            | Self::CdOfOthers { .. }
            | Self::Installed { .. }
            | Self::OfImages { .. }
            | Self::Disks { .. }
            | Self::NotMade { .. } => Code::Refused,
        }
    }
}

fn disks(count: usize) -> String {
    super::aside::disks_word(count)
}

/// What is to become of which vm's disks.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The vm, in a word.
    pub vm: String,
    pub template: TemplateName,
    /// What people should know of this version.
    pub note: Option<String>,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Made {
    /// Whose disks they were.
    pub vm: VmName,
    /// Which version they are now.
    pub version: u32,
    /// Where the images are.
    pub disks: Vec<PathBuf>,
    /// What its seed has left on its disks, and so on all that are made from them.
    pub left: Option<Left>,
}

/// Accounts and keys that a guest got from its seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// The accounts' names.
    pub users: Vec<String>,
    /// How many keys.
    pub keys: usize,
}

impl Left {
    /// On the disks of a vm that has booted with a seed.
    fn of(lab: &Desired, name: &VmName, known: &RecordedVm) -> Option<Self> {
        let seed = known.vm.seed.as_ref().filter(|_| known.generation > 0)?;
        let keys_of = |user: &str| lab.users.get(user).map(|user| user.ssh_keys.clone()).unwrap_or_default();
        let whose = Whose { vm: name, owner: &known.vm.owner, ip: known.ip };
        let users = seed.disk(whose, String::new(), keys_of).users;
        let keys: BTreeSet<&SshKey> = users.iter().flat_map(|user| &user.ssh_keys).collect();
        Some(Self { keys: keys.len(), users: users.into_iter().map(|user| user.name).collect() })
    }
}

/// What a start with a CD takes: the right to run the vm and to change what is in its drive, disks that nothing was made for, and a
/// CD that who asks may name. Answers where that is.
pub fn cd_to_install(context: &Context, desired: &Desired, vm: &VmName, file: &Path) -> Result<PathBuf, ControlError> {
    context.audited(Some(&desired.lab), judge_install(context, desired, vm, file))
}

fn judge_install(context: &Context, desired: &Desired, vm: &VmName, file: &Path) -> Result<PathBuf, ControlError> {
    let recorded = context.recorded(&desired.lab)?;
    let lab = with_claims(desired, &recorded.claims);
    require_install(&Rights::of(context, &lab, &recorded), &lab, vm)?;
    Ok(cd::named(context, &desired.lab, file)?)
}

/// The CD for a template that who asks may install.
pub fn cd_for_template(
    context: &Context,
    desired: &Desired,
    template: &TemplateName,
    file: &Path,
) -> Result<PathBuf, ControlError> {
    let look = || {
        let recorded = context.recorded(&desired.lab)?;
        let lab = with_claims(desired, &recorded.claims);
        theirs(&Rights::of(context, &lab, &recorded), &lab, template)?;
        Ok(cd::named(context, &desired.lab, file)?)
    };
    context.audited(Some(&desired.lab), look())
}

/// Whether who asks may install on a vm, and it is there to be installed.
pub(super) fn require_install(rights: &Rights<'_>, lab: &Desired, vm: &VmName) -> Result<(), ControlError> {
    rights.require(Right::Run, &Object::Vm(vm.clone()))?;
    rights.require(Right::Modify, &Object::Vm(vm.clone()))?;
    Ok(refuse_installed(lab, vm)?)
}

/// Refuses to install on what a template was made for.
pub fn refuse_installed(lab: &Desired, vm: &VmName) -> Result<(), TemplateError> {
    match lab.vms.get(vm).map(|vm| &vm.source) {
        Some(VmSource::Derive(_) | VmSource::Clone(_)) => Err(TemplateError::Installed { vm: vm.clone() }),
        _ => Ok(()),
    }
}

/// Claims the vm on which a template is installed, with its disks and its hardware, for its owner; answers its name. One that
/// was claimed before is taken as it is.
pub fn claim(
    context: &Context,
    desired: &Desired,
    template: &TemplateName,
    isolated: bool,
) -> Result<VmName, ControlError> {
    context.audited(Some(&desired.lab), claim_vm(context, desired, template, isolated))
}

fn claim_vm(
    context: &Context,
    desired: &Desired,
    template: &TemplateName,
    isolated: bool,
) -> Result<VmName, ControlError> {
    let mut store = context.store()?;
    let doing = format!("template install {template}");
    let decides = Decides::begin(context, doing.clone())?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let lab = with_claims(desired, &recorded.claims);
    let wanted = theirs(&Rights::of(context, &lab, &recorded), &lab, template)?;
    let own = VmName::new(template.as_str()).map_err(super::import::ImportError::Name)?;
    let name = VmName::owned(&wanted.owner, &own);
    if lab.vms.contains_key(&name) {
        return Ok(name);
    }
    let body = ClaimBody::Vm(VmClaim {
        version: ClaimBody::VERSION,
        owner: wanted.owner.clone(),
        source: VmSource::Disks(wanted.disks.clone()),
        vm_group: wanted.vm_group.clone(),
        hardware: wanted.hardware.clone(),
        isolated,
        // Whoever installs says all this by hand.
        seed: None,
        key: None,
        was: None,
    });
    let put = Change::PutClaim { name: name.to_string(), body, by: context.caller.name.clone() };
    let of_lab = Lab { name: &desired.lab, after: recorded.latest, doing: "changed" };
    of_lab.record(&mut store, decides, &doing, vec![Step::record(Address::vm(&name), "claim the vm", vec![put])])?;
    Ok(name)
}

fn known<'a>(lab: &'a Desired, template: &TemplateName) -> Result<&'a Template, ControlError> {
    lab.templates.get(template).ok_or_else(|| {
        let known = lab.templates.keys().map(TemplateName::as_str);
        nothing_fits(&lab.lab, "template", template.as_str(), known).into()
    })
}

/// One that who asks may modify. Those who may everything are told what they have misspelt.
fn theirs<'a>(rights: &Rights<'_>, lab: &'a Desired, template: &TemplateName) -> Result<&'a Template, ControlError> {
    if !rights.are_all() {
        rights.require(Right::Modify, &Object::Template(template.clone()))?;
    }
    installable(lab, template)
}

/// A template that has versions by command: its manifest gives it an empty disk.
fn installable<'a>(lab: &'a Desired, template: &TemplateName) -> Result<&'a Template, ControlError> {
    let known = known(lab, template)?;
    if known.disks.iter().any(|disk| matches!(disk, DiskSource::Empty { .. })) {
        return Ok(known);
    }
    Err(TemplateError::OfImages { template: template.clone() }.into())
}

/// The vms that stand on an older version of a template than its latest: all of them, or those that are named. Each with what is
/// asked of it, which is new disks.
pub fn updates(
    desired: &Desired,
    recorded: &Recorded,
    template: &TemplateName,
    words: &[String],
) -> Result<BTreeMap<VmName, Ask>, ControlError> {
    known(desired, template)?;
    let latest = recorded.next_version(template) - 1;
    let behind = recorded.behind(template, latest).filter(|name| desired.vms.contains_key(*name));
    let mut asks: BTreeMap<VmName, Ask> =
        behind.map(|name| (name.clone(), Ask::new(Wish::Reimage, is_named(words, name)))).collect();
    if !words.is_empty() {
        let meant = super::plan::asks(desired, recorded, words, Wish::Reimage)?;
        asks.retain(|name, _| meant.contains_key(name));
    }
    Ok(asks)
}

/// Makes full images of a vm's disks, the template's next version. The vm is off, and nobody starts it meanwhile.
pub fn publish(context: &Context, desired: &Desired, wanted: &Wanted) -> Result<Made, ControlError> {
    context.audited(Some(&desired.lab), publish_disks(context, desired, wanted))
}

fn publish_disks(context: &Context, desired: &Desired, wanted: &Wanted) -> Result<Made, ControlError> {
    let mut store = context.known_store()?;
    let owner = context.owner()?;
    let doing = format!("template publish {} --as {}", wanted.vm, wanted.template);
    let decides = Decides::begin(context, doing)?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    refuse_strangers(context, desired, &recorded, wanted)?;
    let name = one(&desired.lab, &wanted.vm, &recorded)?;
    let publishing = Publishing::decide(context, desired, &recorded, wanted, name)?;
    let flat = OnceCell::new();
    let steps = publishing.steps(&flat, owner);
    let of_lab = Lab { name: &desired.lab, after: recorded.latest, doing: "published" };
    let summary = format!("template/{}: version {} of vm/{}", wanted.template, publishing.made.version, wanted.vm);
    let mut work = of_lab.begin(&mut store, decides, &summary, &steps.iter().collect::<Vec<_>>())?;
    let [flatten, record] = steps;
    let mut failed = work.carry_out(Order::Chain, vec![flatten])?;
    if let Some(disks) = flat.get().cloned() {
        let content = TemplateVersion { disks };
        let (template, version) = (wanted.template.clone(), publishing.made.version);
        let after = vec![Change::PutVersion { template, version, content }];
        failed.extend(work.carry_out(Order::Chain, vec![Step { after, ..record }])?);
    }
    work.end()?;
    failed.pop().map_or_else(|| Ok(publishing.made.clone()), Err)
}

/// Who may not, hears of no name that is like the one they wrote.
fn refuse_strangers(
    context: &Context,
    desired: &Desired,
    recorded: &Recorded,
    wanted: &Wanted,
) -> Result<(), ControlError> {
    let lab = with_claims(desired, &recorded.claims);
    let rights = Rights::of(context, &lab, recorded);
    theirs(&rights, &lab, &wanted.template)?;
    match VmName::new(&wanted.vm) {
        Ok(vm) if !rights.are_all() => rights.require(Right::Modify, &Object::Vm(vm)),
        _ => Ok(()),
    }
}

/// What is decided under the lock.
struct Publishing<'a> {
    known: &'a RecordedVm,
    template: &'a TemplateName,
    making: Making,
    made: Made,
}

impl<'a> Publishing<'a> {
    fn decide(
        context: &Context,
        desired: &Desired,
        recorded: &'a Recorded,
        wanted: &'a Wanted,
        name: VmName,
    ) -> Result<Self, ControlError> {
        let lab = with_claims(desired, &recorded.claims);
        let rights = Rights::of(context, &lab, recorded);
        let template = theirs(&rights, &lab, &wanted.template)?;
        rights.require(Right::Modify, &Object::Vm(name.clone()))?;
        recorded.refuse_held(&Address::vm(&name))?;
        recorded.refuse_held(&Address::new(Kind::Template, &wanted.template))?;
        let known = &recorded.vms[&name];
        refuse_running(context, recorded, &context.observe(desired, recorded)?, &name)?;
        let (wanted_disks, has) = (template.disks.len(), known.disks.len());
        if wanted_disks != has {
            let (template, vm) = (wanted.template.clone(), name);
            return Err(TemplateError::Disks { template, vm, wanted: wanted_disks, has }.into());
        }
        if known.disks.iter().any(|disk| !disk.made || disk.moving_to.is_some() || !disk.path.exists()) {
            return Err(TemplateError::NotMade { vm: name }.into());
        }
        // What a try that was killed has left is not touched.
        let paths = |version: u32| -> Vec<PathBuf> {
            let storage = &context.site.storage;
            (0..has).map(|slot| storage.published_disk(&desired.lab, &wanted.template, version, slot)).collect()
        };
        let is_free = |version: &u32| paths(*version).iter().all(|path| path.symlink_metadata().is_err());
        let version = (recorded.next_version(&wanted.template)..).find(is_free).expect("one of endlessly many is free");
        let making =
            Making { vm: name.clone(), by: context.caller.name.clone(), note: wanted.note.clone().unwrap_or_default() };
        let left = Left::of(&lab, &name, known);
        let made = Made { vm: name, version, disks: paths(version), left };
        Ok(Self { known, template: &wanted.template, making, made })
    }

    /// The images are made, then recorded: until then no vm derives from them.
    fn steps<'s>(&'s self, flat: &'s OnceCell<Vec<PublishedDisk>>, owner: Owner) -> [Step<'s>; 2] {
        let act = move || {
            let pairs = self.known.disks.iter().zip(&self.made.disks);
            let disks = pairs.map(|(disk, target)| {
                let source = |source| TemplateError::NotPublished { vm: self.made.vm.clone(), source };
                let stored = disks::flatten(&disk.path, disk.base.as_deref(), target, owner).map_err(source)?;
                Ok(PublishedDisk {
                    path: target.clone(),
                    sha256: stored.sha256,
                    source_sha256: None,
                    source: target.clone(),
                    source_bytes: stored.source_bytes,
                    source_mtime_ns: stored.source_mtime_ns,
                    stored: None,
                    made: Some(self.making.clone()),
                })
            });
            let disks = disks.collect::<Result<Vec<_>, TemplateError>>()?;
            flat.set(disks).unwrap_or_default();
            Ok(())
        };
        let address = Address::vm(&self.made.vm);
        let effect = "publish the vm's disks";
        let flatten = Step { address, effect, before: Vec::new(), act: Box::new(act), after: Vec::new() };
        let template = Address::new(Kind::Template, self.template);
        [flatten, Step::record(template, "record the version", Vec::new())]
    }
}
