//! A session's times as people move them: each act becomes claims beside the manifest, and is told to the guests that run at
//! once. In: whose time, and what is done to it. Out: each one's end before and after, and who was told.
//!
//! It takes no lock, so that nothing that others do can hold it up, and a freeze, which is about plans, does not stop it.
//! A guest that could not be reached is told by the next plan (`plan::clocks`).
//!
//! ```text
//! extend, subtract, set, end now    seconds that count from each one's own end
//! pause                             a time that does not count, open until `resume` ends it
//! accommodate                       what people need, which was known before; who reads of it, reads how many
//! undo                              the last of these acts counts no more
//! ```

mod changes;
mod check;
mod limits;
mod lost;
mod people;
mod record;
mod room;
mod status;
mod story;
mod submissions;
mod tell;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::own::Lab;
use super::pick;
use super::upload::require_owner;
use super::{Code, Context, ControlError, understood};
use crate::model::accommodation::Accommodation;
use crate::model::address::{Address, Kind};
use crate::model::claim::{Claim, ClaimBody, ClaimId, TimeClaim};
use crate::model::id::{LabName, SessionName, UserGroupName, UserName, VmName};
use crate::model::lab::{AddedTime, Desired, Session};
use crate::state::{ApplyInfo, Change, Intent, Outcome, PastClaim, Recorded, Store};

pub use check::{Finding, check};
pub use limits::InTheWay;
pub use people::{Sitter, Sitting, sitters};
pub use record::{Verified, record, verify};
pub use status::{Machine, Status, status};
pub use story::{Happened, story};
pub use submissions::{Submission, SubmissionState, collect_due, is_waiting, submissions};
pub(super) use tell::tell_what_came;

/// More people than this are touched only if it is agreed to.
const PEOPLE_UNASKED: usize = 10;
/// The same act within this time of the last one may be a second press of the same key.
const TWICE_SECONDS: i64 = 30;
/// How many of a session's latest claims are looked through for those that an act put an end to.
const PAST_MAX: u32 = 10_000;

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
    /// They need more of its time than others, or begin at another one.
    Accommodate {
        /// What each of them has; what is not said stays as it is.
        of: Accommodation,
    },
    /// The last act counts no more, whoever it was about; or what one claim says.
    Undo {
        /// By its number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<ClaimId>,
    },
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
            Self::Accommodate { .. } => "accommodate",
            Self::Undo { .. } => "undo",
        }
    }

    fn is_need(self) -> bool {
        matches!(self, Self::Accommodate { .. })
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
    #[error("what people need is each one's own: it is not given to all; nothing was changed")]
    NobodysNeed,
    #[error("session `{session}` has not begun then, and nobody starts before it does; nothing was changed")]
    StartsBefore { session: SessionName, start: Timestamp },
    #[error("that does not fit for {user}; nothing was changed")]
    NoRoom { user: UserName, seconds: i64, latest: Timestamp, way: InTheWay },
    #[error("nothing was done to the session's times that could be taken back")]
    NothingToUndo,
    #[error("session `{session}` has no record: exams have one, from the apply on that first knew them")]
    NoRecord { session: SessionName },
    #[error("row {row} of the record of session `{session}` is not what was written")]
    Rewritten { session: SessionName, row: u64 },
    #[error("no row of the record of session `{session}` has this hash; the last one has {head}")]
    OtherHead { session: SessionName, head: String },
}

impl SessionError {
    pub fn code(&self) -> Code {
        match self {
            Self::NobodySaid { .. } | Self::PauseBegins { .. } | Self::TooFar { .. } | Self::NobodysNeed => Code::Usage,
            Self::BeforeStart { .. } | Self::StandsStill { .. } | Self::NoRoom { .. } | Self::StartsBefore { .. } => {
                Code::Refused
            }
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
    /// All that was ever done to it, where that is asked for.
    past: Vec<PastClaim>,
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
    let is_undo = matches!(wanted.doing, Doing::Undo { .. });
    let past = if is_undo { store.claims_on(of.name(), name.as_str(), PAST_MAX)? } else { Vec::new() };
    let held = Held { name, session, lab: &lab, recorded: &recorded, past, now: Timestamp::now() };
    let meant = held.meant(if is_undo { Some(&Whose::All) } else { wanted.whose.as_ref() })?;
    let changes = held.changes(wanted, &meant)?;
    let after = changes.session(&held);
    held.refuse_before_start(&after, &meant)?;
    held.refuse_beyond(wanted.doing, &after, &meant)?;
    let people = held.moved(&after, &meant);
    let again_after_seconds = held.done_before(&changes.put);
    if !wanted.is_agreed && (people.len() > PEOPLE_UNASKED || again_after_seconds.is_some()) {
        return Ok(Answer::Asks(Question { people: people.len(), again_after_seconds }));
    }
    let moved = |user: &UserName| Moved { user: user.clone(), was: session.end_of(user), is: after.end_of(user) };
    let moved = people.iter().map(moved).collect();
    let intent = Intent { address: Address::new(Kind::Session, name), effect: wanted.doing.verb() };
    let info = asks(context, name, wanted.doing, people.len());
    let written = changes.written(name, &context.caller.name, wanted.doing);
    store.note_and_record(of.name(), &info, &[(intent, Outcome::Done)], &written, held.now)?;
    let (told, untold) = tell_now(context, &mut store, of.name(), &held, &people)?;
    Ok(Answer::Done(Done { people: moved, told, untold }))
}

/// For the history; of what people need it says of how many.
fn asks(context: &Context, name: &SessionName, doing: Doing, people: usize) -> ApplyInfo {
    let summary = format!("session {} {name}", doing.verb());
    let info = context.apply_info(&summary);
    match doing.is_need() {
        true => ApplyInfo { command: format!("{summary}, of {people}"), ..info },
        false => info,
    }
}

/// By what is recorded now: an apply may have started guests since the decision was made, and others moved times.
fn tell_now(
    context: &Context,
    store: &mut Store,
    lab: &LabName,
    held: &Held<'_>,
    people: &[UserName],
) -> Result<(usize, Vec<Untold>), ControlError> {
    let recorded = store.recorded(lab)?;
    let lab = understood(lab.clone(), &recorded)?;
    let Some(after) = lab.sessions.get(held.name) else { return Ok((0, Vec::new())) };
    let held = Held { lab: &lab, recorded: &recorded, past: Vec::new(), ..*held };
    Ok(held.tell(context, after, people))
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
    put: Vec<ClaimBody>,
    end: Vec<ClaimId>,
}

impl Changes {
    fn putting(times: Vec<TimeClaim>) -> Self {
        Self { put: times.into_iter().map(ClaimBody::Time).collect(), end: Vec::new() }
    }

    /// The session as it is with them.
    fn session(&self, held: &Held<'_>) -> Session {
        let stays = |claim: &&Claim| !self.end.contains(&claim.id);
        let (name, at) = (held.name.to_string(), held.now);
        let new =
            |body: &ClaimBody| Claim { id: ClaimId(0), name: name.clone(), body: body.clone(), by: String::new(), at };
        let put: Vec<Claim> = self.put.iter().map(new).collect();
        let added = AddedTime::of(&name, held.recorded.claims.iter().filter(stays).chain(&put));
        Session { added, ..held.session.clone() }
    }

    fn written(self, name: &SessionName, by: &str, doing: Doing) -> Vec<Change> {
        let did = if matches!(doing, Doing::Undo { .. }) { "took it back" } else { "let it go on" };
        let end = self.end.into_iter().map(|id| Change::EndClaim { id, why: format!("{by} {did}") });
        let put = self.put.into_iter().map(|body| Change::PutClaim { name: name.to_string(), body, by: by.to_owned() });
        end.chain(put).collect()
    }
}
