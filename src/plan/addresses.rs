//! Which IP a new vm gets: the lowest that is free in its group, site-wide, so that a plan is exact and repeatable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::model::id::{Mac, VmGroupName};
use crate::model::lab::VmGroup;
use crate::state::{Recorded, TakenAddress, Tried};

/// Hands out addresses; what it gave is taken from then on.
pub(super) struct Addresses<'a> {
    taken: &'a BTreeMap<Ipv4Addr, TakenAddress>,
    tried: &'a Tried,
    taken_macs: BTreeSet<Mac>,
    given: BTreeSet<Ipv4Addr>,
    /// Everything below is known to be taken: a range is walked once, not once per vm.
    floor: BTreeMap<VmGroupName, Ipv4Addr>,
}

impl<'a> Addresses<'a> {
    pub(super) fn new(recorded: &'a Recorded) -> Self {
        let Recorded { taken, tried, .. } = recorded;
        let taken_macs = taken.values().map(|holder| holder.mac).chain(tried.macs.iter().copied()).collect();
        Self { taken, tried, taken_macs, given: BTreeSet::new(), floor: BTreeMap::new() }
    }

    /// The lowest free address of the group; `None` where there is none left.
    pub(super) fn take(&mut self, name: &VmGroupName, group: &VmGroup) -> Option<(Ipv4Addr, Mac)> {
        let floor = *self.floor.get(name).unwrap_or(&group.range.first);
        let is_free = |ip: &Ipv4Addr| {
            Some(*ip) != group.gateway
                && !self.taken.contains_key(ip)
                && !self.tried.ips.contains(ip)
                && !self.given.contains(ip)
                && !self.taken_macs.contains(&group.mac(*ip))
        };
        let found = group.range.addresses_from(floor).find(is_free)?;
        self.floor.insert(name.clone(), found);
        self.given.insert(found);
        let mac = group.mac(found);
        self.taken_macs.insert(mac);
        Some((found, mac))
    }
}
