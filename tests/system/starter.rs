//! One starter and its guest.

use std::collections::BTreeSet;
use std::time::Duration;

use labwright::model::site::Accel;
use labwright::run::{self, Control, Event, RequestKind, StopReason, Wanted};
use labwright::starter::machine::OBEYS;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{BINARY, Run, World, processes, text, tool, wait_until};

/// A guest's whole life: planned address, gateway, stop through `control.json`, nothing left.
#[test]
fn a_guest_gets_its_planned_address_and_leaves_nothing() {
    let mut world = World::new();
    let spec = world.spec(7);
    let mut run = world.start(spec);
    run.wait_ready();
    let mut console = run.console();
    let (code, output) = console.run("ip -4 -o addr show eth0");
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("192.168.100.7/24"), "{output}");
    let (code, output) = console.run("ping -c 2 -W 2 192.168.100.1");
    assert_eq!(code, 0, "{output}");
    let (_, output) = console.run("hostname");
    assert_eq!(output, "guest-7\n");

    run.control(|control| control.wanted = Wanted::Stopped);
    let status = run.end();
    assert!(status.success(), "{:#?}", run.events());
    assert_eq!(run.leftovers(), [] as [&str; 0]);
    assert!(!run.has_host_folder());
    let events = run.events();
    let names: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Prepared { .. } => Some("prepared"),
            Event::Networked { .. } => Some("networked"),
            Event::Running { .. } => Some("running"),
            Event::Ready => Some("ready"),
            Event::Stopping { .. } => Some("stopping"),
            Event::Stopped { .. } => Some("stopped"),
            Event::Heartbeat | Event::Dropped(_) => None,
            other => panic!("{other:?} in {events:#?}"),
        })
        .collect();
    assert_eq!(names, ["prepared", "networked", "running", "ready", "stopping", "stopped"]);
    let last = Event::Stopped { reason: StopReason::Asked, exit: Some("exit 0".to_owned()) };
    assert_eq!(events.last(), Some(&last));
}

/// A site may want its guests paused before their first instruction: they run, and take nobody's turn to boot.
#[test]
fn a_guest_with_s_among_its_arguments_is_held_until_somebody_resumes_it() {
    let mut world = World::new();
    let slots = std::thread::available_parallelism().unwrap().get();
    let mut held: Vec<_> = (0..slots + 1)
        .map(|n| {
            let mut spec = world.spec(20 + u8::try_from(n).unwrap());
            spec.qemu.extra_args = vec!["-S".into()];
            spec.timing.self_fence_seconds = 3;
            spec.timing.grace_seconds = 600;
            world.start(spec)
        })
        .collect();
    for run in &held {
        run.wait_for("running", |event| matches!(event, Event::Running { .. }));
    }
    // They fill no boot slot: another guest boots beside them.
    let beside = world.spec(19);
    world.start(beside).wait_ready();

    // An outage of storage makes no difference, nor does its end start them.
    let mut first = held.remove(0);
    let hidden = first.folder.with_extension("hidden");
    std::fs::rename(&first.folder, &hidden).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    std::fs::rename(&hidden, &first.folder).unwrap();
    first.control(|control| _ = control.ask(RequestKind::Screen, 0));
    first.wait_for("answer", |event| matches!(event, Event::Answer { number: 1, error: None, .. }));
    let woken = |event: &Event| matches!(event, Event::Paused { .. } | Event::Resumed | Event::Ready);
    assert!(!first.events().iter().any(woken), "{:#?}", first.events());
    first.control(|control| _ = control.ask(RequestKind::Resume, 1));
    first.wait_ready();

    // A guest that has not begun hears no power button: its grace period is not waited out.
    for run in &mut held {
        run.signal(Signal::SIGTERM);
        assert!(run.end().success());
        assert!(!run.events().contains(&Event::Ready));
    }
    first.signal(Signal::SIGKILL);
    first.end();
}

/// Control files of every version, as their controllers write them. The guests are held, so that none has to boot.
#[test]
fn a_starter_obeys_what_it_knows_of_a_control_file_and_names_the_rest() {
    let mut world = World::new();
    // (its number, what stands beside generation and wish, what the report must name)
    let table = [
        (1, r#""version":1,"deadline":"END""#, ""),
        (2, r#""version":2,"clock":{"start":"END","end":"END"},"egress":[],"console":"shut""#, ""),
        (
            3,
            r#""version":3,"clock":{"end":"END","zone":"x"},"console":{"watched":true},"sound":"off""#,
            "clock.zone, console, sound",
        ),
    ];
    let write = |run: &Run, parts: &str, end: jiff::Timestamp| {
        let text = format!(r#"{{"generation":1,"wanted":"running",{parts}}}"#).replace("END", &end.to_string());
        std::fs::write(run.folder.join(run::CONTROL), text).unwrap();
    };
    let runs: Vec<Run> = table
        .iter()
        .map(|(number, parts, _)| {
            let mut spec = world.spec(30 + number);
            spec.qemu.extra_args = vec!["-S".into()];
            let run = world.start(spec);
            write(&run, parts, jiff::Timestamp::MAX);
            run
        })
        .collect();
    for (mut run, (number, parts, named)) in runs.into_iter().zip(table) {
        run.wait_for("running", |event| matches!(event, Event::Running { .. }));
        let first = run::read_report(&run.folder).unwrap().swap_remove(0);
        let obeys = OBEYS.map(str::to_owned).to_vec();
        assert_eq!((first.version, first.obeys), (Some(1), Some(obeys)));
        let told = |event: &Event| matches!(event, Event::Warning { message } if message.ends_with(&format!(" does not obey: {named}")));
        if !named.is_empty() {
            run.wait_for("what is not obeyed", told);
        }
        // A request of a person is written into the same file, which stays what it was.
        let asked = Control::change(&run.folder, |control| control.ask(RequestKind::Screen, 0)).unwrap();
        assert_eq!(asked, Some(1));
        run.wait_for("its answer", |event| matches!(event, Event::Answer { number: 1, error: None, .. }));
        let text = std::fs::read_to_string(run.folder.join(run::CONTROL)).unwrap();
        for part in ["\"zone\":\"x\"", "{\"watched\":true}", "\"sound\":\"off\"", "\"egress\":[]"] {
            assert_eq!(text.contains(part), parts.contains(part), "{number}: {text}");
        }
        write(&run, parts, jiff::Timestamp::now());
        assert!(run.end().success());
        let events = run.events();
        assert!(matches!(events.last(), Some(Event::Stopped { reason: StopReason::Deadline, .. })), "{events:#?}");
        let warnings = events.iter().filter(|event| matches!(event, Event::Warning { .. })).count();
        assert_eq!(warnings, usize::from(!named.is_empty()), "{number}: {events:#?}");
    }
}

/// What the controller can ask of a running guest, and what its storage may do to it.
#[test]
fn a_running_guest_obeys_its_control_file_and_its_storage() {
    let mut world = World::new();
    let mut spec = world.spec(8);
    spec.timing.self_fence_seconds = 3;
    let mut run = world.start(spec);
    run.wait_ready();

    // Grid Engine's announcements go to every process of the job; none may end of them.
    let starter = run.starter.id();
    let children: Vec<i32> = processes().into_iter().map(|(pid, _)| pid).filter(|p| parent(*p) == starter).collect();
    assert_eq!(children.len(), 2, "nft and qemu");
    for pid in children {
        kill(Pid::from_raw(pid), Signal::SIGUSR1).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGUSR2).unwrap();
    }
    run.signal(Signal::SIGUSR1);

    run.control(|control| {
        control.ask(RequestKind::Screen, 0);
    });
    let answer = run.wait_for("the picture", |event| matches!(event, Event::Answer { .. }));
    assert_eq!(answer, Event::Answer { number: 1, file: Some("1.png".to_owned()), error: None });
    let picture = std::fs::read(run.folder.join("answers/1.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 1000, "{} bytes", picture.len());

    // Suspended it is silent; resumed it is as it was.
    let asked = |kind: RequestKind, number: u64| {
        run.control(|control| {
            control.ask(kind, number - 1);
        });
        let answer = run.wait_for("the answer", |e| matches!(e, Event::Answer { number: n, .. } if *n == number));
        assert_eq!(answer, Event::Answer { number, file: None, error: None });
    };
    asked(RequestKind::Suspend, 2);
    assert!(!reachable("192.168.100.8"));
    asked(RequestKind::Resume, 3);
    wait_until("it answers again", || reachable("192.168.100.8"));

    // A snapshot is where a revert goes back to: memory, and a file system that lives in it.
    let mut console = run.console();
    console.run("echo before >/tmp/state");
    asked(RequestKind::Snapshot { name: "exam".to_owned() }, 4);
    console.run("echo after >/tmp/state");
    assert_eq!(console.run("cat /tmp/state").1, "after\n");
    asked(RequestKind::Revert { name: "exam".to_owned() }, 5);
    assert_eq!(console.run("cat /tmp/state").1, "before\n");
    run.control(|control| {
        control.ask(RequestKind::Revert { name: "none".to_owned() }, 5);
    });
    let refused = run.wait_for("a refusal", |event| matches!(event, Event::Answer { number: 6, .. }));
    let error = Some("disk0 has no snapshot `none`".to_owned());
    assert_eq!(refused, Event::Answer { number: 6, file: None, error });
    wait_until("the guest goes on", || reachable("192.168.100.8"));

    // Storage is lost: the guest stands still, and goes on when storage is back.
    let away = run.folder.with_extension("away");
    std::fs::rename(&run.folder, &away).unwrap();
    wait_until("a guest without storage stands still", || !reachable("192.168.100.8"));
    std::fs::rename(&away, &run.folder).unwrap();
    let resumed = |_: &Event| run.events().iter().filter(|event| **event == Event::Resumed).count() == 2;
    run.wait_for("the second resumption", resumed);
    wait_until("it answers again", || reachable("192.168.100.8"));

    // A deadline that has been moved is not kept; one that has passed is.
    run.control(|control| control.end_at(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(run.starter.try_wait().unwrap(), None);
    run.control(|control| control.end_at(jiff::Timestamp::now()));
    assert!(run.end().success());
    let last = Event::Stopped { reason: StopReason::Deadline, exit: Some("exit 0".to_owned()) };
    assert_eq!(run.events().last(), Some(&last));
    assert_eq!(run.leftovers(), [] as [&str; 0]);
    let events = run.events();
    let follow = |pair: &[Event]| pair.iter().all(|event| *event == Event::Heartbeat);
    assert!(!events.windows(2).any(follow), "each heartbeat is written over the one before: {events:#?}");
}

/// A qemu that was broken out of has its own account's rights and its Landlock. With both it can neither put a file into the
/// run's folder, which is memory of the host, nor take the lock away; and qemu still comes up after an early death.
#[test]
fn nothing_can_be_put_into_the_folder_of_a_run() {
    let mut world = World::new();
    let spec = world.spec(13);
    let mut run = world.start(spec);
    let running = |event: &Event| matches!(event, Event::Running { .. });
    run.wait_for("running", running);
    let folder = world.run_root().join(run.spec.run.to_string());
    let names = || {
        let entries =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect::<BTreeSet<String>>()
    };
    let own = BTreeSet::from(["lock", "serial.sock"].map(str::to_owned));
    assert_eq!(names(), own);

    let attempts = [
        "exec 3>fill",
        "exec 3>>lock",
        "exec 3>request-1.png",
        "mkfifo fill",
        "mkdir fill",
        "ln -s /etc/passwd fill",
        "rm -f lock",
        "mv lock unlocked",
        "chmod 777 .",
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(\"serial.sock\") or die $!'",
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"fill\", Listen => 1) or die $!'",
    ];
    for attempt in attempts {
        let tried = confined(&world, &run, &format!("cd {} && {attempt}", folder.display()));
        let said = String::from_utf8_lossy(&tried.stderr).into_owned();
        let denied = said.contains("Permission denied") || said.contains("Operation not permitted");
        assert!(!tried.status.success() && denied, "{attempt}: {said}");
        assert_eq!(names(), own, "{attempt}");
    }
    assert!(confined(&world, &run, &format!("cd {} && test -S serial.sock", folder.display())).status.success());

    let disk = text(&run.spec.disks[0].path);
    let (qemu, _) = processes().into_iter().find(|(_, command)| command.contains(&disk)).expect("qemu runs");
    kill(Pid::from_raw(qemu), Signal::SIGKILL).unwrap();
    run.wait_for("another start", |_| run.events().iter().filter(|event| running(event)).count() == 2);
    assert_eq!(names(), own);
    let tried = confined(&world, &run, &format!("cd {} && exec 3>fill", folder.display()));
    assert!(!tried.status.success());
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
}

/// A shell as the run's qemu is: the same step of the same program makes both.
fn confined(world: &World, run: &Run, script: &str) -> std::process::Output {
    let user = nix::unistd::User::from_name(&run.spec.service_user).unwrap().unwrap();
    let folder = world.run_root().join(run.spec.run.to_string());
    let mut command = std::process::Command::new(BINARY);
    command.arg("confine").args(["--parent", &std::process::id().to_string()]);
    command.args(["--uid", &user.uid.to_string(), "--gid", &user.gid.to_string()]);
    command.args(["--read", "/bin", "--write"]).arg(&run.spec.disks[0].path).arg("--write").arg(folder);
    command.args(["--", "/bin/sh", "-c", script]).output().unwrap()
}

/// An early death is started again, as often as the spec says, and no more.
#[test]
fn a_guest_that_dies_early_is_started_again() {
    let mut world = World::new();
    let mut spec = world.spec(9);
    spec.timing.start_attempts_max = 2;
    let mut run = world.start(spec);
    for attempt in 1..=2 {
        run.wait_for("the guest's start", |_| {
            run.events().iter().filter(|event| matches!(event, Event::Running { .. })).count() == attempt
        });
        let disk = text(&run.spec.disks[0].path);
        let (qemu, _) = processes().into_iter().find(|(_, command)| command.contains(&disk)).expect("qemu runs");
        kill(Pid::from_raw(qemu), Signal::SIGKILL).unwrap();
    }
    assert!(run.end().success());
    let events = run.events();
    let restarting = Event::Restarting { attempt: 2, exit: "killed by signal 9".to_owned() };
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Restarting { .. })).count(), 1);
    assert!(events.contains(&restarting), "{events:#?}");
    let last = Event::Stopped { reason: StopReason::Crashed, exit: Some("killed by signal 9".to_owned()) };
    assert_eq!(events.last(), Some(&last));
    assert_eq!(run.leftovers(), [] as [&str; 0]);
}

/// A qemu that prints without end fills nothing on its host, is not held up, and its last words are told.
#[test]
fn a_qemu_that_never_stops_talking_fills_nothing() {
    let mut world = World::new();
    let mut spec = world.spec(12);
    spec.timing.start_attempts_max = 1;
    spec.qemu.accel = Accel::Tcg;
    // Every piece of guest code that is translated, to standard error: tens of megabytes for a boot.
    spec.qemu.extra_args = ["-d", "in_asm"].map(str::to_owned).to_vec();
    let mut run = world.start(spec);
    run.wait_ready();
    let files = std::fs::read_dir(world.run_root().join(run.spec.run.to_string())).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(bytes, 0, "a lock and sockets");

    let disk = text(&run.spec.disks[0].path);
    let (qemu, _) = processes().into_iter().find(|(_, command)| command.contains(&disk)).expect("qemu runs");
    kill(Pid::from_raw(qemu), Signal::SIGKILL).unwrap();
    assert!(run.end().success());
    let last = run.events().pop();
    let Some(Event::Stopped { reason: StopReason::Crashed, exit: Some(exit) }) = last else { panic!("{last:?}") };
    let words = exit.strip_prefix("killed by signal 9: ").expect("its last words");
    assert!(words.len() > 500 && words.len() <= 1000 && words.contains("0x"), "{words}");
    assert_eq!(run.leftovers(), [] as [&str; 0]);
}

/// A qemu that lives but answers nothing: the report says so, and that it answers again; one that stays so is ended.
#[test]
fn a_qemu_that_does_not_answer_is_told_and_then_ended() {
    let mut world = World::new();
    let mut spec = world.spec(11);
    spec.timing.hung_seconds = 20;
    let mut run = world.start(spec);
    run.wait_ready();
    let disk = text(&run.spec.disks[0].path);
    let (qemu, _) = processes().into_iter().find(|(_, command)| command.contains(&disk)).expect("qemu runs");
    let tell = |signal| kill(Pid::from_raw(qemu), signal).unwrap();

    tell(Signal::SIGSTOP);
    let paused =
        |event: &Event| matches!(event, Event::Paused { reason } if reason.starts_with("qemu has not answered for 1"));
    run.wait_for("word of the silence", paused);
    tell(Signal::SIGCONT);
    run.wait_for("the end of the silence", |event| *event == Event::Resumed);
    wait_until("it answers again", || reachable("192.168.100.11"));
    assert_eq!(run.starter.try_wait().unwrap(), None);

    tell(Signal::SIGSTOP);
    assert!(run.end().success());
    let last = run.events().pop();
    let Some(Event::Stopped { reason: StopReason::Crashed, exit: Some(exit) }) = last else { panic!("{last:?}") };
    assert!(exit.starts_with("qemu did not answer for 2") && exit.ends_with(" s and was killed"), "{exit}");
    assert_eq!(run.leftovers(), [] as [&str; 0]);
}

/// A starter of an older generation ends at once, and so does its guest, without a chance to write to its disks.
#[test]
fn an_older_generation_ends() {
    let mut world = World::new();
    let mut run = {
        let spec = world.spec(10);
        world.start(spec)
    };
    run.wait_for("running", |event| matches!(event, Event::Running { .. }));
    run.control(|control| control.generation = 2);
    assert!(run.end().success());
    let last = Event::Stopped { reason: StopReason::Superseded, exit: Some("killed by signal 9".to_owned()) };
    assert_eq!(run.events().last(), Some(&last));
    assert_eq!(run.leftovers(), [] as [&str; 0]);
}

/// What qemu says last, that its guest powered itself off, is heard though it is gone a moment later.
#[test]
fn a_guest_that_powers_itself_off_has_not_crashed() {
    let mut world = World::new();
    let spec = world.spec(14);
    let mut run = world.start(spec);
    run.wait_ready();
    let mut console = run.console();
    console.send("poweroff -f");
    assert!(run.end().success());
    let last = Event::Stopped { reason: StopReason::Guest, exit: Some("exit 0".to_owned()) };
    assert_eq!(run.events().last(), Some(&last), "{:#?}", run.events());
    assert!(!run.events().iter().any(|event| matches!(event, Event::Paused { .. })));
    assert_eq!(run.leftovers(), [] as [&str; 0]);
}

/// A sick host is sick in more than one way: the fence waits neither for nft nor for anything that is asked of qemu.
#[test]
fn a_hung_nft_does_not_delay_the_fence() {
    let mut world = World::new();
    let mut spec = world.spec(15);
    spec.timing.self_fence_seconds = 4;
    let mut run = world.start(spec);
    run.wait_ready();
    let starter = run.starter.id();
    let (nft, _) =
        processes().into_iter().find(|(pid, command)| parent(*pid) == starter && command.starts_with("nft")).unwrap();
    kill(Pid::from_raw(nft), Signal::SIGSTOP).unwrap();
    let report = run.folder.join("report.jsonl");
    let written = std::fs::metadata(&report).unwrap().modified().unwrap();
    let away = run.folder.with_extension("away");
    std::fs::rename(&run.folder, &away).unwrap();
    wait_until("the guest stands", || !reachable("192.168.100.15"));
    let silent = written.elapsed().unwrap();
    // The last write may have been up to a heartbeat later, and the look itself takes a second.
    assert!(silent < Duration::from_secs(4 + 1 + 3), "it stood only {silent:?} after the last record");
    kill(Pid::from_raw(nft), Signal::SIGCONT).unwrap();
    std::fs::rename(&away, &run.folder).unwrap();
    run.wait_for("the guest goes on", |event| *event == Event::Resumed);
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
}

/// A full disk halts guests; their reports say so, and they go on when there is room again.
#[test]
fn a_guest_whose_disk_is_full_is_paused_with_the_reason_and_goes_on() {
    let mut world = World::new();
    let mut spec = world.spec(16);
    let small = world.folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=3m,mode=755", "none", small.to_str().unwrap()]);
    let disk = small.join("disk-0.qcow2");
    std::fs::rename(&spec.disks[0].path, &disk).unwrap_or_else(|_| {
        std::fs::copy(&spec.disks[0].path, &disk).unwrap();
    });
    tool("chown", &["nobody", disk.to_str().unwrap()]);
    spec.disks[0].path = disk;
    let mut run = world.start(spec);
    run.wait_ready();
    let mut console = run.console();
    console.send("dd if=/dev/urandom of=/dev/vda bs=64k count=200 conv=fsync");
    let full = |event: &Event| *event == Event::Paused { reason: "its disk is full on storage".to_owned() };
    run.wait_for("word of the full disk", full);
    tool("mount", &["-o", "remount,size=64m", small.to_str().unwrap()]);
    run.wait_for("the guest goes on", |event| *event == Event::Resumed);
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
    assert_eq!(run.events().iter().filter(|event| full(event)).count(), 1);
}

/// A bridge that somebody deletes and makes anew: the report says so, and the guest joins again by itself, behind its filter.
#[test]
fn a_guest_whose_bridge_goes_is_cut_off_and_joins_the_next_one() {
    let mut world = World::new();
    let spec = world.spec(18);
    let mut run = world.start(spec);
    run.wait_ready();
    tool("ip", &["link", "del", "vbr0"]);
    let cut_off = run.wait_for("word of it", |event| matches!(event, Event::CutOff { .. }));
    let Event::CutOff { reason } = cut_off else { unreachable!("just looked for") };
    assert!(reason.starts_with("this host has no bridge `vbr0`"), "{reason}");
    labwright::host::machine::setup::setup(&world.wanted()).unwrap();
    run.wait_for("word of its return", |event| *event == Event::Connected);
    wait_until("it answers again", || reachable("192.168.100.18"));
    let port = tool("bridge", &["-d", "link", "show", "dev", &run.spec.run.tap()]);
    for flag in ["isolated on", "learning off", "flood off"] {
        assert!(port.contains(flag), "{flag}: {port}");
    }
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
}

/// What the batch system tracks a job by goes to qemu; what root may by its groups does not.
#[test]
fn qemu_has_none_of_roots_groups_and_keeps_the_batch_systems() {
    let mut world = World::new();
    let spec = world.spec(17);
    let tracked = 20_017;
    let mut run = world.start_by(spec, |folder| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--groups", &format!("0,{tracked}"), BINARY, "starter", "--run"]).arg(folder);
        command.env("LABWRIGHT_RUN_ROOT", world.run_root());
        command
    });
    run.wait_for("running", |event| matches!(event, Event::Running { .. }));
    let disk = text(&run.spec.disks[0].path);
    let (qemu, _) = processes().into_iter().find(|(_, command)| command.contains(&disk)).expect("qemu runs");
    let status = std::fs::read_to_string(format!("/proc/{qemu}/status")).unwrap();
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    let groups: Vec<u32> = line("Groups:").split_whitespace().map(|group| group.parse().unwrap()).collect();
    assert!(groups.contains(&tracked) && !groups.contains(&0), "{groups:?}");
    assert!(!line("Gid:").split_whitespace().any(|group| group == "0"), "{status}");
    run.signal(Signal::SIGKILL);
    run.end();
}

fn parent(pid: i32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = status.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
}

fn reachable(ip: &str) -> bool {
    std::process::Command::new("ping").args(["-q", "-c", "1", "-W", "1", ip]).output().unwrap().status.success()
}
