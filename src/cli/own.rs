//! `labwright vm derive` and `vm delete`: vms that people have beside those of a manifest.

use std::path::Path;

use super::remote::{Way, tell};
use super::{Ended, LabOption, apply};
use crate::control;
use crate::control::own::{self, Lab};
use crate::daemon::messages::Derive;
use crate::exit::Exit;
use crate::manifest::Size;
use crate::model::address::{Address, AddressPattern};
use crate::model::id::{TemplateName, UserName, VmName};
use crate::model::lab::Desired;
use crate::report::{Failure, Ui};
use crate::state::Recorded;

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
pub(super) struct DeleteArguments {
    /// The vm, such as `doraz/mine`.
    #[arg(value_name = "VM")]
    vm: VmName,
    #[command(flatten)]
    lab: LabOption,
}

/// As a manifest writes it, in MiB.
fn memory(text: &str) -> Result<u32, String> {
    let size = Size::read(text)?;
    u32::try_from(size.mib()).ok().filter(|mib| *mib > 0).ok_or_else(|| "write a size like `2G` or `1536M`".into())
}

pub(super) fn derive(arguments: &DeriveArguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let wanted = arguments.wanted();
    let (context, desired) = match Way::to(site, &arguments.lab)? {
        Way::Daemon(..) if !arguments.allow.is_empty() => {
            return Err(Failure::new(Exit::Usage, "the daemon takes no `--allow`; nothing was done"));
        }
        Way::Daemon(lab) => return Ok(tell(&lab.derive(&wanted)?, ui)),
        Way::Here(lab) => *lab,
    };
    let wanted = wanted.wanted(&context.caller.name).map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    let name = own::derive(&context, Lab::OfManifest(&desired), &wanted)?;
    ui.say(&format!("vm {name} is claimed; `labwright vm start {name}` starts it once its disk is made"));
    let made = carry_out(&context, &desired, &name, arguments.allow.clone(), ui);
    if made.is_err() {
        own::withdraw(&context, &desired.lab, &name)?;
    }
    made
}

impl DeriveArguments {
    fn wanted(&self) -> Derive {
        let Self { template, name, owner, memory, cpus, isolate, clone, allow: _, lab: _ } = self;
        let (template, name, owner) = (template.clone(), name.clone(), owner.clone());
        Derive { template, name, owner, memory_mib: *memory, cpus: *cpus, isolated: *isolate, clone: *clone }
    }
}

pub(super) fn delete(arguments: &DeleteArguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let DeleteArguments { vm, lab } = arguments;
    let (context, desired) = match Way::to(site, lab)? {
        Way::Daemon(lab) => return Ok(tell(&lab.delete(vm)?, ui)),
        Way::Here(lab) => *lab,
    };
    if !own::give_up(&context, Lab::OfManifest(&desired), vm)? {
        ui.say(&format!("vm {vm} was never made; nobody claims it any more"));
        return Ok(Exit::Done);
    }
    carry_out(&context, &desired, vm, vec![Address::vm(vm).into()], ui)
}

/// The part of the plan that is about this vm. Whoever names a vm means it, so nobody is asked; its disks are never deleted.
fn carry_out(
    context: &control::Context,
    desired: &Desired,
    name: &VmName,
    allow: Vec<AddressPattern>,
    ui: &mut Ui,
) -> Ended {
    let scope = own::part(name, allow);
    let make = |recorded: &Recorded| scope.plan(context, desired, recorded);
    apply::reconcile(context, desired, &make, &apply::Options::asking(true), &format!("apply --target vm/{name}"), ui)
}
