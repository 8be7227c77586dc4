//! What a DHCP server is told about a vm.

use std::net::Ipv4Addr;

use super::id::{LabName, Mac, SiteTag, VmName};

/// One vm's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Reservation {
    /// Our mark, and the reservation's name on the server: `lw-<site>-<lab>-<vm>`.
    pub mark: String,
    pub vm: VmName,
    pub mac: Mac,
    pub ip: Ipv4Addr,
}

impl Reservation {
    pub fn new(site: &SiteTag, lab: &LabName, vm: &VmName, mac: Mac, ip: Ipv4Addr) -> Self {
        Self { mark: format!("lw-{site}-{lab}-{}", vm.file_name()), vm: vm.clone(), mac, ip }
    }
}
