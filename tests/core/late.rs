//! Whose time is another one's than everybody's: who starts late, and who needs more. Who that is stands in no plan.

use std::os::unix::fs::PermissionsExt as _;

use labwright::model::address::AddressPattern;
use labwright::model::claim::ClaimBody;
use labwright::run::Control;
use labwright::state::Entry;

use crate::lab::{Applied, Lab};
use crate::plans::PAIR;
use crate::sessions::{at, extend, put, reasons, set_time, told, until};
use crate::world::Inner;

/// A class that lasts two hours, and starts half an hour before the world's time.
fn class(keys: &str) -> String {
    let family = PAIR.replace(", state: running", "");
    format!("{family}sessions: {{ final: {{ vms: [exam], start: \"2027-01-12T07:30[UTC]\", duration: 2h{keys} }} }}\n")
}

fn start(lab: &Lab, vm: &str) {
    let done = lab.power(&lab.desired(), &vm.parse().unwrap(), labwright::plan::Wish::Start);
    assert!(matches!(&done, Applied::Done(done) if done.failed.is_empty()), "{done:?}");
    lab.world.with(Inner::start_all);
}

#[test]
fn who_starts_late_has_the_whole_time_from_then_on() {
    let lab = Lab::new(&class(", late: full_time, latest_end: \"2027-01-12T10:00[UTC]\""));
    lab.must_apply();
    set_time(&lab, "07:50:00");
    start(&lab, "alice-gsr");
    assert_eq!(until(&lab, "alice-gsr"), Some(at("10:00:00")), "until it is seen, the last moment counts");
    assert!(matches!(lab.keep(), Applied::Done(_)));
    assert_eq!(until(&lab, "alice-gsr"), Some(at("09:50:00")));
    assert!(lab.upkeep().is_empty(), "{:?}", reasons(&lab.upkeep()));
    // Nobody works after the latest end, however late they came.
    set_time(&lab, "08:20:00");
    start(&lab, "bob-gsr");
    assert!(matches!(lab.keep(), Applied::Done(_)));
    assert_eq!(until(&lab, "bob-gsr"), Some(at("10:00:00")));
    // A second start is none, and what is given counts from their own end.
    put(&lab, extend(Some("alice"), 5));
    set_time(&lab, "08:30:00");
    assert!(matches!(lab.keep(), Applied::Done(_)));
    assert_eq!(until(&lab, "alice-gsr"), Some(at("09:55:00")));
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());
}

#[test]
fn who_starts_late_works_until_the_end_if_nothing_else_is_said() {
    let lab = Lab::new(&class(""));
    lab.must_apply();
    set_time(&lab, "08:20:00");
    start(&lab, "bob-gsr");
    assert!(lab.upkeep().is_empty());
    assert_eq!(until(&lab, "bob-gsr"), Some(at("09:30:00")));
}

/// The lab with a file beside it that its owner alone can read.
fn needing(lab: &Lab, text: &str) -> std::path::PathBuf {
    let file = lab.folder.path().with_extension("needs.csv");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    lab.edit(&class(&format!(", accommodations: \"{}\"", file.display())));
    file
}

fn accommodated(lab: &Lab) -> Vec<String> {
    let claims = lab.recorded(&lab.desired()).claims.into_iter();
    let people = claims.filter_map(|claim| match claim.body {
        ClaimBody::Accommodation(of) => Some(of.people),
        _ => None,
    });
    people.flatten().map(|(user, _)| user.to_string()).collect()
}

#[test]
fn what_people_need_counts_from_their_own_end_and_stands_in_no_plan() {
    let mut lab = Lab::new(PAIR);
    let file = needing(&lab, "user,factor,minutes,start\nalice,1.25,,\nbob,,10,08:00\n");
    let plan = lab.plan();
    let recorded = reasons(&plan).into_iter().find(|line| line.contains("session/final")).unwrap();
    assert_eq!(recorded, "create session/final: new in the manifest; its accommodations change: 0 before, 2 now");
    let change = plan.changes.iter().find(|change| change.address.name == "final").unwrap();
    let json = serde_json::to_string(change.actions.last().unwrap()).unwrap();
    assert!(json.contains("\"people\":2") && !json.contains("alice") && !json.contains("1250"), "{json}");
    lab.must_apply();
    assert_eq!(accommodated(&lab), ["alice", "bob"]);
    start(&lab, "alice-gsr");
    start(&lab, "bob-gsr");
    assert_eq!((until(&lab, "alice-gsr"), until(&lab, "bob-gsr")), (Some(at("10:00:00")), Some(at("10:10:00"))));
    assert!(lab.plan().is_empty(), "{}", lab.plan_text());

    // One line that says something else.
    std::fs::write(&file, "user,factor,minutes,start\nalice,1.5,,\nbob,,10,08:00\n").unwrap();
    lab.must_apply();
    assert_eq!(until(&lab, "alice-gsr"), Some(at("10:30:00")));

    // Half a file, and none at all.
    std::fs::write(&file, "user,factor,minutes,start\nalice,1.5,,\n").unwrap();
    let text = lab.plan_text();
    assert!(text.contains("1 of 2 people would lose their accommodations"), "{text}");
    assert!(!text.contains("bob"), "{text}");
    std::fs::remove_file(&file).unwrap();
    let text = lab.plan_text();
    assert!(
        text.contains("its accommodations are not read") && text.contains("the 2 that are recorded stay"),
        "{text}"
    );
    lab.must_apply();
    assert_eq!(until(&lab, "bob-gsr"), Some(at("10:10:00")));
    assert_eq!(accommodated(&lab), ["alice", "bob"]);

    // The key that is taken out is a file without anybody.
    lab.edit(&class(""));
    assert!(lab.plan_text().contains("2 of 2 people would lose"), "{}", lab.plan_text());
    lab.allow.push("session/final".parse::<AddressPattern>().unwrap());
    lab.must_apply();
    lab.must_apply();
    assert_eq!(until(&lab, "bob-gsr"), Some(at("09:30:00")));
    assert_eq!(accommodated(&lab), [""; 0]);
}

#[test]
fn who_has_it_is_in_no_listing() {
    let lab = Lab::new(PAIR);
    needing(&lab, "user,factor\nalice,1.25\n");
    lab.must_apply();
    let claim = lab.recorded(&lab.desired()).claims.remove(0);
    let shown = ClaimBody::shown(claim.body.kind(), &claim.body.text()).to_string();
    assert!(shown.contains("\"people\":1") && !shown.contains("alice"), "{shown}");
    // Of a newer labwright's, whose form is not known, nothing is shown.
    let newer = claim.body.text().replace("\"version\":1", "\"version\":99");
    assert!(!ClaimBody::shown(claim.body.kind(), &newer).to_string().contains("alice"));
    let kept = serde_json::to_string(&lab.desired()).unwrap();
    assert!(!kept.contains("1250"), "{kept}");
    let entry =
        Entry::Accommodate { session: "final".parse().unwrap(), people: 1, by: "root".into(), of: Default::default() };
    let read: Entry = serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
    assert_eq!(read, entry);
}

/// An apply that was decided before an extension does not undo it, whichever writes last.
#[test]
fn an_older_decision_does_not_undo_what_was_told_since() {
    let lab = Lab::new(&class(""));
    lab.must_apply();
    start(&lab, "bob-gsr");
    lab.edit(&class("").replace("2h", "3h"));
    let plan = lab.plan();
    let (before, later) = (told(&lab, "bob-gsr"), at("11:00:00"));
    lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        let control: &mut Control = &mut inner.runs.get_mut(&run).unwrap().control;
        control.end_at(later);
    });
    let summary = lab.carry_out(&plan).unwrap();
    assert!(summary.failed.is_empty(), "{summary:?}");
    assert_ne!(before.over_at(), Some(later));
    assert_eq!(until(&lab, "bob-gsr"), Some(later));
    // The next one sees both.
    assert_eq!(lab.plan().changes.len(), 1, "{:?}", reasons(&lab.plan()));
}
