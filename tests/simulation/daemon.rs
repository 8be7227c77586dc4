//! What a daemon does to a lab: the loop's own functions, in the simulated world.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use labwright::access::Person;
use labwright::apply::{BatchKind, Goal, Progress, Readiness, Summary};
use labwright::control::apply::Client;
use labwright::control::round::{self, Asking, Doing};
use labwright::control::{Caller, Context, ControlError, Listener, Note, Ways};
use labwright::model::audit::{Account, Actor, Via};
use labwright::model::diagnostic::Diagnostics;
use labwright::model::id::VmName;
use labwright::model::site::Site;
use labwright::plan::{Ground, Plan, Wish};

use crate::lab::{Applied, Lab};

/// Nobody listens to a loop.
struct Deaf;

impl Listener for Deaf {
    fn findings(&self, _: &Diagnostics) {}

    fn note(&self, _: &Note<'_>) {}
}

/// Keeps the plan that is carried out or refused.
#[derive(Default)]
struct Onlooker {
    shown: Option<Plan>,
}

impl Client for Onlooker {
    fn shows(&mut self, plan: &Plan) {
        self.shown = Some(plan.clone());
    }

    fn agrees(&mut self, _: &Plan) -> Option<bool> {
        None
    }

    fn begins(&mut self) -> Arc<AtomicU8> {
        Arc::default()
    }

    fn looks(&mut self, _: &Readiness, _: Goal) {}
}

impl Progress for Onlooker {
    fn batch(&mut self, _: BatchKind, _: usize, _: usize, _: Duration) {}

    fn retry(&mut self, _: BatchKind, _: usize, _: Duration, _: &str) {}
}

impl Lab {
    fn context(&self) -> Context {
        let world = &self.world;
        let ways = Ways {
            scheduler: world.clone(),
            dhcp: world.clone(),
            runs: world.clone(),
            disks: world.clone(),
            clock: world.clone(),
        };
        // An account that every machine has.
        let site = Site { service_user: "root".into(), ..self.site.clone() };
        Context::in_world(site, ways, caller(), Arc::new(Deaf))
    }

    /// One round of the site's loop.
    pub(crate) fn keep(&self) -> Applied {
        self.unless_killed(|| {
            let (context, mut onlooker) = (self.context(), Onlooker::default());
            let first = match round::look(&context, &|_, _| true) {
                Ok(look) => look.labs.into_iter().next(),
                Err(error) => return came_to(Err(error), onlooker),
            };
            let kept = match first {
                Some((lab, Ok(_))) => round::keep(&context, &lab, &|_, _| true, &mut onlooker),
                Some((_, Err(error))) => Err(error),
                None => return Applied::Done(Summary::default()),
            };
            came_to(kept.map(|done| done.summary), onlooker)
        })
    }

    /// Somebody asks the daemon for a vm to be started, or stopped.
    pub(crate) fn ask(&self, vm: &VmName, wish: Wish) -> Applied {
        self.unless_killed(|| {
            let (context, mut onlooker) = (self.context(), Onlooker::default());
            let asking =
                Asking { caller: caller(), vm: vm.clone(), isolated: false, by_name: true, key: None, cdrom: None };
            let (lab, doing) = (self.applied().0.lab, Doing::Power(wish));
            match round::together(&context, &lab, doing, &[asking], &mut onlooker) {
                Ok(together) if together.done.plan.is_refused() => Applied::Refused(together.done.plan),
                Ok(together) => match together.refused.into_iter().flatten().next() {
                    Some(_) => Applied::Done(Summary::default()),
                    None => Applied::Done(together.done.summary),
                },
                Err(error) => came_to(Err(error), onlooker),
            }
        })
    }
}

fn caller() -> Caller {
    Caller {
        name: "test".into(),
        person: Person::Root,
        actor: Actor { account: Account { uid: 0, login: Some("root".into()) }, behind: None, via: Via::Socket },
        host: "test".into(),
        process: std::process::id(),
        command: "reconcile".into(),
        program: "/usr/bin/labwright".into(),
    }
}

fn came_to(came: Result<Summary, ControlError>, onlooker: Onlooker) -> Applied {
    match came {
        Ok(summary) => Applied::Done(summary),
        Err(ControlError::PlanRefused) => {
            let plan = onlooker.shown.expect("what is refused is shown");
            let flaw = plan.refusals.iter().find(|refusal| matches!(refusal.why, Ground::Bug { .. }));
            assert!(flaw.is_none(), "a plan that breaks its own rules is our bug: {flaw:?}");
            Applied::Refused(plan)
        }
        Err(ControlError::Observe(_) | ControlError::Scheduler(_)) => Applied::Blind,
        Err(ControlError::State(error)) => Applied::Stopped(error),
        Err(error) => panic!("{error}"),
    }
}
