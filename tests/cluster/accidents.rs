//! What befalls a cluster: hosts, cables, storage and the master's daemon.

use std::time::Duration;

use crate::life::{disk_is_marked, mappings_are_right};
use crate::site::{Mapping, SELF_FENCE_SECONDS, Site, until};

/// Seconds since a guest booted; it stands still while the guest does, and begins anew with it.
fn uptime(site: &Site, mapping: &Mapping) -> f64 {
    let (_, text) = site.console(mapping).run("cut -d' ' -f1 /proc/uptime");
    text.trim().parse().unwrap()
}

#[track_caller]
fn until_silent(site: &Site, guests: &[Mapping]) {
    until("guests that stand still", || match guests.iter().find(|guest| site.pings(guest)) {
        Some(guest) => Err(format!("{} answers", guest.vm)),
        None => Ok(()),
    });
}

#[track_caller]
fn until_all(site: &Site, guests: &[Mapping], state: &str) {
    until(&format!("{} vms to be {state}", guests.len()), || {
        let states = site.states();
        if guests.iter().all(|guest| states[&guest.vm] == state) { Ok(()) } else { Err(format!("{states:?}")) }
    });
}

pub(crate) fn storage_outage(site: &mut Site) {
    let (before, guests) = (site.qemus(), site.on(3));
    let uptimes: Vec<f64> = guests.iter().map(|guest| uptime(site, guest)).collect();
    site.cluster(&["storage", "3", "off"]);
    until_silent(site, &guests);
    // As long as it lasts, nobody ends or doubles anything.
    let (well, said) = site.try_apply();
    assert!(well, "{said}");
    std::thread::sleep(Duration::from_secs(2 * SELF_FENCE_SECONDS));
    assert_eq!(site.qemus(), before);
    site.cluster(&["storage", "3", "on"]);
    until_all(site, &guests, "ready");
    for (guest, uptime_before) in guests.iter().zip(uptimes) {
        until("an answer", || if site.pings(guest) { Ok(()) } else { Err(guest.vm.clone()) });
        assert!(uptime(site, guest) > uptime_before, "{} went on where it was", guest.vm);
    }
    assert_eq!(site.qemus(), before);
    site.is_at_rest();
}

/// Neither the master nor the shared folder can be reached from a host.
fn cut_off(site: &Site, host: &str) {
    site.cluster(&["link", host, "down"]);
    site.cluster(&["storage", host, "off"]);
}

fn connect(site: &Site, host: &str) {
    site.cluster(&["storage", host, "on"]);
    site.cluster(&["link", host, "up"]);
}

pub(crate) fn cut_off_and_back(site: &mut Site) {
    let (before, guests) = (site.qemus(), site.on(2));
    assert!(!guests.is_empty());
    cut_off(site, "2");
    until_all(site, &guests, "unknown");
    until_silent(site, &guests);
    let (well, said) = site.try_apply();
    assert!(well && said.contains("does not answer"), "{said}");
    assert_eq!(site.qemus(), before, "nothing was started in the meantime");
    connect(site, "2");
    until_all(site, &guests, "ready");
    for guest in &guests {
        until("an answer", || if site.pings(guest) { Ok(()) } else { Err(guest.vm.clone()) });
    }
    assert_eq!(site.qemus(), before);
    site.is_at_rest();
}

/// The old qemus stand still and hold the files that they had; the new ones start beside them on copies. Whatever happens, the old
/// ones never go on.
pub(crate) fn cut_off_and_forgotten(site: &mut Site) {
    let (before, guests) = (site.qemus(), site.on(2));
    let name = site.host_name(2);
    cut_off(site, "2");
    until_all(site, &guests, "unknown");
    let refused = site.try_script("labwright", &["host", "forget", "no-such-host", "--yes"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("the batch system has no host `no-such-host`"), "{said}");
    until("the host to be given up", || {
        let output = site.try_script("labwright", &["host", "forget", &name, "--yes"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() && said.contains("starts them elsewhere") { Ok(()) } else { Err(said) }
    });
    until_silent(site, &guests);
    site.apply();
    until_all(site, &guests, "ready");
    let old: Vec<_> = before.iter().filter(|qemu| guests.iter().any(|guest| guest.vm == qemu.vm)).collect();
    for _ in 0..20 {
        assert_eq!(old.iter().filter(|qemu| site.qemus().contains(qemu)).count(), old.len(), "an outage ends no guest");
        std::thread::sleep(Duration::from_millis(200));
    }
    connect(site, "2");
    until("the old qemus to end", || {
        let left: Vec<_> = site.qemus().into_iter().filter(|qemu| old.contains(&qemu)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    for guest in &guests {
        let run = format!("{}-{}", &guest.tap[2..6], &guest.tap[6..]);
        let report = site.path("storage/runs").join(run).join("report.jsonl");
        // The last record comes when qemu is gone.
        let report = until("the last record of the old run", || {
            let report = std::fs::read_to_string(&report).unwrap();
            if report.contains(r#""event":"stopped""#) { Ok(report) } else { Err(report) }
        });
        let after_pause = report.rsplit_once(r#""event":"paused""#).unwrap().1;
        assert!(!after_pause.contains("resumed"), "{report}");
    }
    until("the lab to stand", || {
        let (_, said) = site.try_apply();
        let states = site.states();
        if states.values().all(|state| state == "ready") { Ok(()) } else { Err(format!("{states:?}\n{said}")) }
    });
    for guest in &guests {
        let now = &site.mappings()[&guest.vm];
        assert_eq!((&now.ip, &now.mac), (&guest.ip, &guest.mac));
        disk_is_marked(site, now);
    }
    site.is_at_rest();
}

pub(crate) fn host_dies(site: &mut Site) {
    let (guests, name) = (site.on(1), site.host_name(1));
    assert!(!guests.is_empty());
    let others: Vec<_> =
        site.qemus().into_iter().filter(|qemu| !guests.iter().any(|guest| guest.vm == qemu.vm)).collect();
    site.cluster(&["kill-host", "1"]);
    until_all(site, &guests, "unknown");
    let (well, said) = site.try_apply();
    assert!(well && said.contains("does not answer"), "{said}");
    assert_eq!(site.qemus().len(), others.len(), "nothing was started in the meantime");
    site.labwright(&["host", "forget", &name, "--powered-off", "--yes"]);
    site.apply();
    mappings_are_right(site);
    for guest in &guests {
        let now = &site.mappings()[&guest.vm];
        assert_ne!(now.host, 1, "{}", now.vm);
        assert_eq!((&now.ip, &now.mac), (&guest.ip, &guest.mac));
        disk_is_marked(site, now);
    }
    assert!(others.iter().all(|qemu| site.qemus().contains(qemu)), "the other hosts' guests go on");
    site.cluster(&["start-host", "1"]);
    site.is_at_rest();
}

/// The worst moment: the job was taken in, its submitter never heard so, and nobody can be asked.
pub(crate) fn master_dies_in_an_apply(site: &mut Site) {
    // From here on guests are held before their first instruction: what is tried is not theirs.
    let settings = std::fs::read_to_string(site.path("site.yaml")).unwrap();
    std::fs::write(site.path("site.yaml"), format!("{settings}qemu: {{ extra_args: [\"-S\"] }}\n")).unwrap();
    let before = site.qemus();
    site.members.insert("vlad".into());
    site.write_lab();
    let accident = site.path("accident");
    let script =
        "case $1 in */qsub) \"$@\" >/dev/null; kill -9 $(ps -o pid= -C sge_qmaster); exit 1;; esac; exec \"$@\"";
    std::fs::write(&accident, script).unwrap();
    let (well, said) = site.try_apply();
    assert!(!well, "{said}");
    std::fs::remove_file(&accident).unwrap();
    // As long as the queue cannot be seen, nothing is guessed and nothing is done.
    let (well, said) = site.try_apply();
    assert!(!well && said.contains("cannot see the queue"), "{said}");
    site.cluster(&["start-master"]);
    until("the hosts to be heard", || {
        let states = site.states();
        if states.values().any(|state| state == "unknown") { Err(format!("{states:?}")) } else { Ok(()) }
    });
    site.apply();
    assert!(site.qemus().is_superset(&before), "the others went on: {before:?}, {:?}", site.qemus());
    site.is_at_rest();
}
