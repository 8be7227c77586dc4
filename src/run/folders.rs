//! The folders of all runs, behind a trait: the controller's side of the protocol. `OnStorage` is the real one; the
//! simulation has one in memory that can vanish, fill up and tear records.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::silence::silence;
use super::{
    ANSWERS, Batch, BatchId, CONTROL, Clock, Control, Record, RunFileError, RunSpec, SEED, SPEC, VNC_PASSWORD, Wanted,
    job_log, open_folder, read_report, report::read_report_in,
};
use crate::disks::{LOOKS_AT_ONCE, Owner};
use crate::files::{Flush, Folder};
use crate::model::id::RunId;
use crate::model::job::JobId;

/// What starters said, by run.
pub type Reports<'a> = Box<dyn Fn(&RunId) -> Result<Vec<Record>, RunFileError> + Sync + 'a>;

/// What the controller does with runs' folders.
pub trait Runs: Send + Sync {
    /// Makes a run's folder with all that its starter needs, before the submit. What is there of an earlier try that was
    /// cut short is replaced: no starter has seen it. A run that was fenced off meanwhile is refused.
    fn prepare(&self, spec: &RunSpec, clock: &Clock) -> Result<(), RunFileError>;

    /// Puts a guest's seed disk into the folder of its run, in place of one that is there.
    fn seed(&self, _run: &RunId, _image: &[u8], _flush: Flush) -> Result<(), RunFileError> {
        Ok(())
    }

    /// Writes the index of a submitted array; answers where it is.
    fn write_batch(&self, batch: &Batch) -> Result<PathBuf, RunFileError>;

    /// Replaces what is wanted of a run. A run whose folder is gone has nobody to read it: that is no error.
    fn control(&self, run: &RunId, control: &Control) -> Result<(), RunFileError>;

    /// Writes that a newer run takes this one's place, also where its folder is not made yet: whoever still means to submit
    /// it must find that.
    fn fence(&self, run: &RunId, control: &Control) -> Result<(), RunFileError>;

    /// What is wanted of a run by now; `None` where its folder is gone.
    fn wanted(&self, run: &RunId) -> Result<Option<Wanted>, RunFileError>;

    /// Tells a run its times, unless somebody has told it others since these were `told`. A run whose folder is gone keeps
    /// none: that is no error.
    fn tell(&self, run: &RunId, clock: &Clock, told: Option<&Clock>) -> Result<(), RunFileError>;

    /// The times that a run was told; `None` where its folder is gone.
    fn told(&self, run: &RunId) -> Result<Option<Clock>, RunFileError>;

    /// What the starter said so far.
    fn report(&self, run: &RunId) -> Result<Vec<Record>, RunFileError>;

    /// The same for who asks for many: where they are is looked up once.
    fn reports(&self) -> Result<Reports<'_>, RunFileError> {
        Ok(Box::new(|run| self.report(run)))
    }

    /// How long a run's starter has not written, by the storage server's clock; `None` where no starter ever began.
    fn silence(&self, run: &RunId) -> Result<Option<Duration>, RunFileError>;

    /// Removes a run's folder and all in it; one that is gone is no error.
    fn forget(&self, run: &RunId) -> Result<(), RunFileError>;

    /// Removes what a task wrote, unless another one has written there since: batch systems begin to count anew.
    fn forget_log(&self, job: JobId, task: u32, before: jiff::Timestamp) -> Result<(), RunFileError>;

    /// Removes the index of an array, unless the folder of one of its runs is there: a state that is an older copy does not know
    /// all of them, and only the index tells whose their jobs are.
    fn forget_batch(&self, batch: &BatchId) -> Result<(), RunFileError>;

    /// How many reports are best read side by side.
    fn at_once(&self) -> usize {
        1
    }
}

/// Runs on storage that controller and hosts share.
#[derive(Debug, Clone)]
pub struct OnStorage {
    /// The site's `runs` folder.
    pub root: PathBuf,
    /// Account that starters write as.
    pub owner: Owner,
}

impl OnStorage {
    pub fn folder(&self, run: &RunId) -> PathBuf {
        self.root.join(run.to_string())
    }
}

impl OnStorage {
    /// What jobs wrote stands there, in files that a batch system makes as it likes; who may look are the service account's group.
    fn keep_strangers_from(&self, folder: &Path) -> std::io::Result<()> {
        let found = std::fs::symlink_metadata(folder)?;
        if !found.is_dir() || found.mode() & 0o007 == 0 {
            return Ok(());
        }
        lchown(folder, None, Some(self.owner.gid))?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o750))
    }
}

impl Runs for OnStorage {
    fn prepare(&self, spec: &RunSpec, clock: &Clock) -> Result<(), RunFileError> {
        let folder = self.folder(&spec.run);
        let io = |action, path: &Path, source| RunFileError::Io { action, path: path.to_owned(), source };
        let answers = folder.join(ANSWERS);
        std::fs::create_dir_all(&answers).map_err(|source| io("create", &answers, source))?;
        let opened = open_folder(&folder)?;
        spec.write_unflushed(&opened)?;
        let mut control = Control::new(spec.generation, Wanted::Running);
        control.keep_time(clock);
        if !control.begin(&opened)? {
            return Err(RunFileError::Superseded { run: spec.run.clone() });
        }
        let password =
            draw_password().map_err(|source| io("draw a password from", Path::new("/dev/urandom"), source))?;
        opened.write(VNC_PASSWORD, password.as_bytes(), 0o600, Flush::Later)?;
        let (uid, gid) = (Some(self.owner.uid), Some(self.owner.gid));
        for path in [SPEC, CONTROL, VNC_PASSWORD].map(|name| folder.join(name)).iter().chain([&answers, &folder]) {
            lchown(path, uid, gid).map_err(|source| io("give to the service user", path, source))?;
        }
        Ok(())
    }

    fn seed(&self, run: &RunId, image: &[u8], flush: Flush) -> Result<(), RunFileError> {
        Ok(open_folder(&self.folder(run))?.write(SEED, image, 0o600, flush)?)
    }

    fn write_batch(&self, batch: &Batch) -> Result<PathBuf, RunFileError> {
        let path = Batch::path(&self.root, &batch.id);
        if let Some(folder) = path.parent() {
            let io = |action| move |source| RunFileError::Io { action, path: folder.to_owned(), source };
            std::fs::create_dir_all(folder).map_err(io("create"))?;
            self.keep_strangers_from(folder).map_err(io("keep strangers from"))?;
        }
        batch.write(&self.root)?;
        // The runs' folders were written without a flush each: 300 of them cost more than everything else of a submit.
        let flush = || -> std::io::Result<()> { Ok(nix::unistd::syncfs(&std::fs::File::open(&self.root)?)?) };
        flush().map_err(|source| RunFileError::Io { action: "flush", path: self.root.clone(), source })?;
        Ok(path)
    }

    fn control(&self, run: &RunId, control: &Control) -> Result<(), RunFileError> {
        let folder = self.folder(run);
        match control.replace(&folder) {
            Err(RunFileError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && !folder.exists() =>
            {
                Ok(())
            }
            written => written,
        }
    }

    fn wanted(&self, run: &RunId) -> Result<Option<Wanted>, RunFileError> {
        Ok(Control::read(&self.folder(run))?.map(|control| control.wanted))
    }

    fn tell(&self, run: &RunId, clock: &Clock, told: Option<&Clock>) -> Result<(), RunFileError> {
        Control::change(&self.folder(run), |control| control.keep_time_after(told, clock)).map(drop)
    }

    fn told(&self, run: &RunId) -> Result<Option<Clock>, RunFileError> {
        Ok(Control::read(&self.folder(run))?.map(|control| control.told_time()))
    }

    fn fence(&self, run: &RunId, control: &Control) -> Result<(), RunFileError> {
        let folder = self.folder(run);
        let io = |action, source| RunFileError::Io { action, path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(|source| io("create", source))?;
        let (uid, gid) = (Some(self.owner.uid), Some(self.owner.gid));
        lchown(&folder, uid, gid).map_err(|source| io("give to the service user", source))?;
        control.replace(&folder)
    }

    fn report(&self, run: &RunId) -> Result<Vec<Record>, RunFileError> {
        read_report(&self.folder(run))
    }

    fn reports(&self) -> Result<Reports<'_>, RunFileError> {
        let root = Folder::open_linked(&self.root)?;
        Ok(Box::new(move |run| root.as_ref().map_or(Ok(Vec::new()), |root| read_report_in(root, run))))
    }

    fn silence(&self, run: &RunId) -> Result<Option<Duration>, RunFileError> {
        silence(&self.folder(run))
    }

    fn forget(&self, run: &RunId) -> Result<(), RunFileError> {
        // Where the storage is not mounted, nothing is gone.
        let io = |source| RunFileError::Io { action: "look for", path: self.root.clone(), source };
        std::fs::metadata(&self.root).map_err(io)?;
        // No link in it is followed: the folder is the service account's.
        let folder = self.folder(run);
        gone(&folder, std::fs::remove_dir_all(&folder))
    }

    fn forget_log(&self, job: JobId, task: u32, before: jiff::Timestamp) -> Result<(), RunFileError> {
        let log = job_log::path(&self.root, job.0, task);
        let written = std::fs::symlink_metadata(&log).and_then(|found| found.modified());
        match written {
            Ok(written) if jiff::Timestamp::try_from(written).is_ok_and(|written| written < before) => {
                gone(&log, std::fs::remove_file(&log))
            }
            Ok(_) => Ok(()),
            Err(error) => gone(&log, Err(error)),
        }
    }

    fn forget_batch(&self, batch: &BatchId) -> Result<(), RunFileError> {
        let index = Batch::path(&self.root, batch);
        let is_there = |run: &RunId| self.folder(run).symlink_metadata().is_ok();
        match Batch::read(&index) {
            Ok(Some(batch)) if !batch.runs.iter().any(is_there) => gone(&index, std::fs::remove_file(&index)),
            // Of one that cannot be read, nobody knows.
            Ok(_) | Err(RunFileError::Format { .. } | RunFileError::Version { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn at_once(&self) -> usize {
        LOOKS_AT_ONCE
    }
}

/// What is not there needs no removal.
fn gone(path: &Path, removed: std::io::Result<()>) -> Result<(), RunFileError> {
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(RunFileError::Io { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Eight characters: all that the vnc protocol's DES authentication takes in (RFC 6143, section 7.2.2).
fn draw_password() -> std::io::Result<String> {
    use std::io::Read as _;
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut bytes = [0_u8; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| char::from(LETTERS[usize::from(b % 64)])).collect())
}
