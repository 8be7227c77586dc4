//! `labwright get KIND [NAME...]`: listings of what is recorded and seen.

use std::path::Path;

use clap::ValueEnum;

use super::permission::own_rights;
use super::remote::Way;
use super::{Ended, LabOption};
use crate::client::OfLab;
use crate::control::view::{self, Listed, Only, View, listed};
use crate::control::{ControlError, permissions};
use crate::exit::Exit;
use crate::model::id::{LabName, UserName};
use crate::report::table::{Format, Row, render};
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Listing {
    #[value(alias = "vm")]
    Vms,
    /// Where each running vm is.
    #[value(alias = "mapping")]
    Mappings,
    #[value(alias = "disk")]
    Disks,
    /// Disks that were set aside.
    Aside,
    /// Jobs of this lab, in the queue and over.
    #[value(alias = "job")]
    Jobs,
    /// Run time and memory-hours of each user.
    Usage,
    #[value(alias = "user")]
    Users,
    #[value(alias = "user-group")]
    UserGroups,
    #[value(alias = "vm-group")]
    VmGroups,
    #[value(alias = "template")]
    Templates,
    #[value(alias = "permission")]
    Permissions,
    #[value(alias = "session")]
    Sessions,
    /// What people asked for by command, as `vm start` does.
    #[value(alias = "claim")]
    Claims,
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
    let (context, desired) = match Way::to(site, &arguments.lab)? {
        Way::Daemon(lab) => return from_daemon(&lab, arguments, ui),
        Way::Here(lab) => *lab,
    };
    if arguments.effective {
        let rights = permissions::effective_of(&context, &desired, arguments.person()?.as_ref())?;
        ui.data(&render(&rights, arguments.output));
        return Ok(Exit::Done);
    }
    let view = context.view(&desired)?;
    let shown = Shown { view: &view, only: arguments.only(), format: arguments.output };
    ui.data(&match arguments.kind {
        Listing::Vms if arguments.output == Format::Name => shown.text(view.names())?,
        Listing::Vms => shown.text(view.vms()?)?,
        Listing::Mappings => shown.text(view.mappings()?)?,
        Listing::Disks => shown.text(view.disks())?,
        Listing::Aside => shown.text(view.aside()?)?,
        Listing::Jobs => shown.text(view.jobs()?)?,
        Listing::Usage => shown.text(view.usage()?)?,
        Listing::Users => shown.text(view.users()?)?,
        Listing::UserGroups => shown.text(view.user_groups()?)?,
        Listing::VmGroups => shown.text(view.vm_groups()?)?,
        Listing::Templates => shown.text(view.templates()?)?,
        Listing::Permissions => shown.text(view.permissions()?)?,
        Listing::Sessions => shown.text(view.sessions()?)?,
        Listing::Claims => shown.text(view.claims())?,
    });
    Ok(Exit::Done)
}

/// What the daemon lets people see.
fn from_daemon(lab: &OfLab, arguments: &Arguments, ui: &Ui) -> Ended {
    fn text<R: Row + Listed>(lab: &LabName, values: Vec<R>, arguments: &Arguments) -> Result<String, Failure> {
        Ok(render(&listed(lab, values, &arguments.only())?, arguments.output))
    }
    ui.data(&match arguments.kind {
        Listing::Vms => text(&lab.name, lab.vms()?, arguments)?,
        Listing::Mappings => text(&lab.name, lab.mappings()?, arguments)?,
        Listing::Templates => text(&lab.name, lab.templates()?, arguments)?,
        Listing::Users => text(&lab.name, lab.table::<view::User>("users")?, arguments)?,
        Listing::UserGroups => text(&lab.name, lab.table::<view::UserGroup>("user-groups")?, arguments)?,
        Listing::VmGroups => text(&lab.name, lab.table::<view::VmGroup>("vm-groups")?, arguments)?,
        Listing::Claims => text(&lab.name, lab.table::<view::Claim>("claims")?, arguments)?,
        Listing::Permissions if arguments.effective => {
            let rights = match arguments.person()? {
                Some(user) => own_rights(lab, &user)?,
                None => lab.rights()?,
            };
            render(&rights, arguments.output)
        }
        Listing::Permissions => text(&lab.name, lab.table::<view::Permission>("permissions")?, arguments)?,
        Listing::Disks | Listing::Aside | Listing::Jobs | Listing::Usage | Listing::Sessions => {
            let what = "the daemon lists `vms`, `templates`, `mappings`, `users`, `user-groups`, `vm-groups`, `permissions` and \
                        `claims`; the rest is for root";
            return Err(Failure::new(Exit::Refused, what));
        }
    });
    Ok(Exit::Done)
}

/// Which values of a listing are shown, and how.
struct Shown<'v> {
    view: &'v View<'v>,
    only: Only,
    format: Format,
}

impl Shown<'_> {
    fn text<R: Row + Listed>(&self, values: Vec<R>) -> Result<String, ControlError> {
        Ok(render(&self.view.only(values, &self.only)?, self.format))
    }
}
