//! How fast a starter is, and how small: from its start to a qemu that answers `query-status`, behind a filter that was
//! read back, on the bridge. Needs root. Guests do not boot here; that is the kernel's time, not ours.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[expect(dead_code, reason = "shared with the system tests, which use more of it")]
#[path = "../tests/system/world.rs"]
mod world;

use std::time::{Duration, Instant};

use labwright::run::{Event, Wanted};
use world::{Run, World};

fn main() {
    let mut world = World::new();
    // Slots are taken, so that no guest begins to boot and takes the cores away from what is measured.
    let slots = std::thread::available_parallelism().map_or(1, usize::from);
    let _held: Vec<_> =
        (0..slots).map(|_| labwright::host::run_folder::take_boot_slot(&world.run_root(), slots)).collect();
    one_after_the_other(&mut world, 15);
    four_at_a_time(&mut world, 40);
}

fn one_after_the_other(world: &mut World, count: usize) {
    let mut times = Vec::new();
    let mut resident_kib = 0;
    for _ in 0..count {
        let spec = world.spec(2);
        let started = Instant::now();
        let run = world.start(spec);
        wait_until_it_answers(&run);
        times.push(started.elapsed());
        resident_kib = resident_kib.max(resident(run.starter.id()));
        stop(run);
    }
    times.sort();
    let figure = |name: &str, value: String, bar: &str| println!("{name:<44} {value:>10}   bar {bar}");
    figure("starter: start to qemu answering, median", millis(times[count / 2]), "110 ms");
    figure("starter: start to qemu answering, slowest", millis(times[count - 1]), "-");
    figure("starter: resident beside its guest", format!("{:.1} MiB", f64::from(resident_kib) / 1024.0), "8 MiB");
}

fn four_at_a_time(world: &mut World, count: u8) {
    let specs: Vec<_> = (0..count).map(|number| world.spec(number + 2)).collect();
    let started = Instant::now();
    let mut runs: Vec<Run> = Vec::new();
    for spec in specs {
        while runs.iter().filter(|run| !answers(run)).count() >= 4 {
            std::thread::sleep(Duration::from_millis(1));
        }
        runs.push(world.start(spec));
    }
    runs.iter().for_each(wait_until_it_answers);
    println!("{:<44} {:>10}   bar 3 s", format!("starter: {count} starts, 4 at a time"), millis(started.elapsed()));
    runs.into_iter().for_each(stop);
}

fn answers(run: &Run) -> bool {
    run.events().iter().any(|event| matches!(event, Event::Networked { .. }))
}

fn wait_until_it_answers(run: &Run) {
    while !answers(run) {
        assert!(!run.events().iter().any(|event| matches!(event, Event::Stopped { .. })), "{:#?}", run.events());
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn stop(mut run: Run) {
    run.control(|control| control.wanted = Wanted::Stopped);
    run.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(run.end().success());
}

fn resident(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}
