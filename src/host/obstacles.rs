//! What others on this host have set up that stands in the guests' way: firewalls, and DHCP servers that give a lab's
//! addresses to anyone. Texts of theirs come in, findings go out; nothing is changed.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::filter::HOST_TABLE;

/// A chain that drops whatever it does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DroppingChain {
    /// `FORWARD of table ip filter`.
    pub name: String,
    /// It sees the bridges' frames, not only what the host forwards.
    pub on_bridges: bool,
}

/// The chains of others that drop by default, in the output of `nft list chains`; the rules of `iptables-nft` are there too.
pub(super) fn dropping_chains(listing: &str) -> Vec<DroppingChain> {
    let (mut table, mut chain) = (String::new(), String::new());
    let mut found = Vec::new();
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix(" {") {
            match name.strip_prefix("chain ") {
                Some(name) => name.clone_into(&mut chain),
                None => name.clone_into(&mut table),
            }
        }
        let on_bridges = table.starts_with("table bridge ");
        let ours = on_bridges && (table.ends_with(&format!(" {HOST_TABLE}")) || table.starts_with("table bridge lw_"));
        let in_the_way = on_bridges || line.contains("hook forward");
        if line.starts_with("type filter hook ") && line.contains("policy drop") && in_the_way && !ours {
            found.push(DroppingChain { name: format!("{chain} of {table}"), on_bridges });
        }
    }
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

/// Where Debian keeps the configuration of the DHCP servers that we know.
pub(super) fn dhcp_configurations() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/dhcp/dhcpd.conf"), PathBuf::from("/etc/dnsmasq.conf")];
    // A folder that is not there has no files.
    let more = std::fs::read_dir("/etc/dnsmasq.d").into_iter().flatten().flatten().map(|entry| entry.path());
    files.extend(more);
    files.sort();
    files
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
                       table bridge strict {\n\tchain f {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n";
        let found: Vec<(String, bool)> =
            dropping_chains(listing).into_iter().map(|chain| (chain.name, chain.on_bridges)).collect();
        let expected =
            [("FORWARD of table ip filter".to_owned(), false), ("f of table bridge strict".to_owned(), true)];
        assert_eq!(found, expected);
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
