//! What may pass is tried again a few times, and told; what may have happened is never done twice.

use labwright::apply::Summary;

use crate::lab::{Applied, Lab};
use crate::plans::{PAIR, running_pair};
use crate::world::Hiccups;

fn lab_with(hiccups: Hiccups) -> Lab {
    let lab = Lab::new(PAIR);
    lab.world.with(|inner| inner.faults.hiccups = hiccups);
    lab
}

fn applied(lab: &Lab) -> Summary {
    match lab.apply() {
        Applied::Done(summary) => summary,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dhcp_server_that_restarts_is_waited_for() {
    let lab = lab_with(Hiccups { dhcp: 2, ..Hiccups::default() });
    assert_eq!(applied(&lab).failed, []);
    let told = lab.told();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("2 reservations in 500ms: cannot tell dnsmasq"), "{told:?}");
    assert!(told[1].starts_with("2 reservations in 2s"), "{told:?}");
}

#[test]
fn only_the_disks_that_failed_are_made_again() {
    let lab = lab_with(Hiccups { storage: 1, ..Hiccups::default() });
    assert_eq!(applied(&lab).failed, []);
    assert!(matches!(&lab.told()[..], [one] if one.starts_with("1 disks in 500ms")), "{:?}", lab.told());
}

#[test]
fn a_queue_that_says_later_is_asked_later() {
    let lab = lab_with(Hiccups { queue: 3, ..Hiccups::default() });
    assert_eq!(applied(&lab).failed, []);
    assert_eq!(lab.world.with(|inner| (inner.submits, inner.tasks.len())), (4, 2));
    assert_eq!(lab.told().len(), 3);
}

#[test]
fn trouble_that_stays_is_given_up() {
    let lab = lab_with(Hiccups { dhcp: 100, ..Hiccups::default() });
    let summary = applied(&lab);
    assert_eq!((summary.failed.len(), lab.told().len()), (2, 3));
    lab.world.with(|inner| assert_eq!(inner.faults.hiccups.dhcp, 96, "four tries"));
    lab.world.with(|inner| inner.faults.hiccups = Hiccups::default());
    lab.must_apply();
    lab.world.with(crate::world::Inner::start_all);
    assert!(lab.plan().is_empty());
}

#[test]
fn a_submit_without_an_answer_is_never_sent_again() {
    let lab = Lab::new(PAIR);
    lab.world.with(|inner| inner.faults.refuse_submit = true);
    let summary = applied(&lab);
    assert_eq!(summary.failed.len(), 2);
    assert_eq!(lab.world.with(|inner| inner.submits), 1);
    assert_eq!(lab.told(), [""; 0]);
}

#[test]
fn a_full_disk_is_not_tried_again() {
    let lab = Lab::new(PAIR);
    lab.world.with(|inner| inner.faults.storage_full = true);
    assert!(!applied(&lab).failed.is_empty());
    assert_eq!(lab.told(), [""; 0]);
}

/// A stop whose end cannot be seen says why, and the others are told of as ever.
#[test]
fn a_report_that_cannot_be_read_is_named() {
    let lab = running_pair();
    lab.edit(&PAIR.replace("state: running", "state: stopped"));
    let plan = lab.plan();
    let run = lab.world.with(|inner| {
        let run = inner.run_of("bob-gsr");
        inner.runs.get_mut(&run).unwrap().report = Some(b"{\"torn\n".to_vec());
        run
    });
    let summary = lab.carry_out(&plan).unwrap();
    let [failure] = &summary.failed[..] else { panic!("{summary:?}") };
    let words = format!("run {run} has not ended ");
    let why = "s after it was asked to, as far as can be seen (report.jsonl ";
    assert!(failure.detail.starts_with(&words) && failure.detail.contains(why), "{}", failure.detail);
    assert_eq!(summary.done.len(), 1, "{summary:?}");
}
