//! Commands of people who are not root, where a daemon serves the site: what it answers, and in which words.

use std::path::{Path, PathBuf};

use super::LabOption;
use super::context::of_known_lab;
use crate::control::Context;
use crate::control::permissions::EffectiveRights;
use crate::control::view::{Mapping, Template, Vm};
use crate::daemon::SOCKET;
use crate::daemon::client::{Client, ClientError};
use crate::daemon::messages::{Acted, Derive, Lab, Power};
use crate::error::chain;
use crate::exit::Exit;
use crate::host::process;
use crate::model::id::{LabName, VmName};
use crate::model::lab::Desired;
use crate::report::{Failure, Ui};

/// Who does what is asked of a lab.
pub(super) enum Way {
    /// This process, on the state itself.
    Here(Box<(Context, Desired)>),
    Daemon(Daemon, LabName),
}

impl Way {
    pub(super) fn to(site: Option<&Path>, lab: &LabOption) -> Result<Self, Failure> {
        let Some(socket) = served_by(site) else {
            return Ok(Self::Here(Box::new(of_known_lab(site, &lab.lab)?)));
        };
        let daemon = Daemon { client: Client::new(socket) };
        let lab = daemon.lab(lab)?;
        Ok(Self::Daemon(daemon, lab))
    }
}

/// Where the daemon of this machine listens, for somebody who is not root and means no other site.
fn served_by(site: Option<&Path>) -> Option<PathBuf> {
    let socket = socket();
    (!process::is_root() && site.is_none() && socket.exists()).then_some(socket)
}

fn socket() -> PathBuf {
    std::env::var_os("LABWRIGHT_SOCKET").map_or_else(|| SOCKET.into(), PathBuf::from)
}

/// Who may not do it on the state itself is told what would let them.
pub(super) fn or_by_daemon(site: Option<&Path>, failure: Failure) -> Failure {
    let is_lack_of_rights = matches!(failure.exit, Exit::Failed | Exit::Refused);
    if process::is_root() || served_by(site).is_some() || !is_lack_of_rights {
        return failure;
    }
    let (socket, is_there) = (socket().display().to_string(), socket().exists());
    let way = match is_there {
        true => format!("without `--site`, the daemon at {socket} does it for you"),
        false => {
            format!("no daemon serves {socket}, which would do it for you: an admin starts `labwright serve`")
        }
    };
    let hint = failure.hint.as_ref().map_or_else(|| way.clone(), |hint| format!("{hint}\nhint: {way}"));
    failure.hint(hint)
}

/// What was done, in the words that root reads.
pub(super) fn tell(acted: &Acted, ui: &Ui) -> Exit {
    ui.data(&acted.plan);
    ui.data(&acted.outcome);
    Exit::Done
}

pub(super) struct Daemon {
    client: Client,
}

impl Daemon {
    /// The lab that is meant: by its name, or the only one that there is for who asks.
    fn lab(&self, option: &LabOption) -> Result<LabName, Failure> {
        let named = option.lab.to_str().unwrap_or_default();
        if named != "." {
            let of_folder = option.lab.file_name().and_then(|name| name.to_str()).unwrap_or(named);
            return LabName::new(of_folder).map_err(|error| Failure::from_error(Exit::Usage, &error));
        }
        let mut labs = self.client.get::<Vec<Lab>>(&["labs"]).map_err(failure)?;
        match (labs.pop(), labs.len()) {
            (Some(lab), 0) => Ok(lab.name),
            (None, _) => Err(Failure::new(Exit::Failed, "there is no lab that you may know of")),
            (Some(last), _) => {
                let names: Vec<String> =
                    labs.iter().chain([&last]).map(|lab| format!("`--lab {}`", lab.name)).collect();
                Err(Failure::new(Exit::Usage, "you are in several labs; nothing was done").hint(names.join(" or ")))
            }
        }
    }

    pub(super) fn vms(&self, lab: &LabName) -> Result<Vec<Vm>, Failure> {
        self.client.get(&["labs", lab.as_str(), "vms"]).map_err(failure)
    }

    pub(super) fn templates(&self, lab: &LabName) -> Result<Vec<Template>, Failure> {
        self.client.get(&["labs", lab.as_str(), "templates"]).map_err(failure)
    }

    pub(super) fn mappings(&self, lab: &LabName) -> Result<Vec<Mapping>, Failure> {
        self.client.get(&["labs", lab.as_str(), "mappings"]).map_err(failure)
    }

    pub(super) fn rights(&self, lab: &LabName) -> Result<Vec<EffectiveRights>, Failure> {
        self.client.get(&["labs", lab.as_str(), "permissions", "effective"]).map_err(failure)
    }

    pub(super) fn derive(&self, lab: &LabName, wanted: &Derive) -> Result<Acted, Failure> {
        self.client.post(&["labs", lab.as_str(), "vms"], wanted).map_err(failure)
    }

    pub(super) fn delete(&self, lab: &LabName, vm: &VmName) -> Result<Acted, Failure> {
        self.client.delete(&["labs", lab.as_str(), "vms", vm.as_str()]).map_err(failure)
    }

    pub(super) fn power(&self, lab: &LabName, vm: &VmName, power: Power) -> Result<Acted, Failure> {
        self.client.post(&["labs", lab.as_str(), "vms", vm.as_str(), "power"], &power).map_err(failure)
    }
}

fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(refusal) => {
            Failure { exit: refusal.code.into(), message: refusal.message, causes: refusal.causes, hint: refusal.hint }
        }
        ClientError::Broken { .. } | ClientError::Late { .. } => Failure::new(Exit::Failed, chain(&error))
            .hint("what was asked for may be done or not: `labwright get vms` shows it"),
        _ => Failure::from_error(Exit::Failed, &error).hint("an admin looks after `labwright serve`"),
    }
}
