//! The tables that make the filter fail closed: the host's permanent one, and a run's guard where its rules are not
//! nftables' own.

use super::table::{Chain, Table};
use super::{FROM_GUEST, READY, TO_GUEST};
use crate::model::id::RunId;
use crate::run::RunNetwork;

/// Name of the table, in the `bridge` family.
pub const HOST_TABLE: &str = "labwright";

/// Drops every frame from and to a `lw*` port that no run's rules have marked.
pub fn host_table() -> Table {
    unmarked_is_dropped(HOST_TABLE.to_owned(), "lw*", false)
}

/// The same for one run's tap, owned by its starter. Rules of ebtables do not survive `nft flush ruleset`, and neither does
/// the host's table; a table with an owner does. It also counts what *ready* means, as the rules of nftables do: the guest
/// names its planned address in ARP.
pub(super) fn guard(run: &RunId, network: &RunNetwork) -> Table {
    let RunNetwork { mac, ip, .. } = network;
    let mut table = unmarked_is_dropped(run.nft_table(), &run.tap(), true);
    table.counters.push(READY.to_owned());
    table.chains[0].rules.push(format!(
        "iifname \"{}\" ether saddr {mac} arp saddr ether {mac} arp saddr ip {ip} counter name \"{READY}\" continue",
        run.tap()
    ));
    table
}

/// A frame enters without our marks, whoever set them: only a run's rules on this very bridge can. The last chain comes
/// after ebtables' POSTROUTING, which is at 300.
fn unmarked_is_dropped(name: String, port: &str, owned: bool) -> Table {
    let keep = !(FROM_GUEST | TO_GUEST);
    let chain = |name, hook, rule| Chain { name, hook: Some(hook), rules: vec![rule] };
    Table {
        name,
        owned,
        counters: Vec::new(),
        chains: vec![
            chain("arrive", "prerouting priority -400", format!("meta mark set meta mark & {keep:#010x} continue")),
            chain(
                "from_guest",
                "prerouting priority -200",
                format!("iifname \"{port}\" meta mark & {FROM_GUEST:#010x} == 0x00000000 counter drop"),
            ),
            chain("leave", "postrouting priority -400", format!("meta mark set meta mark & {keep:#010x} continue")),
            chain(
                "to_guest",
                "postrouting priority 400",
                format!("oifname \"{port}\" meta mark & {TO_GUEST:#010x} == 0x00000000 counter drop"),
            ),
        ],
    }
}

/// Puts the table up, also over one that is there: taken down and put up in one transaction.
pub fn host_table_command() -> String {
    format!("add table bridge {HOST_TABLE} ; delete table bridge {HOST_TABLE} ; {}", host_table().command())
}

#[cfg(test)]
mod tests {
    use super::super::listing::Listing;
    use super::super::rules::tests::network;
    use super::*;
    use crate::model::id::SiteTag;

    fn written(table: &Table) -> String {
        let hook = |chain: &Chain| chain.hook.unwrap_or_default().to_owned();
        table.chains.iter().map(|c| format!("{} ({})\n  {}\n", c.name, hook(c), c.rules.join("\n  "))).collect()
    }

    #[test]
    fn what_no_run_has_marked_is_dropped() {
        insta::assert_snapshot!(written(&host_table()));
    }

    #[test]
    fn a_guard_does_so_for_one_run_and_counts_its_arp() {
        let run = RunId::new(SiteTag::new("k3f9").unwrap(), 104);
        insta::assert_snapshot!(written(&guard(&run, &network(true))));
    }

    /// As nft 1.0.6 lists the host's table.
    const LISTING: &str = "table bridge labwright {\n\
        \tchain arrive {\n\t\ttype filter hook prerouting priority -400; policy accept;\n\
        \t\tmeta mark set meta mark & 0xfffcffff continue\n\t}\n\n\
        \tchain from_guest {\n\t\ttype filter hook prerouting priority -200; policy accept;\n\
        \t\tiifname \"lw*\" meta mark & 0x00010000 == 0x00000000 counter packets 5 bytes 210 drop\n\t}\n\n\
        \tchain leave {\n\t\ttype filter hook postrouting priority -400; policy accept;\n\
        \t\tmeta mark set meta mark & 0xfffcffff continue\n\t}\n\n\
        \tchain to_guest {\n\t\ttype filter hook postrouting priority 400; policy accept;\n\
        \t\toifname \"lw*\" meta mark & 0x00020000 == 0x00000000 counter packets 0 bytes 0 drop\n\t}\n}\n";

    #[test]
    fn whatever_is_changed_is_noticed() {
        assert_eq!(host_table().difference(&Listing::read(LISTING)), None);
        let changes = [
            ("bridge labwright {\n", "bridge labwright {\n\tflags dormant\n"),
            ("\"lw*\"", "\"xx*\""),
            ("iifname", "oifname"),
            ("oifname", "iifname"),
            ("0x00010000", "0x00020000"),
            ("0x00020000", "0x00010000"),
            ("0xfffcffff", "0xffffffff"),
            ("== 0x00000000", "!= 0x00000000"),
            ("prerouting priority -200", "prerouting priority -500"),
            ("postrouting priority 400", "postrouting priority -500"),
            ("bytes 210 drop", "bytes 210 continue"),
            ("\t\toifname", "\t\taccept\n\t\toifname"),
        ];
        for (from, to) in changes {
            assert!(LISTING.contains(from), "{from}");
            let difference = host_table().difference(&Listing::read(&LISTING.replacen(from, to, 1)));
            assert!(difference.is_some(), "nobody sees that `{from}` became `{to}`");
        }
    }
}
