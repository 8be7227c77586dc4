//! `labwright permission`: who may do what, and why; and what people allow by command.

use std::collections::BTreeSet;
use std::path::Path;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::{Ended, LabOption, Listed, said, shown};
use crate::exit::Exit;
use crate::model::id::UserName;
use crate::model::lab::{Object, Permission, Right, Subject};
use crate::report::table::render;
use crate::report::{Ui, permissions as words};

/// Who may do what, and why
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say whether somebody may do something, and which line decides
    #[command(after_help = "Examples:
  labwright permission check alex derive template/gsr
  labwright permission check alex                       # all that alex may do

Exits 0 if they may, 4 if not.")]
    Check {
        /// A user of the lab.
        user: UserName,
        /// What they want to do; without it, all that they may do is listed.
        #[arg(value_parser = right(), requires = "on")]
        action: Option<Right>,
        /// With what: `vm/NAME`, `template/NAME` or `vm-group/NAME`.
        #[arg(value_name = "OBJECT")]
        on: Option<Object>,
        #[command(flatten)]
        listed: Listed,
    },
    /// Let a user or a group do something, beside what the manifest allows
    #[command(after_help = "Examples:
  labwright permission grant alex run,view vm/doraz/mine
  labwright permission grant group/studs derive template/gsr --force-isolated")]
    Grant {
        /// A user, or `group/NAME`.
        #[arg(value_name = "USER|GROUP")]
        to: Subject,
        /// What they may do, with commas between.
        #[arg(value_parser = right(), value_delimiter = ',', num_args = 1, required = true)]
        allow: Vec<Right>,
        /// With what: `vm/NAME`, `template/NAME` or `vm-group/NAME`.
        #[arg(value_name = "OBJECT")]
        on: Object,
        /// Their vms of it run isolated.
        #[arg(long)]
        force_isolated: bool,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Take back what was allowed by command
    #[command(after_help = "Example: labwright permission revoke alex vm/doraz/mine")]
    Revoke {
        /// A user, or `group/NAME`.
        #[arg(value_name = "USER|GROUP")]
        to: Subject,
        /// `vm/NAME`, `template/NAME` or `vm-group/NAME`.
        #[arg(value_name = "OBJECT")]
        on: Object,
        #[command(flatten)]
        lab: LabOption,
    },
}

/// Rights by their names, with what each is for.
fn right() -> impl TypedValueParser<Value = Right> {
    let modify = "Reimage it, take snapshots; of what somebody made: memory, processors, name, and deleting it";
    let words = [
        PossibleValue::new("run").help("Start, stop and use it"),
        PossibleValue::new("modify").help(modify),
        PossibleValue::new("derive").help("Make vms from it, derived or cloned"),
        PossibleValue::new("view").help("See its screen, without control"),
    ];
    PossibleValuesParser::new(words).map(|word| match word.as_str() {
        "run" => Right::Run,
        "modify" => Right::Modify,
        "derive" => Right::Derive,
        _ => Right::View,
    })
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &Ui) -> Ended {
    match command {
        Command::Check { user, action: Some(right), on: Some(on), listed } => {
            let decision = listed.lab.way(site)?.decision(user, *right, on)?;
            ui.data(&words::decision(user, *right, on, &decision));
            Ok(if decision.is_ok() { Exit::Done } else { Exit::Refused })
        }
        Command::Check { user, listed: Listed { lab, output }, .. } => {
            let way = lab.way(site)?;
            let rights = way.rights(user)?;
            if rights.is_empty() {
                ui.say(&format!("{user} may do nothing in lab `{}`", way.lab()));
            }
            shown(ui, &render(&rights, *output))
        }
        Command::Grant { to, allow, on, force_isolated, lab } => {
            let allow = allow.iter().copied().collect();
            let permission = Permission { to: to.clone(), on: on.clone(), allow, force_isolated: *force_isolated };
            lab.way(site)?.grant(&permission)?;
            let isolated = if *force_isolated { ", isolated" } else { "" };
            said(ui, &format!("{to} may now {} {on}{isolated}", words::list(permission.allow.iter())))
        }
        Command::Revoke { to, on, lab } => {
            let permission =
                Permission { to: to.clone(), on: on.clone(), allow: BTreeSet::new(), force_isolated: false };
            lab.way(site)?.revoke(&permission)?;
            said(ui, &format!("what {to} might do with {on} by command is taken back"))
        }
    }
}
