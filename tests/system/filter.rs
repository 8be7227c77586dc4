//! A guest that spoofs all the time, while everything that holds it back is taken away, one after the other.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use labwright::host::run::filter::RunFilter;
use labwright::model::id::RunId;
use labwright::model::site::Filter;
use labwright::run::{Dropped, Event};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Run, World, processes, text, tool, wait_until};

/// What no guest of this test may say: another's hardware address, another's address, another's in ARP.
const SPOOFS: [&str; 3] = [
    "ffffffffffff66666666666688b5deadbeef",
    "ffffffffffffdeafdeaf6407080045000021000040004011b0d8c0a86463ffffffff270f270f000d0000737065616b",
    "ffffffffffffdeafdeaf640708060001080006040001deafdeaf6407c0a86463000000000000c0a86463",
];
const SPOOFED: &str = "ether src 66:66:66:66:66:66 or src host 192.168.100.99 or arp src host 192.168.100.99";

#[test]
fn a_spoofing_guest_is_held_by_nftables_whatever_dies() {
    whatever_dies(Filter::Nftables);
}

#[test]
fn a_spoofing_guest_is_held_by_ebtables_whatever_dies() {
    whatever_dies(Filter::Ebtables);
}

fn whatever_dies(filter: Filter) {
    let mut world = World::with_filter(filter);
    let specs = [world.spec(7), world.spec(8), world.spec(9)];
    let [mut attacker, mut victim, mut second] = specs.map(|spec| world.start(spec));
    [&attacker, &victim, &second].into_iter().for_each(Run::wait_ready);
    let mut console = attacker.console();
    assert_eq!(console.run("ping -c 1 -W 5 192.168.100.1").0, 0, "the gateway answers");
    assert_ne!(console.run("ping -c 2 -W 1 192.168.100.8").0, 0, "another isolated guest does not");

    let watchers = [Watcher::start(&world, "vbr0"), Watcher::start(&world, &victim.spec.run.tap())];
    let own = [&attacker, &second].map(|run| Watcher::start(&world, &run.spec.run.tap()));
    let spoof = format!("send-frames eth0 0 2000 {} >/dev/null 2>&1 &", SPOOFS.join(" "));
    console.run(&spoof);
    second.console().run(&spoof);
    own.iter().for_each(Watcher::sees_more);

    // The child that holds the rules, or their guard.
    let held_by = child(attacker.starter.id(), "nft");
    kill(held_by, Signal::SIGKILL).unwrap();
    wait_until("nft is back", || attacker_is_back(&attacker, held_by));
    own[0].sees_more();
    let mut answers = || console.run("ping -c 1 -W 5 192.168.100.1").0 == 0;
    wait_until("the gateway answers again", &mut answers);

    // Somebody else's firewall script. Then the same while nothing else stands either.
    for _ in 0..2 {
        tool("nft", &["flush", "ruleset"]);
        own[0].sees_more();
        wait_until("the host's table is back", || tool("nft", &["list", "tables"]).contains("table bridge labwright"));
    }
    if filter == Filter::Ebtables {
        for table in ["nat", "filter"] {
            tool("ebtables-nft", &["-t", table, "-F"]);
            // Refused where a starter has written its rules again by now, as it should.
            Command::new("ebtables-nft").args(["-t", table, "-X"]).stderr(Stdio::null()).status().unwrap();
            own[0].sees_more();
        }
        let all = [&attacker, &victim, &second].map(of_run);
        wait_until("everybody's chains are back", || all.iter().all(|chain| chains().contains(chain)));
    }
    wait_until("the gateway still answers", answers);

    is_counted(&attacker, filter);

    // The starter, and with it everything. Of the other guest both, its holder first.
    own.iter().for_each(Watcher::sees_more);
    attacker.signal(Signal::SIGKILL);
    kill(child(second.starter.id(), "nft"), Signal::SIGKILL).unwrap();
    second.signal(Signal::SIGKILL);
    for run in [&mut attacker, &mut second] {
        wait_until("nothing is left of it", || run.leftovers().is_empty());
        run.end();
    }
    for watcher in &watchers {
        assert_eq!(watcher.count(), 0, "spoofed frames arrived at {}:\n{}", watcher.interface, watcher.text());
    }
    victim.signal(Signal::SIGUSR2);
    assert!(victim.end().success());
    if filter == Filter::Ebtables {
        chains_are_swept(&mut world, &[&attacker, &second], &victim);
    }
}

/// What is dropped stands in the report by its reason, and what a table had counted that is gone is not forgotten.
fn is_counted(attacker: &Run, filter: Filter) {
    let dropped = |run: &Run| {
        let events = run.events().into_iter();
        events
            .filter_map(|event| if let Event::Dropped(dropped) = event { Some(dropped) } else { None })
            .collect::<Vec<_>>()
    };
    if filter == Filter::Ebtables {
        assert_eq!(dropped(attacker), [], "nobody counts with ebtables");
        return;
    }
    let is_all = |count: &Dropped| count.spoofed_mac > 0 && count.spoofed_ip > 0 && count.arp > 0;
    wait_until("each kind is told", || dropped(attacker).iter().any(is_all));
    let counts = dropped(attacker);
    let falls = |(one, next): ((&str, u64), (&str, u64))| next.1 < one.1;
    let falls = counts.windows(2).any(|pair| pair[0].by_reason().into_iter().zip(pair[1].by_reason()).any(falls));
    assert!(!falls && counts.len() < 200, "{counts:?}");
}

/// A class starts at once, and another ends meanwhile: every run has all of its rules, and none is left of those that ended.
#[test]
fn no_rule_is_lost_when_many_change_them_at_once() {
    for filter in [Filter::Nftables, Filter::Ebtables] {
        let mut world = World::with_filter(filter);
        let mut spec = world.spec(2);
        let mut next = || {
            let run = RunId::new(spec.run.site().clone(), spec.run.number() + 1);
            std::mem::replace(&mut spec.run, run)
        };
        let [first, second] = [(); 2].map(|()| std::array::from_fn::<RunId, 10, _>(|_| next()));
        let (network, run_root) = (&spec.network, world.run_root());
        let add = |run: &RunId| {
            let mut filter = RunFilter::start(run, network, &run_root).unwrap();
            filter.stand().unwrap();
            filter
        };
        let ends: Vec<RunFilter> = std::thread::scope(|scope| {
            let threads: Vec<_> = first.iter().map(|run| scope.spawn(|| add(run))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut stay: Vec<RunFilter> = std::thread::scope(|scope| {
            let threads: Vec<_> = second.iter().map(|run| scope.spawn(|| add(run))).collect();
            ends.into_iter().for_each(|filter| drop(scope.spawn(|| drop(filter))));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for filter in &mut stay {
            filter.look().unwrap();
        }
        let left = chains() + &tool("nft", &["list", "tables"]);
        for run in &first {
            assert!(!left.contains(&format!("-{}-", run.number())) && !left.contains(&run.nft_table()), "{left}");
        }
    }
}

/// What two killed starters left goes when another starts, and nothing else; a starter that ends takes its own.
fn chains_are_swept(world: &mut World, dead: &[&Run], ended: &Run) {
    assert!(dead.iter().all(|run| chains().contains(&of_run(run))), "chains outlive a killed starter:\n{}", chains());
    assert!(!chains().contains(&of_run(ended)), "a starter takes its chains with it:\n{}", chains());
    tool("ebtables-nft", &["-t", "nat", "-N", "labwright-not-a-run"]);
    let spec = world.spec(10);
    let mut next = world.start(spec);
    next.wait_for("networked", |event| matches!(event, Event::Networked { .. }));
    assert!(dead.iter().all(|run| !chains().contains(&run.spec.run.to_string())), "{}", chains());
    assert!(chains().contains(":labwright-not-a-run ") && chains().contains(&of_run(&next)), "{}", chains());
    next.signal(Signal::SIGTERM);
    assert!(next.end().success());
    assert!(!chains().contains(&next.spec.run.to_string()), "{}", chains());
}

fn chains() -> String {
    tool("ebtables-nft-save", &["-t", "nat"])
}

/// How the save names the chain that a run's guest sends into.
fn of_run(run: &Run) -> String {
    format!(":labwright-{}-from ", run.spec.run)
}

fn attacker_is_back(run: &Run, before: Pid) -> bool {
    let alive = |pid: Pid| Path::new("/proc").join(pid.to_string()).join("exe").exists();
    !alive(before) && tool("nft", &["list", "tables"]).contains(&run.spec.run.nft_table())
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

    /// Waits for a good many more of them: the attack goes on.
    fn sees_more(&self) {
        let before = self.count();
        wait_until("the attack runs", || self.count() > before + 50);
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
