//! The time that a guest keeps by itself: who may look at it, and whom it reaches, before its start, during its exam, and after
//! its end; on real guests, with no controller.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use jiff::{SignedDuration, Timestamp};
use labwright::model::lab::{Egress, Protocol};
use labwright::model::site::Filter;
use labwright::run::{Clock, Console as Screen, Control, Event, Lock, PAUSED_BY_SESSION, Part, Pause, StopReason};
use nix::sys::signal::Signal;

use crate::world::{BOOT_WAIT, Run, World, wait_until};

/// A viewer that has got as far as it was let.
struct Viewer(TcpStream);

impl Viewer {
    /// Connects, and says that it has no password, or a wrong one. `None`: it was turned away.
    fn come(run: &Run) -> Option<Self> {
        let vnc = run.wait_for("running", |event| matches!(event, Event::Running { .. }));
        let Event::Running { vnc, .. } = vnc else { unreachable!("it was waited for") };
        let mut stream = TcpStream::connect(vnc).unwrap();
        stream.set_read_timeout(Some(BOOT_WAIT)).unwrap();
        let mut version = [0; 12];
        stream.read_exact(&mut version).ok()?;
        assert_eq!(&version, b"RFB 003.008\n");
        stream.write_all(&version).ok()?;
        let mut ways = [0; 2];
        stream.read_exact(&mut ways).ok()?;
        stream.write_all(&ways[1..]).ok()?;
        if ways[1] == 2 {
            stream.read_exact(&mut [0; 16]).ok()?;
            stream.write_all(&[7; 16]).ok()?;
        }
        let mut refused = [0; 4];
        stream.read_exact(&mut refused).ok()?;
        if refused != [0; 4] {
            assert_eq!(stream.read_to_end(&mut Vec::new()).ok(), Some(26), "who is refused is not kept waiting");
            return None;
        }
        stream.write_all(&[1]).ok()?;
        // What the screen is like: width, height, format, name.
        stream.read_exact(&mut [0; 24]).ok()?;
        Some(Self(stream))
    }

    /// Reads until nothing more can come.
    fn was_cut(mut self) -> bool {
        std::io::copy(&mut self.0, &mut std::io::sink()).is_ok()
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// Changes the clock, as whoever keeps a session does.
fn clock(run: &Run, change: impl FnOnce(&mut Clock)) {
    run.control(|control| {
        let Part::Known(clock) = control.clock.get_or_insert_with(|| Part::Known(Clock::default())) else {
            unreachable!("this labwright has written it")
        };
        change(clock);
    });
}

fn count(run: &Run, wanted: &Event) -> usize {
    run.events().iter().filter(|event| *event == wanted).count()
}

/// The records that have to do with time.
fn story(run: &Run) -> Vec<String> {
    let of = |event: &Event| match event {
        Event::Opened => Some("opened".to_owned()),
        Event::Locked { reason } => Some(format!("locked {reason:?}").to_lowercase()),
        Event::Paused { reason } => Some(format!("paused: {reason}")),
        Event::Resumed => Some("resumed".to_owned()),
        Event::Warned { failed, .. } => Some(format!("warned {failed:?}")),
        Event::Stopped { reason, .. } => Some(format!("stopped {reason:?}").to_lowercase()),
        _ => None,
    };
    run.events().iter().filter_map(of).collect()
}

/// A whole exam: closed, open, paused, over, and over for good. All of it reaches a guest that runs.
#[test]
fn a_guest_keeps_its_exam_by_itself() {
    let mut world = World::new();
    let mut spec = world.spec(51);
    let served = TcpListener::bind("192.168.100.1:8080").unwrap();
    spec.network.egress =
        vec![Egress { net: "192.168.100.1/32".parse().unwrap(), port: 8080, protocol: Protocol::Tcp, mac: None }];
    std::thread::spawn(move || {
        for stream in served.incoming() {
            drop(stream.unwrap().write_all(b"hello\n"));
        }
    });
    let mut control = Control::new(1, labwright::run::Wanted::Running);
    let mut early = Clock::default();
    early.start = Some(Part::Known(now() + SignedDuration::from_hours(1)));
    control.clock = Some(Part::Known(early));
    let mut run = world.start_with(spec, &control);
    run.wait_ready();
    let mut console = run.console();
    let mut reaches = || console.run("nc -w 5 192.168.100.1 8080 </dev/null").1 == "hello\n";
    assert!(Viewer::come(&run).is_none(), "its start has not come");
    assert!(!reaches());

    clock(&run, |clock| clock.start = Some(Part::Known(now())));
    run.wait_for("its opening", |event| *event == Event::Opened);
    assert!(reaches(), "whoever reads that it is open finds it so");
    let viewer = Viewer::come(&run).unwrap();
    let looked = |event: &Event| matches!(event, Event::LookedAt { viewers: 1, began } if began[0].contains(':'));
    run.wait_for("the look", looked);

    clock(&run, |clock| clock.pauses = Some(Part::Known(vec![Pause { since: now(), until: None }])));
    let paused = Event::Paused { reason: PAUSED_BY_SESSION.to_owned() };
    run.wait_for("the pause", |event| *event == paused);
    assert!(viewer.was_cut());
    assert!(Viewer::come(&run).is_none());
    clock(&run, |clock| {
        let Some(Part::Known(pauses)) = &mut clock.pauses else { unreachable!("one is open") };
        pauses[0].until = Some(now());
    });
    run.wait_for("its end", |event| *event == Event::Resumed);
    assert!(reaches());
    let viewer = Viewer::come(&run).unwrap();

    clock(&run, |clock| {
        clock.end = Some(Part::Known(now()));
        clock.grace_seconds = Some(Part::Known(3600));
    });
    let over = Event::Locked { reason: Lock::Over };
    run.wait_for("the end", |event| *event == over);
    assert!(viewer.was_cut());
    assert!(Viewer::come(&run).is_none());
    wait_until("it reaches nobody", || !reaches());
    // Somebody gets more time, and is warned that it is short.
    clock(&run, |clock| {
        clock.end = Some(Part::Known(now() + SignedDuration::from_secs(600)));
        clock.warn_before_seconds = Some(Part::Known(vec![1200]));
    });
    wait_until("it is open again", || count(&run, &Event::Opened) == 2);
    assert!(reaches());
    assert!(Viewer::come(&run).is_some());
    let warned = run.wait_for("the warning", |event| matches!(event, Event::Warned { .. }));
    let failed = Some("somebody has its serial line open".to_owned());
    assert!(matches!(&warned, Event::Warned { failed: why, .. } if *why == failed), "{warned:?}");

    clock(&run, |clock| {
        clock.end = Some(Part::Known(now()));
        clock.grace_seconds = Some(Part::Known(1));
    });
    assert!(run.end().success());
    let told = [
        "locked early",
        "opened",
        "paused: its session is paused",
        "resumed",
        "locked over",
        "opened",
        "warned Some(\"somebody has its serial line open\")",
        "locked over",
        "stopped deadline",
    ];
    assert_eq!(story(&run), told);
    let last = Event::Stopped { reason: StopReason::Deadline, exit: Some("exit 0".to_owned()) };
    assert_eq!(run.events().last(), Some(&last), "it was powered off");
    assert_eq!(run.leftovers(), [] as [&str; 0]);
}

/// Rules of ebtables are changed under a guest, too; and a plain guest is as closed before its start as an isolated one. What
/// is shut by its own word is nothing else.
#[test]
fn whoever_holds_the_filter_it_is_changed_under_the_guest() {
    let mut world = World::with_filter(Filter::Ebtables);
    let mut spec = world.spec(52);
    spec.network.isolated = false;
    let mut control = Control::new(1, labwright::run::Wanted::Running);
    let mut early = Clock::default();
    early.start = Some(Part::Known(now() + SignedDuration::from_hours(1)));
    control.clock = Some(Part::Known(early));
    let mut run = world.start_with(spec, &control);
    run.wait_ready();
    let served = TcpListener::bind("192.168.100.1:8081").unwrap();
    std::thread::spawn(move || {
        for stream in served.incoming() {
            drop(stream.unwrap().write_all(b"hello\n"));
        }
    });
    let mut console = run.console();
    let mut reaches = || console.run("nc -w 5 192.168.100.1 8081 </dev/null").1 == "hello\n";
    assert!(!reaches());
    clock(&run, |clock| clock.start = Some(Part::Known(now())));
    run.wait_for("its opening", |event| *event == Event::Opened);
    assert!(reaches());
    run.control(|control| control.console = Some(Part::Known(Screen::Shut)));
    run.wait_for("it is shut", |event| *event == Event::Locked { reason: Lock::Asked });
    assert!(Viewer::come(&run).is_none());
    assert!(reaches());
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
    assert_eq!(run.leftovers(), [] as [&str; 0]);
}

/// The guest need not boot for that.
#[test]
fn a_wrong_password_is_refused_and_a_screen_is_served_on_the_next_free_port() {
    let mut world = World::new();
    let taken = TcpListener::bind("127.0.0.1:5900").unwrap();
    let mut spec = world.spec(53);
    spec.qemu.extra_args = vec!["-S".into()];
    let control = Control::new(1, labwright::run::Wanted::Running);
    let folder = world.write(&spec);
    std::fs::write(folder.join("vnc.password"), "secret12\n").unwrap();
    let mut run = world.start_with(spec, &control);
    assert!(Viewer::come(&run).is_none());
    let Event::Running { vnc, .. } = run.wait_for("running", |event| matches!(event, Event::Running { .. })) else {
        unreachable!("it was waited for")
    };
    assert_eq!(vnc, "127.0.0.1:5901");
    drop(taken);
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
    assert!(!run.events().iter().any(|event| matches!(event, Event::LookedAt { .. })), "nobody has looked");
}

/// An early warning, on the line that nobody else has.
#[test]
fn a_guest_hears_how_much_time_is_left() {
    let mut world = World::new();
    let spec = world.spec(54);
    let mut control = Control::new(1, labwright::run::Wanted::Running);
    control.end_at(now() + SignedDuration::from_hours(1));
    let mut run = world.start_with(spec, &control);
    run.wait_ready();
    let mut console = run.console();
    console.begin("head -n 1 </dev/console >/tmp/heard");
    drop(console);
    clock(&run, |clock| clock.warn_before_seconds = Some(Part::Known(vec![7200])));
    let warned = run.wait_for("the warning", |event| matches!(event, Event::Warned { .. }));
    assert!(matches!(warned, Event::Warned { failed: None, left_seconds: 3000..=3600 }), "{warned:?}");
    let heard = run.console().run("cat /tmp/heard").1;
    assert!(heard.starts_with("# labwright: ") && heard.ends_with(" minutes left\n"), "{heard}");
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
}
