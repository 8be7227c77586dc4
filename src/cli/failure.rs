//! What `control` and the rooms below it say no with, as it is told to a person at a command line: with an exit code, and what
//! to type next.

use crate::control::{Code, ControlError};
use crate::exit::Exit;
use crate::model::site::StorageError;
use crate::observe::ObserveError;
use crate::report::Failure;
use crate::run::RunFileError;
use crate::scheduler::SchedulerError;
use crate::state::StateError;

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        match code {
            Code::Failed => Self::Failed,
            Code::Invalid => Self::Invalid,
            Code::Refused => Self::Refused,
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let failure = Self::from_error(error.code().into(), &error);
        match hint(&error) {
            Some(hint) => failure.hint(hint),
            None if failure.hint.is_none() && matches!(error, ControlError::Observe(_)) => {
                failure.hint("nothing was changed: without seeing what is there, no plan is made")
            }
            None => failure,
        }
    }
}

fn hint(error: &ControlError) -> Option<String> {
    Some(match error {
        ControlError::State(error) => return error.hint(),
        ControlError::Storage(_) => "nothing else was changed; see `storage:` in site.yaml".to_owned(),
        ControlError::NotText { .. } => {
            "labwright writes this path into its state and into files that programs read: rename the folder".to_owned()
        }
        ControlError::NoServiceUser { name } => format!(
            "make it with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`, \
             or set `service_user:` in site.yaml"
        ),
        _ => return None,
    })
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        ControlError::from(error).into()
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        ControlError::from(error).into()
    }
}

impl From<ObserveError> for Failure {
    fn from(error: ObserveError) -> Self {
        ControlError::from(error).into()
    }
}

impl From<SchedulerError> for Failure {
    fn from(error: SchedulerError) -> Self {
        ControlError::from(error).into()
    }
}

impl From<RunFileError> for Failure {
    fn from(error: RunFileError) -> Self {
        ControlError::from(error).into()
    }
}
