//! A lab as the daemon shows it to who asks, for commands: what each path of the API answers, and a no as it is told to a person.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Client, ClientError};
use crate::control::permissions::EffectiveRights;
use crate::control::quota::Quota;
use crate::control::restore::Moved;
use crate::control::session::{Answer, Wanted};
use crate::control::template::Made;
use crate::control::view::{Aside, FullVm, Mapping, Standing, Template, Version, Vm, VmState};
use crate::daemon::lab_messages::Told;
use crate::daemon::messages::{
    Acted, Derive, Edit, Grant, GuestAsk, Hold, Install, Lab, Power, Publish, Restore, Snapshot,
};
use crate::error::chain;
use crate::exit::Exit;
use crate::model::id::{LabName, SessionName, TemplateName, VmName};
use crate::report::{Failure, Ui, requests};

/// One of the labs that who asks may know of.
pub struct OfLab {
    client: Client,
    pub name: LabName,
}

impl OfLab {
    /// The lab of this name, or the only one that there is for who asks.
    pub fn new(client: Client, named: Option<LabName>) -> Result<Self, Failure> {
        let name = named.map_or_else(|| only(&client), Ok)?;
        Ok(Self { client, name })
    }

    pub fn vms(&self) -> Result<Vec<Vm>, ClientError> {
        self.table("vms")
    }

    pub fn vm(&self, vm: &VmName) -> Result<FullVm, ClientError> {
        self.client.get(&["labs", self.name.as_str(), "vms", vm.as_str()])
    }

    pub fn templates(&self) -> Result<Vec<Template>, ClientError> {
        self.table("templates")
    }

    /// One of the listings, by its path.
    pub fn table<R: DeserializeOwned>(&self, table: &str) -> Result<Vec<R>, ClientError> {
        self.client.get(&["labs", self.name.as_str(), table])
    }

    pub fn mappings(&self) -> Result<Vec<Mapping>, ClientError> {
        self.table("mappings")
    }

    pub fn rights(&self) -> Result<Vec<EffectiveRights>, ClientError> {
        self.client.get(&["labs", self.name.as_str(), "permissions", "effective"])
    }

    /// Of who asks, in this lab.
    pub fn quota(&self) -> Result<Vec<Quota>, ClientError> {
        let mut quotas: Vec<Quota> = self.client.get(&["quota"])?;
        quotas.retain(|quota| quota.lab == self.name);
        Ok(quotas)
    }

    /// Sends a lab of their own; hears, line by line, how it goes.
    pub fn send(&self, doing: &str, body: Vec<u8>, hear: &mut dyn FnMut(Told)) -> Result<(), ClientError> {
        self.client.send_lab(&["labs", self.name.as_str(), doing], body, hear)
    }

    pub fn grant(&self, grant: &Grant) -> Result<(), ClientError> {
        self.client.post(&["labs", self.name.as_str(), "permissions"], grant)
    }

    pub fn revoke(&self, grant: &Grant) -> Result<(), ClientError> {
        self.client.post(&["labs", self.name.as_str(), "permissions", "revoke"], grant)
    }

    pub fn derive(&self, wanted: &Derive) -> Result<Acted, ClientError> {
        self.client.post(&["labs", self.name.as_str(), "vms"], wanted)
    }

    pub fn edit(&self, vm: &VmName, edit: &Edit) -> Result<Acted, ClientError> {
        self.client.post(&["labs", self.name.as_str(), "vms", vm.as_str(), "edit"], edit)
    }

    pub fn install(&self, template: &TemplateName, install: &Install) -> Result<Acted, ClientError> {
        self.client.post(&["labs", self.name.as_str(), "templates", template.as_str(), "install"], install)
    }

    pub fn publish(&self, template: &TemplateName, publish: &Publish) -> Result<Made, ClientError> {
        self.client.post_but_once(&["labs", self.name.as_str(), "templates", template.as_str(), "versions"], publish)
    }

    pub fn versions(&self, template: &TemplateName) -> Result<Vec<Version>, ClientError> {
        self.client.get(&["labs", self.name.as_str(), "templates", template.as_str(), "versions"])
    }

    pub fn aside(&self) -> Result<Vec<Aside>, ClientError> {
        self.table("aside")
    }

    pub fn restore(&self, vm: &VmName, restore: &Restore) -> Result<Vec<Moved>, ClientError> {
        self.client.post_but_once(&["labs", self.name.as_str(), "vms", vm.as_str(), "restore"], restore)
    }

    pub fn hold(&self, vm: &VmName, hold: &Hold) -> Result<(), ClientError> {
        self.client.post(&["labs", self.name.as_str(), "vms", vm.as_str(), "hold"], hold)
    }

    /// Asks something of a guest that runs.
    pub fn ask(&self, vm: &VmName, ask: &GuestAsk) -> Result<(), ClientError> {
        self.client.post(&["labs", self.name.as_str(), "vms", vm.as_str(), "requests"], ask)
    }

    pub fn snapshots(&self, vm: &VmName) -> Result<Vec<Snapshot>, ClientError> {
        self.client.get(&["labs", self.name.as_str(), "vms", vm.as_str(), "snapshots"])
    }

    pub fn session<T: DeserializeOwned>(&self, session: &SessionName, rest: &[&str]) -> Result<T, ClientError> {
        let path = ["labs", self.name.as_str(), "sessions", session.as_str()];
        self.client.get(&[&path[..], rest].concat())
    }

    pub fn move_times(&self, session: &SessionName, wanted: &Wanted) -> Result<Answer, ClientError> {
        self.client.post(&["labs", self.name.as_str(), "sessions", session.as_str(), "times"], wanted)
    }

    /// A picture of its screen, PNG.
    pub fn screen(&self, vm: &VmName) -> Result<Vec<u8>, ClientError> {
        self.client.get_bytes(&["labs", self.name.as_str(), "vms", vm.as_str(), "screen"])
    }

    pub fn delete(&self, vm: &VmName) -> Result<Acted, ClientError> {
        self.client.delete(&["labs", self.name.as_str(), "vms", vm.as_str()])
    }

    pub fn power(&self, vm: &VmName, power: &Power) -> Result<Acted, ClientError> {
        self.client.post(&["labs", self.name.as_str(), "vms", vm.as_str(), "power"], power)
    }

    /// Tells where a vm stands until it is up, or over.
    pub fn wait_for(&self, vm: &VmName, timeout: Duration, ui: &Ui) -> Result<(), Failure> {
        let mut last: Option<Standing> = None;
        self.listen(vm, timeout, &mut |standing: Standing| {
            ui.say(&requests::standing(vm, &standing));
            let is_over = matches!(standing.state, VmState::Ready | VmState::Off | VmState::Gone | VmState::Error);
            last = Some(standing);
            is_over
        })?;
        match last {
            Some(Standing { state: VmState::Ready, .. }) => Ok(()),
            Some(Standing { state: VmState::Off | VmState::Gone | VmState::Error, why, .. }) => {
                let why = why.unwrap_or_else(|| "its run is over".to_owned());
                Err(Failure::new(Exit::Failed, format!("vm `{vm}` did not come up: {why}")))
            }
            _ => Err(Failure::new(
                Exit::NotReady,
                format!("vm `{vm}` is not up after {} s; it goes on", timeout.as_secs()),
            )),
        }
    }

    /// Tells where a vm stands whenever that changes, until `heard` has heard enough; whether it had in time.
    fn listen(
        &self,
        vm: &VmName,
        timeout: Duration,
        heard: &mut dyn FnMut(Standing) -> bool,
    ) -> Result<bool, ClientError> {
        self.client.listen(&["labs", self.name.as_str(), "vms", vm.as_str(), "events"], timeout, heard)
    }
}

fn only(client: &Client) -> Result<LabName, Failure> {
    let mut labs = client.get::<Vec<Lab>>(&["labs"])?;
    match (labs.pop(), labs.len()) {
        (Some(lab), 0) => Ok(lab.name),
        (None, _) => Err(Failure::new(Exit::Failed, "there is no lab that you may know of")),
        (Some(last), _) => {
            let names: Vec<String> = labs.iter().chain([&last]).map(|lab| format!("`--lab {}`", lab.name)).collect();
            Err(Failure::new(Exit::Usage, "you are in several labs; nothing was done").hint(names.join(" or ")))
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(refusal) => {
                Self { exit: refusal.code.into(), message: refusal.message, causes: refusal.causes, hint: refusal.hint }
            }
            ClientError::Broken { .. } | ClientError::Late { .. } => Self::new(Exit::Failed, chain(&error))
                .hint("what was asked for may be done or not: `labwright get vms` shows it"),
            _ => Self::from_error(Exit::Failed, &error).hint("an admin looks after `labwright serve`"),
        }
    }
}
