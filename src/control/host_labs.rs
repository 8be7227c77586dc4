//! The labs that a host serves: those that are named, and the others of the site, with which they share bridges, DHCP and
//! filters. In: labs that were opened, and the state where this machine has it. Out: vm groups, and who still needs them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;

use super::{Context, ControlError, understood};
use crate::host::machine::bridge::runs_on;
use crate::host::machine::setup::OtherLab;
use crate::model::id::{LabName, RunId, SessionName, VmName};
use crate::model::lab::{Desired, Session, VmGroup};
use crate::model::site::Site;
use crate::observe::{Phase, fold};
use crate::run::read_report;
use crate::state::{Recorded, RecordedRun, RunState, StateError, Store};

/// A lab that was named, with its record.
struct Named {
    context: Context,
    desired: Desired,
    recorded: Recorded,
}

/// Why nothing is taken away from a host.
#[derive(Debug, thiserror::Error)]
pub enum InUse {
    /// Nobody here knows whose they are.
    #[error("guests run on this host; nothing was taken away")]
    Guests { runs: BTreeSet<RunId> },
    #[error("lab {lab} still needs what `host setup` made; nothing was taken away")]
    Lab {
        lab: LabName,
        folder: PathBuf,
        site: Option<PathBuf>,
        /// Vms of it that run, or are about to.
        vms: Vec<VmName>,
        /// Sessions that are open, and until when.
        sessions: BTreeSet<(String, Timestamp)>,
    },
}

pub struct HostLabs {
    pub site: Site,
    named: Vec<Named>,
    /// Labs of the site that have vms.
    pub others: Vec<OtherLab>,
    /// An execution host of a cluster has no state: nobody here knows whose a run is.
    has_state: bool,
}

impl HostLabs {
    /// All of one site.
    pub fn read(labs: Vec<(Context, Desired)>) -> Result<Self, ControlError> {
        let named = |(context, desired)| Named { context, desired, recorded: Recorded::nothing() };
        let mut named: Vec<Named> = labs.into_iter().map(named).collect();
        let Some(site) = named.last().map(|named| named.context.site.clone()) else { return Err(ControlError::NoLab) };
        let (mut others, mut has_state) = (Vec::new(), false);
        if let Some(mut store) = store(&site)? {
            has_state = true;
            for Named { desired, recorded, .. } in &mut named {
                *recorded = store.recorded(&desired.lab)?;
            }
            others = other_labs(&mut store, &named)?;
        }
        Ok(Self { site, named, others, has_state })
    }

    /// Of the labs that were named.
    pub fn groups(&self) -> Vec<VmGroup> {
        ordered(self.named.iter().flat_map(|named| named.desired.vm_groups.values()))
    }

    /// Of every lab of the site: what one of them gets anew, the others keep.
    pub fn all_groups(&self) -> Vec<VmGroup> {
        let others = self.others.iter().flat_map(|other| &other.groups);
        ordered(self.named.iter().flat_map(|named| named.desired.vm_groups.values()).chain(others))
    }

    /// Holds on to where disks are kept; the places that were new and are not in the lab's folder.
    pub fn settle(&self) -> Result<Vec<PathBuf>, ControlError> {
        self.named.iter().filter_map(|named| named.context.settle().transpose()).collect()
    }

    /// What guests or people are in the middle of is not taken from under them.
    pub fn refuse_while_needed(&self, now: Timestamp) -> Result<(), ControlError> {
        let here: BTreeSet<RunId> = self.groups().iter().flat_map(|group| runs_on(&group.bridge)).collect();
        if !self.has_state && !here.is_empty() {
            return Err(InUse::Guests { runs: here }.into());
        }
        for Named { context, desired, recorded } in &self.named {
            let is_here = |run: &RecordedRun| match self.site.scheduler.is_this_machine() {
                true => is_live(run, &self.site),
                false => here.contains(&run.run),
            };
            let running = recorded.vms.iter().filter(|(_, vm)| vm.run.as_ref().is_some_and(is_here));
            let vms: Vec<VmName> = running.map(|(name, _)| name.clone()).collect();
            let sessions = open_sessions(desired, recorded, now)?;
            if !vms.is_empty() || !sessions.is_empty() {
                let (folder, site) = (context.lab_folder.clone(), context.site.file.clone());
                return Err(InUse::Lab { lab: desired.lab.clone(), folder, site, vms, sessions }.into());
            }
        }
        Ok(())
    }
}

/// As wanted, and as recorded: an edit closes none.
fn open_sessions(
    desired: &Desired,
    recorded: &Recorded,
    now: Timestamp,
) -> Result<BTreeSet<(String, Timestamp)>, ControlError> {
    let as_recorded = understood(desired.lab.clone(), recorded)?.sessions;
    let open = |(name, session): (&SessionName, &Session)| {
        let has_vms = session.vms.iter().any(|vm| recorded.vms.contains_key(vm));
        (session.is_open(now) && has_vms).then(|| (name.to_string(), session.window().1))
    };
    Ok(desired.sessions.iter().chain(&as_recorded).filter_map(open).collect())
}

/// Where jobs are this machine's own. One that was killed is over when an apply has recorded it.
fn is_live(run: &RecordedRun, site: &Site) -> bool {
    if matches!(run.state, RunState::Ended { .. }) {
        return false;
    }
    // A report that cannot be read tells of no end.
    let report = read_report(&site.storage.runs.join(run.run.to_string())).ok().and_then(|records| fold(&records));
    !report.is_some_and(|report| matches!(report.phase, Phase::Stopped { .. }))
}

/// The state, where this machine has one.
fn store(site: &Site) -> Result<Option<Store>, ControlError> {
    match Store::open(&site.state) {
        Err(StateError::Missing { .. }) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn other_labs(store: &mut Store, named: &[Named]) -> Result<Vec<OtherLab>, ControlError> {
    let is_named = |lab: &LabName| named.iter().any(|named| named.desired.lab == *lab);
    let mut others = Vec::new();
    for (lab, _) in store.labs()?.into_iter().filter(|(lab, _)| !is_named(lab)) {
        let recorded = store.recorded(&lab)?;
        if !recorded.vms.is_empty() {
            let groups = understood(lab.clone(), &recorded)?.vm_groups.into_values().collect();
            others.push(OtherLab { lab, groups });
        }
    }
    Ok(others)
}

/// In one order, whichever lab was named first: what is set up for them is then the same.
fn ordered<'a>(groups: impl Iterator<Item = &'a VmGroup>) -> Vec<VmGroup> {
    let mut groups: Vec<VmGroup> = groups.cloned().collect();
    groups.sort_by(|a, b| (a.subnet, a.range.first, &a.bridge).cmp(&(b.subnet, b.range.first, &b.bridge)));
    groups.dedup();
    groups
}
