//! Claims: what people asked for by command, beside the manifest, as values. `resolve::with_claims` merges them.
//!
//! The body of each is JSON with a version. One of a kind or a version that is newer than this program is kept as it is
//! written, and shown; it is never dropped.

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::accommodation::Accommodated;
use super::id::{SessionName, UserName, VmGroupName, VmName};
use super::lab::{Hardware, Permission, VmSource};
use super::seed::Seed;

/// A claim's number in its site's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ClaimId(pub i64);

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What somebody asked for, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub id: ClaimId,
    /// What it is about, by its name within its kind.
    pub name: String,
    pub body: ClaimBody,
    pub by: String,
    pub at: jiff::Timestamp,
}

/// What somebody asked for, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimBody {
    Power(PowerClaim),
    Grant(GrantClaim),
    Vm(VmClaim),
    Time(TimeClaim),
    Accommodation(AccommodationClaim),
    Hold(HoldClaim),
    /// Of a kind or a version that this labwright does not know, as it is written.
    Other {
        kind: String,
        body: String,
    },
}

/// Somebody wants a vm to run, or to stand still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerClaim {
    pub version: u32,
    pub wanted: ClaimedPower,
    /// The first of the vm's runs that it is about: a guest that powered itself off before is no answer to it.
    pub generation: u64,
    /// What the client calls the ask: the same again asks for nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimedPower {
    Running,
    Stopped,
}

impl ClaimedPower {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// Somebody lets others use a thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantClaim {
    pub version: u32,
    pub permission: Permission,
    pub given_as: GivenAs,
}

/// What gave somebody the right to let others in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenAs {
    Admin,
    /// It counts for as long as they own the vm.
    Owner,
}

/// A vm that no manifest has. It lives in its owner's name space, so that no manifest will ever need its name. What its
/// template gave it stands here, so that it outlives the template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmClaim {
    pub version: u32,
    pub owner: UserName,
    pub source: VmSource,
    pub vm_group: VmGroupName,
    pub hardware: Hardware,
    /// As it was forced when the vm was made; it stays when the permission goes.
    pub isolated: bool,
    /// As its template had it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Box<Seed>>,
    /// What the client calls the ask: the same again asks for nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its name before it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<VmName>,
}

/// A session's times are moved. They count from each one's own end, whatever an edit of the manifest does to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeClaim {
    pub version: u32,
    pub session: SessionName,
    /// Whose time; everybody's where nobody is named.
    pub user: Option<UserName>,
    pub change: TimeChange,
    /// In the words of who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl TimeClaim {
    /// Of a session's, 2 with time that is taken away, 3 with a beginning: a labwright that cannot read it shows it, and goes on.
    const NEWEST: u32 = 3;

    pub fn new(session: SessionName, user: Option<UserName>, change: TimeChange, why: Option<String>) -> Self {
        let version = match change {
            TimeChange::Extend { seconds } if seconds < 0 => 2,
            TimeChange::Extend { .. } | TimeChange::Pause { .. } => ClaimBody::VERSION,
            TimeChange::Begin { .. } => Self::NEWEST,
        };
        Self { version, session, user, change, why }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeChange {
    /// Below zero: time is taken away.
    Extend { seconds: i64 },
    /// `None`: until it is resumed.
    Pause { from: jiff::Timestamp, until: Option<jiff::Timestamp> },
    /// Somebody's guest was first seen to run then, in a session that gives everybody the whole time.
    Begin { at: jiff::Timestamp },
}

/// What people need of a session's time. The latest by its file stands, and those by command besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccommodationClaim {
    pub version: u32,
    pub session: SessionName,
    pub by: AccommodatedBy,
    pub people: Accommodated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccommodatedBy {
    /// The one that the session names.
    File,
    Command,
}

/// Disks that a vm had are needed for something, such as an appeal: none is deleted for as long as this counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldClaim {
    pub version: u32,
    /// The last day; `None`: until it is released.
    pub until: Option<jiff::civil::Date>,
    pub why: String,
}

impl HoldClaim {
    pub fn counts(&self, today: jiff::civil::Date) -> bool {
        self.until.is_none_or(|until| today <= until)
    }
}

impl fmt::Display for HoldClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "held until {until}: {}", self.why),
            None => write!(f, "held until it is released: {}", self.why),
        }
    }
}

/// What every body has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl ClaimBody {
    /// Of every kind at first.
    pub const VERSION: u32 = 1;
    /// The kind that is shown without whom it is about.
    pub const ACCOMMODATION: &str = "accommodation";

    /// Of a kind that is known, whatever its version.
    pub fn read(kind: &str, body: &str) -> serde_json::Result<Self> {
        let other = || Self::Other { kind: kind.to_owned(), body: body.to_owned() };
        if !matches!(kind, "power" | "grant" | "vm" | "time" | Self::ACCOMMODATION | "hold") {
            return Ok(other());
        }
        let newest = if kind == "time" { TimeClaim::NEWEST } else { Self::VERSION };
        if serde_json::from_str::<Versioned>(body)?.version > newest {
            return Ok(other());
        }
        fn parsed<T: DeserializeOwned>(body: &str, wrap: impl FnOnce(T) -> ClaimBody) -> serde_json::Result<ClaimBody> {
            serde_json::from_str(body).map(wrap)
        }
        match kind {
            "power" => parsed(body, Self::Power),
            "grant" => parsed(body, Self::Grant),
            "vm" => parsed(body, Self::Vm),
            "hold" => parsed(body, Self::Hold),
            Self::ACCOMMODATION => parsed(body, Self::Accommodation),
            _ => parsed(body, Self::Time),
        }
    }

    pub fn kind(&self) -> &str {
        match self {
            Self::Power(_) => "power",
            Self::Grant(_) => "grant",
            Self::Vm(_) => "vm",
            Self::Time(_) => "time",
            Self::Accommodation(_) => Self::ACCOMMODATION,
            Self::Hold(_) => "hold",
            Self::Other { kind, .. } => kind,
        }
    }

    /// As its row has it.
    pub fn text(&self) -> String {
        fn json<T: Serialize>(value: &T) -> String {
            serde_json::to_string(value).expect("a claim has only string keys")
        }
        match self {
            Self::Power(claim) => json(claim),
            Self::Grant(claim) => json(claim),
            Self::Vm(claim) => json(claim),
            Self::Time(claim) => json(claim),
            Self::Accommodation(claim) => json(claim),
            Self::Hold(claim) => json(claim),
            Self::Other { body, .. } => body.clone(),
        }
    }

    /// The same for people to see: what somebody needs is nobody else's matter.
    pub fn shown(kind: &str, body: &str) -> serde_json::Value {
        let written = || serde_json::Value::String(body.to_owned());
        match Self::read(kind, body) {
            Ok(Self::Accommodation(AccommodationClaim { version, session, by, people })) => {
                serde_json::json!({ "version": version, "session": session, "by": by, "people": people.len() })
            }
            Ok(Self::Other { .. }) | Err(_) if kind == Self::ACCOMMODATION => written_by_newer(),
            _ => serde_json::from_str(body).unwrap_or_else(|_| written()),
        }
    }
}

fn written_by_newer() -> serde_json::Value {
    serde_json::Value::String("a newer labwright's".to_owned())
}

/// What somebody wants of a vm, as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerWish {
    pub claim: ClaimId,
    pub wanted: ClaimedPower,
    pub generation: u64,
    pub by: String,
    pub at: jiff::Timestamp,
}
