//! A session's times as people move them: each act becomes claims beside the manifest, and is told to the guests that run at
//! once. In: whose time, and what is done to it. Out: each one's end before and after, and who was told.
//!
//! It takes no lock, so that nothing that others do can hold it up, and a freeze, which is about plans, does not stop it.
//! A guest that could not be reached is told by the next plan (`plan::clocks`).
//!
//! ```text
//! extend, subtract, set, end now    seconds that count from each one's own end
//! pause                             a time that does not count, open until `resume` ends it
//! ```

mod changes;
mod people;
mod tell;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::own::Lab;
use super::pick;
use super::upload::require_owner;
use super::{Code, Context, ControlError, understood};
use crate::model::address::{Address, Kind};
use crate::model::claim::{Claim, ClaimBody, ClaimId, TimeClaim};
use crate::model::id::{SessionName, UserGroupName, UserName, VmName};
use crate::model::lab::{AddedTime, Desired, Session};
use crate::state::{Change, Intent, Outcome, Recorded};

pub use people::{Sitter, Sitting, sitters};

/// More people than this are touched only if it is agreed to.
const PEOPLE_UNASKED: usize = 10;
/// The same act within this time of the last one may be a second press of the same key.
const TWICE_SECONDS: i64 = 30;

/// What somebody does to a session's times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Whose time it is; nobody's is meant unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whose: Option<Whose>,
    /// What is done to it.
    pub doing: Doing,
    /// In the words of who does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// It is meant, however many it touches, and also if it was done a moment ago.
    #[serde(default)]
    pub is_agreed: bool,
}

/// Of those who take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// These.
    Users(Vec<UserName>),
    /// The members of a user group.
    Group(UserGroupName),
    /// Everybody, and whoever comes later.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// Moves each one's own end by so many seconds; below zero, to an earlier time.
    Extend {
        /// How many those are.
        seconds: i64,
    },
    /// Moves each one's end to this time.
    EndAt {
        /// When that is.
        #[schemars(with = "String", extend("format" = "date-time"))]
        at: Timestamp,
    },
    /// It is over for them.
    EndNow,
    /// Their clocks stand still.
    Pause {
        /// From when on, where it was earlier than now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>", extend("format" = "date-time"))]
        since: Option<Timestamp>,
    },
    /// Their clocks go on, and each end has moved by the pause.
    Resume,
}

impl Doing {
    /// As it is typed, and for the history.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Extend { seconds } if seconds < 0 => "subtract",
            Self::Extend { .. } => "extend",
            Self::EndAt { .. } => "set",
            Self::EndNow => "end-now",
            Self::Pause { .. } => "pause",
            Self::Resume => "resume",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done(Done),
    /// Nothing is done before it is agreed to.
    Asks(Question),
}

/// Why it is asked whether it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// How many it touches.
    pub people: usize,
    /// How long ago somebody did the same, if it was a moment ago.
    pub again_after_seconds: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// Whom it touched, by name.
    pub people: Vec<Moved>,
    /// How many guests run that were told.
    pub told: usize,
    /// Those that could not be; the next plan tells them.
    pub untold: Vec<Untold>,
}

/// Somebody's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// Whose it is.
    pub user: UserName,
    /// When it was; none while the session stood still.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub was: Option<Timestamp>,
    /// When it is; none while the session stands still.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub is: Option<Timestamp>,
}

/// A guest that could not be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Untold {
    /// The vm that it runs in.
    pub vm: VmName,
    /// What was in the way.
    pub why: String,
}

/// Why a session's times stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("whose time is meant was not said; nothing was changed")]
    NobodySaid { session: SessionName, people: usize, groups: Vec<(UserGroupName, usize)> },
    #[error("{user} takes no part in session `{session}`; nothing was changed")]
    TakesNoPart { session: SessionName, user: UserName },
    #[error("nobody of `{group}` takes part in session `{session}`; nothing was changed")]
    NobodyOf { session: SessionName, group: UserGroupName },
    #[error("the time of {user} stands still; nothing was changed")]
    StandsStill { user: UserName },
    #[error("the time of all who are meant stands still already; nothing was changed")]
    Paused,
    #[error("nobody's time stands still of those who are meant; nothing was changed")]
    NotPaused,
    #[error("a pause begins at most {hours} hours ago, and not later than now; nothing was changed")]
    PauseBegins { hours: i64 },
    #[error("a session's end is moved by at most {days} days; nothing was changed")]
    TooFar { days: i64 },
    #[error("it would end before it starts for {user}; nothing was changed")]
    BeforeStart { user: UserName },
    #[error("each end is there already; nothing was changed")]
    NothingToDo,
}

impl SessionError {
    pub fn code(&self) -> Code {
        match self {
            Self::NobodySaid { .. } | Self::PauseBegins { .. } | Self::TooFar { .. } => Code::Usage,
            Self::BeforeStart { .. } | Self::StandsStill { .. } => Code::Refused,
            _ => Code::Failed,
        }
    }
}

/// A session of a lab as it was last applied, with all that was done to its times.
struct Held<'a> {
    name: &'a SessionName,
    session: &'a Session,
    lab: &'a Desired,
    recorded: &'a Recorded,
    now: Timestamp,
}

/// Does it, unless it is to be asked about first. For those who may plan and apply the lab.
pub fn act(context: &Context, of: Lab<'_>, session: &SessionName, wanted: &Wanted) -> Result<Answer, ControlError> {
    context.audited(Some(of.name()), carry_out(context, of, session, wanted))
}

fn carry_out(context: &Context, of: Lab<'_>, name: &SessionName, wanted: &Wanted) -> Result<Answer, ControlError> {
    require_owner(context, of.name())?;
    let mut store = context.known_store()?;
    let context = &*of.context(context, &mut store)?;
    let recorded = store.recorded(of.name())?;
    let lab = understood(of.name().clone(), &recorded)?;
    let session = session_of(&lab, name)?;
    let held = Held { name, session, lab: &lab, recorded: &recorded, now: Timestamp::now() };
    let meant = held.meant(wanted.whose.as_ref())?;
    let changes = held.changes(wanted, &meant)?;
    let after = changes.session(&held);
    held.refuse_before_start(&after, &meant)?;
    let people = held.moved(&after, &meant);
    let again_after_seconds = held.done_before(&changes.put);
    if !wanted.is_agreed && (people.len() > PEOPLE_UNASKED || again_after_seconds.is_some()) {
        return Ok(Answer::Asks(Question { people: people.len(), again_after_seconds }));
    }
    let moved = |user: &UserName| Moved { user: user.clone(), was: session.end_of(user), is: after.end_of(user) };
    let moved = people.iter().map(moved).collect();
    let intent = Intent { address: Address::new(Kind::Session, name), effect: wanted.doing.verb() };
    let info = context.apply_info(&format!("session {} {name}", wanted.doing.verb()));
    let written = changes.written(name, &context.caller.name);
    store.note_and_record(of.name(), &info, &[(intent, Outcome::Done)], &written, held.now)?;
    let (told, untold) = held.tell(context, &after, &people);
    Ok(Answer::Done(Done { people: moved, told, untold }))
}

/// The session of this name.
fn session_of<'l>(lab: &'l Desired, name: &SessionName) -> Result<&'l Session, ControlError> {
    let known = lab.sessions.keys().map(SessionName::as_str);
    pick::names(&lab.lab, "session", &[name.to_string()], known)?;
    Ok(&lab.sessions[name])
}

/// Claims that are to be written, and those that end.
#[derive(Debug, Default)]
struct Changes {
    put: Vec<TimeClaim>,
    end: Vec<ClaimId>,
}

impl Changes {
    /// The session as it is with them.
    fn session(&self, held: &Held<'_>) -> Session {
        let stays = |claim: &&Claim| !self.end.contains(&claim.id);
        let mut added = AddedTime::of(held.name.as_str(), held.recorded.claims.iter().filter(stays));
        self.put.iter().for_each(|time| added.add(time));
        Session { added, ..held.session.clone() }
    }

    fn written(self, name: &SessionName, by: &str) -> Vec<Change> {
        let end = self.end.into_iter().map(|id| Change::EndClaim { id, why: format!("{by} let it go on") });
        let put = self.put.into_iter().map(|time| Change::PutClaim {
            name: name.to_string(),
            body: ClaimBody::Time(time),
            by: by.to_owned(),
        });
        end.chain(put).collect()
    }
}
