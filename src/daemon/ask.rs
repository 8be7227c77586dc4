//! What changes something, from its request to its answer: what must be judged and written at once is done on a thread of its own,
//! the rest is the loop's. A client that goes away changes nothing about it.

use std::sync::Arc;
use std::time::Duration;

use super::api::{No, too_late, too_many};
use super::messages::{Acted, Derive, Edit, Install, Power};
use super::{Daemon, Peer, act};
use crate::control::Context;
use crate::control::round::{Asking, Doing};
use crate::model::id::{LabName, TemplateName, VmName};
use crate::plan::Wish;

/// Disks may be copied in full.
pub(super) const ACT_TIMEOUT: Duration = Duration::from_secs(600);

type Answer = Result<Acted, No>;

impl Daemon {
    pub(super) async fn derive(
        self: Arc<Self>,
        peer: Peer,
        lab: LabName,
        wanted: Derive,
        key: Option<String>,
    ) -> Answer {
        let command = format!("vm derive {} --name {}", wanted.template, wanted.name);
        let context = self.context_of(&peer, command.clone());
        let (daemon, again) = (Arc::clone(&self), key.clone());
        let work = async move {
            let claimed = (context.clone(), lab.clone());
            let vm = daemon.write(move || act::claim(&claimed.0, &claimed.1, wanted, again)).await?;
            let made = daemon.keeper.ask(lab.clone(), Doing::Make, asking(&context, &vm, None)).await;
            if made.is_err() {
                daemon.write(move || act::withdraw(&context, &lab, &vm)).await?;
            }
            made
        };
        self.in_time(&peer, key, &command, work).await
    }

    pub(super) async fn give_up(self: Arc<Self>, peer: Peer, lab: LabName, vm: VmName, key: Option<String>) -> Answer {
        let command = format!("vm delete {vm}");
        let context = self.context_of(&peer, command.clone());
        let daemon = Arc::clone(&self);
        let work = async move {
            let given_up = (context.clone(), lab.clone(), vm.clone());
            let done = daemon.write(move || act::give_up(&given_up.0, &given_up.1, &given_up.2)).await?;
            match done {
                Some(done) => Ok(done),
                None => daemon.keeper.ask(lab, Doing::GiveUp, asking(&context, &vm, None)).await,
            }
        };
        self.in_time(&peer, key, &command, work).await
    }

    pub(super) async fn edit(
        self: Arc<Self>,
        peer: Peer,
        lab: LabName,
        vm: VmName,
        wanted: Edit,
        key: Option<String>,
    ) -> Answer {
        let command = act::edit_command(&vm, &wanted);
        let context = self.context_of(&peer, command.clone());
        let daemon = Arc::clone(&self);
        let work = async move {
            let edited = (context.clone(), lab.clone());
            let name = daemon.write(move || act::edit(&edited.0, &edited.1, &vm, wanted)).await?;
            daemon.keeper.ask(lab, Doing::Change, asking(&context, &name, None)).await
        };
        self.in_time(&peer, key, &command, work).await
    }

    pub(super) async fn power(
        self: Arc<Self>,
        peer: Peer,
        lab: LabName,
        vm: VmName,
        power: Power,
        key: Option<String>,
    ) -> Answer {
        let command = act::power_command(&vm, &power);
        let context = self.context_of(&peer, command.clone());
        let (daemon, again) = (Arc::clone(&self), key.clone());
        let work = async move {
            if let Some(key) = again.clone() {
                let before = (context.clone(), lab.clone(), vm.clone());
                let known = daemon.write(move || act::asked_before(&before.0, &before.1, &before.2, &key)).await?;
                if let Some(known) = known {
                    return Ok(known);
                }
            }
            let cdrom = match power.cdrom {
                Some(file) => {
                    let install = (context.clone(), lab.clone(), vm.clone());
                    Some(daemon.write(move || act::cd(&install.0, &install.1, &install.2, power.wanted, &file)).await?)
                }
                None => None,
            };
            let asking = asking(&context, &vm, again);
            let asking = Asking { isolated: power.isolated, by_name: power.by_name, cdrom, ..asking };
            daemon.keeper.ask(lab, Doing::Power(power.wanted), asking).await
        };
        self.in_time(&peer, key, &command, work).await
    }

    /// Makes the vm on which a template is installed, and starts it with the CD.
    pub(super) async fn install(
        self: Arc<Self>,
        peer: Peer,
        lab: LabName,
        template: TemplateName,
        wanted: Install,
        key: Option<String>,
    ) -> Answer {
        let command = format!("template install {template} --cdrom {}", wanted.cdrom.display());
        let context = self.context_of(&peer, command.clone());
        let daemon = Arc::clone(&self);
        let work = async move {
            let claimed = (context.clone(), lab.clone());
            let (vm, cdrom) = daemon.write(move || act::install(&claimed.0, &claimed.1, &template, &wanted)).await?;
            let asking = Asking { by_name: true, cdrom: Some(cdrom), ..asking(&context, &vm, None) };
            daemon.keeper.ask(lab, Doing::Power(Wish::Start), asking).await
        };
        self.in_time(&peer, key, &command, work).await
    }

    /// Does it once, for one of the few requests that an account may have at a time.
    async fn in_time(
        &self,
        peer: &Peer,
        key: Option<String>,
        command: &str,
        work: impl Future<Output = Answer> + Send + 'static,
    ) -> Answer {
        let place = self.bounds.requests.take(peer.uid).ok_or_else(too_many)?;
        let work = || async move {
            let _place = place;
            work.await
        };
        let answer = self.answers.once(peer.uid, key, command, work);
        tokio::time::timeout(ACT_TIMEOUT, answer).await.unwrap_or_else(|_| Err(too_late()))
    }

    /// On a thread that may wait, in turn.
    async fn write<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, No> + Send + 'static) -> Result<T, No> {
        let turn = Arc::clone(&self.bounds.acts).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.unwrap_or_else(|_| Err(No::bug()))
    }
}

fn asking(context: &Context, vm: &VmName, key: Option<String>) -> Asking {
    Asking { caller: context.caller.clone(), vm: vm.clone(), isolated: false, by_name: false, key, cdrom: None }
}
