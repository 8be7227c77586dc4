//! What `control.json` asks of a running guest and takes a while: pictures and snapshots. Each is carried out in a thread of
//! its own that comes and goes; nothing else waits for it. In: a request. Out: its answer.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::guest::ANSWER_WAIT;
use super::machine::Reply;
use crate::error::chain;
use crate::host::run::qmp::{Asker, QmpError};
use crate::host::run::run_folder::RunFolder;
use crate::run::{Request, RequestKind};

/// How often a snapshot that is being made is looked at.
const JOB_LOOK: Duration = Duration::from_millis(100);

/// Carries out a request, however long that takes.
pub(super) fn carry_out(request: &Request, disks: usize, qemu: &Asker, folder: &RunFolder) -> Reply {
    let number = request.number;
    match &request.kind {
        RequestKind::Screen => screen(number, qemu, folder).map(Some),
        RequestKind::Snapshot { name } => snapshot("snapshot-save", number, name, disks, qemu),
        RequestKind::Revert { name } => {
            find_snapshot(name, disks, qemu).and_then(|()| snapshot("snapshot-load", number, name, disks, qemu))
        }
        RequestKind::DeleteSnapshot { name } => {
            find_snapshot(name, disks, qemu).and_then(|()| snapshot("snapshot-delete", number, name, disks, qemu))
        }
        RequestKind::Suspend | RequestKind::Resume | RequestKind::Reset | RequestKind::Other(_) => {
            unreachable!("the machine itself sees to these")
        }
    }
}

/// The state of memory goes into the first disk; all disks get the name, so that they belong together.
fn snapshot(command: &str, number: u64, name: &str, disks: usize, qemu: &Asker) -> Reply {
    if disks == 0 {
        return Err("the vm has no disk that could hold a snapshot".to_owned());
    }
    let nodes: Vec<String> = (0..disks).map(|number| format!("disk{number}")).collect();
    let id = format!("request{number}");
    let mut arguments = json!({ "job-id": id, "tag": name, "devices": nodes });
    if command != "snapshot-delete" {
        arguments["vmstate"] = json!(nodes[0]);
    }
    ask(qemu, command, arguments)?;
    loop {
        if let Some(reply) = look_at(&id, qemu) {
            return reply.map(|()| None);
        }
        std::thread::sleep(JOB_LOOK);
    }
}

/// qemu stops the guest before it looks for a snapshot, and lets it stand when there is none; so this looks first.
fn find_snapshot(name: &str, disks: usize, qemu: &Asker) -> Result<(), String> {
    let nodes = ask(qemu, "query-named-block-nodes", json!({ "flat": true }))?;
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
fn look_at(id: &str, qemu: &Asker) -> Option<Result<(), String>> {
    let jobs = match qemu.execute("query-jobs", Value::Null, ANSWER_WAIT) {
        Ok(jobs) => jobs,
        // qemu writes a guest's memory in one go, and hears nothing meanwhile.
        Err(QmpError::Silent { .. }) => return None,
        Err(error) => return Some(Err(chain(&error))),
    };
    let ours = jobs.as_array().into_iter().flatten().find(|entry| entry["id"] == id);
    let Some(ours) = ours else { return Some(Err("qemu does not know of it any more".to_owned())) };
    if ours["status"] != "concluded" {
        return None;
    }
    let reply = ours["error"].as_str().map_or(Ok(()), |error| Err(error.to_owned()));
    // A finished job that stays in qemu's list does no harm: its name is not used again.
    drop(ask(qemu, "job-dismiss", json!({ "id": id })));
    Some(reply)
}

/// qemu writes into a pipe in the host-local folder; the picture goes on to storage from there.
fn screen(number: u64, qemu: &Asker, folder: &RunFolder) -> Result<Vec<u8>, String> {
    let name = format!("request-{number}.png");
    let dump = |path: &Path| ask(qemu, "screendump", json!({ "filename": path, "format": "png" }));
    let (dumped, picture) =
        folder.receive(&name, dump).map_err(|error| format!("cannot receive the picture from qemu: {error}"))?;
    dumped.map(|_| picture)
}

fn ask(qemu: &Asker, command: &str, arguments: Value) -> Result<Value, String> {
    qemu.execute(command, arguments, ANSWER_WAIT).map_err(|error| chain(&error))
}
