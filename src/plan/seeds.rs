//! What a guest's seed disk says, where its vm has one: decided with the run, since it names the disk that is to boot.

use std::net::Ipv4Addr;

use super::{Inputs, Planner};
use crate::model::id::VmName;
use crate::model::lab::Vm;
use crate::model::seed::{SeedDisk, Whose};
use crate::state::RecordedDisk;

impl Planner<'_> {
    pub(super) fn seed_disk(
        &self,
        name: &VmName,
        vm: &Vm,
        ip: Ipv4Addr,
        disks: &[RecordedDisk],
    ) -> Option<Box<SeedDisk>> {
        let seed = vm.seed.as_ref()?;
        let Inputs { desired, recorded, .. } = self.inputs;
        let instance = recorded.instance(&desired.lab, name, disks);
        let keys_of = |user: &str| desired.users.get(user).map(|user| user.ssh_keys.clone()).unwrap_or_default();
        Some(Box::new(seed.disk(Whose { vm: name, owner: &vm.owner, ip }, instance, keys_of)))
    }
}
