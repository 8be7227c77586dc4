//! `labwright get KIND [NAME...]`: listings of what is recorded and seen.

use std::path::Path;

use super::{Ended, LabOption};
use crate::client::Way;
use crate::client::looks::Listing;
use crate::control::view::Only;
use crate::exit::Exit;
use crate::model::id::UserName;
use crate::report::table::Format;
use crate::report::{Failure, Ui};

/// Vms that are listed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct VmsArguments {
    /// Only these, by name or family; `*` stands for anything.
    name: Vec<String>,

    /// Only what belongs to this user.
    #[arg(long, value_name = "USER")]
    owner: Option<String>,

    #[command(flatten)]
    lab: LabOption,

    /// How the listing is written.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl From<VmsArguments> for Arguments {
    fn from(of_vms: VmsArguments) -> Self {
        let VmsArguments { name, owner, lab, output } = of_vms;
        Self { kind: Listing::Vms, name, owner, effective: false, lab, output }
    }
}

/// List what there is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright get vms
  labwright get vms exam 'alice-*'    # a family, and all that fit a pattern
  labwright get vm --owner alice
  labwright get mappings -o json      # host, IP, MAC, vnc of every running vm
  labwright get permissions --effective --owner alice   # all that she may do, and why
  labwright get users -o csv")]
pub(super) struct Arguments {
    /// What to list, in the singular or the plural.
    kind: Listing,

    /// Only these; `*` stands for anything. What belongs to a vm is picked by the vm or its family.
    name: Vec<String>,

    /// Only what belongs to this user.
    #[arg(long, value_name = "USER")]
    owner: Option<String>,

    /// What people may do, by whatever line allows it: of `permissions` alone; with `--owner`, of this user.
    #[arg(long, conflicts_with = "name")]
    effective: bool,

    #[command(flatten)]
    lab: LabOption,

    /// How the listing is written.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Arguments {
    fn only(&self) -> Only {
        Only { names: self.name.clone(), owner: self.owner.clone() }
    }

    /// Whose rights are meant.
    fn person(&self) -> Result<Option<UserName>, Failure> {
        let named = self.owner.as_deref().map(UserName::new).transpose();
        named.map_err(|error| Failure::from_error(Exit::Usage, &error))
    }

    fn refuse_effective_others(&self) -> Result<(), Failure> {
        if !self.effective || self.kind == Listing::Permissions {
            return Ok(());
        }
        let what = "`--effective` is about permissions alone";
        Err(Failure::new(Exit::Usage, what).hint("write `labwright get permissions --effective`"))
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    arguments.refuse_effective_others()?;
    let way = Way::to(site, &arguments.lab.lab)?;
    ui.data(&match arguments.effective {
        true => way.effective_rights(arguments.person()?.as_ref(), arguments.output)?,
        false => way.listing(arguments.kind, &arguments.only(), arguments.output)?,
    });
    Ok(Exit::Done)
}
