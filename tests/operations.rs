//! The real program twice at once on one lab: while one works on some vms, and takes long over it, the other works on others, is
//! told by whom those are worked on, and goes on where the first was killed. What takes long here ends when the test says so,
//! so that only the order counts, never a clock. It all happens in namespaces of its own, so it runs as root.

#[path = "cli/machine.rs"]
mod machine;
#[path = "cli/sandbox.rs"]
mod sandbox;

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::Sandbox;

/// Guests without a system do not hear their power button: a stop takes all of the grace period that they were started with.
const SITE: &str = "\
state: site/state.db
storage: { root: site/storage }
scheduler: { local: { folder: site/scheduler, slots: 16, memory: 8G } }
network: { dhcp: dnsmasq, dhcp_folder: site/dnsmasq }
timing: { grace: 900s }
service_user: nobody
";

/// How long anything may take that comes by itself, on a machine that does other work beside.
const PATIENCE: Duration = Duration::from_secs(120);

/// It does not do this as long as there is a file `hold`.
const SLOW_QEMU_IMG: &str = "#!/bin/sh
while [ \"$1\" = WHAT ] && [ -e FOLDER/hold ]; do touch FOLDER/asked; sleep 0.05; done
exec /usr/bin/qemu-img \"$@\"
";

/// It knows no commit, and says so late.
const SLOW_GIT: &str = "#!/bin/sh
touch FOLDER/asked
while [ -e FOLDER/hold ]; do sleep 0.05; done
exit 1
";

/// It says nothing of itself as long as there is a file `hold`.
const SLOW_NFT: &str = "#!/bin/sh
while [ -e FOLDER/hold ]; do touch FOLDER/asked; sleep 0.05; done
exec /usr/sbin/nft \"$@\"
";

struct Lab(Sandbox);

impl Lab {
    /// Three students, none of whose vms runs.
    fn new() -> Self {
        machine::of_its_own();
        let lab = Self(Sandbox::new("/dev/shm", None));
        std::fs::write(lab.0.path("site.yaml"), SITE).unwrap();
        lab.must("echo cid >>students.csv; sed -i s/256M/128M/ lab.yaml");
        lab.must("labwright --site ../site.yaml state init");
        lab.must("labwright --site ../site.yaml host setup");
        lab.must("labwright --site ../site.yaml apply --yes");
        lab
    }

    fn ask(&self, line: &str) -> (Option<i32>, String) {
        let output = self.0.shell(line);
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    #[track_caller]
    fn must(&self, line: &str) -> String {
        let (code, said) = self.ask(line);
        assert_eq!(code, Some(0), "{line}\n{said}");
        said
    }

    /// What a command of labwright says that ends well.
    #[track_caller]
    fn done(&self, command: &str) -> String {
        self.must(&format!("labwright --site ../site.yaml {command}"))
    }

    /// A command of labwright that goes on by itself.
    fn spawn(&self, arguments: &[&str]) -> Child {
        self.spawn_into(arguments, Stdio::null())
    }

    /// The same; what it says goes there.
    fn spawn_into(&self, arguments: &[&str], stderr: Stdio) -> Child {
        let mut command = self.0.command("sh");
        let bin = self.0.path("bin").display().to_string();
        command.args(["-c", "PATH=$0:$PATH exec labwright \"$@\"", &bin]);
        command.args(["--site", "../site.yaml"]).args(arguments).stdout(Stdio::null()).stderr(stderr);
        command.spawn().unwrap()
    }

    #[track_caller]
    fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "{what} takes too long");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The plan says that somebody works on this.
    #[track_caller]
    fn wait_until_held(&self, address: &str, doing: &str) {
        let words = format!("waits: {address}: it is being {doing} by root (apply ");
        self.wait_until(&words, || self.done("plan").contains(&words));
    }

    /// A program that stands before the real one in the path of what is spawned.
    fn put_before(&self, name: &str, script: &str) {
        std::fs::create_dir_all(self.0.path("bin")).unwrap();
        let program = self.0.path(&format!("bin/{name}"));
        std::fs::write(&program, script.replace("FOLDER", &self.0.path("").display().to_string())).unwrap();
        self.must(&format!("chmod 755 {}; touch ../hold", program.display()));
    }

    fn let_go(&self) {
        std::fs::remove_file(self.0.path("hold")).unwrap();
    }

    fn state(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.0.path("site/state.db")).unwrap()
    }

    fn version(&self) -> u32 {
        self.state().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    /// As an older program would have left the state.
    fn set_version(&self, version: u32) {
        self.state().pragma_update(None, "user_version", version).unwrap();
    }

    #[track_caller]
    fn start(&self, vm: &str) {
        self.done(&format!("vm start {vm} --yes"));
        self.wait_until(&format!("the start of {vm}"), || self.is_running(vm) && self.is_reported(vm));
    }

    /// Its starter has said that it runs; until then a stop ends it at once.
    fn is_reported(&self, vm: &str) -> bool {
        let folders = std::fs::read_dir(self.0.path("site/storage/runs")).unwrap().map(|entry| entry.unwrap().path());
        let holds = |path: std::path::PathBuf, words: &str| {
            std::fs::read_to_string(path).is_ok_and(|text| text.contains(words))
        };
        let mut of_vm = folders.filter(|folder| holds(folder.join("spec.json"), &format!("\"vm\":\"{vm}\"")));
        of_vm.any(|folder| holds(folder.join("report.jsonl"), "\"event\":\"running\""))
    }

    /// The process that has a vm's disk open.
    fn qemu_of(&self, vm: &str) -> Option<String> {
        let disk = self.0.path(&format!("site/storage/vms/course/{vm}/disk-0.qcow2"));
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let opens = |pid: &String| {
            let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            command.starts_with("qemu-system")
                && files.into_iter().any(|file| file.path().read_link().is_ok_and(|to| to == disk))
        };
        processes.map(|entry| entry.file_name().to_string_lossy().into_owned()).find(opens)
    }

    fn is_running(&self, vm: &str) -> bool {
        self.qemu_of(vm).is_some()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What holds a program up must not outlive a test that failed, nor a guest; nor its dnsmasq one that did not.
        let _ = std::fs::remove_file(self.0.path("hold"));
        let folder = self.0.path("site/dnsmasq").display().to_string();
        for (pid, _) in machine::processes_that_name(&folder).iter().filter(|(_, told)| told.starts_with("dnsmasq ")) {
            let _ = Command::new("kill").arg(pid.to_string()).status();
        }
        let folder = self.0.path("site").display().to_string();
        for (pid, _) in machine::processes_that_name(&folder).iter().filter(|(_, told)| told.contains("qemu-system")) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

fn is_at_work(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

#[test]
fn while_a_stop_takes_long_others_are_started_and_stopped() {
    let lab = Lab::new();
    lab.start("ada-work");
    // From here on guests are given up after a second.
    lab.must("sed -i s/900s/1s/ ../site.yaml");
    lab.start("bea-work");
    lab.must("sed -i s/1s/900s/ ../site.yaml");
    let mut stop = lab.spawn(&["vm", "stop", "ada-work", "--yes"]);
    lab.wait_until_held("vm/ada-work", "stopped");

    lab.start("cid-work");
    lab.done("vm stop bea-work --yes");
    assert!(!lab.is_running("bea-work"));
    for command in ["vm start ada-work --yes", "vm restart ada-work --yes", "apply --yes --target vm/ada-work"] {
        let (code, said) = lab.ask(&format!("labwright --site ../site.yaml {command}"));
        assert_eq!(code, Some(4), "{command}: {said}");
        assert!(said.contains("refused: vm/ada-work: is being stopped by root (apply "), "{command}: {said}");
    }
    // A whole apply does all else, and says what it leaves out.
    lab.must("echo dan >>students.csv");
    let said = lab.done("apply --yes");
    assert!(said.contains("vm/dan-work") && said.contains("waits: vm/ada-work: it is being stopped by root"), "{said}");
    assert!(is_at_work(&mut stop) && lab.is_running("ada-work"));

    // Its controller dies: the next one goes on in its place.
    stop.kill().unwrap();
    stop.wait().unwrap();
    let said = lab.done("plan");
    assert!(said.contains("stop  vm/ada-work") && !said.contains("is being"), "{said}");
    lab.must(&format!("kill -9 {}", lab.qemu_of("ada-work").unwrap()));
    lab.wait_until("the end of ada's guest", || !lab.is_running("ada-work"));
    lab.done("apply --yes");
    assert!(!lab.is_running("ada-work") && lab.is_running("cid-work"));
    lab.done("plan --detailed-exitcode");
    assert_eq!(lab.done("get claims -o csv").lines().count(), 2, "a heading, and that cid's vm is to run");
    lab.done("vm start ada-work --yes");
}

/// What is looked at before a start holds up nobody else's; what they decided meanwhile is seen, and no two runs get one number.
#[test]
fn while_a_machine_is_slow_to_answer_others_are_started() {
    let lab = Lab::new();
    lab.put_before("nft", SLOW_NFT);
    let mut start = lab.spawn(&["vm", "start", "ada-work", "--yes"]);
    lab.wait_until("the look at the filter", || lab.0.path("asked").exists());
    lab.start("bea-work");
    assert!(is_at_work(&mut start) && !lab.is_running("ada-work"));

    lab.let_go();
    assert!(start.wait().unwrap().success());
    lab.wait_until("the start of ada-work", || lab.is_running("ada-work") && lab.is_reported("ada-work"));
    assert!(lab.is_running("bea-work"));
    lab.done("plan --detailed-exitcode");
}

/// A cluster that counts how often it is asked for its queue, in which the latest job waits.
const CLUSTER: &str = "\
mkdir ../site/tools && cd ../site/tools
cat >qsub <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do case $1 in -N) name=$2 ;; -t) tasks=$2 ;; esac; shift; done
cat >\"$(dirname \"$0\")/queue.xml\" <<XML
<?xml version='1.0'?>
<job_info><queue_info></queue_info><job_info><job_list state=\"pending\"><JB_job_number>7</JB_job_number><JB_name>$name</JB_name>
<JB_owner>root</JB_owner><state>qw</state><slots>1</slots><tasks>1</tasks></job_list></job_info></job_info>
XML
echo \"7.$tasks:1\"
END
cat >qstat <<'END'
#!/bin/sh
cd \"$(dirname \"$0\")\" && { [ \"$1\" != -f ] || echo >>asked; } && cat queue.xml
END
chmod 755 qsub qstat
echo '<?xml version=\"1.0\"?><job_info><queue_info></queue_info><job_info></job_info></job_info>' >queue.xml
";

/// On a cluster each question to the queue is dear: to start a vm takes one, to take a job over another.
#[test]
fn the_queue_is_asked_once_for_what_is_decided() {
    let lab = Lab(Sandbox::new("/dev/shm", None));
    let cluster = "scheduler: { grid_engine: { root: site/tools, binaries: site/tools } }\nnetwork: { dhcp: none, dhcp_servers: [] }";
    std::fs::write(
        lab.0.path("site.yaml"),
        format!("state: site/state.db\nstorage: {{ root: site/storage }}\nservice_user: nobody\n{cluster}\n"),
    )
    .unwrap();
    lab.done("state init");
    lab.must(CLUSTER);
    lab.done("apply --yes");
    lab.done("state backup ../copy.db");
    let asked = |command: &str| {
        lab.must("rm -f ../site/tools/asked");
        lab.done(command);
        lab.must("wc -l <../site/tools/asked").trim().to_owned()
    };
    assert_eq!(asked("vm start ada-work --yes"), "1");
    lab.done("state restore ../copy.db");
    assert_eq!(asked("import vm/ada-work --job 7"), "1");
    lab.done("plan --detailed-exitcode");
}

/// An apply that publishes one more template, and is not done with it as long as there is a file `hold`.
fn slow_publish(lab: &Lab) -> Child {
    lab.put_before("qemu-img", &SLOW_QEMU_IMG.replace("WHAT", "check"));
    lab.must("qemu-img create -q -f qcow2 images/late.qcow2 2M");
    lab.done("state backup ../copy.db");
    let sample = std::fs::read_to_string(lab.0.path("lab/lab.yaml")).unwrap();
    let late =
        "  late: { owner: teacher, vm_group: room, disks: [{ image: images/late.qcow2 }], memory: 128M }\n\nvms:\n";
    let vm = "\n  extra: { derive: late, vm_group: room, owner: teacher, name: extra }\n";
    std::fs::write(lab.0.path("lab/lab.yaml"), sample.replace("\nvms:\n", late) + vm).unwrap();
    let publish = lab.spawn(&["apply", "--yes"]);
    lab.wait_until_held("template/late", "published");
    publish
}

#[test]
fn while_a_copy_takes_long_others_are_made_started_and_stopped() {
    let lab = Lab::new();
    let mut publish = slow_publish(&lab);

    lab.must("sed -i s/900s/1s/ ../site.yaml");
    lab.start("ada-work");
    lab.done("vm stop ada-work --yes");
    lab.must("echo dan >>students.csv");
    let said = lab.done("apply --yes");
    assert!(said.contains("vm/dan-work") && said.contains("waits: vm/extra: it is being made by root"), "{said}");
    let (code, said) = lab.ask("labwright --site ../site.yaml vm start extra --yes");
    assert!(code == Some(4) && said.contains("refused: vm/extra: is being made by root"), "{code:?}: {said}");
    // Nor is the state taken from under it.
    let version = lab.version();
    for (state, command) in [(version, "state restore ../copy.db"), (version - 1, "plan")] {
        lab.set_version(state);
        let (code, said) = lab.ask(&format!("labwright --site ../site.yaml {command}"));
        let words = format!("state.db is open elsewhere: process {} (`", publish.id());
        assert!(code == Some(4) && said.contains(&words) && said.contains("apply --yes`)"), "{command}: {said}");
    }
    lab.set_version(version);
    assert!(is_at_work(&mut publish));

    lab.let_go();
    assert!(publish.wait().unwrap().success());
    lab.done("plan --detailed-exitcode");
    let addresses =
        lab.must("labwright --site ../site.yaml get vms -o csv | grep -o '10[.]1[.]0[.][0-9]*' | sort | uniq -c");
    let each_once = addresses.lines().all(|line| line.trim_start().starts_with("1 "));
    assert!(each_once && addresses.lines().count() == 5, "{addresses}");
    lab.start("extra");
}

/// A pipe that takes nothing more until somebody reads from it.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let bytes = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    writer.write_all(&vec![b'\n'; usize::try_from(bytes).unwrap()]).unwrap();
    (reader, writer)
}

/// It stands still twice: while git is asked for the commit, and when it says of the first vm that its disks are back.
#[test]
fn while_disks_come_back_others_are_started_and_stopped() {
    let lab = Lab::new();
    lab.must("sed -i s/900s/1s/ ../site.yaml");
    lab.done("destroy --yes");
    lab.done("apply --yes --allow 'vm/*'");
    lab.put_before("git", SLOW_GIT);
    let (mut said, full) = full_pipe();
    let mut restore = lab.spawn_into(&["restore", "ada-work", "bea-work", "--yes"], full.into());
    lab.wait_until("git", || lab.0.path("asked").exists());
    lab.start("cid-work");
    assert!(is_at_work(&mut restore));

    lab.let_go();
    lab.wait_until_held("vm/bea-work", "restored");
    lab.done("vm stop cid-work --yes");
    let (code, refused) = lab.ask("labwright --site ../site.yaml vm start bea-work --yes");
    assert!(code == Some(4) && refused.contains("refused: vm/bea-work: is being restored by root"), "{refused}");
    assert!(is_at_work(&mut restore));

    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    assert!(restore.wait().unwrap().success(), "{text}");
    assert_eq!(text.matches("is back in its place").count(), 2, "{text}");
    lab.done("plan --detailed-exitcode");
    let history = lab.must("labwright --site ../site.yaml history -o csv | grep -c '2 disks of 2 vms put back'");
    assert_eq!(history.trim(), "1");
}

/// Nobody is given an address that a trial uses, and whoever needs none goes on.
#[test]
fn while_a_host_is_tried_others_are_made_started_and_stopped() {
    let lab = Lab::new();
    lab.must("sed -i s/900s/1s/ ../site.yaml; sed -i s/10.1.0.40/10.1.0.8/ lab.yaml");
    lab.done("apply --yes");
    lab.put_before("qemu-img", &SLOW_QEMU_IMG.replace("WHAT", "create"));
    let mut trial = lab.spawn(&["host", "check", "--exam", ".", "--timeout", "10"]);
    // Its seats are taken, and the first of its disks is being made.
    lab.wait_until("the trial", || lab.0.path("asked").exists());

    lab.start("ada-work");
    lab.done("vm stop ada-work --yes");
    lab.must("echo dan >>students.csv");
    assert!(lab.done("apply --yes").contains("vm/dan-work"));
    lab.must("echo eve >>students.csv");
    let (code, said) = lab.ask("labwright --site ../site.yaml apply --yes");
    assert!(code == Some(4) && said.contains("refused: vm/eve-work: "), "the trial has what is left: {code:?}: {said}");
    let (code, said) = lab.ask("labwright --site ../site.yaml host check --exam .");
    assert!(
        code == Some(4) && said.contains("another trial of the site's hosts is under way: process "),
        "{code:?}: {said}"
    );
    assert!(is_at_work(&mut trial));

    lab.let_go();
    trial.wait().unwrap();
    assert!(lab.done("apply --yes").contains("vm/eve-work"));
    lab.done("plan --detailed-exitcode");
}

/// Whoever has vms in two labs of a site runs no more of them than in one.
#[test]
fn vms_of_all_labs_count_for_their_owner() {
    let lab = Lab::new();
    lab.must("sed -i 's/900s/1s/' ../site.yaml; sed -i 's/roster: students.csv/&\\n    limits: { running_vms: 1 }/' lab.yaml");
    lab.done("apply --yes");
    lab.must("cp -r . ../two && sed -i 's/lab: course/lab: two/; s/10[.]1[.]/10.2./g; s/vbr0/vbr2/; s/-work/-two/' ../two/lab.yaml");
    lab.must("cd ../two && labwright --site ../site.yaml host setup && labwright --site ../site.yaml apply --yes");
    lab.start("ada-work");
    let start = "cd ../two && labwright --site ../site.yaml vm start ada-two --yes";
    let (code, said) = lab.ask(start);
    let words = "refused: vm/ada-two: ada may run 1 vms at once: 1 runs in another lab, and 1 would start";
    assert!(code == Some(4) && said.contains(words), "{code:?}: {said}");

    // Her guest ends without a word: no record says so yet, and it counts no more.
    let folder = lab.0.path("site").display().to_string();
    for (pid, _) in machine::processes_that_name(&folder).iter().filter(|(_, told)| told.contains(" starter ")) {
        lab.must(&format!("kill -9 {pid}"));
    }
    lab.wait_until("the end of ada's guest", || !lab.is_running("ada-work"));
    lab.must(start);
    lab.must("cd ../two && labwright --site ../site.yaml vm start bea-two --yes");
    for vm in ["ada-two", "bea-two"] {
        lab.must(&format!("cd ../two && labwright --site ../site.yaml vm stop {vm} --yes"));
    }
}

/// Somebody puts another file in the state's place: nothing is written to it by who has read the one before.
#[test]
fn a_state_that_is_another_file_by_now_is_let_be() {
    let lab = Lab::new();
    let mut publish = slow_publish(&lab);
    lab.must("mv ../site/state.db ../site/of-before && cp ../site/of-before ../site/state.db && rm ../hold");
    assert_eq!(publish.wait().unwrap().code(), Some(4));
    let count = |file: &str| -> i64 {
        let state = rusqlite::Connection::open(lab.0.path(file)).unwrap();
        state.query_row("SELECT COUNT(*) FROM versions", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("site/of-before"), count("site/state.db")), (1, 1));
}

/// The program's file was replaced since it was started: its jobs run what was installed in its place.
#[test]
fn an_upgrade_meanwhile_is_what_jobs_run() {
    let lab = Lab::new();
    lab.must("mkdir ../bin && cp $(command -v labwright) ../bin/lw && cp ../bin/lw ../bin/new");
    lab.must(
        "exec 9<../bin/lw && mv ../bin/new ../bin/lw && /proc/self/fd/9 --site ../site.yaml vm start ada-work --yes",
    );
    lab.wait_until("the start of ada-work", || lab.is_running("ada-work"));
    let programs = lab.must("cat ../site/scheduler/jobs/*/* | grep -ao '[^\" ]*/bin/lw[^\",]*' | sort -u");
    assert_eq!(programs.trim(), lab.0.path("bin/lw").display().to_string());
}
