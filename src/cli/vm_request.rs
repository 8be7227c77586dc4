//! What is asked of a running guest: the request goes into its run's `control.json`, the answer comes in its report.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Ended;
use crate::disks::{self, Snapshot};
use crate::exit::Exit;
use crate::files::{self, Folder};
use crate::model::id::{RunId, SnapshotName, VmName};
use crate::observe::{Phase, fold};
use crate::report::table::{Format, Row, render};
use crate::report::{Failure, Ui};
use crate::run::{self, Control, Event, RequestKind, RunFileError, Wanted};
use crate::state::{RecordedVm, RunState};

/// How long a starter may take to answer: it reads what is asked every second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A snapshot writes or reads the guest's whole memory, perhaps over a network.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// A starter needs half a second on average until it looks; more looks would not be seen sooner.
const ANSWER_POLL: Duration = Duration::from_millis(250);

/// A recorded vm, and where runs are.
pub(super) struct Guest {
    pub(super) name: VmName,
    pub(super) vm: RecordedVm,
    pub(super) runs: PathBuf,
}

impl Guest {
    /// The run that is not over, by the records.
    pub(super) fn run(&self) -> Result<RunId, Failure> {
        match &self.vm.run {
            Some(run) if !matches!(run.state, RunState::Ended { .. }) => Ok(run.run.clone()),
            _ => Err(self.not_running()),
        }
    }

    fn not_running(&self) -> Failure {
        let name = &self.name;
        Failure::new(Exit::Failed, format!("vm `{name}` is not running; nothing was changed"))
            .hint(format!("`labwright vm start {name}` starts it"))
    }

    pub(super) fn screen(&self, output: &Path, ui: &Ui) -> Result<(), Failure> {
        let folder = self.runs.join(self.run()?.to_string());
        let file = self.ask(&folder, RequestKind::Screen)?.unwrap_or_default();
        let picture = answer_file(&folder, &file)?;
        std::fs::write(output, picture).map_err(|source| {
            Failure::from_error(Exit::Failed, &source)
                .within(format!("cannot write the picture to {}", output.display()))
        })?;
        ui.say(&format!("the screen of {} is in {}", self.name, output.display()));
        Ok(())
    }

    pub(super) fn snapshot(&self, wanted: Option<&SnapshotName>, ui: &Ui) -> Result<(), Failure> {
        let now = || jiff::ZonedDateTime::now().strftime("at-%Y-%m-%d-%H%M%S").to_string();
        let snapshot = wanted.map_or_else(now, ToString::to_string);
        let known = self.snapshots()?;
        if known.iter().any(|row| row.name == snapshot) {
            let message = format!("vm `{}` has a snapshot `{snapshot}` already; nothing was changed", self.name);
            return Err(Failure::new(Exit::Failed, message)
                .hint("name the new one differently, or delete the old one with `labwright vm delete-snapshot`"));
        }
        self.carry_out(RequestKind::Snapshot { name: snapshot }, ui)
    }

    /// Goes back to a snapshot, or deletes it.
    pub(super) fn with_snapshot(&self, snapshot: &SnapshotName, kind: RequestKind, ui: &Ui) -> Result<(), Failure> {
        let known = self.snapshots()?;
        if known.iter().any(|row| row.name == snapshot.as_str()) {
            return self.carry_out(kind, ui);
        }
        let message = format!("vm `{}` has no snapshot `{snapshot}`; nothing was changed", self.name);
        let names: Vec<String> = known.iter().map(|row| format!("`{}`", row.name)).collect();
        let hint = match names.as_slice() {
            [] => "it has none: `labwright vm snapshot` takes one".to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        Err(Failure::new(Exit::Failed, message).hint(hint))
    }

    /// Asks the starter, and says what came of it.
    pub(super) fn carry_out(&self, kind: RequestKind, ui: &Ui) -> Result<(), Failure> {
        let name = &self.name;
        let done = match &kind {
            RequestKind::Screen => format!("a picture of {name} was taken"),
            RequestKind::Suspend => format!("{name} stands still; `labwright vm resume {name}` lets it go on"),
            RequestKind::Resume => format!("{name} goes on"),
            RequestKind::Snapshot { name: snapshot } => {
                format!("{name} can go back to now: `labwright vm revert {name} {snapshot}`")
            }
            RequestKind::Revert { name: snapshot } => format!("{name} is as it was at `{snapshot}`"),
            RequestKind::DeleteSnapshot { name: snapshot } => format!("{name} has no snapshot `{snapshot}` any more"),
            RequestKind::Other(what) => format!("{name} did {what}"),
        };
        let folder = self.runs.join(self.run()?.to_string());
        self.ask(&folder, kind)?;
        ui.say(&done);
        Ok(())
    }

    pub(super) fn list(&self, format: Format, ui: &Ui) -> Ended {
        ui.data(&render(&self.snapshots()?, format));
        Ok(Exit::Done)
    }

    /// What the first disk has, which holds the memory; only what all disks have can be gone back to.
    fn snapshots(&self) -> Result<Vec<SnapshotRow>, Failure> {
        let mut lists = Vec::new();
        for disk in self.vm.disks.iter().filter(|disk| disk.made) {
            let list = disks::snapshots(&disk.path).map_err(|error| {
                Failure::from_error(Exit::Failed, &error)
                    .within(format!("cannot list the snapshots of `{}`", self.name))
            })?;
            lists.push(list);
        }
        let Some((first, others)) = lists.split_first() else { return Ok(Vec::new()) };
        let everywhere = |snapshot: &&Snapshot| others.iter().all(|list| list.iter().any(|o| o.name == snapshot.name));
        Ok(first.iter().filter(everywhere).map(SnapshotRow::new).collect())
    }

    /// Puts a request into the run's folder and waits for its answer: the name of a file, where it is one.
    fn ask(&self, folder: &Path, kind: RequestKind) -> Result<Option<String>, Failure> {
        let records = run::read_report(folder)?;
        self.refuse_unless_it_runs(fold(&records).map(|report| report.phase).as_ref())?;
        let answered = records.iter().filter_map(|record| match record.event {
            Event::Answer { number, .. } => Some(number),
            _ => None,
        });
        let (answered, stopping) = (answered.max().unwrap_or(0), self.stopping());
        let timeout = match kind {
            RequestKind::Snapshot { .. } | RequestKind::Revert { .. } | RequestKind::DeleteSnapshot { .. } => {
                SNAPSHOT_TIMEOUT
            }
            _ => ANSWER_TIMEOUT,
        };
        let number = Control::change(folder, |control| match control.wanted {
            Wanted::Running | Wanted::Other => Ok(control.ask(kind, answered)),
            Wanted::Stopped => Err(stopping),
        })?;
        let number = number.ok_or_else(|| self.not_running())??;
        self.wait(folder, number, timeout)
    }

    fn stopping(&self) -> Failure {
        Failure::new(Exit::Failed, format!("vm `{}` is being stopped; nothing was changed", self.name))
    }

    fn refuse_unless_it_runs(&self, phase: Option<&Phase>) -> Result<(), Failure> {
        let early = |what: &str| {
            Failure::new(Exit::NotReady, format!("vm `{}` {what}; nothing was changed", self.name))
                .hint("try again when `labwright status` shows it as booting or ready")
        };
        match phase {
            Some(Phase::Running | Phase::Ready | Phase::Paused { .. } | Phase::CutOff { .. }) => Ok(()),
            None => Err(early("waits in the queue")),
            Some(Phase::Starting) => Err(early("is being started")),
            Some(Phase::Stopping) => Err(self.stopping()),
            Some(Phase::Stopped { .. }) => Err(self.not_running()),
        }
    }

    fn wait(&self, folder: &Path, number: u64, timeout: Duration) -> Result<Option<String>, Failure> {
        let name = &self.name;
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            for record in run::read_report(folder)? {
                match record.event {
                    Event::Answer { number: n, error: Some(error), .. } if n == number => {
                        return Err(Failure::new(Exit::Failed, format!("`{name}` could not do it: {error}")));
                    }
                    Event::Answer { number: n, file, .. } if n == number => return Ok(file),
                    Event::Stopped { reason, .. } => {
                        return Err(Failure::new(Exit::Failed, format!("vm `{name}` is not running: {reason}")));
                    }
                    _ => {}
                }
            }
            std::thread::sleep(ANSWER_POLL);
        }
        let seconds = timeout.as_secs();
        Err(Failure::new(Exit::NotReady, format!("the starter of `{name}` did not answer within {seconds} s"))
            .hint("it may still do it; its host or storage may be gone: `labwright status` shows where it is"))
    }
}

/// What a starter has put below the run's answers. Its word and the folder are the service account's: neither leads
/// elsewhere.
fn answer_file(folder: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let path = folder.join(run::ANSWERS).join(name);
    let answers = Folder::open(folder).and_then(|folder| folder.map_or(Ok(None), |folder| folder.sub(run::ANSWERS)));
    let read = answers.and_then(|answers| answers.map_or(Ok(None), |answers| answers.read(name, files::BYTES_MAX)));
    read.map_err(RunFileError::from)?
        .ok_or_else(|| Failure::new(Exit::Failed, format!("the picture {} is not there", path.display())))
}

#[derive(Debug, Serialize)]
struct SnapshotRow {
    name: String,
    taken: jiff::Timestamp,
    memory_mib: u64,
}

impl SnapshotRow {
    fn new(snapshot: &Snapshot) -> Self {
        let memory_mib = snapshot.memory_bytes.div_ceil(1 << 20);
        Self { name: snapshot.name.clone(), taken: snapshot.taken, memory_mib }
    }
}

impl Row for SnapshotRow {
    const COLUMNS: &'static [&'static str] = &["name", "taken", "memory"];
    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), format!("{:.0}", self.taken), format!("{} MiB", self.memory_mib)]
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A report, whose writer is the guests' account, names the file.
    #[test]
    fn an_answer_is_a_plain_file_among_the_answers() {
        let root = tempfile::tempdir().unwrap();
        let (folder, secret) = (root.path().join("k3f9-1"), root.path().join("secret"));
        std::fs::create_dir_all(folder.join(run::ANSWERS)).unwrap();
        std::fs::write(&secret, "root's").unwrap();
        std::fs::write(folder.join(run::ANSWERS).join("7.png"), "picture").unwrap();
        symlink(&secret, folder.join(run::ANSWERS).join("8.png")).unwrap();
        assert_eq!(answer_file(&folder, "7.png").unwrap(), b"picture");
        for name in ["8.png", "../../secret", "../report.jsonl", secret.to_str().unwrap(), "", "9.png"] {
            assert!(answer_file(&folder, name).is_err(), "{name}");
        }
        std::fs::remove_dir_all(folder.join(run::ANSWERS)).unwrap();
        symlink(root.path(), folder.join(run::ANSWERS)).unwrap();
        assert!(answer_file(&folder, "secret").is_err());
    }
}
