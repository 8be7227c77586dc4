//! Jobs and their tasks as a batch system shows them, whichever it is.

/// A job's number, as the batch system gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One task of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct TaskId {
    pub job: JobId,
    pub task: u32,
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.job, self.task)
    }
}

/// A task as the batch system shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    pub name: String,
    pub owner: String,
    pub state: TaskState,
    /// Where it runs.
    pub host: Option<String>,
}

/// States as Grid Engine's `qstat(1)` names them, folded to what makes a difference to us.
///
/// ```text
/// pending ─▶ transferring ─▶ running ─▶ (gone)      unknown: on a host that does not answer; never taken for dead
///    │ ▲                        │ ▲                 error:   needs a person (`Eqw`)
///    ▼ │                        ▼ │                 deleting: killed, not gone yet
///   held                     suspended
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Waits; the reason where the batch system tells one.
    Pending {
        reason: Option<String>,
    },
    Held,
    /// On its way to its host.
    Transferring,
    Running,
    Suspended,
    Deleting,
    Unknown,
    /// What went wrong and, where the batch system has a word for it, the command that lets it wait again.
    Error {
        reason: Option<String>,
        again: Option<String>,
    },
}

impl TaskState {
    /// One word, for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Held => "held",
            Self::Transferring => "transferring",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
            Self::Unknown => "unknown",
            Self::Error { .. } => "error",
        }
    }

    /// Why it is so, where there is more to say than one word.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Pending { reason } => reason.clone(),
            Self::Error { reason, again: None } => reason.clone(),
            Self::Error { reason, again: Some(again) } => {
                let reason = reason.as_deref().unwrap_or("the batch system does not say why");
                Some(format!("{reason}; when that is mended, `{again}` lets it wait again"))
            }
            _ => None,
        }
    }
}
