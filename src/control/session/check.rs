//! Whether a session will find what it needs: one page before it. In: the lab as it was last applied, and what is there now. Out:
//! lines, each with what to do. It boots no guest: that is `host check --exam`.
//!
//! ```text
//! applied     its machines are made, and no plan holds anything of them back
//! room        they fit on the batch system's hosts, and still do without the largest
//! controller  somebody boots them, moves their ends, and looks after them
//! clock       this machine's is the storage server's
//! people      who needs more time is recorded
//! ```

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::view::View;
use super::room::{Guest, Place, room};
use super::{ControlError, session_of};
use crate::host::machine::check::{Line, Verdict, clock, failed, ok, warning};
use crate::model::id::SessionName;
use crate::model::lab::{Session, SessionState};
use crate::plan::Plan;
use crate::run::{BEAT_EVERY, last_beat, last_round};
use crate::scheduler::Host;

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What it is about.
    pub what: String,
    /// `ok`, `warning` or `failed`.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub mend: Option<String>,
}

impl From<Line> for Finding {
    fn from(Line { what, verdict, found, mend }: Line) -> Self {
        Self { what: what.into_owned(), verdict, found, mend }
    }
}

/// For those who may plan and apply the lab.
pub fn check(view: &View<'_>, name: &SessionName) -> Result<Vec<Finding>, ControlError> {
    view.require_all()?;
    let lab = view.applied()?;
    let (session, now) = (session_of(&lab, name)?, Timestamp::now());
    let context = view.context;
    let plan = context.plan(&lab, &view.recorded, &[], &std::collections::BTreeMap::new())?;
    let hosts = context.scheduler().capacity().map_err(|error| crate::error::chain(&error));
    let guests: Vec<Guest> = session
        .vms
        .iter()
        .filter_map(|vm| lab.vms.get(vm))
        .map(|vm| Guest { slots: 1, memory_mib: vm.hardware.host_memory_mib() })
        .collect();
    let accommodated = session.added.accommodated.len();
    let mut lines = vec![time(session, now), machines(view, session), held_back(session, &plan)];
    lines.extend(rooms(hosts, &guests));
    let runs = &context.site.storage.runs;
    let (beat, round) = (last_beat(runs).ok().flatten(), last_round(runs).ok().flatten());
    lines.push(controller((beat, round), now, session));
    lines.push(clock(&context.site.storage.runs));
    lines.push(ok("people", format!("{} sit it, {accommodated} of them with accommodations", session.vms.len())));
    Ok(lines.into_iter().map(Finding::from).collect())
}

fn time(session: &Session, now: Timestamp) -> Line {
    const WHAT: &str = "time";
    match session.state(now) {
        SessionState::Ended | SessionState::Closed => {
            failed(WHAT, "it is over", "give the next one a name and times of its own")
        }
        SessionState::Scheduled => ok(WHAT, "it lies ahead"),
        SessionState::Preparing | SessionState::Running => ok(WHAT, "it is open"),
    }
}

fn machines(view: &View<'_>, session: &Session) -> Line {
    const WHAT: &str = "machines";
    let is_made = |vm: &&crate::model::id::VmName| {
        view.recorded
            .vms
            .get(*vm)
            .is_some_and(|known| !known.disks.is_empty() && known.disks.iter().all(|disk| disk.made))
    };
    let (made, all) = (session.vms.iter().filter(is_made).count(), session.vms.len());
    if made == all && all > 0 {
        return ok(WHAT, format!("{all} are made, each with its disk and address"));
    }
    failed(WHAT, format!("{made} of {all} are made"), "`labwright apply` makes them")
}

/// What the plan of the lab as it was applied would not do about the session's machines.
fn held_back(session: &Session, plan: &Plan) -> Line {
    const WHAT: &str = "plan";
    let concerns = |refusal: &&crate::plan::Refusal| {
        session.vms.iter().any(|vm| refusal.holds(&crate::model::address::Address::vm(vm)))
    };
    match plan.refusals.iter().filter(concerns).count() {
        0 => ok(WHAT, "nothing is held back"),
        refused => failed(WHAT, format!("{refused} refusals hold machines of it back"), "`labwright plan` says why"),
    }
}

fn rooms(hosts: Result<Vec<Host>, String>, guests: &[Guest]) -> Vec<Line> {
    const WHAT: &str = "room";
    const LOST: &str = "a host lost";
    let hosts = match hosts {
        Ok(hosts) => hosts,
        Err(why) => return vec![failed(WHAT, why, "the batch system must answer before anything can start")],
    };
    let open = hosts.iter().filter(|host| host.closed.is_none()).filter_map(|host| host.usage);
    let mut places: Vec<Place> = open.map(|usage| Place { slots: usage.slots, memory_mib: usage.memory_mib }).collect();
    let closed = hosts.len() - places.len();
    let beside = if closed > 0 { format!(", and {closed} take none now") } else { String::new() };
    let all = room(&places, guests);
    let found = format!("{} of {} fit on {} hosts{beside}", all.fitting, guests.len(), places.len());
    let mut lines = vec![match all.mend {
        None => ok(WHAT, found),
        Some(mend) => failed(WHAT, found, mend),
    }];
    places.sort();
    places.pop();
    let without = room(&places, guests);
    let found = format!("{} of {} fit without the largest", without.fitting, guests.len());
    lines.push(match without.mend {
        None => ok(LOST, found),
        Some(mend) => warning(LOST, found, mend),
    });
    lines
}

/// What starts machines, and moves ends that nobody can reach by a command.
fn controller((beat, round): (Option<Timestamp>, Option<Timestamp>), now: Timestamp, session: &Session) -> Line {
    const WHAT: &str = "controller";
    const LATE: i64 = 6;
    // A timer that is slower than this starts nobody's guest again in time.
    const ROUND_SECONDS_MAX: i64 = 300;
    let age = |of: Option<Timestamp>| of.map(|of| (now.as_second() - of.as_second()).max(0));
    let every = i64::try_from(BEAT_EVERY.as_secs()).unwrap_or(i64::MAX);
    let mend = "run `labwright serve` as a service, or `labwright reconcile --once` by a timer every minute";
    match (age(beat), age(round)) {
        (Some(age), _) if age <= LATE * every => ok(WHAT, format!("the daemon was awake {age} s ago")),
        (_, Some(age)) if age <= ROUND_SECONDS_MAX => ok(WHAT, format!("`reconcile --once` ran {age} s ago")),
        _ if !session.boots() => warning(WHAT, "none is awake: nothing is started again by itself", mend),
        _ => failed(WHAT, "none is awake: nothing boots by itself", mend),
    }
}
