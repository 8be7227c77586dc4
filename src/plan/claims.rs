//! Power that people asked for by command. A claim counts for vms that their manifest leaves to people, and ends with the
//! guest's own power-off, a written `state:`, or the vm's leaving; one that a vm shall stand still ends as soon as it does.
//!
//! ```text
//! vm start ──▶ running ──guest powers off──▶ ended
//!                 │ dies: started again
//!                 ▼
//! vm stop ───▶ stopped ──it is off──▶ ended
//! ```

use super::power::Decision;
use super::vms::{Steps, Work};
use super::{Ground, Leaves, Planner, Reason, Wish};
use crate::model::address::Address;
use crate::model::claim::{Claim, ClaimBody, ClaimedPower, GivenAs, PowerWish};
use crate::model::id::VmName;
use crate::model::lab::{Object, PowerState, Vm};
use crate::observe::Life;
use crate::run::StopReason;
use crate::state::{Entry, RecordedVm};

impl<'a> Planner<'a> {
    /// The claim on a vm's power, by the name under which it is recorded, whether it still counts or not.
    pub(super) fn power_claim(&self, known_as: &VmName) -> Option<&'a PowerWish> {
        self.inputs.desired.power.get(known_as)
    }

    /// What is asked of an `on_demand` vm by its start becomes a claim, unless one like it stands.
    fn claim_start(&mut self, steps: &mut Steps, work: &Work<'_>, starts: bool) -> bool {
        let is_asked = matches!(self.wish(work.name), Some(Wish::Start | Wish::Restart));
        let stands = work.claim.is_some_and(|claim| claim.wanted == ClaimedPower::Running);
        // One that may come again is written down anew: a second restart would be one too many.
        let may_come_again = self.wish(work.name) == Some(Wish::Restart) && self.key(work.name).is_some();
        if !is_asked || (stands && !may_come_again) || work.vm.state != PowerState::OnDemand {
            return false;
        }
        let generation = work.known.generation + u64::from(starts);
        self.claim_power(steps, work.name, ClaimedPower::Running, generation);
        true
    }

    /// What a plan does about the claims on a vm's power, and why.
    pub(super) fn claims_of(&mut self, steps: &mut Steps, work: &Work<'_>, decision: &Decision) -> Option<Reason> {
        if self.claim_start(steps, work, decision.start) {
            return (!decision.start).then(|| Reason::WantedToRun { by: self.asker(work.name).to_owned() });
        }
        let why = work.claim_ends?;
        self.end_claim(steps, work.name, why);
        Some(Reason::ClaimEnds { why: why.to_owned() })
    }

    /// Whether a vm that was never there is started, by its manifest or for somebody; with the reason for the latter.
    pub(super) fn first_power(&mut self, steps: &mut Steps, name: &VmName, vm: &Vm) -> (bool, Option<Reason>) {
        let is_free = vm.state == PowerState::OnDemand;
        let claim = self.power_claim(name);
        let stands = claim.filter(|claim| is_free && claim.wanted == ClaimedPower::Running);
        let asked = match self.wish(name) {
            Some(Wish::Start | Wish::Restart) => Some(true),
            Some(Wish::Stop) => Some(false),
            Some(Wish::Reimage | Wish::PutBack) | None => None,
        };
        if asked == Some(true) && is_free && stands.is_none() {
            self.claim_power(steps, name, ClaimedPower::Running, 1);
        } else if claim.is_some() && (stands.is_none() || asked == Some(false)) {
            let why = if is_free { "it is off" } else { "its manifest says what it shall be" };
            self.end_claim(steps, name, why);
        }
        match (asked, stands) {
            (Some(asked), _) => (asked, None),
            (None, Some(claim)) => (true, Some(reason(claim))),
            (None, None) => {
                let (state, session) = self.state_now(name, vm);
                (state == PowerState::Running, session)
            }
        }
    }

    pub(super) fn claim_power(&mut self, steps: &mut Steps, vm: &VmName, wanted: ClaimedPower, generation: u64) {
        let (by, key) = (self.asker(vm).to_owned(), self.key(vm));
        self.step(steps, Entry::ClaimPower { vm: vm.clone(), wanted, generation, by, key });
    }

    /// Who asks something of a vm.
    pub(super) fn asker(&self, vm: &VmName) -> &'a str {
        self.inputs.asks.get(vm).and_then(|ask| ask.by.as_deref()).unwrap_or(self.inputs.by)
    }

    fn key(&self, vm: &VmName) -> Option<String> {
        self.inputs.asks.get(vm).and_then(|ask| ask.key.clone())
    }

    /// After a stop that somebody asked for, which was cut short then.
    pub(super) fn end_stop_claim(&mut self, steps: &mut Steps, work: &Work<'_>) {
        if work.claim.is_some_and(|claim| claim.wanted == ClaimedPower::Stopped) && self.wish(work.name).is_none() {
            self.end_claim(steps, work.name, "it is off");
        }
    }

    pub(super) fn end_claim(&mut self, steps: &mut Steps, vm: &VmName, why: &str) {
        self.step(steps, Entry::EndPowerClaim { vm: vm.clone(), why: why.to_owned() });
    }

    /// The claim by which somebody made a vm, for as long as it stands.
    pub(super) fn made_by_command(&self, name: &VmName) -> Option<&'a Claim> {
        name.owner()?;
        let is_this = |claim: &&Claim| claim.name == name.as_str() && matches!(claim.body, ClaimBody::Vm(_));
        self.inputs.recorded.claims.iter().find(is_this)
    }

    /// What its owner let others do ends with a vm: one that comes under its name is another.
    pub(super) fn end_grants(&mut self, steps: &mut Steps, name: &VmName) {
        let inputs = self.inputs;
        let is_on_it = |claim: &&Claim| match &claim.body {
            ClaimBody::Grant(grant) => {
                grant.given_as == GivenAs::Owner && matches!(&grant.permission.on, Object::Vm(vm) if vm == name)
            }
            _ => false,
        };
        for grant in inputs.recorded.claims.iter().filter(is_on_it) {
            let why = "its vm left the lab".to_owned();
            self.step(steps, Entry::EndClaim { vm: name.clone(), id: grant.id, why });
        }
    }

    /// What a person made by command does not leave with an edit of the manifest that nobody meant for it.
    pub(super) fn may_lose(&mut self, name: &VmName, made: Option<&Claim>) -> bool {
        let address = Address::vm(name);
        let Some(Claim { id, by, at, .. }) = made.filter(|_| !self.allowed(&address)) else { return true };
        let leaves = match name.owner().filter(|owner| !self.inputs.desired.users.contains_key(*owner)) {
            _ if self.inputs.desired.is_nothing() => Leaves::WithItsLab,
            Some(owner) => Leaves::OwnerLeft { owner: owner.to_owned() },
            None => Leaves::GroupLeft,
        };
        self.refuse(&address, Ground::MadeByCommand { leaves, by: by.clone(), at: *at, claim: *id });
        false
    }

    /// A lab that is taken down stops what others asked to run only if it is meant.
    pub(super) fn may_end_claim(&mut self, name: &VmName) -> bool {
        let address = Address::vm(name);
        let claim = self.power_claim(name).filter(|claim| claim.wanted == ClaimedPower::Running);
        let others = claim.filter(|claim| claim.by != self.inputs.by && self.inputs.desired.is_nothing());
        let Some(PowerWish { claim, by, at, .. }) = others.filter(|_| !self.allowed(&address)) else { return true };
        let why = Ground::WantedByOthers { by: by.clone(), since: *at, claim: *claim };
        self.refuse(&address, why);
        false
    }
}

/// Why a claim counts no more; `None` as long as it does.
pub(super) fn end(claim: &PowerWish, vm: &Vm, known: &RecordedVm, life: &Life) -> Option<&'static str> {
    let is_about_the_run = known.generation >= claim.generation;
    match (vm.state, claim.wanted, life) {
        (PowerState::Running, ..) => Some("its manifest says `state: running`"),
        (PowerState::Stopped, ..) => Some("its manifest says `state: stopped`"),
        (_, ClaimedPower::Stopped, Life::Off { .. }) => Some("it is off"),
        (_, ClaimedPower::Running, Life::Off { reason: Some(StopReason::Guest), .. }) if is_about_the_run => {
            Some("its guest powered itself off")
        }
        (_, ClaimedPower::Running, Life::Off { reason: Some(StopReason::Deadline), .. }) if is_about_the_run => {
            Some("its session was over")
        }
        _ => None,
    }
}

/// Whose claim it is.
pub(super) fn reason(claim: &PowerWish) -> Reason {
    Reason::Claimed { by: claim.by.clone(), wanted: claim.wanted, claim: claim.claim }
}
