//! What a site is reached by besides its state: its batch system, the folders of runs, disks, reservations, and the time. All of
//! it stands behind traits, so that what a daemon does can be done in a world that somebody else has made.

use std::sync::Arc;

use super::{Caller, Context, ControlError, Listener};
use crate::apply::{Clock, SystemClock};
use crate::dhcp::{self, Dhcp};
use crate::disks::{self, Disks, Images, Owner};
use crate::model::id::LabName;
use crate::model::site::{DhcpSettings, Site};
use crate::run::{self, Runs};
use crate::scheduler::{self, Calls, Scheduler};

/// The ways into a world of its own, which no settings lead to.
#[derive(Clone)]
pub struct Ways {
    pub scheduler: Arc<dyn Scheduler>,
    pub dhcp: Arc<dyn Dhcp>,
    pub runs: Arc<dyn Runs>,
    pub disks: Arc<dyn Disks>,
    pub clock: Arc<dyn Clock>,
}

impl Context {
    /// A site in a world of its own. Its state is a file all the same.
    pub fn in_world(site: Site, ways: Ways, caller: Caller, listener: Arc<dyn Listener>) -> Self {
        Self { ways: Some(ways), ..Self::of_site(site, "/".into(), caller, listener) }
    }

    /// Whether what this machine is like says whether a plan can be carried out.
    pub(super) fn is_of_this_machine(&self) -> bool {
        self.ways.is_none()
    }

    /// The site's batch system. Nothing is asked of it yet.
    pub fn scheduler(&self) -> Arc<dyn Scheduler> {
        match &self.ways {
            Some(ways) => Arc::clone(&ways.scheduler),
            None => {
                let (settings, program) = (&self.site.scheduler, &self.caller.program);
                scheduler::open_counted(settings, program, Arc::clone(&self.calls)).into()
            }
        }
    }

    /// How often the batch system was asked for what.
    pub fn queue_calls(&self) -> &Calls {
        &self.calls
    }

    /// Who tells guests their addresses. Nothing is asked of it yet.
    pub fn dhcp(&self) -> Arc<dyn Dhcp> {
        if let Some(ways) = &self.ways {
            return Arc::clone(&ways.dhcp);
        }
        match &self.site.network.dhcp {
            DhcpSettings::Dnsmasq { folder } => Arc::new(dhcp::Dnsmasq::new(folder)),
            DhcpSettings::Omapi(settings) => Arc::new(dhcp::Omapi::new(settings)),
            DhcpSettings::None => Arc::new(dhcp::Elsewhere),
        }
    }

    /// The folders of runs; new ones are given to `owner`.
    pub fn runs(&self, owner: Owner) -> Arc<dyn Runs> {
        match &self.ways {
            Some(ways) => Arc::clone(&ways.runs),
            None => Arc::new(run::OnStorage { root: self.site.storage.runs.clone(), owner }),
        }
    }

    /// The site's disks. Those who own a lab name its images, and write where these are.
    pub fn disks(&self, lab: &LabName, owner: Owner) -> Arc<dyn Disks> {
        match &self.ways {
            Some(ways) => Arc::clone(&ways.disks),
            None => {
                let (images, authorities) = (self.images(lab), self.site.image_authorities.clone());
                Arc::new(disks::OnStorage { owner, images, authorities })
            }
        }
    }

    /// Where the images of a lab may be.
    pub fn images(&self, lab: &LabName) -> Images {
        match self.site.labs.get(lab) {
            None => Images::Anywhere,
            // What is published is copied from, too.
            Some(share) => {
                let published = self.site.storage.templates.join(lab.as_str());
                let made = [published, self.site.storage.fetched()];
                Images::Below(share.image_roots.iter().cloned().chain(made).collect())
            }
        }
    }

    /// The time of the controller.
    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        match &self.ways {
            Some(ways) => Arc::clone(&ways.clock),
            None => Arc::new(SystemClock),
        }
    }

    /// Whom disks belong to and whom qemu runs as.
    pub fn owner(&self) -> Result<Owner, ControlError> {
        let name = &self.site.service_user;
        let found = nix::unistd::User::from_name(name).map_err(ControlError::Accounts)?;
        let user = found.ok_or_else(|| ControlError::NoServiceUser { name: name.clone() })?;
        Ok(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }
}
