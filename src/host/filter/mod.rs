//! Which frames a guest may send and get. Two tables of the nftables `bridge` family share the work:
//!
//! ```text
//! table lw_<site>_<n>   the run's: accepts and marks what is right. Owned by an `nft -i` child of the starter, so the
//!                       kernel removes it when the starter dies                                     -> rules, session
//! table labwright       the host's, permanent: drops on every `lw*` port what no run's table marked -> host_table
//!
//! frame from the guest ─▶ prerouting  -400 host: clear marks  -300 run: mark or drop  -200 host: unmarked is dropped
//! frame to the guest   ─▶ postrouting -400 host: clear mark   -300 run: mark or drop  -200 host: unmarked is dropped
//! ```
//!
//! So a guest whose starter is gone, or whose table is not there yet, is cut off: there is no moment without a filter.
//! Prerouting and not forward, because forward sees nothing that goes to the gateway when that is the bridge itself, and
//! because the bridge learns addresses before it. All three come before priority 0, where `br_netfilter` lets iptables
//! rewrite marks.

mod host_table;
mod rules;
mod session;
mod table;

pub use host_table::{HOST_TABLE, host_table, host_table_command};
pub use rules::run_table;
pub use session::{FilterError, Session};
pub use table::{Chain, Table};

/// `meta mark` bit of a frame that the run's table accepted from its guest.
const FROM_GUEST: u32 = 0x0001_0000;
/// `meta mark` bit of a frame that the run's table accepted towards its guest.
const TO_GUEST: u32 = 0x0002_0000;
