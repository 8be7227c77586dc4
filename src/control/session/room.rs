//! How many guests fit on hosts, and the smallest change that makes all fit. Pure.

/// What one guest takes of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) slots: u32,
    pub(super) memory_mib: u64,
}

/// What a host has for guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) memory_mib: u64,
    pub(super) slots: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) fitting: usize,
    /// What to do where not all fit.
    pub(super) mend: Option<String>,
}

/// More hosts than this are no small change.
const MORE_MAX: usize = 100;

pub(super) fn room(places: &[Place], guests: &[Guest]) -> Room {
    let fitting = fitting(places, guests);
    let mend = (fitting < guests.len()).then(|| mend(places, guests));
    Room { fitting, mend }
}

/// The largest first, each on the first host that has room.
fn fitting(places: &[Place], guests: &[Guest]) -> usize {
    let mut free = places.to_vec();
    let mut guests = guests.to_vec();
    guests.sort_by_key(|guest| std::cmp::Reverse(guest.memory_mib));
    let mut seats = 0;
    for guest in guests {
        let has_room = |free: &&mut Place| free.slots >= guest.slots && free.memory_mib >= guest.memory_mib;
        if let Some(place) = free.iter_mut().find(has_room) {
            place.slots -= guest.slots;
            place.memory_mib -= guest.memory_mib;
            seats += 1;
        }
    }
    seats
}

fn mend(places: &[Place], guests: &[Guest]) -> String {
    let Some(largest) = places.iter().max() else { return "no host takes guests: open some".to_owned() };
    let mut options = Vec::new();
    if let Some(mib) = less_memory(places, guests) {
        options.push(format!("with {mib} MiB less memory for each all would fit"));
    }
    let with = |more: &usize| [places, &vec![*largest; *more]].concat();
    if let Some(more) = (1..=MORE_MAX).find(|more| fitting(&with(more), guests) == guests.len()) {
        let hosts = if more == 1 { "1 more host".to_owned() } else { format!("{more} more hosts") };
        options.push(format!("{hosts} like the largest would do"));
    }
    if options.is_empty() { "run fewer at once, or in turns".to_owned() } else { options.join("; or ") }
}

/// How much less memory each guest could have so that all fit; nothing where the processors do not suffice either.
fn less_memory(places: &[Place], guests: &[Guest]) -> Option<u64> {
    let least = guests.iter().map(|guest| guest.memory_mib).min()?;
    let fits = |less: u64| {
        let smaller: Vec<Guest> =
            guests.iter().map(|guest| Guest { memory_mib: guest.memory_mib.saturating_sub(less), ..*guest }).collect();
        fitting(places, &smaller) == guests.len()
    };
    // More than half is another machine.
    let (mut low, mut high) = (0, least / 2);
    if !fits(high) {
        return None;
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Place = Place { memory_mib: 1000, slots: 4 };

    fn guests(number: usize, memory_mib: u64) -> Vec<Guest> {
        vec![Guest { slots: 1, memory_mib }; number]
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_smallest_change() {
        assert_eq!(room(&[HOST; 2], &guests(8, 250)), Room { fitting: 8, mend: None });
        let few = room(&[HOST; 2], &guests(8, 300));
        let mend = "with 50 MiB less memory for each all would fit; or 1 more host like the largest would do";
        assert_eq!(few, Room { fitting: 6, mend: Some(mend.to_owned()) });
        let slots = room(&[HOST; 2], &guests(10, 10));
        assert_eq!((slots.fitting, slots.mend.as_deref()), (8, Some("1 more host like the largest would do")));
        let huge = room(&[HOST; 2], &guests(1, 3000));
        assert_eq!((huge.fitting, huge.mend.as_deref()), (0, Some("run fewer at once, or in turns")));
        assert_eq!(room(&[], &guests(1, 1)).mend.as_deref(), Some("no host takes guests: open some"));
        // The memory of one host is no other's: the small ones fill what the large ones leave.
        let mixed = [guests(2, 700), guests(2, 300)].concat();
        assert_eq!(room(&[HOST; 2], &mixed).mend, None);
    }
}
