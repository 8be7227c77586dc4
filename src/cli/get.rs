//! `labwright get KIND [NAME...]`: listings of what is recorded and seen.

use std::path::Path;

use super::{Ended, Listed, shown};
use crate::client::looks::Listing;
use crate::control::view::Only;
use crate::exit::Exit;
use crate::model::id::UserName;
use crate::report::{Failure, Ui};

/// What of a listing is meant.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Meant {
    /// Only these; `*` stands for anything. A vm, and what belongs to it, is picked by its name or its family.
    name: Vec<String>,

    /// Only what belongs to this user.
    #[arg(long, value_name = "USER")]
    owner: Option<String>,

    #[command(flatten)]
    listed: Listed,
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

    #[command(flatten)]
    meant: Meant,

    /// What people may do, by whatever line allows it: of `permissions` alone; with `--owner`, of this user.
    #[arg(long, conflicts_with = "name")]
    effective: bool,
}

impl Meant {
    /// Whose rights are meant.
    fn person(&self) -> Result<Option<UserName>, Failure> {
        let named = self.owner.as_deref().map(UserName::new).transpose();
        named.map_err(|error| Failure::from_error(Exit::Usage, &error))
    }
}

impl Arguments {
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
    let Arguments { kind, meant, effective } = arguments;
    if !effective {
        return list(*kind, meant, site, ui);
    }
    let Meant { listed: Listed { lab, output }, .. } = meant;
    shown(ui, &lab.way(site)?.effective_rights(meant.person()?.as_ref(), *output)?)
}

pub(super) fn list(kind: Listing, meant: &Meant, site: Option<&Path>, ui: &Ui) -> Ended {
    let Meant { name, owner, listed: Listed { lab, output } } = meant;
    let only = Only { names: name.clone(), owner: owner.clone() };
    shown(ui, &lab.way(site)?.listing(kind, &only, *output)?)
}
