//! What `site.yaml` says of labs that have owners: who they are, and what of the site is their lab's.

use super::decode::Spanned;
use super::record::record;
use super::values::{IpRange, Size};
use super::words::{FilePath, InterfaceName};
use crate::model::id::{UserGroupName, UserName};

record! {
    /// Who may plan and apply a lab from their own account, and what of the site it has.
    pub struct LabShareDecl as "a lab of the site" {
        /// Its owners: they may do everything in this lab, and nothing elsewhere.
        #[example(["badmin"])]
        pub owners: Vec<Spanned<UserName>>,
        /// Groups of this machine whose members own it too.
        #[example(["lan-staff"])]
        pub owner_groups: Vec<Spanned<UserGroupName>>,
        /// Addresses that its vm groups may have; without that of `all_vms`, none of its vms may be there.
        #[example(["192.168.100.0/24"])]
        pub ip_ranges: Vec<Spanned<IpRange>>,
        /// Bridges that its vm groups may join; the bridge of `all_vms` if not written.
        #[example(["vbr0"])]
        pub bridges: Vec<Spanned<InterfaceName>>,
        /// 802.1Q tags that its vm groups may have.
        #[example([120])]
        pub vlans: Vec<Spanned<u32>>,
        /// Folders below which its images must be; no link is followed there.
        #[example(["/srv/images/lan"])]
        pub image_roots: Vec<Spanned<FilePath>>,
        /// How many of its vms may run at once; as many as the site has room for if not written.
        #[example(40)]
        pub running_vms: Option<Spanned<u32>>,
        /// How much memory its running vms may have together; as much as the site has if not written.
        #[example("64G")]
        pub memory: Option<Spanned<Size>>,
    }
}
