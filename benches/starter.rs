//! How fast a starter is, and how small: from its start to a qemu that answers `query-status`, behind a filter that was
//! read back, on the bridge. Needs root. Guests do not boot here; that is the kernel's time, not ours.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[expect(dead_code, reason = "shared with the system tests, which use more of it")]
#[path = "../tests/system/world.rs"]
mod world;

use std::time::{Duration, Instant};

use labwright::host::run::run_folder::{BootSlot, take_boot_slot};
use labwright::model::site::{Filter, Timing};
use labwright::run::{Event, Wanted};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use world::{Run, World};

fn main() {
    let mut world = World::new();
    let held = hold_boot_slots(&world);
    let kib = one_after_the_other(&mut world, "starter: start to qemu answering", 15);
    figure("starter: resident beside its guest", &format!("{:.1} MiB", f64::from(kib) / 1024.0), "-", "8 MiB");
    give_cgroups(&world);
    one_after_the_other(&mut world, "starter: the same, in a cgroup", 15);
    side_by_side(&mut world, 40, 4, "3 s");
    at_one_moment(&mut world, "starter");
    idle(&mut world, 1);
    idle(&mut world, 40);
    drop((held, world));

    let mut world = World::with_filter(Filter::Ebtables);
    let _held = hold_boot_slots(&world);
    one_after_the_other(&mut world, "starter, ebtables: start to qemu answering", 15);
    at_one_moment(&mut world, "starter, ebtables");
    idle(&mut world, 40);
}

/// What a class costs that starts at once, over the same class a few at a time.
fn at_one_moment(world: &mut World, what: &str) {
    let apart = side_by_side(world, 100, 4, "-");
    let at_once = side_by_side(world, 100, 100, "-");
    let ratio = format!("{:.2}", at_once.as_secs_f64() / apart.as_secs_f64());
    figure(&format!("{what}: 100 at one moment, over four at a time"), &ratio, "-", "1.3");
}

/// How much of a core a starter and its nft take for a guest that does nothing.
fn idle(world: &mut World, count: u8) {
    const WATCHED: Duration = Duration::from_secs(60);
    world.qemu.extra_args = vec!["-S".to_owned()];
    let mut specs: Vec<_> = (0..count).map(|number| world.spec(number + 2)).collect();
    world.qemu.extra_args.clear();
    // The times of a site, not those of a test that cannot wait.
    specs.iter_mut().for_each(|spec| spec.timing = Timing::default());
    let runs = world.start_all(specs);
    for run in &runs {
        run.wait_for("held", |event| matches!(event, Event::Running { .. }));
    }
    let parents: Vec<u32> = runs.iter().map(|run| run.starter.id()).collect();
    let watchers: Vec<String> = world::processes()
        .into_iter()
        .map(|(pid, command)| (pid.to_string(), command))
        .filter(|(pid, command)| {
            parents.contains(&pid.parse().unwrap()) || command.starts_with("nft ") && is_child(pid, &parents)
        })
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(watchers.len(), runs.len() * 2, "a starter and its nft each");
    let before: u64 = watchers.iter().map(|pid| nanoseconds(pid)).sum();
    std::thread::sleep(WATCHED);
    let used = watchers.iter().map(|pid| nanoseconds(pid)).sum::<u64>() - before;
    let percent = used as f64 / WATCHED.as_nanos() as f64 / f64::from(count) * 100.0;
    figure(&format!("starter: an idle guest of {count}, of one core"), &format!("{percent:.3} %"), "-", "0.1 %");
    runs.into_iter().for_each(stop);
}

fn is_child(pid: &str, parents: &[u32]) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parents.iter().any(|parent| status.contains(&format!("\nPPid:\t{parent}\n")))
}

/// Processor time that all threads of a process have used.
fn nanoseconds(pid: &str) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_thread = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0_u64)
    };
    threads.map(|thread| of_thread(thread.unwrap())).sum()
}

/// So that no guest begins to boot and takes the cores away from what is measured.
fn hold_boot_slots(world: &World) -> Vec<BootSlot> {
    let slots = std::thread::available_parallelism().map_or(1, usize::from);
    (0..slots).map(|_| take_boot_slot(&world.run_root(), slots).unwrap().expect("nobody else is here")).collect()
}

/// As `host setup` does where version 2 has the memory controller; here without controllers. Goes with the world.
fn give_cgroups(world: &World) {
    world::tool("mount", &["-t", "cgroup2", "none", "/sys/fs/cgroup"]);
    let folder = format!("/sys/fs/cgroup/labwright-bench-{}", std::process::id());
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&folder, world.run_root().join("cgroup")).unwrap();
}

/// Returns how many KiB of memory a starter took at most.
fn one_after_the_other(world: &mut World, what: &str, count: u32) -> u32 {
    let mut times = Vec::new();
    let mut resident_kib = 0;
    let before = cpu_of_children();
    for _ in 0..count {
        let spec = world.spec(2);
        let started = Instant::now();
        let run = world.start(spec);
        wait_until_it_answers(&run);
        times.push(started.elapsed());
        resident_kib = resident_kib.max(resident(run.starter.id()));
        stop(run);
    }
    let cpu = millis((cpu_of_children() - before) / count);
    times.sort();
    let slowest = *times.last().expect("at least one start");
    figure(&format!("{what}, median"), &millis(times[times.len() / 2]), &cpu, "110 ms");
    figure(&format!("{what}, slowest"), &millis(slowest), "-", "-");
    figure(&format!("{what}, processor"), &cpu, "-", "90 ms");
    resident_kib
}

/// Starts `count` guests, `at_once` of them at a time, and looks whether each has what it needs when all stand.
fn side_by_side(world: &mut World, count: u8, at_once: usize, bar: &str) -> Duration {
    let specs: Vec<_> = (0..count).map(|number| world.spec(number + 2)).collect();
    let before = cpu_of_children();
    let started = Instant::now();
    let (mut under_way, mut up): (Vec<Run>, Vec<Run>) = (Vec::new(), Vec::new());
    let mut next = specs.into_iter();
    loop {
        up.extend(under_way.extract_if(.., |run| answers(run)));
        match next.len() {
            0 if under_way.is_empty() => break,
            left if left > 0 && under_way.len() < at_once => {
                under_way.extend(next.next().map(|spec| world.start(spec)))
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    let wall = started.elapsed();
    up.iter().for_each(assert_it_is_whole);
    up.into_iter().for_each(stop);
    // With all that ends them, since only the usage of processes that have ended is known.
    let cpu = millis(cpu_of_children() - before);
    figure(&format!("starter: {count} starts, {at_once} at a time"), &millis(wall), &cpu, bar);
    wall
}

/// The run's own table, its port, and its address behind that port.
fn assert_it_is_whole(run: &Run) {
    let (tap, table, mac) = (run.spec.run.tap(), run.spec.run.nft_table(), run.spec.network.mac.to_string());
    let rules = world::tool("nft", &["list", "table", "bridge", &table]);
    assert!(rules.contains(&mac) && rules.contains(&run.spec.network.ip.to_string()), "{rules}");
    let addresses = world::tool("bridge", &["fdb", "show", "dev", &tap]);
    let pinned = |line: &str| line.starts_with(&mac) && line.ends_with("static");
    assert!(addresses.lines().map(str::trim_end).any(pinned), "{addresses}");
}

fn answers(run: &Run) -> bool {
    let events = run.events();
    assert!(!events.iter().any(|event| matches!(event, Event::Stopped { .. })), "{events:#?}");
    events.iter().any(|event| matches!(event, Event::Networked { .. }))
}

fn wait_until_it_answers(run: &Run) {
    while !answers(run) {
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

/// What all children that have ended used, with their own: starters, qemu, nft and the rest.
fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let both = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(both.num_microseconds()).unwrap())
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

/// The line of `figure` in lib.sh.
fn figure(what: &str, measured: &str, cpu: &str, bar: &str) {
    println!("{what:<58} {measured:>11}   cpu {cpu:>9}   bar {bar}");
}
