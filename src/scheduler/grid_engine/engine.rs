//! The trait's calls as conversations with Grid Engine: one for a submit, one for a kill, one for a look at the queue and
//! a second only where something waits or is stuck, to hear why.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::client::{Answer, Client};
use super::queue::{Folded, Queue, size_mib};
use super::reasons::{self, Reasons};
use super::{XmlError, accounting, answers, check, here, queue};
use crate::model::job::{JobId, Task, TaskId, TaskState};
use crate::model::site::{GridEngineSettings, Timing};
use crate::run::probe_name;
use crate::scheduler::{Ended, Finding, Host, HostUsage, Scheduler, SchedulerError, Submission, ThisHost};

/// Grid Engine hands a task its number in the environment only; our programs take it as their last argument. And it
/// gives a task a search path without the folders of `nft` and `ip`.
const TASK_NUMBER_LAST: &str =
    r#"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin exec "$0" "$@" "$SGE_TASK_ID""#;

/// How long `qacct` may read. It reads the whole of the books, some 100 MB a second, and somebody waits for it.
const BOOKS_PATIENCE: Duration = Duration::from_secs(20);

/// One cluster.
#[derive(Debug, Clone)]
pub struct GridEngine {
    pub(super) client: Client,
}

impl GridEngine {
    pub fn new(settings: GridEngineSettings) -> Self {
        Self { client: Client { settings } }
    }

    pub fn settings(&self) -> &GridEngineSettings {
        &self.client.settings
    }

    /// What is said of the queue as one account's jobs see it; `*` is everybody.
    fn ask_for_queue(&self, account: &str) -> Result<String, SchedulerError> {
        let resource = &self.settings().memory_resource;
        self.client.look("qstat", &words(["-f", "-u", account, "-r", "-F", resource, "-xml"]))
    }

    /// Why jobs wait or are stuck. It makes no difference to a plan, so a failure costs the reasons alone.
    fn reasons(&self, jobs: &BTreeSet<JobId>) -> Reasons {
        if jobs.is_empty() {
            return Reasons::default();
        }
        let list: Vec<String> = jobs.iter().map(JobId::to_string).collect();
        let asked = self.client.look("qstat", &words(["-j", &list.join(","), "-xml"]));
        let reasons = asked.and_then(|xml| reasons::parse(&xml).map_err(unreadable("qstat -j -xml")));
        reasons.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot see why jobs wait");
            Reasons::default()
        })
    }

    fn submit_arguments(&self, submission: &Submission) -> Result<Vec<OsString>, SchedulerError> {
        let settings = self.settings();
        let log = format!("{}/$JOB_ID.$TASK_ID.log", log_folder(&submission.log_folder, self.client.account()?)?);
        let tasks = format!("1-{}", submission.tasks);
        let memory = format!("{}={}M", settings.memory_resource, submission.memory_mib);
        let mut arguments = words([
            "-terse",
            "-w",
            "e",
            "-N",
            &submission.name,
            "-t",
            &tasks,
            "-l",
            &memory,
            "-j",
            "y",
            "-o",
            &log,
            "-wd",
            "/",
            "-r",
            "n",
            "-notify",
            "-b",
            "y",
            "-shell",
            "n",
        ]);
        let mut option = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                arguments.extend(words([name, value]));
            }
        };
        // By name alone, since its value may have commas, which mean something here.
        option("-v", std::env::var_os("LABWRIGHT_LOG").map(|_| "LABWRIGHT_LOG"));
        for request in &settings.requests {
            option("-l", Some(request));
        }
        option("-l", submission.host.as_ref().map(|host| format!("hostname={host}")).as_deref());
        option("-q", settings.queue.as_deref());
        option("-P", settings.project.as_deref());
        option("-tc", settings.tasks_at_once.map(|tasks| tasks.to_string()).as_deref());
        option("-ac", context(&submission.context).as_deref());
        arguments.extend(words(["/bin/sh", "-c", TASK_NUMBER_LAST]));
        arguments.extend(submission.command.iter().cloned());
        Ok(arguments)
    }
}

impl GridEngine {
    /// A job that fits nowhere is refused in three words; asked to verify it, the scheduler says what each host lacks.
    fn why_never(&self, submission: &Submission, answer: &Answer) -> Option<String> {
        if !answer.stderr.contains("no suitable queues") {
            return None;
        }
        let mut arguments = self.submit_arguments(submission).ok()?;
        let wanted = arguments.iter().position(|word| word == "-w")?;
        arguments[wanted + 1] = "v".into();
        let told = self.client.ask("qsub", &arguments).ok()?;
        Some(format!("{}; nothing of it would ever run", answers::never(&told.stderr)?))
    }
}

impl Scheduler for GridEngine {
    fn submit(&self, submission: &Submission) -> Result<JobId, SchedulerError> {
        let answer = self.client.ask("qsub", &self.submit_arguments(submission)?)?;
        let request = format!("submit {}", submission.name);
        match answers::submitted(&answer.stdout) {
            Some(job) if answer.status.success() => Ok(job),
            _ if !answer.status.success() && answers::is_refusal(&answer.stderr) => {
                let why = self.why_never(submission, &answer).or_else(|| answers::too_many(&answer.told()));
                let detail = why.unwrap_or_else(|| answer.told());
                Err(SchedulerError::Refused { request, detail })
            }
            _ => Err(SchedulerError::Doubtful { request, detail: answer.told() }),
        }
    }

    fn account(&self) -> Result<String, SchedulerError> {
        Ok(self.client.account()?.name)
    }

    fn list(&self) -> Result<Vec<Task>, SchedulerError> {
        let account = self.client.account()?.name;
        let answer = self.ask_for_queue(&account)?;
        let queue = queue_in(&answer)?;
        let ours = queue.entries.into_iter().filter(|entry| entry.owner == account).collect::<Vec<_>>();
        let unclear = ours.iter().filter(|entry| matches!(entry.state, Folded::Pending | Folded::Error));
        let reasons = self.reasons(&unclear.map(|entry| entry.job).collect());
        let mut tasks = Vec::new();
        for entry in ours {
            for &task in &entry.tasks {
                let id = TaskId { job: entry.job, task };
                tasks.push(Task {
                    id,
                    name: entry.name.clone().into_owned(),
                    owner: account.clone(),
                    state: state(entry.state, id, &reasons),
                    host: entry.host().map(str::to_owned),
                });
            }
        }
        Ok(tasks)
    }

    fn kill(&self, tasks: &[TaskId]) -> Result<(), SchedulerError> {
        let mut by_job: BTreeMap<JobId, BTreeSet<u32>> = BTreeMap::new();
        for id in tasks {
            by_job.entry(id.job).or_default().insert(id.task);
        }
        if by_job.is_empty() {
            return Ok(());
        }
        let list =
            by_job.iter().flat_map(|(job, tasks)| ranges(tasks).into_iter().map(move |range| format!("{job}.{range}")));
        let arguments: Vec<OsString> = list.map(OsString::from).collect();
        let answer = self.client.ask("qdel", &arguments)?;
        if answer.status.success() {
            return Ok(());
        }
        let request = "kill tasks".to_owned();
        if answers::is_silence(&answer.stderr) {
            return Err(SchedulerError::Doubtful { request, detail: answer.told() });
        }
        let said = format!("{}\n{}", answer.stdout, answer.stderr);
        match answers::kill_complaints(&said)[..] {
            [] => Ok(()),
            ref complaints => Err(SchedulerError::Refused { request, detail: complaints.join("; ") }),
        }
    }

    fn capacity(&self) -> Result<Vec<Host>, SchedulerError> {
        Ok(capacity(&queue_in(&self.ask_for_queue("*")?)?, self.settings()))
    }

    fn ended(&self, name_prefix: &str) -> Result<Vec<Ended>, SchedulerError> {
        let account = self.client.account()?.name;
        let arguments = words(["-o", &account, "-j", &format!("{name_prefix}*")]);
        let text = match self.client.look_within("qacct", &arguments, BOOKS_PATIENCE) {
            Ok(text) => text,
            // Before the first job has ended there is no file, and until one of ours has, none of the name.
            Err(SchedulerError::Refused { detail, .. })
                if detail.contains("not found") || detail.contains("No such file") =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let accounts = accounting::parse(&text, &self.settings().memory_resource);
        let ours = accounts.into_iter().filter(|one| one.owner == account && one.name.starts_with(name_prefix));
        Ok(ours
            .map(|one| Ended {
                wrong: one.wrong(),
                id: one.id,
                name: one.name,
                host: one.host,
                seconds: one.seconds,
                memory_mib: one.memory_mib,
            })
            .collect())
    }

    fn check(&self, timing: &Timing) -> Result<Option<Vec<Finding>>, SchedulerError> {
        check::check(self, timing).map(Some)
    }

    fn check_here(&self, here: &ThisHost<'_>) -> Option<Vec<Finding>> {
        Some(here::check_here(self, here))
    }
}

fn queue_in(answer: &str) -> Result<Queue<'_>, SchedulerError> {
    queue::parse(answer).map_err(unreadable("qstat -f -xml"))
}

/// What hosts have. Grid Engine tells what is left of a host's memory; what is in use is what the tasks on it asked for.
pub(super) fn capacity(queue: &Queue<'_>, settings: &GridEngineSettings) -> Vec<Host> {
    let resource = settings.memory_resource.as_str();
    let mut used: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in &queue.entries {
        let asked = entry.requests.iter().find(|(name, _)| name == resource).and_then(|(_, size)| size_mib(size));
        if let (Some(host), Some(asked)) = (entry.host(), asked) {
            *used.entry(host).or_default() += asked * u64::from(entry.slots) * entry.tasks.len() as u64;
        }
    }
    let mut hosts: BTreeMap<&str, Host> = BTreeMap::new();
    // One queue that takes jobs is enough.
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for instance in &queue.instances {
        let queue_name = instance.name.split('@').next();
        if settings.queue.as_deref().is_some_and(|ours| queue_name != Some(ours)) {
            continue;
        }
        let name = instance.host();
        let host = hosts.entry(name).or_insert_with(|| Host { name: name.to_owned(), usage: None, closed: None });
        if instance.is_lost() {
            continue;
        }
        match instance.closed() {
            None => drop(open.insert(name)),
            closed => host.closed = closed,
        }
        let rest = instance.resources.iter().find(|(name, _)| name == resource).and_then(|(_, size)| size_mib(size));
        let memory_used_mib = used.get(name).copied().unwrap_or(0);
        let nothing = HostUsage { slots: 0, slots_used: 0, memory_mib: 0, memory_used_mib };
        let usage = host.usage.get_or_insert(nothing);
        usage.slots += instance.slots;
        usage.slots_used += instance.slots_used;
        usage.memory_mib = usage.memory_mib.max(rest.map_or(0, |rest| rest + memory_used_mib));
    }
    for name in open {
        hosts.entry(name).and_modify(|host| host.closed = None);
    }
    hosts.into_values().collect()
}

/// A task's state with the words that take a second question. An operator of the cluster may let a task in error wait
/// again, and the account that the job belongs to.
fn state(folded: Folded, id: TaskId, reasons: &Reasons) -> TaskState {
    match folded {
        Folded::Pending => TaskState::Pending { reason: reasons.wait(id.job) },
        Folded::Held => TaskState::Held,
        Folded::Transferring => TaskState::Transferring,
        Folded::Running => TaskState::Running,
        Folded::Suspended => TaskState::Suspended,
        Folded::Deleting => TaskState::Deleting,
        Folded::Unknown => TaskState::Unknown,
        Folded::Error => {
            TaskState::Error { reason: reasons.error(id.job, id.task), again: Some(format!("qmod -cj {id}")) }
        }
    }
}

/// Variables for `-ac`, which parts them at commas, quoted or not. They are for people, so what cannot be said is not.
fn context(variables: &[(&'static str, String)]) -> Option<String> {
    let plain = |c: char| match c {
        ',' => ';',
        c if c.is_control() => ' ',
        c => c,
    };
    let part =
        |(name, value): &(&'static str, String)| format!("{name}={}", value.chars().map(plain).collect::<String>());
    (!variables.is_empty()).then(|| variables.iter().map(part).collect::<Vec<_>>().join(","))
}

/// Where tasks print to. Grid Engine reads a host's name before a `:`, and `$` as the start of its own words.
fn log_folder(folder: &Path, account: nix::unistd::User) -> Result<&str, SchedulerError> {
    let refused = |detail: String| SchedulerError::Refused { request: "submit".into(), detail };
    let text = folder.to_str().ok_or_else(|| SchedulerError::NotText { word: folder.display().to_string() })?;
    if !folder.is_absolute() || text.contains([':', '$', ',', '\n']) {
        return Err(refused(format!("the log folder {text} must be a whole path without `:`, `$` and `,`")));
    }
    if !folder.is_dir() {
        return Err(refused(format!("the log folder {text} is not there: no task could start")));
    }
    if !account.uid.is_root() && nix::unistd::geteuid().is_root() {
        let name = account.name.clone();
        let probe = folder.join(probe_name("log"));
        let written = super::here::written_as(account, probe.clone());
        // An empty file that is only there when the try went well.
        drop(std::fs::remove_file(probe));
        written.map_err(|source| {
            refused(format!("{name} may not write into the log folder {text} ({source}): no task could start"))
        })?;
    }
    Ok(text)
}

/// Consecutive numbers as ranges: `1-3`, `5`.
fn ranges(tasks: &BTreeSet<u32>) -> Vec<String> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &task in tasks {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == task => *last = task,
            _ => ranges.push((task, task)),
        }
    }
    let shown = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.into_iter().map(shown).collect()
}

pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

pub(super) fn unreadable(request: &'static str) -> impl FnOnce(XmlError) -> SchedulerError {
    move |error| SchedulerError::Doubtful {
        request: request.to_owned(),
        detail: format!("its answer cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_has_no_commas_but_those_between_variables() {
        assert_eq!(context(&[]), None);
        let odd = context(&[("lab", "a,b=\"c\"\n\u{e9}".into()), ("site", "k3f9".into())]);
        assert_eq!(odd.as_deref(), Some("lab=a;b=\"c\" \u{e9},site=k3f9"));
    }

    #[test]
    fn a_log_folder_that_the_account_cannot_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let user = |name: &str| nix::unistd::User::from_name(name).unwrap().unwrap();
        let refused = |folder: &Path, name: &str| log_folder(folder, user(name)).unwrap_err().to_string();
        assert!(log_folder(folder.path(), user("root")).is_ok());
        assert!(refused(&folder.path().join("none"), "root").contains("is not there"));
        assert!(refused(Path::new("relative"), "root").contains("whole path"));
        assert!(refused(Path::new("/tmp/a:b"), "root").contains("without `:`"));
        // From here on it takes root, as these tests do (see `tests/run`).
        let text = refused(folder.path(), "nobody");
        assert!(text.contains("nobody may not write into the log folder"), "{text}");
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(log_folder(folder.path(), user("nobody")).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
