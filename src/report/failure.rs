//! What `control` and the rooms below it say no with, as it is told to a person at a command line: with an exit code, and what
//! to type next.

use std::fmt::Display;
use std::io::ErrorKind;

use super::Failure;
use super::command::command_at;
use super::plain_words::shortened;
use super::privacy;
use super::session;
use super::times;
use crate::control::aside::AsideError;
use crate::control::collect::CollectError;
use crate::control::host_labs::InUse;
use crate::control::import::ImportError;
use crate::control::pick::{Others, PickError};
use crate::control::plan::NamedFor;
use crate::control::request::RequestError;
use crate::control::template::TemplateError;
use crate::control::{Code, ControlError};
use crate::error::chain;
use crate::exit::Exit;
use crate::model::id::VmName;
use crate::state::{AsideSet, StateError};

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        match code {
            Code::Failed => Self::Failed,
            Code::Invalid => Self::Invalid,
            Code::Refused => Self::Refused,
            Code::NotReady => Self::NotReady,
            Code::Usage => Self::Usage,
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self::from(&error)
    }
}

impl From<&ControlError> for Failure {
    fn from(error: &ControlError) -> Self {
        let mut failure = Self::from_error(error.code().into(), error);
        failure.causes.extend(details(error));
        if let ControlError::UnknownAddress { named_for, pattern, lab, .. } = error {
            let option = match named_for {
                NamedFor::Target => "--target",
                NamedFor::Allow => "--allow",
            };
            failure.message = format!("`{option} {pattern}` matches nothing in lab `{lab}`; nothing was changed");
        }
        if let ControlError::NotOwned { kind } = error {
            failure.message = format!("`--owner` picks nothing here: a {kind} has no owner");
        }
        match hint(error) {
            Some(hint) => failure.hint(hint),
            None if failure.hint.is_none() && matches!(error, ControlError::Observe(_)) => {
                failure.hint("nothing was changed: without seeing what is there, no plan is made")
            }
            None => failure,
        }
    }
}

/// What is said one by one.
fn details(error: &ControlError) -> Vec<String> {
    match error {
        ControlError::PlanMoved { moved, .. } => moved.clone(),
        ControlError::NotReady { lacking } => {
            lacking.iter().map(|line| format!("{}: {}", line.what, line.found)).collect()
        }
        ControlError::Aside(AsideError::NotDeleted { failed, .. }) => failed.iter().map(|error| chain(error)).collect(),
        ControlError::Import(ImportError::Stranger { reasons, .. }) => reasons.clone(),
        ControlError::Import(ImportError::Held { by, .. }) => vec![format!("{}: {}", by.address, by.why)],
        ControlError::InUse(error) => in_use(error),
        ControlError::Kept { kept, .. } => kept.iter().map(privacy::kept).collect(),
        ControlError::OfVms { failed, .. } => {
            failed.iter().map(|(vm, error)| format!("{vm}: {}", in_one_line(&error.into()))).collect()
        }
        _ => Vec::new(),
    }
}

fn in_one_line(failure: &Failure) -> String {
    let mut words = failure.message.clone();
    failure.causes.iter().for_each(|cause| words.extend([": ", cause]));
    failure.hint.iter().for_each(|hint| words.extend(["; ", hint]));
    words
}

fn hint(error: &ControlError) -> Option<String> {
    Some(match error {
        ControlError::State(error) | ControlError::NotAudited { source: error } => return error.hint(),
        ControlError::Pick(error) => hint_to_pick(error),
        ControlError::InUse(InUse::Guests { .. }) => "stop them first, from the submit host".to_owned(),
        ControlError::InUse(InUse::Lab { folder, site, .. }) => {
            let destroy = command_at(site.as_deref(), folder, "destroy");
            format!("`labwright vm stop` ends a guest, `{destroy}` the whole lab; then try again")
        }
        ControlError::Request(error) => return hint_to_request(error),
        ControlError::Aside(error) => return hint_to_aside(error),
        ControlError::Collect(error) => return hint_to_collect(error),
        ControlError::Import(error) => return hint_to_import(error),
        ControlError::Template(error) => return hint_to_template(error),
        ControlError::Session(error) => return session::hint(error),
        ControlError::Unisolated { vm } => format!("`labwright vm start {vm} --isolate` starts it isolated"),
        ControlError::StandsStill { .. } => {
            "whoever keeps the manifest writes `state: on_demand` there, or nothing, so that people decide".to_owned()
        }
        ControlError::NotMadeIsolated { vm } => {
            format!(
                "start it without `--isolate`, or make one with `labwright vm derive … --isolate`; {vm} stays as it is"
            )
        }
        ControlError::RunningLimit { .. } => {
            "`labwright get vms` lists them, and `labwright vm stop` ends one; an admin may raise `running_vms`"
                .to_owned()
        }
        ControlError::Kept { user, kept } => return kept.first().map(|first| privacy::way_out(first, user)),
        ControlError::Export { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
            "name another one with `-o FILE`; what is there is left as it is".to_owned()
        }
        ControlError::ForOthers => "leave `--owner` out to make one of your own".to_owned(),
        ControlError::Hardware { .. } => "memory goes from `16M` to `4T`, processors from 1 to 255".to_owned(),
        ControlError::NoSite => "name its file with `--site FILE`".to_owned(),
        ControlError::NoSuchLab { .. } => {
            "`labwright get vms` without `--lab` lists your labs, where there are several".to_owned()
        }
        ControlError::NoClaim { .. } => "`labwright get claims` lists those that stand".to_owned(),
        ControlError::NoHost { hosts, .. } => format!("its hosts: {}", hosts.join(", ")),
        ControlError::NoHosts => "see `scheduler:` in site.yaml, and `qhost`".to_owned(),
        ControlError::NoSuchHost { hosts, .. } => format!("they are {}", hosts.join(", ")),
        ControlError::NoUser { .. } | ControlError::NoUserGroup { .. } => {
            "`labwright get users` and `labwright get user-groups` list whom the lab knows".to_owned()
        }
        ControlError::NameTaken { name } => format!("`labwright vm start {name}` starts it; or take another `--name`"),
        ControlError::SetInManifest { .. } => {
            "change it there, and apply; what people made by command is theirs to change".to_owned()
        }
        ControlError::OfManifest { .. } => "take it out of the manifest, and apply".to_owned(),
        ControlError::NoGrant { .. } => "`labwright get claims` lists what was given by command".to_owned(),
        ControlError::WrittenPermission { place, .. } => format!("take it out there: {place}"),
        ControlError::Frozen { .. } => "`labwright thaw` lets things go on".to_owned(),
        ControlError::Storage { .. } => "nothing else was changed; see `storage:` in site.yaml".to_owned(),
        ControlError::NotText { .. } => {
            "labwright writes this path into its state and into files that programs read: rename the folder".to_owned()
        }
        ControlError::NoServiceUser { name } => format!(
            "make it with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`, \
             or set `service_user:` in site.yaml"
        ),
        ControlError::UnknownAddress { near, .. } => meant(near.as_ref()),
        ControlError::Unheard { near, .. } => meant(near.as_ref()),
        ControlError::UnknownApply { .. } => "`labwright history` lists the latest".to_owned(),
        ControlError::PlanUnread { .. } | ControlError::NotAPlan { .. } => {
            "a lab is named by its folder, a plan by the file that `labwright plan -o FILE` wrote".to_owned()
        }
        ControlError::PlanMoved { .. } | ControlError::PlanVersion { .. } => {
            "make a new one with `labwright plan -o FILE`".to_owned()
        }
        ControlError::NotRoot => "run it again with `sudo`; `labwright plan` and `validate` need no root".to_owned(),
        ControlError::Password { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            "only root and the service account may: `sudo labwright vm vnc …`".to_owned()
        }
        ControlError::NobodyToAsk => "add `--yes` where nobody is watching, such as in a script".to_owned(),
        _ => return None,
    })
}

/// The thing that is called almost like what somebody named.
fn meant(near: Option<&impl Display>) -> String {
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`labwright plan --verbose` lists all that there is".to_owned(),
    }
}

/// Who needs what a host has.
fn in_use(error: &InUse) -> Vec<String> {
    match error {
        InUse::Guests { runs } => vec![format!("on its bridges: {}", shortened(runs.iter()))],
        InUse::Lab { vms, sessions, .. } => {
            let running =
                (!vms.is_empty()).then(|| format!("vms of it run, or are about to: {}", shortened(vms.iter())));
            let open = sessions
                .iter()
                .map(|(name, until)| format!("its session {name} is open until {}", times::local(*until)));
            running.into_iter().chain(open).collect()
        }
    }
}

fn hint_to_pick(error: &PickError) -> String {
    match error {
        PickError::NothingFits { kind, .. } | PickError::Unknown { kind, others: Others::Unlike, .. } => {
            format!("`labwright get {kind}s` lists all")
        }
        PickError::Unknown { kind, others: Others::Near(near), .. } => {
            format!("did you mean `{near}`? `labwright get {kind}s` lists all")
        }
        PickError::Unknown { kind, others: Others::None, .. } => {
            format!("there is no {kind} yet: `labwright apply` makes what the manifest asks for")
        }
        PickError::Several { vms, .. } => {
            format!("name one of {}", vms.iter().map(VmName::as_str).collect::<Vec<_>>().join(", "))
        }
    }
}

fn hint_to_aside(error: &AsideError) -> Option<String> {
    let words = |sets: &[AsideSet]| sets.iter().map(AsideSet::words).collect::<Vec<_>>().join(", ");
    Some(match error {
        AsideError::None { .. } => "`labwright get aside` lists all".to_owned(),
        AsideError::Returning { vm, .. } => format!("`labwright restore vm/{vm}` goes on with it"),
        AsideError::NoSet { sets, .. } => format!("it has {}", words(sets)),
        AsideError::Sets { sets, .. } => {
            let last = sets.last().map_or("", |set| &set.name);
            format!("say which, such as `--set {last}`: {}", words(sets))
        }
        AsideError::Stranger { was, .. } => format!("give the vm back to {was} in the manifest first"),
        AsideError::NotOff { vm } => format!("`labwright vm stop {vm} --yes` first"),
        AsideError::UnknownJob { .. } => "`labwright plan` says what to do about it".to_owned(),
        AsideError::InUse { .. } => "`--undo` is for disks that wait for a vm".to_owned(),
        AsideError::Gone { .. } => "is the storage mounted?".to_owned(),
        AsideError::Move { vm, .. } => format!("no disk is lost: `labwright restore vm/{vm}` goes on where this ended"),
        AsideError::NotHeld { .. } => "`labwright get claims` lists what is held".to_owned(),
        AsideError::NoMachine { .. } => "the template that it came from left the lab, too".to_owned(),
        AsideError::NoVm { .. }
        | AsideError::NotCopied { .. }
        | AsideError::Name(_)
        | AsideError::Past { .. }
        | AsideError::NothingWaits { .. }
        | AsideError::NotDeleted { .. } => {
            return None;
        }
    })
}

fn hint_to_template(error: &TemplateError) -> Option<String> {
    Some(match error {
        TemplateError::NoCd { .. } => "a disk image is a template's `image:`; `file` tells what it is".to_owned(),
        TemplateError::CdOutside { .. } => {
            "an admin says in site.yaml where a lab's images are: `image_roots`".to_owned()
        }
        TemplateError::CdOfOthers { .. } => {
            "an admin puts it where root alone may write, in each folder on the way; its host opens it by name"
                .to_owned()
        }
        TemplateError::Installed { vm } => format!("`labwright vm start {vm}` starts it"),
        TemplateError::OfImages { .. } => {
            "put the new image in their place, and the next apply publishes it; or write `disks: [{ size: … }]`"
                .to_owned()
        }
        TemplateError::Disks { .. } => "publish a vm that has as many".to_owned(),
        TemplateError::NotMade { vm } => format!("`labwright plan` shows what vm {vm} waits for"),
        TemplateError::CdUnread { .. } | TemplateError::NotPublished { .. } => return None,
    })
}

fn hint_to_collect(error: &CollectError) -> Option<String> {
    Some(match error {
        CollectError::Running { vm } => {
            format!("`labwright vm stop {vm}` lets it save first; `--look` reads it as it is, which is no submission")
        }
        CollectError::NoPatterns { .. } => {
            "name them with `--path 'home/*/answer*'`, or in the manifest: `collect: [\"home/*/answer*\"]` of its vms"
                .to_owned()
        }
        CollectError::Write { .. } | CollectError::Read { .. } => return None,
    })
}

fn hint_to_import(error: &ImportError) -> Option<String> {
    Some(match error {
        ImportError::Held { by, .. } => by.hint(),
        ImportError::Applied { .. } => {
            "a disk from elsewhere can only become that of a new vm: give it another name in the manifest".to_owned()
        }
        ImportError::Tasks { job, .. } => {
            format!("write it as `--job {job}.TASK`; `labwright plan` names those that no record knows")
        }
        ImportError::NoJob { .. } => "`labwright plan` names the jobs that no record knows".to_owned(),
        ImportError::Name(_) | ImportError::Copy { .. } | ImportError::Queue(_) | ImportError::Stranger { .. } => {
            return None;
        }
    })
}

fn hint_to_request(error: &RequestError) -> Option<String> {
    Some(match error {
        RequestError::NotRunning { vm } => format!("`labwright vm start {vm}` starts it"),
        RequestError::Early { .. } => "try again when `labwright status` shows it as booting or ready".to_owned(),
        RequestError::SnapshotThere { .. } => {
            "name the new one differently, or delete the old one with `labwright vm delete-snapshot`".to_owned()
        }
        RequestError::NoSnapshot { has, .. } if has.is_empty() => {
            "it has none: `labwright vm snapshot` takes one".to_owned()
        }
        RequestError::NoSnapshot { has, .. } => {
            let names: Vec<String> = has.iter().map(|name| format!("`{name}`")).collect();
            format!("it has {}", names.join(", "))
        }
        RequestError::NoAnswer { .. } => {
            "it may still do it; its host or storage may be gone: `labwright status` shows where it is".to_owned()
        }
        _ => return None,
    })
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        ControlError::from(error).into()
    }
}

impl From<PickError> for Failure {
    fn from(error: PickError) -> Self {
        ControlError::from(error).into()
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        ControlError::from(error).into()
    }
}
