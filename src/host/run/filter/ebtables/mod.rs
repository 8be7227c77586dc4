//! A run's rules in ebtables, for a site that says `network: { filter: ebtables }`: chains of the table `nat`, named after
//! the run, with their jumps in PREROUTING and POSTROUTING.
//!
//! ```text
//! frame from the guest ─▶ PREROUTING  -300 ─▶ labwright-<run>-from ─┬─▶ …-arp
//!                                                                   └─▶ …-ip ─┬─▶ …-dhcp
//!                                                                             └─▶ …-gout  to the gateway
//! frame to the guest   ─▶ POSTROUTING  300 ─▶ labwright-<run>-to ─┬─▶ …-ain   ARP to an isolated one
//!                                                                 ├─▶ …-ans   DHCP answers
//!                                                                 └─▶ …-gin   from the gateway
//! ```
//!
//! PREROUTING comes before INPUT and FORWARD, and POSTROUTING after FORWARD and OUTPUT, so that one place sees what three
//! would. It is also the only one of ebtables that comes before the bridge learns addresses: a rule in FORWARD or INPUT
//! drops a frame with another guest's address, but the bridge has noted the thief by then.
//!
//! What ebtables accepts it marks, and `guard` drops the rest: rules of ebtables outlive their process and do not survive
//! a flush, so that they alone fail open.
//!
//! The rules are written with `ebtables-nft-restore`, which gives the kernel all of them in one transaction; nothing is
//! lost when many starters write at once. (`--concurrent` is the lock of the other tool, which changes rule by rule.)

mod chains;
mod rules;

pub(super) use chains::Chains;
pub use chains::{EbtablesError, SAVE, remove_chains, runs_with_chains};
pub(super) use rules::run_rules;

/// What a filter of ebtables lets through that nftables stops: it sees addresses, ports and protocols, and neither the
/// inside of a DHCP message nor where a fragment begins.
pub const CANNOT: &str = "ebtables cannot drop DHCP for a foreign hardware address, as a relay or in pieces, nor a plain guest's \
                          fragment that overwrites the header before it, nor an isolated guest's options of IP";
