//! What others on this host have set up that stands in the guests' way: firewalls, and DHCP servers that give a lab's
//! addresses to anyone. Their texts come in, findings go out; nothing is changed.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::host::run::filter::HOST_TABLE;

/// A chain that drops whatever it does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DroppingChain {
    /// `FORWARD of table ip filter`.
    pub name: String,
    /// It sees the bridges' frames, not only what the host forwards.
    pub on_bridges: bool,
}

/// The chains of others that drop by default, in the output of `nft list chains`; the rules of `iptables-nft` are there too.
/// Where the kernel shows iptables what passes its bridges, all chains see it that see IPv4.
pub(super) fn dropping_chains(listing: &str, iptables_sees_bridges: bool) -> Vec<DroppingChain> {
    let (mut table, mut chain) = (String::new(), String::new());
    let mut found = Vec::new();
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix(" {") {
            match name.strip_prefix("chain ") {
                Some(name) => name.clone_into(&mut chain),
                None => name.clone_into(&mut table),
            }
        }
        let of_bridges = table.starts_with("table bridge ");
        let ours = of_bridges && (table.ends_with(&format!(" {HOST_TABLE}")) || table.starts_with("table bridge lw_"));
        let in_the_way = of_bridges || line.contains("hook forward");
        if line.starts_with("type filter hook ") && line.contains("policy drop") && in_the_way && !ours {
            let on_bridges = of_bridges || iptables_sees_bridges && !table.starts_with("table ip6 ");
            found.push(DroppingChain { name: format!("{chain} of {table}"), on_bridges });
        }
    }
    found
}

/// The same in the output of `iptables-legacy-save`, whose tables `nft` does not see. A last rule for all that is left is as
/// good as a policy.
pub(super) fn dropping_legacy_chains(saved: &str, iptables_sees_bridges: bool) -> Vec<DroppingChain> {
    let mut table = "";
    let mut found = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        let drops = [":FORWARD DROP", "-A FORWARD -j DROP", "-A FORWARD -j REJECT"];
        if drops.iter().any(|start| line.starts_with(start)) {
            let name = format!("FORWARD of iptables-legacy's table {table}");
            found.push(DroppingChain { name, on_bridges: iptables_sees_bridges });
        }
    }
    found.dedup();
    found
}

/// Addresses that a DHCP server gives to whoever asks, in its configuration: `range A B;` of dhcpd, `dhcp-range=A,B` of
/// dnsmasq.
pub(super) fn dynamic_ranges(configuration: &str) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let uncommented = configuration.lines().map(|line| line.split('#').next().unwrap_or_default());
    let statements = uncommented.flat_map(|line| line.split([';', '{', '}'])).map(str::trim);
    statements
        .filter_map(|statement| {
            let words =
                statement.strip_prefix("range ").or_else(|| statement.split_once("dhcp-range=").map(|(_, r)| r))?;
            let mut addresses = words.split([' ', ',', '\t']).filter_map(|word| word.parse::<Ipv4Addr>().ok());
            let first = addresses.next()?;
            let last = addresses.next().filter(|last| *last >= first).unwrap_or(first);
            // `dhcp-range=NET,static` serves reservations alone.
            (!words.contains("static")).then_some((first, last))
        })
        .collect()
}

/// Files that a dhcpd reads besides: `include "NAME";`. A relative name is one below `/`, where services are started.
fn includes(configuration: &str) -> Vec<PathBuf> {
    let uncommented = configuration.lines().map(|line| line.split('#').next().unwrap_or_default());
    let statements = uncommented.flat_map(|line| line.split([';', '{', '}'])).map(str::trim);
    let names = statements.filter_map(|statement| {
        statement.strip_prefix("include")?.trim_start().strip_prefix('"')?.strip_suffix('"').map(PathBuf::from)
    });
    names.map(|name| Path::new("/").join(name)).collect()
}

/// Files that are read at most, and what is read of one.
const FILES_MAX: usize = 1000;
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What the configuration of the DHCP servers that we know gives to anyone, by file, and what of it could not be read.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub ranges: Vec<(PathBuf, (Ipv4Addr, Ipv4Addr))>,
    pub unread: Vec<(PathBuf, std::io::Error)>,
}

/// Looks where Debian keeps the configuration, and into all that this includes.
pub(super) fn given_to_anyone() -> Given {
    let mut files = vec![PathBuf::from("/etc/dhcp/dhcpd.conf"), PathBuf::from("/etc/dnsmasq.conf")];
    // A folder that is not there has no files.
    let more = std::fs::read_dir("/etc/dnsmasq.d").into_iter().flatten().flatten().map(|entry| entry.path());
    files.extend(more);
    files.sort();
    // Without them there is no such server here.
    files.retain(|path| path.is_file());
    read_with_includes(files)
}

/// Each file once, also where they include each other in a circle.
fn read_with_includes(files: Vec<PathBuf>) -> Given {
    let mut given = Given::default();
    let mut known: BTreeSet<PathBuf> = files.iter().cloned().collect();
    let mut next = VecDeque::from(files);
    while let Some(path) = next.pop_front() {
        match read(&path) {
            Ok(_) if known.len() > FILES_MAX => {
                let error = std::io::Error::other(format!("it is one of more than {FILES_MAX} files"));
                given.unread.push((path, error));
                break;
            }
            Ok(text) => {
                given.ranges.extend(dynamic_ranges(&text).into_iter().map(|range| (path.clone(), range)));
                next.extend(includes(&text).into_iter().filter(|name| known.insert(name.clone())));
            }
            Err(error) => given.unread.push((path, error)),
        }
    }
    given
}

/// A pipe would never end.
fn read(path: &Path) -> std::io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is not a file of up to {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chains_of_others_that_drop_what_guests_send_are_named() {
        let listing = "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\
                       \tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n\
                       \tchain DOCKER {\n\t}\n}\n\
                       table inet open {\n\tchain f {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n\
                       table bridge labwright {\n\tchain x {\n\t\ttype filter hook prerouting priority -400; policy drop;\n\t}\n}\n\
                       table ip6 filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n\
                       table bridge strict {\n\tchain f {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n";
        let found = |iptables_sees_bridges| {
            let chains = dropping_chains(listing, iptables_sees_bridges).into_iter();
            chains.map(|chain| (chain.name, chain.on_bridges)).collect::<Vec<_>>()
        };
        let expected = |ip| {
            [
                ("FORWARD of table ip filter", ip),
                ("FORWARD of table ip6 filter", false),
                ("f of table bridge strict", true),
            ]
            .map(|(name, on_bridges)| (name.to_owned(), on_bridges))
        };
        assert_eq!(found(false), expected(false));
        assert_eq!(found(true), expected(true));
    }

    #[test]
    fn legacy_chains_that_drop_are_named_once() {
        let saved = "# Generated by iptables-save\n*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n\
                     *filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n-A FORWARD -i eth0 -j DROP\n-A FORWARD -j DROP\nCOMMIT\n\
                     *mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n\
                     *raw\n:PREROUTING DROP [0:0]\n-A FORWARD -p udp -j DROP\nCOMMIT\n";
        let found: Vec<String> = dropping_legacy_chains(saved, false).into_iter().map(|chain| chain.name).collect();
        let expected = ["FORWARD of iptables-legacy's table filter", "FORWARD of iptables-legacy's table mangle"];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_dhcpd_that_includes_in_circles_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let include = |name: &str| format!("include \"{}\";", path(name).display());
        let write = |name: &str, text: String| std::fs::write(path(name), text).unwrap();
        let range = |last: u8| format!("range 10.0.0.{last};\n");
        write("first", format!("{} group {{ {} }} {}", include("second"), include("missing"), range(1)));
        write("second", format!("{}\n# {}\n{}\n", include("first"), include("not this"), include("third")));
        write("third", format!("{}\n{}\n{}", include("second"), include("third"), range(3)));
        let given = read_with_includes(vec![path("first")]);
        let ranges = [("first", 1), ("third", 3)]
            .map(|(name, last)| (path(name), ([10, 0, 0, last].into(), [10, 0, 0, last].into())));
        assert_eq!(given.ranges, ranges);
        let unread: Vec<PathBuf> = given.unread.into_iter().map(|(path, _)| path).collect();
        assert_eq!(unread, [path("missing")]);
        assert_eq!(includes("include \"dhcp/lab.conf\";"), [Path::new("/dhcp/lab.conf")]);

        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let many: String = (0..2000).map(|number| include(&format!("many-{number}"))).collect();
        write("many", format!("{many}{}", include("pipe")));
        (0..10).for_each(|number| write(&format!("many-{number}"), range(7)));
        let given = read_with_includes(vec![path("pipe"), path("many")]);
        assert_eq!((given.ranges.len(), given.unread.len()), (0, 2), "{given:?}");
    }

    #[test]
    fn dynamic_ranges_of_both_servers_are_found() {
        let ip = |last| Ipv4Addr::new(192, 168, 100, last);
        let dhcpd = "subnet 192.168.100.0 netmask 255.255.255.0 {\n  # range 192.168.100.2 192.168.100.9;\n  \
                     range 192.168.100.100 192.168.100.200; range dynamic-bootp 192.168.100.7;\n}\n";
        assert_eq!(dynamic_ranges(dhcpd), [(ip(100), ip(200)), (ip(7), ip(7))]);
        let dnsmasq = "dhcp-range=set:a,192.168.100.50,192.168.100.60,255.255.255.0,1h\n#dhcp-range=192.168.100.1,192.168.100.2\n\
                       dhcp-range=192.168.100.0,static\n";
        assert_eq!(dynamic_ranges(dnsmasq), [(ip(50), ip(60))]);
    }
}
