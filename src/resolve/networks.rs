//! Vm groups: ranges, networks, gateways, Ethernet addresses, bridges; and what two groups must not share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Resolver, vm_group_all_vms};
use crate::manifest::{At, IpRange, Spanned, VmGroupDecl};
use crate::model::id::{MacPrefix, VmGroupName, VmName};
use crate::model::lab::{AddressRange, Vm, VmGroup};
use crate::model::rules::Rule;

/// Most addresses of one range: a /16, and the largest lab has 100,000 vms in several groups.
const ADDRESSES_MAX: u64 = 1 << 16;
/// Most vm groups of a lab.
const GROUPS_MAX: usize = 256;

pub(super) type VmGroups = BTreeMap<VmGroupName, VmGroup>;

impl Resolver<'_> {
    /// All vm groups, the predefined one included. A group that cannot be made sense of is still known by name.
    pub(super) fn networks(&mut self) -> VmGroups {
        let manifest = self.manifest;
        let mut groups = BTreeMap::from([(vm_group_all_vms(), self.site.all_vms.clone())]);
        let mut sound: Vec<(&Spanned<VmGroupName>, &VmGroupDecl)> = Vec::new();
        let entries = self.at_most(&manifest.vm_groups.0, GROUPS_MAX, "vm groups", |entry| entry.key.at);
        for entry in entries {
            if entry.key.as_str() == VmGroupName::ALL_VMS {
                let message = "the vm group `all_vms` exists by itself and cannot be defined";
                self.note(
                    Rule::PredefinedName,
                    entry.key.at,
                    message,
                    "take another name; its range is a setting of the site",
                );
                continue;
            }
            match entry.value.as_ref().and_then(|decl| Some((decl, self.vm_group(decl)?))) {
                Some((decl, group)) => {
                    groups.insert(entry.key.value.clone(), group);
                    sound.push((&entry.key, decl));
                }
                // A stand-in keeps the name bound; there are errors, so it is never used.
                None => drop(groups.insert(entry.key.value.clone(), self.site.all_vms.clone())),
            }
        }
        for (index, (name, decl)) in sound.iter().enumerate() {
            for (other_name, other_decl) in &sound[..index] {
                self.pair((name, decl, &groups[&name.value]), (other_name, other_decl, &groups[&other_name.value]));
            }
            self.beside_all_vms(name, decl, &groups[&name.value]);
        }
        groups
    }

    pub(super) fn vm_group(&mut self, decl: &VmGroupDecl) -> Option<VmGroup> {
        let (mut range, mut subnet) = self.range(&decl.ip_range)?;
        self.exclude(decl, &mut range);
        let gateway = decl.gateway.as_ref().map(|gateway| gateway.address().value);
        let written_network = matches!(decl.ip_range.value, IpRange::Network(_));
        if let Some(written) = &decl.subnet {
            subnet = Some(written.value);
        }
        let subnet = match subnet {
            Some(subnet) => subnet,
            None => self.derived_subnet(decl, &range, gateway)?,
        };
        if written_network && let Some(gateway) = gateway {
            // Who writes a whole network means its free addresses.
            range.exclude.insert(gateway);
        }
        let sound = self.inside_subnet(decl, &range, subnet);
        let (stations, routers) = self.stations(decl, subnet);
        self.reserved(decl, &range, subnet);
        let vlan = match &decl.vlan {
            None => None,
            Some(vlan) => match u16::try_from(vlan.value).ok().filter(|tag| (1..=4094).contains(tag)) {
                Some(tag) => Some(tag),
                None => {
                    let message = format!("{} is not a vlan", vlan.value);
                    self.note(Rule::BadValue, vlan.at, message, "vlans are numbers from 1 to 4094");
                    None
                }
            },
        };
        let bridge = match (&decl.bridge, vlan) {
            (Some(bridge), _) => bridge.0.clone(),
            (None, Some(tag)) => VmGroup::bridge_of_vlan(tag),
            (None, None) => self.site.all_vms.bridge.clone(),
        };
        let group = VmGroup {
            range,
            subnet,
            gateway,
            routers,
            dns: decl.dns.iter().map(|server| server.address().value).collect(),
            stations,
            domain: decl.domain.as_ref().map(|domain| domain.0.clone()),
            bridge,
            vlan,
            mac_prefix: decl.mac_prefix.as_ref().map(|prefix| prefix.value.clone()).unwrap_or_default(),
        };
        self.own_macs(decl, &group);
        sound.then_some(group)
    }

    /// Takes addresses out of a range. Sorted first, so that each is looked at once however often it is written.
    fn exclude(&mut self, decl: &VmGroupDecl, range: &mut AddressRange) {
        let mut pieces = Vec::new();
        for excluded in &decl.exclude {
            let (first, last) = (excluded.first.max(range.first), excluded.last.min(range.last));
            if first > last {
                let message = "no address of this is in the group's range";
                self.note(Rule::UselessExclude, excluded.at, message, "remove it, or correct it");
            } else {
                pieces.push((u32::from(first), u32::from(last)));
            }
        }
        pieces.sort_unstable();
        let mut next = 0;
        for (first, last) in pieces {
            range.exclude.extend((first.max(next)..=last).map(Ipv4Addr::from));
            next = next.max(last.saturating_add(1));
        }
    }

    /// First and last address, and the network if it is written.
    fn range(&mut self, written: &Spanned<IpRange>) -> Option<(AddressRange, Option<Ipv4Net>)> {
        let (first, last, subnet) = match written.value {
            IpRange::Addresses(first, last) if last < first => {
                let message = format!("the range ends at {last}, before it begins at {first}");
                self.note(Rule::RangeOrder, written.at, message, format!("write `{last}-{first}`"));
                return None;
            }
            IpRange::Addresses(first, last) => (first, last, None),
            IpRange::Network(net) if net.prefix_len() > 30 => {
                let message = format!("{net} has no address for a vm: network and broadcast address take them all");
                self.note(Rule::RangeTooSmall, written.at, message, "write a larger network, such as a `/24`");
                return None;
            }
            IpRange::Network(net) => {
                let first = Ipv4Addr::from(u32::from(net.network()) + 1);
                (first, Ipv4Addr::from(u32::from(net.broadcast()) - 1), Some(net))
            }
        };
        let range = AddressRange { first, last, exclude: BTreeSet::new() };
        if range.count() > ADDRESSES_MAX {
            let message = format!("the range has {} addresses; a group has at most {ADDRESSES_MAX}", range.count());
            self.note(
                Rule::BadValue,
                written.at,
                message,
                "write a smaller range: as many addresses as there are vms, and some to spare",
            );
            return None;
        }
        if first.is_loopback()
            || last.is_multicast()
            || first.is_multicast()
            || first.is_unspecified()
            || last.is_broadcast()
        {
            let message = format!("{first} to {last} are not addresses of hosts");
            self.note(
                Rule::BadValue,
                written.at,
                message,
                "take a private range, such as `192.168.100.2-192.168.100.254`",
            );
            return None;
        }
        Some((range, subnet))
    }

    /// The /24 around range and gateway, or the smallest network that holds both.
    fn derived_subnet(
        &mut self,
        decl: &VmGroupDecl,
        range: &AddressRange,
        gateway: Option<Ipv4Addr>,
    ) -> Option<Ipv4Net> {
        let hosts = |net: &Ipv4Net, ip: Ipv4Addr| net.network() < ip && ip < net.broadcast();
        let fits = |net: &Ipv4Net| hosts(net, range.first) && hosts(net, range.last);
        let around = |length| Ipv4Net::new(range.first, length).ok().map(|net| net.trunc());
        let with_gateway = |net: &Ipv4Net| fits(net) && gateway.is_none_or(|gateway| hosts(net, gateway));
        let lengths = std::iter::once(24).chain((8..24).rev());
        if let Some(net) = lengths.clone().filter_map(around).find(with_gateway).filter(|net| net.prefix_len() >= 16) {
            return Some(net);
        }
        let written = decl.gateway.as_ref().map(|gateway| gateway.address());
        match (written, lengths.filter_map(around).find(fits)) {
            (Some(gateway), Some(net)) => {
                let message = format!("the gateway {} is far from the range, which {net} would hold", gateway.value);
                self.note(
                    Rule::OutsideSubnet,
                    gateway.at,
                    message,
                    "correct the gateway, or write the network as `subnet`",
                );
                None
            }
            (None, Some(net)) => Some(net),
            (_, None) => {
                // A range that touches its network's first or last address: the check for those says it better.
                around(24)
            }
        }
    }

    fn inside_subnet(&mut self, decl: &VmGroupDecl, range: &AddressRange, subnet: Ipv4Net) -> bool {
        let mut sound = true;
        if !(subnet.contains(&range.first) && subnet.contains(&range.last)) {
            let message = format!("the range {} to {} leaves the network {subnet}", range.first, range.last);
            let hint = "make the range smaller, or write a larger `subnet`";
            match &decl.subnet {
                Some(written) => {
                    self.note_both(
                        Rule::OutsideSubnet,
                        (decl.ip_range.at, &message),
                        (written.at, "the network"),
                        hint,
                    );
                }
                None => self.note(Rule::OutsideSubnet, decl.ip_range.at, message, "write the network as `subnet`"),
            }
            sound = false;
        }
        if let Some(gateway) = decl.gateway.as_ref().map(|gateway| gateway.address())
            && !subnet.contains(&gateway.value)
        {
            let message =
                format!("the gateway {} is not in the network {subnet}, so no guest could reach it", gateway.value);
            self.note(Rule::OutsideSubnet, gateway.at, message, format!("write an address of {subnet}"));
            sound = false;
        }
        sound
    }

    /// Addresses that belong to somebody else must not be in the range.
    fn reserved(&mut self, decl: &VmGroupDecl, range: &AddressRange, subnet: Ipv4Net) {
        let mut check = |ip: Ipv4Addr, what: &str, at: Option<At>| {
            if !range.contains(ip) {
                return;
            }
            let message = format!("{ip} is the {what} and in the range of the vms");
            let hint = if ip == range.first && ip < range.last {
                format!("begin the range at {}", Ipv4Addr::from(u32::from(ip) + 1))
            } else if ip == range.last && ip > range.first {
                format!("end the range at {}", Ipv4Addr::from(u32::from(ip) - 1))
            } else {
                format!("add `exclude: [{ip}]`")
            };
            match at {
                Some(at) => {
                    self.note_both(
                        Rule::ReservedAddress,
                        (decl.ip_range.at, &message),
                        (at, &format!("the {what}")),
                        hint,
                    );
                }
                None => self.note(Rule::ReservedAddress, decl.ip_range.at, message, hint),
            }
        };
        check(subnet.network(), &format!("address of the network {subnet} itself"), None);
        check(subnet.broadcast(), &format!("broadcast address of {subnet}"), None);
        if let Some(gateway) = &decl.gateway {
            check(gateway.address().value, "gateway", Some(gateway.address().at));
            for Spanned { value: router, .. } in gateway.routers() {
                check(router.address.value, "router", Some(router.address.at));
            }
        }
        for server in &decl.dns {
            check(server.address().value, "name server", Some(server.address().at));
        }
    }

    /// A prefix must leave enough bytes to tell the group's own vms apart.
    fn own_macs(&mut self, decl: &VmGroupDecl, group: &VmGroup) {
        let bits = mac_bits(&group.mac_prefix);
        let span = u64::from(u32::from(group.range.last)) - u64::from(u32::from(group.range.first)) + 1;
        if span > 1 << bits {
            let at = decl.mac_prefix.as_ref().map_or(decl.ip_range.at, |prefix| prefix.at);
            let message = format!(
                "the prefix `{}` leaves {bits} bits for {span} addresses: vms of this group would share Ethernet addresses",
                group.mac_prefix
            );
            let hint = format!("write `mac_prefix: \"{}\"`", shorter(&group.mac_prefix));
            self.note(Rule::MacCollision, at, message, hint);
        }
    }

    /// What two groups of the lab must not share.
    fn pair(&mut self, one: Party<'_>, other: Party<'_>) {
        let (name, decl, group) = one;
        let (other_name, other_decl, other_group) = other;
        if overlap(&group.range, &other_group.range) {
            let message = format!("this range overlaps the one of `{}`", other_name.value);
            let hint = "an address belongs to one vm group: make one of the ranges smaller";
            let place = (other_decl.ip_range.at, &*format!("the range of `{}`", other_name.value));
            self.note_both(Rule::RangesOverlap, (decl.ip_range.at, &message), place, hint);
            return;
        }
        if macs_collide(group, other_group) {
            let message = format!(
                "vms of `{}` and `{}` could get the same Ethernet address: both begin with `{}` and end like the IP address",
                name.value, other_name.value, group.mac_prefix
            );
            let hint = format!("write `mac_prefix: \"{}\"` for one of the two", shorter(&group.mac_prefix));
            self.note_both(Rule::MacCollision, (name.at, &message), (other_name.at, "the other group"), hint);
        }
        let same_bridge = group.bridge == other_group.bridge;
        if same_bridge && group.vlan != other_group.vlan {
            let message = format!(
                "`{}` and `{}` share the bridge `{}` but not the vlan",
                name.value, other_name.value, group.bridge
            );
            let hint = "give each vlan a bridge of its own: leave `bridge` out, or write another name";
            self.note_both(Rule::VlanConflict, (name.at, &message), (other_name.at, "the other group"), hint);
        } else if !same_bridge && group.vlan.is_some() && group.vlan == other_group.vlan {
            let message = format!("`{}` and `{}` have one vlan and two bridges", name.value, other_name.value);
            self.note_both(
                Rule::VlanConflict,
                (name.at, &message),
                (other_name.at, "the other group"),
                "write the same bridge for both",
            );
        } else if !same_bridge
            && (group.subnet.contains(&other_group.subnet) || other_group.subnet.contains(&group.subnet))
        {
            let message = format!(
                "`{}` and `{}` have overlapping networks ({} and {}) on two bridges: a host could not tell where an address is",
                name.value, other_name.value, group.subnet, other_group.subnet
            );
            let hint = "put both on one bridge, or write a smaller `subnet`";
            self.note_both(Rule::SharedBridge, (name.at, &message), (other_name.at, "the other group"), hint);
        }
    }

    fn beside_all_vms(&mut self, name: &Spanned<VmGroupName>, decl: &VmGroupDecl, group: &VmGroup) {
        let all_vms = &self.site.all_vms;
        if overlap(&group.range, &all_vms.range) {
            let message = format!(
                "the range of `{}` overlaps that of the predefined `all_vms`, {} to {}",
                name.value, all_vms.range.first, all_vms.range.last
            );
            self.note(Rule::RangesOverlap, decl.ip_range.at, message, "take other addresses");
        }
    }

    /// Whether each range holds all vms of its group.
    pub(super) fn range_sizes(&mut self, vms: &BTreeMap<VmName, Vm>, groups: &VmGroups) {
        let mut needed: BTreeMap<&VmGroupName, u64> = BTreeMap::new();
        for vm in vms.values() {
            *needed.entry(&vm.vm_group).or_default() += 1;
        }
        for (name, needed) in needed {
            let Some(group) = groups.get(name) else { continue };
            let free = group.range.count();
            if needed <= free {
                continue;
            }
            let message = format!(
                "{needed} vms of `{name}` need an address each; {} to {} has {free}",
                group.range.first, group.range.last
            );
            let hint = match sufficient(group, needed) {
                Some(range) => format!("write `ip_range: {range}`, or put vms into another group"),
                None => "write a larger range, or put vms into another group".to_owned(),
            };
            let declared = self.manifest.vm_groups.iter().find(|(key, _)| key.value == *name);
            match declared {
                Some((_, decl)) => self.note(Rule::RangeTooSmall, decl.ip_range.at, message, hint),
                None => {
                    let diagnostic = crate::model::diagnostic::Diagnostic::new(Rule::RangeTooSmall, message)
                        .hint("define a vm group with a range of its own, and name it as `vm_group`");
                    self.push(diagnostic);
                }
            }
        }
    }
}

type Party<'a> = (&'a Spanned<VmGroupName>, &'a VmGroupDecl, &'a VmGroup);

/// Whether two ranges share an address, excluded ones aside.
pub(super) fn overlap(a: &AddressRange, b: &AddressRange) -> bool {
    let (first, last) = (a.first.max(b.first), a.last.min(b.last));
    first <= last && (u32::from(first)..=u32::from(last)).map(Ipv4Addr::from).any(|ip| a.contains(ip) && b.contains(ip))
}

/// How many bits of an IP address end up in an Ethernet address with this prefix.
fn mac_bits(prefix: &MacPrefix) -> u32 {
    let tail = 6 - u32::try_from(prefix.bytes().len()).unwrap_or(6);
    (tail * 8).min(32)
}

fn shorter(prefix: &MacPrefix) -> String {
    let bytes: Vec<String> = prefix.bytes().iter().take(2).map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// Whether two groups whose ranges are apart would give out one Ethernet address twice.
pub(super) fn macs_collide(a: &VmGroup, b: &VmGroup) -> bool {
    if a.mac_prefix != b.mac_prefix {
        return false;
    }
    let bits = mac_bits(&a.mac_prefix);
    let pieces = |range: &AddressRange| -> Vec<(u64, u64)> {
        let size = 1_u64 << bits;
        let (first, last) = (u64::from(u32::from(range.first)), u64::from(u32::from(range.last)));
        if last - first + 1 >= size {
            return vec![(0, size - 1)];
        }
        match (first % size, last % size) {
            (low, high) if low <= high => vec![(low, high)],
            (low, high) => vec![(low, size - 1), (0, high)],
        }
    };
    let theirs = pieces(&b.range);
    pieces(&a.range).iter().any(|(low, high)| theirs.iter().any(|(l, h)| low <= h && l <= high))
}

/// A range from the same first address that is large enough, if the network has it.
fn sufficient(group: &VmGroup, needed: u64) -> Option<String> {
    let missing = needed.checked_sub(group.range.count())?;
    let last = u64::from(u32::from(group.range.last)).checked_add(missing)?;
    let last = Ipv4Addr::from(u32::try_from(last).ok()?);
    let taken = group.gateway.is_some_and(|gateway| gateway > group.range.last && gateway <= last);
    let fits = group.subnet.contains(&last) && last < group.subnet.broadcast() && !taken;
    fits.then(|| format!("{}-{last}", group.range.first))
}
