//! Labs whose owners plan and apply them from their own accounts: what they may, and what of others they never learn.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::serve::{Served, daemon, uid};
use crate::world::{template, text, tool, wait_until};

const COURSE: &str = "lab: course
user_groups:
  crew: { roster: crew.csv }
vm_groups:
  own: { ip_range: 192.168.107.2-192.168.107.20, gateway: 192.168.107.1, bridge: vbr7 }
templates:
  tiny: { owner: eva, vm_group: own, disks: [{ image: IMAGES/tiny.qcow2 }], memory: 128M }
vms:
  desk: { derive: tiny, for_each: crew, name: \"{user}-desk\" }
";

/// The course is eva's, and alex' through a group of the machine; net101 is root's.
pub(crate) fn served() -> Served {
    Served::with_site(|folder| {
        let images = folder.join("images");
        std::fs::create_dir_all(&images).unwrap();
        std::fs::copy(template(), images.join("tiny.qcow2")).unwrap();
        let shares = "ip_ranges: [192.168.100.0/24, 192.168.107.0/24], bridges: [vbr7]";
        let owners = "owners: [eva], owner_groups: [lan-staff]";
        format!("labs:\n  course: {{ {owners}, {shares}, image_roots: [{}], running_vms: 2 }}\n", text(&images))
    })
}

/// The course in a folder of somebody's own.
pub(crate) fn folder_of(served: &Served, who: &str, manifest: &str) -> PathBuf {
    let folder = served.lab.world.folder.path().join(format!("home-{who}/course"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("crew.csv"), "user\nana\nbob\n").unwrap();
    write(served, &folder, manifest);
    for path in [folder.parent().unwrap(), &folder, &folder.join("crew.csv"), &folder.join("lab.yaml")] {
        chown(path, Some(uid(who)), Some(uid(who))).unwrap();
        // Nobody but its owner gets at it: the daemon needs no look into it.
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    folder
}

fn write(served: &Served, folder: &Path, manifest: &str) {
    let images = text(&served.lab.world.folder.path().join("images"));
    std::fs::write(folder.join("lab.yaml"), manifest.replace("IMAGES", &images)).unwrap();
}

#[test]
fn an_owner_plans_and_applies_a_lab_and_nothing_else() {
    let served = served();
    let folder = folder_of(&served, "eva", COURSE);
    let at = text(&folder);
    served.lab.must(&["host", "setup", "--lab", &at]);
    let says = |line: &str| served.says("eva", &line.replace("AT", &at));

    let (said, code) = says("plan AT --detailed-exitcode");
    assert!(
        code == 2
            && said.contains("192.168.107.2  new: derived from `tiny` for ana")
            && said.contains("plan: 8 to create"),
        "{said}"
    );
    let (said, code) = says("apply AT");
    assert!(code == 4 && said.contains("there is nobody to ask; nothing was changed"), "{said}");
    let (said, code) = says("apply AT --yes");
    assert!(
        code == 0 && said.contains("1 template published") && said.contains(" done, 0 failed, 0 skipped"),
        "{said}"
    );
    assert_eq!(says("get vms -o name"), ("ana-desk\nbob-desk\n".to_owned(), 0));
    assert_eq!(says("get vms desk -o name"), ("ana-desk\nbob-desk\n".to_owned(), 0), "by its family");
    let (said, code) = says("plan AT");
    assert!(code == 0 && said.starts_with("no changes"), "{said}");
    // Its guests come up, and it is told.
    write(&served, &folder, &COURSE.replace("name:", "state: running, name:"));
    let (said, code) = says("apply AT --yes --wait");
    assert!(code == 0 && said.contains("192.168.107.2") && said.contains("2 to start"), "{said}");
    let (said, code) = says("vm stop ana-desk");
    assert_eq!(code, 0, "{said}");
    let history = served.lab.must(&["history", "--lab", &at]);
    assert!(history.contains("eva"), "{history}");

    other_labs_are_not_there(&served, &folder);

    write(&served, &folder, COURSE);
    let (said, code) = says("destroy AT --yes");
    assert!(code == 0 && said.contains("0 failed"), "{said}");
    assert_eq!(says("get vms -o name --lab course").0, "");
    let (said, code) = served.says("eva", "destroy net101 --yes");
    assert!(code == 4 && said.contains("no lab `net101` that you may plan and apply"), "{said}");
}

fn other_labs_are_not_there(served: &Served, folder: &Path) {
    let at = text(folder);
    let overlapping =
        COURSE.replace("192.168.107.2-192.168.107.20, gateway: 192.168.107.1", "192.168.100.9-192.168.100.30");
    write(served, folder, &overlapping);
    let (said, code) = served.says("eva", &format!("plan {at}"));
    assert!(code == 4 && said.contains("another lab has addresses") && !said.contains("net101"), "{said}");
    let (said, code) = served.says("eva", "get vms --lab net101");
    assert!(code != 0 && said.contains("there is no lab `net101` that you may know of"), "{said}");
    let (said, _) = served.says("eva", "get templates");
    assert!(said.contains("tiny") && !said.contains("gsr"), "{said}");
    // The folder of another lab is not to be had, nor what is beyond the share.
    let body = format!("{{\"folder\":\"{}\"}}\n", text(&served.lab.folder));
    let (status, said) = served.raw("eva", "POST /v1/labs/course/destroy", &body);
    assert!(status == "200" && said.contains("is another lab's"), "{said}");
    let link = served.lab.world.folder.path().join("images/link.qcow2");
    symlink(served.lab.folder.join("images/tiny.qcow2"), link).unwrap();
    for (wrong, told) in [
        (
            COURSE
                .replace("192.168.107.20", "192.168.109.20")
                .replace("ip_range", "subnet: 192.168.104.0/21, ip_range"),
            "lab.yaml:5:",
        ),
        (COURSE.replace("bridge: vbr7", "bridge: vbr0"), "joins a bridge that the site does not give lab `course`"),
        (
            COURSE.replace("IMAGES/tiny.qcow2", "/etc/passwd"),
            "in no folder that the site gives lab `course` for images",
        ),
        (COURSE.replace("IMAGES/tiny.qcow2", "IMAGES/link.qcow2"), "cannot be read"),
        (COURSE.replace("IMAGES/tiny.qcow2", "IMAGES/../images-of-others/x"), "in no folder that the site gives"),
    ] {
        write(served, folder, &wrong);
        for command in ["validate", "plan", "apply --yes"] {
            let (said, code) = served.says("eva", &format!("{command} {at}"));
            assert!(code == 3 && said.contains(told), "{command}: {code}: {said}");
        }
    }
}

#[test]
fn who_does_not_own_a_lab_sends_nothing() {
    let served = served();
    let folder = folder_of(&served, "doraz", COURSE);
    let at = text(&folder);
    for command in ["plan", "apply --yes", "destroy --yes"] {
        let (said, code) = served.says("doraz", &format!("{command} {at}"));
        assert!(
            code == 4 && said.contains("there is no lab `course` that you may plan and apply"),
            "{command}: {said}"
        );
    }
    // Whether the lab is there, and whether what they send makes sense: nobody looks.
    for doing in ["validate", "plan", "apply", "destroy"] {
        let [there, not_there] = ["course", "none"].map(|lab| {
            let (status, said) = served.raw("doraz", &format!("POST /v1/labs/{lab}/{doing}"), "nonsense");
            (status, said.replace(lab, "LAB"))
        });
        assert_eq!(there, not_there, "{doing}");
        assert_eq!(there.0, "404", "{doing}");
        assert!(served.raw("eva", &format!("POST /v1/labs/course/{doing}"), "nonsense").1.contains("nothing was done"));
    }
    // A body of which only the length comes is not waited for.
    let (status, _) = served.raw_of_length("doraz", "POST /v1/labs/course/apply", "", 20_000_000);
    assert_eq!(status, "404");
    let (status, _) = served.raw_of_length("eva", "POST /v1/labs/course/apply", "", 200_000_000);
    assert_eq!(status, "413");
    let audit = served.lab.must(&["history", "--user", "doraz", "--lab", &text(&served.lab.folder)]);
    assert!(audit.contains("refused: not_known"), "what was refused is kept:\n{audit}");
}

/// Two owners at once, each from a clone of their own: it ends as if one came after the other.
#[test]
fn two_owners_at_once_come_one_after_the_other() {
    let served = served();
    let memory = |mib: u32| COURSE.replace("memory: 128M", &format!("memory: {mib}M"));
    let of_eva = text(&folder_of(&served, "eva", &memory(160)));
    let of_alex = text(&folder_of(&served, "alex", &memory(192)));
    served.lab.must(&["host", "setup", "--lab", &of_eva]);
    let apply = |who: &str, at: &str| {
        // One that finds the other at work on the same things is told so, and does it again.
        wait_until("it is applied", || {
            let (said, code) = served.says(who, &format!("apply {at} --yes"));
            assert!(code == 0 || code == 4 || said.contains("meanwhile"), "{who}: {code}: {said}");
            code == 0
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(|| apply("eva", &of_eva));
        scope.spawn(|| apply("alex", &of_alex));
    });
    let left = [("eva", &of_eva), ("alex", &of_alex)].map(|(who, at)| {
        let (said, code) = served.says(who, &format!("plan {at} --detailed-exitcode"));
        assert!(code == 0 || code == 2, "{said}");
        code
    });
    assert!(left == [0, 2] || left == [2, 0], "the lab is one of theirs, whole: {left:?}");
}

/// What reads strangers' files has nothing that a mistake in it could give away.
/// Its daemon is killed at some moment of an apply: the next one goes on, and all is as if nobody had been killed.
#[test]
fn an_apply_whose_daemon_is_killed_is_gone_on_with() {
    let mut served = served();
    let folder = folder_of(&served, "eva", COURSE);
    let at = text(&folder);
    served.lab.must(&["host", "setup", "--lab", &at]);
    let mut students = vec!["user".to_owned(), "ana".to_owned(), "bob".to_owned()];
    for (round, moment) in [0, 50, 100, 200, 400].into_iter().enumerate() {
        students.extend([format!("student{round}"), format!("other{round}")]);
        std::fs::write(folder.join("crew.csv"), students.join("\n")).unwrap();
        let mut typing = served.typing(uid("eva"), &format!("apply {at} --yes"));
        let mut asking = typing.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A moment like any other: the kernel's own scheduling makes another of it each time.
        std::thread::sleep(Duration::from_millis(moment));
        served.daemon.kill().unwrap();
        served.daemon.wait().unwrap();
        served.daemon = daemon(&served.lab, &served.socket);
        asking.wait().unwrap();
    }
    let (said, code) = served.says("eva", &format!("apply {at} --yes"));
    assert!(code == 0 && (said.contains(" 0 failed") || said.starts_with("no changes")), "{said}");
    let (said, code) = served.says("eva", &format!("plan {at}"));
    assert!(code == 0 && said.starts_with("no changes"), "{said}");
    assert_eq!(served.says("eva", "get vms -o name").0.lines().count(), students.len() - 1);
    let disks = text(&served.lab.world.folder.path().join("site/vms/course"));
    let made = tool("find", &[&disks, "-type", "f"]);
    assert_eq!(made.lines().count(), students.len() - 1, "a disk each, and nothing that was begun:\n{made}");
}

#[test]
fn what_reads_strangers_files_has_no_rights() {
    let mut command = std::process::Command::new(crate::world::BINARY);
    command.args(["understand", "--uid", "65534", "--gid", "65534"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut reader = command.spawn().unwrap();
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", reader.id())).unwrap_or_default();
    // The last of its bounds stands when it waits for its task.
    wait_until("it has given up all rights", || of("limits").contains("Max processes             0 "));
    wait_until("it waits", || of("syscall").starts_with("0 0x0 "));
    let status = of("status");
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(line("Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!((line("Gid:"), line("Groups:")), ("65534\t65534\t65534\t65534".to_owned(), String::new()));
    assert_eq!((line("CapEff:"), line("NoNewPrivs:")), ("0000000000000000".to_owned(), "1".to_owned()));
    assert_eq!(line("Seccomp:"), "2", "it gets no socket, not even where it could have no network of its own");
    let interfaces: Vec<String> =
        of("net/dev").lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    assert_eq!(interfaces, ["lo"], "a network of its own, in which there is nothing");
    for bound in
        ["Max file size             0 ", "Max core file size        0 ", "Max address space         1073741824 "]
    {
        assert!(of("limits").contains(bound), "{bound}: {}", of("limits"));
    }
    // Nonsense ends it, and so does the end of who started it.
    drop(reader.stdin.take());
    assert!(!reader.wait().unwrap().success());
}

/// What people let others do, and what they take back; who is taken out of `site.yaml` has no rights from then on.
#[test]
fn rights_are_given_and_taken_while_the_daemon_runs() {
    let served = served();
    assert_eq!(served.says("doraz", "vm derive gsr --name mine").1, 0);
    // What people ask for says nothing about where the lab's files are: root finds it by its name as before.
    let named = served.lab.labwright(&["get", "vms", "-o", "name", "--lab", "net101"]);
    assert_eq!([named.stdout, named.stderr].map(|said| String::from_utf8(said).unwrap()), ["doraz/mine\n", ""]);
    let sees = |who: &str| served.says(who, "get vms -o name --lab net101").0;
    assert_eq!(sees("alex"), "");
    let (templates, code) = served.says("alex", "get templates -o json --lab net101");
    assert!(code == 0 && templates.contains("an image") && !templates.contains(".qcow2"), "{templates}");

    served.expect("doraz", "permission grant alex run vm/doraz/mine", 0, "alex may now run vm/doraz/mine");
    assert_eq!(sees("alex"), "doraz/mine\n");
    let (said, code) = served.says("alex", "permission grant badmin run vm/doraz/mine");
    assert!(code == 4 && said.contains("you don't have permission to let others use vm/doraz/mine"), "{said}");
    // Who else is in the lab is not told: somebody who is not there reads like somebody who is.
    served.expect(
        "doraz",
        "permission grant nobody-here run vm/doraz/mine",
        0,
        "nobody-here may now run vm/doraz/mine",
    );
    let (said, code) = served.says("alex", "permission grant doraz run vm/doraz/none");
    assert!(code != 0 && said.contains("there is no vm/doraz/none that you may know of"), "{said}");
    assert_eq!(served.says("doraz", "permission revoke alex vm/doraz/mine").1, 0);
    assert_eq!(sees("alex"), "");

    let site = std::fs::read_to_string(&served.lab.site).unwrap();
    let eva = "there is no lab `net101` that you may know of";
    assert!(served.says("eva", "get vms --lab net101").0.contains(eva));
    std::fs::write(&served.lab.site, format!("{site}admins: [eva]\n")).unwrap();
    assert_eq!(sees("eva"), "doraz/mine\n");
    // So are those who read the numbers, and how often the loop looks.
    let reads = || served.raw("alex", "GET /metrics", "");
    assert_eq!(reads().0, "403");
    std::fs::write(&served.lab.site, format!("{site}admins: [eva]\ndaemon: {{ metrics: [alex], interval: 1s }}\n"))
        .unwrap();
    let (status, numbers) = reads();
    assert!(status == "200" && numbers.contains("labwright_queue_calls_total{call=\"list\"} "), "{status}: {numbers}");
    let plans = || {
        let (_, numbers) = served.raw("alex", "GET /metrics", "");
        // Who asks too often is told nothing.
        let count = numbers.lines().find_map(|line| line.strip_prefix("labwright_plan_seconds_count "))?;
        count.parse::<u64>().ok()
    };
    let before = plans().unwrap();
    wait_until("it looks every second", || plans().is_some_and(|now| now >= before + 3));
    // A file with mistakes takes nobody's rights, and gives none.
    std::fs::write(&served.lab.site, format!("{site}admins: [alex]\nadmin: 3\n")).unwrap();
    assert_eq!((sees("eva"), sees("alex")), ("doraz/mine\n".to_owned(), String::new()));
    std::fs::write(&served.lab.site, site).unwrap();
    assert!(served.says("eva", "get vms --lab net101").0.contains(eva), "she was taken out");
}
