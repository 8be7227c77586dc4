//! The filter of one run, whichever way its site holds it.

use super::ebtables::{Chains, run_rules};
use super::host_table::{guard, host_table_command};
use super::rules::run_table;
use super::session::{FilterError, Session};
use super::table::Table;
use crate::id::RunId;
use crate::run::RunNetwork;
use crate::site::Filter;

/// Stands as long as it is held. A starter that is killed leaves of it at most the chains of ebtables, which the next sweep
/// takes; the guest is gone by then.
#[derive(Debug)]
pub struct RunFilter {
    session: Session,
    /// Owned by the session: the rules themselves, or the guard of those below.
    table: Table,
    chains: Option<Chains>,
}

impl RunFilter {
    /// Gives the kernel the rules; `verify` says whether it took them.
    pub fn add(run: &RunId, network: &RunNetwork) -> Result<Self, FilterError> {
        let (table, chains) = match network.filter {
            Filter::Nftables => (run_table(run, network), None),
            Filter::Ebtables => (guard(run), Some(Chains::new(run, run_rules(run, network)))),
        };
        let mut session = Session::start()?;
        session.add(&table)?;
        let filter = Self { session, table, chains };
        if let Some(chains) = &filter.chains {
            chains.add()?;
        }
        Ok(filter)
    }

    /// Reads everything back from the kernel and compares. Only then may the tap join the bridge.
    pub fn verify(&mut self) -> Result<(), FilterError> {
        self.session.verify(&self.table)?;
        if let Some(chains) = &self.chains {
            chains.verify()?;
        }
        self.session.verify_host_table()
    }

    /// How often the guest has said in ARP that it has its planned address. More than never is *ready*.
    pub fn seen(&mut self) -> Result<u64, FilterError> {
        match &self.chains {
            Some(chains) => Ok(chains.seen()?),
            None => self.session.counter(&self.table, "ready"),
        }
    }

    /// Puts back what others have taken away. Meanwhile the guest was cut off: by the host's table when the run's rules
    /// were gone, by the run's own table when the host's was.
    pub fn mend(&mut self) -> Result<(), FilterError> {
        let Err(error) = self.verify() else { return Ok(()) };
        tracing::warn!(%error, "the filter is not whole any more; putting it back");
        if self.session.verify(&self.table).is_err() {
            self.session.end();
            self.session = Session::start()?;
            self.session.add(&self.table)?;
        }
        if self.session.verify_host_table().is_err() {
            self.session.send(&host_table_command())?;
        }
        if let Some(chains) = self.chains.as_ref().filter(|chains| chains.verify().is_err()) {
            chains.add()?;
        }
        self.verify()
    }
}

impl Drop for RunFilter {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.chains.as_ref().map(Chains::remove) {
            tracing::warn!(%error, "the run's chains stay behind, for the next sweep");
        }
    }
}
