//! Grid Engine: jobs of a cluster, through the command line tools that all its descendants share (Sun's, Son of Grid
//! Engine, Univa's and Altair's, Open Cluster Scheduler). Submissions come in as arrays, the queue goes out as tasks.
//! Never tells the descendants apart, never starts a shell but the one line that hands a task its number, and never asks
//! once per task.
//!
//! ```text
//! submit     qsub -terse -t 1-N -b y ...    one array; Refused: no job was made. Doubtful: look for the mark.
//! list       qstat -f -u ACCOUNT -r -xml    tasks, and which hosts are lost
//!            qstat -j JOBS -xml             only where something waits or is stuck: why
//! kill       qdel JOB.FIRST-LAST ...        SIGUSR2 at once, SIGKILL after the queue's `notify`
//! capacity   qstat -f -u '*' -r -F MEMORY   slots and memory of every host
//! ```
//!
//! `list` asks for the jobs of our account alone, so a job of somebody else that has our mark is never seen. It could only be
//! shown: nothing of another account is ever counted, adopted or killed. To show it, each plan would have to fetch and read
//! all jobs of a shared cluster, since the tools filter by account and not by name: some 100 to 200 ms and 3 MB for 5,000.
//! An admin who wonders asks `qstat -u '*'`.
//!
//! What the tools say is read by field name; unknown fields are passed over (`xml`, `queue`, `reasons`). The states of a
//! task and of the queue it runs in are folded together in `queue`: a task on a host that nobody hears from is *unknown*.

mod accounting;
mod answers;
mod check;
mod client;
mod engine;
mod here;
mod hosts;
mod queue;
mod reasons;
mod xml;

pub use accounting::Account;
pub use engine::GridEngine;
pub use queue::{Entry, Folded, Instance, Queue};
pub use reasons::Reasons;

pub use xml::XmlError;

/// The readers of the tools' answers, for tests over recorded ones.
pub mod read {
    use super::{Account, Queue, Reasons, XmlError};
    use crate::model::job::JobId;

    pub use super::hosts::ExecHost;

    /// `qstat -xml`, with or without `-f`, `-r`, `-ext`, `-F`, `-g d`.
    pub fn queue(xml: &str) -> Result<Queue<'_>, XmlError> {
        super::queue::parse(xml)
    }

    /// `qstat -j -xml`.
    pub fn reasons(xml: &str) -> Result<Reasons, XmlError> {
        super::reasons::parse(xml)
    }

    /// `qhost -xml`, with or without `-F`, `-q`, `-j`.
    pub fn hosts(xml: &str) -> Result<Vec<ExecHost>, XmlError> {
        super::hosts::parse(xml)
    }

    /// `qacct -j`.
    pub fn accounts(text: &str, memory_resource: &str) -> Vec<Account> {
        super::accounting::parse(text, memory_resource)
    }

    /// `qsub -terse`.
    pub fn submitted(stdout: &str) -> Option<JobId> {
        super::answers::submitted(stdout)
    }

    /// Whether a failed tool did not reach the qmaster.
    pub fn is_silence(stderr: &str) -> bool {
        super::answers::is_silence(stderr)
    }

    /// Whether a failed `qsub` certainly made no job.
    pub fn is_refusal(stderr: &str) -> bool {
        super::answers::is_refusal(stderr)
    }
}
