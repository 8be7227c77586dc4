//! What the controller asks of this world, through the product's own traits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use labwright::apply::Clock;
use labwright::dhcp::{Dhcp, DhcpError};
use labwright::disks::{DiskError, Disks, Published, Stamp, Standing, Tell};
use labwright::model::disk::DiskOrigin;
use labwright::model::id::RunId;
use labwright::model::job::{JobId, Task, TaskId, TaskState};
use labwright::model::reservation::Reservation;
use labwright::run::{self, Batch, BatchId, Control, Record, RunFileError, RunSpec, Runs, Wanted, parse_report};
use labwright::scheduler::{Ended, Host, Scheduler, SchedulerError, Submission};

use super::{Inner, SimDisk, SimImage, SimRun, SimTask, World, hiccups, io_error};

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.call(|inner| inner.now + inner.controller_ahead)
    }

    fn sleep(&self, duration: Duration) {
        self.call(|inner| {
            inner.now += SignedDuration::try_from(duration).unwrap();
            inner.starters_act();
        });
    }
}

fn doubtful(request: &str, detail: &str) -> SchedulerError {
    SchedulerError::Doubtful { request: request.into(), detail: detail.into() }
}

impl Scheduler for World {
    fn submit(&self, submission: &Submission) -> Result<JobId, SchedulerError> {
        self.call(|inner| {
            inner.submits += 1;
            if hiccups(&mut inner.faults.hiccups.queue) {
                let detail = "too many jobs are waiting, please try again later".into();
                return Err(SchedulerError::Refused { request: "submit".into(), detail });
            }
            if inner.faults.queue_down || std::mem::take(&mut inner.faults.refuse_submit) {
                return Err(doubtful("submit", "the queue does not answer"));
            }
            inner.next_job += 1;
            let job = JobId(inner.next_job);
            let index = Path::new(submission.command.last().unwrap());
            let runs = inner.batches[index].runs.clone();
            assert_eq!(runs.len(), submission.tasks as usize, "one task per run");
            let hidden_for = inner.faults.appear_late;
            for (task, run) in (1..).zip(runs) {
                let state = TaskState::Pending { reason: None };
                let sim = SimTask { name: submission.name.clone(), run, state, hidden_for, host: None };
                inner.tasks.insert(TaskId { job, task }, sim);
            }
            if std::mem::take(&mut inner.faults.lose_submit_answer) {
                Err(doubtful("submit", "the answer was lost"))
            } else {
                Ok(job)
            }
        })
    }

    fn account(&self) -> Result<String, SchedulerError> {
        Ok("root".into())
    }

    fn list(&self) -> Result<Vec<Task>, SchedulerError> {
        self.call(|inner| {
            if inner.faults.queue_down {
                return Err(doubtful("list", "the queue does not answer"));
            }
            let mut listed = Vec::new();
            for (id, task) in &mut inner.tasks {
                if task.hidden_for > 0 && matches!(task.state, TaskState::Pending { .. }) {
                    task.hidden_for -= 1;
                    continue;
                }
                let on_host = matches!(task.state, TaskState::Running | TaskState::Unknown);
                let host = on_host.then(|| task.host.unwrap_or("h1").to_owned());
                let (name, state) = (task.name.clone(), task.state.clone());
                listed.push(Task { id: *id, name, owner: "root".into(), state, host });
            }
            for (id, name) in &inner.foreign {
                let (name, owner) = (name.clone(), "other".to_owned());
                listed.push(Task { id: *id, name, owner, state: TaskState::Running, host: Some("h9".into()) });
            }
            Ok(listed)
        })
    }

    fn kill(&self, tasks: &[TaskId]) -> Result<(), SchedulerError> {
        self.call(|inner| {
            if inner.faults.queue_down {
                return Err(doubtful("kill", "the queue does not answer"));
            }
            tasks.iter().for_each(|id| kill_task(inner, *id));
            if std::mem::take(&mut inner.faults.lose_kill_answer) {
                Err(doubtful("kill", "the answer was lost"))
            } else {
                Ok(())
            }
        })
    }

    fn capacity(&self) -> Result<Vec<Host>, SchedulerError> {
        Ok(Vec::new())
    }

    fn ended(&self, name_prefix: &str) -> Result<Vec<Ended>, SchedulerError> {
        self.call(|inner| {
            inner.looks_at_books += 1;
            Ok(inner.books.iter().filter(|ended| ended.name.starts_with(name_prefix)).cloned().collect())
        })
    }
}

fn kill_task(inner: &mut Inner, id: TaskId) {
    inner.foreign.remove(&id);
    let Some(task) = inner.tasks.get(&id) else { return };
    let run = task.run.clone();
    match task.state {
        TaskState::Unknown => drop(inner.asked_to_go.insert(id)),
        TaskState::Pending { .. } | TaskState::Held => drop(inner.tasks.remove(&id)),
        _ => inner.signal(&run),
    }
}

fn run_file_error(path: &str) -> RunFileError {
    RunFileError::Io { action: "reach", path: path.into(), source: io_error("stale file handle") }
}

impl Inner {
    /// The controller's own way to storage.
    fn sees_storage(&self) -> bool {
        !self.faults.storage_gone && !self.faults.storage_unmounted
    }

    fn takes_new_files(&self) -> bool {
        self.sees_storage() && !self.faults.storage_full
    }
}

impl Runs for World {
    fn prepare(&self, spec: &RunSpec, clock: &run::Clock) -> Result<(), RunFileError> {
        self.call(|inner| {
            if !inner.takes_new_files() {
                return Err(run_file_error("runs"));
            }
            let mut control = Control::new(spec.generation, Wanted::Running);
            control.keep_time(clock);
            if inner.fences.get(&spec.run).is_some_and(|fence| fence.generation > spec.generation) {
                return Err(RunFileError::Superseded { run: spec.run.clone() });
            }
            let before = inner.runs.insert(spec.run.clone(), SimRun::new(spec.clone(), control));
            if before.is_some_and(|before| before.report.is_some()) {
                inner.break_promise(format!("run {} has begun and is prepared again", spec.run));
            }
            Ok(())
        })
    }

    fn write_batch(&self, batch: &Batch) -> Result<PathBuf, RunFileError> {
        self.call(|inner| {
            if !inner.takes_new_files() {
                return Err(run_file_error("batches"));
            }
            let path = PathBuf::from(format!("/runs/batches/{}.json", batch.id));
            inner.batches.insert(path.clone(), batch.clone());
            Ok(path)
        })
    }

    fn control(&self, run: &RunId, control: &Control) -> Result<(), RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("control.json"));
            }
            // Where the storage is not mounted there is no folder, which means that nobody can read it.
            if !inner.faults.storage_unmounted
                && let Some(sim) = inner.runs.get_mut(run)
            {
                sim.control = sim.control.clone().after(control);
            }
            Ok(())
        })
    }

    fn fence(&self, run: &RunId, control: &Control) -> Result<(), RunFileError> {
        self.call(|inner| {
            if !inner.takes_new_files() {
                return Err(run_file_error("control.json"));
            }
            inner.fences.insert(run.clone(), control.clone());
            if let Some(sim) = inner.runs.get_mut(run) {
                sim.control = sim.control.clone().after(control);
            }
            Ok(())
        })
    }

    fn wanted(&self, run: &RunId) -> Result<Option<Wanted>, RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("control.json"));
            }
            let sim = inner.runs.get(run).filter(|_| !inner.faults.storage_unmounted);
            Ok(sim.map(|sim| sim.control.wanted.clone()))
        })
    }

    fn tell(&self, run: &RunId, clock: &run::Clock, told: Option<&run::Clock>) -> Result<(), RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("control.json"));
            }
            if !inner.faults.storage_unmounted
                && let Some(sim) = inner.runs.get_mut(run)
            {
                sim.control.keep_time_after(told, clock);
            }
            Ok(())
        })
    }

    fn told(&self, run: &RunId) -> Result<Option<run::Clock>, RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("control.json"));
            }
            let sim = inner.runs.get(run).filter(|_| !inner.faults.storage_unmounted);
            Ok(sim.map(|sim| sim.control.told_time()))
        })
    }

    fn report(&self, run: &RunId) -> Result<Vec<Record>, RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("report.jsonl"));
            }
            let text = inner.runs.get(run).and_then(|sim| sim.report.as_deref()).unwrap_or_default();
            let text = if inner.faults.storage_unmounted { &[] } else { text };
            let whole =
                if inner.faults.torn_reports { torn(text, inner.now.as_second().cast_unsigned()) } else { text };
            parse_report(whole, Path::new("report.jsonl"))
        })
    }

    /// The world's time is the storage server's.
    fn silence(&self, run: &RunId) -> Result<Option<Duration>, RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(run_file_error("clock"));
            }
            let begun = inner.runs.get(run).filter(|sim| sim.report.is_some() && !inner.faults.storage_unmounted);
            Ok(begun.map(|sim| inner.now.duration_since(sim.last_write).unsigned_abs()))
        })
    }

    fn forget(&self, run: &RunId) -> Result<(), RunFileError> {
        self.call(|inner| {
            if inner.faults.storage_gone || inner.faults.storage_unmounted {
                return Err(run_file_error("runs"));
            }
            if inner.executing().any(|(executing, _)| executing == run)
                || inner.tasks.values().any(|task| task.run == *run)
            {
                inner.break_promise(format!("run {run} is forgotten, and is not over"));
            }
            inner.runs.remove(run);
            Ok(())
        })
    }

    fn forget_log(&self, _: JobId, _: u32, _: jiff::Timestamp) -> Result<(), RunFileError> {
        Ok(())
    }

    fn forget_batch(&self, batch: &BatchId) -> Result<(), RunFileError> {
        self.call(|inner| {
            let path = PathBuf::from(format!("/runs/batches/{batch}.json"));
            let is_there = |run: &RunId| inner.runs.contains_key(run);
            if !inner.batches.get(&path).is_some_and(|batch| batch.runs.iter().any(is_there)) {
                inner.batches.remove(&path);
            }
            Ok(())
        })
    }
}

/// A report whose last line is not all there yet.
fn torn(text: &[u8], chance: u64) -> &[u8] {
    let Some(last) = text.strip_suffix(b"\n") else { return text };
    let begin = last.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let length = (last.len() - begin) as u64;
    &text[..begin + (chance.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (length + 1)) as usize]
}

impl Disks for World {
    fn stamp(&self, path: &Path) -> std::io::Result<Option<Stamp>> {
        self.call(|inner| {
            if let Some(image) = inner.images.get(path) {
                return Ok(Some(image.stamp));
            }
            if inner.faults.storage_gone {
                return Err(io_error("stale file handle"));
            }
            let disk = inner.disks.get(path).filter(|_| !inner.faults.storage_unmounted);
            Ok(disk.map(|_| Stamp { bytes: 1, mtime_ns: 1 }))
        })
    }

    fn standing(&self, path: &Path) -> Result<Standing, DiskError> {
        self.call(|inner| {
            if inner.faults.storage_gone {
                return Err(disk_error(path));
            }
            let disk = inner.disks.get(path).filter(|_| !inner.faults.storage_unmounted);
            Ok(match disk.map(|disk| &disk.origin) {
                None => Standing::Nothing,
                Some(DiskOrigin::Derive { base }) => Standing::Disk { base: Some(base.clone()) },
                Some(_) => Standing::Disk { base: None },
            })
        })
    }

    /// In this world somebody has worked on every disk.
    fn is_unwritten(&self, _: &Path) -> Result<bool, DiskError> {
        Ok(false)
    }

    fn sha256(&self, path: &Path) -> std::io::Result<String> {
        self.call(|inner| {
            let standing = inner.disks.get(path).and_then(|disk| disk.sha256.clone());
            Ok(standing.unwrap_or_else(|| inner.images[path].sha256.clone()))
        })
    }

    fn fetch(&self, url: &str, _: &str, _: &Path, _: &Tell<'_>) -> Result<(), DiskError> {
        unreachable!("this world has no web, and no manifest names {url}")
    }

    fn publish(
        &self,
        image: &Path,
        target: &Path,
        _expected: Option<&str>,
        _: &Tell<'_>,
    ) -> Result<Published, DiskError> {
        self.call(|inner| {
            if !inner.takes_new_files() {
                return Err(disk_error(target));
            }
            let SimImage { stamp, sha256 } = inner.images[image].clone();
            match inner.disks.get(target) {
                Some(standing) if standing.sha256.as_ref() != Some(&sha256) => {
                    let (found, wanted) = (format!("{:?}", standing.sha256), sha256);
                    return Err(DiskError::Taken { path: target.to_owned(), found, wanted });
                }
                Some(_) => {}
                None => {
                    let mut disk = inner.new_disk(DiskOrigin::Copy { image: image.to_owned() });
                    disk.sha256 = Some(sha256.clone());
                    inner.disks.insert(target.to_owned(), disk);
                }
            }
            Ok(Published { sha256, source_sha256: None, source_bytes: stamp.bytes, source_mtime_ns: stamp.mtime_ns })
        })
    }

    fn make(&self, origin: &DiskOrigin, targets: &[PathBuf], _: &Tell<'_>) -> Vec<Result<(), DiskError>> {
        self.call(|inner| targets.iter().map(|target| make(inner, origin, target)).collect())
    }

    fn set_aside(&self, disks: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>, DiskError> {
        self.call(|inner| {
            if !inner.sees_storage() {
                return Err(disk_error(folder));
            }
            disks.iter().map(|path| move_to(inner, path, &folder.join(path.file_name().unwrap()))).collect()
        })
    }

    fn put_back(&self, moves: &[(PathBuf, PathBuf)]) -> Result<(), DiskError> {
        self.call(|inner| {
            let Some((_, to)) = moves.first().filter(|_| !inner.sees_storage()) else {
                return moves.iter().try_for_each(|(from, to)| move_to(inner, from, to).map(drop));
            };
            Err(disk_error(to))
        })
    }

    fn renew(&self, disks: &[PathBuf], folder: &Path, _: &Tell<'_>) -> Result<Vec<PathBuf>, DiskError> {
        self.call(|inner| {
            if !inner.takes_new_files() {
                return Err(disk_error(folder));
            }
            disks.iter().map(|path| renew(inner, path, &folder.join(path.file_name().unwrap()))).collect()
        })
    }

    fn give_up(&self, _: &Path) -> Result<(), DiskError> {
        // Here, disks are made at once or not at all.
        self.call(|_| Ok(()))
    }
}

fn make(inner: &mut Inner, origin: &DiskOrigin, target: &Path) -> Result<(), DiskError> {
    if !inner.takes_new_files() {
        return Err(disk_error(target));
    }
    if hiccups(&mut inner.faults.hiccups.storage) {
        let source = std::sync::Arc::new(nix::errno::Errno::ESTALE.into());
        return Err(DiskError::Io { action: "write", path: target.to_owned(), source });
    }
    if let DiskOrigin::Derive { base } = origin
        && !inner.disks.contains_key(base)
    {
        inner.break_promise(format!("{} derives from what is not there", target.display()));
    }
    if let Some(there) = inner.disks.get(target) {
        return if there.origin == *origin { Ok(()) } else { Err(disk_error(target)) };
    }
    let disk = inner.new_disk(origin.clone());
    inner.disks.insert(target.to_owned(), disk);
    Ok(())
}

/// Who has the disk open has the old one open, whatever its name is. What was done before is done.
fn renew(inner: &mut Inner, path: &Path, kept: &Path) -> Result<PathBuf, DiskError> {
    if !inner.disks.contains_key(kept) {
        let old = inner.disks.remove(path).ok_or_else(|| DiskError::Missing { path: path.to_owned() })?;
        let new = SimDisk { id: inner.new_disk(old.origin.clone()).id, ..old.clone() };
        inner.disks.insert(path.to_owned(), new);
        inner.disks.insert(kept.to_owned(), old);
    }
    Ok(kept.to_owned())
}

/// A move that was done before is done.
fn move_to(inner: &mut Inner, path: &Path, target: &Path) -> Result<PathBuf, DiskError> {
    let missing = || DiskError::Missing { path: path.to_owned() };
    let Some(disk) = inner.disks.get(path) else {
        return inner.disks.get(target).map(|_| target.to_owned()).ok_or_else(missing);
    };
    if let Some(run) = inner.open_by(disk.id) {
        let how = format!("{} is moved while {run} has it open", path.display());
        inner.break_promise(how);
    }
    if inner.disks.contains_key(target) {
        return Err(disk_error(target));
    }
    let disk = inner.disks.remove(path).expect("looked at before");
    inner.disks.insert(target.to_owned(), disk);
    Ok(target.to_owned())
}

fn disk_error(path: &Path) -> DiskError {
    DiskError::Io {
        action: "write",
        path: path.to_owned(),
        source: std::sync::Arc::new(io_error("no space left on device")),
    }
}

impl World {
    /// One conversation with the DHCP server, which may be down, or lose its last answer.
    fn tell_dhcp(&self, act: impl FnOnce(&mut BTreeMap<String, Reservation>)) -> Result<(), DhcpError> {
        self.call(|inner| {
            if inner.faults.dhcp_down {
                return Err(dhcp_error());
            }
            if hiccups(&mut inner.faults.hiccups.dhcp) {
                return Err(DhcpError::Signal { pid: 1, source: nix::errno::Errno::ESRCH });
            }
            act(&mut inner.reservations);
            if std::mem::take(&mut inner.faults.lose_dhcp_answer) { Err(dhcp_error()) } else { Ok(()) }
        })
    }
}

impl Dhcp for World {
    fn reserve(&self, reservations: &[Reservation]) -> Result<(), DhcpError> {
        self.tell_dhcp(|there| {
            there.extend(reservations.iter().map(|wanted| (wanted.mark.clone(), wanted.clone())));
        })
    }

    fn release(&self, reservations: &[Reservation]) -> Result<(), DhcpError> {
        self.tell_dhcp(|there| reservations.iter().for_each(|reservation| drop(there.remove(&reservation.mark))))
    }

    fn present(&self, reservations: &[Reservation]) -> Result<Vec<bool>, DhcpError> {
        self.call(|inner| {
            if inner.faults.dhcp_down {
                return Err(dhcp_error());
            }
            Ok(reservations.iter().map(|wanted| inner.reservations.get(&wanted.mark) == Some(wanted)).collect())
        })
    }
}

fn dhcp_error() -> DhcpError {
    DhcpError::Io { action: "reach", path: "dnsmasq".into(), source: io_error("connection refused") }
}
