//! `labwright vm derive` and `vm delete`: vms that people have beside those of a manifest.

use std::path::{Path, PathBuf};

use super::{Ended, LabOption};
use crate::daemon::messages::{Derive, Edit};
use crate::manifest::Size;
use crate::model::address::AddressPattern;
use crate::model::id::{TemplateName, UserName, VmName};
use crate::report::Ui;

#[derive(Debug, clap::Args)]
pub(super) struct DeriveArguments {
    /// The template.
    #[arg(value_name = "TEMPLATE")]
    template: TemplateName,
    /// What the vm is called; its owner's name comes before it: `doraz/mine`.
    #[arg(long)]
    name: VmName,
    /// Whose it is; whoever asks, unless somebody else is named.
    #[arg(long, value_name = "USER")]
    owner: Option<UserName>,
    /// Memory, unless it is to have the template's.
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u32>,
    /// Processors, unless it is to have the template's.
    #[arg(long)]
    cpus: Option<u32>,
    /// No traffic but to the gateway, also where nothing forces that.
    #[arg(long)]
    isolate: bool,
    /// Copy the disks in full, rather than on write.
    #[arg(long)]
    clone: bool,
    /// Do what a guard refuses, for this address: new disks, where the vm's old ones are set aside.
    #[arg(long, value_name = "ADDRESS")]
    allow: Vec<AddressPattern>,
    #[command(flatten)]
    lab: LabOption,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true, args = ["memory", "cpus", "cdrom", "eject"])]
pub(super) struct SetArguments {
    #[command(flatten)]
    of: Named,
    /// Its memory from its next start on.
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u32>,
    /// Its processors from its next start on.
    #[arg(long)]
    cpus: Option<u32>,
    /// Image of a CD for its drive, in place of what lies there, from its next start on.
    #[arg(long, value_name = "FILE")]
    cdrom: Option<PathBuf>,
    /// Take out what lies in its drive, from its next start on.
    #[arg(long, conflicts_with = "cdrom")]
    eject: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RenameArguments {
    #[command(flatten)]
    of: Named,
    /// Its new name; its owner's comes before it.
    name: VmName,
}

/// A vm by its own name.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The vm, such as `doraz/mine`.
    #[arg(value_name = "VM")]
    pub(super) vm: VmName,
    #[command(flatten)]
    pub(super) lab: LabOption,
}

/// As a manifest writes it, in MiB.
pub(super) fn memory(text: &str) -> Result<u32, String> {
    let size = Size::read(text)?;
    u32::try_from(size.mib()).ok().filter(|mib| *mib > 0).ok_or_else(|| "write a size like `2G` or `1536M`".into())
}

pub(super) fn derive(arguments: &DeriveArguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    arguments.lab.way(site)?.derive(&arguments.wanted(), &arguments.allow, ui)
}

pub(super) fn set(arguments: &SetArguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let SetArguments { of: Named { vm, lab }, memory, cpus, cdrom, eject } = arguments;
    let edit = Edit { memory_mib: *memory, cpus: *cpus, cdrom: cdrom.clone(), ejects: *eject, name: None };
    lab.way(site)?.edit(vm, &edit, ui)
}

pub(super) fn rename(arguments: &RenameArguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let RenameArguments { of: Named { vm, lab }, name } = arguments;
    lab.way(site)?.edit(vm, &Edit { name: Some(name.clone()), ..Edit::default() }, ui)
}

pub(super) fn delete(Named { vm, lab }: &Named, site: Option<&Path>, ui: &mut Ui) -> Ended {
    lab.way(site)?.delete(vm, ui)
}

impl DeriveArguments {
    fn wanted(&self) -> Derive {
        let Self { template, name, owner, memory, cpus, isolate, clone, allow: _, lab: _ } = self;
        let (template, name, owner) = (template.clone(), name.clone(), owner.clone());
        Derive { template, name, owner, memory_mib: *memory, cpus: *cpus, isolated: *isolate, clone: *clone }
    }
}
