//! Who looks at the guest's screen, as its report says it: of many changes in a short time, one record.

use std::time::Duration;

use super::{Act, Machine};
use crate::run::Event;

/// How far two such records are apart: a viewer that comes and goes without end must not fill storage.
const APART: Duration = Duration::from_secs(10);
/// How many are named in one record.
const NAMED_MAX: usize = 16;

#[derive(Debug, Clone, Default)]
pub(super) struct Looks {
    now: Vec<String>,
    began: Vec<String>,
    is_news: bool,
    next: Duration,
}

impl Looks {
    /// Who looks now, each by the address that it comes from.
    pub(super) fn hear(&mut self, viewers: Vec<String>) {
        let came = viewers.iter().filter(|viewer| !self.now.contains(viewer)).cloned();
        let room = NAMED_MAX.saturating_sub(self.began.len());
        self.began.extend(came.take(room));
        self.is_news |= self.now != viewers;
        self.now = viewers;
    }
}

impl Machine {
    pub(super) fn tell_looks(&mut self, now: Duration) {
        let looks = &mut self.looks;
        if !looks.is_news || now < looks.next {
            return;
        }
        (looks.is_news, looks.next) = (false, now + APART);
        let viewers = u32::try_from(looks.now.len()).unwrap_or(u32::MAX);
        let began = std::mem::take(&mut looks.began);
        self.acts.push(Act::Report(Event::LookedAt { viewers, began }));
    }
}
