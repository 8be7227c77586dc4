//! A guest that spoofs all the time, while everything that holds it back is taken away, one after the other.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, assert_gone_within, processes, text, tool};

/// What no guest of this test may say: another's hardware address, another's address, another's in ARP.
const SPOOFS: [&str; 3] = [
    "ffffffffffff66666666666688b5deadbeef",
    "ffffffffffffdeafdeaf6407080045000021000040004011b0d8c0a86463ffffffff270f270f000d0000737065616b",
    "ffffffffffffdeafdeaf640708060001080006040001deafdeaf6407c0a86463000000000000c0a86463",
];
const SPOOFED: &str = "ether src 66:66:66:66:66:66 or src host 192.168.100.99 or arp src host 192.168.100.99";

#[test]
fn a_spoofing_guest_is_held_whatever_dies() {
    let mut world = World::new();
    let (attacker, victim) = (world.spec(7), world.spec(8));
    let (mut attacker, mut victim) = (world.start(attacker), world.start(victim));
    attacker.wait_ready();
    victim.wait_ready();
    let mut console = attacker.console();
    assert_eq!(console.run("ping -c 1 -W 2 192.168.100.1").0, 0, "the gateway answers");
    assert_ne!(console.run("ping -c 2 -W 1 192.168.100.8").0, 0, "another isolated guest does not");

    let watchers = [Watcher::start(&world, "vbr0"), Watcher::start(&world, &victim.spec.run.tap())];
    let own = Watcher::start(&world, &attacker.spec.run.tap());
    console.run(&format!("send-frames eth0 0 2000 {} >/dev/null 2>&1 &", SPOOFS.join(" ")));
    std::thread::sleep(Duration::from_secs(1));
    assert!(own.count() > 50, "the attack does not run");

    // The child that holds the rules.
    kill(child(attacker.starter.id(), "nft"), Signal::SIGKILL).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    wait_until("the filter is back", || attacker_is_back(&attacker));
    assert_eq!(console.run("ping -c 1 -W 2 192.168.100.1").0, 0, "the gateway answers again");

    // Somebody else's firewall script.
    tool("nft", &["flush", "ruleset"]);
    wait_until("the host's table is back", || tool("nft", &["list", "tables"]).contains("table bridge labwright"));
    assert_eq!(console.run("ping -c 1 -W 2 192.168.100.1").0, 0, "the gateway still answers");

    // The starter, and with it everything.
    let seen = own.count();
    attacker.signal(Signal::SIGKILL);
    assert_gone_within(&attacker, Duration::from_secs(1));
    attacker.end();
    assert!(seen > 200, "the attack has stopped after {seen} frames");
    for watcher in &watchers {
        assert_eq!(watcher.count(), 0, "spoofed frames arrived at {}:\n{}", watcher.interface, watcher.text());
    }
    victim.signal(Signal::SIGUSR2);
    assert!(victim.end().success());
}

fn attacker_is_back(run: &crate::world::Run) -> bool {
    tool("nft", &["list", "tables"]).contains(&run.spec.run.nft_table())
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn child(parent: u32, name: &str) -> Pid {
    let is_child = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("PPid:\t{parent}\n")) && status.starts_with(&format!("Name:\t{name}"))
    };
    Pid::from_raw(processes().into_iter().map(|(pid, _)| pid).find(is_child).expect("the starter has the child"))
}

/// Writes down what arrives at an interface of what no guest may say.
struct Watcher {
    interface: String,
    file: PathBuf,
    tcpdump: Child,
}

impl Watcher {
    fn start(world: &World, interface: &str) -> Self {
        let file = world.folder.path().join(format!("{interface}.pcap"));
        let tcpdump = Command::new("tcpdump")
            .args(["-i", interface, "-U", "--immediate-mode", "-Z", "root", "-w", &text(&file), SPOOFED])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("tcpdump listens", || Path::new(&file).exists());
        Self { interface: interface.to_owned(), file, tcpdump }
    }

    fn text(&self) -> String {
        let read = Command::new("tcpdump").args(["-n", "-e", "-r", &text(&self.file)]).output().unwrap();
        String::from_utf8_lossy(&read.stdout).into_owned()
    }

    fn count(&self) -> usize {
        self.text().lines().count()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.tcpdump.kill());
        drop(self.tcpdump.wait());
    }
}
