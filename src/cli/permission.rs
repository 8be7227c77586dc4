//! `labwright permission`: who may do what, and why; and what people allow by command.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use super::context::of_known_lab;
use super::{Ended, LabOption};
use crate::access::{Because, Forced, Given, Person, Refused};
use crate::control::permissions;
use crate::exit::Exit;
use crate::model::id::{UserGroupName, UserName};
use crate::model::lab::{Object, Permission, Right, Subject};
use crate::report::table::{Format, Row, render};
use crate::report::{Failure, Ui};

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
        #[arg(value_enum, requires = "on")]
        action: Option<Action>,
        /// With what: `vm/NAME`, `template/NAME` or `vm-group/NAME`.
        #[arg(value_name = "OBJECT", value_parser = object)]
        on: Option<Object>,
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Let a user or a group do something, beside what the manifest allows
    #[command(after_help = "Examples:
  labwright permission grant alex run,view vm/doraz/mine
  labwright permission grant group/studs derive template/gsr --force-isolated")]
    Grant {
        /// A user, or `group/NAME`.
        #[arg(value_name = "USER|GROUP", value_parser = subject)]
        to: Subject,
        /// What they may do, with commas between.
        #[arg(value_enum, value_delimiter = ',', num_args = 1, required = true)]
        allow: Vec<Action>,
        /// With what: `vm/NAME`, `template/NAME` or `vm-group/NAME`.
        #[arg(value_name = "OBJECT", value_parser = object)]
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
        #[arg(value_name = "USER|GROUP", value_parser = subject)]
        to: Subject,
        /// `vm/NAME`, `template/NAME` or `vm-group/NAME`.
        #[arg(value_name = "OBJECT", value_parser = object)]
        on: Object,
        #[command(flatten)]
        lab: LabOption,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Action {
    /// Start, stop and use it.
    Run,
    /// Memory, cpus, cdrom, rename, reimage, snapshot, delete.
    Modify,
    /// Make vms from it, derived or cloned.
    Derive,
    /// See its screen, without control.
    View,
}

impl From<Action> for Right {
    fn from(action: Action) -> Self {
        match action {
            Action::Run => Self::Run,
            Action::Modify => Self::Modify,
            Action::Derive => Self::Derive,
            Action::View => Self::View,
        }
    }
}

fn object(text: &str) -> Result<Object, String> {
    fn named<N: std::str::FromStr<Err: ToString>>(name: &str, of: impl Fn(N) -> Object) -> Result<Object, String> {
        name.parse().map(of).map_err(|error: N::Err| error.to_string())
    }
    match text.split_once('/') {
        Some(("vm", name)) => named(name, Object::Vm),
        Some(("template", name)) => named(name, Object::Template),
        Some(("vm-group", name)) => named(name, Object::VmGroup),
        _ => Err("write `vm/NAME`, `template/NAME` or `vm-group/NAME`".to_owned()),
    }
}

fn subject(text: &str) -> Result<Subject, String> {
    match text.split_once('/') {
        Some(("group" | "user-group", name)) => {
            UserGroupName::new(name).map(Subject::Group).map_err(|error| error.to_string())
        }
        Some(("user", name)) => UserName::new(name).map(Subject::User).map_err(|error| error.to_string()),
        _ => UserName::new(text).map(Subject::User).map_err(|error| error.to_string()),
    }
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &Ui) -> Ended {
    match command {
        Command::Check { user, action: Some(action), on: Some(on), lab, .. } => {
            check(user, (*action).into(), on, lab, site, ui)
        }
        Command::Check { user, lab, output, .. } => list(user, lab, *output, site, ui),
        Command::Grant { to, allow, on, force_isolated, lab } => {
            let allow = allow.iter().map(|action| Right::from(*action)).collect();
            let permission = Permission { to: to.clone(), on: on.clone(), allow, force_isolated: *force_isolated };
            let (context, desired) = of_known_lab(site, &lab.lab)?;
            permissions::grant(&context, &desired, &permission)?;
            ui.say(&format!("{} may now {} {}", whom(to), rights(&permission.allow), what(on)));
            Ok(Exit::Done)
        }
        Command::Revoke { to, on, lab } => {
            let (context, desired) = of_known_lab(site, &lab.lab)?;
            let permission =
                Permission { to: to.clone(), on: on.clone(), allow: BTreeSet::new(), force_isolated: false };
            permissions::revoke(&context, &desired, &permission)?;
            ui.say(&format!("what {} might do with {} by command is taken back", whom(to), what(on)));
            Ok(Exit::Done)
        }
    }
}

fn check(user: &UserName, right: Right, on: &Object, lab: &LabOption, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, &lab.lab)?;
    let (action, thing) = (word(right), what(on));
    match permissions::check(&context, &desired, &Person::User(user.clone()), right, on)? {
        Ok(because) => {
            ui.data(&format!("yes: {user} may {action} {thing}: {}\n", reason(&because)));
            Ok(Exit::Done)
        }
        Err(refused) => {
            let why = match refused {
                Refused::NotKnown => "to them, it is not there",
                Refused::NoRight => "no line allows it",
                Refused::NotInSession => "they may look in an open session, or if its owner lets them",
            };
            ui.data(&format!("no: {user} may not {action} {thing}: {why}\n"));
            Ok(Exit::Refused)
        }
    }
}

/// All that somebody may do with one thing.
#[derive(Debug, Serialize)]
struct RightsRow {
    object: String,
    allow: Vec<Right>,
    isolated: bool,
    because: Vec<String>,
}

impl Row for RightsRow {
    const COLUMNS: &'static [&'static str] = &["object", "allow", "isolated", "because"];
    fn cells(&self) -> Vec<String> {
        let allow: Vec<&str> = self.allow.iter().map(|right| word(*right)).collect();
        let isolated = if self.isolated { "forced" } else { "" };
        vec![self.object.clone(), allow.join(", "), isolated.to_owned(), self.because.join("; ")]
    }
}

fn list(user: &UserName, lab: &LabOption, format: Format, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, &lab.lab)?;
    let effective = permissions::effective(&context, &desired, &Person::User(user.clone()))?;
    let rows: Vec<RightsRow> = effective
        .into_iter()
        .map(|(object, effective)| {
            let reasons: BTreeSet<String> = effective.rights.values().map(reason).collect();
            let forced = effective.forced.as_ref().map(forced_words);
            RightsRow {
                object: address(&object),
                allow: effective.rights.keys().copied().collect(),
                isolated: effective.forced.is_some(),
                because: reasons.into_iter().chain(forced).collect(),
            }
        })
        .collect();
    if rows.is_empty() {
        return Err(Failure::new(Exit::Done, format!("{user} may do nothing in lab `{}`", desired.lab)));
    }
    ui.data(&render(&rows, format));
    Ok(Exit::Done)
}

fn reason(because: &Because) -> String {
    match because {
        Because::Root => "root".to_owned(),
        Because::SiteAdmin => "an admin of the site".to_owned(),
        Because::LabOwner => "an owner of the lab".to_owned(),
        Because::Owner => "it is theirs".to_owned(),
        Because::Permission { to, on, given } => permission_words(to, on, given),
    }
}

fn forced_words(forced: &Forced) -> String {
    match forced {
        Forced::FromTheStart => "isolated since it was made".to_owned(),
        Forced::By { to, on, given } => format!("isolated by {}", permission_words(to, on, given)),
    }
}

fn permission_words(to: &Subject, on: &Object, given: &Given) -> String {
    let place = match given {
        Given::Manifest(Some(place)) => place.to_string(),
        Given::Manifest(None) => "the lab as it was applied".to_owned(),
        Given::Claim { id, by } => format!("claim {id} of {by}"),
    };
    format!("{} on {} ({place})", whom(to), what(on))
}

fn whom(to: &Subject) -> String {
    match to {
        Subject::User(user) => user.to_string(),
        Subject::Group(group) => format!("group {group}"),
    }
}

fn what(on: &Object) -> String {
    match on {
        Object::Vm(vm) => format!("vm {vm}"),
        Object::Template(template) => format!("template {template}"),
        Object::VmGroup(group) => format!("vm group {group}"),
    }
}

fn address(on: &Object) -> String {
    match on {
        Object::Vm(vm) => format!("vm/{vm}"),
        Object::Template(template) => format!("template/{template}"),
        Object::VmGroup(group) => format!("vm-group/{group}"),
    }
}

fn word(right: Right) -> &'static str {
    match right {
        Right::Run => "run",
        Right::Modify => "modify",
        Right::Derive => "derive",
        Right::View => "view",
    }
}

fn rights(allow: &BTreeSet<Right>) -> String {
    allow.iter().map(|right| word(*right)).collect::<Vec<_>>().join(", ")
}
