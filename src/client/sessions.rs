//! An exam or a class and its times, whichever way.

use super::Way;
use crate::control::own::Lab;
use crate::control::session::{self, Answer, Sitter, Wanted};
use crate::control::view;
use crate::model::id::SessionName;
use crate::report::Failure;

impl Way {
    pub fn sessions(&self) -> Result<Vec<view::Session>, Failure> {
        Ok(match self {
            Self::Daemon(lab) => lab.table("sessions")?,
            Self::Here(lab) => lab.0.view(&lab.1)?.seen_sessions()?,
        })
    }

    /// Who takes part, and how their times stand.
    pub fn sitters(&self, session: &SessionName) -> Result<Vec<Sitter>, Failure> {
        Ok(match self {
            Self::Daemon(lab) => lab.sitters(session)?,
            Self::Here(lab) => session::sitters(&lab.0.view(&lab.1)?, session)?,
        })
    }

    /// Moves times, or says what is to be agreed to first.
    pub fn move_times(&self, session: &SessionName, wanted: &Wanted) -> Result<Answer, Failure> {
        Ok(match self {
            Self::Daemon(lab) => lab.move_times(session, wanted)?,
            Self::Here(lab) => session::act(&lab.0, Lab::AsApplied(&lab.1.lab), session, wanted)?,
        })
    }
}
