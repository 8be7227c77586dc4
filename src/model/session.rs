//! A session: a time in which vms are its own, what isolated guests may reach meanwhile, and the time that people added.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::{TimeChange, TimeClaim};
use super::id::{Mac, UserName, VmName};

/// A time in which some vms are held for those who take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub vms: BTreeSet<VmName>,
    pub start: jiff::Timestamp,
    pub end: jiff::Timestamp,
    #[serde(default)]
    pub open_before_seconds: u64,
    #[serde(default)]
    pub extra_time_percent: BTreeMap<UserName, u32>,
    /// A set: the order in which they are written means nothing.
    #[serde(default)]
    pub egress: BTreeSet<Egress>,
    #[serde(default)]
    pub at_end: AtEnd,
    /// What people added while it ran.
    #[serde(default, skip_serializing_if = "AddedTime::is_none")]
    pub added: AddedTime,
}

/// Time that claims give a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedTime {
    /// For all.
    #[serde(default)]
    pub seconds: u64,
    /// For single users besides.
    #[serde(default)]
    pub users: BTreeMap<UserName, u64>,
    /// It stands still, and nobody has said until when.
    #[serde(default)]
    pub is_paused: bool,
}

impl AddedTime {
    /// Whether nobody has added anything.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what a claim gives. Time is only ever added, and a pause without an end holds the clock.
    pub fn add(&mut self, time: &TimeClaim) {
        let seconds = match &time.change {
            TimeChange::Extend { seconds } => *seconds,
            TimeChange::Pause { from, until: Some(until) } => {
                u64::try_from(until.as_second().saturating_sub(from.as_second())).unwrap_or(0)
            }
            TimeChange::Pause { until: None, .. } => {
                self.is_paused = true;
                return;
            }
        };
        let sum = match &time.user {
            None => &mut self.seconds,
            Some(user) => self.users.entry(user.clone()).or_default(),
        };
        *sum = sum.saturating_add(seconds);
    }
}

/// How a moment stands to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    Ahead,
    /// It holds its vms, to its last moment.
    Open,
    Over,
}

impl Session {
    /// How `now` stands to it.
    pub fn state(&self, now: jiff::Timestamp) -> SessionState {
        let (opens, closes) = self.window();
        match now {
            now if now < opens => SessionState::Ahead,
            now if now <= closes => SessionState::Open,
            _ => SessionState::Over,
        }
    }

    /// Whether it holds its vms.
    pub fn is_open(&self, now: jiff::Timestamp) -> bool {
        self.state(now) == SessionState::Open
    }

    /// When the session holds its vms: from booting them to the end of the longest extra time.
    pub fn window(&self) -> (jiff::Timestamp, jiff::Timestamp) {
        let length = self.end.as_second().saturating_sub(self.start.as_second());
        let extra = self.extra_time_percent.values().copied().max().unwrap_or(0);
        let extra = length.saturating_mul(i64::from(extra)) / 100;
        let before = i64::try_from(self.open_before_seconds).unwrap_or(i64::MAX);
        let opens = self.start.as_second().saturating_sub(before);
        let opens = jiff::Timestamp::from_second(opens).unwrap_or(jiff::Timestamp::MIN);
        if self.added.is_paused {
            return (opens, jiff::Timestamp::MAX);
        }
        // Whoever has extra time may have been given more besides.
        let most = self.added.users.values().copied().max().unwrap_or(0);
        let extra = u64::try_from(extra).unwrap_or(0).saturating_add(self.added.seconds).saturating_add(most);
        (opens, later(self.end, extra))
    }
}

impl Session {
    /// When it is over for one person; `None` as long as it stands still and nobody has said until when.
    pub fn end_of(&self, user: &UserName) -> Option<jiff::Timestamp> {
        let length = self.end.as_second().saturating_sub(self.start.as_second());
        let percent = self.extra_time_percent.get(user).copied().unwrap_or(0);
        let extra = u64::try_from(length.saturating_mul(i64::from(percent)) / 100).unwrap_or(0);
        let added = self.added.users.get(user).copied().unwrap_or(0);
        let more = extra.saturating_add(self.added.seconds).saturating_add(added);
        (!self.added.is_paused).then(|| later(self.end, more))
    }
}

fn later(time: jiff::Timestamp, seconds: u64) -> jiff::Timestamp {
    let second = time.as_second().saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX));
    jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX)
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtEnd {
    Keep,
    #[default]
    Stop,
    Collect,
}
