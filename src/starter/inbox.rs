//! Where the starter's threads meet: what they saw goes to the main thread, which sleeps until something comes.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::machine::Input;

/// Time since the starter began, the same for all its threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Duration {
        self.0.elapsed()
    }

    pub(super) fn at(self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.0)
    }
}

/// The main thread's end.
#[derive(Debug)]
pub(super) struct Inbox {
    told: Receiver<Input>,
    post: Post,
}

/// Everybody else's end.
#[derive(Debug, Clone)]
pub(super) struct Post {
    told: Sender<Input>,
    bell: Arc<EventFd>,
}

impl Inbox {
    pub(super) fn new() -> nix::Result<Self> {
        let (sender, told) = channel();
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { told, post: Post { told: sender, bell: Arc::new(bell) } })
    }

    pub(super) fn post(&self) -> Post {
        self.post.clone()
    }

    /// All that has come.
    pub(super) fn take(&self) -> Vec<Input> {
        // An error means that nobody has rung.
        let _ = self.post.bell.read();
        self.told.try_iter().collect()
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.post.bell.as_fd()
    }
}

impl Post {
    /// The main thread has stopped listening only when it is about to end.
    pub(super) fn tell(&self, told: Input) {
        drop(self.told.send(told));
        // An error means that the bell has been rung more often than a counter holds: it rings anyway.
        let _ = self.bell.write(1);
    }
}
