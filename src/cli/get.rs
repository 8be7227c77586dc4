//! `labwright get KIND`: listings of what is recorded and seen.

use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use super::context::Context;
use super::{Ended, LabOption, jobs};
use crate::address::Kind;
use crate::exit::Exit;
use crate::id::LabName;
use crate::observe::{Observed, Phase};
use crate::plan::{Life, life};
use crate::report::table::{Format, Row, render};
use crate::report::{Failure, Ui};
use crate::resolve::VmSource;
use crate::scheduler::{Task, TaskState};
use crate::site::Site;
use crate::state::{AsideDisk, Recorded, RecordedVm};

/// List what there is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright get vms
  labwright get mappings -o json      # host, IP, MAC, vnc of every running vm
  labwright get users -o csv")]
pub(super) struct Arguments {
    kind: Listing,

    #[command(flatten)]
    lab: LabOption,

    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Listing {
    Vms,
    Mappings,
    Disks,
    /// Disks that were set aside.
    Aside,
    /// Jobs of this lab, in the queue and over.
    Jobs,
    /// Run time and memory-hours of each user.
    Usage,
    Users,
    UserGroups,
    VmGroups,
    Templates,
    Permissions,
    Sessions,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let recorded = context.recorded(&desired.lab)?;
    let objects = |kind| object_rows(&recorded, kind);
    let format = arguments.output;
    let text = match arguments.kind {
        Listing::Vms => render(&vm_rows(&recorded, &context.observe(&desired, &recorded)?, &context.site), format),
        Listing::Mappings => {
            render(&mapping_rows(&recorded, &context.observe(&desired, &recorded)?, &context.site), format)
        }
        Listing::Disks => render(&disk_rows(&recorded), format),
        Listing::Aside => render(&aside_rows(&context, &desired.lab)?, format),
        Listing::Jobs => {
            let observed = context.observe(&desired, &recorded)?;
            render(&jobs::job_rows(&context, &desired.lab, &recorded, &observed, ui)?, format)
        }
        Listing::Usage => render(&jobs::usage_rows(&context, &desired.lab, &recorded, ui)?, format),
        Listing::Users => render(&objects(Kind::User), format),
        Listing::UserGroups => render(&objects(Kind::UserGroup), format),
        Listing::VmGroups => render(&objects(Kind::VmGroup), format),
        Listing::Templates => render(&objects(Kind::Template), format),
        Listing::Permissions => render(&objects(Kind::Permission), format),
        Listing::Sessions => render(&objects(Kind::Session), format),
    };
    ui.data(&text);
    Ok(Exit::Done)
}

/// One vm, as recorded and seen.
#[derive(Debug, Serialize)]
pub(super) struct VmRow {
    name: String,
    owner: String,
    from: String,
    ip: String,
    mac: String,
    wanted: String,
    pub(super) state: String,
    host: Option<String>,
}

impl Row for VmRow {
    const COLUMNS: &'static [&'static str] = &["name", "owner", "from", "ip", "wanted", "state", "host"];
    fn cells(&self) -> Vec<String> {
        let cell = |text: &String| text.clone();
        let host = self.host.clone().unwrap_or_default();
        vec![
            cell(&self.name),
            cell(&self.owner),
            cell(&self.from),
            cell(&self.ip),
            cell(&self.wanted),
            cell(&self.state),
            host,
        ]
    }
}

pub(super) fn vm_rows(recorded: &Recorded, observed: &Observed, site: &Site) -> Vec<VmRow> {
    recorded
        .vms
        .iter()
        .map(|(name, vm)| VmRow {
            name: name.to_string(),
            owner: vm.vm.owner.to_string(),
            from: match &vm.vm.source {
                VmSource::Derive(template) | VmSource::Clone(template) => template.to_string(),
                VmSource::Disks(_) => "own disks".into(),
            },
            ip: vm.ip.to_string(),
            mac: vm.mac.to_string(),
            wanted: word(&vm.vm.state),
            state: run_state(vm, observed, site).into(),
            host: host(vm, observed),
        })
        .collect()
}

/// The word that YAML and JSON use for a value.
fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// One word for where a vm's run stands. Of a host that does not answer, what its starter last said counts for nothing.
fn run_state(vm: &RecordedVm, observed: &Observed, site: &Site) -> &'static str {
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
        Some(Phase::Paused { .. }) => "paused",
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

fn task<'a>(vm: &RecordedVm, observed: &'a Observed) -> Option<&'a Task> {
    let run = vm.run.as_ref()?;
    observed.tasks.get(&(run.batch.clone(), run.task))
}

/// The host of a run that is not over, from its starter or from the queue.
fn host(vm: &RecordedVm, observed: &Observed) -> Option<String> {
    let reported = mapping(vm, observed).map(|mapping| mapping.host.clone());
    reported.or_else(|| task(vm, observed)?.host.clone())
}

fn mapping<'a>(vm: &RecordedVm, observed: &'a Observed) -> Option<&'a crate::observe::Mapping> {
    let report = observed.runs.get(&vm.run.as_ref()?.run)?;
    if matches!(report.phase, Phase::Stopped { .. }) { None } else { report.mapping.as_ref() }
}

/// One running vm: the paper's Mapping table (section V.A).
#[derive(Debug, Serialize)]
pub(super) struct MappingRow {
    name: String,
    owner: String,
    ip: String,
    mac: String,
    isolated: bool,
    host: String,
    state: &'static str,
    vnc: String,
    tap: String,
    pid: u32,
    since: jiff::Timestamp,
}

impl Row for MappingRow {
    const COLUMNS: &'static [&'static str] =
        &["name", "owner", "ip", "mac", "host", "state", "vnc", "isolated", "since"];
    fn cells(&self) -> Vec<String> {
        let text = |text: &String| text.clone();
        let isolated = if self.isolated { "yes" } else { "no" };
        let since = format!("{:.0}", self.since);
        vec![
            text(&self.name),
            text(&self.owner),
            text(&self.ip),
            text(&self.mac),
            text(&self.host),
            self.state.into(),
            text(&self.vnc),
            isolated.into(),
            since,
        ]
    }
}

pub(super) fn mapping_rows(recorded: &Recorded, observed: &Observed, site: &Site) -> Vec<MappingRow> {
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

#[derive(Debug, Serialize)]
struct DiskRow {
    vm: String,
    slot: u32,
    path: String,
    base: Option<String>,
}

impl Row for DiskRow {
    const COLUMNS: &'static [&'static str] = &["vm", "slot", "path", "base"];
    fn cells(&self) -> Vec<String> {
        vec![self.vm.clone(), self.slot.to_string(), self.path.clone(), self.base.clone().unwrap_or_default()]
    }
}

fn disk_rows(recorded: &Recorded) -> Vec<DiskRow> {
    let disks = recorded.vms.iter().flat_map(|(name, vm)| vm.disks.iter().map(move |disk| (name, disk)));
    disks
        .map(|(vm, disk)| DiskRow {
            vm: vm.to_string(),
            slot: disk.slot,
            path: disk.path.display().to_string(),
            base: disk.base.as_ref().map(|base| base.display().to_string()),
        })
        .collect()
}

/// A user, group, template, permission or session as recorded.
#[derive(Debug, Serialize)]
struct ObjectRow {
    name: String,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    value: serde_json::Value,
}

impl Row for ObjectRow {
    const COLUMNS: &'static [&'static str] = &["name", "value"];
    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.value.to_string()]
    }
}

fn object_rows(recorded: &Recorded, kind: Kind) -> Vec<ObjectRow> {
    let of_kind = recorded.objects.iter().filter(|(address, _)| address.kind == kind);
    of_kind
        .map(|(address, body)| ObjectRow {
            name: address.name.clone(),
            // A body that is no JSON is shown as it stands.
            value: serde_json::from_str(body).unwrap_or_else(|_| body.clone().into()),
        })
        .collect()
}

/// A disk that was set aside, and for how long it has been.
#[derive(Debug, Serialize)]
struct AsideRow {
    vm: String,
    slot: u32,
    since: String,
    age_days: i64,
    path: String,
    /// Where it was.
    was: String,
    base: Option<String>,
}

impl Row for AsideRow {
    const COLUMNS: &'static [&'static str] = &["vm", "slot", "age", "since", "path", "base"];
    fn cells(&self) -> Vec<String> {
        let age = format!("{} d", self.age_days);
        let base = self.base.clone().unwrap_or_default();
        // To the second, as in every listing: a fraction has as many digits as it needs, and rows would not be of one width.
        let since = self.since.parse().map_or_else(|_| self.since.clone(), |at: jiff::Timestamp| format!("{at:.0}"));
        vec![self.vm.clone(), self.slot.to_string(), age, since, self.path.clone(), base]
    }
}

fn aside_rows(context: &Context, lab: &LabName) -> Result<Vec<AsideRow>, Failure> {
    const DAY_SECONDS: i64 = 24 * 60 * 60;
    let Some(store) = context.store_if_any()? else { return Ok(Vec::new()) };
    let now = jiff::Timestamp::now().as_second();
    let row = |disk: AsideDisk| {
        // A time that nobody of us wrote is shown as it stands, and counts as now.
        let since = disk.since.parse::<jiff::Timestamp>().map_or(now, jiff::Timestamp::as_second);
        AsideRow {
            vm: disk.vm,
            slot: disk.slot,
            age_days: (now - since) / DAY_SECONDS,
            since: disk.since,
            path: disk.path.display().to_string(),
            was: disk.was.display().to_string(),
            base: disk.base.map(|base| base.display().to_string()),
        }
    };
    Ok(store.aside(lab)?.into_iter().map(row).collect())
}
