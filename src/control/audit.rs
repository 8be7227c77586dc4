//! Who asked for what is written down before it is done, also what is refused, and who looks at somebody's screen. What cannot be
//! written down is not done, but for root, who is told: a full disk must not lock the admin out who is to make room.

use super::pick::PickError;
use super::{Context, ControlError, Note};
use crate::access::{Person, Refused};
use crate::model::address::{Address, Kind};
use crate::model::audit::{Act, Asked, Verdict};
use crate::model::id::LabName;
use crate::plan::Refusal;
use crate::state::{StateError, Store};

impl Context {
    /// What who asks is about to do.
    pub(super) fn act(&self) -> Act {
        let (actor, asked) = (self.caller.actor.clone(), Asked::of(&self.caller.command));
        Act { actor, asked, about: Vec::new(), verdict: Verdict::Begun }
    }

    /// Before something that leaves no trace of its own, such as a look at a screen.
    pub fn audit(&self, lab: Option<&LabName>, about: Vec<Address>) -> Result<(), ControlError> {
        match self.write_down(lab, &Act { about, ..self.act() }) {
            Ok(()) => Ok(()),
            Err(error) if self.caller.person == Person::Root => {
                self.listener.note(&Note::NotAudited { error: &error });
                Ok(())
            }
            Err(source) => Err(ControlError::NotAudited { source }),
        }
    }

    /// What came of a request; where it was refused, that is written down too.
    pub fn audited<T>(&self, lab: Option<&LabName>, came: Result<T, ControlError>) -> Result<T, ControlError> {
        came.inspect_err(|error| self.audit_refusal(lab, error, &[]))
    }

    /// The same, with why a plan must not be carried out.
    pub(super) fn audit_refusal(&self, lab: Option<&LabName>, error: &ControlError, grounds: &[Refusal]) {
        let Some(why) = why(error, grounds) else { return };
        let mut about = about(error);
        about.extend(grounds.iter().map(|refusal| refusal.address.clone()));
        let act = Act { about, verdict: Verdict::Refused { why }, ..self.act() };
        // It is refused anyway, and who is refused cannot make room.
        if let Err(error) = self.write_down(lab, &act) {
            tracing::warn!(%error, "a refusal is not in the audit");
        }
    }

    fn write_down(&self, lab: Option<&LabName>, act: &Act) -> Result<(), StateError> {
        Store::open(&self.site.state)?.audit(lab, act, jiff::Timestamp::now())
    }
}

/// The kind of a refusal, without anybody's name. What somebody took back themselves was not refused, and what is only busy is
/// tried again.
fn why(error: &ControlError, grounds: &[Refusal]) -> Option<String> {
    let word = match error {
        ControlError::PlanRefused => {
            let mut codes: Vec<String> = grounds.iter().map(code).collect();
            codes.sort();
            codes.dedup();
            return Some(codes.join(", "));
        }
        ControlError::NotAllowed { refused: Refused::NotKnown, .. }
        | ControlError::NoSuchLab { .. }
        | ControlError::NotOwner { .. }
        | ControlError::Pick(PickError::Unknown { .. }) => "not_known",
        ControlError::NotAllowed { refused: Refused::NotInSession, .. } => "not_in_session",
        ControlError::NotAllowed { refused: Refused::NotReimaged, .. } => "not_reimaged",
        ControlError::NotAllowed { refused: Refused::NoRight, .. } => "no_right",
        ControlError::Password { .. } | ControlError::NotRoot => "not_root",
        ControlError::Unisolated { .. } => "unisolated",
        ControlError::StandsStill { .. } => "stands_still",
        ControlError::NotMadeIsolated { .. } => "not_made_isolated",
        ControlError::RunningLimit { .. } => "running_limit",
        ControlError::ForOthers => "for_others",
        ControlError::NameTaken { .. } => "name_taken",
        ControlError::Frozen { .. } | ControlError::State(StateError::Frozen { .. }) => "frozen",
        ControlError::PlanMoved { .. } | ControlError::PlanVersion { .. } => "plan_moved",
        ControlError::NotReady { .. } => "not_ready",
        ControlError::Kept { .. } => "kept",
        ControlError::State(_) | ControlError::NotConfirmed | ControlError::NobodyToAsk => return None,
        error if error.code() == super::Code::Refused => "refused",
        _ => return None,
    };
    Some(word.to_owned())
}

fn code(refusal: &Refusal) -> String {
    let value = serde_json::to_value(&refusal.why).unwrap_or_default();
    value["code"].as_str().unwrap_or("other").to_owned()
}

/// What a refusal is about, where it says so.
fn about(error: &ControlError) -> Vec<Address> {
    match error {
        ControlError::NotAllowed { on, .. } => on.to_string().parse().into_iter().collect(),
        ControlError::Unisolated { vm }
        | ControlError::StandsStill { vm }
        | ControlError::NotMadeIsolated { vm }
        | ControlError::NameTaken { name: vm }
        | ControlError::Password { vm, .. } => vec![Address::vm(vm)],
        ControlError::RunningLimit { user, .. } => vec![Address::new(Kind::User, user)],
        ControlError::OfVms { failed, .. } => failed.iter().map(|(vm, _)| Address::vm(vm)).collect(),
        _ => Vec::new(),
    }
}
