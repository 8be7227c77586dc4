//! Sessions, and what was done to their times, in words.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::plain_words::count;
use super::table::{Column, Row, column, wide, word};
use super::times;
use crate::control::session::{
    Doing, Done, InTheWay, Moved, Question, SessionError, Sitter, Submission, Wanted, Whose,
};
use crate::model::id::{SessionName, UserName};

impl Row for Sitter {
    const COLUMNS: &'static [Column<Self>] = &[
        column("user", |sitter| sitter.user.to_string()),
        column("state", |sitter| word(&sitter.state)),
        column("end", |sitter| sitter.end.as_ref().map_or_else(String::new, times::moment)),
        column("left", |sitter| sitter.left_seconds.map_or_else(String::new, length)),
        column("vms", |sitter| sitter.vms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        wide("start", |sitter| times::moment(&sitter.start)),
    ];
    fn name(&self) -> String {
        self.user.to_string()
    }
}

impl Row for Submission {
    const COLUMNS: &'static [Column<Self>] = &[
        column("user", |of| of.user.to_string()),
        column("vm", |of| of.vm.to_string()),
        column("state", |of| word(&of.state)),
        column("files", |of| of.files.to_string()),
        column("bytes", |of| of.bytes.to_string()),
        column("collected", |of| of.collected.as_ref().map_or_else(String::new, times::moment)),
        column("due", |of| of.due.as_ref().map_or_else(String::new, times::moment)),
        column("note", |of| of.note.clone().unwrap_or_default()),
        wide("folder", |of| of.folder.as_ref().map_or_else(String::new, |folder| folder.display().to_string())),
    ];
    fn name(&self) -> String {
        self.vm.to_string()
    }
}

/// As it is typed: `1h30m`.
pub(super) fn length(seconds: u64) -> String {
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let text: String = parts.map(|(number, unit)| format!("{number}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// How many are named one by one.
const PEOPLE_SHOWN: usize = 20;

/// Each one's end, who was told, and what undoes it.
pub fn done(session: &SessionName, wanted: &Wanted, done: &Done) -> String {
    let mut text = String::new();
    for moved in done.people.iter().take(PEOPLE_SHOWN) {
        let _ = writeln!(text, "  {}  {} -> {}", moved.user, end(moved.was), end(moved.is));
    }
    if let Some(more) = done.people.len().checked_sub(PEOPLE_SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more");
    }
    let verb = wanted.doing.verb();
    let people = count(done.people.len(), "person", "people");
    let _ = writeln!(text, "session {verb} {session}: {people}, {} told", count(done.told, "guest", "guests"));
    for untold in &done.untold {
        let _ = writeln!(text, "  {} could not be told, the next plan does it: {}", untold.vm, untold.why);
    }
    if let Some(command) = undo(session, wanted, &done.people) {
        let _ = writeln!(text, "undo: {command}");
    }
    text
}

fn end(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "stands still".to_owned(), times::local)
}

/// What undoes it, in one line where there is one.
fn undo(session: &SessionName, wanted: &Wanted, people: &[Moved]) -> Option<String> {
    let general = || Some(format!("labwright session undo {session}"));
    if matches!(wanted.doing, Doing::Accommodate { .. } | Doing::Resume) {
        return general();
    }
    let whose = scope(wanted.whose.as_ref()?);
    let by = |moved: &Moved| Some(moved.is?.as_second() - moved.was?.as_second());
    Some(match wanted.doing {
        Doing::Pause { .. } => format!("labwright session resume {session} {whose}; the pause is added to each end"),
        Doing::Resume | Doing::Accommodate { .. } | Doing::Undo { .. } => return None,
        Doing::Extend { .. } | Doing::EndAt { .. } | Doing::EndNow => {
            let seconds = people.first().and_then(by)?;
            if !people.iter().all(|moved| by(moved) == Some(seconds)) {
                return general();
            }
            let verb = if seconds > 0 { "subtract" } else { "extend" };
            format!("labwright session {verb} {session} {whose} {}", length(seconds.unsigned_abs()))
        }
    })
}

fn scope(whose: &Whose) -> String {
    match whose {
        Whose::All => "--all".to_owned(),
        Whose::Group(group) => format!("--group {group}"),
        Whose::Users(users) => {
            let users: Vec<String> = users.iter().map(ToString::to_string).collect();
            format!("--user {}", users.join(","))
        }
    }
}

/// Whose time is longer than a copy of the state knew.
pub fn longer(people: &[UserName]) -> Option<String> {
    let names: Vec<&str> = people.iter().map(|user| user.as_str()).collect();
    let names = names.join(", ");
    (!people.is_empty())
        .then(|| format!("more time than the copy knew of stays, since running guests were told so: {names}"))
}

/// Whether it is meant.
pub fn question(session: &SessionName, wanted: &Wanted, asks: &Question) -> String {
    let verb = wanted.doing.verb();
    let people = count(asks.people, "person", "people");
    match asks.again_after_seconds {
        Some(seconds) => {
            format!("the same was done {seconds} s ago: `session {verb} {session}` again, for {people}?")
        }
        None => format!("`session {verb} {session}` for {people}?"),
    }
}

/// What to do next.
pub(super) fn hint(error: &SessionError) -> Option<String> {
    Some(match error {
        SessionError::NobodySaid { people, groups, .. } => {
            let groups = groups.iter().map(|(group, number)| format!(", `--group {group}` touches {number}"));
            format!("`--all` touches {people}{}, `--user NAME` one", groups.collect::<String>())
        }
        SessionError::TakesNoPart { session, .. } | SessionError::NobodyOf { session, .. } => {
            format!("`labwright session show {session}` lists who does")
        }
        SessionError::StandsStill { user } => {
            format!("`labwright session resume … --user {user}` lets it go on; then there is an end to move")
        }
        SessionError::Rewritten { session, .. } | SessionError::OtherHead { session, .. } => format!(
            "a copy of the state from before, or `labwright session record {session} -o json` of that day, shows what it was"
        ),
        SessionError::Paused => "`labwright session resume` lets it go on".to_owned(),
        SessionError::NoRoom { seconds, latest, way, .. } => {
            let most = match u64::try_from(*seconds) {
                Ok(seconds @ 1..) => {
                    format!("{} more is the longest that does, until {}", length(seconds), times::local(*latest))
                }
                _ => "no more does".to_owned(),
            };
            match way {
                InTheWay::LatestEnd => {
                    format!("{most}: that is the session's `latest_end`, which the manifest may move")
                }
                InTheWay::Session(next) => format!("{most}: then session `{next}` has the machine"),
            }
        }
        SessionError::StartsBefore { start, .. } => {
            format!("it starts {}: write the date, too, if it is not today", times::local(*start))
        }
        SessionError::NobodysNeed => "name who needs it with `--user`, or a `--group` of them".to_owned(),
        SessionError::BeforeStart { .. } => "to call it off, take it out of the manifest".to_owned(),
        _ => return None,
    })
}
