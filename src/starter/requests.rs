//! What `control.json` asks of a running guest, carried out in order and answered once each. Most are done at once; a
//! snapshot is a job of qemu that takes as long as the guest has memory, and is looked at in every round.

use std::path::Path;

use serde_json::{Value, json};

use super::guest::Guest;
use super::storage::{Reply, Storage};
use crate::error::chain;
use crate::host::qmp::QmpError;
use crate::host::run_folder::RunFolder;
use crate::run::{Event, Request, RequestKind};

#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Highest request that was answered.
    answered: u64,
    /// The guest stands still because somebody asked.
    pub suspended: bool,
    job: Option<Job>,
}

/// A job of qemu, and the request that it carries out.
#[derive(Debug)]
struct Job {
    id: String,
    number: u64,
}

/// What carrying out a request came to.
enum Done {
    Now(Reply),
    /// qemu works on it.
    Later,
}

impl Requests {
    /// Goes on with the job that runs, or carries out what is open.
    pub(super) fn go_on(
        &mut self,
        asked: &[Request],
        disks: usize,
        guest: &mut Guest,
        folder: &RunFolder,
        storage: &Storage,
    ) {
        if let Some(job) = &self.job {
            let Some(reply) = look_at(job, guest) else { return };
            // What a load that failed half-way has left must not run on.
            if !self.suspended && ask(guest, "query-status", Value::Null).is_ok_and(|status| status["running"] == false)
            {
                self.suspended = true;
                storage.record(Event::Paused {
                    reason: "a revert failed half-way; reset the vm or revert again".to_owned(),
                });
            }
            self.answer(job.number, reply, storage);
            self.job = None;
        }
        for Request { number, kind } in asked {
            if *number <= self.answered {
                continue;
            }
            match self.carry_out(*number, kind, disks, guest, folder, storage) {
                Done::Now(reply) => self.answer(*number, reply, storage),
                Done::Later => return,
            }
        }
    }

    /// Whether qemu works on a snapshot.
    pub(super) fn is_busy(&self) -> bool {
        self.job.is_some()
    }

    /// A qemu that died took its job with it, and its successor does not stand still.
    pub(super) fn qemu_died(&mut self, storage: &Storage) {
        self.suspended = false;
        if let Some(job) = self.job.take() {
            self.answer(job.number, Err("qemu ended while it worked on it".to_owned()), storage);
        }
    }

    fn answer(&mut self, number: u64, reply: Reply, storage: &Storage) {
        storage.answer(number, reply);
        self.answered = number;
    }

    fn carry_out(
        &mut self,
        number: u64,
        kind: &RequestKind,
        disks: usize,
        guest: &mut Guest,
        folder: &RunFolder,
        storage: &Storage,
    ) -> Done {
        match kind {
            RequestKind::Screen => Done::Now(screen(number, guest, folder).map(Some)),
            RequestKind::Suspend => Done::Now(self.stand_still(guest, storage).map(|()| None)),
            RequestKind::Resume => Done::Now(self.resume(guest, storage).map(|()| None)),
            RequestKind::Snapshot { name } => self.begin("snapshot-save", number, name, disks, guest),
            RequestKind::Revert { name } => match find_snapshot(name, disks, guest) {
                Ok(()) => self.begin("snapshot-load", number, name, disks, guest),
                Err(error) => Done::Now(Err(error)),
            },
            RequestKind::DeleteSnapshot { name } => match find_snapshot(name, disks, guest) {
                Ok(()) => self.begin("snapshot-delete", number, name, disks, guest),
                Err(error) => Done::Now(Err(error)),
            },
        }
    }

    fn stand_still(&mut self, guest: &mut Guest, storage: &Storage) -> Result<(), String> {
        ask(guest, "stop", Value::Null)?;
        if !self.suspended {
            storage.record(Event::Paused { reason: "it was asked to".to_owned() });
        }
        self.suspended = true;
        Ok(())
    }

    fn resume(&mut self, guest: &mut Guest, storage: &Storage) -> Result<(), String> {
        ask(guest, "cont", Value::Null)?;
        if self.suspended {
            storage.record(Event::Resumed);
        }
        self.suspended = false;
        Ok(())
    }

    /// The state of memory goes into the first disk; all disks get the name, so that they belong together.
    fn begin(&mut self, command: &str, number: u64, name: &str, disks: usize, guest: &mut Guest) -> Done {
        if disks == 0 {
            return Done::Now(Err("the vm has no disk that could hold a snapshot".to_owned()));
        }
        let nodes: Vec<String> = (0..disks).map(|number| format!("disk{number}")).collect();
        let id = format!("request{number}");
        let mut arguments = json!({ "job-id": id, "tag": name, "devices": nodes });
        if command != "snapshot-delete" {
            arguments["vmstate"] = json!(nodes[0]);
        }
        match ask(guest, command, arguments) {
            Ok(_) => {
                self.job = Some(Job { id, number });
                Done::Later
            }
            Err(error) => Done::Now(Err(error)),
        }
    }
}

/// qemu stops the guest before it looks for a snapshot, and lets it stand when there is none; so this looks first.
fn find_snapshot(name: &str, disks: usize, guest: &mut Guest) -> Result<(), String> {
    let nodes = ask(guest, "query-named-block-nodes", json!({ "flat": true }))?;
    for disk in (0..disks).map(|number| format!("disk{number}")) {
        let node = nodes.as_array().into_iter().flatten().find(|node| node["node-name"] == disk.as_str());
        let mut snapshots = node.and_then(|node| node["image"]["snapshots"].as_array()).into_iter().flatten();
        if !snapshots.any(|snapshot| snapshot["name"] == name) {
            return Err(format!("{disk} has no snapshot `{name}`"));
        }
    }
    Ok(())
}

/// How a job ended, if it has.
fn look_at(job: &Job, guest: &mut Guest) -> Option<Reply> {
    let jobs = match guest.ask("query-jobs", Value::Null) {
        Ok(jobs) => jobs,
        // qemu writes a guest's memory in one go, and hears nothing meanwhile.
        Err(QmpError::Silent { .. }) => return None,
        Err(error) => return Some(Err(chain(&error))),
    };
    let ours = jobs.as_array().into_iter().flatten().find(|entry| entry["id"] == job.id.as_str());
    let Some(ours) = ours else { return Some(Err("qemu does not know of it any more".to_owned())) };
    if ours["status"] != "concluded" {
        return None;
    }
    let reply = ours["error"].as_str().map_or(Ok(None), |error| Err(error.to_owned()));
    // A finished job that stays in qemu's list does no harm: its name is not used again.
    drop(ask(guest, "job-dismiss", json!({ "id": job.id })));
    Some(reply)
}

/// qemu writes into a pipe in the host-local folder; the picture goes on to storage from there.
fn screen(number: u64, guest: &mut Guest, folder: &RunFolder) -> Result<Vec<u8>, String> {
    let name = format!("request-{number}.png");
    let dump = |path: &Path| ask(guest, "screendump", json!({ "filename": path, "format": "png" }));
    let (dumped, picture) =
        folder.receive(&name, dump).map_err(|error| format!("cannot receive the picture from qemu: {error}"))?;
    dumped.map(|_| picture)
}

fn ask(guest: &mut Guest, command: &str, arguments: Value) -> Result<Value, String> {
    guest.ask(command, arguments).map_err(|error| chain(&error))
}
