//! What an act on a session's times comes to: which claims it writes, and which it ends.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::limits::InTheWay;
use super::{Changes, Doing, Held, SessionError, TWICE_SECONDS, Wanted, Whose};
use crate::model::accommodation::Accommodation;
use crate::model::claim::{AccommodatedBy, AccommodationClaim, Claim, ClaimBody, ClaimId, TimeChange, TimeClaim};
use crate::model::id::UserName;
use crate::model::lab::Session;
use crate::state::PastClaim;

/// How far back a pause may begin that is only told now.
const SINCE_HOURS_MAX: i64 = 12;
/// What is moved further than this is a slip of a finger.
const DAYS_MAX: i64 = 31;

/// Those who are meant; by `--all` whoever comes later, too.
pub(super) struct Meant {
    pub(super) people: BTreeSet<UserName>,
    pub(super) is_all: bool,
}

impl Held<'_> {
    /// Those who take part: the owners of its vms.
    pub(super) fn people(&self) -> BTreeSet<UserName> {
        let owner = |vm| self.lab.vms.get(vm).map(|vm| vm.owner.clone());
        self.session.vms.iter().filter_map(owner).collect()
    }

    pub(super) fn meant(&self, whose: Option<&Whose>) -> Result<Meant, SessionError> {
        let (session, people) = (self.name.clone(), self.people());
        match whose {
            None => {
                let of = |group: &BTreeSet<UserName>| group.intersection(&people).count();
                let groups = self.lab.user_groups.iter().map(|(name, group)| (name.clone(), of(&group.members)));
                let groups = groups.filter(|(_, number)| *number > 0).collect();
                Err(SessionError::NobodySaid { session, people: people.len(), groups })
            }
            Some(Whose::All) => Ok(Meant { people, is_all: true }),
            Some(Whose::Users(users)) => match users.iter().find(|user| !people.contains(*user)) {
                Some(user) => Err(SessionError::TakesNoPart { session, user: user.clone() }),
                None => Ok(Meant { people: users.iter().cloned().collect(), is_all: false }),
            },
            Some(Whose::Group(group)) => {
                let members = self.lab.user_groups.get(group).map(|group| &group.members);
                let people: BTreeSet<UserName> =
                    members.into_iter().flatten().filter(|user| people.contains(*user)).cloned().collect();
                let nobody = SessionError::NobodyOf { session, group: group.clone() };
                if people.is_empty() { Err(nobody) } else { Ok(Meant { people, is_all: false }) }
            }
        }
    }

    pub(super) fn changes(&self, wanted: &Wanted, meant: &Meant) -> Result<Changes, SessionError> {
        let why = wanted.why.as_ref();
        match wanted.doing {
            Doing::Extend { seconds } => self.moved_by(meant, &|_| Ok(seconds), why),
            Doing::EndAt { at } => self.moved_by(meant, &|user| self.seconds_to(user, at), why),
            // Whose time is over stays as it is.
            Doing::EndNow => self.moved_by(meant, &|user| Ok(self.seconds_to(user, self.now)?.min(0)), why),
            Doing::Pause { since } => self.paused(meant, since, why),
            Doing::Resume => self.resumed(meant),
            Doing::Accommodate { of } => self.accommodated(meant, of),
            Doing::Undo { claim } => self.undone(claim),
        }
    }

    fn seconds_to(&self, user: &UserName, at: Timestamp) -> Result<i64, SessionError> {
        let end = self.session.end_of(user).ok_or_else(|| SessionError::StandsStill { user: user.clone() })?;
        Ok(at.as_second() - end.as_second())
    }

    /// One claim for everybody where all are meant and move alike; else one for each.
    fn moved_by(
        &self,
        meant: &Meant,
        by: &dyn Fn(&UserName) -> Result<i64, SessionError>,
        why: Option<&String>,
    ) -> Result<Changes, SessionError> {
        let mut seconds: BTreeMap<&UserName, i64> = BTreeMap::new();
        for user in &meant.people {
            seconds.insert(user, by(user)?);
        }
        seconds.retain(|_, seconds| *seconds != 0);
        if seconds.values().any(|seconds| seconds.unsigned_abs() > (DAYS_MAX * 86_400).unsigned_abs()) {
            return Err(SessionError::TooFar { days: DAYS_MAX });
        }
        let claim = |user: Option<&UserName>, seconds: i64| {
            TimeClaim::new(self.name.clone(), user.cloned(), TimeChange::Extend { seconds }, why.cloned())
        };
        let first = seconds.values().next().copied().ok_or(SessionError::NothingToDo)?;
        let all_alike = seconds.len() == meant.people.len() && seconds.values().all(|seconds| *seconds == first);
        let put = match meant.is_all && all_alike {
            true => vec![claim(None, first)],
            false => seconds.into_iter().map(|(user, seconds)| claim(Some(user), seconds)).collect(),
        };
        Ok(Changes::putting(put))
    }

    fn paused(&self, meant: &Meant, since: Option<Timestamp>, why: Option<&String>) -> Result<Changes, SessionError> {
        let from = since.unwrap_or(self.now);
        if from > self.now || self.now.as_second() - from.as_second() > SINCE_HOURS_MAX * 3600 {
            return Err(SessionError::PauseBegins { hours: SINCE_HOURS_MAX });
        }
        let claim = |user: Option<&UserName>| {
            let change = TimeChange::Pause { from, until: None };
            TimeClaim::new(self.name.clone(), user.cloned(), change, why.cloned())
        };
        let goes_on = |user: &&UserName| !self.open_pauses().any(|(_, pause)| concerns(pause, user));
        let running: Vec<&UserName> = meant.people.iter().filter(goes_on).collect();
        if running.is_empty() {
            return Err(SessionError::Paused);
        }
        let put = match meant.is_all {
            true => vec![claim(None)],
            false => running.into_iter().map(|user| claim(Some(user))).collect(),
        };
        Ok(Changes::putting(put))
    }

    /// The pauses that are open end. Where one was everybody's and only some go on, it stays open for each of the others.
    fn resumed(&self, meant: &Meant) -> Result<Changes, SessionError> {
        let mut changes = Changes::default();
        for (claim, pause) in self.open_pauses() {
            let theirs: BTreeSet<UserName> = match &pause.user {
                None => self.people(),
                Some(user) => [user.clone()].into(),
            };
            if !theirs.iter().any(|user| meant.people.contains(user)) {
                continue;
            }
            changes.end.push(claim.id);
            let TimeChange::Pause { from, .. } = pause.change else { continue };
            let put = |user: Option<UserName>, is_over: bool| {
                let until = is_over.then(|| self.now.max(from));
                let change = TimeChange::Pause { from, until };
                ClaimBody::Time(TimeClaim::new(self.name.clone(), user, change, pause.why.clone()))
            };
            if meant.is_all {
                changes.put.push(put(pause.user.clone(), true));
                continue;
            }
            changes.put.extend(theirs.into_iter().map(|user| put(Some(user.clone()), meant.people.contains(&user))));
        }
        if changes.end.is_empty() { Err(SessionError::NotPaused) } else { Ok(changes) }
    }

    /// What is not said stays as these people have it.
    fn accommodated(&self, meant: &Meant, of: Accommodation) -> Result<Changes, SessionError> {
        if meant.is_all {
            return Err(SessionError::NobodysNeed);
        }
        if of.start.is_some_and(|start| start < self.session.start) {
            return Err(SessionError::StartsBefore { session: self.name.clone(), start: self.session.start });
        }
        let before = |user: &UserName| self.session.added.accommodated.get(user).copied().unwrap_or_default();
        let people = meant.people.iter().map(|user| (user.clone(), of.over(before(user))));
        let (session, by) = (self.name.clone(), AccommodatedBy::Command);
        let claim = AccommodationClaim { version: ClaimBody::VERSION, session, by, people: people.collect() };
        Ok(Changes { put: vec![ClaimBody::Accommodation(claim)], end: Vec::new() })
    }

    /// Takes a claim back, or all that the last act wrote; what that had put an end to stands again.
    fn undone(&self, claim: Option<ClaimId>) -> Result<Changes, SessionError> {
        let acts = || self.acts().filter(|standing| claim.is_none_or(|claim| claim == standing.id));
        let last = acts().map(|standing| standing.at).max().ok_or(SessionError::NothingToUndo)?;
        let end: Vec<ClaimId> = acts().filter(|standing| standing.at == last).map(|standing| standing.id).collect();
        let moment = last.to_string();
        let ended_by_it = |past: &&PastClaim| claim.is_none() && past.ended_at.as_ref() == Some(&moment);
        let read = |past: &PastClaim| ClaimBody::read(&past.kind, &past.body).ok();
        let is_time = |body: &ClaimBody| matches!(body, ClaimBody::Time(_) | ClaimBody::Accommodation(_));
        let put = self.past.iter().filter(ended_by_it).filter_map(read).filter(is_time).collect();
        Ok(Changes { put, end })
    }

    /// What people did to this session's times, and counts.
    fn acts(&self) -> impl Iterator<Item = &Claim> {
        self.recorded.claims.iter().filter(|claim| match &claim.body {
            ClaimBody::Time(time) => time.session == *self.name && !matches!(time.change, TimeChange::Begin { .. }),
            ClaimBody::Accommodation(of) => of.session == *self.name && of.by == AccommodatedBy::Command,
            _ => false,
        })
    }

    fn open_pauses(&self) -> impl Iterator<Item = (&Claim, &TimeClaim)> {
        self.times().filter(|(_, time)| matches!(time.change, TimeChange::Pause { until: None, .. }))
    }

    /// What was done to this session's times, and counts.
    fn times(&self) -> impl Iterator<Item = (&Claim, &TimeClaim)> {
        self.recorded.claims.iter().filter_map(|claim| match &claim.body {
            ClaimBody::Time(time) if time.session == *self.name => Some((claim, time)),
            _ => None,
        })
    }

    pub(super) fn refuse_before_start(&self, after: &Session, meant: &Meant) -> Result<(), SessionError> {
        let is_before = |user: &&UserName| {
            let ends = |of: &Session| of.end_of(user).is_some_and(|end| end <= of.start);
            ends(after) && !ends(self.session)
        };
        match meant.people.iter().find(is_before) {
            Some(user) => Err(SessionError::BeforeStart { user: user.clone() }),
            None => Ok(()),
        }
    }

    /// Nobody's time is moved by command into what comes next.
    pub(super) fn refuse_beyond(&self, doing: Doing, after: &Session, meant: &Meant) -> Result<(), SessionError> {
        if !matches!(doing, Doing::Extend { .. } | Doing::EndAt { .. } | Doing::Accommodate { .. }) {
            return Ok(());
        }
        let bounds = meant.people.iter().filter_map(|user| {
            let (was, is) = (self.session.end_of(user)?, after.end_of(user)?);
            let bounds = self.bounds(user, was).into_iter();
            let counts = |way: &InTheWay| !doing.is_need() || *way != InTheWay::LatestEnd;
            let (latest, way) = bounds.filter(|(_, way)| counts(way)).min_by_key(|(latest, _)| *latest)?;
            (is > was && is > latest).then(|| (latest.as_second() - was.as_second(), user.clone(), latest, way))
        });
        match bounds.min_by_key(|(seconds, ..)| *seconds) {
            Some((seconds, user, latest, way)) => Err(SessionError::NoRoom { user, seconds, latest, way }),
            None => Ok(()),
        }
    }

    /// How long ago the same was done to somebody who is meant now, if it was a moment ago.
    pub(super) fn done_before(&self, put: &[ClaimBody]) -> Option<i64> {
        let times = put.iter().filter_map(|body| match body {
            ClaimBody::Time(time) => Some(time),
            _ => None,
        });
        let put: Vec<&TimeClaim> = times.collect();
        let is_same = |time: &TimeClaim| {
            let is_again = |new: &TimeClaim| new.user == time.user && new.change == time.change;
            matches!(time.change, TimeChange::Extend { .. }) && put.iter().copied().any(is_again)
        };
        let ago = self
            .times()
            .filter(|(_, time)| is_same(time))
            .map(|(claim, _)| self.now.as_second() - claim.at.as_second());
        ago.filter(|seconds| (0..TWICE_SECONDS).contains(seconds)).min()
    }
}

impl Held<'_> {
    /// Whose time becomes another, of those who are meant.
    pub(super) fn moved(&self, after: &Session, meant: &Meant) -> Vec<UserName> {
        let is_moved = |user: &&UserName| {
            let times = |of: &Session| (of.start_of(user), of.end_of(user), of.pauses_of(user));
            times(after) != times(self.session)
        };
        meant.people.iter().filter(is_moved).cloned().collect()
    }
}

fn concerns(pause: &TimeClaim, user: &UserName) -> bool {
    pause.user.as_ref().is_none_or(|of| of == user)
}
