//! `labwright get jobs` and `labwright get usage`: what runs and what ran, and what that used.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::control::Context;
use crate::control::view::Listed;
use crate::disks::Owner;
use crate::model::id::LabName;
use crate::observe::{Observed, past};
use crate::report::table::Row;
use crate::report::{Failure, Ui, one_line, times};
use crate::run::BatchId;
use crate::state::{PastRun, Recorded};

/// One job: in the queue, or over.
#[derive(Debug, Serialize)]
pub(super) struct JobRow {
    job: Option<String>,
    vm: Option<String>,
    run: Option<String>,
    /// As the queue has it; `gone` without a word, or `ended`.
    state: &'static str,
    host: Option<String>,
    #[serde(serialize_with = "times::serialize_some")]
    started: Option<Timestamp>,
    #[serde(serialize_with = "times::serialize_some")]
    ended: Option<Timestamp>,
    run_seconds: u64,
    owner: String,
    /// Why it waits, what is wrong with it, or why it ended.
    reason: Option<String>,
    #[serde(skip)]
    created: String,
}

impl Row for JobRow {
    const COLUMNS: &'static [&'static str] =
        &["job", "vm", "run", "state", "host", "started", "run_time", "reason", "owner"];
    const WIDE: &'static [&'static str] = &["owner"];
    const YIELDING: &'static [&'static str] = &["run", "started", "job"];
    fn cells(&self) -> Vec<String> {
        let shown = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            shown(&self.job),
            shown(&self.vm),
            shown(&self.run),
            self.state.into(),
            shown(&self.host),
            self.started.map(times::local).unwrap_or_default(),
            clock(self.run_seconds),
            self.reason.as_deref().map(one_line).unwrap_or_default(),
            self.owner.clone(),
        ]
    }
}

impl Listed for JobRow {
    fn key(&self) -> &str {
        self.vm.as_deref().unwrap_or_default()
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.owner)
    }
}

/// What one user's vms of a lab used so far.
#[derive(Debug, Default, Serialize)]
pub(super) struct UsageRow {
    user: String,
    lab: String,
    vms: usize,
    runs: usize,
    run_seconds: u64,
    memory_gib_hours: f64,
}

impl Row for UsageRow {
    const COLUMNS: &'static [&'static str] = &["user", "lab", "vms", "runs", "run_time", "memory_gib_hours"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.user.clone(),
            self.lab.clone(),
            self.vms.to_string(),
            self.runs.to_string(),
            clock(self.run_seconds),
            format!("{:.2}", self.memory_gib_hours),
        ]
    }
}

impl Listed for UsageRow {
    fn key(&self) -> &str {
        &self.user
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.user)
    }
}

/// `h:mm:ss`.
fn clock(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Everything that carries this lab's mark, newest first: what is in the queue, known to us or not, then what is over.
pub(super) fn job_rows(
    context: &Context,
    lab: &LabName,
    recorded: &Recorded,
    observed: &Observed,
    ui: &Ui,
) -> Result<Vec<JobRow>, Failure> {
    let mut in_queue = observed.tasks.clone();
    let mut rows = Vec::new();
    for (past, used) in runs_used(context, lab, recorded, ui)? {
        let task = past.batch().and_then(|batch| in_queue.remove(&(batch, past.task)));
        let state = match &task {
            Some(task) => task.state.word(),
            None if past.state == "intended" => "intended",
            None if past.is_ended() || used.ended.is_some() => "ended",
            // It is looked at again by the next apply.
            None => "gone",
        };
        let job = task.as_ref().map(|task| task.id.to_string());
        let owner = used.owner.clone().or_else(|| Some(recorded.vms.get(past.vm.as_str())?.vm.owner.to_string()));
        rows.push(JobRow {
            job: job.or_else(|| Some(format!("{}.{}", past.job?, past.task))),
            vm: Some(past.vm.clone()),
            run: Some(past.run.clone()),
            state,
            host: used.host.or_else(|| task.as_ref()?.host.clone()),
            started: used.started,
            ended: used.ended,
            run_seconds: used.seconds,
            owner: owner.unwrap_or_default(),
            reason: task.as_ref().and_then(|task| task.state.reason()).or_else(|| past.end()).or(used.reason),
            created: past.created_at.clone(),
        });
    }
    rows.sort_by(|a, b| (a.state == "ended").cmp(&(b.state == "ended")).then_with(|| b.created.cmp(&a.created)));
    rows.extend(in_queue.into_values().map(|task| JobRow {
        job: Some(task.id.to_string()),
        vm: None,
        run: None,
        state: task.state.word(),
        host: task.host.clone(),
        started: None,
        ended: None,
        run_seconds: 0,
        owner: String::new(),
        reason: Some(format!("{} belongs to no run we know", task.name)),
        created: String::new(),
    }));
    Ok(rows)
}

/// Per user, by name; runs whose owner nobody knows any more stand under `?`.
pub(super) fn usage_rows(
    context: &Context,
    lab: &LabName,
    recorded: &Recorded,
    ui: &Ui,
) -> Result<Vec<UsageRow>, Failure> {
    let mut by_user: BTreeMap<String, (std::collections::BTreeSet<String>, UsageRow)> = BTreeMap::new();
    for (past, used) in runs_used(context, lab, recorded, ui)? {
        let of_vm = || Some(recorded.vms.get(past.vm.as_str())?.vm.owner.to_string());
        let memory_hours = used.memory_hours();
        let user = used.owner.or_else(of_vm).unwrap_or_else(|| "?".to_owned());
        let (vms, row) = by_user.entry(user).or_default();
        vms.insert(used.vm);
        row.runs += 1;
        row.run_seconds += used.seconds;
        row.memory_gib_hours += memory_hours;
    }
    let row = |(user, (vms, row)): (String, (std::collections::BTreeSet<String>, UsageRow))| UsageRow {
        user,
        lab: lab.to_string(),
        vms: vms.len(),
        ..row
    };
    Ok(by_user.into_iter().map(row).collect())
}

/// What each run used. The batch system's books are read at most once, and only for runs that left no report; where they
/// cannot be read, that is said and the rest stands.
fn runs_used(
    context: &Context,
    lab: &LabName,
    recorded: &Recorded,
    ui: &Ui,
) -> Result<Vec<(PastRun, past::Used)>, Failure> {
    let Some(store) = context.store_if_any()? else { return Ok(Vec::new()) };
    // Looking changes no owner, so any will do.
    let runs = context.runs(Owner { uid: 0, gid: 0 }).root;
    let now = Timestamp::now();
    let mut all = Vec::new();
    for past in store.all_runs(lab)? {
        let used = past::used(&past, &runs, now)?;
        all.push((past, used));
    }
    let silent = all.iter().filter(|(past, used)| past::needs_books(past, used)).count();
    if silent > 0 {
        match context.scheduler()?.ended(&BatchId::job_names(&recorded.site, lab)) {
            Ok(ended) => {
                let books = past::books(&recorded.site, ended);
                let without = all.iter_mut().filter(|(past, used)| past::needs_books(past, used));
                without.for_each(|(past, used)| past::add_books(used, past, &books));
            }
            Err(error) => ui.say(&format!(
                "the times of {silent} runs are missing: the batch system's books cannot be read: {}",
                crate::error::chain(&error)
            )),
        }
    }
    Ok(all)
}
