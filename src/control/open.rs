//! What most requests need before they can begin: the site, the lab, the state, the scheduler, the DHCP server. Every way in
//! which one of them can be wrong becomes a `ControlError` here, once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::manifests::{self, DesiredError, SiteError};
use super::permissions::Rights;
use super::ways::Ways;
use super::{Caller, ControlError, Listener, Note};
use crate::access::Person;
use crate::files::may_hold_anything;
use crate::host::machine::embedded::settle;
use crate::manifest;
use crate::model::diagnostic::{Diagnostics, Severity};
use crate::model::id::LabName;
use crate::model::lab::{Desired, DiskSource};
use crate::model::rules::Rule;
use crate::model::site::{Site, Storage};
use crate::plan::as_applied;
use crate::resolve::with_claims;
use crate::scheduler::Calls;
use crate::state::{ApplyInfo, Holder, Intent, Lock, Outcome, Recorded, StateError, Store};

/// Where a site's settings are looked for when nothing else is said.
pub const SITE_FILE: &str = "/etc/labwright/site.yaml";

/// How long another decision is waited for: each takes a moment, unless its queue or its storage is slow.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A lab, and what is recorded of it: an error only for who means this lab.
type Guess = (LabName, Result<Recorded, StateError>);

/// A site, the folder of the lab that a request is about, and who asks.
#[derive(Clone)]
pub struct Context {
    pub site: Site,
    pub lab_folder: PathBuf,
    pub caller: Caller,
    pub(super) listener: Arc<dyn Listener>,
    /// Of the batch system, by all that were made from this one.
    pub(super) calls: Arc<Calls>,
    /// `None`: by the site's settings.
    pub(super) ways: Option<Ways>,
}

impl Context {
    /// A site, by its file or that of this machine, and a lab by its folder.
    pub fn new(
        site: Option<&Path>,
        lab_folder: &Path,
        caller: Caller,
        listener: Arc<dyn Listener>,
    ) -> Result<Self, ControlError> {
        let named = manifest::lab_folder(lab_folder);
        let lab_folder =
            named.canonicalize().map_err(|source| ControlError::NoFolder { folder: named.to_owned(), source })?;
        refuse_unwritable(&lab_folder)?;
        let site = match site_file(site) {
            Some(file) => load_site(&file, &*listener)?,
            None => manifests::embedded(&lab_folder)?,
        };
        refuse_unwritable(&site.state)?;
        Ok(Self { site, lab_folder, caller, listener, calls: Arc::default(), ways: None })
    }

    /// The lab as its manifest asks for it; what is wrong with it has been shown when this fails.
    pub fn desired(&self) -> Result<Desired, ControlError> {
        let read = manifests::desired(&self.lab_folder, &self.site.context());
        self.show_findings(read.and_then(|(desired, findings)| with_images(desired, findings)))
    }

    fn show_findings(&self, read: Result<(Desired, Diagnostics), DesiredError>) -> Result<Desired, ControlError> {
        match read {
            Ok((desired, warnings)) => {
                self.listener.findings(&warnings);
                Ok(desired)
            }
            Err(DesiredError::Load(error)) => Err(error.into()),
            Err(DesiredError::Invalid(diagnostics)) => {
                self.listener.findings(&diagnostics);
                Err(ControlError::InvalidManifest)
            }
        }
    }

    /// A site whose settings are known.
    pub fn of_site(site: Site, lab_folder: PathBuf, caller: Caller, listener: Arc<dyn Listener>) -> Self {
        Self { site, lab_folder, caller, listener, calls: Arc::default(), ways: None }
    }

    /// A site by its file, for requests that name the labs in it.
    pub fn of_site_file(
        site: Option<&Path>,
        caller: Caller,
        listener: Arc<dyn Listener>,
    ) -> Result<Self, ControlError> {
        let site = load_site(&site_file(site).ok_or(ControlError::NoSite)?, &*listener)?;
        refuse_unwritable(&site.state)?;
        Ok(Self { site, lab_folder: "/".into(), caller, listener, calls: Arc::default(), ways: None })
    }

    /// The labs of the site, by name.
    pub fn labs(&self) -> Result<Vec<LabName>, ControlError> {
        let mut store = self.at_home(Store::open_to_read(&self.site.state)?)?;
        Ok(store.labs()?.into_iter().map(|(name, _)| name).collect())
    }

    /// A lab of the site as it was last applied, whatever the files in its folder say by now.
    pub fn of_applied_lab(&self, lab: &LabName) -> Result<(Self, Desired), ControlError> {
        self.of_recorded_lab(lab).map(|(context, desired, _)| (context, desired))
    }

    /// The same for somebody who may know of it.
    pub fn of_seen_lab(&self, lab: &LabName) -> Result<(Self, Desired), ControlError> {
        let (context, desired, recorded) = self.of_recorded_lab(lab)?;
        Rights::of(&context, &with_claims(&desired, &recorded.claims), &recorded).require_any()?;
        Ok((context, desired))
    }

    /// The same with all that is recorded of it.
    pub fn of_recorded_lab(&self, lab: &LabName) -> Result<(Self, Desired, Recorded), ControlError> {
        let mut store = self.at_home(Store::open_to_read(&self.site.state)?)?;
        let found = store.labs()?.into_iter().find(|(name, _)| name == lab);
        let (name, folder) = found.ok_or_else(|| ControlError::NoSuchLab { lab: lab.clone() })?;
        let recorded = store.recorded(&name)?;
        Ok((self.with_lab(folder), understood(name, &recorded)?, recorded))
    }

    /// The same with what the site's file says by now of people, their labs, and the daemon.
    pub fn with_people_of_now(&self) -> Result<Self, ControlError> {
        let Some(file) = &self.site.file else { return Ok(self.clone()) };
        let Site { admins, owners_may_share, default_limits, labs, daemon, .. } = load_site(file, &*self.listener)?;
        let site = Site { admins, owners_may_share, default_limits, labs, daemon, ..self.site.clone() };
        Ok(Self { site, ..self.clone() })
    }

    /// The same for somebody else who asks.
    #[must_use]
    pub fn with_caller(&self, caller: Caller) -> Self {
        Self { caller, ..self.clone() }
    }

    /// The same site with the lab of another folder.
    #[must_use]
    pub fn with_lab(&self, lab_folder: PathBuf) -> Self {
        Self { lab_folder, ..self.clone() }
    }

    /// A site and a lab, for requests that must work on the worst of days: where the manifest is broken, the lab is as it was
    /// last applied; where its folder is gone too, `lab` may also be its name.
    pub fn of_known_lab(
        site: Option<&Path>,
        lab: &Path,
        caller: Caller,
        listener: Arc<dyn Listener>,
    ) -> Result<(Self, Desired), ControlError> {
        let missing = match Self::new(site, lab, caller.clone(), Arc::clone(&listener)) {
            Ok(context) => {
                let desired = context.desired_or_applied()?;
                return Ok((context, desired));
            }
            Err(error) => error,
        };
        let Some(file) = site_file(site) else { return Err(missing) };
        let site = load_site(&file, &*listener)?;
        refuse_unwritable(&site.state)?;
        // The folder is gone, but the one that it was in may be there, and tells its true name.
        let parent = lab.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let place = parent.canonicalize().ok().zip(lab.file_name()).map(|(parent, name)| parent.join(name));
        let is_meant = |name: &LabName, folder: &Path| {
            Path::new(name.as_str()) == lab || place.as_deref() == Some(folder) || folder == lab
        };
        let mut context =
            Self { site, lab_folder: PathBuf::new(), caller, listener, calls: Arc::default(), ways: None };
        let mut store = context.at_home(Store::open_to_read(&context.site.state)?)?;
        let found = store.labs()?.into_iter().find(|(name, folder)| is_meant(name, folder));
        let Some((name, lab_folder)) = found else { return Err(missing) };
        context.lab_folder = lab_folder;
        if context.lab_folder.is_dir() {
            let desired = context.desired_or_applied()?;
            return Ok((context, desired));
        }
        context.listener.note(&Note::FolderGone { lab: &name, folder: &context.lab_folder });
        let desired = applied(&mut store, name)?;
        Ok((context, desired))
    }

    /// The lab as its manifest asks for it, or where that cannot be used, as it was last applied from this folder.
    fn desired_or_applied(&self) -> Result<Desired, ControlError> {
        let error = match manifests::desired(&self.lab_folder, &self.site.context()) {
            Err(error) => error,
            // Its warnings are for those who check, plan or apply it.
            Ok((wanted, _)) => return Ok(wanted),
        };
        if let Some(mut store) = self.store_if_any()? {
            let labs = store.labs()?.into_iter().filter(|(_, at)| *at == self.lab_folder);
            if let [(lab, _)] = &labs.collect::<Vec<_>>()[..] {
                self.listener.note(&Note::AsApplied { lab, error: &error, context: self });
                return applied(&mut store, lab.clone());
            }
        }
        self.show_findings(Err(error))
    }

    /// The state, for requests that only look: the embedded default may never have had one.
    pub fn store_if_any(&self) -> Result<Option<Store>, ControlError> {
        match Store::open_to_read(&self.site.state) {
            Err(StateError::Missing { .. }) if self.site.file.is_none() => self.refuse_traces().map(|()| None),
            opened => Ok(Some(self.at_home(opened?)?)),
        }
    }

    /// The state; the embedded default's is made where none ever was.
    pub fn store(&self) -> Result<Store, ControlError> {
        match Store::open(&self.site.state) {
            Err(StateError::Missing { .. }) if self.site.file.is_none() => {
                self.refuse_traces()?;
                self.settle()?;
                self.at_home(Store::create(&self.site.state, jiff::Timestamp::now())?)
            }
            opened => self.at_home(opened?),
        }
    }

    /// Keeps to where the embedded default puts what the service account must get to, and makes it.
    pub fn settle(&self) -> Result<Option<PathBuf>, ControlError> {
        if self.site.file.is_some() {
            return Ok(None);
        }
        let place = settle(&self.lab_folder)?;
        self.make_storage()?;
        Ok(place)
    }

    /// Makes the folders of the site's storage that are not there yet.
    pub fn make_storage(&self) -> Result<(), ControlError> {
        let Storage { runs, templates, vms, aside, submissions: _ } = &self.site.storage;
        for folder in [runs, templates, vms, aside] {
            std::fs::create_dir_all(folder)
                .map_err(|source| ControlError::Storage { folder: folder.clone(), source })?;
        }
        Ok(())
    }

    /// What is recorded, for requests that change nothing: a lab never applied has an empty record.
    pub fn recorded(&self, lab: &LabName) -> Result<Recorded, ControlError> {
        Ok(match self.store_if_any()? {
            Some(mut store) => store.recorded(lab)?,
            None => Recorded::nothing(),
        })
    }

    /// The lab as its manifest asks for it, and what is recorded of it, if there ever was a state: to read the one takes as
    /// long as to read the other, so both are done side by side. What is wrong with the manifest is said first.
    pub fn desired_and_recorded(&self) -> Result<(Desired, Option<Recorded>), ControlError> {
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| self.recorded_here());
            let desired = self.desired()?;
            let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let Some((mut store, guessed)) = read? else { return Ok((desired, None)) };
            let recorded = match guessed {
                Some((lab, recorded)) if lab == desired.lab => recorded?,
                _ => store.recorded(&desired.lab)?,
            };
            Ok((desired, Some(recorded)))
        })
    }

    /// The state, and what it says of the one lab that was applied from this folder: most likely that is the lab which its
    /// manifest names.
    fn recorded_here(&self) -> Result<Option<(Store, Option<Guess>)>, ControlError> {
        let Some(mut store) = self.store_if_any()? else { return Ok(None) };
        let mut labs: Vec<_> = store.labs()?.into_iter().filter(|(_, folder)| *folder == self.lab_folder).collect();
        let lab = labs.pop().filter(|_| labs.is_empty());
        let guess = lab.map(|(lab, _)| (lab.clone(), store.recorded(&lab)));
        Ok(Some((store, guess)))
    }

    /// The state, for requests that are about what it holds: it must be there.
    pub fn known_store(&self) -> Result<Store, ControlError> {
        self.at_home(Store::open(&self.site.state)?)
    }

    /// Missing state is never empty state: where disks or runs are, there was one.
    pub fn refuse_traces(&self) -> Result<(), ControlError> {
        let storage = &self.site.storage;
        let folders = [&storage.runs, &storage.templates, &storage.vms, &storage.aside, &storage.submissions];
        let used = folders.into_iter().filter(|folder| may_hold_anything(folder));
        let traces: Vec<String> = used.map(|folder| folder.display().to_string()).collect();
        if traces.is_empty() {
            Ok(())
        } else {
            Err(StateError::Traces { path: self.site.state.clone(), traces }.into())
        }
    }

    /// Who does what, for the history.
    pub fn apply_info(&self, summary: &str) -> ApplyInfo {
        ApplyInfo {
            folder: self.lab_folder.clone(),
            who: self.caller.name.clone(),
            host: self.caller.host.clone(),
            command: self.caller.command.clone(),
            // In a folder that others may write, git runs what they want; for them alone nobody asks it.
            commit: (self.caller.person == Person::Root).then(|| git_commit(&self.lab_folder)).flatten(),
            summary: summary.to_owned(),
            act: Some(self.act()),
            acts: Vec::new(),
        }
    }

    /// Writes into the history what was done beside any plan, and is in the audit. It is done whether or not this can be written.
    pub fn note(&self, lab: &LabName, effects: &[(Intent, Outcome)]) {
        let (now, info) = (jiff::Timestamp::now(), ApplyInfo { act: None, ..self.apply_info("") });
        let noted = Store::open(&self.site.state).and_then(|mut store| store.note(lab, &info, effects, now));
        if let Err(error) = noted {
            self.listener.note(&Note::NotInHistory { error: &error });
        }
    }

    /// For a copy that comes to where no state ever was.
    pub fn make_folder_of_state(&self) -> Result<(), ControlError> {
        let folder = self.site.state.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|source| ControlError::Folder { folder: folder.to_owned(), source })
    }

    /// The lock under which is decided what is done next. What is being done needs none.
    pub fn lock(&self, doing: String) -> Result<Lock, ControlError> {
        let Caller { name, host, process, .. } = &self.caller;
        let (who, host, since) = (name.clone(), host.clone(), jiff::Timestamp::now());
        let holder = Holder { who, host, pid: *process, since, doing };
        Ok(Lock::take(&self.site.state, &holder, LOCK_PATIENCE)?)
    }

    /// The group whose members may look.
    pub(super) fn lookers(&self) -> Option<u32> {
        let account = nix::unistd::User::from_name(&self.site.service_user).ok().flatten();
        account.map(|account| account.gid.as_raw())
    }

    /// The state, once it is sure that it is no copy. That it was moved is said once, when its paths follow.
    fn at_home(&self, mut store: Store) -> Result<Store, ControlError> {
        if let Some(from) = store.settle_at_home(&self.site.storage)? {
            self.listener.note(&Note::Moved { from: &from, to: store.path() });
        }
        store.keep_from_strangers(|| self.lookers())?;
        Ok(store)
    }
}

/// Paths stand in the state and in the files of runs, which are text.
fn refuse_unwritable(path: &Path) -> Result<(), ControlError> {
    if path.to_str().is_some() { Ok(()) } else { Err(ControlError::NotText { path: path.to_owned() }) }
}

/// An image that cannot be seen is a warning where manifests are only checked; here disks are to be made from it. Where every
/// image has its `sha256` written, what was published may be known by it, and the plan says so.
pub(super) fn with_images(desired: Desired, mut findings: Diagnostics) -> Result<(Desired, Diagnostics), DesiredError> {
    let of_templates = desired.templates.values().flat_map(|template| &template.disks);
    if of_templates
        .into_iter()
        .all(|disk| matches!(disk, DiskSource::Image { sha256: Some(_), .. } | DiskSource::Fetched { .. }))
    {
        return Ok((desired, findings));
    }
    for finding in findings.list.iter_mut().filter(|finding| finding.rule == Rule::ImageUnseen) {
        finding.severity = Severity::Error;
        finding.message = finding.message.replace(", so it is not checked", "");
        finding.hint = Some("disks are made from it on this machine: put it there, or mend the path".to_owned());
    }
    if findings.has_errors() { Err(DesiredError::Invalid(findings)) } else { Ok((desired, findings)) }
}

/// A lab as it was last applied.
fn applied(store: &mut Store, lab: LabName) -> Result<Desired, ControlError> {
    let recorded = store.recorded(&lab)?;
    understood(lab, &recorded)
}

/// What is recorded, as a lab.
pub fn understood(lab: LabName, recorded: &Recorded) -> Result<Desired, ControlError> {
    as_applied(lab, recorded).map_err(|address| ControlError::NotUnderstood { address })
}

/// The settings that are named, or those of this machine.
fn site_file(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| Path::new(SITE_FILE).exists().then(|| SITE_FILE.into()))
}

fn load_site(file: &Path, listener: &dyn Listener) -> Result<Site, ControlError> {
    match manifests::site(file) {
        Ok((site, warnings)) => {
            listener.findings(&warnings);
            Ok(site)
        }
        Err(SiteError::Load(error)) => Err(error.into()),
        Err(SiteError::Invalid(diagnostics)) => {
            listener.findings(&diagnostics);
            Err(ControlError::InvalidSite { file: file.to_owned() })
        }
    }
}

/// Commit of a folder under git, with `+` behind it where files differ from it; `None` outside git or without it.
pub fn git_commit(folder: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "--", "."]).is_none_or(|changes| !changes.is_empty());
    Some(if dirty { format!("{commit}+") } else { commit })
}
