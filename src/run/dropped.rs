//! How many frames of a guest, or towards it, its filter has dropped, by why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts of a run's filter since it began. A reason that has none is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Dropped {
    /// It sent from another's hardware address.
    #[serde(skip_serializing_if = "is_none")]
    pub spoofed_mac: u64,
    /// It sent from another's IP address.
    #[serde(skip_serializing_if = "is_none")]
    pub spoofed_ip: u64,
    /// It spoke ARP for others, or too often.
    #[serde(skip_serializing_if = "is_none")]
    pub arp: u64,
    /// It asked DHCP for others, in another way than clients do, or too often.
    #[serde(skip_serializing_if = "is_none")]
    pub dhcp: u64,
    /// It answered as a DHCP server.
    #[serde(skip_serializing_if = "is_none")]
    pub dhcp_server: u64,
    /// It wanted to reach what no guest may: others' screens, the DHCP server's control port.
    #[serde(skip_serializing_if = "is_none")]
    pub service: u64,
    /// It is isolated, and wanted to reach more than it may.
    #[serde(skip_serializing_if = "is_none")]
    pub isolated: u64,
    /// It sent what is neither IPv4 nor ARP, or pieces that no honest system sends.
    #[serde(skip_serializing_if = "is_none")]
    pub other: u64,
    /// Others sent what it may not get.
    #[serde(skip_serializing_if = "is_none")]
    pub inbound: u64,
}

impl Dropped {
    /// Each reason as it is written, and its count.
    pub fn by_reason(&self) -> [(&'static str, u64); 9] {
        let Self { spoofed_mac, spoofed_ip, arp, dhcp, dhcp_server, service, isolated, other, inbound } = *self;
        [
            ("spoofed_mac", spoofed_mac),
            ("spoofed_ip", spoofed_ip),
            ("arp", arp),
            ("dhcp", dhcp),
            ("dhcp_server", dhcp_server),
            ("service", service),
            ("isolated", isolated),
            ("other", other),
            ("inbound", inbound),
        ]
    }

    /// What `count` says of each reason.
    pub fn of(count: impl Fn(&str) -> u64) -> Self {
        Self {
            spoofed_mac: count("spoofed_mac"),
            spoofed_ip: count("spoofed_ip"),
            arp: count("arp"),
            dhcp: count("dhcp"),
            dhcp_server: count("dhcp_server"),
            service: count("service"),
            isolated: count("isolated"),
            other: count("other"),
            inbound: count("inbound"),
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        let all = [self.by_reason(), more.by_reason()].concat();
        Self::of(|reason| all.iter().filter(|(word, _)| *word == reason).fold(0, |sum, (_, n)| n.saturating_add(sum)))
    }

    /// Whether it is worth a line beside what was told before: a reason is new, or one has doubled. So a report stays short
    /// however long a guest goes on.
    pub fn is_news_after(&self, told: &Self) -> bool {
        self.by_reason()
            .iter()
            .zip(told.by_reason())
            .any(|((_, now), (_, told))| *now > 0 && *now >= told.saturating_mul(2).max(1))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_a_few_lines() {
        let (mut told, mut lines) = (Dropped::default(), 0);
        for frames in 0..100_000 {
            let now = Dropped { arp: frames, ..Dropped::default() };
            if now.is_news_after(&told) {
                (told, lines) = (now, lines + 1);
            }
        }
        assert_eq!((lines, told.arp), (17, 65_536));
        assert!(Dropped { dhcp: 1, ..told }.is_news_after(&told), "the first of its kind");
        assert!(!told.is_news_after(&told) && !Dropped::default().is_news_after(&told));
    }

    #[test]
    fn each_reason_is_counted_once_under_its_own_name() {
        let names = Dropped::default().by_reason().map(|(name, _)| name);
        for name in names {
            let one = Dropped::of(|reason| u64::from(reason == name));
            let twice = one.and(&one);
            assert_eq!(serde_json::to_value(twice).unwrap(), serde_json::json!({ name: 2 }));
            assert_eq!(
                serde_json::from_value::<Dropped>(serde_json::json!({ name: 2, "of_tomorrow": 9 })).unwrap(),
                twice
            );
        }
    }
}
