//! What people look at, whichever way: listings, one vm, screens, rights, quotas. By the daemon each sees what is theirs.

use clap::ValueEnum;

use super::{OfLab, Way, way};
use crate::access::{Decision, Person};
use crate::control::permissions::{self, EffectiveRights};
use crate::control::pick;
use crate::control::quota::{Quota, quotas};
use crate::control::view::{self, FullVm, Listed, Only, Screens, Version, View, listed};
use crate::exit::Exit;
use crate::model::id::{LabName, UserName, VmName};
use crate::model::lab::{Object, Right};
use crate::report::table::{Format, Row, render};
use crate::report::{Failure, templates};

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listing {
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

impl Way {
    /// A listing, as it is written.
    pub fn listing(&self, listing: Listing, only: &Only, format: Format) -> Result<String, Failure> {
        match self {
            Self::Daemon(lab) => of_daemon(lab, listing, only, format),
            Self::Here(lab) => here(&lab.0.view(&lab.1)?, listing, only, format),
        }
    }

    pub fn vm(&self, vm: &VmName) -> Result<FullVm, Failure> {
        match self {
            Self::Daemon(lab) => Ok(lab.vm(vm)?),
            Self::Here(lab) => Ok(lab.0.view(&lab.1)?.full_vm(vm)?),
        }
    }

    /// Those that run, and are in their first run.
    pub(super) fn never_restarted(&self, words: &[String]) -> Result<Vec<VmName>, Failure> {
        match self {
            Self::Here(lab) => {
                let view = lab.0.view(&lab.1)?;
                Ok(view.never_restarted(pick::recorded_vms(&lab.1.lab, words, &view.recorded)?)?)
            }
            Self::Daemon(lab) => {
                let full = picked(lab, words)?.into_iter().map(|vm| lab.vm(&vm));
                let full = full.collect::<Result<Vec<_>, _>>()?;
                Ok(full.into_iter().filter(|full| full.never_restarted).map(|full| full.vm.name).collect())
            }
        }
    }

    /// Of the vms or families that are named; by the daemon the first that who asks may not run ends it.
    pub fn screens(&self, words: &[String]) -> Result<Screens, Failure> {
        match self {
            Self::Daemon(lab) => screens_of_daemon(lab, words),
            Self::Here(lab) => {
                let view = lab.0.view(&lab.1)?;
                Ok(view.screens(&pick::recorded_vms(&lab.1.lab, words, &view.recorded)?)?)
            }
        }
    }

    /// All that a user may do, as it is written; of everybody, as far as who asks may know.
    pub fn effective_rights(&self, user: Option<&UserName>, format: Format) -> Result<String, Failure> {
        Ok(match (self, user) {
            (Self::Daemon(lab), Some(user)) => render(&own_rights(lab, user)?, format),
            (Self::Daemon(lab), None) => render(&lab.rights()?, format),
            (Self::Here(lab), user) => render(&permissions::effective_of(&lab.0, &lab.1, user)?, format),
        })
    }

    pub fn rights(&self, user: &UserName) -> Result<Vec<EffectiveRights>, Failure> {
        match self {
            Self::Daemon(lab) => own_rights(lab, user),
            Self::Here(lab) => Ok(permissions::effective(&lab.0, &lab.1, user)?),
        }
    }

    /// Whether a user may do something, and by which line.
    pub fn decision(&self, user: &UserName, right: Right, on: &Object) -> Result<Decision, Failure> {
        match self {
            Self::Daemon(lab) => Ok(permissions::decision(own_rights(lab, user)?, right, on)),
            Self::Here(lab) => Ok(permissions::check(&lab.0, &lab.1, &Person::User(user.clone()), right, on)?),
        }
    }

    /// Of a user; of everybody, as far as who asks may know.
    pub fn quotas(&self, user: Option<&UserName>) -> Result<Vec<Quota>, Failure> {
        match (self, user) {
            (Self::Daemon(_), Some(user)) if !way::is_own(user) => {
                let what = format!("what {user} may use is for {user} and for root to ask; nothing was done");
                Err(Failure::new(Exit::Refused, what))
            }
            (Self::Daemon(lab), _) => Ok(lab.quota()?),
            (Self::Here(lab), user) => Ok(quotas(&lab.0.view(&lab.1)?, user)?),
        }
    }

    pub fn lab(&self) -> &LabName {
        match self {
            Self::Daemon(lab) => &lab.name,
            Self::Here(lab) => &lab.1.lab,
        }
    }
}

fn here(view: &View<'_>, listing: Listing, only: &Only, format: Format) -> Result<String, Failure> {
    fn text<R: Row + Listed>(view: &View<'_>, values: Vec<R>, only: &Only, format: Format) -> Result<String, Failure> {
        Ok(render(&view.only(values, only)?, format))
    }
    match listing {
        Listing::Vms if format == Format::Name => text(view, view.names(), only, format),
        Listing::Vms => text(view, view.vms()?, only, format),
        Listing::Mappings => text(view, view.mappings()?, only, format),
        Listing::Disks => text(view, view.disks(), only, format),
        Listing::Aside => text(view, view.aside()?, only, format),
        Listing::Jobs => text(view, view.jobs()?, only, format),
        Listing::Usage => text(view, view.usage()?, only, format),
        Listing::Users => text(view, view.users()?, only, format),
        Listing::UserGroups => text(view, view.user_groups()?, only, format),
        Listing::VmGroups => text(view, view.vm_groups()?, only, format),
        Listing::Templates => text(view, view.templates()?, only, format),
        Listing::Permissions => text(view, view.permissions()?, only, format),
        Listing::Sessions => text(view, view.sessions()?, only, format),
        Listing::Claims => text(view, view.claims(), only, format),
    }
}

/// What the daemon lets people see.
fn of_daemon(lab: &OfLab, listing: Listing, only: &Only, format: Format) -> Result<String, Failure> {
    let name = &lab.name;
    match listing {
        Listing::Vms => text(name, lab.vms()?, &named(lab, only)?, format),
        Listing::Mappings => text(name, lab.mappings()?, &named(lab, only)?, format),
        Listing::Templates => text(name, lab.templates()?, only, format),
        Listing::Users => text(name, lab.table::<view::User>("users")?, only, format),
        Listing::UserGroups => text(name, lab.table::<view::UserGroup>("user-groups")?, only, format),
        Listing::VmGroups => text(name, lab.table::<view::VmGroup>("vm-groups")?, only, format),
        Listing::Claims => text(name, lab.table::<view::Claim>("claims")?, only, format),
        Listing::Permissions => text(name, lab.table::<view::Permission>("permissions")?, only, format),
        Listing::Sessions => text(name, lab.table::<view::Session>("sessions")?, only, format),
        Listing::Aside => text(name, lab.aside()?, only, format),
        Listing::Disks | Listing::Jobs | Listing::Usage => {
            let what = "the daemon lists `vms`, `templates`, `mappings`, `users`, `user-groups`, `vm-groups`, `permissions`, \
                        `sessions`, `claims` and `aside`; the rest is for root";
            Err(Failure::new(Exit::Refused, what))
        }
    }
}

/// The same with the names of vms in place of their families'.
fn named(lab: &OfLab, only: &Only) -> Result<Only, Failure> {
    if only.names.is_empty() {
        return Ok(only.clone());
    }
    let names = picked(lab, &only.names)?.iter().map(ToString::to_string).collect();
    Ok(Only { names, owner: only.owner.clone() })
}

/// The one that they mean.
pub(super) fn picked_one(lab: &OfLab, word: &str) -> Result<VmName, Failure> {
    let vms = picked(lab, &[word.to_owned()])?;
    match <[VmName; 1]>::try_from(vms) {
        Ok([vm]) => Ok(vm),
        Err(several) => Err(Failure::new(Exit::Usage, format!("`{word}` means {} vms", several.len()))),
    }
}

/// The vms that somebody means, of those that they may know of.
pub(super) fn picked(lab: &OfLab, words: &[String]) -> Result<Vec<VmName>, Failure> {
    let known = lab.vms()?;
    let picked = pick::vms(&lab.name, words, known.iter().map(|vm| (&vm.name, Some(&vm.family))))?;
    Ok(picked.into_iter().collect())
}

fn text<R: Row + Listed>(lab: &LabName, values: Vec<R>, only: &Only, format: Format) -> Result<String, Failure> {
    Ok(render(&listed(lab, values, only)?, format))
}

/// What the daemon says of who asks; others' rights are for those who work on the state itself.
fn own_rights(lab: &OfLab, user: &UserName) -> Result<Vec<EffectiveRights>, Failure> {
    if way::is_own(user) {
        return Ok(lab.rights()?);
    }
    Err(Failure::new(Exit::Refused, "what others may do is for root to ask; nothing was done"))
}

/// Those that who asks may run; the first that they may not ends it.
fn screens_of_daemon(lab: &OfLab, words: &[String]) -> Result<Screens, Failure> {
    let mut screens = Screens::default();
    for name in picked(lab, words)? {
        let full = lab.vm(&name)?;
        match full.screen {
            Some(screen) => screens.shown.push(screen),
            None if full.may.contains(&Right::Run) => screens.without.push((name, full.vm.state)),
            None => {
                let what = format!("you don't have permission to run vm/{name}; nothing was done");
                return Err(Failure::new(Exit::Refused, what));
            }
        }
    }
    Ok(screens)
}

impl Way {
    /// Who derives from what, of the templates that are named or all. As data, each version has its vms.
    pub fn template_tree(&self, names: &[String], format: Format) -> Result<String, Failure> {
        if format != Format::Table {
            return self.template_versions(names, format);
        }
        let (known, versions) = match self {
            Self::Here(lab) => {
                let view = lab.0.view(&lab.1)?;
                (view.templates()?, view.versions()?)
            }
            Self::Daemon(lab) => (lab.templates()?, versions_of_daemon(lab, names)?),
        };
        let meant = listed(self.lab(), known, &only(names))?;
        let is_meant = |version: &Version| names.is_empty() || meant.iter().any(|of| of.name == version.template);
        let versions: Vec<Version> = versions.into_iter().filter(is_meant).collect();
        Ok(templates::tree(&meant, &versions))
    }

    /// The versions of templates, as they are written.
    pub fn template_versions(&self, names: &[String], format: Format) -> Result<String, Failure> {
        let versions = match self {
            Self::Here(lab) => listed(&lab.1.lab, lab.0.view(&lab.1)?.versions()?, &only(names))?,
            Self::Daemon(lab) => versions_of_daemon(lab, names)?,
        };
        Ok(render(&versions, format))
    }
}

fn versions_of_daemon(lab: &OfLab, names: &[String]) -> Result<Vec<Version>, Failure> {
    let mut versions = Vec::new();
    for template in listed(&lab.name, lab.templates()?, &only(names))? {
        versions.extend(lab.versions(&template.name)?);
    }
    Ok(versions)
}

fn only(names: &[String]) -> Only {
    Only { names: names.to_vec(), owner: None }
}
