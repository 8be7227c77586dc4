//! Applies ended by SIGKILL at random moments, against the real queue. `LABWRIGHT_KILLS_SEED` replays the same edits, but
//! never the same moments: those belong to the kernel.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dice::{Dice, number_from};
use crate::site::{BINARY, Site};

/// What CI does when nothing else is asked for.
const KILLS_IN_CI: u64 = 30;
const STUDENTS: [&str; 12] =
    ["ana", "dan", "eva", "ion", "mara", "radu", "sara", "vlad", "sanda", "ilie", "oana", "petre"];

#[expect(clippy::print_stderr, reason = "a campaign says what it did")]
pub(crate) fn kills(site: &mut Site) {
    let kills = number_from("LABWRIGHT_KILLS", KILLS_IN_CI);
    let seed = number_from("LABWRIGHT_KILLS_SEED", 1);
    let mut dice = Dice(seed);
    let mut whole = Duration::from_secs(1);
    let (mut killed, mut rounds) = (0, 0);
    while killed < kills {
        rounds += 1;
        assert!(rounds <= 4 * kills + 20, "only {killed} of {rounds} applies could be killed before they ended");
        for _ in 0..=dice.below(3) {
            let student = STUDENTS[dice.below(STUDENTS.len() as u64) as usize];
            if !site.members.remove(student) || site.members.len() < 3 {
                site.members.insert(student.into());
            }
        }
        site.write_lab();
        let moment = whole.mul_f64(dice.below(1000) as f64 / 900.0);
        let mut apply = site.apply_command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let Some(labwright) = started(&mut apply) else { continue };
        std::thread::sleep(moment);
        // One that has ended by now is no longer there to be killed.
        kill(labwright, Signal::SIGKILL).unwrap_or_default();
        // 128 + SIGKILL, as the shells above it pass it on.
        if apply.wait().unwrap().code() != Some(137) {
            continue;
        }
        killed += 1;
        no_disk_has_two_qemus(site);
        // Some are killed again before a whole one comes.
        if dice.below(3) == 0 {
            continue;
        }
        let began = Instant::now();
        site.apply();
        whole = whole.mul_f64(0.5) + began.elapsed().mul_f64(0.5);
        site.is_at_rest();
    }
    site.apply();
    site.is_at_rest();
    eprintln!("  {killed} kills in {rounds} applies, seed {seed}");
}

/// The program itself, below the scripts that lead into the master's namespaces; none where it has ended already.
pub(crate) fn started(apply: &mut Child) -> Option<Pid> {
    while apply.try_wait().unwrap().is_none() {
        let mut below = vec![apply.id()];
        while let Some(pid) = below.pop() {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if program == Path::new(BINARY) {
                return Some(Pid::from_raw(pid.cast_signed()));
            }
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            below.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

fn no_disk_has_two_qemus(site: &Site) {
    let mut of_vm: BTreeMap<String, u32> = BTreeMap::new();
    for qemu in site.qemus() {
        *of_vm.entry(qemu.vm).or_default() += 1;
    }
    let doubled: Vec<_> = of_vm.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
}
