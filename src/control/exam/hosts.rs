//! Trials of the site's hosts, each in a job of its own: the same trial, as root and on the same program as a starter. In:
//! which hosts. Out: lines, host by host; a host that cannot be tried is one of them, with the reason.
//!
//! ```text
//! waiting ─▶ in the queue ─▶ leaving ─▶ over
//!    │             │            job gone: what it used is taken away. On a host that is lost it may live on: then
//!    │             │            that stays, and is taken away by a later check
//!    │             └─ answered, or given up and killed
//!    └─ for addresses: as many hosts side by side as the vm group has room for
//! ```

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::check::lines_of_cluster;
use super::super::{Context, ControlError};
use super::queue::{Queue, Queued, START_WAIT};
use super::{Base, Exam, MARK, SEATS, Scratch, mark, no_subject, subjects};
use crate::error::chain;
use crate::host::machine::check::{Line, Verdict, failed};
use crate::model::id::{RunId, TemplateName};
use crate::model::job::{JobId, Task, TaskId, TaskState};
use crate::model::lab::{Desired, Vm, VmGroup};
use crate::scheduler::{Host, HostUsage, Scheduler, Submission, submit_or_adopt};
use crate::trial::{BOOT, CLEANUP, JOB, Onlooker, Order, found, interrupted};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(15);
/// How long a killed job may take to go: Grid Engine's notice, 90 s here, and some more.
const GONE_WAIT: Duration = Duration::from_secs(150);
/// How long the batch system may be silent before it is given up.
const SILENCE_WAIT: Duration = Duration::from_secs(60);

/// Which of the site's hosts.
#[derive(Debug)]
pub enum Which {
    All,
    Named(Vec<String>),
}

/// A line of the page about several hosts; `host` is none where it is about all of them.
#[derive(Debug, Clone, Serialize)]
pub struct HostLine {
    pub host: Option<String>,
    pub what: String,
    pub verdict: Verdict,
    pub found: String,
    pub mend: Option<String>,
}

impl HostLine {
    pub fn new(host: Option<&str>, line: Line) -> Self {
        let Line { what, verdict, found, mend } = line;
        Self { host: host.map(str::to_owned), what: what.into_owned(), verdict, found, mend }
    }

    pub fn is_red(&self) -> bool {
        self.verdict == Verdict::Failed
    }

    /// Whether a page of many hosts has it: what is not well, and how each guest booted.
    pub fn is_news(&self) -> bool {
        self.verdict != Verdict::Ok || self.what == BOOT
    }
}

/// What can be said of the cluster, then all lines of the trials of these hosts; and the hosts.
pub fn lines_of_hosts(
    context: &Context,
    desired: &Desired,
    which: &Which,
    timeout: Duration,
    onlooker: &dyn Onlooker,
) -> Result<(Vec<String>, Vec<HostLine>), ControlError> {
    let of_cluster = lines_of_cluster(&context.site, &context.caller.program);
    let exam = Exam::begin(context, desired, timeout, onlooker)?;
    let scheduler = context.scheduler();
    let tour = Tour { exam: &exam, account: scheduler.account()?, scheduler: &*scheduler };
    let hosts = choose(tour.scheduler.capacity()?, which)?;
    tour.end_left_over_jobs()?;
    let mut lines: Vec<(Option<&str>, Line)> =
        exam.take_abandoned_away().into_iter().map(|line| (None, line)).collect();
    let subjects = subjects(desired);
    if subjects.is_empty() {
        lines.push((None, no_subject()));
    }
    let (closed, mut able): (Vec<&Host>, Vec<&Host>) = hosts.iter().partition(|host| unable(host).is_some());
    lines.extend(closed.into_iter().filter_map(|host| Some((Some(host.name.as_str()), unable(host)?))));
    let mut is_first = true;
    for (template, vm) in subjects {
        let names: Vec<&str> = able.iter().map(|host| host.name.as_str()).collect();
        let found = tour.round(&names, (template, vm), is_first);
        // What kept one guest from starting keeps the next from it.
        able.retain(|host| !found.iter().any(|(name, line)| *name == host.name && line.what == JOB));
        lines.extend(found.into_iter().map(|(host, line)| (Some(host), line)));
        is_first = false;
    }
    lines.extend(exam.remove_copies().map(|line| (None, line)));
    // Host by host, each in the order in which things were tried.
    lines.sort_by_key(|(host, _)| *host);
    let of_cluster = of_cluster.into_iter().map(|line| (None, line));
    let lines = of_cluster.chain(lines).map(|(host, line)| HostLine::new(host, line)).collect();
    Ok((hosts.iter().map(|host| host.name.clone()).collect(), lines))
}

fn choose(mut hosts: Vec<Host>, which: &Which) -> Result<Vec<Host>, ControlError> {
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let known: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    match which {
        Which::All if known.is_empty() => Err(ControlError::NoHosts),
        Which::All => Ok(hosts),
        Which::Named(names) => match names.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let hosts = known.into_iter().map(str::to_owned).collect();
                Err(ControlError::NoSuchHost { host: name.clone(), hosts })
            }
            None => {
                hosts.retain(|host| names.contains(&host.name));
                Ok(hosts)
            }
        },
    }
}

/// Why no job can begin on a host.
fn unable(host: &Host) -> Option<Line> {
    if host.usage.is_none() {
        let mend = "switch it on, or start its execution daemon; `qhost` shows who answers";
        return Some(failed(JOB, "the host does not answer the batch system", mend));
    }
    host.closed.as_ref().map(|closed| failed(JOB, format!("no job can begin: {}", closed.why), &closed.mend))
}

/// A job's way on one host.
struct Visit<'a> {
    host: &'a str,
    stage: Stage,
    /// Where its order, its answer and its words are.
    folder: PathBuf,
    scratch: Scratch,
    lines: Vec<Line>,
}

enum Stage {
    Waiting,
    InQueue(Queued),
    Leaving { job: TaskId, since: Instant },
    Over,
}

struct Tour<'a> {
    exam: &'a Exam<'a>,
    scheduler: &'a dyn Scheduler,
    account: String,
}

impl Tour<'_> {
    /// No two checks are under way at once, so the one that a job in the queue belongs to is no more.
    fn end_left_over_jobs(&self) -> Result<(), ControlError> {
        let site = &self.exam.recorded.site;
        let run = |task: &Task| task.name.strip_prefix(MARK)?.parse::<RunId>().ok();
        let is_ours = |task: &Task| {
            task.owner == self.account && run(task).is_some_and(|run| run.site() == site && run.is_trial())
        };
        let left: Vec<TaskId> = self.scheduler.list()?.into_iter().filter(is_ours).map(|task| task.id).collect();
        if left.is_empty() {
            return Ok(());
        }
        self.exam.onlooker.hears(&format!("  {} jobs of a check that was killed are ended", left.len()));
        Ok(self.scheduler.kill(&left)?)
    }

    /// One template on every host.
    fn round<'h>(
        &self,
        hosts: &[&'h str],
        (template, vm): (&TemplateName, &Vm),
        with_host: bool,
    ) -> Vec<(&'h str, Line)> {
        let prepared = self.exam.group(vm).and_then(|group| Ok((group, self.exam.bases(template)?)));
        let (group, bases) = match prepared {
            Ok(prepared) => prepared,
            Err(line) => return hosts.iter().map(|host| (*host, line.clone())).collect(),
        };
        let mut visits: Vec<Visit<'h>> = hosts.iter().map(|host| Visit::to(host)).collect();
        let (began, mut told, mut heard) = (Instant::now(), Instant::now(), Instant::now());
        while visits.iter().any(|visit| !matches!(visit.stage, Stage::Over)) {
            if self.exam.onlooker.wants_end() {
                for visit in &mut visits {
                    self.interrupt(visit);
                }
            }
            self.send_who_has_room(&mut visits, group, &(template, &bases, vm), with_host);
            let queue = match self.scheduler.list() {
                Ok(queue) => {
                    heard = Instant::now();
                    Queue::Seen(queue)
                }
                Err(error) if heard.elapsed() > SILENCE_WAIT => Queue::Silent(chain(&error)),
                Err(_) => Queue::Hidden,
            };
            for visit in &mut visits {
                self.step(visit, &queue, began);
            }
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                self.tell(&visits, &queue);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        visits.into_iter().flat_map(|visit| visit.lines.into_iter().map(move |line| (visit.host, line))).collect()
    }

    fn tell(&self, visits: &[Visit<'_>], queue: &Queue) {
        let over = visits.iter().filter(|visit| matches!(visit.stage, Stage::Over)).count();
        let what = |visit: &Visit<'_>| {
            let state = match &visit.stage {
                Stage::Waiting => "waits for free addresses".to_owned(),
                Stage::InQueue(Queued { job, .. }) => match queue.task(*job) {
                    Some(task) => format!("job {job} is {}", task.state.word()),
                    None => format!("job {job}"),
                },
                Stage::Leaving { job, .. } => format!("job {job} ends"),
                Stage::Over => return None,
            };
            Some(format!("{} ({state})", visit.host))
        };
        let open: Vec<String> = visits.iter().filter_map(what).collect();
        self.exam.onlooker.hears(&format!("  {over} of {} hosts tried; open: {}", visits.len(), open.join(", ")));
    }

    fn send_who_has_room(
        &self,
        visits: &mut [Visit<'_>],
        group: &VmGroup,
        subject: &(&TemplateName, &[Base], &Vm),
        with_host: bool,
    ) {
        for at in 0..visits.len() {
            if !matches!(visits[at].stage, Stage::Waiting) {
                continue;
            }
            let others = visits.iter().any(|visit| matches!(visit.stage, Stage::InQueue(_) | Stage::Leaving { .. }));
            if others && self.exam.free(group).take(SEATS).count() < SEATS {
                return;
            }
            let visit = &mut visits[at];
            if let Err(line) = self.send(visit, subject, with_host) {
                visit.lines.push(line);
                visit.lines.extend(self.exam.take_away(std::mem::take(&mut visit.scratch)));
                visit.stage = Stage::Over;
            }
        }
    }

    /// Prepares a trial and submits its job.
    fn send(
        &self,
        visit: &mut Visit<'_>,
        (template, bases, vm): &(&TemplateName, &[Base], &Vm),
        with_host: bool,
    ) -> Result<(), Line> {
        let trial = self.exam.prepare((template, bases), vm, &mut visit.scratch)?;
        let memory_mib = vm.hardware.host_memory_mib();
        let (run, seconds_max) = (trial.guest.run.clone(), trial.seconds_max());
        visit.folder = self.exam.trials().join(run.to_string());
        let order = Order {
            version: Order::VERSION,
            until: jiff::Timestamp::now() + START_WAIT,
            site: self.exam.context.site.clone(),
            groups: self.exam.desired.vm_groups.values().cloned().collect(),
            with_host,
            trial,
        };
        order.write(&visit.folder)?;
        let submission = Submission {
            name: mark(&run),
            tasks: 1,
            memory_mib,
            host: Some(visit.host.to_owned()),
            command: vec![
                self.exam.context.caller.program.clone().into(),
                "host-trial".into(),
                visit.folder.clone().into(),
            ],
            log_folder: visit.folder.clone(),
            context: vec![
                ("labwright_site", run.site().to_string()),
                ("labwright_lab", self.exam.desired.lab.to_string()),
                ("labwright_trial", format!("of {} with template {template}", visit.host)),
            ],
        };
        let job = TaskId { job: self.submit(visit, &submission)?, task: 1 };
        visit.stage = Stage::InQueue(Queued { job, since: Instant::now(), gone: None, memory_mib, seconds_max });
        Ok(())
    }

    /// A submit without an answer may have been taken in all the same.
    fn submit(&self, visit: &mut Visit<'_>, submission: &Submission) -> Result<JobId, Line> {
        submit_or_adopt(self.scheduler, submission, &std::thread::sleep).map_err(|error| {
            let mend = "see the line `cluster`, and `scheduler:` in site.yaml";
            if !error.is_open() {
                return failed(JOB, format!("no job can begin: {}", chain(&error)), mend);
            }
            // Should there be a job, it finds all that it needs; the next check ends it.
            visit.scratch = Scratch::default();
            failed(JOB, format!("nobody knows whether its job was taken in: {}", chain(&error)), mend)
        })
    }

    /// What a host lacks for a job that waits for it, where the batch system's figures tell: its own remarks on a job are
    /// mostly about other hosts.
    fn no_room(&self, host: &str, wanted_mib: u64) -> Option<String> {
        let hosts = self.scheduler.capacity().ok()?;
        let host = hosts.into_iter().find(|known| known.name == host)?;
        if let Some(line) = unable(&host) {
            return Some(line.found);
        }
        let HostUsage { slots, slots_used, memory_mib, memory_used_mib } = host.usage?;
        let is_full = slots_used >= slots || memory_used_mib + wanted_mib > memory_mib;
        is_full.then(|| {
            format!(
                "{slots_used} of {slots} slots and {memory_used_mib} of {memory_mib} MiB are in use there, it takes 1 and \
                 {wanted_mib}"
            )
        })
    }

    fn interrupt(&self, visit: &mut Visit<'_>) {
        match &visit.stage {
            Stage::Waiting => {
                visit.lines.push(interrupted(JOB));
                visit.stage = Stage::Over;
            }
            Stage::InQueue(Queued { job, .. }) => {
                let job = *job;
                visit.lines.push(interrupted(JOB));
                self.kill(visit, job);
            }
            Stage::Leaving { .. } | Stage::Over => {}
        }
    }

    fn kill(&self, visit: &mut Visit<'_>, job: TaskId) {
        if let Err(error) = self.scheduler.kill(&[job]) {
            let found = format!("job {job} could not be ended: {}", chain(&error));
            visit.lines.push(failed(CLEANUP, found, format!("`qdel {job}`")));
        }
        visit.stage = Stage::Leaving { job, since: Instant::now() };
    }

    fn step(&self, visit: &mut Visit<'_>, queue: &Queue, began: Instant) {
        match &mut visit.stage {
            Stage::Waiting | Stage::Over => {}
            Stage::InQueue(queued) => {
                let (job, queued_mib) = (queued.job, queued.memory_mib);
                match found(&visit.folder) {
                    Ok(Some(lines)) => {
                        let is_well = lines.iter().all(|line| line.verdict != Verdict::Failed);
                        let word = if is_well { "green" } else { "red" };
                        let seconds = began.elapsed().as_secs();
                        self.exam.onlooker.hears(&format!("  {}: {word} after {seconds} s", visit.host));
                        visit.lines.extend(lines);
                        visit.stage = Stage::Leaving { job, since: Instant::now() };
                    }
                    Ok(None) => {
                        if let Some(line) =
                            queue.judge(queued, &visit.folder, Instant::now(), &|| self.no_room(visit.host, queued_mib))
                        {
                            self.exam.onlooker.hears(&format!("  {}: red: {}", visit.host, line.found));
                            visit.lines.push(line);
                            self.kill(visit, job);
                        }
                    }
                    Err(line) => {
                        visit.lines.push(line);
                        self.kill(visit, job);
                    }
                }
            }
            Stage::Leaving { job, since } => {
                let is_gone = matches!(queue, Queue::Seen(_)) && queue.task(*job).is_none();
                let is_lost = queue.task(*job).is_some_and(|task| task.state == TaskState::Unknown);
                if is_gone {
                    visit.lines.extend(self.exam.take_away(std::mem::take(&mut visit.scratch)));
                } else if is_lost || since.elapsed() > GONE_WAIT {
                    let found =
                        format!("job {job} is in the queue yet; its addresses and {} stay", visit.folder.display());
                    let mend =
                        format!("`qdel -f {job}` once the host is off; a check an hour from now takes the rest away");
                    visit.lines.push(failed(CLEANUP, found, mend));
                    visit.scratch = Scratch::default();
                } else {
                    return;
                }
                visit.stage = Stage::Over;
            }
        }
    }
}

impl<'a> Visit<'a> {
    fn to(host: &'a str) -> Self {
        let (folder, scratch) = (PathBuf::new(), Scratch::default());
        Self { host, stage: Stage::Waiting, folder, scratch, lines: Vec::new() }
    }
}
