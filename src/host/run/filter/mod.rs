//! Which frames a guest may send and get. Two tables of the nftables `bridge` family share the work:
//!
//! ```text
//! table lw_<site>_<n>   the run's: accepts and marks what is right. Owned by an `nft -i` child of the starter, so the
//!                       kernel removes it when the starter dies                                     -> rules, session
//! table labwright       the host's, permanent: drops on every `lw*` port what no run's rules marked -> host_table
//!
//! frame from the guest ─▶ prerouting  -400 host: clear marks  -300 run: mark or drop  -200 host: unmarked is dropped
//! frame to the guest   ─▶ postrouting -400 host: clear mark   -300 run: mark or drop   400 host: unmarked is dropped
//! ```
//!
//! So a guest whose starter is gone, or whose table is not there yet, is cut off: there is no moment without a filter.
//! Prerouting and not forward, because forward sees nothing that goes to the gateway when that is the bridge itself, and
//! because the bridge learns addresses before it. All three come before priority 0, where `br_netfilter` lets iptables
//! rewrite marks; on the way out it does so last of all.
//!
//! Whoever changes rules takes its turn on the host (turn) and reads back what it wrote, word by word (listing, table). Then
//! it looks again every few seconds: at the run's own table always, which also counts what *ready* means, and at what others
//! can change only when the kernel has seen a change of rules since (generation).
//!
//! What the run's table drops it counts by why, as `run::Dropped` names it; the starter tells it in the report. With ebtables nobody
//! counts: a listing of it is one of all runs of the host.
//!
//! Where the site says `filter: ebtables`, chains of ebtables mark in the run's stead, and the run's table is a guard that
//! drops what they did not mark -> ebtables. `RunFilter` is either.
//!
//! | what a guest may not | nftables | ebtables |
//! |---|---|---|
//! | send from another's hardware or IP address, also in ARP | dropped | dropped |
//! | send 802.1Q tags, 802.3, IPv6, any type but IPv4 and ARP | dropped | dropped |
//! | answer as a DHCP server | dropped | dropped |
//! | ask DHCP of others than all, or one of the site's servers | dropped | dropped |
//! | get DHCP answers of others than the site's servers: address, and Ethernet address on the wire | dropped | dropped |
//! | reach the DHCP server's control port, or vnc at the gateway | dropped | dropped |
//! | ask DHCP for a foreign hardware address, as a relay, for another's address, in pieces | dropped | **passes** |
//! | get a DHCP answer for another | dropped | **passes** |
//! | flood the host with ARP or DHCP | limited | limited |
//! | overwrite a header by a fragment at offset 8 | dropped | **passes**, unless isolated |
//! | take another's entry in the bridge's table | dropped before the bridge learns | the same |
//! | believe that the gateway is elsewhere, where its Ethernet address is written or the bridge's | dropped | dropped |
//! | isolated: reach or hear another guest, on any host, also through the gateway | dropped | dropped |
//! | isolated: send or get later fragments | dropped | dropped |
//! | isolated: send or get IP options, such as the way that a packet is to go | dropped | **passes** with who may be spoken to |
//! | isolated: send IP to another Ethernet address than the gateway's, or that of a server on the wire that `dns` or `egress` names | dropped | dropped |
//! | isolated: get IP from another than these, or one of the gateway's routers | dropped | dropped |
//! | isolated: ask by ARP for others, or ask anyone but all and them; believe what others say of them | dropped | dropped |
//! | isolated: reach more of the gateway than ping, DHCP where it serves it, and what `dns` and `egress` name | dropped | dropped |
//! | isolated: hear more of the gateway than pings, their answers, and why a packet did not arrive; no redirects | dropped | dropped |
//!
//! What stays open by nature, for an isolated guest too:
//!
//! | open | cure |
//! |---|---|
//! | words in a DHCP question or in the padding of an ARP question: both go to all machines on the wire | a VLAN for each vm group |
//! | words in pings to the gateway | the gateway's own firewall |
//! | names as words, to a resolver that asks the whole world | `dns: []`, or a resolver that knows what is needed |
//! | what an `egress` entry answers or passes on, and what is beyond the gateway at that address | name less; the gateway's own firewall |
//! | a machine on the wire that forges the gateway's address *and* Ethernet address | a VLAN for each vm group; the switch's port security |
//!
//! The Ethernet addresses that the rules go by are found before they are written -> `host::gateway`. Who is not found has no
//! rule, and is not reached. -> peers

mod ebtables;
mod generation;
mod host_table;
mod listing;
mod peers;
mod rules;
mod run_filter;
mod session;
mod table;
mod turn;

pub use ebtables::{CANNOT as EBTABLES_CANNOT, EbtablesError, SAVE as EBTABLES_SAVE, remove_chains, runs_with_chains};
pub use host_table::{HOST_TABLE, host_table, host_table_command};
pub use listing::{ListedChain, Listing};
pub use peers::wanted_stations;
pub use rules::run_table;
pub use run_filter::RunFilter;
pub use session::{FilterError, Session};
pub use table::{Chain, Table};
pub use turn::{NoTurn, Turn, Turns};

/// How often rules are read back before they are taken to differ.
const READS_MAX: u32 = 5;

/// What is read back, where it stands as it should, else what differs. A listing is no snapshot: while others change the
/// rules of the host, the kernel may list a chain twice or not at all, so what differs is read again.
fn difference<L, E>(
    mut read: impl FnMut() -> Result<L, E>,
    difference: impl Fn(&L) -> Option<String>,
) -> Result<Result<L, String>, E> {
    let mut reads = 1;
    loop {
        let listing = read()?;
        match difference(&listing) {
            None => return Ok(Ok(listing)),
            Some(difference) if reads == READS_MAX => return Ok(Err(difference)),
            Some(_) => reads += 1,
        }
    }
}

/// Bit of the mark of a frame that the run's rules accepted from its guest.
const FROM_GUEST: u32 = 0x0001_0000;
/// Bit of the mark of a frame that the run's rules accepted towards its guest.
const TO_GUEST: u32 = 0x0002_0000;
/// Name of the counter of what *ready* means: the guest uses its planned address.
const READY: &str = "ready";
