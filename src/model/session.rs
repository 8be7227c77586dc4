//! A session: a time in which vms are its own, what isolated guests may reach meanwhile, and the time that people added.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::{Claim, ClaimBody, TimeChange, TimeClaim};
use super::id::{Mac, UserName, VmName};

/// A time in which some vms are held for those who take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Those that were recorded before there were kinds are classes.
    #[serde(default)]
    pub kind: SessionKind,
    pub vms: BTreeSet<VmName>,
    pub start: Timestamp,
    pub end: Timestamp,
    /// In records it has the name that its key had once.
    #[serde(default, rename = "open_before_seconds")]
    pub boot_before_seconds: u64,
    #[serde(default)]
    pub extra_time_percent: BTreeMap<UserName, u32>,
    /// A set: the order in which they are written means nothing.
    #[serde(default)]
    pub egress: BTreeSet<Egress>,
    #[serde(default)]
    pub at_end: AtEnd,
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
        let mut added = Self::default();
        for claim in claims {
            match &claim.body {
                ClaimBody::Time(time) if time.session.as_str() == name => added.add(time),
                _ => {}
            }
        }
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
        self.users.keys().chain(self.pauses.iter().filter_map(|pause| pause.user.as_ref()))
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

/// How long a guest runs on after its owner's end, with nobody before it, so that it writes what was saved last.
pub const GRACE_SECONDS: u64 = 120;
/// How long it does so where nobody could have moved that end, since no daemon was awake.
pub const OFFLINE_GRACE_SECONDS: u64 = 30 * 60;
/// How long before its end a guest is told of it.
pub const WARN_BEFORE_SECONDS: [u64; 2] = [600, 120];

impl Session {
    pub fn is_exam(&self) -> bool {
        self.kind == SessionKind::Exam
    }

    /// Whether its vms are started for it.
    pub fn boots(&self) -> bool {
        self.is_exam() || self.boot_before_seconds > 0
    }

    /// How `now` stands to it.
    pub fn state(&self, now: Timestamp) -> SessionState {
        let (opens, closes) = self.window();
        let grace = i64::try_from(GRACE_SECONDS).unwrap_or(i64::MAX);
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
        self.is_exam() && (now < self.start || self.end_of(user).is_some_and(|end| end <= now))
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

    /// When it is over for one person; `None` as long as it stands still and nobody has said until when.
    pub fn end_of(&self, user: &UserName) -> Option<Timestamp> {
        self.end_for(Some(user))
    }

    /// The same as if it had never stood still: pauses are told beside it.
    pub fn end_without_pauses(&self, user: &UserName) -> Timestamp {
        moved(self.end, self.seconds_more(Some(user)))
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
        let mut end = moved(self.end, self.seconds_more(user));
        let mut counted = Vec::new();
        for pause in self.added.pauses_of(user) {
            let (from, until) = (pause.from.max(self.start), pause.until);
            if from >= end || until.is_some_and(|until| until <= from) {
                continue;
            }
            counted.push(AddedPause { from, ..pause });
            let Some(until) = until else { return (None, counted) };
            end = moved(end, until.as_second().saturating_sub(from.as_second()));
        }
        (Some(end), counted)
    }

    fn seconds_more(&self, user: Option<&UserName>) -> i64 {
        let length = self.end.as_second().saturating_sub(self.start.as_second());
        let percent = user.and_then(|user| self.extra_time_percent.get(user)).copied().unwrap_or(0);
        let extra = length.saturating_mul(i64::from(percent)) / 100;
        let added = user.and_then(|user| self.added.users.get(user)).copied().unwrap_or(0);
        extra.saturating_add(self.added.seconds).saturating_add(added)
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
