//! A vm's start as a shell script: what the starter would do, for a person on a host where nothing of ours runs. Pure, and
//! made of the same functions as a start, so that the two cannot drift apart. It holds no secret: a vnc password is
//! drawn where it is run.
//!
//! Two things differ from a start. Nothing holds filter and tap as the starter's life does: both are made to stay, and go
//! at the end; a script that is killed leaves the guest with its filter. And there is no Landlock, which no tool sets.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use super::bridge::bridges;
use crate::dhcp::hosts_line;
use crate::host::RUN_ROOT;
use crate::host::run::accel::Accelerator;
use crate::host::run::filter::{Table, host_table_command, run_table, wanted_stations};
use crate::host::run::gateway;
use crate::host::run::port::Port;
use crate::host::run::qemu::{Given, Hold, VncPassword, arguments};
use crate::model::id::Mac;
use crate::model::lab::{Station, VmGroup};
use crate::model::reservation::Reservation;
use crate::model::site::{DhcpSettings, NetworkSettings};
use crate::run::{RunNetwork, RunSpec};

/// What the script needs to know besides the run.
#[derive(Debug, Clone, Copy)]
pub struct ByHand<'a> {
    pub spec: &'a RunSpec,
    /// The vm's group.
    pub group: &'a VmGroup,
    pub network: &'a NetworkSettings,
    pub accel: Accelerator,
    /// Folder of its own for sockets and the password.
    pub folder: &'a Path,
    /// Where the vm runs now, by what is recorded; in words.
    pub running: Option<&'a str>,
}

/// The script, for `sh`.
pub fn script(by_hand: &ByHand<'_>) -> String {
    let ByHand { spec, group, network, accel, folder, running } = *by_hand;
    let tap = spec.run.tap();
    let mut text = head(spec, folder, running);
    cut_off(&mut text);
    bridge(&mut text, &spec.network.bridge, group, network);
    let (on_wire, found) = wire(&mut text, &spec.network, network);
    filter(&mut text, &run_table(&spec.run, &on_wire), &found);
    interface(&mut text, spec, &tap);
    reservation(&mut text, spec, &network.dhcp);
    let (monitor, password) = (folder.join("monitor.sock"), folder.join("vnc.password"));
    let given = Given {
        accel,
        hold: Hold::Hand { tap: &tap, monitor: &monitor },
        folder,
        vnc_password: VncPassword::File(&password),
    };
    text += "\n# vnc's password, new each time; a viewer asks for it.\n";
    let file = quoted(&password.display().to_string());
    writeln!(text, "head -c 300 /dev/urandom | LC_ALL=C tr -dc a-zA-Z0-9 | head -c 8 >{file}").expect(TAKES_ALL);
    writeln!(text, "chown \"$user\" {file}").expect(TAKES_ALL);
    text += "\n# The guest, without root.\n";
    let groups = match accel {
        Accelerator::Kvm => "--groups \"$(stat -c %g /dev/kvm)\"",
        Accelerator::Tcg => "--clear-groups",
    };
    write!(text, "setpriv --reuid \"$user\" --regid \"$(id -g \"$user\")\" {groups} --no-new-privs -- \\\n  ")
        .expect(TAKES_ALL);
    text += &quoted(&spec.qemu.binary.display().to_string());
    for argument in arguments(spec, &given) {
        let argument = argument.to_string_lossy();
        // An option and its value share a line.
        text += if argument.starts_with('-') { " \\\n  " } else { " " };
        text += &quoted(&argument);
    }
    text += TAIL;
    text
}

const TAKES_ALL: &str = "a string takes all text";

/// qemu gets its own signals through the script; what stays when it is over goes in the order in which a starter lets go.
const TAIL: &str = " &
qemu=$!
trap 'kill \"$qemu\"' INT TERM HUP
while kill -0 \"$qemu\" 2>/dev/null; do wait \"$qemu\" || :; done
";

fn head(spec: &RunSpec, folder: &Path, running: Option<&str>) -> String {
    let RunSpec { vm, lab, .. } = spec;
    let (ip, isolated) = (spec.network.ip, if spec.network.isolated { ", isolated" } else { "" });
    let shown = folder.display();
    let now = match running {
        Some(where_) => format!(
            "It runs now, by what is recorded: {where_}. Stop it first: `labwright vm stop {vm}`,\n\
             # or on that host `kill -TERM` the parent of that qemu, which powers the guest off."
        ),
        None => "By what is recorded it does not run.".to_owned(),
    };
    format!(
        "#!/bin/sh
# Starts vm `{vm}` of lab `{lab}` by hand, at {ip}{isolated}: its filter first, then its interface, then qemu.
# Run it as root on a host that has the disks, and leave it running: the vm lives as long as it does.
#
# {now}
# Nobody else may start it meanwhile: `labwright freeze` keeps every apply away, `labwright thaw` lets them in again.
# Two qemus on one disk are impossible where the storage has locks; qemu then says `Failed to get \"write\" lock`.
#
# Its serial line:   socat -,raw,echo=0 UNIX-CONNECT:{shown}/serial.sock
# Power it off:      echo '{{\"execute\":\"qmp_capabilities\"}} {{\"execute\":\"system_powerdown\"}}' |
#                      socat -t5 - UNIX-CONNECT:{shown}/monitor.sock
# End it at once:    Ctrl-C here
# Its vnc password:  cat {shown}/vnc.password
set -eu
umask 077
user={user}
folder={folder}
case $(stat -c %a /dev/net/tun) in
*[67]) ;;
*)
  echo \"$user may not open /dev/net/tun; chmod 666 on it makes it as it is on most systems\" >&2
  exit 1
  ;;
esac
mkdir -p \"$folder\"
# The guest's account must pass through the folder above.
chmod a+x \"$(dirname \"$folder\")\"
chown \"$user\" \"$folder\"
cleanup() {{
  ip link del dev {tap} 2>/dev/null || :
  nft delete table bridge {table} 2>/dev/null || :
  rm -r \"$folder\"
}}
trap cleanup EXIT
",
        user = quoted(&spec.service_user),
        folder = quoted(&shown.to_string()),
        tap = spec.run.tap(),
        table = spec.run.nft_table(),
    )
}

fn cut_off(text: &mut String) {
    *text += "\n# What cuts off a guest without a filter, as `labwright host setup` makes it.\n";
    *text += &here_document("nft -f -", &in_lines(&host_table_command()));
}

fn bridge(text: &mut String, bridge: &str, group: &VmGroup, network: &NetworkSettings) {
    *text += "\n# The bridge, where this host has none yet.\n";
    writeln!(text, "if ! [ -d /sys/class/net/{bridge}/bridge ]; then").expect(TAKES_ALL);
    for made in bridges(std::slice::from_ref(group), network) {
        *text += &here_document("ip -batch -", &made.all_commands("by hand"));
    }
    *text += "fi\n";
}

/// The run's network with a stand-in for each Ethernet address that only its host knows, and the variable of the shell that
/// has it.
fn wire(text: &mut String, of_run: &RunNetwork, network: &NetworkSettings) -> (RunNetwork, Vec<(Mac, String)>) {
    let mut of_run = of_run.clone();
    let own = of_run.gateway.filter(|_| network.gateway_on_host);
    if of_run.dhcp_on_bridge {
        of_run.dhcp_servers.get_or_insert_default().extend(own);
    }
    of_run.stations.retain(|station| Some(station.address) != own);
    let known: Vec<Ipv4Addr> = of_run.stations.iter().chain(&of_run.routers).map(|station| station.address).collect();
    let mut unknown = wanted_stations(&of_run);
    unknown.extend(own.filter(|own| !unknown.contains(own)));
    unknown.retain(|address| !known.contains(address));
    let mut found = Vec::new();
    for (number, address) in (1_u8..).zip(unknown) {
        let (mac, variable) = (Mac([2, 0, 0, 0, 0xff, number]), format!("mac_{number}"));
        let file = if Some(address) == own {
            format!("/sys/class/net/{}/address", of_run.bridge)
        } else {
            gateway::file(Path::new(RUN_ROOT), &of_run.bridge, address).display().to_string()
        };
        let file = quoted(&file);
        writeln!(
            text,
            "\n# Where {address} is; on a host that never asked, write here what `ip neigh` or its admin says."
        )
        .expect(TAKES_ALL);
        writeln!(text, "{variable}=$(cat {file})").expect(TAKES_ALL);
        of_run.stations.push(Station { address, mac });
        found.push((mac, variable));
    }
    (of_run, found)
}

fn filter(text: &mut String, table: &Table, found: &[(Mac, String)]) {
    *text += "\n# What this guest may send and get.\n";
    let kept = Table { owned: false, ..table.clone() };
    let name = &table.name;
    let mut remake = format!("add table bridge {name} ; delete table bridge {name} ; {}", kept.command());
    for (mac, variable) in found {
        remake = remake.replace(&mac.to_string(), &format!("${variable}"));
    }
    *text += &here_document("nft -f -", &in_lines(&remake));
}

fn interface(text: &mut String, spec: &RunSpec, tap: &str) {
    let bridge = &spec.network.bridge;
    *text += "\n# The guest's port on the bridge, which goes up as the last step.\n";
    writeln!(text, "mtu=$(cat /sys/class/net/{bridge}/mtu)").expect(TAKES_ALL);
    writeln!(text, "ip tuntap add dev {tap} mode tap user \"$user\"").expect(TAKES_ALL);
    let alias = format!("by-hand:{}", spec.vm);
    let RunSpec { network: of_run, .. } = spec;
    let port = Port { tap, bridge, mac: of_run.mac, isolated: of_run.isolated, alias: &alias };
    for (program, commands) in port.batches("$mtu") {
        *text += &here_document(&format!("{program} -batch -"), &commands);
    }
}

/// A vm that was ever started has its reservation already.
fn reservation(text: &mut String, spec: &RunSpec, dhcp: &DhcpSettings) {
    let RunSpec { run, lab, vm, network, .. } = spec;
    let reservation = Reservation::new(run.site(), lab, vm, network.mac, network.ip);
    *text += "\n# Its address from DHCP.\n";
    match dhcp {
        DhcpSettings::Dnsmasq { folder } => {
            let hosts = folder.join(crate::dhcp::HOSTS_FOLDER);
            let file = quoted(&hosts.join(&reservation.mark).display().to_string());
            let hosts = quoted(&hosts.display().to_string());
            let line = quoted(hosts_line(&reservation).trim_end());
            writeln!(text, "if [ -d {hosts} ]; then\n  [ -e {file} ] || (umask 022; echo {line} >{file})")
                .expect(TAKES_ALL);
            let lacks = "no DHCP server of labwright is set up here: give the guest its address in the guest";
            writeln!(text, "else\n  echo '{lacks}' >&2\nfi").expect(TAKES_ALL);
        }
        DhcpSettings::Omapi(settings) => writeln!(
            text,
            "# dhcpd at {} has it as host `{}` since the vm was first started. If it does not, add to its dhcpd.conf:\n\
             #   host {} {{ hardware ethernet {}; fixed-address {}; }}",
            settings.server, reservation.mark, reservation.mark, network.mac, network.ip
        )
        .expect(TAKES_ALL),
        DhcpSettings::None => {
            writeln!(text, "# The site leaves DHCP to others: they must give {} to {}.", network.ip, network.mac)
                .expect(TAKES_ALL)
        }
    }
}

/// What is in it holds no character that the shell would read but its variables: names and addresses were checked when they
/// were made.
fn here_document(command: &str, input: &str) -> String {
    format!("{command} <<END\n{}\nEND\n", input.trim_end())
}

/// A table as a person reads it: a line for each rule.
fn in_lines(command: &str) -> String {
    command.replace(" ; ", "\n").replace("; ", "\n  ").replace("\n  }", "\n}")
}

/// One word for the shell, whatever is in it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shell reads back what was meant.
    #[test]
    fn every_word_is_quoted() {
        for word in ["", "a b", "it's", "$HOME `id` \\ \" ; & | < > * ~ #", "-x", "{\"driver\":\"qcow2\"}", "ä\nb"] {
            let command = format!("printf %s {}", quoted(word));
            let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
