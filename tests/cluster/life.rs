//! A lab's ordinary days on a cluster.

use std::collections::BTreeSet;

use crate::site::{Mapping, Site, until};

/// Sector that no partition of the guest's disk has.
const MARK_AT: &str = "seek=1000";

/// Writes a word onto the guest's disk, through to the host.
pub(crate) fn mark_disk(site: &Site, mapping: &Mapping) {
    let line = format!("echo {0} | dd of=/dev/vda bs=512 {MARK_AT} conv=sync,fsync 2>/dev/null && sync", mapping.vm);
    let (code, said) = site.console(mapping).run(&line);
    assert_eq!(code, 0, "{said}");
}

#[track_caller]
pub(crate) fn disk_is_marked(site: &Site, mapping: &Mapping) {
    let (_, word) = site.console(mapping).run("dd if=/dev/vda bs=512 skip=1000 count=1 2>/dev/null | tr -d '\\0'");
    assert_eq!(word.trim(), mapping.vm, "the guest's own disk, with what it wrote there");
}

/// The mapping table against hosts and guests themselves.
#[track_caller]
pub(crate) fn mappings_are_right(site: &Site) {
    let mappings = site.mappings();
    assert_eq!(mappings.len(), site.members.len());
    let reserved: BTreeSet<(String, String)> = site.reservations().into_values().collect();
    for (vm, mapping) in &mappings {
        let Mapping { ip, mac, host, tap, vnc, pid, .. } = mapping;
        let link = site.on_host(*host, &["ip", "-o", "link", "show", tap]);
        assert!(link.contains("master vbr0"), "{vm}: {link}");
        let forwarded = site.on_host(*host, &["bridge", "fdb", "show", "dev", tap]);
        assert!(forwarded.contains(mac.as_str()), "{vm}: {forwarded}");
        let command = site.on_host(*host, &["cat", &format!("/proc/{pid}/cmdline")]);
        assert!(command.contains("qemu-system") && command.contains(&format!("/{vm}/disk-0.qcow2")), "{vm}: {command}");
        let listening = site.on_host(*host, &["ss", "-Hltn"]);
        assert!(listening.contains(vnc.as_str()), "{vm} at {vnc}: {listening}");
        let mut guest = site.console(mapping);
        let (_, address) = guest.run("ip -4 -o addr show eth0");
        assert!(address.contains(&format!("inet {ip}/21 ")), "{vm}: {address}");
        let (_, own) = guest.run("cat /sys/class/net/eth0/address");
        assert_eq!(own.trim(), mac, "{vm}");
        assert!(reserved.contains(&(mac.clone(), ip.clone())), "{vm}: {reserved:?}");
        assert!(site.pings(mapping), "{vm} answers at {ip}");
    }
}

pub(crate) fn comes_up(site: &mut Site) {
    site.apply();
    mappings_are_right(site);
    let hosts: BTreeSet<u32> = site.mappings().values().map(|mapping| mapping.host).collect();
    assert_eq!(hosts, [1, 2, 3].into());
    for mapping in site.mappings().values() {
        mark_disk(site, mapping);
    }
    site.is_at_rest();
}

pub(crate) fn one_leaves(site: &mut Site) {
    let (qemus, tasks) = (site.qemus(), site.tasks());
    site.members.remove("eva");
    site.write_lab();
    site.apply();
    site.is_at_rest();
    let left: Vec<String> = qemus.difference(&site.qemus()).map(|qemu| qemu.vm.clone()).collect();
    assert_eq!(left, ["eva-exam"]);
    let after = site.tasks();
    assert!(after.keys().all(|task| tasks.contains_key(task)), "no task is new: {tasks:?}, {after:?}");
    let aside = site.labwright(&["get", "aside", "-o", "csv"]);
    assert_eq!(aside.lines().filter(|line| line.starts_with("eva-exam,")).count(), 1, "{aside}");
}

pub(crate) fn deleted_behind_our_back(site: &mut Site) {
    let (before, qemus) = (site.mappings(), site.qemus());
    let (job, task) = *site.tasks().keys().next().unwrap();
    site.cluster(&["master", "qdel", &format!("{job}.{task}")]);
    let gone = until("one qemu to be gone", || {
        let now = site.qemus();
        let gone: Vec<_> = qemus.difference(&now).cloned().collect();
        if gone.len() == 1 { Ok(gone) } else { Err(format!("{now:?}")) }
    });
    until("the queue to lose the task", || match site.tasks() {
        tasks if tasks.contains_key(&(job, task)) => Err(format!("{tasks:?}")),
        _ => Ok(()),
    });
    let vm = &gone[0].vm;
    assert_eq!(site.states()[vm], "off");
    site.apply();
    let after = &site.mappings()[vm];
    assert_eq!((&after.ip, &after.mac), (&before[vm].ip, &before[vm].mac));
    disk_is_marked(site, after);
    site.is_at_rest();
}

pub(crate) fn disabled_queue(site: &mut Site) {
    site.cluster(&["master", "qmod", "-d", "all.q"]);
    site.members.insert("sara".into());
    site.write_lab();
    let (well, said) = site.try_apply();
    assert!(well, "{said}");
    let reason = until("a reason to wait", || {
        let jobs = site.labwright(&["get", "jobs", "-o", "csv"]);
        jobs.lines().find(|line| line.contains("disabled")).map(str::to_owned).ok_or(jobs)
    });
    assert!(reason.contains("pending"), "{reason}");
    assert_eq!(site.states()["sara-exam"], "queued");
    assert!(site.states().values().filter(|state| *state == "ready").count() == 5, "{:?}", site.states());
    site.cluster(&["master", "qmod", "-e", "all.q"]);
    site.apply();
    mark_disk(site, &site.mappings()["sara-exam"]);
    site.is_at_rest();
}
