//! A session: a time in which vms are its own, what isolated guests may reach meanwhile, and the time that people added.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::accommodation::{Accommodated, Accommodation};
use super::claim::{AccommodatedBy, Claim, ClaimBody, TimeChange, TimeClaim};
use super::file_pattern::FilePattern;
use super::id::{Mac, UserName, VmName};
use super::lab::Vm;

/// A time in which some vms are held for those who take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Those that were recorded before there were kinds are classes.
    #[serde(default)]
    pub kind: SessionKind,
    pub vms: BTreeSet<VmName>,
    pub start: Timestamp,
    pub end: Timestamp,
    #[serde(default, skip_serializing_if = "Late::is_until_end")]
    pub late: Late,
    /// No later than this ends the time of whoever started late, and nobody's is moved beyond it by command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_end: Option<Timestamp>,
    /// In records it has the name that its key had once.
    #[serde(default, rename = "open_before_seconds")]
    pub boot_before_seconds: u64,
    /// Written by its old key, which boots nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_guards: bool,
    #[serde(default)]
    pub extra_time_percent: BTreeMap<UserName, u32>,
    /// A set: the order in which they are written means nothing.
    #[serde(default)]
    pub egress: BTreeSet<Egress>,
    #[serde(default)]
    pub at_end: AtEnd,
    /// Files that are read out of its vms' disks after their owners' own ends; none: see `collected`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collect: Vec<FilePattern>,
    /// How long an exam's guest runs on after its owner's end, with nobody before it, so that it writes what was saved last.
    #[serde(default = "grace_seconds", skip_serializing_if = "is_usual_grace")]
    pub grace_seconds: u64,
    /// How long it does so where nobody could have moved that end, since no daemon was awake.
    #[serde(default = "offline_grace_seconds", skip_serializing_if = "is_usual_offline_grace")]
    pub offline_grace_seconds: u64,
    /// How long before its end a guest is told of it.
    #[serde(default = "warn_before_seconds", skip_serializing_if = "is_usual_warning")]
    pub warn_before_seconds: Vec<u64>,
    /// How long after its end nothing purges its vms' disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_seconds: Option<u64>,
    /// What people changed of its times by command. It stands in claims, and in no record of the session itself.
    #[serde(skip)]
    pub added: AddedTime,
}

/// Time that claims give a session, or take from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddedTime {
    /// For all.
    pub seconds: i64,
    /// For single users besides.
    pub users: BTreeMap<UserName, i64>,
    /// When the session stands still.
    pub pauses: Vec<AddedPause>,
    /// When somebody's guest was first seen in it.
    pub begun: BTreeMap<UserName, Timestamp>,
    /// What people need, by their lab's file, and by command, which goes before it.
    pub accommodated: Accommodated,
}

/// A time that is nobody's working time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedPause {
    /// Whose clock stands still; everybody's where nobody is named.
    pub user: Option<UserName>,
    pub from: Timestamp,
    /// `None`: nobody has said until when.
    pub until: Option<Timestamp>,
}

impl AddedTime {
    /// What these claims give one session.
    pub fn of<'c>(name: &str, claims: impl IntoIterator<Item = &'c Claim>) -> Self {
        Self::with_file(name, claims, None)
    }

    /// The same, with what the session's file says by now. Whom it says nothing of keeps what is recorded: half a file looks like a
    /// whole one.
    pub fn with_file<'c>(name: &str, claims: impl IntoIterator<Item = &'c Claim>, file: Option<&Accommodated>) -> Self {
        let (mut added, mut by_command) = (Self::default(), Accommodated::new());
        for claim in claims {
            match &claim.body {
                ClaimBody::Time(time) if time.session.as_str() == name => added.add(time),
                ClaimBody::Accommodation(of) if of.session.as_str() == name => match of.by {
                    AccommodatedBy::File => added.accommodated.extend(of.people.clone()),
                    AccommodatedBy::Command => by_command.extend(of.people.clone()),
                },
                _ => {}
            }
        }
        added.accommodated.extend(file.cloned().into_iter().flatten());
        added.accommodated.extend(by_command);
        added
    }

    /// Adds what a claim gives.
    pub fn add(&mut self, time: &TimeClaim) {
        match &time.change {
            TimeChange::Extend { seconds } => {
                let sum = match &time.user {
                    None => &mut self.seconds,
                    Some(user) => self.users.entry(user.clone()).or_default(),
                };
                *sum = sum.saturating_add(*seconds);
            }
            TimeChange::Pause { from, until } => {
                self.pauses.push(AddedPause { user: time.user.clone(), from: *from, until: *until });
            }
            TimeChange::Begin { at } => {
                if let Some(user) = &time.user {
                    self.begun.entry(user.clone()).and_modify(|first| *first = *at.min(first)).or_insert(*at);
                }
            }
        }
    }

    /// When one person's clock stands still, in order, those that overlap as one; `None`: of whoever is named nowhere.
    fn pauses_of(&self, user: Option<&UserName>) -> Vec<AddedPause> {
        let concerns = |pause: &&AddedPause| pause.user.is_none() || pause.user.as_ref() == user;
        let mut pauses: Vec<&AddedPause> = self.pauses.iter().filter(concerns).collect();
        pauses.sort_by_key(|pause| pause.from);
        let mut merged: Vec<AddedPause> = Vec::new();
        for pause in pauses {
            match merged.last_mut() {
                Some(last) if last.until.is_none_or(|until| pause.from <= until) => {
                    last.until = last.until.zip(pause.until).map(|(one, other)| one.max(other));
                }
                _ => merged.push(AddedPause { user: user.cloned(), ..pause.clone() }),
            }
        }
        merged
    }

    /// Those whose time is another than everybody's.
    fn people(&self) -> impl Iterator<Item = &UserName> {
        let paused = self.pauses.iter().filter_map(|pause| pause.user.as_ref());
        self.users.keys().chain(paused).chain(self.begun.keys()).chain(self.accommodated.keys())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionKind {
    /// Its vms may be other sessions', too, and keep their disks.
    #[default]
    Class,
    /// Its vms are its alone.
    Exam,
}

/// When the time of whoever starts late is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// When everybody's is.
    #[default]
    UntilEnd,
    /// As long after their start as everybody's lasts, and not after the session's latest end.
    FullTime,
}

impl Late {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it a reference")]
    fn is_until_end(&self) -> bool {
        *self == Self::UntilEnd
    }
}

/// How a moment stands to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It lies ahead.
    Scheduled,
    /// Its vms are its own, and boot.
    Preparing,
    /// It has begun, and somebody's time is not over.
    Running,
    /// Everybody's time is over, and guests write what was saved.
    Ended,
    /// They are off.
    Closed,
}

/// `grace_seconds` where nothing else is written.
pub fn grace_seconds() -> u64 {
    120
}

/// `offline_grace_seconds` where nothing else is written.
pub fn offline_grace_seconds() -> u64 {
    30 * 60
}

/// `warn_before_seconds` where nothing else is written.
pub fn warn_before_seconds() -> Vec<u64> {
    vec![600, 120]
}

fn is_usual_grace(seconds: &u64) -> bool {
    *seconds == grace_seconds()
}

fn is_usual_offline_grace(seconds: &u64) -> bool {
    *seconds == offline_grace_seconds()
}

fn is_usual_warning(seconds: &[u64]) -> bool {
    seconds == warn_before_seconds()
}

/// How long after its end a session's vms wait for their files to be collected.
const COLLECTING_SECONDS: i64 = 7 * 86_400;

impl Session {
    pub fn is_exam(&self) -> bool {
        self.kind == SessionKind::Exam
    }

    /// Whether its vms are started for it.
    pub fn boots(&self) -> bool {
        self.is_exam() || (self.boot_before_seconds > 0 && !self.only_guards)
    }

    /// Which files of a vm are collected after its owner's own end; none where that is nobody's wish.
    pub fn collected<'a>(&'a self, vm: &'a Vm) -> &'a [FilePattern] {
        match self.collect.as_slice() {
            [] if self.is_exam() || self.at_end == AtEnd::Collect => &vm.collect,
            own => own,
        }
    }

    /// Whether files of its vms may still have to be collected.
    pub fn is_collected_by_now(&self, now: Timestamp) -> bool {
        self.start < now && now < moved(self.window().1, COLLECTING_SECONDS)
    }

    /// How `now` stands to it.
    pub fn state(&self, now: Timestamp) -> SessionState {
        let (opens, closes) = self.window();
        let grace = i64::try_from(self.grace_seconds).unwrap_or(i64::MAX);
        match now {
            now if now < opens => SessionState::Scheduled,
            now if now <= closes && now < self.start => SessionState::Preparing,
            now if now <= closes => SessionState::Running,
            now if now <= moved(closes, grace) => SessionState::Ended,
            _ => SessionState::Closed,
        }
    }

    /// Whether it holds its vms, to its last moment.
    pub fn is_open(&self, now: Timestamp) -> bool {
        matches!(self.state(now), SessionState::Preparing | SessionState::Running)
    }

    /// Whether it was open once and is no more.
    pub fn is_held(&self, now: Timestamp) -> bool {
        matches!(self.state(now), SessionState::Ended | SessionState::Closed)
    }

    /// Whether `now` is in somebody's own time, with the time in which vms boot for it.
    pub fn is_on(&self, user: &UserName, now: Timestamp) -> bool {
        self.opens() <= now && self.end_of(user).is_none_or(|end| now < end)
    }

    /// Whether an exam's vms are closed to somebody who sits it: before it starts, and after their own end.
    pub fn is_closed_to(&self, user: &UserName, now: Timestamp) -> bool {
        self.is_exam() && (now < self.start_of(user) || self.end_of(user).is_some_and(|end| end <= now))
    }

    /// When it begins to hold its vms, and boots them.
    pub fn opens(&self) -> Timestamp {
        moved(self.start, -i64::try_from(self.boot_before_seconds).unwrap_or(i64::MAX))
    }

    /// When the session holds its vms: from booting them to the last one's end.
    pub fn window(&self) -> (Timestamp, Timestamp) {
        let people: BTreeSet<&UserName> = self.extra_time_percent.keys().chain(self.added.people()).collect();
        let ends = people.into_iter().map(Some).chain([None]).map(|user| self.end_for(user));
        (self.opens(), ends.map(|end| end.unwrap_or(Timestamp::MAX)).max().unwrap_or(self.end))
    }

    /// When it begins for one person.
    pub fn start_of(&self, user: &UserName) -> Timestamp {
        self.start_for(Some(user))
    }

    fn start_for(&self, user: Option<&UserName>) -> Timestamp {
        let own = self.accommodation(user).and_then(|of| of.start);
        own.map_or(self.start, |own| own.max(self.start))
    }

    fn accommodation(&self, user: Option<&UserName>) -> Option<&Accommodation> {
        self.added.accommodated.get(user?)
    }

    /// Whether somebody's time depends on when they start, and nobody has seen them start yet.
    pub fn waits_for(&self, user: &UserName) -> bool {
        self.late == Late::FullTime && !self.added.begun.contains_key(user)
    }

    /// The latest moment to which somebody's end may be moved by command, if there is one.
    pub fn latest_end_of(&self, user: &UserName) -> Option<Timestamp> {
        Some(moved(self.latest_end?, self.needed_seconds(Some(user))))
    }

    /// When it is over for one person; `None` as long as it stands still and nobody has said until when.
    pub fn end_of(&self, user: &UserName) -> Option<Timestamp> {
        self.end_for(Some(user))
    }

    /// The same as if it had never stood still: pauses are told beside it.
    pub fn end_without_pauses(&self, user: &UserName) -> Timestamp {
        self.plain_end(Some(user))
    }

    /// When it stands still for one person within their own time.
    pub fn pauses_of(&self, user: &UserName) -> Vec<AddedPause> {
        self.told_pauses(Some(user)).1
    }

    fn end_for(&self, user: Option<&UserName>) -> Option<Timestamp> {
        self.told_pauses(user).0
    }

    /// Somebody's end, and the pauses that moved it. One that began after it changes nothing.
    fn told_pauses(&self, user: Option<&UserName>) -> (Option<Timestamp>, Vec<AddedPause>) {
        let mut end = self.plain_end(user);
        let mut counted = Vec::new();
        for pause in self.added.pauses_of(user) {
            let (from, until) = (pause.from.max(self.start_for(user)), pause.until);
            if from >= end || until.is_some_and(|until| until <= from) {
                continue;
            }
            counted.push(AddedPause { from, ..pause });
            let Some(until) = until else { return (None, counted) };
            end = moved(end, until.as_second().saturating_sub(from.as_second()));
        }
        (Some(end), counted)
    }

    /// What was known before, and what people gave in it.
    fn plain_end(&self, user: Option<&UserName>) -> Timestamp {
        let added = user.and_then(|user| self.added.users.get(user)).copied().unwrap_or(0);
        let more = self.needed_seconds(user).saturating_add(self.added.seconds).saturating_add(added);
        moved(self.regular_end(user), more)
    }

    /// The end of whoever needs no more time than others. One who has not started may do so at the last moment.
    fn regular_end(&self, user: Option<&UserName>) -> Timestamp {
        let (start, begun) = (self.start_for(user), user.and_then(|user| self.added.begun.get(user)));
        let whole_from = |start: Timestamp| moved(start, self.length());
        let punctual = whole_from(start);
        let latest = self.latest_end.filter(|_| self.late == Late::FullTime).map(|latest| latest.max(punctual));
        match (latest, begun) {
            (None, _) => punctual,
            (Some(latest), Some(begun)) => whole_from(start.max(*begun)).min(latest),
            (Some(latest), None) => latest,
        }
    }

    fn length(&self) -> i64 {
        self.end.as_second().saturating_sub(self.start.as_second())
    }

    /// Of two reasons for more time the better one counts.
    fn needed_seconds(&self, user: Option<&UserName>) -> i64 {
        let percent = user.and_then(|user| self.extra_time_percent.get(user)).copied().unwrap_or(0);
        let extra = self.length().saturating_mul(i64::from(percent)) / 100;
        self.accommodation(user).map_or(0, |of| of.seconds_more(self.length())).max(extra)
    }
}

fn moved(time: Timestamp, seconds: i64) -> Timestamp {
    let second = time.as_second().saturating_add(seconds);
    let most = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(second).unwrap_or(most)
}

/// One destination that an isolated guest may reach besides DHCP and its gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Egress {
    /// Address and prefix length of where it is.
    #[schemars(with = "String")]
    pub net: Ipv4Net,
    /// The port there.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Ethernet address of a single machine on the guests' wire, where it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

/// As the manifest writes it.
impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let net = self.net.to_string();
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}:{}/{protocol}", net.trim_end_matches("/32"), self.port)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtEnd {
    /// Guests run on.
    Keep,
    /// Each is stopped at its owner's own end.
    #[default]
    Stop,
    /// The same, and files are taken out of its disks.
    Collect,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_key_guards_from_then_on_and_boots_nothing() {
        let session = |rest: &str| -> Session {
            let times = r#""start":"2027-01-12T08:00:00Z","end":"2027-01-12T09:00:00Z","open_before_seconds":600"#;
            serde_json::from_str(&format!(r#"{{"vms":[],{times}{rest}}}"#)).unwrap()
        };
        let old = session(r#","only_guards":true"#);
        assert_eq!(old.opens(), "2027-01-12T07:50:00Z".parse().unwrap());
        assert!(session("").boots() && !old.boots());
    }
}
