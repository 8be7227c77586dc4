//! One vm in words, for who uses it.

use std::fmt::Write as _;

use super::screens;
use super::table::{Format, json, render, word, yaml};
use super::{escaped, permissions, times};
use crate::control::view::{FullVm, Vm};
use crate::run::Dropped;

/// As a table, CSV and a name, it is a row of a listing of vms.
pub fn text(full: &FullVm, format: Option<Format>) -> String {
    match format {
        None => words(full),
        Some(Format::Json) => json(full),
        Some(Format::Yaml) => yaml(full),
        Some(format) => render(std::slice::from_ref(&full.vm), format),
    }
}

fn words(full: &FullVm) -> String {
    let FullVm { vm, place, may, screen, since, session, until, dropped } = full;
    let mut lines = heading(vm, *place);
    let mut add = |what: &str, value: String| {
        writeln!(lines, "  {what:<10} {}", escaped(&value)).expect("a string takes all");
    };
    if let Some(why) = &vm.why {
        add("why", why.clone());
    }
    let version = vm.version.map(|version| format!(", version {version}")).unwrap_or_default();
    add("owner", format!("{}; made from {}{version}", vm.owner, vm.from));
    let isolated = if vm.isolated { "; isolated: it reaches its gateway alone" } else { "" };
    add("address", format!("{} ({}){isolated}", vm.ip, vm.mac));
    let cpus = if vm.cpus == 1 { "1 processor".to_owned() } else { format!("{} processors", vm.cpus) };
    add("computer", format!("{} MiB, {cpus}", vm.memory_mib));
    if let Some(since) = since {
        add("since", times::moment(since));
    }
    match (session, until) {
        (Some(session), Some(until)) => add("until", format!("{}, the end of session {session}", times::moment(until))),
        (Some(session), None) => add("until", format!("session {session} stands still; nobody has said until when")),
        (None, Some(until)) => add("until", times::moment(until)),
        (None, None) => {}
    }
    if let Some(dropped) = dropped {
        add("dropped", in_words(dropped));
    }
    add("you may", permissions::list(may.iter()));
    lines + &screen.as_ref().map(screens::lines).unwrap_or_default()
}

/// What of its frames did not pass, and why.
fn in_words(dropped: &Dropped) -> String {
    let words = |(reason, frames): (&str, u64)| {
        let why = match reason {
            "spoofed_mac" => "from another's hardware address",
            "spoofed_ip" => "from another's IP address",
            "arp" => "of ARP for others",
            "dhcp" => "of DHCP that no client sends",
            "dhcp_server" => "of a DHCP server",
            "service" => "to what no guest may reach",
            "isolated" => "out of its isolation",
            "inbound" => "from others to it",
            _ => "of other protocols",
        };
        (frames > 0).then(|| format!("{frames} {why}"))
    };
    let all: Vec<String> = dropped.by_reason().into_iter().filter_map(words).collect();
    format!("at least these frames: {}", all.join(", "))
}

fn heading(vm: &Vm, place: Option<usize>) -> String {
    let place = place.map(|place| format!(", place {place} in the queue")).unwrap_or_default();
    let host = vm.host.as_ref().map(|host| format!(" on {}", escaped(host))).unwrap_or_default();
    format!("{} is {}{place}{host}\n", vm.name, word(&vm.state))
}
