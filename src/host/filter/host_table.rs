//! The tables that make the filter fail closed: the host's permanent one, and a run's guard where its rules are not
//! nftables' own.

use super::table::{Chain, Table};
use super::{FROM_GUEST, TO_GUEST};
use crate::id::RunId;

/// Name of the table, in the `bridge` family.
pub const HOST_TABLE: &str = "labwright";

/// Drops every frame from and to a `lw*` port that no run's rules have marked.
pub fn host_table() -> Table {
    unmarked_is_dropped(HOST_TABLE.to_owned(), "lw*", false)
}

/// The same for one run's tap, owned by its starter. Rules of ebtables do not survive `nft flush ruleset`, and neither does
/// the host's table; a table with an owner does.
pub(super) fn guard(run: &RunId) -> Table {
    unmarked_is_dropped(run.nft_table(), &run.tap(), true)
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
