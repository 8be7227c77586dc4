//! Each vm as recorded and seen, and in one word where it stands.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Listed, Moment, View};
use crate::control::ControlError;
use crate::model::claim::{Claim, ClaimBody, ClaimedPower};
use crate::model::id::{FamilyName, Mac, UserName, VmGroupName, VmName};
use crate::model::job::{Task, TaskState};
use crate::model::lab::{PowerState, VmSource};
use crate::model::site::Site;
use crate::observe::{self, Life, Observed, Phase, life};
use crate::plan::Remark;
use crate::run::{PAUSED_BY_SESSION, PAUSED_ON_REQUEST, StopReason};
use crate::state::{Recorded, RecordedVm};

/// One vm, as recorded and seen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Vm {
    /// Its full name: `OWNER/NAME` where it is of somebody's own.
    pub name: VmName,
    /// Whose it is.
    pub owner: UserName,
    /// The template, or `own disks`.
    pub from: String,
    /// Its address for as long as it exists.
    pub ip: Ipv4Addr,
    /// The hardware address that goes with it.
    pub mac: Mac,
    /// What is wanted of it.
    pub wanted: PowerState,
    /// Who wants it so by command, where its manifest leaves it to people.
    pub claim: Option<String>,
    /// Where it stands.
    pub state: VmState,
    /// Of a run that is not over.
    pub host: Option<String>,
    /// What it was made from in the manifest, together with its like.
    pub family: FamilyName,
    /// Whose network it is in.
    pub vm_group: VmGroupName,
    /// Its guest's memory.
    pub memory_mib: u32,
    /// Its guest's processors.
    pub cpus: u32,
    /// Whether it runs isolated.
    pub isolated: bool,
    /// The template's version that its disks lie over.
    pub version: Option<u32>,
    /// In the words of the manifest.
    pub description: Option<String>,
    /// Why it is not what was wanted; it may be a program's own words.
    pub why: Option<String>,
}

/// Where a vm's run stands. In the order of the words, in which they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Its guest runs and has not said that it is up.
    Booting,
    /// It runs, and its host's network does not reach it.
    #[serde(rename = "cut off")]
    CutOff,
    Deleting,
    /// The queue cannot run it before a person has mended something.
    Error,
    /// Its run ended without a word.
    Gone,
    Held,
    Off,
    /// It stands still, as after an error of its disk.
    Paused,
    Queued,
    Ready,
    Starting,
    Stopping,
    /// It stands still because somebody wants it to.
    Suspended,
    Transferring,
    /// Its host does not answer.
    Unknown,
}

/// A vm by its name alone.
#[derive(Debug, Clone, Serialize)]
pub struct Name {
    pub name: VmName,
    pub owner: UserName,
}

/// One running vm: the paper's Mapping table (section V.A).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Mapping {
    /// The vm's full name.
    pub name: VmName,
    /// Whose it is.
    pub owner: UserName,
    /// The address that its guest may use.
    pub ip: Ipv4Addr,
    /// The hardware address that its guest has.
    pub mac: Mac,
    /// Whether it runs isolated.
    pub isolated: bool,
    /// Where the guest's filter goes by it.
    pub gateway_mac: Option<Mac>,
    /// Where it runs.
    pub host: String,
    /// Where it stands.
    pub state: VmState,
    /// Where its screen is served.
    pub vnc: String,
    /// Its interface on the host.
    pub tap: String,
    /// Its qemu on the host.
    pub pid: u32,
    /// When it began to run.
    pub since: Moment,
}

/// What is a vm's is picked by its name, and is its owner's.
macro_rules! listed_as_vms {
    ($($row:ty),*) => {$(
        impl Listed for $row {
            const KIND: &'static str = "vm";
            const IS_OWNED: bool = true;
            fn key(&self) -> &str {
                self.name.as_str()
            }
            fn owner(&self) -> Option<&str> {
                Some(self.owner.as_str())
            }
        }
    )*};
}

listed_as_vms!(Vm, Name, Mapping);

impl View<'_> {
    /// Every vm, by name.
    pub fn vms(&self) -> Result<Vec<Vm>, ControlError> {
        Ok(vms(&self.recorded, &*self.observed()?, &self.context.site))
    }

    /// Names alone are asked for by shells that complete a word: the queue is not bothered for them.
    pub fn names(&self) -> Vec<Name> {
        let name = |(name, vm): (&VmName, &RecordedVm)| Name { name: name.clone(), owner: vm.vm.owner.clone() };
        self.recorded.vms.iter().map(name).collect()
    }

    /// Every vm that runs, by name.
    pub fn mappings(&self) -> Result<Vec<Mapping>, ControlError> {
        Ok(mappings(&self.recorded, &*self.observed()?, &self.context.site))
    }
}

/// Every vm that is recorded, by name.
pub fn vms(recorded: &Recorded, observed: &Observed, site: &Site) -> Vec<Vm> {
    let claims = power_claims(recorded);
    let vm = |(name, vm): (&VmName, &RecordedVm)| of(name, vm, claims.get(name.as_str()).copied(), observed, site);
    recorded.vms.iter().map(vm).collect()
}

/// One of them.
pub(super) fn of_name(name: &VmName, vm: &RecordedVm, recorded: &Recorded, observed: &Observed, site: &Site) -> Vm {
    of(name, vm, power_claims(recorded).get(name.as_str()).copied(), observed, site)
}

/// What people want of vms' power, by vm.
fn power_claims(recorded: &Recorded) -> BTreeMap<&str, (&Claim, ClaimedPower)> {
    let of_power = recorded.claims.iter().filter_map(|claim| match &claim.body {
        ClaimBody::Power(power) => Some((claim.name.as_str(), (claim, power.wanted))),
        _ => None,
    });
    of_power.collect()
}

fn of(name: &VmName, vm: &RecordedVm, claim: Option<(&Claim, ClaimedPower)>, observed: &Observed, site: &Site) -> Vm {
    // What a manifest says counts more.
    let claim = claim.filter(|_| vm.vm.state == PowerState::OnDemand);
    Vm {
        name: name.clone(),
        owner: vm.vm.owner.clone(),
        from: match &vm.vm.source {
            VmSource::Derive(template) | VmSource::Clone(template) => template.to_string(),
            VmSource::Disks(_) => "own disks".into(),
        },
        ip: vm.ip,
        mac: vm.mac,
        wanted: match claim {
            Some((_, ClaimedPower::Running)) => PowerState::Running,
            Some((_, ClaimedPower::Stopped)) => PowerState::Stopped,
            None => vm.vm.state,
        },
        claim: claim.map(|(claim, _)| format!("{} by {}", claim.id, claim.by)),
        state: state(vm, observed, site),
        host: host(vm, observed),
        family: vm.vm.family.clone(),
        vm_group: vm.vm.vm_group.clone(),
        memory_mib: vm.vm.hardware.memory_mib,
        cpus: vm.vm.hardware.cpus,
        isolated: vm.vm.isolated,
        version: vm.version,
        description: vm.vm.description.clone(),
        why: why(vm, claim.map(|(_, wanted)| wanted), observed, site),
    }
}

/// One word for where a vm's run stands. Of a host that does not answer, what its starter last said counts for nothing.
pub fn state(vm: &RecordedVm, observed: &Observed, site: &Site) -> VmState {
    match life(vm, observed, site) {
        Life::Unknown { .. } => return VmState::Unknown,
        Life::Off { news: true, reason: None } => return VmState::Gone,
        Life::Off { .. } => return VmState::Off,
        Life::Live { .. } | Life::Lost { .. } => {}
    }
    let Some(run) = &vm.run else { return VmState::Off };
    let task = task(vm, observed).map(|task| &task.state);
    // A starter that stands still with its guest cannot say so.
    if task == Some(&TaskState::Suspended) {
        return VmState::Suspended;
    }
    observed.runs.get(&run.run).map_or_else(|| in_queue(task), |report| of_phase(&report.phase))
}

/// What a starter last said.
pub(super) fn of_phase(phase: &Phase) -> VmState {
    match phase {
        Phase::Starting | Phase::Off => VmState::Starting,
        Phase::Running => VmState::Booting,
        Phase::Ready => VmState::Ready,
        Phase::Paused { reason } if [PAUSED_ON_REQUEST, PAUSED_BY_SESSION].contains(&reason.as_str()) => {
            VmState::Suspended
        }
        Phase::Paused { .. } => VmState::Paused,
        Phase::CutOff { .. } => VmState::CutOff,
        Phase::Stopping => VmState::Stopping,
        Phase::Stopped { .. } => VmState::Off,
    }
}

/// Where the starter has said nothing yet, the queue does.
fn in_queue(task: Option<&TaskState>) -> VmState {
    match task {
        None | Some(TaskState::Pending { .. }) => VmState::Queued,
        Some(TaskState::Held) => VmState::Held,
        Some(TaskState::Transferring) => VmState::Transferring,
        Some(TaskState::Running) => VmState::Starting,
        Some(TaskState::Suspended) => VmState::Suspended,
        Some(TaskState::Deleting) => VmState::Deleting,
        Some(TaskState::Unknown) => VmState::Unknown,
        Some(TaskState::Error { .. }) => VmState::Error,
    }
}

/// Why a vm is not what was wanted of it: off though it should run, waiting, standing still, out of sight.
fn why(vm: &RecordedVm, claimed: Option<ClaimedPower>, observed: &Observed, site: &Site) -> Option<String> {
    match life(vm, observed, site) {
        life @ Life::Unknown { .. } => Some(Remark::of_unknown(&life, site, false)?.0.to_string()),
        Life::Off { reason, news } => {
            let reported = vm.run.as_ref().and_then(|run| observed.runs.get(&run.run)?.phase.end());
            let words = reported.or_else(|| Some(reason.as_ref()?.to_string()));
            is_told(vm, claimed, reason.as_ref(), news)
                .then(|| words.unwrap_or_else(|| "its run ended without a word".into()))
        }
        Life::Live { .. } | Life::Lost { .. } => match &observed.runs.get(&vm.run.as_ref()?.run).map(|r| &r.phase) {
            Some(Phase::Paused { reason }) if reason != PAUSED_ON_REQUEST => Some(reason.clone()),
            Some(Phase::CutOff { reason }) => Some(reason.clone()),
            Some(_) => None,
            None => task(vm, observed)?.state.reason(),
        },
    }
}

/// Whether people want to know why a vm is off. What nobody wrote `running` for was started by somebody, who wants to know
/// what went wrong, and nothing else; as long as that is claimed, also that nobody knows what did.
fn is_told(vm: &RecordedVm, claimed: Option<ClaimedPower>, reason: Option<&StopReason>, news: bool) -> bool {
    use StopReason::{Asked, Deadline, Guest, Superseded};
    let has_failed = match reason {
        Some(Guest | Asked | Deadline | Superseded) => false,
        Some(_) => true,
        None => news || (vm.run.is_some() && claimed == Some(ClaimedPower::Running)),
    };
    match vm.vm.state {
        PowerState::Running => vm.run.is_some(),
        PowerState::OnDemand => has_failed,
        PowerState::Stopped => false,
    }
}

fn task<'a>(vm: &RecordedVm, observed: &'a Observed) -> Option<&'a Task> {
    let run = vm.run.as_ref()?;
    observed.tasks.get(&(run.batch.clone(), run.task))
}

/// The host of a run that is not over, from its starter or from the queue.
fn host(vm: &RecordedVm, observed: &Observed) -> Option<String> {
    let reported = mapping(vm, observed).map(|mapping| mapping.host.clone());
    reported.or_else(|| task(vm, observed)?.host.clone())
}

/// The live facts of a run that is not over.
pub fn mapping<'a>(vm: &RecordedVm, observed: &'a Observed) -> Option<&'a observe::Mapping> {
    let report = observed.runs.get(&vm.run.as_ref()?.run)?;
    if matches!(report.phase, Phase::Stopped { .. }) { None } else { report.mapping.as_ref() }
}

/// Every vm that runs, by name.
pub fn mappings(recorded: &Recorded, observed: &Observed, site: &Site) -> Vec<Mapping> {
    let of = |(name, vm): (&VmName, &RecordedVm)| {
        let mapping = mapping(vm, observed)?;
        Some(Mapping {
            name: name.clone(),
            owner: vm.vm.owner.clone(),
            ip: mapping.ip,
            mac: mapping.mac,
            isolated: mapping.isolated,
            gateway_mac: mapping.gateway_mac,
            host: mapping.host.clone(),
            state: state(vm, observed, site),
            vnc: mapping.vnc.clone(),
            tap: mapping.tap.clone(),
            pid: mapping.pid,
            since: mapping.since.into(),
        })
    };
    recorded.vms.iter().filter_map(of).collect()
}
