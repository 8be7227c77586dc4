//! `qstat -j JOBS -xml` in, why jobs wait and what went wrong with tasks out, in the scheduler's words. Its state field
//! is a number that differs between descendants of Grid Engine, so states come from `queue` alone.

use std::collections::BTreeMap;

use super::XmlError;
use super::xml::{Part, read};
use crate::model::job::JobId;

/// How many of the scheduler's remarks on one job are shown; it makes one per queue and host.
const REMARKS_MAX: usize = 3;

/// Why things are as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons {
    /// Remarks on single jobs.
    waits: BTreeMap<JobId, Vec<String>>,
    /// Remarks on the cluster as a whole, such as hosts that do not answer.
    general: Vec<String>,
    /// What went wrong when a task was last started.
    errors: BTreeMap<(JobId, u32), String>,
    /// Said of a job's tasks that have no entry of their own.
    job_errors: BTreeMap<JobId, String>,
}

impl Reasons {
    /// Why a job waits.
    pub fn wait(&self, job: JobId) -> Option<String> {
        let remarks = self.waits.get(&job).unwrap_or(&self.general);
        let shown: Vec<&str> = remarks.iter().take(REMARKS_MAX).map(String::as_str).collect();
        let more = remarks.len().saturating_sub(REMARKS_MAX);
        match (shown.is_empty(), more) {
            (true, _) => None,
            (false, 0) => Some(shown.join("; ")),
            (false, more) => Some(format!("{}; and {more} more like these", shown.join("; "))),
        }
    }

    /// What went wrong with a task.
    pub fn error(&self, job: JobId, task: u32) -> Option<String> {
        self.errors.get(&(job, task)).or_else(|| self.job_errors.get(&job)).cloned()
    }
}

/// Reads an answer. Jobs that are gone by now are no error: `unknown_jobs` says nothing of the others.
pub(super) fn parse(xml: &str) -> Result<Reasons, XmlError> {
    let mut reader = ReasonsReader::default();
    match read(xml, "detailed_job_info", |part| reader.part(part)) {
        Err(XmlError::Root { found, .. }) if found == "unknown_jobs" => Ok(Reasons::default()),
        Err(error) => Err(error),
        Ok(()) => Ok(reader.reasons),
    }
}

#[derive(Default)]
struct ReasonsReader {
    reasons: Reasons,
    /// Number of the job that is being read; 0 before the first.
    job: u64,
    task: u32,
    error: Option<String>,
    in_general: bool,
    jobs: Vec<JobId>,
    remark: Option<String>,
}

impl ReasonsReader {
    fn part(&mut self, part: Part<'_>) {
        match part {
            Part::Open { name: "JB_ja_tasks", .. } => (self.task, self.error) = (0, None),
            Part::Open { name: "SME_global_message_list", .. } => self.in_general = true,
            Part::Open { .. } => {}
            Part::Close { name, text } => self.field(name, &text),
        }
    }

    fn field(&mut self, name: &str, text: &str) {
        match name {
            "JB_job_number" => self.job = text.parse().unwrap_or(0),
            "JAT_task_number" => self.task = text.parse().unwrap_or(0),
            "QIM_message" => self.error = Some(without_stamp(text).to_owned()),
            // The list ends before the task that it belongs to, and tells its number before or after it.
            "JAT_start_time" | "JB_ja_tasks" => self.keep_error(),
            "ULNG_value" => self.jobs.extend(text.parse().ok().map(JobId)),
            "MES_message" => self.remark = Some(text.to_owned()),
            "SME_global_message_list" => self.in_general = false,
            "element" => self.keep_remark(),
            _ => {}
        }
    }

    fn keep_error(&mut self) {
        let Some(error) = self.error.take() else { return };
        let job = JobId(self.job);
        self.reasons.job_errors.entry(job).or_insert_with(|| error.clone());
        self.reasons.errors.insert((job, self.task), error);
    }

    fn keep_remark(&mut self) {
        let Some(remark) = self.remark.take() else { return };
        if self.in_general {
            self.reasons.general.push(remark);
            return;
        }
        for job in self.jobs.drain(..) {
            let remarks = self.reasons.waits.entry(job).or_default();
            if !remarks.contains(&remark) {
                remarks.push(remark.clone());
            }
        }
    }
}

/// `11/23/2026 18:30:03 [2001:450]: error: can't chdir` without time, account and pid.
fn without_stamp(text: &str) -> &str {
    match text.split_once("]: ") {
        Some((stamp, rest)) if stamp.len() < 60 && stamp.contains('[') => rest,
        _ => text,
    }
}
