//! Who gets to see a guest's screen.

use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};

use labwright::host::machine::check::check;
use labwright::host::machine::setup;
use labwright::model::site::{Storage, VncBind};
use labwright::run::Event;
use nix::sys::signal::Signal;

use crate::world::{Run, World, text, tool, wait_until};

/// Another machine on a wire to this one: a network namespace that lives as long as a process in it.
struct Machine(Child);

impl Machine {
    /// This machine becomes 10.77.0.1, the other has the addresses.
    fn beside_this_one(addresses: &[&str]) -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let machine = Self(child);
        let pid = machine.0.id().to_string();
        let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let there = || std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        wait_until("the other machine has its namespace", || there() != here);
        tool("ip", &["link", "add", "lab", "type", "veth", "peer", "name", "wire", "netns", &pid]);
        tool("ip", &["addr", "add", "10.77.0.1/24", "dev", "lab"]);
        tool("ip", &["link", "set", "lab", "up"]);
        for address in addresses {
            machine.run(&["ip", "addr", "add", &format!("{address}/24"), "dev", "wire"]);
        }
        machine.run(&["ip", "link", "set", "wire", "up"]);
        machine
    }

    fn run(&self, command: &[&str]) {
        let pid = self.0.id().to_string();
        tool("nsenter", &[&["-t", &pid, "-n"], command].concat());
    }

    /// What a server says first to who comes from `address`; nothing where that gets no connection.
    fn greeting(&self, address: &str, server: &str) -> String {
        let pid = self.0.id().to_string();
        let place = format!("TCP:{server},bind={address},connect-timeout=5");
        let socat = ["-t", &pid, "-n", "timeout", "60", "socat", "-u", &place, "STDOUT"];
        let mut child = Command::new("nsenter").args(socat).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut greeting = [0; 7];
        let came = child.stdout.take().unwrap().read_exact(&mut greeting);
        child.kill().unwrap();
        child.wait().unwrap();
        if came.is_ok() { String::from_utf8_lossy(&greeting).into_owned() } else { String::new() }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The process only waits; it is gone if somebody else has ended it.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn vnc(run: &Run) -> String {
    match run.wait_for("running", |event| matches!(event, Event::Running { .. })) {
        Event::Running { vnc, .. } => vnc,
        other => panic!("{other:?}"),
    }
}

fn line(world: &World) -> String {
    let lines = check(&world.wanted(), &Storage::below(world.folder.path()));
    let line = lines.into_iter().find(|line| line.what == "vnc").unwrap();
    format!("{}: {}", line.verdict.as_str(), line.found)
}

#[test]
fn a_screen_on_a_socket_is_for_root_alone() {
    let mut world = World::new();
    world.qemu.vnc_bind = VncBind::Socket;
    assert_eq!(line(&world), "ok: on a socket of each run, for root alone");
    let spec = world.spec(21);
    let mut run = world.start(spec);
    let socket = world.run_root().join(run.spec.run.to_string()).join("vnc.sock");
    assert_eq!(vnc(&run), format!("unix:{}", text(&socket)));
    let found = socket.metadata().unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!((found.mode() & 0o777, found.uid()), (0o600, 0));
    let mut greeting = [0; 7];
    UnixStream::connect(&socket).unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"RFB 003");
    run.wait_ready();
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
    assert!(!run.has_host_folder());
}

#[test]
fn only_the_networks_that_the_site_names_connect_to_vnc() {
    let mut world = World::new();
    let other = Machine::beside_this_one(&["10.77.0.2", "10.77.0.3"]);
    world.qemu.vnc_bind = VncBind::Address([10, 77, 0, 1].into());
    let spec = world.spec(22);
    let mut run = world.start(spec);
    let vnc = vnc(&run);
    assert_eq!(vnc, "10.77.0.1:5900");
    let from_each = |server: &str| ["10.77.0.2", "10.77.0.3"].map(|address| other.greeting(address, server));
    assert_eq!(from_each(&vnc), ["RFB 003", "RFB 003"]);
    assert!(line(&world).starts_with("warning: whoever reaches 10.77.0.1 "), "{}", line(&world));
    assert_eq!(setup::setup(&world.wanted()).unwrap(), Vec::<String>::new(), "nothing without `vnc_allow`");

    world.network.vnc_allow = vec!["10.77.0.2/32".parse().unwrap(), "10.88.0.0/16".parse().unwrap()];
    assert!(line(&world).starts_with("failed: "), "{}", line(&world));
    let made = setup::setup(&world.wanted()).unwrap();
    assert_eq!(made, ["table inet labwright made: vnc only from 10.77.0.2/32, 10.88.0.0/16"]);
    assert_eq!(setup::setup(&world.wanted()).unwrap(), Vec::<String>::new(), "a second time finds it standing");
    assert_eq!(line(&world), "ok: on 10.77.0.1, from 10.77.0.2/32, 10.88.0.0/16 alone");
    assert_eq!(from_each(&vnc), ["RFB 003", ""]);

    // Another port, and the same port of another address, are none of its business.
    tool("ip", &["addr", "add", "10.77.0.9/24", "dev", "lab"]);
    for server in ["10.77.0.1:5899", "10.77.0.9:6000"] {
        let server_socket = std::net::TcpListener::bind(server).unwrap();
        let serving = std::thread::spawn(move || {
            use std::io::Write as _;
            for _ in 0..2 {
                server_socket.accept().unwrap().0.write_all(b"SERVING").unwrap();
            }
        });
        assert_eq!(from_each(server), ["SERVING", "SERVING"]);
        serving.join().unwrap();
    }

    // A table of ours that somebody has changed, or that is for another address, is made anew.
    tool("nft", &["insert rule inet labwright vnc accept"]);
    assert_eq!(from_each(&vnc), ["RFB 003", "RFB 003"]);
    assert!(line(&world).starts_with("failed: "), "{}", line(&world));
    assert_eq!(setup::setup(&world.wanted()).unwrap().len(), 1);
    assert_eq!(from_each(&vnc), ["RFB 003", ""]);
    for (bind, allow) in [([0, 0, 0, 0], "10.77.0.0/24"), ([0, 0, 0, 0], "0.0.0.0/0"), ([10, 77, 0, 1], "0.0.0.0/0")] {
        world.qemu.vnc_bind = VncBind::Address(bind.into());
        world.network.vnc_allow = vec![allow.parse().unwrap()];
        assert_eq!(setup::setup(&world.wanted()).unwrap().len(), 1, "{allow}");
        assert_eq!(setup::setup(&world.wanted()).unwrap(), Vec::<String>::new(), "{allow}");
        assert_eq!(from_each(&vnc), ["RFB 003", "RFB 003"], "{allow}");
    }

    world.network.vnc_allow.clear();
    assert!(line(&world).starts_with("warning: the table of an earlier "), "{}", line(&world));
    assert_eq!(setup::setup(&world.wanted()).unwrap(), ["table inet labwright removed"]);
    world.network.vnc_allow = vec!["10.77.0.2/32".parse().unwrap()];
    assert_eq!(setup::setup(&world.wanted()).unwrap().len(), 1);
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
    setup::teardown(&world.wanted()).unwrap();
    assert_eq!(tool("nft", &["list", "tables"]), "");
    assert!(Path::new("/sys/class/net/lab").exists());
}
