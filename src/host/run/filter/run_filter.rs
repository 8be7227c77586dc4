//! The filter of one run, whichever way its site holds it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::READY;
use super::ebtables::{Chains, run_rules};
use super::generation::{Generation, generation};
use super::host_table::{guard, host_table_command};
use super::listing::Listing;
use super::rules::{counter, run_table};
use super::session::{FilterError, Session};
use super::table::Table;
use super::turn::{NoTurn, Turn, Turns};
use crate::model::id::RunId;
use crate::model::site::Filter;
use crate::run::{Dropped, RunNetwork};

/// Stands as long as it is held. A starter that is killed leaves of it at most the chains of ebtables, which the next sweep
/// takes; the guest is gone by then.
#[derive(Debug)]
pub struct RunFilter {
    session: Session,
    /// Owned by the session: the rules themselves, or the guard of those below.
    table: Table,
    chains: Option<Chains>,
    turns: Turns,
    tap: String,
    /// What the run's own table said when it was last listed.
    listed: Option<Listed>,
    /// What was dropped by the last listing, and of that what a table counted that is gone.
    dropped: Dropped,
    dropped_before: Dropped,
    /// The rules of the run's own table as they were read back when they were put up last.
    rules: Vec<String>,
    /// The generation of rules in which all that others could change was read back and stood.
    whole_in: Option<Generation>,
    whole_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Listed {
    at: Instant,
    /// How many frames the guest had sent before.
    frames: Option<u64>,
    ready: u64,
}

/// How long a look at what others can change may be put off. What they take away cuts the guest off, and opens nothing.
const PUT_OFF_MAX: Duration = Duration::from_secs(60);

impl RunFilter {
    /// Starts what is to hold the rules, and waits for nothing; `stand` gives them to the kernel.
    pub fn start(run: &RunId, network: &RunNetwork, run_root: &Path) -> Result<Self, FilterError> {
        let (table, chains) = match network.filter {
            Filter::Nftables => (run_table(run, network), None),
            Filter::Ebtables => (guard(run, network), Some(Chains::new(run, run_rules(run, network)))),
        };
        let (session, turns) = (Session::start()?, Turns::new(run_root));
        let (tap, whole_at) = (run.tap(), Instant::now());
        let (dropped, dropped_before) = (Dropped::default(), Dropped::default());
        let (listed, rules, whole_in) = (None, Vec::new(), None);
        Ok(Self { session, table, chains, turns, tap, listed, dropped, dropped_before, rules, whole_in, whole_at })
    }

    /// Puts other rules in place of those that stand, and reads them back, in one turn. nft does so at one moment; between the old
    /// chains of ebtables and the new ones the guest is cut off. Where it fails, `look` says what does not stand, and `mend`
    /// puts the new rules up.
    pub fn change(&mut self, run: &RunId, network: &RunNetwork) -> Result<Option<NoTurn>, FilterError> {
        let mut turn = self.turns.take();
        (self.listed, self.whole_in) = (None, None);
        match self.chains.as_mut() {
            None => {
                // What the old table has counted goes with it.
                if let Ok(listing) = self.verify_table() {
                    self.count(&listing);
                }
                self.dropped_before = self.dropped;
                self.table = run_table(run, network);
                self.session.replace(&self.table)?;
            }
            Some(chains) => {
                *chains = Chains::new(run, run_rules(run, network));
                chains.replace()?;
            }
        }
        self.rules = self.verify_table()?.rules();
        self.verify_what_others_can_change(&turn)?;
        Ok(turn.missed())
    }

    /// The rules of the run's own table as they were read back when they were put up last, each with its chain.
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// Tells another thread whether this one waits for its turn. That ends by itself: a line that does not move is left.
    pub fn in_line(&self) -> Arc<AtomicBool> {
        self.turns.in_line()
    }

    /// Gives the kernel the rules and reads everything back, in one turn. Only then may the tap join the bridge. Returns why
    /// it was out of turn, where it was: the rules stand all the same.
    pub fn stand(&mut self) -> Result<Option<NoTurn>, FilterError> {
        let mut turn = self.turns.take();
        let before = generation().filter(|before| turn.knows(*before));
        self.session.add(&self.table)?;
        self.rules = self.verify_table()?.rules();
        if let Some(chains) = &self.chains {
            chains.add()?;
        }
        let after = generation();
        if self.chains.is_none() && after.is_some() && after == before.map(Generation::next) {
            // The table is all that has changed since another run has read the host's.
            self.note_whole(after, &turn);
            return Ok(turn.missed());
        }
        match (self.verify_what_others_can_change(&turn), &self.chains) {
            // A starter of this run that was killed has left some. A listing of ebtables takes as long as all else, so
            // that they are not looked for before.
            (Err(FilterError::Ebtables(_)), Some(chains)) => {
                chains.replace()?;
                self.verify_what_others_can_change(&turn)?;
            }
            (verified, _) => verified?,
        }
        Ok(turn.missed())
    }

    /// Whether everything stands, and how often the guest has said in ARP that it has its planned address: more than never
    /// is *ready*. Lists the run's own table where the guest has sent frames since, and the rest only where somebody has
    /// changed rules of this host since it was last seen whole. The error is what does not stand; `mend` puts that back.
    ///
    /// Starts go first: as long as others have the turn, the rest is put off, though not for longer than `PUT_OFF_MAX`.
    pub fn look(&mut self) -> Result<u64, FilterError> {
        let ready = self.ready()?;
        let is_known = self.whole_in.is_some() && generation() == self.whole_in;
        if !is_known {
            let late = self.whole_at.elapsed() > PUT_OFF_MAX;
            let turn = if late { Some(self.turns.take()) } else { self.turns.take_if_free() };
            if let Some(turn) = turn {
                self.verify_what_others_can_change(&turn)?;
            }
        }
        Ok(ready)
    }

    /// What was dropped by the time of the last look; `None` where that is done by ebtables, which is not asked: a listing of it
    /// is one of all runs.
    pub fn dropped(&self) -> Option<Dropped> {
        self.chains.is_none().then_some(self.dropped)
    }

    /// Puts back what others have taken away. Meanwhile the guest was cut off: by the host's table when the run's rules
    /// were gone, by the run's own table when the host's was. Returns as `stand` does.
    pub fn mend(&mut self) -> Result<Option<NoTurn>, FilterError> {
        let mut turn = self.turns.take();
        self.listed = None;
        if self.verify_table().is_err() {
            self.session.end();
            self.session = Session::start()?;
            self.dropped_before = self.dropped;
            self.session.add(&self.table)?;
        }
        if self.session.verify_host_table().is_err() {
            self.session.send(&host_table_command())?;
        }
        if let Some(chains) = self.chains.as_ref().filter(|chains| chains.verify().is_err()) {
            chains.replace()?;
        }
        self.verify_table()?;
        self.verify_what_others_can_change(&turn)?;
        Ok(turn.missed())
    }

    /// The kernel lets nobody change the run's own table but the nft that owns it, and counts there nothing but frames of this
    /// guest: as long as that lives and no frame has come, it reads as it read.
    fn ready(&mut self) -> Result<u64, FilterError> {
        // What comes while it is read counts as come since.
        let frames = frames_from(&self.tap);
        let stands = |listed: &Listed| frames.is_some() && listed.frames == frames && listed.at.elapsed() < PUT_OFF_MAX;
        if let Some(listed) = self.listed.filter(stands).filter(|_| self.session.is_alive()) {
            return Ok(listed.ready);
        }
        self.listed = None;
        let listing = self.verify_table()?;
        let ready = listing.packets(READY);
        self.count(&listing);
        self.listed = Some(Listed { at: Instant::now(), frames, ready });
        Ok(ready)
    }

    fn count(&mut self, listing: &Listing) {
        self.dropped = self.dropped_before.and(&Dropped::of(|why| listing.packets(&counter(why))));
    }

    /// The run's table. The kernel lets nobody change it but its owner, with whom it goes.
    fn verify_table(&mut self) -> Result<Listing, FilterError> {
        self.session.verify(&self.table)
    }

    /// What was read in turn in the same generation of rules is not read again.
    fn verify_what_others_can_change(&mut self, turn: &Turn) -> Result<(), FilterError> {
        // What is changed while it is read counts as changed since.
        let generation = generation();
        self.whole_in = None;
        if let Some(chains) = &self.chains {
            chains.verify()?;
        }
        if !generation.is_some_and(|generation| turn.knows(generation)) {
            self.session.verify_host_table()?;
        }
        self.note_whole(generation, turn);
        Ok(())
    }

    fn note_whole(&mut self, generation: Option<Generation>, turn: &Turn) {
        self.whole_in = generation;
        self.whole_at = Instant::now();
        if let Some(generation) = generation {
            turn.tell(generation);
        }
    }
}

/// How many frames a guest has sent; `None` where it has no tap yet.
fn frames_from(tap: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/sys/class/net/{tap}/statistics/rx_packets")).ok()?.trim().parse().ok()
}

impl Drop for RunFilter {
    fn drop(&mut self) {
        let _turn = self.turns.take();
        if let Some(Err(error)) = self.chains.as_ref().map(Chains::remove) {
            tracing::warn!(%error, "the run's chains stay behind, for the next sweep");
        }
        self.session.end();
    }
}
