//! Watches the guest's network in a thread of its own, because nft may take long to answer, or never does: neither the fence
//! nor a deadline may wait for that. In: whether the guest's address is looked for. Out: that it was seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::inbox::Post;
use super::machine::Input;
use crate::error::chain;
use crate::host::run::filter::RunFilter;
use crate::host::run::port::{self, Port};
use crate::run::{Dropped, RunSpec};

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
    End,
}

impl Network {
    /// Takes over a filter that stands.
    pub(super) fn watch(filter: RunFilter, spec: RunSpec, post: Post) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let in_line = filter.in_line();
        let (address, told_dropped) = (None, Dropped::default());
        let watch = Watch { filter, spec, post, address, told_dropped, is_cut_off: false, is_in_doubt: false };
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(move || watch.run(&inbox))?;
        Ok(Self { orders, in_line, thread: Some(thread) })
    }

    /// Tells, once, when the guest is seen using its address.
    pub(super) fn look_for_address(&self) {
        // A thread that is gone has panicked, and said so.
        drop(self.orders.send(Order::Look));
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
    spec: RunSpec,
    post: Post,
    /// How often the address had been seen at the last look, while it is looked for.
    address: Option<u64>,
    /// What the report says last of frames that were dropped.
    told_dropped: Dropped,
    is_cut_off: bool,
    /// The last look failed for the first time. A qemu that ends takes its tap along, before anybody has told us of its end.
    is_in_doubt: bool,
}

impl Watch {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            let is_urgent = self.address.is_some() || self.is_cut_off || self.is_in_doubt;
            match inbox.recv_timeout(if is_urgent { SOON } else { LOOK }) {
                Ok(Order::Look) => self.address = Some(self.filter.look().unwrap_or(0)),
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    self.tell_dropped();
                }
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// First the filter, then the port: no guest is on a bridge without its rules.
    fn look(&mut self) {
        let stands = self.look_at_filter().and_then(|()| self.look_at_port());
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
            Ok(None) => {}
            Ok(Some(missed)) => self.post.tell(Input::Warning(chain(&missed))),
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
