//! What `control.json` asks of a running guest and takes a while: pictures and snapshots. Each is carried out in a thread of
//! its own that comes and goes; nothing else waits for it. In: a request. Out: its answer.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::guest::ANSWER_WAIT;
use super::machine::Reply;
use crate::error::chain;
use crate::host::run::qmp::{Asker, QmpError};
use crate::host::run::run_folder::{RunFolder, serial_socket};
use crate::run::{Request, RequestKind};

/// How often a snapshot that is being made is looked at.
const JOB_LOOK: Duration = Duration::from_millis(100);

/// How long a guest may take to read a line.
const SERIAL_WAIT: Duration = Duration::from_secs(5);

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

/// Says on the guest's serial line how much time is left: a comment to a shell, and nobody's name to a log-in. Where somebody has
/// that line open, it is theirs.
pub(super) fn warn(left_seconds: u64, qemu: &Asker, folder: &RunFolder) -> Result<(), String> {
    let devices = ask(qemu, "query-chardev", Value::Null)?;
    let serial = devices.as_array().into_iter().flatten().find(|device| device["label"] == "serial0");
    let is_free =
        serial.and_then(|serial| serial["filename"].as_str()).is_some_and(|name| name.starts_with("disconnected:"));
    if !is_free {
        return Err("somebody has its serial line open".to_owned());
    }
    let line = format!("# labwright: {} left\n", in_words(left_seconds));
    let failed = |error: std::io::Error| format!("cannot write to its serial line: {error}");
    let mut socket = UnixStream::connect(serial_socket(folder.path())).map_err(failed)?;
    socket.write_all(line.as_bytes()).and_then(|()| socket.shutdown(Shutdown::Write)).map_err(failed)?;
    if read_until_end(&mut socket) { Ok(()) } else { Err("the guest does not read its serial line".to_owned()) }
}

/// qemu hangs up when the guest has read all, and forgets the rest when we do before that. Says whether it did in time.
fn read_until_end(socket: &mut UnixStream) -> bool {
    let deadline = Instant::now() + SERIAL_WAIT;
    let mut said = [0; 4096];
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if matches!(socket.set_read_timeout(Some(left)).and_then(|()| socket.read(&mut said)), Ok(0)) {
            return true;
        }
    }
    false
}

fn in_words(seconds: u64) -> String {
    match (seconds.div_ceil(60), seconds) {
        (_, ..60) => format!("{seconds} s"),
        (1, _) => "1 minute".to_owned(),
        (minutes, _) => format!("{minutes} minutes"),
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
