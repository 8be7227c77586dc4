//! What runs and what ran, and what that used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::{Listed, Moment, View};
use crate::control::{ControlError, Note};
use crate::model::id::LabName;
use crate::model::job::Task;
use crate::observe::past;
use crate::run::BatchId;
use crate::state::PastRun;

/// One job: in the queue, or over.
#[derive(Debug, Clone, Serialize)]
pub struct Job {
    pub job: Option<String>,
    pub vm: Option<String>,
    pub run: Option<String>,
    /// As the queue has it; `intended`, `gone` without a word, or `ended`.
    pub state: &'static str,
    pub host: Option<String>,
    pub started: Option<Moment>,
    pub ended: Option<Moment>,
    pub run_seconds: u64,
    pub owner: String,
    /// Why it waits, what is wrong with it, or why it ended; it may be a program's own words.
    pub reason: Option<String>,
    #[serde(skip)]
    created: String,
}

/// What one user's vms of a lab used so far.
#[derive(Debug, Clone, Serialize)]
pub struct Usage {
    pub user: String,
    pub lab: LabName,
    pub vms: usize,
    pub runs: usize,
    pub run_seconds: u64,
    pub memory_gib_hours: f64,
}

impl Listed for Job {
    const KIND: &'static str = "vm";
    const IS_OWNED: bool = true;
    fn key(&self) -> &str {
        self.vm.as_deref().unwrap_or_default()
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.owner)
    }
}

impl Listed for Usage {
    const KIND: &'static str = "user";
    const IS_OWNED: bool = true;
    fn key(&self) -> &str {
        &self.user
    }
    fn owner(&self) -> Option<&str> {
        Some(&self.user)
    }
}

impl View<'_> {
    /// Everything that carries this lab's mark, newest first: what is in the queue, known to us or not, then what is over.
    pub fn jobs(&self) -> Result<Vec<Job>, ControlError> {
        let mut in_queue = Arc::unwrap_or_clone(self.observed()?).tasks;
        let known = |(past, used): (PastRun, past::Used)| {
            let task = past.batch().and_then(|batch| in_queue.remove(&(batch, past.task)));
            let owner = self.owner_of(&past, &used).unwrap_or_default();
            of_run(past, used, task, owner)
        };
        let mut jobs: Vec<Job> = self.runs_used()?.into_iter().map(known).collect();
        jobs.sort_by(|a, b| (a.state == "ended").cmp(&(b.state == "ended")).then_with(|| b.created.cmp(&a.created)));
        jobs.extend(in_queue.into_values().map(of_nobody));
        Ok(jobs)
    }

    /// Per user, by name; runs whose owner nobody knows any more stand under `?`.
    pub fn usage(&self) -> Result<Vec<Usage>, ControlError> {
        let mut by_user: BTreeMap<String, (BTreeSet<String>, Usage)> = BTreeMap::new();
        for (past, used) in self.runs_used()? {
            let user = self.owner_of(&past, &used).unwrap_or_else(|| "?".to_owned());
            let nothing = || Usage {
                user: user.clone(),
                lab: self.desired.lab.clone(),
                vms: 0,
                runs: 0,
                run_seconds: 0,
                memory_gib_hours: 0.0,
            };
            let (vms, usage) = by_user.entry(user.clone()).or_insert_with(|| (BTreeSet::new(), nothing()));
            usage.runs += 1;
            usage.run_seconds += used.seconds;
            usage.memory_gib_hours += used.memory_hours();
            vms.insert(used.vm);
        }
        Ok(by_user.into_values().map(|(vms, usage)| Usage { vms: vms.len(), ..usage }).collect())
    }

    /// By the run's own folder, or else the vm as it is recorded.
    fn owner_of(&self, past: &PastRun, used: &past::Used) -> Option<String> {
        used.owner.clone().or_else(|| Some(self.recorded.vms.get(past.vm.as_str())?.vm.owner.to_string()))
    }

    /// What each run used. The batch system's books are read at most once, and only for runs that left no report; where they
    /// cannot be read, that is said and the rest stands.
    fn runs_used(&self) -> Result<Vec<(PastRun, past::Used)>, ControlError> {
        let (context, lab, site) = (self.context, &self.desired.lab, &self.recorded.site);
        let Some(store) = context.store_if_any()? else { return Ok(Vec::new()) };
        let runs = &context.site.storage.runs;
        let now = jiff::Timestamp::now();
        let mut all = Vec::new();
        for past in store.all_runs(lab)? {
            let used = past::used(&past, runs, now)?;
            all.push((past, used));
        }
        let silent = all.iter().filter(|(past, used)| past::needs_books(past, used)).count();
        if silent > 0 {
            match context.scheduler().ended(&BatchId::job_names(site, lab)) {
                Ok(ended) => {
                    let books = past::books(site, ended);
                    let without = all.iter_mut().filter(|(past, used)| past::needs_books(past, used));
                    without.for_each(|(past, used)| past::add_books(used, past, &books));
                }
                Err(error) => context.listener.note(&Note::NoBooks { runs: silent, error: &error }),
            }
        }
        Ok(all)
    }
}

fn of_run(past: PastRun, used: past::Used, task: Option<Task>, owner: String) -> Job {
    let state = match &task {
        Some(task) => task.state.word(),
        None if past.state == "intended" => "intended",
        None if past.is_ended() || used.ended.is_some() => "ended",
        // It is looked at again by the next apply.
        None => "gone",
    };
    let job = task.as_ref().map(|task| task.id.to_string());
    Job {
        job: job.or_else(|| Some(format!("{}.{}", past.job?, past.task))),
        state,
        host: used.host.or_else(|| task.as_ref()?.host.clone()),
        started: used.started.map(Moment::from),
        ended: used.ended.map(Moment::from),
        run_seconds: used.seconds,
        owner,
        reason: task.as_ref().and_then(|task| task.state.reason()).or_else(|| past.end()).or(used.reason),
        vm: Some(past.vm),
        run: Some(past.run),
        created: past.created_at,
    }
}

/// A job with our mark that we know nothing of.
fn of_nobody(task: Task) -> Job {
    Job {
        job: Some(task.id.to_string()),
        vm: None,
        run: None,
        state: task.state.word(),
        host: task.host,
        started: None,
        ended: None,
        run_seconds: 0,
        owner: String::new(),
        reason: Some(format!("{} belongs to no run we know", task.name)),
        created: String::new(),
    }
}
