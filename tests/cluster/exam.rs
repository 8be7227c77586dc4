//! `host check --exam --all-hosts` on a cluster, beside a lab that runs: green, red, interrupted; nothing of it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::kills::started;
use crate::site::{Site, until};

/// What a trial could leave behind besides what `is_at_rest` looks for: files, and taps of each host.
fn traces(site: &Site) -> (BTreeSet<String>, Vec<String>) {
    let names = |folder: &str| std::fs::read_dir(site.path(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = names("storage/runs").chain(names("storage/runs/batches")).map(|path| path.display().to_string());
    (files.collect(), (1..=3).map(|host| taps(site, host)).collect())
}

fn taps(site: &Site, host: u32) -> String {
    let links = site.on_host(host, &["ip", "-br", "link"]);
    links.lines().filter(|line| line.starts_with("lw")).filter_map(|line| line.split_whitespace().next()).collect()
}

/// `what` → `(verdict, found)`.
type Page = BTreeMap<String, (String, String)>;

/// How the check ended, and the page of each host.
fn check(site: &Site) -> (Option<i32>, BTreeMap<u32, Page>) {
    let output = site.try_script("labwright", &["host", "check", "--exam", ".", "--all-hosts", "-o", "json"]);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let mut pages = BTreeMap::<u32, Page>::new();
    for row in &rows {
        let word = |key: &str| row[key].as_str().unwrap().to_owned();
        let Some(name) = row["host"].as_str() else { continue };
        let host = (1..=3).find(|host| site.host_name(*host) == name).unwrap();
        pages.entry(host).or_default().insert(word("what"), (word("verdict"), word("found")));
    }
    (output.status.code(), pages)
}

/// The verdicts on the guest of a host.
fn guest(page: &Page) -> Vec<(&str, &str)> {
    let of_guest = page.iter().filter(|(what, _)| what.starts_with("exam: "));
    of_guest.map(|(what, (verdict, _))| (what.as_str(), verdict.as_str())).collect()
}

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const WELL: [(&str, &str); 3] = [("exam: boot", "ok"), ("exam: isolation", "ok"), ("exam: vnc", "ok")];

/// In three hosts at once, on one network, with one dhcpd.
pub(crate) fn all_hosts_green(site: &mut Site) {
    let before = traces(site);
    let (exit, pages) = check(site);
    assert_eq!((pages.len(), exit), (3, Some(0)), "{pages:#?}");
    let mut addresses = BTreeSet::new();
    for page in pages.values() {
        assert_eq!(guest(page), WELL, "{page:#?}");
        let (_, found) = &page["exam: boot"];
        addresses.insert(found.split("uses its address ").nth(1).unwrap().split(' ').next().unwrap().to_owned());
    }
    assert_eq!(addresses.len(), 3, "each host's guest has an address of its own: {addresses:?}");
    assert_eq!(traces(site), before);
    site.is_at_rest();
}

pub(crate) fn bad_hosts_are_red(site: &mut Site) {
    let before = traces(site);
    let instance = format!("all.q@{}", site.host_name(2));
    site.cluster(&["master", "qmod", "-d", &instance]);
    // What runs already does not notice.
    site.on_host(3, &["mount", "--bind", "/bin/false", QEMU]);
    let (exit, pages) = check(site);
    site.cluster(&["master", "qmod", "-e", &instance]);
    site.on_host(3, &["umount", QEMU]);
    assert_eq!(exit, Some(5), "{pages:#?}");
    assert_eq!(guest(&pages[&1]), WELL, "{:#?}", pages[&1]);
    assert_eq!(pages[&2].len(), 1, "nothing is tried on a host that takes no job: {:#?}", pages[&2]);
    let closed = ("failed".to_owned(), format!("no job can begin: its queue {instance} is disabled"));
    assert_eq!(pages[&2]["exam: job"], closed);
    assert_eq!(guest(&pages[&3]), [("exam: boot", "failed")], "{:#?}", pages[&3]);
    let found = &pages[&3]["exam: boot"].1;
    assert!(found.starts_with("a guest of template tiny did not come up: "), "{found}");
    assert_eq!(pages[&3]["qemu"].0, "failed", "{:#?}", pages[&3]);
    assert_eq!(traces(site), before);
    site.is_at_rest();
}

/// What runs for a check is nothing to a plan and to an apply, but to another check; and with it everything of it ends.
pub(crate) fn interrupted(site: &mut Site) {
    let before = traces(site);
    let mut command = site.command("labwright");
    command.args(["host", "check", "--exam", ".", "--all-hosts"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut check = command.spawn().unwrap();
    let pid = started(&mut check).unwrap();
    until("a guest on every host", || {
        let now = traces(site).1;
        if now.iter().zip(&before.1).all(|(now, before)| now != before) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let plan = site.labwright(&["plan"]);
    assert!(plan.starts_with("no changes: "), "{plan}");
    let jobs = site.labwright(&["get", "jobs", "-o", "csv"]);
    assert!(!jobs.contains("trial"), "{jobs}");
    let (well, said) = site.try_apply();
    assert!(well && said.starts_with("no changes: "), "{said}");
    let second = site.command("labwright").args(["host", "check", "--exam", ".", "--all-hosts"]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        second.status.code() == Some(4) && said.contains("another trial of the site's hosts is under way"),
        "{said}"
    );
    kill(pid, Signal::SIGINT).unwrap();
    let output = check.wait_with_output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(5), "{page}");
    assert_eq!(page.matches("the trial was interrupted").count(), 3, "{page}");
    assert_eq!(traces(site), before);
    site.is_at_rest();
}
