//! `qacct -j` in, how tasks ended and what they used out. The file behind it may be gigabytes: only commands about the
//! past ask it, never a plan.

use crate::model::job::{JobId, TaskId};

/// One ended task.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    pub id: TaskId,
    pub name: String,
    pub owner: String,
    pub host: String,
    /// When it started and ended, as `qacct` writes them: in the time zone of the account that asks.
    pub started: String,
    pub ended: String,
    pub seconds: u64,
    pub slots: u32,
    pub exit_status: i32,
    /// Grid Engine's number and words for what went wrong; 0 is nothing. 100 is a kill, 19 a lost host.
    pub failed: u32,
    pub failed_words: String,
    /// Memory that the job had asked for, in MiB.
    pub memory_mib: Option<u64>,
}

impl Account {
    /// How it ended, in words, unless it ended by itself and well.
    pub(super) fn wrong(&self) -> Option<String> {
        // A shell's way to tell a signal.
        let signal = (self.exit_status > 128).then(|| format!("signal {}", self.exit_status - 128));
        match (self.failed, self.exit_status, signal) {
            (0, 0, _) => None,
            // "assumedly after job": it had run, and a signal ended it.
            (100 | 0, _, Some(signal)) => Some(format!("{signal} ended it")),
            (0, exit, None) => Some(format!("it ended with exit status {exit}")),
            (19, ..) => Some("its host was lost, or its execution daemon".to_owned()),
            (number, ..) => Some(format!("it failed {} (Grid Engine's failure {number})", self.failed_words)),
        }
    }
}

/// Reads what `qacct -j` prints; `memory_resource` is what memory is called in requests.
pub(super) fn parse(text: &str, memory_resource: &str) -> Vec<Account> {
    text.split("\n==============")
        .filter_map(|block| {
            let field = |name: &str| {
                let line = block.lines().find(|line| line.split_whitespace().next() == Some(name));
                line.map_or("", |line| line.trim_start()[name.len()..].trim())
            };
            let number = |name: &str| field(name).trim_end_matches('s').parse::<f64>().unwrap_or(0.0);
            let (failed, failed_words) = field("failed").split_once(':').unwrap_or((field("failed"), ""));
            Some(Account {
                id: TaskId { job: JobId(field("jobnumber").parse().ok()?), task: field("taskid").parse().unwrap_or(1) },
                name: field("jobname").to_owned(),
                owner: field("owner").to_owned(),
                host: field("hostname").to_owned(),
                started: field("start_time").to_owned(),
                ended: field("end_time").to_owned(),
                seconds: number("ru_wallclock").max(0.0) as u64,
                slots: field("slots").parse().unwrap_or(1),
                exit_status: field("exit_status").split_whitespace().next()?.parse().ok()?,
                failed: failed.trim().parse().unwrap_or(0),
                failed_words: failed_words.trim().to_owned(),
                memory_mib: requested(field("category"), memory_resource),
            })
        })
        .collect()
}

/// `vm_mem` of `-U arusers -l hostname=ge-h1,vm_mem=5G`.
fn requested(category: &str, resource: &str) -> Option<u64> {
    let mut words = category.split_whitespace();
    words.find(|word| *word == "-l")?;
    let request = words.next()?.split(',').find_map(|part| part.strip_prefix(resource)?.strip_prefix('='));
    super::queue::size_mib(request?)
}
