//! Watches the guest's network in a thread of its own, because nft may take long to answer, or never does: neither the fence
//! nor a deadline may wait for that. In: whether the guest's address is looked for, and whom it may reach. Out: that it was
//! seen, and what it reaches.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::inbox::Post;
use super::machine::{Input, Reach};
use crate::error::chain;
use crate::host::run::filter::{NoTurn, RunFilter};
use crate::host::run::gateway;
use crate::host::run::port::{self, Port};
use crate::run::{Dropped, RunNetwork, RunSpec};

/// How often filter and port are looked at. Between two looks the host's table cuts off a guest without a filter.
const LOOK: Duration = Duration::from_secs(10);
/// The same while a guest boots, whose address shows there too, or is cut off, or seems so.
const SOON: Duration = Duration::from_secs(1);
/// How long the end of a run waits for an nft that does not answer. It ends with the starter in any case.
const END_WAIT: Duration = Duration::from_secs(15);

/// The guest's filter, and the thread that holds it.
#[derive(Debug)]
pub(super) struct Network {
    orders: Sender<Order>,
    in_line: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    /// Tell when the guest uses its address, from now on.
    Look,
    Reach(Reach),
    End,
}

/// A run's network under a filter that lets its guest reach this. A guest that may reach nobody is not reached either, whether
/// or not it is isolated otherwise.
///
/// The network is one whose own machines were found. Those that `reach` names besides are looked for here; who is not found is
/// not reached, and `warn` hears of it.
pub(super) fn narrowed(network: &RunNetwork, reach: &Reach, run_root: &Path, warn: &dyn Fn(String)) -> RunNetwork {
    let network = network.clone();
    let network = match reach {
        Reach::AsPlanned => return network,
        Reach::Nobody => return RunNetwork { isolated: true, egress: Vec::new(), dns: Vec::new(), ..network },
        Reach::Named(egress) => RunNetwork { egress: egress.clone(), ..network },
    };
    match gateway::pin(&network, run_root) {
        Ok(pinned) => {
            pinned.silent.iter().for_each(|address| warn(is_silent(*address)));
            pinned.network
        }
        Err(error) => {
            warn(format!("its egress is not all found: {}", chain(&error)));
            network
        }
    }
}

pub(super) fn is_silent(address: Ipv4Addr) -> String {
    format!("{address} gives no answer on the guest's wire: the guest does not get through to it")
}

impl Network {
    /// Takes over a filter that stands, of a network whose machines were found.
    pub(super) fn watch(
        filter: RunFilter,
        network: RunNetwork,
        spec: RunSpec,
        run_root: &Path,
        post: Post,
    ) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let in_line = filter.in_line();
        let run_root = run_root.to_owned();
        let (address, told_dropped, ordered, is_cut_off, is_in_doubt) = (None, Dropped::default(), None, false, false);
        let watch =
            Watch { filter, network, run_root, spec, post, address, told_dropped, ordered, is_cut_off, is_in_doubt };
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(move || watch.run(&inbox))?;
        Ok(Self { orders, in_line, thread: Some(thread) })
    }

    /// Tells, once, when the guest is seen using its address.
    pub(super) fn look_for_address(&self) {
        // A thread that is gone has panicked, and said so.
        drop(self.orders.send(Order::Look));
    }

    /// Changes the rules, and tells when they stand.
    pub(super) fn reach(&self, reach: Reach) {
        drop(self.orders.send(Order::Reach(reach)));
    }
}

impl Drop for Network {
    /// Takes the filter down.
    fn drop(&mut self) {
        drop(self.orders.send(Order::End));
        let Some(thread) = self.thread.take() else { return };
        let mut deadline = Instant::now() + END_WAIT;
        while !thread.is_finished() && Instant::now() < deadline {
            // A class that ends at one moment waits in a line that moves; what is left behind is the next sweep's.
            if self.in_line.load(Ordering::Relaxed) {
                deadline = Instant::now() + END_WAIT;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if !thread.is_finished() {
            tracing::warn!("nft does not answer; the filter goes with this starter");
        }
    }
}

struct Watch {
    filter: RunFilter,
    network: RunNetwork,
    run_root: PathBuf,
    spec: RunSpec,
    post: Post,
    /// How often the address had been seen at the last look, while it is looked for.
    address: Option<u64>,
    /// What the report says last of frames that were dropped.
    told_dropped: Dropped,
    /// What the guest is to reach, and does not yet.
    ordered: Option<Reach>,
    is_cut_off: bool,
    /// The last look failed for the first time. A qemu that ends takes its tap along, before anybody has told us of its end.
    is_in_doubt: bool,
}

impl Watch {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            let is_urgent = self.address.is_some() || self.ordered.is_some() || self.is_cut_off || self.is_in_doubt;
            match inbox.recv_timeout(if is_urgent { SOON } else { LOOK }) {
                Ok(Order::Look) => self.address = Some(self.filter.look().unwrap_or(0)),
                Ok(Order::Reach(reach)) => self.change(reach),
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    self.tell_dropped();
                }
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Rules that cannot be changed now do not stand at the next look, which puts them up.
    fn change(&mut self, reach: Reach) {
        let warn = |message| self.post.tell(Input::Warning(message));
        let network = narrowed(&self.network, &reach, &self.run_root, &warn);
        self.ordered = Some(reach);
        match self.filter.change(&self.spec.run, &network) {
            Ok(missed) => {
                self.post_missed(missed.as_ref());
                let reach = self.ordered.clone().unwrap_or(Reach::AsPlanned);
                self.post.tell(Input::Filtered(reach, self.filter.rules().to_vec()));
                self.tell_reach();
            }
            Err(error) => tracing::warn!(%error, "the filter cannot be changed; trying again"),
        }
    }

    fn post_missed(&self, missed: Option<&NoTurn>) {
        if let Some(missed) = missed {
            self.post.tell(Input::Warning(chain(missed)));
        }
    }

    fn tell_reach(&mut self) {
        if let Some(reach) = self.ordered.take() {
            self.post.tell(Input::Reaches(reach));
        }
    }

    /// First the filter, then the port: no guest is on a bridge without its rules.
    fn look(&mut self) {
        let stands = self.look_at_filter().and_then(|()| self.look_at_port());
        if stands.is_ok() {
            self.tell_reach();
        }
        let was_in_doubt = std::mem::replace(&mut self.is_in_doubt, stands.is_err());
        match (stands, self.is_cut_off) {
            (Err(reason), false) if was_in_doubt => {
                tracing::warn!(reason, "the guest is cut off");
                self.post.tell(Input::CutOff(reason));
                self.is_cut_off = true;
            }
            (Ok(()), true) => {
                self.post.tell(Input::Connected);
                self.is_cut_off = false;
            }
            _ => {}
        }
    }

    fn tell_dropped(&mut self) {
        let news = self.filter.dropped().filter(|dropped| dropped.is_news_after(&self.told_dropped));
        if let Some(dropped) = news {
            self.told_dropped = dropped;
            self.post.tell(Input::Dropped(dropped));
        }
    }

    fn look_at_filter(&mut self) -> Result<(), String> {
        let error = match self.filter.look() {
            Ok(seen) if self.address.is_some_and(|before| seen > before) => {
                self.address = None;
                self.post.tell(Input::Address);
                return Ok(());
            }
            Ok(seen) => {
                // Rules that were put back count from nothing.
                self.address = self.address.map(|_| seen);
                return Ok(());
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "the filter is not whole any more; putting it back");
        match self.filter.mend() {
            Ok(missed) => self.post_missed(missed.as_ref()),
            Err(error) => return Err(format!("its filter cannot be put back: {}", chain(&error))),
        }
        Ok(())
    }

    fn look_at_port(&self) -> Result<(), String> {
        let (tap, alias) = (self.spec.run.tap(), port::run_mark(&self.spec.run));
        let network = &self.spec.network;
        let port =
            Port { tap: &tap, bridge: &network.bridge, mac: network.mac, isolated: network.isolated, alias: &alias };
        if port.stands() {
            return Ok(());
        }
        port.join_again().map_err(|error| chain(&error))?;
        tracing::warn!(bridge = network.bridge, "the guest was not on its bridge any more; it is back");
        Ok(())
    }
}
