//! A class whose guests start at one moment on one host: each runs behind its whole filter, and none runs twice.
//! `tests/run campaign burst` asks for more of them.

use std::collections::BTreeMap;
use std::time::Instant;

use labwright::model::site::Filter;
use labwright::run::{Event, RunSpec};
use nix::sys::signal::Signal;

use crate::world::{Run, World, processes, text, tool};

/// Read from the environment, for the campaign.
fn asked(name: &str, usual: u8) -> u8 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number to 253")))
}

#[test]
fn held_guests_that_start_at_one_moment_all_run_behind_nftables() {
    bursts("held", Filter::Nftables, &["-S"], held);
}

#[test]
fn held_guests_that_start_at_one_moment_all_run_behind_ebtables() {
    bursts("held", Filter::Ebtables, &["-S"], held);
}

#[test]
fn booting_guests_that_start_at_one_moment_all_become_ready_behind_nftables() {
    bursts("booting", Filter::Nftables, &[], ready);
}

#[test]
fn booting_guests_that_start_at_one_moment_all_become_ready_behind_ebtables() {
    bursts("booting", Filter::Ebtables, &[], ready);
}

fn ready(event: &Event) -> bool {
    *event == Event::Ready
}

fn held(event: &Event) -> bool {
    matches!(event, Event::Running { .. })
}

#[expect(clippy::print_stdout, reason = "the campaign shows how long each round took")]
fn bursts(what: &str, filter: Filter, arguments: &[&str], is_up: fn(&Event) -> bool) {
    let usual = if what == "held" { 24 } else { 2 };
    let (guests, rounds) = (asked("LABWRIGHT_BURST_GUESTS", usual), asked("LABWRIGHT_BURST_ROUNDS", 1));
    let mut world = World::with_filter(filter);
    world.qemu.extra_args = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    for round in 1..=rounds {
        let specs: Vec<RunSpec> = (0..guests).map(|number| world.spec(number + 2)).collect();
        let began = Instant::now();
        let mut runs = world.start_all(specs);
        for run in &runs {
            run.wait_for("up", is_up);
        }
        let took = began.elapsed().as_secs_f64();
        println!("burst: {guests} guests, {what}, {filter:?}, round {round}: all up after {took:.1} s");
        each_is_whole(&runs, filter);
        end_all(&mut runs);
    }
}

/// One qemu for each disk, one table and one port for each run, and no more of any; with ebtables its chains.
fn each_is_whole(runs: &[Run], filter: Filter) {
    let processes = processes();
    let qemus = |run: &Run| {
        let disk = text(&run.spec.disks[0].path);
        processes.iter().filter(|(_, command)| command.contains("qemu-system") && command.contains(&disk)).count()
    };
    let counts: BTreeMap<String, usize> = runs.iter().map(|run| (run.spec.run.to_string(), qemus(run))).collect();
    assert!(counts.values().all(|count| *count == 1), "qemus of each run: {counts:?}");
    let tables = tool("nft", &["list", "tables", "bridge"]);
    let ports = tool("bridge", &["link"]);
    let chains = if filter == Filter::Ebtables { tool("ebtables-nft-save", &["-t", "nat"]) } else { String::new() };
    for run in runs {
        let (run, tap, table) = (&run.spec.run, run.spec.run.tap(), run.spec.run.nft_table());
        let lines = |text: &str, ends: &str| text.lines().filter(|line| line.ends_with(ends)).count();
        assert_eq!(lines(&tables, &format!(" {table}")), 1, "{tables}");
        assert_eq!(ports.matches(&format!(" {tap}: ")).count(), 1, "{ports}");
        if filter == Filter::Ebtables {
            assert_eq!(lines(&chains, &format!(" -j labwright-{run}-from")), 1, "{chains}");
        }
    }
    assert_eq!(tables.matches("table bridge lw_").count(), runs.len(), "{tables}");
}

fn end_all(runs: &mut [Run]) {
    runs.iter().for_each(|run| run.signal(Signal::SIGTERM));
    for run in runs {
        assert!(run.end().success(), "{:#?}", run.events());
    }
    let tables = tool("nft", &["list", "tables", "bridge"]);
    assert!(!tables.contains(" lw_"), "a run's table goes with it: {tables}");
}
