//! Published images that are not what was published: nothing is started over them, and nothing is derived from them.

use std::path::PathBuf;

use super::vms::Work;
use super::{Ground, Held, Planner, Remark};
use crate::model::address::{Address, Kind};

impl Planner<'_> {
    /// Each is told once, whoever lies over it.
    pub(super) fn note_spoilt_bases(&mut self) {
        let (recorded, spoilt) = (self.inputs.recorded, &self.inputs.observed.bases.spoilt);
        for ((template, _), version) in &recorded.versions {
            let of_it = version.disks.iter().filter_map(|disk| spoilt.get_key_value(&disk.path));
            for (image, how) in of_it {
                let what = Remark::BaseSpoilt { image: image.clone(), how: *how };
                self.drift(&Address::new(Kind::Template, template), what);
            }
        }
    }

    /// Whether a vm may begin with disks over these; one refusal is for all that lie over the same.
    pub(super) fn may_lie_over(&mut self, address: &Address, images: &[PathBuf]) -> bool {
        let spoilt = &self.inputs.observed.bases.spoilt;
        let Some((image, how)) = images.iter().find_map(|image| spoilt.get_key_value(image)) else { return true };
        let why = Ground::BaseSpoilt { image: image.clone(), how: *how };
        let refusal = self.plan.refusals.iter_mut().find(|refusal| refusal.why == why);
        match refusal.map(|refusal| &mut refusal.holds) {
            Some(Held::Only(held)) => drop(held.insert(address.clone())),
            _ => self.refuse(address, why),
        }
        false
    }
}

/// What lies below the disks with which a vm would begin, as far as they are there already.
pub(super) fn below(work: &Work<'_>) -> Vec<PathBuf> {
    match work.back {
        Some(set) => set.disks.iter().filter_map(|disk| disk.base.clone()).collect(),
        None if work.replaced => Vec::new(),
        None => work.known.disks.iter().filter_map(|disk| disk.base.clone()).collect(),
    }
}
