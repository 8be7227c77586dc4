//! `labwright get vms` and `get mappings`: each vm as recorded and seen, and in one word where it stands.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{Pick, yes_no};
use crate::model::claim::{Claim, ClaimBody, ClaimedPower};
use crate::model::id::VmName;
use crate::model::job::{Task, TaskState};
use crate::model::lab::{PowerState, VmSource};
use crate::model::site::Site;
use crate::observe::{Mapping, Observed, Phase};
use crate::plan::{Life, life};
use crate::report::table::Row;
use crate::report::{one_line, times};
use crate::run::{PAUSED_ON_REQUEST, StopReason};
use crate::state::{Recorded, RecordedVm};

/// One vm, as recorded and seen.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct VmRow {
    pub(in crate::cli) name: String,
    owner: String,
    /// The template, or `own disks`.
    from: String,
    ip: String,
    mac: String,
    wanted: String,
    /// Who wants it so by command, where its manifest leaves it to people.
    claim: Option<String>,
    pub(in crate::cli) state: String,
    host: Option<String>,
    family: String,
    vm_group: String,
    memory_mib: u32,
    cpus: u32,
    isolated: bool,
    /// The template's version that its disks lie over.
    version: Option<u32>,
    description: Option<String>,
    /// Why it is not what was wanted, in one line.
    pub(in crate::cli) why: Option<String>,
}

impl Row for VmRow {
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "owner",
        "from",
        "ip",
        "wanted",
        "state",
        "host",
        "why",
        "claim",
        "family",
        "vm_group",
        "mac",
        "memory",
        "cpus",
        "isolated",
        "version",
        "description",
    ];
    const WIDE: &'static [&'static str] =
        &["why", "claim", "family", "vm_group", "mac", "memory", "cpus", "isolated", "version", "description"];
    const YIELDING: &'static [&'static str] = &["from", "wanted", "owner"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.owner.clone(),
            self.from.clone(),
            self.ip.clone(),
            self.wanted.clone(),
            self.state.clone(),
            self.host.clone().unwrap_or_default(),
            self.why.clone().unwrap_or_default(),
            self.claim.clone().unwrap_or_default(),
            self.family.clone(),
            self.vm_group.clone(),
            self.mac.clone(),
            format!("{} MiB", self.memory_mib),
            self.cpus.to_string(),
            yes_no(self.isolated),
            self.version.map(|version| version.to_string()).unwrap_or_default(),
            self.description.clone().unwrap_or_default(),
        ]
    }
}

impl Pick for VmRow {
    fn key(&self) -> &str {
        &self.name
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.owner)
    }
}

pub(in crate::cli) fn vm_rows(recorded: &Recorded, observed: &Observed, site: &Site) -> Vec<VmRow> {
    let claims = power_claims(recorded);
    let row = |(name, vm): (&VmName, &RecordedVm)| {
        // What a manifest says counts more.
        let claim = claims.get(name.as_str()).filter(|_| vm.vm.state == PowerState::OnDemand).copied();
        vm_row(name.to_string(), vm, claim, observed, site)
    };
    recorded.vms.iter().map(row).collect()
}

/// What people want of vms' power, by vm.
fn power_claims(recorded: &Recorded) -> BTreeMap<&str, (&Claim, ClaimedPower)> {
    let of_power = recorded.claims.iter().filter_map(|claim| match &claim.body {
        ClaimBody::Power(power) => Some((claim.name.as_str(), (claim, power.wanted))),
        _ => None,
    });
    of_power.collect()
}

fn vm_row(
    name: String,
    vm: &RecordedVm,
    claim: Option<(&Claim, ClaimedPower)>,
    observed: &Observed,
    site: &Site,
) -> VmRow {
    VmRow {
        name,
        owner: vm.vm.owner.to_string(),
        from: match &vm.vm.source {
            VmSource::Derive(template) | VmSource::Clone(template) => template.to_string(),
            VmSource::Disks(_) => "own disks".into(),
        },
        ip: vm.ip.to_string(),
        mac: vm.mac.to_string(),
        wanted: claim.map_or_else(|| word(&vm.vm.state), |(_, wanted)| word(&wanted)),
        claim: claim.map(|(claim, _)| format!("{} by {}", claim.id, claim.by)),
        state: run_state(vm, observed, site).into(),
        host: host(vm, observed),
        family: vm.vm.family.to_string(),
        vm_group: vm.vm.vm_group.to_string(),
        memory_mib: vm.vm.hardware.memory_mib,
        cpus: vm.vm.hardware.cpus,
        isolated: vm.vm.isolated,
        version: vm.version,
        description: vm.vm.description.clone(),
        why: why(vm, observed, site),
    }
}

/// The word that YAML and JSON use for a value.
fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A vm by its name alone.
#[derive(Debug, Serialize)]
pub(super) struct NameRow {
    name: String,
    owner: String,
}

impl Row for NameRow {
    const COLUMNS: &'static [&'static str] = &["name"];
    fn cells(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Pick for NameRow {
    fn key(&self) -> &str {
        &self.name
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.owner)
    }
}

pub(super) fn name_rows(recorded: &Recorded) -> Vec<NameRow> {
    let row = |(name, vm): (&crate::model::id::VmName, &RecordedVm)| NameRow {
        name: name.to_string(),
        owner: vm.vm.owner.to_string(),
    };
    recorded.vms.iter().map(row).collect()
}

/// One word for where a vm's run stands. Of a host that does not answer, what its starter last said counts for nothing.
pub(in crate::cli) fn run_state(vm: &RecordedVm, observed: &Observed, site: &Site) -> &'static str {
    match life(vm, observed, site) {
        Life::Unknown { .. } => return "unknown",
        Life::Off { news: true, reason: None } => return "gone",
        Life::Off { .. } => return "off",
        Life::Live { .. } | Life::Lost { .. } => {}
    }
    let Some(run) = &vm.run else { return "off" };
    // A starter that stands still with its guest cannot say so.
    if task(vm, observed).is_some_and(|task| task.state == TaskState::Suspended) {
        return "suspended";
    }
    match observed.runs.get(&run.run).map(|report| &report.phase) {
        Some(Phase::Starting) => "starting",
        Some(Phase::Running) => "booting",
        Some(Phase::Ready) => "ready",
        Some(Phase::Paused { reason }) if reason == PAUSED_ON_REQUEST => "suspended",
        Some(Phase::Paused { .. }) => "paused",
        Some(Phase::CutOff { .. }) => "cut off",
        Some(Phase::Stopping) => "stopping",
        Some(Phase::Stopped { .. }) => "off",
        // Where the starter has said nothing yet, the queue does.
        None => match task(vm, observed).map(|task| &task.state) {
            None | Some(TaskState::Pending { .. }) => "queued",
            Some(TaskState::Running) => "starting",
            Some(other) => other.word(),
        },
    }
}

/// Why a vm is not what was wanted of it: off though it should run, waiting, standing still, out of sight.
fn why(vm: &RecordedVm, observed: &Observed, site: &Site) -> Option<String> {
    let text = match life(vm, observed, site) {
        life @ Life::Unknown { .. } => life.unknown_words(site)?.0,
        Life::Off { reason, news } => {
            let reported = vm.run.as_ref().and_then(|run| observed.runs.get(&run.run)?.phase.end());
            let words = reported.or_else(|| Some(reason.as_ref()?.to_string()));
            is_told(vm, reason.as_ref(), news)
                .then(|| words.unwrap_or_else(|| "its run ended without a word".into()))?
        }
        Life::Live { .. } | Life::Lost { .. } => match &observed.runs.get(&vm.run.as_ref()?.run).map(|r| &r.phase) {
            Some(Phase::Paused { reason }) if reason != PAUSED_ON_REQUEST => reason.clone(),
            Some(Phase::CutOff { reason }) => reason.clone(),
            Some(_) => return None,
            None => task(vm, observed)?.state.reason()?,
        },
    };
    Some(one_line(&text))
}

/// Whether people want to know why a vm is off. What nobody wrote `running` for was started by somebody, who wants to know
/// what went wrong, and nothing else.
fn is_told(vm: &RecordedVm, reason: Option<&StopReason>, news: bool) -> bool {
    use StopReason::{Asked, Deadline, Guest, Superseded};
    let has_failed = match reason {
        Some(Guest | Asked | Deadline | Superseded) => false,
        Some(_) => true,
        None => news,
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
pub(in crate::cli) fn mapping<'a>(vm: &RecordedVm, observed: &'a Observed) -> Option<&'a Mapping> {
    let report = observed.runs.get(&vm.run.as_ref()?.run)?;
    if matches!(report.phase, Phase::Stopped { .. }) { None } else { report.mapping.as_ref() }
}

/// One running vm: the paper's Mapping table (section V.A).
#[derive(Debug, Serialize)]
pub(in crate::cli) struct MappingRow {
    name: String,
    owner: String,
    ip: String,
    mac: String,
    isolated: bool,
    /// Where the guest's filter goes by it.
    gateway_mac: Option<String>,
    host: String,
    state: &'static str,
    vnc: String,
    tap: String,
    pid: u32,
    #[serde(serialize_with = "times::serialize")]
    since: Timestamp,
}

impl Row for MappingRow {
    const COLUMNS: &'static [&'static str] =
        &["name", "owner", "ip", "mac", "host", "state", "vnc", "isolated", "gateway_mac", "since", "tap", "pid"];
    const WIDE: &'static [&'static str] = &["tap", "pid"];
    const YIELDING: &'static [&'static str] = &["gateway_mac", "since", "isolated", "mac", "owner"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.owner.clone(),
            self.ip.clone(),
            self.mac.clone(),
            self.host.clone(),
            self.state.into(),
            self.vnc.clone(),
            yes_no(self.isolated),
            self.gateway_mac.clone().unwrap_or_default(),
            times::local(self.since),
            self.tap.clone(),
            self.pid.to_string(),
        ]
    }
}

impl Pick for MappingRow {
    fn key(&self) -> &str {
        &self.name
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.owner)
    }
}

impl MappingRow {
    pub(in crate::cli) fn is_of(&self, vm: &crate::model::id::VmName) -> bool {
        self.name == vm.as_str()
    }
}

pub(in crate::cli) fn mapping_rows(recorded: &Recorded, observed: &Observed, site: &Site) -> Vec<MappingRow> {
    recorded
        .vms
        .iter()
        .filter_map(|(name, vm)| {
            let mapping = mapping(vm, observed)?;
            Some(MappingRow {
                name: name.to_string(),
                owner: vm.vm.owner.to_string(),
                ip: mapping.ip.to_string(),
                mac: mapping.mac.to_string(),
                isolated: mapping.isolated,
                gateway_mac: mapping.gateway_mac.map(|mac| mac.to_string()),
                host: mapping.host.clone(),
                state: run_state(vm, observed, site),
                vnc: mapping.vnc.clone(),
                tap: mapping.tap.clone(),
                pid: mapping.pid,
                since: mapping.since,
            })
        })
        .collect()
}
