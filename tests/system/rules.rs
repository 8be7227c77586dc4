//! A run's filter without its guest: however its rules are spelt they read back, and whatever is changed of them or of the
//! host's own is noticed and put back.

use std::time::{Duration, Instant};

use labwright::host::run::filter::{HOST_TABLE, RunFilter, Turns};
use labwright::model::id::{MacPrefix, RunId};
use labwright::model::lab::{Egress, Protocol};
use labwright::model::site::Filter;
use labwright::run::RunNetwork;

use crate::world::{World, tool};

const BOTH: [Filter; 2] = [Filter::Nftables, Filter::Ebtables];

fn stands(world: &World, run: &RunId, network: &RunNetwork) -> RunFilter {
    let mut filter = RunFilter::start(run, network, &world.run_root()).unwrap();
    assert!(filter.stand().unwrap().is_none(), "nobody else changes rules here");
    filter
}

/// Networks that nft or ebtables could list otherwise than they are written.
fn networks(of: &RunNetwork) -> Vec<RunNetwork> {
    let egress = |net: &str, protocol| Egress { net: net.parse().unwrap(), port: 443, protocol, mac: None };
    let range = |first: &str, last: &str| (first.parse().unwrap(), last.parse().unwrap());
    let changes: Vec<fn(&mut RunNetwork)> =
        vec![|_| (), |network| network.isolated = false, |network| network.gateway = None];
    let mut networks = Vec::new();
    for change in changes {
        let mut network = of.clone();
        change(&mut network);
        networks.push(network.clone());
        network.dns = ["8.8.8.8", "192.168.100.77"].map(|ip| ip.parse().unwrap()).to_vec();
        network.lab_mac_prefixes = ["02:00", "de:af:de", "de:af:de:af", "02:00:00:00:00"]
            .map(|prefix| prefix.parse::<MacPrefix>().unwrap())
            .to_vec();
        networks.push(network.clone());
        network.egress = vec![
            egress("10.0.0.5/32", Protocol::Tcp),
            egress("10.0.0.0/8", Protocol::Udp),
            egress("128.0.0.0/1", Protocol::Tcp),
            egress("0.0.0.0/0", Protocol::Tcp),
            egress("192.168.100.9/32", Protocol::Udp),
        ];
        networks.push(network.clone());
        network.lab_ranges = vec![
            range("192.168.100.0", "192.168.100.255"),
            range("10.1.2.3", "10.1.2.3"),
            range("10.0.0.2", "10.0.3.254"),
            range("172.16.0.0", "172.31.255.255"),
            range("10.9.0.0", "10.9.0.1"),
        ];
        networks.push(network);
    }
    networks
}

#[test]
fn however_a_network_is_written_its_rules_read_back() {
    for filter in BOTH {
        let mut world = World::with_filter(filter);
        let spec = world.spec(2);
        for network in networks(&spec.network) {
            let mut filter = stands(&world, &spec.run, &network);
            assert_eq!(filter.look().unwrap(), 0, "{network:?}");
        }
    }
}

/// Each keeps the number of rules and the verdict of each, unless it takes everything.
#[test]
fn whatever_is_changed_of_the_hosts_table_is_noticed_and_put_back() {
    let rule = |chain: &str, rule: &str| {
        format!("flush chain bridge {HOST_TABLE} {chain}; add rule bridge {HOST_TABLE} {chain} {rule}")
    };
    let changes = [
        rule("from_guest", r#"iifname "xx*" meta mark & 0x00010000 == 0x00000000 counter drop"#),
        rule("from_guest", r#"oifname "lw*" meta mark & 0x00010000 == 0x00000000 counter drop"#),
        rule("to_guest", r#"oifname "lw*" meta mark & 0x00010000 == 0x00000000 counter drop"#),
        rule("to_guest", r#"oifname "lw*" meta mark & 0x00020000 != 0x00000000 counter drop"#),
        rule("arrive", "meta mark set meta mark & 0xffffffff continue"),
        format!("insert rule bridge {HOST_TABLE} from_guest accept"),
        format!("flush chain bridge {HOST_TABLE} to_guest"),
        format!("delete chain bridge {HOST_TABLE} leave"),
        format!("add table bridge {HOST_TABLE} {{ flags dormant; }}"),
        format!("delete table bridge {HOST_TABLE}"),
        "flush ruleset".to_owned(),
    ];
    for filter in BOTH {
        let mut world = World::with_filter(filter);
        let spec = world.spec(2);
        let mut filter = stands(&world, &spec.run, &spec.network);
        let whole = tool("nft", &["list", "table", "bridge", HOST_TABLE]);
        for change in &changes {
            tool("nft", &[change]);
            filter.look().expect_err(change);
            assert!(filter.mend().unwrap().is_none());
            filter.look().unwrap();
            assert_eq!(tool("nft", &["list", "table", "bridge", HOST_TABLE]), whole, "after {change}");
        }
    }
}

#[test]
fn whatever_is_changed_of_a_runs_chains_is_noticed_and_put_back() {
    let mut world = World::with_filter(Filter::Ebtables);
    let spec = world.spec(2);
    let mut filter = stands(&world, &spec.run, &spec.network);
    let chain = |what: &str| format!("labwright-{}-{what}", spec.run);
    let (from, to, tap) = (chain("from"), chain("to"), spec.run.tap());
    let saved = || {
        let listing = tool("ebtables-nft-save", &["-t", "nat"]);
        listing.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect::<String>()
    };
    let whole = saved();
    let changes: [&[&str]; 6] = [
        &["-I", &from, "1", "-j", "ACCEPT"],
        &["-P", &to, "ACCEPT"],
        &["-D", &to, "-j", "DROP"],
        &["-D", "PREROUTING", "-i", &tap, "-j", &from],
        &["-F"],
        &["-F", &from],
    ];
    for change in changes {
        tool("ebtables-nft", &[&["-t", "nat"], change].concat());
        filter.look().expect_err(&change.join(" "));
        assert!(filter.mend().unwrap().is_none());
        filter.look().unwrap();
        assert_eq!(saved(), whole, "after {change:?}");
    }
    drop(filter);
    assert!(!saved().contains(&spec.run.to_string()), "{}", saved());
}

/// As a holder that a batch system has suspended: the filter stands after a while all the same, and it is told.
#[test]
fn a_turn_that_never_comes_delays_a_filter_and_no_more() {
    let mut world = World::new();
    let spec = world.spec(2);
    let held = Turns::new(&world.run_root()).take();
    let turns = Turns::new(&world.run_root());
    let mut filter = RunFilter::start(&spec.run, &spec.network, &world.run_root()).unwrap();
    let waiting = std::thread::scope(|scope| {
        let stands = scope.spawn(|| (Instant::now(), filter.stand().unwrap()));
        let mut waiting = 0;
        while !stands.is_finished() {
            waiting = waiting.max(turns.waiting());
            std::thread::sleep(Duration::from_millis(20));
        }
        let (began, missed) = stands.join().unwrap();
        let words = missed.expect("the turn never came").to_string();
        assert!(words.contains("another program has kept"), "{words}");
        assert!(began.elapsed() >= Duration::from_secs(10));
        waiting
    });
    assert_eq!(waiting, 1, "who waits is counted");
    filter.look().unwrap();
    assert!(tool("nft", &["list", "tables"]).contains(&spec.run.nft_table()));
    drop(held);
}
