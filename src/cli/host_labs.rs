//! The labs that `host` serves: those that are named, and the others of the site, with which they share bridges, DHCP
//! and filters. In: folders, and the state where this machine has it. Out: vm groups, and who still needs them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::context::{command, of_known_lab};
use crate::control::{Context, understood};
use crate::exit::Exit;
use crate::host::machine::bridge::runs_on;
use crate::host::machine::setup::OtherLab;
use crate::model::id::{LabName, RunId, SessionName, VmName};
use crate::model::lab::{Desired, Session, VmGroup};
use crate::model::site::{SchedulerSettings, Site};
use crate::observe::{Phase, fold};
use crate::report::Failure;
use crate::run::read_report;
use crate::state::{Recorded, RecordedRun, RunState, StateError, Store};

/// Most vms that are named.
const NAMED_MAX: usize = 5;

/// A lab that was named, with its record.
struct Named {
    context: Context,
    desired: Desired,
    recorded: Recorded,
}

pub(super) struct HostLabs {
    pub(super) site: Site,
    named: Vec<Named>,
    /// Labs of the site that have vms.
    pub(super) others: Vec<OtherLab>,
    /// An execution host of a cluster has no state: nobody here knows whose a run is.
    has_state: bool,
}

impl HostLabs {
    pub(super) fn read(folders: &[PathBuf], site: Option<&Path>) -> Result<Self, Failure> {
        let mut named = Vec::new();
        let (mut others, mut has_state) = (Vec::new(), false);
        for folder in folders {
            let (context, desired) = of_known_lab(site, folder)?;
            named.push(Named { context, desired, recorded: Recorded::nothing() });
        }
        let Some(Named { context, .. }) = named.last() else {
            return Err(Failure::new(Exit::Usage, "no lab is named"));
        };
        let site = context.site.clone();
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
    pub(super) fn groups(&self) -> Vec<VmGroup> {
        ordered(self.named.iter().flat_map(|named| named.desired.vm_groups.values()))
    }

    /// Of every lab of the site: what one of them gets anew, the others keep.
    pub(super) fn all_groups(&self) -> Vec<VmGroup> {
        let others = self.others.iter().flat_map(|other| &other.groups);
        ordered(self.named.iter().flat_map(|named| named.desired.vm_groups.values()).chain(others))
    }

    /// Holds on to where disks are kept; the places that were new and are not in the lab's folder.
    pub(super) fn settle(&self) -> Result<Vec<PathBuf>, Failure> {
        Ok(self.named.iter().filter_map(|named| named.context.settle().transpose()).collect::<Result<_, _>>()?)
    }

    /// What guests or people are in the middle of is not taken from under them.
    pub(super) fn refuse_while_needed(&self, now: jiff::Timestamp) -> Result<(), Failure> {
        let here: BTreeSet<RunId> = self.groups().iter().flat_map(|group| runs_on(&group.bridge)).collect();
        if !self.has_state && !here.is_empty() {
            let runs: Vec<String> = here.iter().map(ToString::to_string).collect();
            let message = "guests run on this host; nothing was taken away";
            let mut failure = Failure::new(Exit::Refused, message).hint("stop them first, from the submit host");
            failure.causes.push(format!("on its bridges: {}", shortened(&runs)));
            return Err(failure);
        }
        for Named { context, desired, recorded } in &self.named {
            let is_here = |run: &RecordedRun| match self.site.scheduler {
                SchedulerSettings::Local { .. } => is_live(run, &self.site),
                SchedulerSettings::GridEngine(_) => here.contains(&run.run),
            };
            let causes = needed_by(&sessions(desired, recorded)?, recorded, &is_here, now);
            if !causes.is_empty() {
                let message = format!("lab {} still needs what `host setup` made; nothing was taken away", desired.lab);
                let destroy = command(context, "destroy");
                let mut failure = Failure::new(Exit::Refused, message)
                    .hint(format!("`labwright vm stop` ends a guest, `{destroy}` the whole lab; then try again"));
                failure.causes = causes;
                return Err(failure);
            }
        }
        Ok(())
    }
}

/// As wanted, and as recorded: an edit closes none.
fn sessions(desired: &Desired, recorded: &Recorded) -> Result<Vec<(String, Session)>, Failure> {
    let recorded = understood(desired.lab.clone(), recorded)?.sessions;
    let named = |(name, session): (&SessionName, &Session)| (name.to_string(), session.clone());
    Ok(desired.sessions.iter().chain(&recorded).map(named).collect())
}

fn needed_by(
    sessions: &[(String, Session)],
    recorded: &Recorded,
    is_here: &dyn Fn(&RecordedRun) -> bool,
    now: jiff::Timestamp,
) -> Vec<String> {
    let running = recorded.vms.iter().filter(|(_, vm)| vm.run.as_ref().is_some_and(is_here));
    let names: Vec<String> = running.map(|(name, _)| VmName::to_string(name)).collect();
    let mut causes = Vec::new();
    if !names.is_empty() {
        causes.push(format!("vms of it run, or are about to: {}", shortened(&names)));
    }
    let is_open = |session: &Session| {
        let (opens, until) = session.window();
        opens <= now && now <= until && session.vms.iter().any(|vm| recorded.vms.contains_key(vm))
    };
    let open = sessions.iter().filter(|(_, session)| is_open(session));
    let open: BTreeSet<String> =
        open.map(|(name, session)| format!("its session {name} is open until {:.0}", session.window().1)).collect();
    causes.extend(open);
    causes
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

fn shortened(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// The state, where this machine has one.
fn store(site: &Site) -> Result<Option<Store>, Failure> {
    match Store::open(&site.state) {
        Err(StateError::Missing { .. }) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn other_labs(store: &mut Store, named: &[Named]) -> Result<Vec<OtherLab>, Failure> {
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
