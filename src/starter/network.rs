//! Watches the guest's network in a thread of its own, because nft may take long to answer, or never does: neither the fence
//! nor a deadline may wait for that. In: whether the guest's address is looked for. Out: that it was seen.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::inbox::Post;
use super::machine::Told;
use crate::error::chain;
use crate::host::filter::RunFilter;

/// How often the filter is looked at. Between two looks the host's table cuts off a guest without a filter.
const FILTER_LOOK: Duration = Duration::from_secs(10);
/// The same while a guest boots, whose address shows there too.
const ADDRESS_LOOK: Duration = Duration::from_secs(1);
/// How long the end of a run waits for an nft that does not answer. It ends with the starter in any case.
const END_WAIT: Duration = Duration::from_secs(15);

/// The guest's filter, and the thread that holds it.
#[derive(Debug)]
pub(super) struct Network {
    orders: Sender<Order>,
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
    pub(super) fn watch(filter: RunFilter, post: Post) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let watch = Watch { filter, post, address: None };
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(move || watch.run(&inbox))?;
        Ok(Self { orders, thread: Some(thread) })
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
        let deadline = Instant::now() + END_WAIT;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if !thread.is_finished() {
            tracing::warn!("nft does not answer; the filter goes with this starter");
        }
    }
}

struct Watch {
    filter: RunFilter,
    post: Post,
    /// How often the address had been seen at the last look, while it is looked for.
    address: Option<u64>,
}

impl Watch {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            let wait = if self.address.is_some() { ADDRESS_LOOK } else { FILTER_LOOK };
            match inbox.recv_timeout(wait) {
                Ok(Order::Look) => self.address = Some(self.filter.look().unwrap_or(0)),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        match self.filter.look() {
            Ok(seen) if self.address.is_some_and(|before| seen > before) => {
                self.address = None;
                self.post.tell(Told::Address);
            }
            // Rules that were put back count from nothing.
            Ok(seen) => self.address = self.address.map(|_| seen),
            Err(error) => {
                tracing::warn!(%error, "the filter is not whole any more; putting it back");
                match self.filter.mend() {
                    Ok(None) => {}
                    Ok(Some(missed)) => self.post.tell(Told::Warning(chain(&missed))),
                    Err(error) => tracing::warn!(%error, "the filter is not whole; trying again"),
                }
            }
        }
    }
}
