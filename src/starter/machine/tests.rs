//! The machine's decisions as tables: what is seen when, and what comes of it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::run::Part;
use crate::run::formats::SPEC_1;

/// A machine, and a world in which storage works and qemu answers unless told otherwise.
pub(super) struct Guest {
    pub(super) machine: Machine,
    pub(super) written: Option<u64>,
    pub(super) unanswered: Option<u64>,
}

pub(super) fn spec() -> RunSpec {
    serde_json::from_str(SPEC_1).unwrap()
}

fn control() -> Control {
    Control::new(3, Wanted::Running)
}

fn asks(kinds: &[serde_json::Value]) -> Control {
    let requests = (1..).zip(kinds).map(|(number, kind)| json!({ "number": number, "kind": kind })).collect::<Vec<_>>();
    serde_json::from_value(json!({ "generation": 3, "wanted": "running", "requests": requests })).unwrap()
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Guest {
    fn waiting(spec: &RunSpec) -> Self {
        Self { machine: Machine::new(spec, control(), seconds(0)), written: None, unanswered: None }
    }

    /// Ready within two seconds.
    pub(super) fn ready() -> Self {
        let mut guest = Self::waiting(&spec());
        guest.at(0, []);
        guest.at(1, [Input::Slot]);
        assert_eq!(guest.at(2, [Input::Moves, Input::Address]), ["give slot back", "report ready"]);
        guest
    }

    /// What comes of what was told, without the pings.
    pub(super) fn at(&mut self, second: u64, told: impl IntoIterator<Item = Input>) -> Vec<String> {
        let seen = Seen {
            told: told.into_iter().collect(),
            written: seconds(self.written.unwrap_or(second)),
            unanswered: self.unanswered.map(seconds),
            server: Timestamp::from_second(i64::try_from(second).unwrap()).unwrap(),
        };
        self.machine.step(seen, seconds(second)).iter().filter(|act| **act != Act::Ping).map(words).collect()
    }

    pub(super) fn reads(&mut self, second: u64, control: Control) -> Vec<String> {
        self.at(second, [Input::Control { control: Box::new(control), looked: seconds(second) }])
    }
}

pub(super) fn words(act: &Act) -> String {
    match act {
        Act::Tell(command) => format!("{command:?}").to_lowercase(),
        Act::Report(Event::LookedAt { viewers, began }) => format!("report looked_at {viewers} {}", began.join(",")),
        Act::Report(event) => {
            let event = serde_json::to_value(event).unwrap();
            let mut words = vec!["report".to_owned(), event["event"].as_str().unwrap().to_owned()];
            for key in ["reason", "message", "exit"] {
                words.extend(event.get(key).map(|value| value.as_str().unwrap_or("?").to_owned()));
            }
            words.join(" ")
        }
        Act::ReportRunning => "report running".to_owned(),
        Act::Answer(number, reply) => format!("answer {number}: {reply:?}"),
        Act::Warn(left) => format!("warn {left}"),
        Act::Carry(request) => format!("carry {}", request.number),
        Act::End(End { reason, exit }) => format!("end: {reason}; {}", exit.as_deref().unwrap_or("?")),
        Act::Ping => "ping".to_owned(),
        Act::Kill => "kill".to_owned(),
        Act::TakeSlot => "take slot".to_owned(),
        Act::GiveSlotBack => "give slot back".to_owned(),
        Act::Restart { disks } => {
            let names = disks.iter().map(|disk| disk.path.display().to_string());
            format!("restart with {}", names.collect::<Vec<_>>().join(" "))
        }
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_guest_begins_with_a_slot_and_gives_it_back_when_it_is_ready_or_late() {
    let mut guest = Guest::waiting(&spec());
    assert_eq!(guest.at(0, []), ["take slot"]);
    assert_eq!(guest.at(1, []), ["take slot"]);
    assert_eq!(guest.at(2, [Input::Slot]), ["cont", "report running"]);
    assert_eq!(guest.at(3, [Input::Moves]), NOTHING);
    assert_eq!(guest.at(63, []), ["give slot back"]);
    assert_eq!(guest.at(64, [Input::Address]), ["give slot back", "report ready"]);
    assert_eq!(guest.at(65, [Input::Address]), NOTHING);
}

#[test]
fn a_guest_without_a_record_for_long_enough_stands() {
    let mut guest = Guest::ready();
    guest.written = Some(10);
    assert_eq!(guest.at(69, []), NOTHING);
    assert_eq!(guest.at(70, []), ["stop", "report paused no record could be written for 60 s"]);
    assert_eq!(guest.at(71, [Input::Stands]), NOTHING);
}

/// Neither a record nor a look alone is enough, and the look must come after the record: until it sees a record, a controller
/// may give the host up, which it writes into `control.json`.
#[test]
fn a_fenced_guest_goes_on_only_after_a_record_and_a_look_after_that() {
    let fenced = || {
        let mut guest = Guest::ready();
        guest.written = Some(10);
        guest.at(70, []);
        guest
    };
    // Readable all the while, but nothing can be written.
    let mut guest = fenced();
    assert_eq!(guest.reads(80, control()), NOTHING);
    assert_eq!(guest.reads(200, control()), NOTHING);

    // (record begun, look begun, told at, goes on)
    let table = [
        (70, 80, 80, false),
        (80, 79, 81, false),
        (80, 70, 81, false),
        (80, 80, 81, true),
        (80, 81, 81, true),
        (80, 81, 140, false),
        (80, 139, 140, false),
    ];
    for (written, looked, told, goes_on) in table {
        let mut guest = fenced();
        guest.written = Some(written);
        let acts = guest.at(told, [Input::Control { control: Box::new(control()), looked: seconds(looked) }]);
        let expected: &[&str] = if goes_on { &["cont", "report resumed"] } else { &[] };
        assert_eq!(acts, expected, "record {written}, look {looked}, told {told}");
    }
}

#[test]
fn a_fenced_guest_whose_vm_runs_elsewhere_ends_without_another_write() {
    let mut guest = Guest::ready();
    guest.written = Some(10);
    guest.at(70, []);
    guest.written = Some(80);
    let newer = Control::new(4, Wanted::Running);
    assert_eq!(guest.reads(81, newer)[..2], ["report stopping superseded", "kill"]);
    let ended = Input::Ended { exit: "killed by signal 9".into(), last_words: String::new() };
    assert_eq!(guest.at(82, [ended]), ["end: a newer run took its place; killed by signal 9"]);
}

#[test]
fn a_newer_generation_ends_any_guest_at_once() {
    let newer = || Control::new(4, Wanted::Running);
    let mut guest = Guest::ready();
    assert_eq!(guest.reads(3, newer())[..2], ["report stopping superseded", "kill"]);
    let mut guest = Guest::waiting(&spec());
    assert_eq!(guest.reads(3, newer())[..2], ["report stopping superseded", "kill"]);
}

/// A wish to go on that waited must not outrun the look at `control.json`.
#[test]
fn one_that_was_suspended_is_fenced_too_and_resumes_only_after() {
    let mut guest = Guest::ready();
    assert_eq!(guest.reads(3, asks(&[json!("suspend")])), ["stop"]);
    let stopped = || Input::Answered(Command::Stop, Ok(()));
    assert_eq!(guest.at(4, [Input::Stands, stopped()]), ["answer 1: Ok(None)", "report paused it was asked to"]);
    guest.written = Some(4);
    assert_eq!(guest.at(64, []), ["stop", "report paused no record could be written for 60 s"]);
    let resume = asks(&[json!("suspend"), json!("resume")]);
    assert_eq!(guest.reads(65, resume.clone()), NOTHING, "a look, but no record");
    guest.written = Some(66);
    assert_eq!(guest.reads(67, resume), ["cont", "report paused it was asked to"]);
    assert_eq!(
        guest.at(68, [Input::Moves, Input::Answered(Command::Cont, Ok(()))]),
        ["answer 2: Ok(None)", "report resumed"]
    );
}

#[test]
fn a_guest_that_was_suspended_stays_so_when_storage_is_back() {
    let mut guest = Guest::ready();
    guest.reads(3, asks(&[json!("suspend")]));
    guest.at(4, [Input::Stands, Input::Answered(Command::Stop, Ok(()))]);
    guest.written = Some(4);
    guest.at(64, []);
    guest.written = Some(70);
    assert_eq!(guest.reads(71, asks(&[json!("suspend")])), ["report paused it was asked to"]);
}

#[test]
fn no_guest_begins_while_storage_is_silent() {
    let mut guest = Guest::waiting(&spec());
    guest.written = Some(0);
    assert_eq!(guest.at(60, []), NOTHING);
    assert_eq!(guest.at(61, [Input::Slot]), ["give slot back"]);
    guest.written = Some(62);
    assert_eq!(guest.reads(63, control()), ["take slot"]);
}

#[test]
fn a_guest_that_its_site_holds_is_left_alone_until_somebody_lets_it_go() {
    let mut spec = spec();
    spec.qemu.extra_args = vec!["-S".into()];
    let mut guest = Guest::waiting(&spec);
    assert_eq!(guest.at(0, []), ["report running"]);
    guest.written = Some(0);
    assert_eq!(guest.at(60, []), ["stop"], "it stands anyway: nothing is reported");
    guest.written = Some(61);
    assert_eq!(guest.reads(62, control()), NOTHING);
    assert_eq!(guest.reads(63, asks(&[json!("resume")])), ["cont"]);
    assert_eq!(
        guest.at(64, [Input::Moves, Input::Answered(Command::Cont, Ok(()))]),
        ["answer 1: Ok(None)", "report resumed"]
    );
    assert_eq!(guest.at(65, [Input::Address]), ["give slot back", "report ready"]);
}

#[test]
fn a_guest_that_qemu_halts_is_told_and_let_go_on_until_it_does() {
    let full = || Input::Trouble("its disk is full on storage".into());
    let mut guest = Guest::ready();
    assert_eq!(guest.at(10, [full(), Input::Stands]), ["report paused its disk is full on storage"]);
    assert_eq!(guest.at(19, []), NOTHING);
    assert_eq!(guest.at(20, []), ["cont"]);
    assert_eq!(guest.at(20, [Input::Moves, full(), Input::Stands]), NOTHING, "still full: said once");
    assert_eq!(guest.at(30, []), ["cont"]);
    assert_eq!(guest.at(30, [Input::Moves]), NOTHING);
    assert_eq!(guest.at(31, []), ["report resumed"]);
    assert_eq!(guest.at(50, []), NOTHING);
}

#[test]
fn who_resumes_a_halted_guest_need_not_wait() {
    let mut guest = Guest::ready();
    guest.at(10, [Input::Trouble("its disk is full on storage".into()), Input::Stands]);
    assert_eq!(guest.reads(11, asks(&[json!("resume")])), ["cont"]);
    assert_eq!(guest.at(11, [Input::Moves, Input::Answered(Command::Cont, Ok(()))]), ["answer 1: Ok(None)"]);
    assert_eq!(guest.at(12, []), ["report resumed"]);
}

#[test]
fn a_silent_qemu_is_told_and_at_last_killed() {
    let mut guest = Guest::ready();
    guest.unanswered = Some(10);
    assert_eq!(guest.at(19, []), NOTHING);
    assert_eq!(guest.at(20, []), ["report paused qemu has not answered for 10 s"]);
    guest.unanswered = None;
    assert_eq!(guest.at(25, []), ["report resumed"]);
    guest.unanswered = Some(30);
    guest.at(45, []);
    guest.at(69, []);
    assert_eq!(guest.at(90, []), ["kill"]);
    let ended = Input::Ended { exit: "killed by signal 9".into(), last_words: String::new() };
    assert_eq!(guest.at(91, [ended]), ["end: qemu ended with an error; qemu did not answer for 60 s and was killed"]);
}

/// qemu may wait for storage itself, is deaf while it writes memory, and stands still when the batch system stops the job.
#[test]
fn a_qemu_that_has_a_reason_to_be_silent_is_spared() {
    let mut guest = Guest::ready();
    (guest.unanswered, guest.written) = (Some(10), Some(10));
    for second in 11..200 {
        assert!(!guest.at(second, []).contains(&"kill".to_owned()), "storage is silent, {second}");
    }
    let mut guest = Guest::ready();
    assert_eq!(guest.reads(3, asks(&[json!({ "snapshot": { "name": "x" } })])), ["carry 1"]);
    guest.unanswered = Some(4);
    for second in 5..600 {
        assert!(!guest.at(second, []).contains(&"kill".to_owned()), "a snapshot is written, {second}");
    }
    let mut guest = Guest::ready();
    guest.unanswered = Some(3);
    guest.at(4, []);
    assert!(!guest.at(100, []).contains(&"kill".to_owned()), "the job stood still");
}

#[test]
fn a_guest_is_asked_to_go_and_made_to_go_after_its_grace() {
    let mut guest = Guest::ready();
    assert_eq!(guest.at(10, [Input::Stop]), ["report stopping asked", "powerbutton"]);
    assert_eq!(guest.at(11, [Input::Stop]), NOTHING);
    assert_eq!(guest.at(13, []), ["powerbutton"]);
    assert_eq!(guest.at(41, []), ["quit"]);
    assert_eq!(guest.at(47, []), ["kill"]);
    let ended = Input::Ended { exit: "killed by signal 9".into(), last_words: "noise".into() };
    assert_eq!(guest.at(47, [ended]), ["end: it was asked to stop; killed by signal 9"]);
}

#[test]
fn a_guest_that_hears_no_power_button_is_not_waited_for() {
    let mut guest = Guest::waiting(&spec());
    assert_eq!(guest.at(1, [Input::Stop]), ["report stopping asked", "quit"]);
    let mut guest = Guest::ready();
    guest.at(10, [Input::Stands]);
    assert_eq!(guest.at(11, [Input::Stop]), ["report stopping asked", "quit"]);
}

#[test]
fn a_deadline_counts_on_the_servers_clock_and_can_be_moved() {
    let until = |second| {
        let mut control = control();
        control.end_at(Timestamp::from_second(second).unwrap());
        control
    };
    let mut guest = Guest::ready();
    guest.reads(3, until(20));
    assert_eq!(guest.at(19, []), NOTHING);
    guest.reads(19, until(30));
    guest.reads(25, until(30));
    assert_eq!(guest.at(29, []), NOTHING);
    // It counts once nobody has changed it since.
    assert_eq!(guest.at(30, []), NOTHING);
    assert_eq!(guest.reads(31, until(30)), ["report stopping deadline", "powerbutton"]);
}

#[test]
fn wanted_stopped_stops_and_what_a_newer_controller_wants_does_not() {
    let mut guest = Guest::ready();
    let hibernated = || Control::new(3, Wanted::Other(json!("hibernated")));
    assert_eq!(guest.reads(3, hibernated()), [unheeded("wanted")]);
    assert_eq!(guest.reads(4, hibernated()), NOTHING);
    assert_eq!(guest.reads(5, Control::new(3, Wanted::Stopped)), ["report stopping asked", "powerbutton"]);
}

fn unheeded(parts: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("report warning control.json has parts that this starter of labwright {version} does not obey: {parts}")
}

#[test]
fn what_is_not_obeyed_is_told_whenever_it_is_something_else() {
    let has = |parts: &str| serde_json::from_str(&format!(r#"{{"generation":3,"wanted":"running",{parts}}}"#)).unwrap();
    let both = || has(r#""version":3,"sound":"off","clock":{"end":"2027-01-12T10:00:00Z","zone":"x"}"#);
    let machine = Machine::new(&spec(), both(), seconds(0));
    let mut guest = Guest { machine, written: None, unanswered: None };
    assert_eq!(guest.at(0, []), [unheeded("clock.zone, sound"), "take slot".to_owned()]);
    guest.at(1, [Input::Slot]);
    guest.at(2, [Input::Moves, Input::Address]);
    assert_eq!(guest.reads(3, both()), NOTHING);
    assert_eq!(guest.reads(4, has(r#""version":2,"sound":"off""#)), [unheeded("sound")]);
    assert_eq!(guest.reads(5, control()), NOTHING);
    assert_eq!(guest.reads(6, has(r#""version":2,"sound":"off""#)), [unheeded("sound")]);
}

#[test]
fn what_a_dead_qemu_means() {
    let ended = |last_words: &str| Input::Ended { exit: "exit 1".into(), last_words: last_words.into() };
    // (when, what was told before, its last words, what comes of it)
    let table: [(u64, Option<Input>, &str, &str); 6] = [
        (100, Some(Input::Shutdown("guest-shutdown".into())), "", "end: the guest powered itself off; exit 1"),
        (5, Some(Input::Shutdown("guest-shutdown".into())), "", "end: the guest powered itself off; exit 1"),
        (100, None, "no space", "end: qemu ended with an error; exit 1: no space"),
        (
            100,
            Some(Input::Shutdown("guest-panic".into())),
            "",
            "end: qemu ended with an error; exit 1: the guest's system has panicked",
        ),
        (
            100,
            Some(Input::Shutdown("host-signal".into())),
            "x",
            "end: qemu ended with an error; exit 1: somebody has ended qemu by a signal: x",
        ),
        (5, None, "", "report restarting exit 1"),
    ];
    for (second, before, last_words, expected) in table {
        let mut guest = Guest::ready();
        guest.at(3, before.into_iter().chain([Input::Stands, Input::Closed]));
        let acts = guest.at(second, [ended(last_words)]);
        assert!(acts.contains(&expected.to_owned()), "{expected}: {acts:?}");
    }
}

const OLD: &str = "restart with /srv/disks/al/disk-0.qcow2";

/// A guest that is ready, one that is told to be off, and one that then is.
fn off() -> (Control, Guest) {
    let (mut guest, off) = (Guest::ready(), Control::new(3, Wanted::Off));
    assert_eq!(guest.reads(3, off.clone()), ["powerbutton"]);
    assert_eq!(guest.reads(4, off.clone()), NOTHING);
    let ended = Input::Ended { exit: "exit 0".into(), last_words: String::new() };
    assert_eq!(guest.at(5, [Input::Shutdown("guest-shutdown".into()), ended]), ["report off exit 0", "give slot back"]);
    (off, guest)
}

fn with_new_disk() -> Control {
    let mut control = control();
    control.disks = Some(Part::Known(vec![RunDisk { path: "/new".into(), backing: Vec::new() }]));
    control
}

#[test]
fn a_guest_goes_off_and_comes_back_with_other_disks_while_its_run_goes_on() {
    let ended = || Input::Ended { exit: "exit 1".into(), last_words: String::new() };
    let (off, mut guest) = off();
    // Nothing is asked of a qemu that is not there.
    guest.unanswered = Some(4);
    assert_eq!(guest.reads(500, off), NOTHING);
    guest.unanswered = None;
    assert_eq!(guest.reads(501, with_new_disk()), ["restart with /new", "take slot"]);
    assert_eq!(guest.at(502, [Input::Slot]), ["cont", "report running"]);
    assert_eq!(guest.at(503, [Input::Moves, Input::Address]), ["give slot back", "report ready"]);
    assert_eq!(guest.reads(504, with_new_disk()), NOTHING);
    let acts = guest.at(505, [ended()]);
    assert_eq!(acts, ["report restarting exit 1", "give slot back", "restart with /new", "take slot"]);

    // Others without having been off: it is in between. And where there are none, it gets its own again.
    let mut guest = Guest::ready();
    assert_eq!(guest.reads(3, with_new_disk()), ["powerbutton"]);
    let acts = guest.at(4, [ended()]);
    assert_eq!(acts, ["report off exit 1", "give slot back", "restart with /new", "take slot"]);
    let mut guest = self::off().1;
    assert_eq!(guest.reads(6, control()), [OLD, "take slot"]);
}

#[test]
fn a_guest_that_is_off_ends_at_once_whatever_ends_its_run() {
    let mut late = with_new_disk();
    late.end_at(Timestamp::from_second(6).unwrap());
    let table = [
        (Control::new(3, Wanted::Stopped), "it was asked to stop"),
        (Control::new(4, Wanted::Stopped), "a newer run took its place"),
        (late, "its time was over"),
    ];
    for (control, expected) in table {
        let acts = off().1.reads(6, control);
        assert_eq!(acts[1], format!("end: {expected}; ?"), "{acts:?}");
        assert!(acts[0].starts_with("report stopping"), "{acts:?}");
    }
    assert_eq!(off().1.at(6, [Input::Stop]), ["report stopping asked", "end: it was asked to stop; ?"]);

    // On its way off, too, once it is.
    let mut guest = Guest::ready();
    guest.reads(3, Control::new(3, Wanted::Off));
    assert_eq!(guest.reads(4, Control::new(3, Wanted::Stopped)), ["report stopping asked"]);
    let ended = Input::Ended { exit: "exit 0".into(), last_words: String::new() };
    assert_eq!(guest.at(5, [ended]), ["end: it was asked to stop; exit 0"]);
}

/// The controller may take its host for lost, and start the vm elsewhere.
#[test]
fn a_guest_that_is_off_does_not_come_back_while_it_is_fenced() {
    let mut guest = off().1;
    guest.written = Some(10);
    assert_eq!(guest.at(70, []), NOTHING);
    assert_eq!(guest.reads(80, with_new_disk()), NOTHING);
    guest.written = Some(85);
    assert_eq!(guest.reads(86, with_new_disk()), ["restart with /new", "take slot"]);
}

#[test]
fn an_early_death_is_started_again_so_often_and_no_more() {
    let ended = || Input::Ended { exit: "exit 1".into(), last_words: String::new() };
    let mut guest = Guest::ready();
    for _ in 1..3 {
        assert_eq!(guest.at(3, [ended()]), ["report restarting exit 1", "give slot back", OLD, "take slot"]);
        assert_eq!(guest.at(3, [Input::Slot]), ["cont", "report running"]);
    }
    assert_eq!(guest.at(4, [ended()]), ["end: qemu ended with an error; exit 1"]);
}

#[test]
fn requests_are_answered_once_and_in_order() {
    let two = asks(&[json!("screen"), json!({ "type": { "keys": "x" } }), json!("screen")]);
    let mut guest = Guest::ready();
    assert_eq!(guest.reads(3, two.clone()), ["carry 1"]);
    assert_eq!(guest.reads(4, two.clone()), NOTHING);
    let unknown = format!(
        "answer 2: Err(\"it is not known to this starter, which is of labwright {}\")",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(
        guest.at(5, [Input::Done(1, Ok(Some(vec![1])))]),
        ["answer 1: Ok(Some([1]))".to_owned(), unknown, "carry 3".to_owned()]
    );
    let ended = Input::Ended { exit: "exit 1".into(), last_words: String::new() };
    let acts = guest.at(100, [ended]);
    assert_eq!(acts[0], "answer 3: Err(\"qemu ended while it worked on it\")");
    assert_eq!(guest.at(101, [Input::Done(3, Ok(None))]), NOTHING, "nobody waits for it any more");
}

#[test]
fn a_snapshot_halts_the_guest_for_a_while_and_a_failed_revert_for_good() {
    let mut guest = Guest::ready();
    guest.reads(3, asks(&[json!({ "revert": { "name": "x" } })]));
    assert_eq!(guest.at(4, [Input::Stands]), NOTHING);
    assert_eq!(guest.at(5, [Input::Moves, Input::Done(1, Ok(None))]), ["answer 1: Ok(None)"]);
    guest.reads(6, asks(&[json!("screen"), json!({ "revert": { "name": "x" } })]));
    assert_eq!(
        guest.at(7, [Input::Stands, Input::Done(2, Err("no".into()))]),
        ["report paused a revert failed half-way; reset the vm or revert again", "answer 2: Err(\"no\")"]
    );
    assert_eq!(guest.at(60, []), NOTHING, "it is not let go on by itself");
}

#[test]
fn a_control_file_that_nobody_can_read_is_told_once() {
    let unreadable = || Input::Unreadable("it is no JSON".into());
    let mut guest = Guest::ready();
    assert_eq!(guest.at(3, [unreadable()]), ["report warning it is no JSON"]);
    assert_eq!(guest.at(4, [unreadable()]), NOTHING);
    guest.reads(5, control());
    assert_eq!(guest.at(6, [unreadable()]), ["report warning it is no JSON"]);
}

/// Its monitor is closed, and the process stays.
#[test]
fn a_qemu_that_does_not_end_by_itself_is_ended() {
    let mut guest = Guest::ready();
    assert_eq!(guest.at(10, [Input::Closed]), NOTHING);
    assert_eq!(guest.at(14, []), NOTHING);
    assert_eq!(guest.at(15, []), ["kill"]);
}
