//! One vm in words, for who uses it.

use std::fmt::Write as _;

use super::screens;
use super::table::{Format, json, render, word, yaml};
use super::{escaped, permissions, times};
use crate::control::view::{FullVm, Login, Vm};
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
    let FullVm {
        vm,
        place,
        may,
        screen,
        login,
        since,
        session,
        until,
        dropped,
        counts_dropped,
        viewers,
        never_restarted: _,
    } = full;
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
    if let Some(Login { user, password }) = login {
        let password = password.as_ref().map_or_else(
            || "its password is drawn at its first start".to_owned(),
            |password| format!("password {password}"),
        );
        add("log in", format!("as {user}; {password}"));
    }
    if let Some(since) = since {
        add("since", times::moment(since));
    }
    match (session, until) {
        (Some(session), Some(until)) => add("until", format!("{}, the end of session {session}", times::moment(until))),
        (Some(session), None) => add("until", format!("session {session} stands still; nobody has said until when")),
        (None, Some(until)) => add("until", times::moment(until)),
        (None, None) => {}
    }
    match viewers {
        None | Some(0) => {}
        Some(1) => add("viewers", "one looks at its screen".to_owned()),
        Some(several) => add("viewers", format!("{several} look at its screen")),
    }
    match dropped {
        Some(dropped) => add("dropped", in_words(dropped)),
        None if since.is_some() && !counts_dropped => add("dropped", "not counted: the filter is ebtables".to_owned()),
        None => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_is_told_where_anybody_does() {
        let full = |viewers: Option<u32>| -> FullVm {
            let vm = serde_json::json!({
                "name": "ana-work", "owner": "ana", "from": "template/base", "ip": "10.1.0.2", "mac": "de:af:de:af:00:02",
                "wanted": "running", "claim": null, "state": "ready", "host": "node1", "family": "work", "vm_group": "room",
                "memory_mib": 512, "cpus": 1, "isolated": false, "version": null, "description": null, "why": null,
                "place": null, "may": ["run"], "screen": null, "since": null, "session": null, "until": null,
                "viewers": viewers,
            });
            serde_json::from_value(vm).unwrap()
        };
        let told = |viewers| words(&full(viewers)).lines().find(|line| line.contains("look")).map(str::to_owned);
        assert_eq!(told(None), None);
        assert_eq!(told(Some(0)), None);
        assert_eq!(told(Some(1)).as_deref(), Some("  viewers    one looks at its screen"));
        assert_eq!(told(Some(3)).as_deref(), Some("  viewers    3 look at its screen"));
    }
}
