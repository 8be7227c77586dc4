//! One vm with all that who uses it wants to know: where it stands, what opens its screen, until when it may run, and what they may
//! do with it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::standing::Queue;
use super::vms::of_name;
use super::{Moment, Screen, View, Vm, VmState, mapping};
use crate::apply::passwords;
use crate::control::ControlError;
use crate::files::FileError;
use crate::model::id::{SessionName, VmName};
use crate::model::lab::{Object, Right};
use crate::model::seed::Whose;
use crate::run::{Control, Dropped};
use crate::state::RecordedVm;

/// One vm, for one person.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FullVm {
    #[serde(flatten)]
    pub vm: Vm,
    /// Of one that waits in the queue: how many of the site's are to begin before it, and it.
    pub place: Option<usize>,
    /// What who looks may do with it.
    pub may: Vec<Right>,
    /// Of one that runs, for those who may use it.
    pub screen: Option<Screen>,
    /// Of one with a seed, for its owner: how to log in to its guest.
    #[serde(default)]
    pub login: Option<Login>,
    /// Since when it runs.
    pub since: Option<Moment>,
    /// The session that has it now, or next.
    pub session: Option<SessionName>,
    /// When its time is over; `None`: nobody has said so.
    pub until: Option<Moment>,
    /// Frames that the filter of one that runs has dropped, for those who may use it: at least so many. `None`: none that anybody
    /// counted.
    #[serde(default)]
    pub dropped: Option<Dropped>,
    /// Whether the site's filter counts what it drops; ebtables does not.
    #[serde(default = "is_counted")]
    pub counts_dropped: bool,
    /// How many look at the screen of one that runs, for those who may use it.
    #[serde(default)]
    pub viewers: Option<u32>,
    /// It runs, and is in its first run: a restart may be all that it needs.
    #[serde(default)]
    pub never_restarted: bool,
}

/// The owner's account in a guest.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Login {
    /// The account's name.
    pub user: String,
    /// As it was drawn for the vm's disk; `None`: it has not booted yet, or the one who looks cannot read it.
    pub password: Option<String>,
}

/// As all did that said nothing of it.
fn is_counted() -> bool {
    true
}

impl View<'_> {
    /// One of those that who looks may know of. That they are told what opens its screen is written down.
    pub fn full_vm(&self, name: &VmName) -> Result<FullVm, ControlError> {
        self.require_vm(name)?;
        let known = &self.recorded.vms[name];
        let observed = self.observed()?;
        let vm = of_name(name, known, &self.recorded, &observed, &self.context.site);
        let may = self.rights().on(&Object::Vm(name.clone()));
        let is_theirs_to_use = may.contains(&Right::Run) && !matches!(vm.state, VmState::Unknown);
        let running = mapping(known, &observed);
        let screen = running.filter(|_| is_theirs_to_use).map(|mapping| self.screen(name, known, mapping, vm.state));
        let screen = screen.transpose()?;
        let login = self.login(name, known)?;
        if screen.is_some() || login.as_ref().is_some_and(|login| login.password.is_some()) {
            self.audit_look([name])?;
        }
        let report = known.run.as_ref().filter(|_| running.is_some() && is_theirs_to_use);
        let report = report.and_then(|run| observed.runs.get(&run.run));
        let (dropped, viewers) = (report.and_then(|report| report.dropped), report.map(|report| report.viewers));
        let (session, closes) = self.session_of(name).unzip();
        Ok(FullVm {
            place: Queue::of(&observed).place(known, &observed),
            may,
            screen,
            login,
            since: running.map(|mapping| mapping.since.into()),
            session,
            until: self.deadline(known)?.or(closes.flatten()).map(Moment::from),
            dropped,
            counts_dropped: self.context.site.network.filter.counts_dropped(),
            viewers,
            never_restarted: running.is_some() && known.generation == 1,
            vm,
        })
    }

    /// Whose vm it is, and who may do everything, is told; those who may only use it are not.
    fn login(&self, name: &VmName, known: &RecordedVm) -> Result<Option<Login>, ControlError> {
        let RecordedVm { vm, ip, disks, .. } = known;
        let rights = self.rights();
        let Some(seed) = vm.seed.as_ref().filter(|_| rights.is_own(&vm.owner) || rights.are_all()) else {
            return Ok(None);
        };
        let lab = &self.desired.lab;
        let instance = self.recorded.instance(lab, name, disks);
        let password = match passwords::known(&self.context.site.state, lab, &instance) {
            Ok(known) => known.map(|password| password.text),
            Err(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => None,
            Err(FileError { path: file, source, .. }) => {
                return Err(ControlError::Password { vm: name.clone(), file, source });
            }
        };
        let disk = seed.disk(Whose { vm: name, owner: &vm.owner, ip: *ip }, instance, |_| Vec::new());
        Ok(disk.users.into_iter().next().map(|user| Login { user: user.name, password }))
    }

    /// Those of these vms that run, and are in their first run.
    pub fn never_restarted(&self, vms: BTreeSet<VmName>) -> Result<Vec<VmName>, ControlError> {
        let observed = self.observed()?;
        let is_first = |name: &VmName| {
            let known = self.recorded.vms.get(name);
            known.is_some_and(|known| known.generation == 1 && mapping(known, &observed).is_some())
        };
        Ok(vms.into_iter().filter(is_first).collect())
    }

    /// The session that has a vm now, or else the next one, and when it is over for the vm's owner.
    fn session_of(&self, name: &VmName) -> Option<(SessionName, Option<jiff::Timestamp>)> {
        let now = jiff::Timestamp::now();
        let with_it = self.desired.sessions.iter().filter(|(_, session)| session.vms.contains(name));
        let ahead = with_it.filter(|(_, session)| session.window().1 >= now);
        let (session, next) = ahead.min_by_key(|(_, session)| session.opens())?;
        let owner = &self.desired.vms.get(name)?.owner;
        Some((session.clone(), next.end_of(owner)))
    }

    /// As its starter was told.
    fn deadline(&self, known: &RecordedVm) -> Result<Option<jiff::Timestamp>, ControlError> {
        let Some(run) = known.run.as_ref().filter(|run| !run.is_over()) else { return Ok(None) };
        let folder = self.context.site.storage.runs.join(run.run.to_string());
        Ok(Control::read(&folder)?.and_then(|control| control.end()))
    }
}
