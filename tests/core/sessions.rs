//! The times of sessions: what runs are told when they start, and whenever somebody's end is another one.

use std::path::Path;

use labwright::model::claim::{ClaimBody, ClaimedPower, TimeChange, TimeClaim};
use labwright::model::id::UserName;
use labwright::model::lab::{AddedTime, Session};
use labwright::model::site::Site;
use labwright::plan::{Ground, Plan, Wish};
use labwright::run::{Clock, StopReason};
use labwright::state::Change;

use crate::lab::{Applied, Lab};
use crate::plans::{OPEN, PAIR, running};
use crate::world::Inner;

pub(crate) fn at(text: &str) -> jiff::Timestamp {
    format!("2027-01-12T{text}Z").parse().unwrap()
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn time(name: Option<&str>, change: TimeChange) -> TimeClaim {
    TimeClaim::new("final".parse().unwrap(), name.map(user), change, None)
}

pub(crate) fn extend(name: Option<&str>, minutes: i64) -> TimeClaim {
    time(name, TimeChange::Extend { seconds: minutes * 60 })
}

fn pause(name: Option<&str>, from: &str, until: Option<&str>) -> TimeClaim {
    time(name, TimeChange::Pause { from: at(from), until: until.map(at) })
}

/// Somebody's act, as its command writes it down.
pub(crate) fn put(lab: &Lab, time: TimeClaim) {
    let change = Change::PutClaim { name: "final".into(), body: ClaimBody::Time(time), by: "ana".into() };
    lab.store().record(&lab.desired().lab, &[change], at("08:00:00")).unwrap();
}

/// What the run of a vm was told.
pub(crate) fn told(lab: &Lab, vm: &str) -> Clock {
    lab.world.with(|inner| inner.runs[&inner.run_of(vm)].control.told_time())
}

pub(crate) fn until(lab: &Lab, vm: &str) -> Option<jiff::Timestamp> {
    told(lab, vm).over_at()
}

pub(crate) fn reasons(plan: &Plan) -> Vec<String> {
    plan.changes
        .iter()
        .map(|change| format!("{} {}: {}", change.verb.as_str(), change.address, change.reason()))
        .collect()
}

pub(crate) fn set_time(lab: &Lab, to: &str) {
    lab.world.with(|inner| inner.now = at(to));
}

#[test]
fn a_run_knows_its_end_from_its_start_and_hears_of_every_other_one() {
    let open = format!("{PAIR}{OPEN}");
    let lab = running(&open);
    assert_eq!((until(&lab, "alice-gsr"), until(&lab, "bob-gsr")), (Some(at("10:00:00")), Some(at("10:00:00"))));
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());
    put(&lab, extend(Some("bob"), 15));
    let plan = lab.plan();
    assert_eq!(plan.changes.len(), 1, "{:?}", reasons(&plan));
    assert!(reasons(&plan)[0].starts_with("update vm/bob-gsr: its time ends "), "{:?}", reasons(&plan));
    lab.must_apply();
    assert_eq!((until(&lab, "alice-gsr"), until(&lab, "bob-gsr")), (Some(at("10:00:00")), Some(at("10:15:00"))));
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());
    // The end that everybody's counts from moves.
    lab.edit(&open.replace("T10:00", "T10:30"));
    lab.must_apply();
    assert_eq!((until(&lab, "alice-gsr"), until(&lab, "bob-gsr")), (Some(at("10:30:00")), Some(at("10:45:00"))));
}

/// What no command could reach, the loop does: it needs no apply of the manifest.
#[test]
fn a_guest_that_could_not_be_told_is_told_by_the_loop() {
    let lab = running(&format!("{PAIR}{OPEN}"));
    put(&lab, extend(None, 5));
    assert!(matches!(lab.keep(), Applied::Done(_)));
    assert_eq!(until(&lab, "alice-gsr"), Some(at("10:05:00")));
    assert!(lab.upkeep().is_empty());
}

#[test]
fn no_end_comes_while_the_time_stands_still_and_the_pause_moves_it() {
    let lab = running(&format!("{PAIR}{OPEN}"));
    put(&lab, pause(Some("bob"), "08:00:00", None));
    lab.must_apply();
    let clock = told(&lab, "bob-gsr");
    let pauses = clock.pauses.as_ref().and_then(|pauses| pauses.known()).unwrap();
    assert_eq!((clock.over_at(), pauses.len(), pauses[0].since), (None, 1, at("08:00:00")));
    assert_eq!(until(&lab, "alice-gsr"), Some(at("10:00:00")));
    lab.alter_state("UPDATE claims SET ended_at = at WHERE kind = 'time'");
    put(&lab, pause(Some("bob"), "08:00:00", Some("08:10:00")));
    lab.must_apply();
    assert_eq!(until(&lab, "bob-gsr"), Some(at("10:10:00")));
}

/// The starter stops the guest by itself; whoever started it by command is not answered with another run.
#[test]
fn a_guest_whose_time_was_over_stays_off() {
    let lab = Lab::new(&format!("{}{OPEN}", PAIR.replace(", state: running", "")));
    lab.must_apply();
    let done = lab.power(&lab.desired(), &"bob-gsr".parse().unwrap(), Wish::Start);
    assert!(matches!(&done, Applied::Done(done) if done.failed.is_empty()), "{done:?}");
    lab.world.with(Inner::start_all);
    assert_eq!(until(&lab, "bob-gsr"), Some(at("10:00:00")));
    set_time(&lab, "10:00:30");
    // On its way down it is told nothing else: it would run on.
    assert!(lab.upkeep().is_empty(), "{:?}", reasons(&lab.upkeep()));
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.end_run(&run, StopReason::Deadline);
    });
    assert!(matches!(lab.keep(), Applied::Done(_)));
    assert_eq!(lab.world.with(|inner| inner.executing().count()), 0);
    let claims = lab.recorded(&lab.desired()).claims;
    assert!(
        !claims
            .iter()
            .any(|claim| matches!(&claim.body, ClaimBody::Power(power) if power.wanted == ClaimedPower::Running))
    );
    assert!(lab.upkeep().is_empty());
}

/// Its end was moved to a moment that is gone when a plan first sees it: it has no other end then than that one.
#[test]
fn an_end_that_was_missed_is_told_late_and_not_forgotten() {
    let lab = running(&format!("{PAIR}{OPEN}"));
    put(&lab, extend(Some("bob"), -60));
    set_time(&lab, "09:10:00");
    lab.must_apply();
    assert_eq!((until(&lab, "alice-gsr"), until(&lab, "bob-gsr")), (Some(at("10:00:00")), Some(at("09:00:00"))));
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());
}

#[test]
fn a_session_that_leaves_the_manifest_takes_its_end_along() {
    let later = OPEN.replace("T07:00", "T12:00").replace("T10:00", "T13:00");
    let lab = running(&format!("{PAIR}{later}"));
    assert_eq!(until(&lab, "bob-gsr"), Some(at("13:00:00")), "the next one ends it, too");
    lab.edit(PAIR);
    lab.must_apply();
    assert_eq!(told(&lab, "bob-gsr"), Clock::default());
}

/// Everything that was done to one session's times, as it counts for bob.
fn end(claims: &[TimeClaim]) -> Option<jiff::Timestamp> {
    let mut added = AddedTime::default();
    claims.iter().for_each(|time| added.add(time));
    let lab = Lab::new(&format!("{PAIR}{OPEN}"));
    let session = Session { added, ..lab.desired().sessions["final"].clone() };
    session.end_of(&user("bob"))
}

#[test]
fn pauses_count_once_and_only_within_the_time() {
    let to = |text: &str| Some(at(text));
    assert_eq!(
        end(&[pause(None, "08:00:00", Some("08:10:00")), pause(Some("bob"), "08:05:00", Some("08:15:00"))]),
        to("10:15:00")
    );
    assert_eq!(end(&[pause(Some("alice"), "08:00:00", Some("08:10:00"))]), to("10:00:00"));
    assert_eq!(end(&[pause(None, "06:50:00", Some("07:10:00"))]), to("10:10:00"), "before the start nobody works");
    assert_eq!(end(&[pause(None, "10:00:00", Some("10:30:00"))]), to("10:00:00"), "after the end neither");
    assert_eq!(end(&[pause(None, "09:50:00", Some("10:20:00"))]), to("10:30:00"));
    assert_eq!(end(&[pause(None, "10:05:00", Some("10:10:00")), extend(Some("bob"), 10)]), to("10:15:00"));
    assert_eq!(end(&[pause(None, "08:00:00", None)]), None);
    assert_eq!(end(&[pause(None, "11:00:00", None)]), to("10:00:00"));
    assert_eq!(end(&[extend(None, 20), extend(Some("bob"), -5), extend(Some("alice"), 30)]), to("10:15:00"));
}

/// An exam of the pair's, half an hour after the world's time, whose vms say nothing of names.
fn exam() -> String {
    let session = "sessions: { final: { kind: exam, vms: [exam], boot_before: 20m, start: \"2027-01-12T09:00[UTC]\", \
                   end: \"2027-01-12T11:00[UTC]\" } }\n";
    format!("{}{session}", PAIR.replace(", name: \"{user}-gsr\", state: running", ""))
}

fn executing(lab: &Lab) -> Vec<String> {
    let mut vms: Vec<String> =
        lab.world.with(|inner| inner.executing().map(|(run, _)| inner.runs[run].spec.vm.to_string()).collect());
    vms.sort();
    vms
}

/// One round of the loop, and what it submits comes up.
fn round(lab: &Lab) {
    assert!(matches!(lab.keep(), Applied::Done(_)));
    lab.world.with(Inner::start_all);
}

fn end_by_time(lab: &Lab, vm: &str) {
    lab.world.with(|inner| {
        let run = inner.run_of(vm);
        inner.end_run(&run, StopReason::Deadline);
    });
}

#[test]
fn an_exams_guests_boot_ahead_and_are_opened_again_by_more_time() {
    let lab = Lab::new(&exam());
    set_time(&lab, "08:30:00");
    lab.must_apply();
    round(&lab);
    assert_eq!(executing(&lab), [""; 0], "they wait for their time");
    set_time(&lab, "08:41:00");
    round(&lab);
    assert_eq!(executing(&lab), ["alice-final", "bob-final"], "they have the exam's name");
    let clock = serde_json::to_value(told(&lab, "bob-final")).unwrap();
    assert_eq!(
        clock,
        serde_json::json!({ "start": "2027-01-12T09:00:00Z", "end": "2027-01-12T11:00:00Z", "grace_seconds": 120,
            "offline_grace_seconds": 1800, "warn_before_seconds": [600, 120] })
    );
    set_time(&lab, "11:02:30");
    end_by_time(&lab, "alice-final");
    end_by_time(&lab, "bob-final");
    round(&lab);
    assert_eq!(executing(&lab), [""; 0], "their time is over");
    lab.must_apply();
    lab.world.with(Inner::start_all);
    assert_eq!(executing(&lab), [""; 0], "an apply starts nobody either");
    put(&lab, extend(Some("bob"), 30));
    round(&lab);
    assert_eq!(executing(&lab), ["bob-final"], "he got more");
    assert_eq!(until(&lab, "bob-final"), Some(at("11:30:00")));
}

#[test]
fn whoever_stops_an_exams_guest_by_name_is_not_answered_with_another_run() {
    let lab = Lab::new(&exam());
    set_time(&lab, "09:30:00");
    lab.must_apply();
    lab.world.with(Inner::start_all);
    assert_eq!(executing(&lab).len(), 2);
    let done = lab.power(&lab.desired(), &"bob-final".parse().unwrap(), Wish::Stop);
    assert!(matches!(&done, Applied::Done(done) if done.failed.is_empty()), "{done:?}");
    round(&lab);
    assert_eq!(executing(&lab), ["alice-final"]);
}

#[test]
fn an_exam_that_was_held_is_not_held_again() {
    let lab = Lab::new(&exam());
    set_time(&lab, "08:30:00");
    lab.must_apply();
    set_time(&lab, "12:00:00");
    let held = exam();
    lab.edit(&held.replace("2027-01-12T09", "2028-01-12T09").replace("2027-01-12T11", "2028-01-12T11"));
    let refusals = lab.plan().refusals;
    assert_eq!(refusals.iter().map(|refusal| refusal.address.to_string()).collect::<Vec<_>>(), ["session/final"]);
    lab.edit(&held.replace("[alice, bob]", "[alice, bob, carol]"));
    assert!(lab.plan().refusals.is_empty(), "who registers late is taken in: {}", lab.plan_text());
    // The next one has vms, and with that disks, of its own; those of the last one stay.
    let family = "  exam: { derive: gsr, for_each: students }\n";
    let next = held.replace(family, &format!("{family}  again: {{ derive: gsr, for_each: students }}\n"));
    assert_ne!(next, held);
    let session =
        ", resit: { kind: exam, vms: [again], start: \"2027-02-12T09:00[UTC]\", end: \"2027-02-12T11:00[UTC]\" } }\n";
    lab.edit(&format!("{}{session}", next.trim_end().strip_suffix('}').unwrap()));
    let text = lab.plan_text();
    assert!(text.contains("2 sit an exam again, with new disks: alice, bob"), "{text}");
    lab.must_apply();
    let recorded = lab.recorded(&lab.desired());
    let disk = |vm: &str| recorded.vms[vm].disks[0].path.clone();
    assert_ne!(disk("bob-final"), disk("bob-resit"));
}

/// A mock and a final from one template, and the year after with one who sits it again: nobody meets a byte of before.
#[test]
fn the_same_year_again() {
    let template = PAIR.split("vms:\n").next().unwrap();
    let year = |members: &str, exams: &[(&str, &str)]| {
        let families: String =
            exams.iter().map(|(name, _)| format!("  f-{name}: {{ derive: gsr, for_each: students }}\n")).collect();
        let sessions: String = exams
            .iter()
            .map(|(name, day)| {
                format!("  {name}: {{ kind: exam, vms: [f-{name}], start: \"{day}T09:00[UTC]\", duration: 2h }}\n")
            })
            .collect();
        format!("{}vms:\n{families}sessions:\n{sessions}", template.replace("alice, bob", members))
    };
    let lab = Lab::new(&year("alice, bob", &[("mock", "2027-01-12"), ("final", "2027-02-12")]));
    insta::assert_snapshot!("a_mock_and_a_final", lab.plan_text());
    lab.must_apply();
    let recorded = lab.recorded(&lab.desired());
    let disks = |vm: &str| recorded.vms[vm].disks[0].path.clone();
    assert_ne!(disks("alice-mock"), disks("alice-final"));
    lab.world.with(|inner| inner.now = "2028-01-10T08:00:00Z".parse().unwrap());
    lab.edit(&year("bob, carol, dan, erin", &[("mock28", "2028-01-12"), ("final28", "2028-02-12")]));
    // Half of the roster leaves, which is meant.
    let text = lab.plan_text();
    insta::assert_snapshot!("the_year_after", text);
}

/// Seven of the hosts are too few, and the plan says so; on all of them everybody has a guest before the start.
#[test]
fn the_papers_exam_has_room_on_its_fourteen_hosts() {
    let exam = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/exam");
    let read = |name: &str| std::fs::read_to_string(exam.join(name)).unwrap();
    let mut lab = Lab::new(PAIR);
    std::fs::write(lab.folder.path().join("students.csv"), read("students.csv")).unwrap();
    lab.edit(&read("lab.yaml"));
    set_time(&lab, "06:41:00");
    let folder = lab.folder.path().canonicalize().unwrap();
    let hosts = |number: u32| Site::embedded(&folder, u64::from(number) * 24 * 1024, number * 24);
    lab.site = hosts(7);
    let has_no_room = |plan: &Plan| plan.refusals.iter().any(|refusal| matches!(refusal.why, Ground::NoRoom { .. }));
    assert!(has_no_room(&lab.plan()), "{}", lab.plan_text());
    lab.site = hosts(14);
    assert!(!has_no_room(&lab.plan()), "{}", lab.plan_text());
    lab.must_apply();
    lab.world.with(Inner::start_all);
    assert_eq!(executing(&lab).len(), 300);
    assert_eq!(until(&lab, "s300-final"), Some(at("10:00:00")));
}
