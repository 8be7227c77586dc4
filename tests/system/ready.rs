//! What a host must be before guests start on it, and what it stays while others need it: with the real program, from the
//! first command on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use labwright::dhcp::Dnsmasq;
use nix::sys::signal::{Signal, kill};

use crate::world::{BINARY, World, template, text, tool, wait_until};

/// A lab of this name with a vm per user, on a bridge that it shares with others.
fn write_lab(folder: &Path, name: &str, addresses: &str, state: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(template(), folder.join("tiny.qcow2")).unwrap();
    let manifest = format!(
        "lab: {name}\nuser_groups:\n  people: {{ members: [ana] }}\nvm_groups:\n  \
         room-{name}: {{ ip_range: {addresses}, gateway: 192.168.100.1, bridge: vbr0 }}\ntemplates:\n  \
         tiny-{name}: {{ owner: teacher, vm_group: room-{name}, disks: [{{ image: tiny.qcow2 }}], memory: 128M }}\nvms:\n  \
         vm-{name}: {{ derive: tiny-{name}, owner: ana, state: {state} }}\n  \
         other-{name}: {{ derive: tiny-{name}, owner: ana, state: on_demand }}\n"
    );
    std::fs::write(folder.join("lab.yaml"), manifest).unwrap();
}

fn site(world: &World) -> PathBuf {
    site_called(world, "site")
}

fn site_called(world: &World, name: &str) -> PathBuf {
    let file = world.folder.path().join(format!("{name}.yaml"));
    let settings = format!(
        "service_user: nobody\nstate: {name}/state.db\nstorage: {{ root: {name}/storage }}\n\
         scheduler: {{ local: {{ folder: {name}/scheduler }} }}\nnetwork: {{ dhcp_folder: {name}/dnsmasq }}\n"
    );
    std::fs::write(&file, settings).unwrap();
    file
}

fn labwright(world: &World, arguments: &[&str]) -> Output {
    labwright_of(world, &site(world), arguments)
}

fn labwright_of(world: &World, site: &Path, arguments: &[&str]) -> Output {
    Command::new(BINARY).arg("--site").arg(site).args(arguments).current_dir(world.folder.path()).output().unwrap()
}

/// How it ended, and what it said on standard error.
fn said(world: &World, arguments: &[&str]) -> String {
    told(world, &labwright(world, arguments))
}

fn told(world: &World, output: &Output) -> String {
    let root = text(world.folder.path());
    format!("{:?}\n{}", output.status.code(), String::from_utf8_lossy(&output.stderr)).replace(&root, "ROOT")
}

#[track_caller]
fn must(world: &World, arguments: &[&str]) {
    let said = said(world, arguments);
    assert!(said.starts_with("Some(0)"), "{arguments:?}: {said}");
}

/// On a host that nobody has prepared, and with storage that guests cannot enter, an apply says all that is wrong, once, and
/// does nothing.
#[test]
fn an_apply_looks_at_its_host_first() {
    let world = World::bare();
    write_lab(&world.folder.path().join("a"), "a", "192.168.100.2-192.168.100.9", "running");
    must(&world, &["state", "init"]);
    let closed = world.folder.path().join("site");
    let mode = |mode| std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o700);
    let bare = said(&world, &["apply", "a", "--yes"]);
    must(&world, &["host", "setup", "--lab", "a"]);
    let no_way = said(&world, &["apply", "a", "--yes"]);
    assert_eq!(std::fs::read_dir(closed.join("storage/vms")).unwrap().count(), 0, "nothing was made");
    mode(0o711);
    tool("ip", &["link", "del", "dev", "vbr0"]);
    let no_bridge = said(&world, &["apply", "a", "--yes"]);
    insta::assert_snapshot!([bare, no_way, no_bridge].join("\n"));
    must(&world, &["host", "teardown", "--lab", "a"]);
}

/// Two labs share a bridge, the drop table and DHCP: all of it goes with the last of them, and no sooner.
#[test]
fn what_labs_share_goes_with_its_last_user() {
    let world = World::bare();
    let folder = world.folder.path();
    write_lab(&folder.join("a"), "a", "192.168.100.2-192.168.100.9", "on_demand");
    write_lab(&folder.join("b"), "b", "192.168.100.10-192.168.100.19", "on_demand");
    must(&world, &["state", "init"]);
    must(&world, &["host", "setup", "--lab", "a", "--lab", "b"]);
    must(&world, &["apply", "a", "--yes"]);
    must(&world, &["apply", "b", "--yes"]);
    let served = || std::fs::read_to_string(folder.join("site/dnsmasq/dnsmasq.pid")).ok();
    let before = served();
    // What one lab is set up with again, the other keeps.
    must(&world, &["host", "setup", "--lab", "b"]);
    must(&world, &["host", "setup", "--lab", "a"]);
    assert_eq!(served(), before, "dnsmasq was left alone");
    must(&world, &["destroy", "a", "--yes"]);
    let stays = said(&world, &["host", "teardown", "--lab", "a"]);
    assert!(Path::new("/sys/class/net/vbr0").exists() && served() == before);
    assert!(tool("nft", &["list", "tables"]).contains("table bridge labwright"));
    must(&world, &["destroy", "b", "--yes"]);
    let goes = said(&world, &["host", "teardown", "--lab", "b"]);
    let nothing = said(&world, &["host", "teardown", "--lab", "b"]);
    insta::assert_snapshot!([stays, goes, nothing].join("\n"));
    assert!(!Path::new("/sys/class/net/vbr0").exists());
    assert_eq!(tool("nft", &["list", "tables"]), "");
}

/// Below root's own home, without a site, in the predefined vm group: the way of who tries it for the first time. The guest
/// gets its address, and while it runs nothing is taken from under it.
#[test]
fn a_lab_in_a_closed_home_runs_in_the_default_group() {
    let world = World::bare();
    let home = world.folder.path().join("home");
    let lab = home.join("lab");
    std::fs::create_dir_all(&lab).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::copy(template(), lab.join("tiny.qcow2")).unwrap();
    std::fs::write(
        lab.join("lab.yaml"),
        "lab: first\nuser_groups:\n  people: { members: [ana] }\ntemplates:\n  \
         tiny: { owner: teacher, disks: [{ image: tiny.qcow2 }], memory: 128M }\nvms:\n  \
         one: { derive: tiny, owner: ana, state: running }\n",
    )
    .unwrap();
    // The account is made, and disks are kept, in this test's mount namespace alone.
    let etc = world.folder.path().join("etc");
    tool("cp", &["-a", "/etc", &text(&etc)]);
    tool("mount", &["--bind", &text(&etc), "/etc"]);
    // Somebody may look, and is in the group before the account is there. `userdel` would mind what runs as it elsewhere.
    tool("sh", &["-c", "sed -i /^labwright:/d /etc/passwd /etc/shadow; groupadd -f labwright"]);
    tool("mount", &["-t", "tmpfs", "none", "/var/lib"]);
    tool("mount", &["-t", "tmpfs", "none", "/run"]);
    let run = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).current_dir(&lab).output().unwrap();
        (output.status.code(), [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat())
    };
    let (code, text) = run(&["host", "setup"]);
    assert!(code == Some(0) && text.contains("disks and runs are kept in /var/lib/labwright/lab-"), "{text}");
    assert!(text.contains("account labwright made"), "{text}");
    let (_, page) = run(&["host", "check"]);
    assert!(!page.contains("is missing"), "what `host setup` has made is not missing:\n{page}");
    let (code, text) = run(&["apply", "--yes", "--wait"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["host", "teardown"]);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("vms of it run, or are about to: one"), "{text}");
    assert!(tool("ip", &["-o", "link"]).contains("master vbr0"), "the guest keeps its bridge");
    let (code, text) = run(&["destroy", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["host", "teardown"]);
    assert!(code == Some(0) && text.contains("bridge vbr0 removed"), "{text}");
    for mounted in ["/run", "/var/lib", "/etc"] {
        tool("umount", &[mounted]);
    }
}

/// A lab `a` that stands, on a host that is set up for it; its vms wait to be started.
fn apply_lab(world: &World) {
    write_lab(&world.folder.path().join("a"), "a", "192.168.100.2-192.168.100.9", "on_demand");
    must(world, &["state", "init"]);
    must(world, &["host", "setup", "--lab", "a"]);
    must(world, &["apply", "a", "--yes"]);
}

/// A starter that cannot even begin its report: what its job's log holds is the reason that people are given.
#[test]
fn what_a_starter_said_before_it_could_report_is_told() {
    let world = World::bare();
    let folder = world.folder.path();
    apply_lab(&world);
    // Its job waits until this is let go.
    std::fs::create_dir_all(folder.join("site/scheduler")).unwrap();
    let turn = std::fs::File::create(folder.join("site/scheduler/turn")).unwrap();
    let turn = nix::fcntl::Flock::lock(turn, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let (told, mut waiting) = wait_for_start(&world);
    let runs = folder.join("site/storage/runs");
    let run = std::fs::read_dir(&runs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("spec.json").exists());
    std::fs::remove_file(run.unwrap().join("spec.json")).unwrap();
    drop(turn);
    let code = waiting.wait().unwrap().code();
    let said = std::fs::read_to_string(told).unwrap();
    assert_eq!(code, Some(5), "{said}");
    let words = said.lines().find(|line| line.starts_with("vm-a is gone: its job ended; it said: "));
    assert!(words.is_some_and(|words| words.contains("spec.json")), "{said}");
    let status = String::from_utf8(labwright(&world, &["status", "a"]).stdout).unwrap();
    assert!(status.contains("\nvm-a: ") && status.contains("spec.json"), "{status}");
    let mut plan = String::new();
    wait_until("its job is gone, and says why", || {
        plan = String::from_utf8(labwright(&world, &["plan", "a"]).stdout).unwrap();
        plan.contains("ended")
    });
    assert!(plan.contains("it could not start: ") && plan.contains("spec.json"), "{plan}");
    must(&world, &["apply", "a", "--yes"]);
    let explained = String::from_utf8(labwright(&world, &["explain", "vm/vm-a", "--lab", "a"]).stdout).unwrap();
    assert!(explained.contains("it could not start: "), "{explained}");
    must(&world, &["destroy", "a", "--yes"]);
    must(&world, &["host", "teardown", "--lab", "a"]);
}

/// Two labs that know nothing of each other would give out the same addresses on one bridge, which is the first one's.
#[test]
fn a_bridge_that_another_site_serves_is_left_to_it() {
    let world = World::bare();
    let folder = world.folder.path();
    for name in ["a", "b"] {
        write_lab(&folder.join(name), name, "192.168.100.2-192.168.100.9", "on_demand");
    }
    let other = site_called(&world, "other");
    let of_other = |command| told(&world, &labwright_of(&world, &other, &["host", command, "--lab", "b"]));
    must(&world, &["host", "setup", "--lab", "a"]);
    let refused = of_other("setup");
    assert!(refused.starts_with("Some(4)\nerror: bridge vbr0 is another lab's already: "), "{refused}");
    assert!(refused.contains("the dnsmasq of ROOT/site/dnsmasq") && refused.contains("host teardown"), "{refused}");
    assert!(!folder.join("other/dnsmasq").exists(), "nothing was changed");
    assert!(of_other("teardown").contains("bridge vbr0 stays: the dnsmasq of ROOT/site/dnsmasq serves it"));
    assert!(Path::new("/sys/class/net/vbr0").exists());
    must(&world, &["host", "teardown", "--lab", "a"]);
    assert!(!Path::new("/sys/class/net/vbr0").exists());
    assert!(of_other("setup").starts_with("Some(0)"));
    assert!(of_other("teardown").starts_with("Some(0)"));
}

/// People are in the middle of something: neither an open session's host is taken down, nor one whose session an edit moved.
#[test]
fn a_host_stays_while_a_session_is_open() {
    let world = World::bare();
    let folder = world.folder.path();
    write_lab(&folder.join("a"), "a", "192.168.100.2-192.168.100.9", "on_demand");
    let manifest = folder.join("a/lab.yaml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let session = |start: &str, end: &str| {
        let session =
            format!("sessions:\n  lesson: {{ vms: [vm-a], start: \"{start}\", end: \"{end}\", at_end: keep }}\n");
        std::fs::write(&manifest, format!("{text}{session}")).unwrap();
    };
    session("2020-01-01T09:00[Europe/Bucharest]", "2099-01-01T09:00[Europe/Bucharest]");
    must(&world, &["state", "init"]);
    must(&world, &["host", "setup", "--lab", "a"]);
    must(&world, &["apply", "a", "--yes"]);
    let until: jiff::Timestamp = "2099-01-01T07:00:00Z".parse().unwrap();
    let until = until.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%F %T");
    for (start, end) in [("2020", "2099"), ("2098", "2099")] {
        session(&format!("{start}-01-01T09:00[Europe/Bucharest]"), &format!("{end}-01-01T09:00[Europe/Bucharest]"));
        let refused = said(&world, &["host", "teardown", "--lab", "a"]);
        assert!(refused.starts_with("Some(4)"), "{refused}");
        assert!(refused.contains(&format!("its session lesson is open until {until}")), "{refused}");
        assert!(Path::new("/sys/class/net/vbr0").exists());
    }
    kill(Dnsmasq::new(&folder.join("site/dnsmasq")).process().unwrap(), Signal::SIGTERM).unwrap();
}

/// `vm start vm-a --wait`, from the moment on at which the vm is in the queue, and where it tells how it goes.
fn wait_for_start(world: &World) -> (PathBuf, Child) {
    let told = world.folder.path().join("told");
    let waiting = Command::new("env")
        .args(["--default-signal=INT", BINARY, "--site", &text(&site(world)), "vm", "start", "vm-a"])
        .args(["--lab", "a", "--yes", "--wait"])
        .current_dir(world.folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&told).unwrap())
        .spawn()
        .unwrap();
    let queued = "  0/1 ready, 0 booting, 0 starting, 1 queued, 0 ended\n";
    wait_until("the vm is in the queue", || std::fs::read_to_string(&told).unwrap().contains(queued));
    (told, waiting)
}

/// Somebody who waits for guests that take their time, and has seen enough: the wait ends at once, what was asked for goes on.
#[test]
fn an_interrupt_ends_a_wait_at_once() {
    let world = World::bare();
    let folder = world.folder.path();
    apply_lab(&world);
    // While somebody else holds the queue's turn, what is submitted stays in the queue.
    std::fs::create_dir_all(folder.join("site/scheduler")).unwrap();
    let turn = text(&folder.join("site/scheduler/turn"));
    let mut holder = Command::new("flock").args(["--no-fork", &turn, "sleep", "3600"]).spawn().unwrap();
    // Another vm is on its way up too, and is not what is waited for.
    must(&world, &["vm", "start", "other-a", "--lab", "a", "--yes"]);
    let (told, mut waiting) = wait_for_start(&world);
    let said_so_far = || std::fs::read_to_string(&told).unwrap();
    let screens = said(&world, &["vm", "vnc", "vm-a", "--lab", "a"]);
    assert!(screens.starts_with("Some(5)\nerror: no screen to show: vm-a (queued)\n"), "{screens}");
    kill(nix::unistd::Pid::from_raw(i32::try_from(waiting.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(5), "{}", said_so_far());
    let text = said_so_far();
    assert!(text.contains("you ended the wait; 0 of 1 vm is ready, and nothing was taken back"), "{text}");
    let again = labwright(&world, &["vm", "start", "vm-a", "--lab", "a", "--yes"]);
    let again = String::from_utf8([again.stdout, again.stderr].concat()).unwrap();
    assert!(again.contains("vm-a is in the queue already"), "{again}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    must(&world, &["destroy", "a", "--yes"]);
    must(&world, &["host", "teardown", "--lab", "a"]);
}
