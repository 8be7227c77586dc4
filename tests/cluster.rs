//! A whole site on a cluster: Grid Engine with three hosts, dhcpd, shared storage and real guests (`labs/cluster`). One lab
//! lives through everything that befalls a faculty's cluster, and is looked at from outside: hosts, guests, queue, dhcpd and
//! SQLite are asked, never labwright alone. Needs root and the packages that `tests/run` installs.
//!
//! `tests/run campaign cluster-kills 200` kills more applies.

#[path = "cluster/accidents.rs"]
mod accidents;
#[path = "system/console.rs"]
mod console;
#[path = "cluster/dice.rs"]
mod dice;
#[path = "cluster/exam.rs"]
mod exam;
#[path = "cluster/kills.rs"]
mod kills;
#[path = "cluster/life.rs"]
mod life;
#[path = "cluster/site.rs"]
mod site;

use site::Site;

/// One thing that must hold: its name, and what tries it.
type Scenario = (&'static str, fn(&mut Site));

#[test]
#[expect(clippy::print_stderr, reason = "which of them a failure belongs to")]
fn a_lab_lives_on_a_cluster() {
    let mut site = Site::up();
    let scenarios: [Scenario; 13] = [
        ("a lab comes up on three hosts, as its mapping table says", life::comes_up),
        ("one student leaves, and only that task dies", life::one_leaves),
        ("a check before an exam is green on three hosts at once", exam::all_hosts_green),
        ("a closed host and one without qemu are red, the other is green", exam::bad_hosts_are_red),
        ("a check that is interrupted leaves nothing on any host", exam::interrupted),
        ("a job deleted behind our back is started again on its disk", life::deleted_behind_our_back),
        ("a disabled queue keeps a newcomer waiting", life::disabled_queue),
        ("an outage of shared storage ends no guest", accidents::storage_outage),
        ("a host that is cut off keeps its vms, and has them when it is back", accidents::cut_off_and_back),
        ("a host given up while it is cut off never runs a vm a second time", accidents::cut_off_and_forgotten),
        ("the vms of a dead host come up elsewhere with disk and address", accidents::host_dies),
        ("a master that dies in the middle of an apply doubles no job", accidents::master_dies_in_an_apply),
        ("an apply killed at any moment doubles and loses nothing", kills::kills),
    ];
    for (name, scenario) in scenarios {
        let began = std::time::Instant::now();
        eprintln!("{name}");
        scenario(&mut site);
        eprintln!("  {:.0} s", began.elapsed().as_secs_f64());
    }
    site.ends_with_nothing_left();
}
