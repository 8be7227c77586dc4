//! `labwright template`: what vms derive from, from a CD to a version, and which versions there are.

use std::path::Path;

use super::{Ended, LabOption, Listed, apply, get, shown, vm};
use crate::client::looks::Listing;
use crate::model::id::TemplateName;
use crate::report::Ui;

/// Install and publish what vms derive from
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Begin to install a template that has an empty disk: a vm of its owner's boots from the CD
    ///
    /// The vm is called OWNER/TEMPLATE and has what the manifest says of the template. When the system is installed and the vm
    /// is off, `template publish` makes its disks a version.
    #[command(after_help = "Example: labwright template install gsr --cdrom debian-12.iso")]
    Install {
        /// The template.
        template: TemplateName,
        #[command(flatten)]
        from: vm::Cd,
        /// No traffic but to the gateway.
        #[arg(long)]
        isolate: bool,
        #[command(flatten)]
        lab: LabOption,
    },
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
    /// List templates: your own and those that you may derive from; the same as `get templates`
    #[command(after_help = "Example: labwright template list -o json")]
    List(get::Meant),
    /// Show who derives from what: each template, its versions with what they take, and the vms that stand on each
    #[command(after_help = "Example: labwright template tree gsr")]
    Tree {
        /// Only these; `*` stands for anything.
        name: Vec<String>,
        #[command(flatten)]
        listed: Listed,
    },
    /// List the versions of templates, and how many vms stand on each
    #[command(after_help = "Example: labwright template versions gsr")]
    Versions {
        /// Only these; `*` stands for anything.
        name: Vec<String>,
        #[command(flatten)]
        listed: Listed,
    },
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
        Command::Install { template, from: vm::Cd { cdrom }, isolate, lab } => {
            lab.way(site)?.install_template(template, cdrom, *isolate, ui)
        }
        Command::Publish { vm, template, note, lab } => lab.way(site)?.publish(template, vm, note.as_deref(), ui),
        Command::Update(UpdateArguments { template, vms, acting, waiting }) => {
            let vm::Acting { allow, lab, options } = acting;
            lab.way(site)?.update(template, vms, allow, &options.waiting(waiting), ui)
        }
        Command::List(meant) => get::list(Listing::Templates, meant, site, ui),
        Command::Tree { name, listed: Listed { lab, output } } => {
            shown(ui, &lab.way(site)?.template_tree(name, *output)?)
        }
        Command::Versions { name, listed: Listed { lab, output } } => {
            shown(ui, &lab.way(site)?.template_versions(name, *output)?)
        }
    }
}
