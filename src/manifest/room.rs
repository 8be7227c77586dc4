//! How much a lab may have in all its files.

/// How many things a lab may have in all its files: list items and rows of rosters count one, groups of keys more, by
/// what they take in memory. 10,000 vms written out need a quarter of it.
#[derive(Debug)]
pub(super) struct Room {
    left: usize,
    /// Something found no room before.
    full: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self { left: Self::MAX, full: false }
    }
}

impl Room {
    const MAX: usize = 200_000;
    pub(super) const GROUP_OF_KEYS: usize = 4;

    /// Takes room for one thing: whether there was enough, and whether this is the first that did not fit.
    pub(super) fn take(&mut self, weight: usize) -> Fit {
        match self.left.checked_sub(weight).filter(|_| !self.full) {
            Some(left) => {
                self.left = left;
                Fit::Fits
            }
            None if self.full => Fit::TooMany,
            None => {
                self.full = true;
                Fit::FirstTooMany
            }
        }
    }
}

/// Whether a thing finds room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    /// Say so, once.
    FirstTooMany,
    TooMany,
}
