//! The daemon, asked by accounts of their own: what the paper shows of students (section V.A), and what they must not get.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Lab;
use crate::world::{BINARY, template, text, wait_until};

/// Accounts of this test's own, in this test's mount namespace alone.
pub(crate) const PEOPLE: [(&str, u32); 4] = [("badmin", 44_101), ("doraz", 44_102), ("alex", 44_103), ("eva", 44_104)];
/// Nobody's.
const STRANGER: u32 = 44_199;

pub(crate) const LAB: &str = "lab: net101
user_groups:
  studs: { members: [doraz, alex], limits: { running_vms: 1 } }
vm_groups:
  lab1: { ip_range: 192.168.100.2-192.168.100.20, gateway: 192.168.100.1, bridge: vbr0 }
templates:
  gsr: { owner: badmin, vm_group: lab1, disks: [{ image: images/tiny.qcow2 }], memory: 128M }
permissions:
  - { to: { group: studs }, on: { template: gsr }, allow: [derive], force_isolated: true }
";

/// A lab that is applied, and a daemon.
pub(crate) struct Served {
    pub(crate) lab: Lab,
    pub(crate) socket: PathBuf,
    program: PathBuf,
    pub(crate) daemon: Child,
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::of(LAB, "", &PEOPLE)
    }

    /// This lab, with more settings of its site, and people of this machine.
    pub(crate) fn of(manifest: &str, settings: &str, people: &[(&str, u32)]) -> Self {
        Self::set(manifest, |_| (), |_| settings.to_owned(), people)
    }

    /// The same with a site that has a small file system of its own, in memory.
    pub(crate) fn on_file_system(size: &str, manifest: &str, settings: &str, people: &[(&str, u32)]) -> Self {
        let own = |site: &Path| {
            std::fs::create_dir(site).unwrap();
            let size = format!("mode=755,size={size}");
            mount(Some("tmpfs"), site, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
        };
        Self::set(manifest, own, |_| settings.to_owned(), people)
    }

    /// With settings that name this test's folder.
    pub(crate) fn with_site(settings: impl FnOnce(&Path) -> String) -> Self {
        Self::set(LAB, |_| (), settings, &PEOPLE)
    }

    fn set(
        manifest: &str,
        storage: impl FnOnce(&Path),
        settings: impl FnOnce(&Path) -> String,
        people: &[(&str, u32)],
    ) -> Self {
        let lab = Lab::prepared("", |folder| {
            storage(&folder.with_file_name("site"));
            std::fs::create_dir_all(folder.join("images")).unwrap();
            std::fs::write(folder.join("lab.yaml"), manifest).unwrap();
            std::fs::copy(template(), folder.join("images/tiny.qcow2")).unwrap();
        });
        let site = std::fs::read_to_string(&lab.site).unwrap();
        let settings = settings(lab.world.folder.path());
        std::fs::write(&lab.site, format!("{site}{settings}\n")).unwrap();
        accounts(lab.world.folder.path(), people);
        lab.must(&["host", "setup", "--lab", &text(&lab.folder)]);
        lab.must(&["apply", &text(&lab.folder), "--yes"]);
        let socket = lab.world.folder.path().join("run-of-daemon/api.sock");
        let daemon = daemon(&lab, &socket);
        let program = lab.world.program_in_reach();
        Self { lab, socket, program, daemon }
    }

    /// A command line as somebody types it.
    fn typed(&self, uid: u32, line: &str) -> Output {
        self.typing(uid, line).output().unwrap()
    }

    pub(crate) fn typing(&self, uid: u32, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(line.split_whitespace()).env("LABWRIGHT_SOCKET", &self.socket).env_remove("LABWRIGHT_SITE");
        command.current_dir("/").uid(uid).gid(uid);
        command
    }

    /// What it prints, all in one, and its exit code.
    pub(crate) fn says(&self, who: &str, line: &str) -> (String, i32) {
        let output = self.typed(uid(who), line);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        (said, output.status.code().unwrap())
    }

    #[track_caller]
    pub(crate) fn expect(&self, who: &str, line: &str, exit: i32, said: &str) {
        let (all, code) = self.says(who, line);
        assert_eq!((code, all.trim_end()), (exit, said.trim_end()), "{who}: labwright {line}");
    }

    fn rows(&self, who: &str, line: &str) -> Vec<serde_json::Value> {
        let (said, code) = self.says(who, &format!("{line} -o json"));
        assert_eq!(code, 0, "{who}: {line}: {said}");
        serde_json::from_str(&said).unwrap()
    }

    /// The bytes that come back for these, from root, who sees everything.
    pub(crate) fn answer(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // One that is refused early need not be read to its end.
        drop(stream.write_all(request));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Status and body of what somebody asks without our client, which would not ask for what it is not shown.
    pub(crate) fn raw(&self, who: &str, line: &str, body: &str) -> (String, String) {
        self.raw_with(uid(who), line, "", body)
    }

    /// The same with a body that is to be so long.
    pub(crate) fn raw_of_length(&self, who: &str, line: &str, body: &str, length: usize) -> (String, String) {
        answered(self.asking_of_length(uid(who), line, "", body, length))
    }

    /// The same with more headers, each with its line end.
    pub(crate) fn raw_with(&self, uid: u32, line: &str, headers: &str, body: &str) -> (String, String) {
        answered(self.asking(uid, line, headers, body))
    }

    /// Asks, and does not wait.
    pub(crate) fn asking(&self, uid: u32, line: &str, headers: &str, body: &str) -> Child {
        self.asking_of_length(uid, line, headers, body, body.len())
    }

    fn asking_of_length(&self, uid: u32, line: &str, headers: &str, body: &str, length: usize) -> Child {
        let place = format!("UNIX-CONNECT:{},shut-none", text(&self.socket));
        let mut socat = Command::new("socat");
        socat.args(["-t", "60", "-", &place]).uid(uid).gid(uid).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut socat = socat.current_dir("/").spawn().unwrap();
        let head =
            format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}");
        let request = format!("{head}content-length: {length}\r\n\r\n{body}");
        socat.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
        socat
    }

    pub(crate) fn status(&self, line: &str) -> String {
        let answer = self.answer(format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
        answer.split_whitespace().nth(1).unwrap_or("nothing").to_owned()
    }

    pub(crate) fn end(&mut self) -> std::process::ExitStatus {
        kill(Pid::from_raw(self.daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.daemon.wait().unwrap()
    }
}

/// Status and body.
pub(crate) fn answered(asking: Child) -> (String, String) {
    let answer = String::from_utf8(asking.wait_with_output().unwrap().stdout).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head and a body");
    (head.split_whitespace().nth(1).unwrap().to_owned(), body.to_owned())
}

pub(crate) fn daemon(lab: &Lab, socket: &Path) -> Child {
    let mut command = Command::new(BINARY);
    command.arg("--site").arg(&lab.site).args(["serve", "--socket"]).arg(socket).current_dir("/");
    let daemon = command.spawn().unwrap();
    wait_until("the daemon listens", || UnixStream::connect(socket).is_ok());
    daemon
}

pub(crate) fn uid(who: &str) -> u32 {
    PEOPLE.iter().find(|(name, _)| *name == who).map_or(STRANGER, |(_, uid)| *uid)
}

/// The machine's accounts and these, as far as this namespace sees. A copy of the whole folder: a mount on the file alone would
/// go when somebody else on this machine makes an account, which puts a new file in its place (rename(2)).
fn accounts(folder: &Path, people: &[(&str, u32)]) {
    let etc = folder.join("etc");
    assert!(Command::new("cp").arg("-a").arg("/etc").arg(&etc).status().unwrap().success());
    let machine = std::fs::read_to_string("/etc/passwd").unwrap();
    let ours = people.iter().map(|(name, uid)| format!("{name}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n"));
    std::fs::write(etc.join("passwd"), machine + &ours.collect::<String>()).unwrap();
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    std::fs::write(etc.join("group"), groups + "lan-staff:x:44200:alex\n").unwrap();
    let none: Option<&str> = None;
    mount(Some(&etc), "/etc", none, MsFlags::MS_BIND, none).unwrap();
}

/// The paper's walkthrough, from where the template and its permission are there.
#[test]
fn students_make_and_run_their_own() {
    let mut served = Served::new();
    served.expect(
        "doraz",
        "permission check doraz derive template/gsr",
        0,
        "yes: doraz may derive template/gsr: group/studs on template/gsr (the lab as it was applied)",
    );
    let (said, code) = served.says("doraz", "vm derive gsr --name mine");
    assert!(code == 0 && said.ends_with("apply: 1 done, 0 failed, 0 skipped\n"), "{said}");
    served.expect(
        "doraz",
        "vm start doraz/mine",
        4,
        "error: You don't have permission to run this vm unisolated.\n\
         hint: `labwright vm start doraz/mine --isolate` starts it isolated",
    );
    served.expect("doraz", "get mappings -o name", 0, "");
    let (said, code) = served.says("doraz", "vm start doraz/mine --isolate");
    assert!(code == 0 && said.contains("apply: 1 done, 0 failed, 0 skipped\n"), "{said}");
    // Who looks all the time is told to ask less often; root is not.
    let of_root = |line: &[&str]| served.lab.must(&[line, &["--lab", &text(&served.lab.folder)]].concat());
    wait_until("it runs", || !of_root(&["get", "mappings", "-o", "name"]).is_empty());
    let mapping = served.rows("doraz", "get mappings").remove(0);
    let shown = ["name", "owner", "ip", "mac", "isolated"].map(|field| mapping[field].to_string().replace('"', ""));
    assert_eq!(shown, ["doraz/mine", "doraz", "192.168.100.2", "de:af:de:af:64:02", "true"]);

    its_owner_is_shown_it(&served, &mapping);
    its_owner_changes_it(&served);
    who_may_view_sees_its_screen(&served);
    for who in ["alex", "badmin", "nobody at all"] {
        nobody_reads_its_password(&served, who);
    }
    let quota = served.rows("doraz", "quota").remove(0);
    assert_eq!((&quota["user"], &quota["lab"]), (&"doraz".into(), &"net101".into()));
    assert_eq!(quota["running_vms"], serde_json::json!({ "used": 1, "limit": 1 }));
    let none = served.raw("nobody at all", "GET /v1/quota", "");
    assert_eq!(none, ("200".to_owned(), "[]".to_owned()));
    served.expect(
        "alex",
        "quota doraz",
        4,
        "error: what doraz may use is for doraz and for root to ask; nothing was done",
    );

    // One more than the group may run.
    assert_eq!(served.says("doraz", "vm derive gsr --name second").1, 0);
    served.expect(
        "doraz",
        "vm start doraz/second --isolate",
        4,
        "error: 1 vms of doraz run or are about to, and doraz may run 1 at once; nothing was changed\n\
         hint: `labwright get vms` lists them, and `labwright vm stop` ends one; an admin may raise `running_vms`",
    );
    nobody_else_sees_it(&served);

    assert_eq!(served.says("doraz", "vm stop doraz/mine").1, 0);
    wait_until("it is off", || of_root(&["get", "vms", "doraz/mine", "-o", "json"]).contains("\"state\": \"off\""));
    let (said, code) = served.says("doraz", "vm reimage doraz/mine");
    assert!(code == 0 && said.contains("new disks are asked for; the old ones are kept"), "{said}");
    let (said, code) = served.says("alex", "vm reimage doraz/mine");
    assert!(code != 0 && !said.contains("asked for"), "{said}");
    let (said, code) = served.says("doraz", "vm delete doraz/mine");
    assert_eq!(code, 0, "{said}");
    assert_eq!(served.says("doraz", "get vms -o name"), ("doraz/second\n".to_owned(), 0));
    let history = served.lab.must(&["history", "--lab", &text(&served.lab.folder)]);
    assert!(history.contains("doraz"), "root reads who did it:\n{history}");
    the_audit_says_it(&served);

    assert!(served.end().success(), "a daemon that is asked to end has not failed");
    assert!(!served.socket.exists(), "its socket goes with it");
    let (said, code) = served.says("doraz", "vm start doraz/second --isolate");
    assert!(code != 0 && said.contains(&format!("no daemon serves {}", served.socket.display())), "{said}");
}

/// Where it is and what opens its screen, also for root without the daemon; that somebody was told is kept.
fn its_owner_is_shown_it(served: &Served, mapping: &serde_json::Value) {
    let one = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let shown = one(&served.says("doraz", "vm show doraz/mine -o json").0);
    let screen = &shown["screen"];
    let (password, port) = (screen["password"].as_str().unwrap(), screen["port"].as_u64().unwrap());
    assert_eq!(screen["display"].as_u64(), Some(port - 5900));
    assert_eq!(
        (&shown["name"], &shown["ip"], &shown["host"], &shown["may"]),
        (&mapping["name"], &mapping["ip"], &mapping["host"], &serde_json::json!(["run", "modify", "view"]))
    );
    let place = format!("{}:{port}", screen["host"].as_str().unwrap()).parse().unwrap();
    let entry = labwright::host::machine::vnc::look(&place).unwrap();
    assert_eq!(entry, labwright::host::machine::vnc::Entry::Password, "there is a screen, and it wants a password");
    let (words, _) = served.says("doraz", "vm show doraz/mine");
    for part in
        ["doraz/mine is ", &format!("port {port}, display"), password, "isolated", "you may    run, modify, view"]
    {
        assert!(words.contains(part), "{part} is missing:\n{words}");
    }
    let vnc = &served.rows("doraz", "vm vnc doraz/mine")[0];
    assert_eq!((&vnc["password"], &vnc["port"]), (&screen["password"], &screen["port"]));
    let of_root = served.lab.must(&["vm", "show", "doraz/mine", "--lab", &text(&served.lab.folder), "-o", "json"]);
    assert_eq!(one(&of_root)["screen"]["password"], password);
    assert_eq!(served.says("doraz", "vm list -o name"), ("doraz/mine\n".to_owned(), 0));
    let of_vm = served.lab.must(&["history", "--lab", &text(&served.lab.folder), "--vm", "doraz/mine", "-o", "csv"]);
    assert!(of_vm.contains("doraz,socket,vm show"), "that it was shown is kept:\n{of_vm}");
}

/// Memory and a snapshot, while it runs; nobody else's, and nothing that is the manifest's.
fn its_owner_changes_it(served: &Served) {
    let (said, code) = served.says("doraz", "vm set doraz/mine --memory 160M --cpus 2");
    assert!(code == 0 && said.contains("1 to update") && said.contains("take effect at its next start"), "{said}");
    let vm = served.rows("doraz", "vm list").remove(0);
    assert_eq!((&vm["memory_mib"], &vm["cpus"]), (&160.into(), &2.into()));
    assert_eq!(served.rows("doraz", "get mappings").len(), 1, "it was not stopped for it");
    served.expect(
        "doraz",
        "vm snapshot doraz/mine first",
        0,
        "doraz/mine can go back to now: `labwright vm revert doraz/mine first`",
    );
    assert_eq!(served.rows("doraz", "vm snapshots doraz/mine")[0]["name"], "first");
    let (said, code) = served.says("doraz", "vm console doraz/mine");
    assert!(code == 4 && said.contains("the daemon carries no serial lines"), "{said}");
}

/// The screen without control: with its owner's consent, not without, and kept in the audit.
fn who_may_view_sees_its_screen(served: &Served) {
    let folder = served.lab.world.folder.path().join("pictures");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let look = |who: &str| {
        let file = folder.join(format!("{who}.png"));
        let (said, code) = served.says(who, &format!("vm screen doraz/mine -o {}", text(&file)));
        (std::fs::read(file).is_ok_and(|picture| picture.starts_with(b"\x89PNG\r\n\x1a\n")), code, said)
    };
    assert!(look("doraz").0);
    let (seen, code, said) = look("alex");
    assert!(!seen && code != 0 && !said.contains("permission"), "to alex it is not there: {said}");
    // A tutor's right without the owner's consent, outside sessions.
    let of_root = |line: &str| {
        let words: Vec<&str> = line.split(' ').chain(["--lab", served.lab.folder.to_str().unwrap()]).collect();
        served.lab.must(&words)
    };
    of_root("permission grant alex view vm/doraz/mine");
    let (seen, code, said) = look("alex");
    assert!(!seen && code == 4 && said.contains("in a session alone, or if its owner lets you"), "{said}");
    assert_eq!(served.says("doraz", "permission grant alex view vm/doraz/mine").1, 0);
    let (seen, _, said) = look("alex");
    assert!(seen, "{said}");
    // To look is all: no password, no start, no change.
    let shown: serde_json::Value = serde_json::from_str(&served.says("alex", "vm show doraz/mine -o json").0).unwrap();
    assert_eq!((&shown["screen"], &shown["may"]), (&serde_json::Value::Null, &serde_json::json!(["view"])));
    for line in [
        "vm stop",
        "vm vnc",
        "vm set --cpus 1",
        "vm snapshot",
        "vm suspend",
        "vm snapshots",
        "vm rename --lab net101 x",
    ] {
        let line = match line {
            "vm rename --lab net101 x" => "vm rename doraz/mine x".to_owned(),
            line => format!("{line} doraz/mine"),
        };
        let (said, code) = served.says("alex", &line);
        assert!(code == 4 && said.contains("you don't have permission to"), "{line}: {code} {said}");
    }
    let of_vm = of_root("history --vm doraz/mine -n 60 -o csv");
    for line in ["doraz,socket,vm screen", "alex,socket,vm screen,vm/doraz/mine,refused: not_in_session"] {
        assert!(of_vm.contains(line), "{line} is missing:\n{of_vm}");
    }
    of_root("permission revoke alex vm/doraz/mine");
}

/// The password of a guest's screen is in no file, process or answer that another account can read.
fn nobody_reads_its_password(served: &Served, who: &str) {
    let root = served.lab.world.folder.path();
    let find = format!("cat $(find {} -name vnc.password)", text(root));
    let found = Command::new("sh").args(["-c", &find]).output().unwrap();
    let password = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    assert!(password.len() >= 8, "the guest's screen has a password: {password:?}");
    // Read from a shell's input, the word stands in no command line of those who look.
    let look = format!(
        "read WORD\n\
         find {0} /run/labwright /tmp /var/log -type f -readable -exec grep -laF -f /dev/stdin {{}} + <<END\n$WORD\nEND\n\
         cd {0}/site && find runs vms aside templates state.db state.db-wal -type f -readable ! -name controller.beat; cd /\n\
         for file in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do\n\
         case \"$(tr '\\0' ' ' <$file)\" in *\"$WORD\"*) echo $file;; esac; done",
        text(root)
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &look]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut shell = shell.current_dir("/").uid(uid(who)).gid(uid(who)).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let seen = String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap();
    // The beat is empty, for starters of whatever account to see that a controller lives.
    assert_eq!(seen, "", "{who} reads it");
    for line in ["vm vnc doraz/mine", "vm show doraz/mine", "get mappings -o json", "get vms -o json", "history"] {
        let (said, _) = served.says(who, line);
        assert!(!said.contains(&password), "{who}: {line}");
    }
    let site = format!("--site {}", text(&served.lab.site));
    let lab = text(&served.lab.folder);
    for line in [
        "vm vnc doraz/mine",
        "history --audit",
        "privacy export doraz -o /tmp/doraz-of-others.json",
        "explain vm/doraz/mine",
    ] {
        let (said, code) = served.says(who, &format!("{site} {line} --lab {lab}"));
        assert!(code != 0 && !said.contains(&password), "{who}: {line}: {said}");
    }
}

/// Also what was refused, by the socket's account.
fn the_audit_says_it(served: &Served) {
    let acts = |of: &str| {
        served.lab.must(&["history", "--lab", &text(&served.lab.folder), of, "doraz/mine", "-n", "50", "-o", "csv"])
    };
    let of_vm = acts("--vm");
    for line in [
        "doraz,socket,vm derive",
        "doraz,socket,vm start,vm/doraz/mine,refused: unisolated",
        "doraz,socket,vm stop",
        "alex,socket,vm delete,vm/doraz/mine,refused: not_known",
    ] {
        assert!(of_vm.contains(line), "{line} is missing:\n{of_vm}");
    }
}

/// What is there and not theirs, and what is not there at all, read the same to them.
fn nobody_else_sees_it(served: &Served) {
    served.expect("alex", "get vms -o name", 0, "");
    served.expect("alex", "get mappings -o name", 0, "");
    served.expect("alex", "get templates -o name", 0, "gsr");
    for line in [
        "vm stop NAME",
        "vm delete NAME",
        "permission check alex run vm/NAME",
        "get vms NAME",
        "vm list NAME",
        "vm show NAME",
        "vm show NAME -o json",
        "vm vnc NAME",
    ] {
        let [there, not_there] = ["doraz/mine", "doraz/none"].map(|name| {
            let (said, code) = served.says("alex", &line.replace("NAME", name));
            (said.replace(name, "NAME"), code)
        });
        assert_eq!(there, not_there, "{line}");
        assert_ne!(there.1, 0, "{line}");
    }
    let requests = [
        ("GET /v1/labs/net101/vms/NAME", ""),
        ("DELETE /v1/labs/net101/vms/NAME", ""),
        ("POST /v1/labs/net101/vms/NAME/power", r#"{"wanted":"stop"}"#),
        ("POST /v1/labs/net101/vms/NAME/power", r#"{"wanted":"start","isolated":true}"#),
    ];
    for (line, body) in requests {
        let [there, not_there] = ["mine", "none"].map(|name| {
            let (status, said) = served.raw("alex", &line.replace("NAME", &format!("doraz%2F{name}")), body);
            (status, said.replace(name, "NAME"))
        });
        assert_eq!(there, not_there, "{line} {body}");
        assert_eq!(there.0, "404", "{line} {body}");
    }
    served.expect(
        "alex",
        "vm derive gsr --name mine --owner doraz",
        4,
        "error: vms for somebody else are made by admins; nothing was changed\n\
         hint: leave `--owner` out to make one of your own",
    );
    served.expect(
        "alex",
        "permission check doraz",
        4,
        "error: what others may do is for root to ask; nothing was done",
    );
    let others = "get permissions --effective --owner doraz";
    served.expect("alex", others, 4, "error: what others may do is for root to ask; nothing was done");
    let (own, code) = served.says("alex", "get permissions --effective -o csv");
    assert!(code == 0 && own.contains("template/gsr,derive") && !own.contains("doraz"), "{own}");
    tables_are_of_who_asks(served);
    // An account that is in no lab, and one without a name.
    for line in ["get vms", "get vms --lab net101", "vm start doraz/mine --isolate --lab net101"] {
        let (said, code) = served.says("nobody at all", line);
        assert!(code != 0 && said.contains("that you may know of") && !said.contains("doraz"), "{line}: {said}");
    }
    let [lab, none] = ["net101", "net102"].map(|lab| {
        let (said, code) = served.says("nobody at all", &format!("get vms --lab {lab}"));
        (said.replace(lab, "LAB"), code)
    });
    assert_eq!(lab, none);
}

/// The paper's tables: one's own, the groups that one is in, and nobody else.
fn tables_are_of_who_asks(served: &Served) {
    for (line, names) in [
        ("get users", "alex"),
        ("get user-groups", "admin\nall_users\nstuds"),
        ("get vm-groups", "all_vms\nlab1"),
        ("get permissions", "group:studs,template:gsr"),
        ("get claims", ""),
        ("vm list", ""),
    ] {
        served.expect("alex", &format!("{line} -o name"), 0, names);
        let (all, _) = served.says("alex", &format!("{line} -o json"));
        assert!(!all.contains("doraz"), "alex: {line}:\n{all}");
    }
    let groups = served.says("alex", "get user-groups -o csv").0;
    assert!(groups.contains("studs,,\"alex, among others\""), "how many more there are is not told:\n{groups}");
    let claims = served.says("doraz", "get claims -o name").0;
    assert_eq!(claims.lines().count(), 3, "her two vms, and that one runs: {claims}");
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that a test has ended is no child any more.
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}
