//! `labwright get KIND [NAME...]`: listings of what is recorded and seen.

mod claims;
mod disks;
mod jobs;
mod networks;
mod people;

use std::collections::BTreeSet;
use std::path::Path;

use clap::ValueEnum;

use super::context::of_known_lab;
use super::{Ended, LabOption};
use crate::control::pick;
use crate::control::view::Listed;
use crate::exit::Exit;
use crate::model::id::LabName;
use crate::model::lab::Desired;
use crate::plan::as_applied;
use crate::report::table::{Format, Row, render};
use crate::report::{Failure, Ui};
use crate::state::Recorded;

/// List what there is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright get vms
  labwright get vms exam 'alice-*'    # a family, and all that fit a pattern
  labwright get vm --owner alice
  labwright get mappings -o json      # host, IP, MAC, vnc of every running vm
  labwright get users -o csv")]
pub(super) struct Arguments {
    /// What to list, in the singular or the plural.
    kind: Listing,

    /// Only these; `*` stands for anything. What belongs to a vm is picked by the vm or its family.
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

impl Listing {
    /// What one row of it is about, in the singular.
    fn kind(self) -> &'static str {
        match self {
            Self::Vms | Self::Mappings | Self::Disks | Self::Aside | Self::Jobs => "vm",
            Self::Usage | Self::Users => "user",
            Self::UserGroups => "user-group",
            Self::VmGroups => "vm-group",
            Self::Templates => "template",
            Self::Permissions => "permission",
            Self::Sessions => "session",
            Self::Claims => "claim",
        }
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, &arguments.lab.lab)?;
    let view = context.view(&desired)?;
    let recorded = &view.recorded;
    let lister = Lister { arguments, lab: desired.lab.clone(), recorded };
    let applied = || applied(&desired.lab, recorded);
    match arguments.kind {
        Listing::Vms if arguments.output == Format::Name => lister.show(view.names(), ui),
        Listing::Vms => lister.show(view.vms()?, ui),
        Listing::Mappings => lister.show(view.mappings()?, ui),
        Listing::Disks => lister.show(disks::disk_rows(recorded), ui),
        Listing::Aside => lister.show(disks::aside_rows(&context, &desired.lab)?, ui),
        Listing::Jobs => lister.show(jobs::job_rows(&context, &desired.lab, recorded, &view.observed()?, ui)?, ui),
        Listing::Usage => lister.show(jobs::usage_rows(&context, &desired.lab, recorded, ui)?, ui),
        Listing::Users => lister.show(people::user_rows(&applied()?, recorded, &context.site), ui),
        Listing::UserGroups => lister.show(people::group_rows(&applied()?, &context.site), ui),
        Listing::VmGroups => lister.show(networks::group_rows(&applied()?, recorded, &context.site), ui),
        Listing::Templates => lister.show(disks::template_rows(&applied()?, recorded), ui),
        Listing::Permissions => lister.show(people::permission_rows(&applied()?), ui),
        Listing::Claims => lister.show(claims::claim_rows(&desired, recorded), ui),
        Listing::Sessions => lister.show(people::session_rows(&applied()?, jiff::Timestamp::now()), ui),
    }
}

/// What is recorded of a lab, as values.
fn applied(lab: &LabName, recorded: &Recorded) -> Result<Desired, Failure> {
    as_applied(lab.clone(), recorded).map_err(|address| {
        Failure::new(Exit::Failed, format!("the state speaks of {address}, which is no name of its kind"))
    })
}

struct Lister<'a> {
    arguments: &'a Arguments,
    lab: LabName,
    recorded: &'a Recorded,
}

impl Lister<'_> {
    fn show<R: Row + Listed>(&self, mut rows: Vec<R>, ui: &Ui) -> Ended {
        let Arguments { kind, name: names, owner, output, .. } = self.arguments;
        if !names.is_empty() {
            let picked = self.picked(&rows)?;
            rows.retain(|row| picked.contains(row.key()));
        }
        if let Some(owner) = owner {
            if rows.iter().any(|row| row.owner().is_none()) {
                let message = format!("`--owner` picks nothing here: a {} has no owner", kind.kind());
                return Err(Failure::new(Exit::Usage, message));
            }
            rows.retain(|row| row.owner() == Some(owner));
        }
        ui.data(&render(&rows, *output));
        Ok(Exit::Done)
    }

    /// What is no vm's is picked among the rows; what is, among all vms: one that has nothing to list is no mistake.
    fn picked<R: Row + Listed>(&self, rows: &[R]) -> Result<BTreeSet<String>, Failure> {
        let (kind, typed) = (self.arguments.kind.kind(), &self.arguments.name);
        let listed: BTreeSet<&str> = rows.iter().map(Listed::key).collect();
        if kind != "vm" {
            return Ok(pick::names(&self.lab, kind, typed, listed.iter().copied())?);
        }
        // Disks and jobs of vms that were forgotten are listed, too.
        let mut picked = BTreeSet::new();
        for word in typed {
            let word = std::slice::from_ref(word);
            match pick::recorded_vms(&self.lab, word, self.recorded) {
                Ok(vms) => picked.extend(vms.into_iter().map(|vm| vm.to_string())),
                Err(unknown) => {
                    let among = pick::names(&self.lab, kind, word, listed.iter().copied());
                    picked.extend(among.map_err(|_| unknown)?);
                }
            }
        }
        Ok(picked)
    }
}

/// `yes` or `no`, for cells.
fn yes_no(is: bool) -> String {
    if is { "yes".into() } else { "no".into() }
}

/// The first few of some names, and how many more there are.
fn few<N: ToString>(names: impl Iterator<Item = N>) -> String {
    const SHOWN_MAX: usize = 4;
    let all: Vec<String> = names.map(|name| name.to_string()).collect();
    let shown = all[..all.len().min(SHOWN_MAX)].join(", ");
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Bytes as the manifest writes them: `13G`, `512M`.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("G", 30), ("M", 20), ("K", 10)];
    let unit = UNITS.iter().find(|(_, shift)| bytes >= 1 << shift);
    let Some((unit, shift)) = unit else { return bytes.to_string() };
    let tenths = bytes.saturating_mul(10) >> shift;
    if tenths.is_multiple_of(10) || tenths >= 1000 {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}
