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

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::context::program;
use super::super::host::OnPage;
use super::job::{JOB, Order, found};
use super::trial::{BOOT, CLEANUP, interrupted, printed};
use super::{Base, Exam, MARK, SEATS, Scratch, mark, no_subject, subjects};
use crate::control::Context;
use crate::error::chain;
use crate::exit::Exit;
use crate::host::machine::check::{Line, Verdict, failed};
use crate::model::id::{RunId, TemplateName};
use crate::model::job::{JobId, Task, TaskId, TaskState};
use crate::model::lab::{Desired, Vm, VmGroup};
use crate::report::table::Row;
use crate::report::{Failure, Ui};
use crate::scheduler::{Host, HostUsage, Scheduler, Submission, submit_or_adopt};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(15);
/// How long a job may wait for its host. A scheduler that looks every 15 s needs two looks at a busy cluster.
const START_WAIT: Duration = Duration::from_secs(90);
/// How long the answer of a job that is over may take: network file systems show a new file late.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// How long a killed job may take to go: Grid Engine's notice, 90 s here, and some more.
const GONE_WAIT: Duration = Duration::from_secs(150);
/// How long the batch system may be silent before it is given up.
const SILENCE_WAIT: Duration = Duration::from_secs(60);

/// Which of the site's hosts.
#[derive(Debug)]
pub(in super::super) enum Which {
    All,
    Named(Vec<String>),
}

/// A line of the page about several hosts; `host` is none where it is about all of them.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct HostLine {
    pub(in super::super) host: Option<String>,
    what: String,
    verdict: Verdict,
    found: String,
    mend: Option<String>,
}

impl HostLine {
    pub(in super::super) fn new(host: Option<&str>, line: Line) -> Self {
        let Line { what, verdict, found, mend } = line;
        Self { host: host.map(str::to_owned), what: what.into_owned(), verdict, found, mend }
    }

    pub(in super::super) fn is_red(&self) -> bool {
        self.verdict == Verdict::Failed
    }

    /// Whether a page of many hosts has it: what is not well, and how each guest booted.
    pub(in super::super) fn is_news(&self) -> bool {
        self.verdict != Verdict::Ok || self.what == BOOT
    }
}

impl Row for HostLine {
    const COLUMNS: &'static [&'static str] = &["host", "what", "verdict", "found", "mend"];
    fn cells(&self) -> Vec<String> {
        let shown = |text: &Option<String>| text.clone().unwrap_or_default();
        let host = self.host.clone().unwrap_or_else(|| "(site)".to_owned());
        vec![host, self.what.clone(), self.verdict.as_str().to_owned(), self.found.clone(), shown(&self.mend)]
    }
}

impl OnPage for HostLine {
    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn what(&self) -> String {
        self.host.iter().map(|host| format!("{host}: ")).chain([self.what.clone()]).collect()
    }

    fn found(&self) -> (&str, Option<&str>) {
        (&self.found, self.mend.as_deref())
    }
}

/// All lines of the trials of these hosts, and the hosts.
pub(in super::super) fn lines_of_hosts(
    context: &Context,
    desired: &Desired,
    which: &Which,
    timeout: Duration,
    ui: &Ui,
) -> Result<(Vec<String>, Vec<HostLine>), Failure> {
    let exam = Exam::begin(context, desired, timeout, ui)?;
    let scheduler = context.scheduler()?;
    let tour = Tour { exam: &exam, account: scheduler.account()?, scheduler: &*scheduler, program: program()? };
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
    let lines = lines.into_iter().map(|(host, line)| HostLine::new(host, line)).collect();
    Ok((hosts.iter().map(|host| host.name.clone()).collect(), lines))
}

fn choose(mut hosts: Vec<Host>, which: &Which) -> Result<Vec<Host>, Failure> {
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let known: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    match which {
        Which::All if known.is_empty() => Err(Failure::new(Exit::NotReady, "the batch system has no execution host")
            .hint("see `scheduler:` in site.yaml, and `qhost`")),
        Which::All => Ok(hosts),
        Which::Named(names) => match names.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Failure::new(Exit::Usage, format!("`{name}` is none of the site's execution hosts"))
                .hint(format!("they are {}", known.join(", ")))),
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

struct Queued {
    job: TaskId,
    since: Instant,
    /// The job is gone from the queue since then.
    gone: Option<Instant>,
    memory_mib: u64,
    /// How long it may take once it has begun.
    seconds_max: Duration,
}

struct Tour<'a> {
    exam: &'a Exam<'a>,
    scheduler: &'a dyn Scheduler,
    account: String,
    program: PathBuf,
}

impl Tour<'_> {
    /// The site's lock is ours, so the check that a job in the queue belongs to is no more.
    fn end_left_over_jobs(&self) -> Result<(), Failure> {
        let site = &self.exam.recorded.site;
        let run = |task: &Task| task.name.strip_prefix(MARK)?.parse::<RunId>().ok();
        let is_ours = |task: &Task| {
            task.owner == self.account && run(task).is_some_and(|run| run.site() == site && run.is_trial())
        };
        let left: Vec<TaskId> = self.scheduler.list()?.into_iter().filter(is_ours).map(|task| task.id).collect();
        if left.is_empty() {
            return Ok(());
        }
        self.exam.ui.say(&format!("  {} jobs of a check that was killed are ended", left.len()));
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
            if self.exam.interrupt.has_come() {
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
        self.exam.ui.say(&format!("  {over} of {} hosts tried; open: {}", visits.len(), open.join(", ")));
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
            command: vec![self.program.clone().into(), "host-trial".into(), visit.folder.clone().into()],
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
                        self.exam.ui.say(&format!("  {}: {word} after {seconds} s", visit.host));
                        visit.lines.extend(lines);
                        visit.stage = Stage::Leaving { job, since: Instant::now() };
                    }
                    Ok(None) => {
                        if let Some(line) =
                            queue.judge(queued, &visit.folder, Instant::now(), &|| self.no_room(visit.host, queued_mib))
                        {
                            self.exam.ui.say(&format!("  {}: red: {}", visit.host, line.found));
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

/// A look at the queue.
enum Queue {
    Seen(Vec<Task>),
    /// It gave no answer just now.
    Hidden,
    /// Nor for a long time.
    Silent(String),
}

impl Queue {
    fn task(&self, id: TaskId) -> Option<&Task> {
        match self {
            Self::Seen(tasks) => tasks.iter().find(|task| task.id == id),
            Self::Hidden | Self::Silent(_) => None,
        }
    }

    /// Why a job that has not answered is not waited for any longer.
    fn judge(
        &self,
        queued: &mut Queued,
        folder: &Path,
        now: Instant,
        no_room: &dyn Fn() -> Option<String>,
    ) -> Option<Line> {
        let Queued { job, since, gone, seconds_max, .. } = queued;
        let waited = now.duration_since(*since);
        let again = "then run the check again";
        match self {
            Self::Silent(error) => {
                return Some(failed(
                    JOB,
                    format!("the batch system does not answer: {error}"),
                    "see that the qmaster is up",
                ));
            }
            Self::Seen(_) => match self.task(*job).map(|task| &task.state) {
                None => {
                    if now.duration_since(*gone.get_or_insert(now)) > ANSWER_WAIT {
                        let found = format!("job {job} ended without an answer: {}", printed(folder));
                        let mend = "the program must be the same on every host, at the same path, and the shared storage \
                                    mounted there; `qacct -j` shows how the job ended";
                        return Some(failed(JOB, found, mend));
                    }
                }
                Some(TaskState::Unknown) => {
                    let found = format!("the host of job {job} does not answer the batch system any more");
                    return Some(failed(JOB, found, format!("see the host and its execution daemon, {again}")));
                }
                Some(TaskState::Error { reason, .. }) => {
                    let why = reason.as_deref().unwrap_or("the batch system does not say why");
                    return Some(failed(JOB, format!("job {job} cannot begin: {why}"), format!("mend that, {again}")));
                }
                Some(state @ (TaskState::Pending { .. } | TaskState::Held)) if waited > START_WAIT => {
                    let why = no_room().or_else(|| state.reason());
                    let why = why.unwrap_or_else(|| "the batch system does not say why".to_owned());
                    let found = format!("job {job} is {} after {} s: {why}", state.word(), waited.as_secs());
                    return Some(failed(JOB, found, format!("make room on the host, or open its queue, {again}")));
                }
                Some(_) => {}
            },
            Self::Hidden => {}
        }
        (waited > START_WAIT + *seconds_max).then(|| {
            let found =
                format!("job {job} has not answered after {} s; it printed: {}", waited.as_secs(), printed(folder));
            failed(JOB, found, format!("see whether the host hangs, {again}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TaskId = TaskId { job: JobId(12), task: 1 };

    /// What is said of a job that was submitted so long ago, and is gone for so long.
    fn said(state: Option<TaskState>, ago: Duration, gone: Option<Duration>) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("12.1.log"), "no such\nprogram\n").unwrap();
        let now = Instant::now();
        let before = |ago| now.checked_sub(ago).unwrap();
        let seconds_max = Duration::from_secs(330);
        let mut queued = Queued { job: ID, since: before(ago), gone: gone.map(before), memory_mib: 192, seconds_max };
        let task = |state| Task { id: ID, name: "lw-trial".into(), owner: "root".into(), state, host: None };
        let line =
            Queue::Seen(state.map(task).into_iter().collect()).judge(&mut queued, folder.path(), now, &|| None)?;
        Some(format!("{}\n  {}", line.found, line.mend.unwrap()))
    }

    #[test]
    fn no_job_is_waited_for_without_end() {
        let (soon, late) = (Duration::from_secs(20), Duration::from_secs(100));
        let never = Duration::from_secs(430);
        let pending = || TaskState::Pending { reason: Some("it offers only hc:vm_mem=100.000M".into()) };
        let again = Some("qmod -cj 12.1".to_owned());
        let error = TaskState::Error { reason: Some("can't open output file".into()), again };
        for (state, gone) in [(pending(), None), (TaskState::Running, Some(soon)), (TaskState::Transferring, None)] {
            assert_eq!(said(Some(state), soon, gone), None);
        }
        assert_eq!(said(Some(TaskState::Running), late, None), None, "it has begun");
        assert_eq!(said(None, soon, None), None, "the answer may be on its way");
        let all = [
            said(Some(pending()), late, None),
            said(Some(TaskState::Held), late, None),
            said(Some(error), soon, None),
            said(Some(TaskState::Unknown), soon, None),
            said(Some(TaskState::Running), never, None),
            said(None, soon, Some(soon)),
        ];
        insta::assert_snapshot!(all.map(Option::unwrap).join("\n"));
    }
}
