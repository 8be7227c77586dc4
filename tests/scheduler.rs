//! The embedded scheduler with the real program: its dispatchers and tasks are processes of this machine, so every test
//! looks at what the processes do, not at what the books say they do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use labwright::model::job::{JobId, Task, TaskId, TaskState};
use labwright::scheduler::local::Local;
use labwright::scheduler::{Scheduler, SchedulerError, Submission};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take, on a machine that does other work beside.
const PATIENCE: Duration = Duration::from_secs(120);

/// A scheduler of its own, and a folder in which tasks leave traces.
struct Lab {
    folder: TempDir,
    local: Local,
}

/// A task that says that it runs, ends when it is told so by a file, and says how it ended.
const TASK: &str = r#"
cd "$0" || exit 1
trap 'echo terminated > "ended.$1"; exit' TERM
echo $$ > "pid.$1.new"; mv "pid.$1.new" "pid.$1"
while [ ! -e "end.$1" ] && [ ! -e end ]; do sleep 0.02; done
echo done > "ended.$1"
"#;

impl Lab {
    fn new(slots: u32, memory_mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("traces")).unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_labwright"));
        let local = Local::new(folder.path().join("scheduler"), slots, memory_mib, program);
        Self { folder, local }
    }

    fn traces(&self) -> PathBuf {
        self.folder.path().join("traces")
    }

    fn submission(&self, tasks: u32, memory_mib: u64, command: &[&str]) -> Submission {
        Submission {
            name: "lw.k3f9.lab.1".to_owned(),
            tasks,
            memory_mib,
            host: None,
            command: command.iter().map(OsString::from).collect(),
            log_folder: self.traces(),
            context: Vec::new(),
        }
    }

    fn submit(&self, tasks: u32, memory_mib: u64) -> JobId {
        let traces = self.traces();
        let command = ["sh", "-c", TASK, traces.to_str().unwrap()];
        self.local.submit(&self.submission(tasks, memory_mib, &command)).unwrap()
    }

    /// Lets a task end, or all of them (`""`).
    fn end(&self, task: &str) {
        std::fs::write(self.traces().join(format!("end{task}")), "").unwrap();
    }

    fn trace(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.traces().join(name)).ok().map(|text| text.trim().to_owned())
    }

    fn pid(&self, task: u32) -> i32 {
        wait_for("a task's pid", || self.trace(&format!("pid.{task}"))).parse().unwrap()
    }

    /// Tasks with their states' first letters, like `1r 2p`.
    fn list(&self) -> String {
        let letter = |task: &Task| match task.state {
            TaskState::Pending { .. } => 'p',
            TaskState::Running => 'r',
            TaskState::Deleting => 'd',
            ref other => panic!("a local task is never {other:?}"),
        };
        let tasks = self.local.list().unwrap();
        let words: Vec<String> = tasks.iter().map(|task| format!("{}{}", task.id.task, letter(task))).collect();
        words.join(" ")
    }

    fn wait_for_list(&self, wanted: &str) {
        wait_for(&format!("the list `{wanted}`"), || (self.list() == wanted).then_some(()));
    }

    fn used(&self) -> (u32, u64) {
        let usage = self.local.capacity().unwrap()[0].usage.unwrap();
        (usage.slots_used, usage.memory_used_mib)
    }

    /// Processes whose command line speaks of this lab, lowest pid first.
    fn processes(&self, word: &str) -> Vec<i32> {
        let ours = self.folder.path().to_str().unwrap().to_owned();
        let speaks = |pid: &i32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&words).into_owned();
            line.contains(&ours) && line.contains(word)
        };
        let entries = std::fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let mut found: Vec<i32> = pids.filter(speaks).collect();
        found.sort_unstable();
        found
    }

    /// Whether a dispatcher waits for room, before all that come later.
    fn is_somebodys_turn(&self) -> bool {
        let turn = std::fs::File::open(self.folder.path().join("scheduler/turn")).unwrap();
        turn.try_lock().is_err()
    }

    fn job_folders(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("scheduler/jobs")).unwrap().count()
    }
}

impl Drop for Lab {
    /// A failed test leaves no process behind; dispatchers go first, so that they start nothing more.
    fn drop(&mut self) {
        for word in ["local-dispatch", ""] {
            for pid in self.processes(word) {
                kill(pid);
            }
        }
    }
}

fn kill(pid: i32) {
    match nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
        // A process that is gone meanwhile is no failure of the test.
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(errno) => panic!("cannot kill process {pid}: {errno}"),
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn task(job: JobId, task: u32) -> TaskId {
    TaskId { job, task }
}

#[test]
fn tasks_wait_for_a_slot_and_start_in_order() {
    let lab = Lab::new(2, 1024);
    lab.submit(4, 64);
    lab.wait_for_list("1r 2r 3p 4p");
    assert_eq!(lab.used(), (2, 128));
    lab.pid(2);
    lab.end(".2");
    lab.wait_for_list("1r 3r 4p");
    assert_eq!(lab.trace("pid.4"), None, "no task starts without a slot");
    lab.end("");
    lab.wait_for_list("");
    assert_eq!(lab.trace("ended.4").as_deref(), Some("done"));
    assert_eq!(lab.used(), (0, 0));
    assert_eq!(lab.job_folders(), 0, "a finished job's folder is collected");
}

#[test]
fn tasks_wait_for_memory_and_none_overtakes() {
    let lab = Lab::new(10, 1000);
    let first = lab.submit(1, 600);
    lab.wait_for_list("1r");
    lab.pid(1);
    wait_for("the first's dispatcher to end", || lab.processes("local-dispatch").is_empty().then_some(()));
    let second = lab.submit(1, 500);
    wait_for("the second's turn", || lab.is_somebodys_turn().then_some(()));
    lab.submit(1, 100);
    std::thread::sleep(Duration::from_millis(300));
    let states: Vec<bool> = lab.local.list().unwrap().iter().map(|task| task.state == TaskState::Running).collect();
    assert_eq!(states, [true, false, false], "the small one would fit, but it is not its turn");
    lab.local.kill(&[task(second, 1)]).unwrap();
    // 600 and 100 MiB are 38 and 7 units of 16.
    wait_for("the last to run", || (lab.used() == (2, 720)).then_some(()));
    lab.local.kill(&[task(first, 1)]).unwrap();
    wait_for("the first to end", || (lab.used() == (1, 112)).then_some(()));
}

#[test]
fn jobs_are_cut_off_from_who_submitted_them() {
    let lab = Lab::new(1, 1024);
    lab.submit(2, 16);
    lab.wait_for_list("1r 2p");
    let dispatcher = lab.processes("local-dispatch")[0];
    let group = nix::unistd::getpgid(Some(Pid::from_raw(dispatcher))).unwrap();
    assert_eq!(group.as_raw(), dispatcher, "no ^C and no hang-up of a terminal reaches the dispatcher");
    let pid = lab.pid(1);
    let session = nix::unistd::getsid(Some(Pid::from_raw(pid))).unwrap();
    assert_eq!(session.as_raw(), pid, "a task has a session of its own");
    for pid in [dispatcher, pid] {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let foreign = environment.split('\0').find(|pair| !pair.is_empty() && !pair.starts_with("PATH="));
        assert_eq!(foreign, None);
    }
    assert_eq!(std::fs::read_link(format!("/proc/{dispatcher}/cwd")).unwrap(), Path::new("/"));
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap(), Path::new("/dev/null"));
    lab.end("");
    lab.wait_for_list("");
    assert_eq!(lab.trace("ended.2").as_deref(), Some("done"));
}

#[test]
fn a_killed_pending_task_never_starts() {
    let lab = Lab::new(1, 1024);
    let job = lab.submit(4, 16);
    lab.wait_for_list("1r 2p 3p 4p");
    lab.local.kill(&[task(job, 2), task(job, 4), task(JobId(99), 1), task(job, 77)]).unwrap();
    assert_eq!(lab.list(), "1r 3p");
    lab.end("");
    lab.wait_for_list("");
    wait_for("the dispatcher to end", || lab.processes("local-dispatch").is_empty().then_some(()));
    assert_eq!((lab.trace("pid.2"), lab.trace("pid.4")), (None, None));
    assert_eq!(lab.trace("ended.3").as_deref(), Some("done"));
}

#[test]
fn a_killed_running_task_is_told_to_stop() {
    let lab = Lab::new(2, 1024);
    let job = lab.submit(2, 16);
    lab.wait_for_list("1r 2r");
    lab.pid(1);
    lab.local.kill(&[task(job, 1)]).unwrap();
    lab.wait_for_list("2r");
    assert_eq!(lab.trace("ended.1").as_deref(), Some("terminated"));
    lab.local.kill(&[task(job, 1)]).unwrap();
    assert_eq!(lab.list(), "2r");
}

#[test]
fn a_task_that_takes_its_time_is_deleting() {
    let lab = Lab::new(1, 1024);
    let traces = lab.traces();
    let script = "trap 'while [ ! -e \"$0/end\" ]; do sleep 0.02; done; exit' TERM
        echo > \"$0/up\"; while :; do sleep 0.02; done";
    let command = ["sh", "-c", script, traces.to_str().unwrap()];
    let job = lab.local.submit(&lab.submission(1, 16, &command)).unwrap();
    wait_for("the task to be up", || lab.trace("up"));
    lab.local.kill(&[task(job, 1)]).unwrap();
    assert_eq!(lab.list(), "1d");
    lab.end("");
    lab.wait_for_list("");
}

#[test]
fn a_task_killed_at_any_instant_of_its_start_is_gone() {
    for delay_ms in [0, 2, 5, 10, 20, 40, 80] {
        let lab = Lab::new(1, 1024);
        let job = lab.submit(1, 16);
        std::thread::sleep(Duration::from_millis(delay_ms));
        lab.local.kill(&[task(job, 1)]).unwrap();
        lab.wait_for_list("");
        assert_eq!(lab.used(), (0, 0));
    }
}

#[test]
fn kill_9_of_a_task_frees_its_place() {
    let lab = Lab::new(1, 64);
    lab.submit(2, 64);
    lab.wait_for_list("1r 2p");
    kill(lab.pid(1));
    lab.wait_for_list("2r");
    assert_eq!(lab.used(), (1, 64));
}

#[test]
fn kill_9_of_a_dispatcher_loses_only_what_waits() {
    let lab = Lab::new(1, 1024);
    lab.submit(3, 16);
    lab.wait_for_list("1r 2p 3p");
    lab.pid(1);
    let dispatcher = lab.processes("local-dispatch")[0];
    let after = lab.submit(1, 16);
    lab.wait_for_list("1r 2p 3p 1p");
    kill(dispatcher);
    lab.wait_for_list("1r 1p");
    assert_eq!(lab.used(), (1, 16));
    kill(lab.pid(1));
    let only_the_next =
        |tasks: &[Task]| matches!(tasks, [one] if one.id.job == after && one.state == TaskState::Running);
    wait_for("the next job's task", || only_the_next(&lab.local.list().unwrap()).then_some(()));
}

#[test]
fn a_reused_pid_is_not_signalled() {
    let lab = Lab::new(1, 1024);
    let job = lab.submit(1, 16);
    lab.pid(1);
    let mut bystander = Command::new("sleep").arg("60").spawn().unwrap();
    let text = format!("{{\"pid\":{},\"start_time\":1}}", bystander.id());
    std::fs::write(lab.folder.path().join(format!("scheduler/jobs/{job}/task.1")), text).unwrap();
    lab.local.kill(&[task(job, 1)]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(bystander.try_wait().unwrap(), None);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn two_submitters_get_different_jobs_and_share_the_slots() {
    let lab = Lab::new(3, 1024);
    let submit_five = || (0..5).map(|_| lab.submit(2, 16).0).collect::<Vec<_>>();
    let mut numbers: Vec<u64> = std::thread::scope(|scope| {
        let submitters = [scope.spawn(submit_five), scope.spawn(submit_five)];
        submitters.into_iter().flat_map(|submitter| submitter.join().unwrap()).collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    wait_for("all slots to be used", || (lab.used().0 == 3).then_some(()));
    assert_eq!(lab.local.list().unwrap().len(), 20);
    lab.end("");
    lab.wait_for_list("");
}

#[test]
fn three_hundred_tasks_wait_and_run() {
    let lab = Lab::new(300, 300 * 16);
    let job = lab.local.submit(&lab.submission(300, 16, &["sh", "-c", "exec sleep 600"])).unwrap();
    assert_eq!(lab.local.list().unwrap().len(), 300);
    wait_for("300 tasks to run", || (lab.used() == (300, 4800)).then_some(()));
    let all: Vec<TaskId> = (1..=300).map(|number| task(job, number)).collect();
    lab.local.kill(&all).unwrap();
    lab.wait_for_list("");
    assert_eq!(lab.used(), (0, 0));
}

#[test]
fn what_never_fits_is_refused_at_once() {
    let refused = |lab: &Lab, tasks: u32, memory_mib: u64| {
        lab.local.submit(&lab.submission(tasks, memory_mib, &["true"])).unwrap_err().to_string()
    };
    let lab = Lab::new(2, 100);
    assert_eq!(refused(&lab, 1, 97), "a task wants 112 MiB, the site has 96 MiB in all: it would wait forever");
    assert_eq!(refused(&lab, 0, 16), "a job has 1 to 1048575 tasks, not 0");
    let empty = Lab::new(0, 100);
    assert_eq!(
        refused(&empty, 1, 16),
        "the site has no slots: nothing could ever run; give it some under `scheduler:` in site.yaml"
    );
    assert_eq!(lab.list(), "");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let lab = Lab::new(1, 64);
    let folder = lab.folder.path().join("scheduler");
    std::fs::write(&folder, "a file").unwrap();
    let error = lab.local.submit(&lab.submission(1, 16, &["true"])).unwrap_err();
    assert!(matches!(error, SchedulerError::Folder { .. }), "{error:?}");
    let wanted = format!(
        "the scheduler's folder {} cannot be written: make it writable for this account, or name another one under `scheduler:` in site.yaml",
        folder.display()
    );
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn a_corrupt_file_is_named() {
    let lab = Lab::new(1, 64);
    let job = lab.submit(1, 16);
    lab.pid(1);
    let path = lab.folder.path().join(format!("scheduler/jobs/{job}/job.json"));
    std::fs::write(&path, "{").unwrap();
    let error = lab.local.list().unwrap_err();
    assert_eq!(error.to_string(), format!("{} is not what labwright's scheduler writes there", path.display()));
    let counter = lab.folder.path().join("scheduler/counter");
    std::fs::write(&counter, "x").unwrap();
    let error = lab.local.submit(&lab.submission(1, 16, &["true"])).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is not what labwright's scheduler writes there", counter.display()));
}

#[test]
fn a_program_that_is_missing_is_said_in_the_tasks_log() {
    let lab = Lab::new(1, 64);
    let job = lab.local.submit(&lab.submission(1, 16, &["/no/such/program"])).unwrap();
    lab.wait_for_list("");
    let log = wait_for("the log", || lab.trace(&format!("{job}.1.log")).filter(|text| !text.is_empty()));
    assert_eq!(log, "error: cannot start /no/such/program\n  caused by: No such file or directory (os error 2)");
    assert_eq!(lab.used(), (0, 0));
}

#[test]
fn looking_makes_nothing() {
    let lab = Lab::new(3, 64);
    assert_eq!(lab.list(), "");
    lab.local.kill(&[task(JobId(1), 1)]).unwrap();
    assert_eq!(lab.used(), (0, 0));
    assert!(!lab.folder.path().join("scheduler").exists());
}
