//! The host's permanent table: what makes the filter fail closed.

use super::table::{Chain, Table};
use super::{FROM_GUEST, TO_GUEST};

/// Name of the table, in the `bridge` family.
pub const HOST_TABLE: &str = "labwright";

/// Drops every frame from and to a `lw*` port that no run's table has marked. A frame enters without our marks, whoever
/// set them: only a run's table on this very bridge can.
pub fn host_table() -> Table {
    let keep = !(FROM_GUEST | TO_GUEST);
    let chain = |name, hook, rule| Chain { name, hook: Some(hook), rules: vec![rule] };
    Table {
        name: HOST_TABLE.to_owned(),
        owned: false,
        counters: Vec::new(),
        chains: vec![
            chain("arrive", "prerouting priority -400", format!("meta mark set meta mark & {keep:#010x} continue")),
            chain(
                "from_guest",
                "prerouting priority -200",
                format!("iifname \"lw*\" meta mark & {FROM_GUEST:#010x} == 0x00000000 counter drop"),
            ),
            chain("leave", "postrouting priority -400", format!("meta mark set meta mark & {keep:#010x} continue")),
            chain(
                "to_guest",
                "postrouting priority -200",
                format!("oifname \"lw*\" meta mark & {TO_GUEST:#010x} == 0x00000000 counter drop"),
            ),
        ],
    }
}

/// Puts the table up, also over one that is there: taken down and put up in one transaction.
pub fn host_table_command() -> String {
    format!("add table bridge {HOST_TABLE} ; delete table bridge {HOST_TABLE} ; {}", host_table().command())
}
