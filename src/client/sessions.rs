//! An exam or a class and its times, whichever way.

use serde::de::DeserializeOwned;

use super::{Ended, Way, watch};
use crate::control::ControlError;
use crate::control::own::Lab;
use crate::control::session::{self, Answer, Happened, Sitter, Status, Submission, Wanted};
use crate::control::view::{self, View};
use crate::exit::Exit;
use crate::model::id::{SessionName, UserName};
use crate::report::table::Format;
use crate::report::{Failure, Ui, session as words, session_status};
use crate::state::SessionRecord;

impl Way {
    pub fn sessions(&self) -> Result<Vec<view::Session>, Failure> {
        Ok(match self {
            Self::Daemon(lab) => lab.table("sessions")?,
            Self::Here(lab) => lab.0.view(&lab.1)?.seen_sessions()?,
        })
    }

    /// Who takes part, and how their times stand.
    pub fn sitters(&self, session: &SessionName) -> Result<Vec<Sitter>, Failure> {
        self.of_session(session, &[], session::sitters)
    }

    /// Shows how its machines stand, over and over where somebody watches.
    pub fn watch_session(&self, session: &SessionName, format: Format, is_watched: bool, ui: &Ui) -> Ended {
        let status = self.session_status(session)?;
        ui.data(&session_status::text(&status, format));
        match (is_watched, status.is_ready) {
            (true, _) => {
                let look = || Ok(session_status::text(&self.session_status(session)?, format));
                watch::on(look, |text| ui.redraw(text), ui)
            }
            (false, true) => Ok(Exit::Done),
            (false, false) => Ok(Exit::NotReady),
        }
    }

    fn session_status(&self, session: &SessionName) -> Result<Status, Failure> {
        self.of_session(session, &["status"], session::status)
    }

    /// Shows whether it will find what it needs.
    pub fn check_session(&self, session: &SessionName, format: Format, ui: &Ui) -> Ended {
        let findings = self.of_session(session, &["check"], session::check)?;
        let (is_green, page) = session_status::checked(session, &findings, format);
        ui.data(&page);
        Ok(if is_green { Exit::Done } else { Exit::NotReady })
    }

    /// What became of one person.
    pub fn story(&self, session: &SessionName, user: &UserName) -> Result<Vec<Happened>, Failure> {
        self.of_session(session, &["people", user.as_str()], |view, session| session::story(view, session, user))
    }

    /// Moves times, once it is agreed to, and shows what came of it.
    pub fn told_times(&self, session: &SessionName, mut wanted: Wanted, ui: &Ui) -> Ended {
        let done = match self.move_times(session, &wanted)? {
            Answer::Done(done) => done,
            Answer::Asks(question) => {
                ui.confirmed(&words::question(session, &wanted, &question), "changed")?;
                wanted.is_agreed = true;
                match self.move_times(session, &wanted)? {
                    Answer::Done(done) => done,
                    Answer::Asks(_) => return Ok(Exit::Refused),
                }
            }
        };
        ui.data(&words::done(session, &wanted, &done));
        Ok(Exit::Done)
    }

    /// How everybody's submission stands.
    pub fn submissions(&self, session: &SessionName) -> Result<Vec<Submission>, Failure> {
        self.of_session(session, &["submissions"], session::submissions)
    }

    pub fn session_record(&self, session: &SessionName) -> Result<SessionRecord, Failure> {
        self.of_session(session, &["record"], session::record)
    }

    /// What one looks at of a session: by the daemon below this path, here by this function.
    fn of_session<T: DeserializeOwned>(
        &self,
        session: &SessionName,
        path: &[&str],
        here: impl FnOnce(&View<'_>, &SessionName) -> Result<T, ControlError>,
    ) -> Result<T, Failure> {
        Ok(match self {
            Self::Daemon(lab) => lab.session(session, path)?,
            Self::Here(lab) => here(&lab.0.view(&lab.1)?, session)?,
        })
    }

    /// Moves times, or says what is to be agreed to first.
    fn move_times(&self, session: &SessionName, wanted: &Wanted) -> Result<Answer, Failure> {
        Ok(match self {
            Self::Daemon(lab) => lab.move_times(session, wanted)?,
            Self::Here(lab) => session::act(&lab.0, Lab::AsApplied(&lab.1.lab), session, wanted)?,
        })
    }
}
