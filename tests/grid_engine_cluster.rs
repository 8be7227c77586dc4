//! Labs' jobs on a real Grid Engine: a master and three hosts in namespaces of this machine (`labs/cluster/cluster`). One
//! cluster serves all scenarios, one after the other; each leaves an empty queue behind. Needs root and the packages that
//! `tests/run` installs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use labwright::model::diagnostic::Severity;
use labwright::model::job::{JobId, Task, TaskId, TaskState};
use labwright::model::site::{GridEngineSettings, Timing};
use labwright::scheduler::Finding;
use labwright::scheduler::grid_engine::GridEngine;
use labwright::scheduler::{Scheduler, SchedulerError, Submission};

/// Longest wait for anything that the cluster does by itself; the machines that run this are busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// One thing that must hold: its name, and what tries it.
type Scenario = (&'static str, fn(&Cluster));

struct Cluster {
    root: PathBuf,
    engine: GridEngine,
}

impl Cluster {
    fn up() -> Self {
        let root = PathBuf::from(format!("/srv/lwge{}", std::process::id()));
        let settings = GridEngineSettings {
            binaries: root.join("tools"),
            queue: Some("all.q".into()),
            ..GridEngineSettings::new(root.clone())
        };
        let cluster = Self { root, engine: GridEngine::new(settings) };
        cluster.run(&["up"]);
        std::fs::create_dir(cluster.logs()).unwrap();
        cluster
    }

    fn command(&self, arguments: &[&str]) -> Output {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/cluster/cluster"))
            .args(arguments)
            .env("CLUSTER_ROOT", &self.root)
            .env("CLUSTER_NAME", format!("lwge{}", std::process::id()))
            .env("CLUSTER_UNHEARD", "0:0:8")
            .env("SECRET_OF_THE_DAEMON", "must not reach a job")
            .output()
            .unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "cluster {arguments:?}: {out}{err}");
        out.into_owned()
    }

    fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    fn log(&self, task: TaskId) -> String {
        std::fs::read_to_string(self.logs().join(format!("{task}.log"))).unwrap_or_default()
    }

    fn submission(&self, name: &str, tasks: u32, memory_mib: u64, script: &str) -> Submission {
        Submission {
            name: format!("lw.k3f9.{name}"),
            tasks,
            memory_mib,
            host: None,
            command: ["/bin/sh", "-c", script, "task"].map(Into::into).to_vec(),
            log_folder: self.logs(),
            context: vec![("labwright_lab", "exam, \"first\" \u{e9}".into()), ("labwright_site", "k3f9".into())],
        }
    }

    fn submit(&self, name: &str, tasks: u32, memory_mib: u64, script: &str) -> JobId {
        self.engine.submit(&self.submission(name, tasks, memory_mib, script)).unwrap()
    }

    fn tasks(&self, job: JobId) -> BTreeMap<u32, Task> {
        let all = self.engine.list().unwrap();
        all.into_iter().filter(|task| task.id.job == job).map(|task| (task.id.task, task)).collect()
    }

    /// Waits until all tasks of a job are as `wanted`.
    fn until_all(&self, job: JobId, count: usize, wanted: impl Fn(&TaskState) -> bool) -> BTreeMap<u32, Task> {
        until(&format!("{count} tasks of {job}"), || {
            let tasks = self.tasks(job);
            let so = tasks.len() == count && tasks.values().all(|task| wanted(&task.state));
            if so { Ok(tasks) } else { Err(format!("{tasks:?}")) }
        })
    }

    fn until_running(&self, job: JobId, count: usize) -> BTreeMap<u32, Task> {
        self.until_all(job, count, |state| *state == TaskState::Running)
    }

    fn until_gone(&self, job: JobId) {
        self.until_all(job, 0, |_| true);
    }

    fn kill_all(&self, job: JobId) {
        let ids: Vec<TaskId> = self.tasks(job).values().map(|task| task.id).collect();
        self.engine.kill(&ids).unwrap();
        self.until_gone(job);
    }

    fn host_name(&self, number: u32) -> String {
        format!("lwge{}-h{number}", std::process::id())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let output = self.command(&["down"]);
        assert!(output.status.success() || std::thread::panicking(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(began.elapsed() < PATIENCE, "waited for {what}; seen: {seen}"),
        }
        std::thread::sleep(Duration::from_millis(150));
    }
}

#[test]
fn labs_jobs_on_a_real_cluster() {
    let cluster = Cluster::up();
    let scenarios: [Scenario; 11] = [
        ("the check finds what is wrong, and nothing where nothing is", set_up),
        ("an array runs on all hosts, and one task is killed alone", an_array),
        ("memory is never overcommitted", memory),
        ("a job asks for what the site says", requests),
        ("a lost answer is found by its mark", lost_answer),
        ("a disabled queue keeps tasks waiting; a task in error tells why", disabled_and_error),
        ("a master that dies takes nothing along", master_dies),
        ("a host that is cut off is unknown, and back when it is heard", host_cut_off),
        ("a daemon, then its host die: tasks stay unknown until they are heard of", host_dies),
        ("a quota refuses", quota),
        ("three hundred vms cost two questions", three_hundred_vms),
    ];
    for (name, scenario) in scenarios {
        scenario(&cluster);
        let left = cluster.engine.list().unwrap();
        assert_eq!(left, [], "left in the queue by: {name}");
    }
}

fn set_up(cluster: &Cluster) {
    assert_eq!(cluster.engine.check(&Timing::default()).unwrap().unwrap(), []);
    let attribute = |words: &[&str]| cluster.run(&[&["master", "qconf", "-mattr"], words].concat());
    attribute(&["queue", "notify", "0:0:5", "all.q"]);
    let second = cluster.host_name(2);
    cluster.run(&["master", "qconf", "-dattr", "exechost", "complex_values", "vm_mem", &second]);
    let found = cluster.engine.check(&Timing::default()).unwrap().unwrap();
    let expected = [Finding {
        severity: Severity::Error,
        message: "queue all.q kills a job 0:0:5 after its notice, but a guest has 30 s to power itself off".into(),
        mend: "qconf -mattr queue notify 00:01:00 all.q".into(),
    }];
    assert_eq!(found[..1], expected);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].message.contains(&second), "{found:?}");
    attribute(&["queue", "notify", "00:01:30", "all.q"]);
    attribute(&["exechost", "complex_values", "vm_mem=16G", &second]);

    let wrong = GridEngineSettings {
        queue: Some("nosuch.q".into()),
        project: Some("nosuch".into()),
        memory_resource: "nosuch_mem".into(),
        ..cluster.engine.settings().clone()
    };
    let found = GridEngine::new(wrong).check(&Timing::default()).unwrap().unwrap();
    let mends: Vec<&str> =
        found.iter().filter(|found| found.severity == Severity::Error).map(|found| found.mend.as_str()).collect();
    let expected = [
        "qconf -mc: add the line `nosuch_mem nosuch_mem MEMORY <= YES YES 0 0`",
        "qconf -aq nosuch.q, or another `queue` in site.yaml",
        "qconf -aprj, or another `project` in site.yaml",
    ];
    assert_eq!(mends, expected, "{found:?}");
}

fn an_array(cluster: &Cluster) {
    let script =
        r#"trap 'echo told; exit 0' USR2; echo "$@"; env | cut -d= -f1; echo ready; while :; do sleep 0.2; done"#;
    let mut submission = cluster.submission("lab.1", 9, 1024, script);
    let odd = ["a b", "$HOME `id`", "it's \"so\"; *", "é"];
    submission.command.extend(odd.map(Into::into));
    let job = cluster.engine.submit(&submission).unwrap();
    let tasks = cluster.until_running(job, 9);
    let hosts: BTreeSet<&str> = tasks.values().filter_map(|task| task.host.as_deref()).collect();
    assert_eq!(hosts.len(), 3, "{hosts:?}");
    assert!(tasks.values().all(|task| task.name == "lw.k3f9.lab.1" && task.owner == "root"), "{tasks:?}");
    let shown = cluster.run(&["master", "qstat", "-j", &job.to_string()]);
    assert!(shown.contains("labwright_lab=exam; \"first\" \u{e9},labwright_site=k3f9\n"), "{shown}");
    assert!(shown.contains("notify:                     TRUE") && !shown.contains("h_rt"), "{shown}");

    let usage: BTreeMap<String, _> =
        cluster.engine.capacity().unwrap().into_iter().map(|host| (host.name, host.usage.unwrap())).collect();
    assert_eq!(usage.len(), 3);
    for usage in usage.values() {
        let seen = (usage.slots, usage.slots_used, usage.memory_mib, usage.memory_used_mib);
        assert_eq!(seen, (300, 3, 16 * 1024, 3 * 1024));
    }

    let fifth = TaskId { job, task: 5 };
    until("task 5 to begin", || if cluster.log(fifth).contains("ready") { Ok(()) } else { Err(cluster.log(fifth)) });
    let log = cluster.log(fifth);
    assert_eq!(log.lines().next(), Some("a b $HOME `id` it's \"so\"; * é 5"));
    assert!(!log.contains("SECRET_OF_THE_DAEMON"), "{log}");

    cluster.engine.kill(&[fifth]).unwrap();
    let left: Vec<u32> = cluster.until_all(job, 8, |state| *state == TaskState::Running).into_keys().collect();
    assert_eq!(left, [1, 2, 3, 4, 6, 7, 8, 9]);
    assert!(cluster.log(fifth).ends_with("told\n"), "a task hears of its end before it: {}", cluster.log(fifth));

    // What is gone already, or never was, is no error.
    cluster.engine.kill(&[fifth, TaskId { job: JobId(99_999), task: 3 }]).unwrap();
    cluster.kill_all(job);
    let ended = until("the books", || match cluster.engine.ended("lw.k3f9.lab.").unwrap() {
        ended if ended.len() == 9 => Ok(ended),
        ended => Err(format!("{} tasks in the books", ended.len())),
    });
    assert!(ended.iter().all(|ended| ended.memory_mib == Some(1024) && ended.id.job == job), "{ended:?}");
    assert_eq!(cluster.engine.ended("lw.k3f9.none.").unwrap(), []);
}

fn memory(cluster: &Cluster) {
    let job = cluster.submit("memory", 4, 10 * 1024, "sleep 300");
    let waiting = until("three tasks to run and one to wait", || {
        let tasks = cluster.tasks(job);
        let running = tasks.values().filter(|task| task.state == TaskState::Running).count();
        let reason = tasks.values().find_map(|task| match &task.state {
            TaskState::Pending { reason } => reason.clone(),
            _ => None,
        });
        reason.filter(|_| running == 3).ok_or(format!("{tasks:?}"))
    });
    assert!(waiting.contains("vm_mem") || waiting.contains("because it offers only"), "{waiting}");
    cluster.kill_all(job);

    let never = cluster.submission("never", 1, 900 * 1024, "true");
    let error = cluster.engine.submit(&never).unwrap_err();
    assert!(matches!(error, SchedulerError::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("because it offers only hc:vm_mem=16.000G"), "{text}");

    let mut nowhere = cluster.submission("nowhere", 1, 64, "true");
    nowhere.log_folder = cluster.root.join("no-such-folder");
    assert!(matches!(cluster.engine.submit(&nowhere), Err(SchedulerError::Refused { .. })));
}

fn requests(cluster: &Cluster) {
    let file = cluster.root.join("run/project");
    std::fs::write(&file, "name labs\noticket 0\nfshare 0\nacl NONE\nxacl NONE\n").unwrap();
    cluster.run(&["master", "qconf", "-Aprj", file.to_str().unwrap()]);
    let third = cluster.host_name(3);
    let engine = GridEngine::new(GridEngineSettings {
        project: Some("labs".into()),
        requests: vec![format!("hostname={third}")],
        tasks_at_once: Some(2),
        ..cluster.engine.settings().clone()
    });
    assert_eq!(engine.check(&Timing::default()).unwrap().unwrap(), []);
    let job = engine.submit(&cluster.submission("asks", 4, 64, "sleep 300")).unwrap();
    let tasks = until("two tasks to run", || {
        let tasks = cluster.tasks(job);
        let running = tasks.values().filter(|task| task.state == TaskState::Running).count();
        if running == 2 { Ok(tasks) } else { Err(format!("{tasks:?}")) }
    });
    let hosts: BTreeSet<&str> = tasks.values().filter_map(|task| task.host.as_deref()).collect();
    assert_eq!(hosts, BTreeSet::from([third.as_str()]));
    let shown = cluster.run(&["master", "qstat", "-j", &job.to_string()]);
    let has = |name: &str, value: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        assert_eq!(line.trim(), value, "{name} {shown}");
    };
    has("project:", "labs");
    has("hard_queue_list:", "all.q");
    cluster.kill_all(job);
    cluster.run(&["master", "qconf", "-dprj", "labs"]);
}

fn lost_answer(cluster: &Cluster) {
    let folder = cluster.root.join("lossy");
    std::fs::create_dir(&folder).unwrap();
    let tools = cluster.root.join("tools");
    std::os::unix::fs::symlink(tools.join("qstat"), folder.join("qstat")).unwrap();
    let lossy = format!("#!/bin/sh\n{}/qsub \"$@\" >/dev/null\nkill -9 $$\n", tools.display());
    std::fs::write(folder.join("qsub"), lossy).unwrap();
    Command::new("chmod").arg("755").arg(folder.join("qsub")).status().unwrap();
    let settings = GridEngineSettings { binaries: folder, ..cluster.engine.settings().clone() };
    let engine = GridEngine::new(settings);

    let submission = cluster.submission("lost", 2, 64, "sleep 300");
    let error = engine.submit(&submission).unwrap_err();
    assert!(matches!(error, SchedulerError::Doubtful { .. }), "{error}");
    let found: Vec<Task> = engine.list().unwrap().into_iter().filter(|task| task.name == submission.name).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    cluster.kill_all(found[0].id.job);
}

fn disabled_and_error(cluster: &Cluster) {
    let qmod = |what: &str| cluster.run(&["master", "qmod", what, "all.q"]);
    qmod("-d");
    let folder = cluster.root.join("goes");
    std::fs::create_dir(&folder).unwrap();
    let mut submission = cluster.submission("error", 2, 64, "sleep 300");
    submission.log_folder = folder.clone();
    let job = cluster.engine.submit(&submission).unwrap();
    let reason = until("a reason to wait", || {
        let tasks = cluster.tasks(job);
        match tasks.values().next().map(|task| &task.state) {
            Some(TaskState::Pending { reason: Some(reason) }) => Ok(reason.clone()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(reason.contains("disabled"), "{reason}");
    std::fs::remove_dir(&folder).unwrap();
    qmod("-e");
    let stuck = cluster.until_all(job, 2, |state| matches!(state, TaskState::Error { reason: Some(_), .. }));
    let TaskState::Error { reason: Some(reason), .. } = &stuck[&1].state else { panic!("{stuck:?}") };
    assert!(reason.contains("goes") && reason.contains("No such file or directory"), "{reason}");
    std::fs::create_dir(&folder).unwrap();
    // What the reason says is typed for each of them.
    for task in stuck.values() {
        let words = task.state.reason().unwrap().rsplit('`').nth(1).unwrap().to_owned();
        assert_eq!(words, format!("qmod -cj {}", task.id));
        // `qmod` ends with 1 after each change that it made.
        cluster.command(&[&["master"][..], &words.split(' ').collect::<Vec<_>>()].concat());
    }
    cluster.until_running(job, 2);
    cluster.kill_all(job);
}

fn master_dies(cluster: &Cluster) {
    let stays = cluster.submit("stays", 3, 64, "sleep 300");
    let ends = cluster.submit("ends", 1, 64, "sleep 4");
    cluster.until_running(stays, 3);
    cluster.until_running(ends, 1);
    cluster.run(&["kill-master"]);
    let began = Instant::now();
    for error in [
        cluster.engine.list().unwrap_err(),
        cluster.engine.capacity().unwrap_err(),
        cluster.engine.kill(&[TaskId { job: stays, task: 1 }]).unwrap_err(),
        cluster.engine.submit(&cluster.submission("unheard", 1, 64, "true")).unwrap_err(),
    ] {
        assert!(matches!(error, SchedulerError::Doubtful { .. }), "{error}");
        assert!(error.to_string().contains("unable to"), "{error}");
    }
    // One of the jobs ends while nobody hears of it.
    std::thread::sleep(Duration::from_secs(4).saturating_sub(began.elapsed()));
    cluster.run(&["start-master"]);
    cluster.until_gone(ends);
    cluster.until_running(stays, 3);
    assert_eq!(cluster.engine.list().unwrap().len(), 3, "the submit that nobody heard made no job");
    cluster.kill_all(stays);
}

/// Submits one task per host and waits until they run; answers the one on host 2.
fn one_per_host(cluster: &Cluster, name: &str) -> (JobId, TaskId) {
    let job = cluster.submit(name, 3, 1024, "while :; do date +%s.%N; sleep 0.3; done");
    let tasks = cluster.until_running(job, 3);
    let second = cluster.host_name(2);
    let on_second = tasks.values().find(|task| task.host.as_ref() == Some(&second));
    (job, on_second.unwrap_or_else(|| panic!("no task on {second}: {tasks:?}")).id)
}

fn until_state(cluster: &Cluster, id: TaskId, wanted: &TaskState) {
    until(&format!("{id} to be {wanted:?}"), || match cluster.tasks(id.job).get(&id.task) {
        Some(task) if task.state == *wanted => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn host_cut_off(cluster: &Cluster) {
    let (job, cut) = one_per_host(cluster, "cut");
    cluster.run(&["link", "2", "down"]);
    until_state(cluster, cut, &TaskState::Unknown);
    until("the host, and no other, to be lost", || {
        let hosts = cluster.engine.capacity().unwrap();
        let lost: Vec<String> = hosts.into_iter().filter(|host| host.usage.is_none()).map(|host| host.name).collect();
        if lost == [cluster.host_name(2)] { Ok(()) } else { Err(format!("{lost:?}")) }
    });
    let before = cluster.log(cut).lines().count();
    until("the task to go on unseen", || match cluster.log(cut).lines().count() {
        now if now > before => Ok(()),
        _ => Err(String::new()),
    });
    cluster.run(&["link", "2", "up"]);
    until_state(cluster, cut, &TaskState::Running);
    cluster.kill_all(job);
}

fn host_dies(cluster: &Cluster) {
    let (job, dead) = one_per_host(cluster, "dead");
    // Its execution daemon alone dies first: the task goes on, and the next daemon adopts it.
    cluster.run(&["kill-execd", "2"]);
    until_state(cluster, dead, &TaskState::Unknown);
    cluster.run(&["start-execd", "2"]);
    until_state(cluster, dead, &TaskState::Running);
    cluster.run(&["kill-host", "2"]);
    until_state(cluster, dead, &TaskState::Unknown);
    // A kill reaches nobody: the task stays, and stays unknown, however long the host is away.
    cluster.engine.kill(&[dead]).unwrap();
    for _ in 0..10 {
        assert_eq!(cluster.tasks(job)[&dead.task].state, TaskState::Unknown);
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.run(&["start-host", "2"]);
    let left = cluster.until_all(job, 2, |state| *state == TaskState::Running);
    assert!(!left.contains_key(&dead.task), "{left:?}");
    let size = cluster.log(dead).len();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(cluster.log(dead).len(), size, "the host's return started nothing again");
    cluster.kill_all(job);
}

fn quota(cluster: &Cluster) {
    let file = cluster.root.join("run/quota");
    let rules = "{\n name labs\n description none\n enabled TRUE\n limit users {*} hosts {*} to vm_mem=6G\n}\n";
    std::fs::write(&file, rules).unwrap();
    cluster.run(&["master", "qconf", "-Arqs", file.to_str().unwrap()]);
    let error = cluster.engine.submit(&cluster.submission("quota", 1, 7 * 1024, "true")).unwrap_err();
    assert!(matches!(error, SchedulerError::Refused { .. }), "{error}");
    let error = cluster.engine.submit(&cluster.submission("crowd", 75_001, 64, "true")).unwrap_err();
    assert!(matches!(error, SchedulerError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("raise `max_aj_tasks`"), "{error}");
    cluster.run(&["master", "qconf", "-drqs", "labs"]);
}

/// The tools of the cluster, each call noted in a file: its name alone.
fn noted_tools(cluster: &Cluster) -> (PathBuf, PathBuf) {
    let (folder, notes) = (cluster.root.join("noted"), cluster.root.join("notes"));
    std::fs::create_dir(&folder).unwrap();
    for tool in ["qsub", "qstat", "qdel", "qhost", "qconf", "qacct"] {
        let path = folder.join(tool);
        let real = cluster.root.join("tools").join(tool);
        let script = format!("#!/bin/sh\necho {tool} >>{}\nexec {} \"$@\"\n", notes.display(), real.display());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    (folder, notes)
}

/// The whole program on a lab of 300 vms, whose tasks wait in a queue that is disabled: no guest ever runs.
fn three_hundred_vms(cluster: &Cluster) {
    let (tools, notes) = noted_tools(cluster);
    let lab = cluster.root.join("crowd");
    std::fs::create_dir(&lab).unwrap();
    let manifest = "lab: crowd
vm_groups: { hall: { ip_range: 10.77.0.2-10.77.3.254, bridge: vbr0 } }
users: { badmin: { limits: { running_vms: 300, storage: 100G } } }
vms: { seat: { owner: badmin, disks: [{ size: 64M }], memory: 64M, vm_group: hall, count: 300, state: running } }
";
    std::fs::write(lab.join("lab.yaml"), manifest).unwrap();
    let site = format!(
        "state: state.db\nstorage: {{ root: site }}\nservice_user: nobody\nnetwork: {{ dhcp: none, dhcp_servers: [] }}\n\
         scheduler:\n  grid_engine: {{ root: {}, queue: all.q, binaries: {} }}\n",
        cluster.root.display(),
        tools.display()
    );
    std::fs::write(cluster.root.join("site.yaml"), site).unwrap();
    let calls = |arguments: &[&str], exit: i32| {
        drop(std::fs::remove_file(&notes));
        let output = Command::new(env!("CARGO_BIN_EXE_labwright"))
            .arg("--site")
            .arg(cluster.root.join("site.yaml"))
            .args(arguments)
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {out}{err}");
        let noted = std::fs::read_to_string(&notes).unwrap_or_default();
        let count = |tool: &str| noted.lines().filter(|line| *line == tool).count();
        (count("qstat"), count("qsub"), count("qdel"), noted.lines().count(), out.into_owned())
    };
    let lab = lab.to_str().unwrap();
    calls(&["state", "init"], 0);
    cluster.run(&["master", "qmod", "-d", "all.q"]);
    let (qstat, qsub, qdel, all, _) = calls(&["apply", lab, "--yes"], 0);
    assert_eq!((qstat, qsub, qdel, all), (0, 1, 0, 1), "one array, and nothing to ask about before");
    assert_eq!(cluster.engine.list().unwrap().len(), 300);
    let waiting = until("the scheduler's reason", || match calls(&["plan", lab], 0) {
        (2, 0, 0, 2, out) if out.contains("disabled") => Ok(out),
        (2, 0, 0, 2, out) => Err(out),
        (qstat, _, _, all, out) => panic!("{qstat} of {all} calls: {out}"),
    });
    assert!(waiting.contains("no changes"), "{waiting}");
    for look in [&["status", lab][..], &["get", "jobs", "-C", lab], &["apply", lab, "--yes"]] {
        let (qstat, _, _, all, _) = calls(look, 0);
        assert_eq!((qstat, all), (2, 2), "{look:?}");
    }

    // What somebody takes out of the queue behind our back comes back as one array.
    let job = cluster.engine.list().unwrap()[0].id.job;
    cluster.run(&["master", "qdel", &format!("{job}.1-100")]);
    let (qstat, qsub, qdel, all, out) = calls(&["apply", lab, "--yes"], 0);
    assert_eq!((qstat, qsub, qdel, all), (2, 1, 0, 4), "and one look at the books: {out}");
    assert_eq!(cluster.engine.list().unwrap().len(), 300);

    let usage = "user,lab,vms,runs,run_time,memory_gib_hours\nbadmin,crowd,300,400,0:00:00,0.00\n";
    let (_, _, _, all, out) = calls(&["get", "usage", "-C", lab, "-o", "csv"], 0);
    assert_eq!((all, out.as_str()), (1, usage), "the books are read once, for the hundred that left no report");
    let (.., out) = calls(&["get", "jobs", "-C", lab, "-o", "csv"], 0);
    let of = |state: &str| out.lines().filter(|line| line.split(',').nth(3) == Some(state)).count();
    assert_eq!((of("pending"), of("ended")), (300, 100), "{out}");
    std::fs::write(tools.join("qacct"), "#!/bin/sh\necho 'the disk is on fire' >&2\nexit 1\n").unwrap();
    let (.., out) = calls(&["get", "usage", "-C", lab, "-o", "csv"], 0);
    assert_eq!(out, usage, "books that cannot be read cost the times alone");

    // A master that is away is no empty queue.
    cluster.run(&["kill-master"]);
    let (qstat, _, _, all, out) = calls(&["plan", lab], 1);
    assert_eq!((qstat, all, out.as_str()), (1, 1, ""));
    let (_, qsub, qdel, _, out) = calls(&["apply", lab, "--yes"], 1);
    assert_eq!((qsub, qdel, out.as_str()), (0, 0, ""));
    cluster.run(&["start-master"]);

    let (qstat, qsub, qdel, all, out) = calls(&["destroy", lab, "--yes"], 0);
    assert!(qstat <= 6 && (qsub, qdel) == (0, 1) && all == qstat + qdel, "{qstat} of {all} calls: {out}");
    cluster.run(&["master", "qmod", "-e", "all.q"]);
}
