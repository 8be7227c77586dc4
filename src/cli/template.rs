//! `labwright template`: what vms derive from, from a CD to a version, and which versions there are.

use std::path::{Path, PathBuf};

use super::{Ended, LabOption, apply, vm};
use crate::client::{Manner, Way, of_known_lab};
use crate::control::template::{self, Wanted};
use crate::control::view::{Only, listed};
use crate::exit::Exit;
use crate::model::id::TemplateName;
use crate::report::table::{Format, render};
use crate::report::{Ui, templates};

/// Install and publish what vms derive from
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Begin to install a template that has an empty disk: a vm of its owner's boots from the CD
    ///
    /// The vm is called OWNER/TEMPLATE and has what the manifest says of the template. When the system is installed and the vm
    /// is off, `template publish` makes its disks a version.
    #[command(after_help = "Example: labwright template install gsr --cdrom debian-12.iso")]
    Install(InstallArguments),
    /// Make the disks of a vm that is off a template's next version
    ///
    /// The version is a full image of its own, read-only, whatever the vm's disks derive from; the vm keeps its disks.
    #[command(after_help = "Example: labwright template publish badmin/gsr --as gsr --note 'with gcc 12'")]
    Publish {
        /// The vm.
        #[arg(value_name = "VM")]
        vm: String,
        /// A template whose manifest gives it an empty disk.
        #[arg(long = "as", value_name = "TEMPLATE")]
        template: TemplateName,
        /// What people should know of this version.
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Give vms that stand on an older version new disks of the latest; their old disks are set aside
    ///
    /// A guest that runs is stopped for it and started again. `vm reimage --undo` puts the old disks back.
    #[command(
        after_help = "In an open session, only a vm that is named by its own name is meant, or allowed: `--allow 'vm/*-gsr'`.

Examples:
  labwright template update gsr               # asks
  labwright template update gsr alice-gsr --yes"
    )]
    Update(UpdateArguments),
    /// List the versions of templates, and how many vms stand on each
    #[command(after_help = "Example: labwright template versions gsr")]
    Versions {
        /// Only these; `*` stands for anything.
        name: Vec<String>,
        #[command(flatten)]
        lab: LabOption,
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct InstallArguments {
    /// The template.
    template: TemplateName,
    /// Image of the CD, which the guests' account must be able to read on every host.
    #[arg(long, value_name = "FILE")]
    cdrom: PathBuf,
    /// No traffic but to the gateway.
    #[arg(long)]
    isolate: bool,
    #[command(flatten)]
    lab: LabOption,
}

#[derive(Debug, clap::Args)]
pub(super) struct UpdateArguments {
    /// The template.
    template: TemplateName,
    /// Only these, by name or family; `*` stands for anything.
    #[arg(value_name = vm::NAMES)]
    vms: Vec<String>,
    #[command(flatten)]
    acting: vm::Acting,
    #[command(flatten)]
    waiting: apply::Waiting,
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &mut Ui) -> Ended {
    match command {
        Command::Install(InstallArguments { template, cdrom, isolate, lab }) => {
            let (context, desired) = of_known_lab(site, &lab.lab)?;
            let cdrom = template::cd(cdrom).map_err(crate::control::ControlError::from)?;
            let vm = template::claim(&context, &desired, template, *isolate)?;
            let way = Way::Here(Box::new((context, desired)));
            let ended = way.install(vm.as_ref(), &cdrom, *isolate, &Manner::asking(true), ui)?;
            ui.say(&templates::next(&vm, Some(template)));
            Ok(ended)
        }
        Command::Publish { vm, template, note, lab } => {
            let (context, desired) = of_known_lab(site, &lab.lab)?;
            let wanted = Wanted { vm: vm.clone(), template: template.clone(), note: note.clone() };
            let made = template::publish(&context, &desired, &wanted)?;
            ui.say(&templates::published(template, &made));
            Ok(Exit::Done)
        }
        Command::Update(UpdateArguments { template, vms, acting, waiting }) => {
            let vm::Acting { allow, lab, options } = acting;
            Way::to(site, &lab.lab)?.update(template, vms, allow, &options.waiting(waiting), ui)
        }
        Command::Versions { name, lab, output } => {
            let (context, desired) = of_known_lab(site, &lab.lab)?;
            let only = Only { names: name.clone(), owner: None };
            let view = context.view(&desired)?;
            ui.data(&render(&listed(&desired.lab, view.versions()?, &only)?, *output));
            Ok(Exit::Done)
        }
    }
}
