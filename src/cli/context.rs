//! What most commands need before they can begin: the site, the lab, the state, the scheduler, the DHCP server. Every
//! way in which one of them can be wrong becomes a `Failure` here, once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::control::manifests::{self, DesiredError, SiteError};
use crate::dhcp::{self, Dhcp};
use crate::disks::{self, Owner};
use crate::exit::Exit;
use crate::host::machine::embedded::{place, settle};
use crate::manifest;
use crate::model::address::AddressPattern;
use crate::model::diagnostic::{Diagnostics, Severity};
use crate::model::id::{LabName, VmName};
use crate::model::lab::{Desired, DiskSource};
use crate::model::rules::Rule;
use crate::model::site::{DhcpSettings, SchedulerSettings, Site, StorageError};
use crate::observe::{ObserveError, Observed, World, observe};
use crate::plan::{Ask, Inputs, LostHost, Plan, as_applied, plan};
use crate::report::{self, Failure, Ui};
use crate::run::{self, RunFileError};
use crate::scheduler::{Scheduler, SchedulerError, grid_engine::GridEngine, local::Local};
use crate::state::{ApplyInfo, Holder, Intent, Lock, Outcome, Recorded, StateError, Store};

/// Where a site's settings are looked for when nothing else is said.
const SITE_FILE: &str = "/etc/labwright/site.yaml";

/// A site, and the folder of the lab that the command is about.
pub(super) struct Context {
    pub(super) site: Site,
    pub(super) lab_folder: PathBuf,
}

impl Context {
    pub(super) fn new(site: Option<&Path>, lab_folder: &Path, ui: &Ui) -> Result<Self, Failure> {
        let lab_folder = manifest::lab_folder(lab_folder).canonicalize().map_err(|source| {
            Failure::from_error(Exit::Failed, &source)
                .within(format!("cannot find the lab's folder {}", lab_folder.display()))
        })?;
        refuse_unwritable(&lab_folder)?;
        let site = match site_file(site) {
            Some(file) => load_site(&file, ui)?,
            None => embedded(&lab_folder)?,
        };
        refuse_unwritable(&site.state)?;
        Ok(Self { site, lab_folder })
    }

    /// A command about this lab as it can be typed here: with site and folder, where they would not be found by themselves.
    pub(super) fn command(&self, words: &str) -> String {
        let found = |file: &Path| file == Path::new(SITE_FILE) || std::env::var_os("LABWRIGHT_SITE").is_some();
        let site = self.site.file.as_deref().filter(|file| !found(file));
        let site = site.map(|file| format!(" --site {}", file.display())).unwrap_or_default();
        let here = std::env::current_dir().is_ok_and(|folder| folder == self.lab_folder);
        let takes_folder = matches!(words, "apply" | "destroy" | "status" | "validate");
        let lab = match (here, takes_folder) {
            (true, _) => String::new(),
            (false, true) => format!(" {}", self.lab_folder.display()),
            (false, false) => format!(" --lab {}", self.lab_folder.display()),
        };
        format!("labwright{site} {words}{lab}")
    }

    /// The lab as its manifest asks for it; what is wrong with it has been shown when this fails.
    pub(super) fn desired(&self, ui: &Ui) -> Result<Desired, Failure> {
        let read = manifests::desired(&self.lab_folder, &self.site.context());
        self.show_findings(read.and_then(|(desired, findings)| with_images(desired, findings)), ui)
    }

    fn show_findings(&self, read: Result<(Desired, Diagnostics), DesiredError>, ui: &Ui) -> Result<Desired, Failure> {
        match read {
            Ok((desired, warnings)) => {
                ui.say_rendered(&report::diagnostics::human(&warnings, ui.is_styled()));
                Ok(desired)
            }
            Err(DesiredError::Load(error)) => Err(Failure::from_error(Exit::Failed, &error)),
            Err(DesiredError::Invalid(diagnostics)) => {
                ui.say_rendered(&report::diagnostics::human(&diagnostics, ui.is_styled()));
                Err(Failure::new(Exit::Invalid, "the manifest has errors; nothing was planned or changed"))
            }
        }
    }

    /// A site and a lab, for commands that must work on the worst of days: where the manifest is broken, the lab is as it was
    /// last applied; where its folder is gone too, `lab` may also be its name.
    pub(super) fn of_known_lab(site: Option<&Path>, lab: &Path, ui: &Ui) -> Result<(Self, Desired), Failure> {
        let missing = match Self::new(site, lab, ui) {
            Ok(context) => {
                let desired = context.desired_or_applied(ui)?;
                return Ok((context, desired));
            }
            Err(failure) => failure,
        };
        let Some(file) = site_file(site) else { return Err(missing) };
        let site = load_site(&file, ui)?;
        refuse_unwritable(&site.state)?;
        // The folder is gone, but the one that it was in may be there, and tells its true name.
        let parent = lab.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let place = parent.canonicalize().ok().zip(lab.file_name()).map(|(parent, name)| parent.join(name));
        let is_meant = |name: &LabName, folder: &Path| {
            Path::new(name.as_str()) == lab || place.as_deref() == Some(folder) || folder == lab
        };
        let mut store = at_home(Store::open_to_read(&site.state)?, &site)?;
        let found = store.labs()?.into_iter().find(|(name, folder)| is_meant(name, folder));
        let Some((name, lab_folder)) = found else { return Err(missing) };
        if lab_folder.is_dir() {
            let context = Self { site, lab_folder };
            let desired = context.desired_or_applied(ui)?;
            return Ok((context, desired));
        }
        ui.say(&format!(
            "warning: {} is gone; this is lab `{name}` as it was last applied from it",
            lab_folder.display()
        ));
        let desired = applied(&mut store, name)?;
        Ok((Self { site, lab_folder }, desired))
    }

    /// The lab as its manifest asks for it, or where that cannot be used, as it was last applied from this folder.
    fn desired_or_applied(&self, ui: &Ui) -> Result<Desired, Failure> {
        let error = match manifests::desired(&self.lab_folder, &self.site.context()) {
            Err(error) => error,
            // Its warnings are for those who check, plan or apply it.
            Ok((wanted, _)) => return Ok(wanted),
        };
        if let Some(mut store) = self.store_if_any()? {
            let labs = store.labs()?.into_iter().filter(|(_, at)| *at == self.lab_folder);
            if let [(name, _)] = &labs.collect::<Vec<_>>()[..] {
                let why = match &error {
                    DesiredError::Load(error) => format!("the manifest cannot be read: {error}"),
                    DesiredError::Invalid(found) => format!(
                        "the manifest has {}: see `{}`",
                        report::diagnostics::plural(found.count(Severity::Error), "error"),
                        self.command("validate")
                    ),
                };
                ui.say(&format!("warning: {why}; this is lab `{name}` as it was last applied"));
                return applied(&mut store, name.clone());
            }
        }
        self.show_findings(Err(error), ui)
    }

    /// The state, for commands that only look: the embedded default may never have had one.
    pub(super) fn store_if_any(&self) -> Result<Option<Store>, Failure> {
        match Store::open_to_read(&self.site.state) {
            Err(StateError::Missing { .. }) if self.site.file.is_none() => self.refuse_traces().map(|()| None),
            opened => Ok(Some(at_home(opened?, &self.site)?)),
        }
    }

    /// The state; the embedded default's is made where none ever was.
    pub(super) fn store(&self) -> Result<Store, Failure> {
        match Store::open(&self.site.state) {
            Err(StateError::Missing { .. }) if self.site.file.is_none() => {
                self.refuse_traces()?;
                self.settle()?;
                at_home(Store::create(&self.site.state, jiff::Timestamp::now())?, &self.site)
            }
            opened => at_home(opened?, &self.site),
        }
    }

    /// Keeps to where the embedded default puts what the service account must get to, and makes it.
    pub(super) fn settle(&self) -> Result<Option<PathBuf>, Failure> {
        if self.site.file.is_some() {
            return Ok(None);
        }
        let place = settle(&self.lab_folder).map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        self.site.storage.create()?;
        Ok(place)
    }

    /// What is recorded, for commands that change nothing: a lab never applied has an empty record.
    pub(super) fn recorded(&self, lab: &LabName) -> Result<Recorded, Failure> {
        Ok(match self.store_if_any()? {
            Some(mut store) => store.recorded(lab)?,
            None => Recorded::nothing(),
        })
    }

    /// The lab as its manifest asks for it, and the state, if there ever was one: the check of the one takes as long as
    /// the reading of the other, so both are done side by side. What is wrong with the manifest is said first.
    pub(super) fn desired_and_store(&self, ui: &Ui) -> Result<(Desired, Option<Store>), Failure> {
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| self.store_if_any());
            let desired = self.desired(ui)?;
            let opened = opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok((desired, opened?))
        })
    }

    /// The state, for commands that are about what it holds: it must be there.
    pub(super) fn known_store(&self) -> Result<Store, Failure> {
        at_home(Store::open(&self.site.state)?, &self.site)
    }

    /// Missing state is never empty state: where disks or runs are, there was one.
    pub(super) fn refuse_traces(&self) -> Result<(), Failure> {
        let storage = &self.site.storage;
        let folders = [&storage.runs, &storage.templates, &storage.vms, &storage.aside];
        let used = |folder: &&&PathBuf| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        let traces: Vec<String> = folders.iter().filter(used).map(|folder| folder.display().to_string()).collect();
        if traces.is_empty() {
            Ok(())
        } else {
            Err(StateError::Traces { path: self.site.state.clone(), traces }.into())
        }
    }

    /// Who does what, for the history.
    pub(super) fn apply_info(&self, summary: &str) -> ApplyInfo {
        ApplyInfo {
            folder: self.lab_folder.clone(),
            who: whoami(),
            host: hostname(),
            command: super::typed::command(),
            commit: git_commit(&self.lab_folder),
            summary: summary.to_owned(),
        }
    }

    /// Writes into the history what was done beside any plan. It is done whether or not this can be written.
    pub(super) fn note(&self, lab: &LabName, effects: &[(Intent, Outcome)], ui: &Ui) {
        let now = jiff::Timestamp::now();
        let noted =
            Store::open(&self.site.state).and_then(|mut store| store.note(lab, &self.apply_info(""), effects, now));
        if let Err(error) = noted {
            ui.say(&format!("warning: this is not in the history: {}", crate::error::chain(&error)));
        }
    }

    /// For a copy that comes to where no state ever was.
    pub(super) fn make_folder_of_state(&self) -> Result<(), Failure> {
        let folder = self.site.state.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|source| {
            Failure::from_error(Exit::Failed, &source).within(format!("cannot make the folder {}", folder.display()))
        })
    }

    pub(super) fn lock(&self, doing: String) -> Result<Lock, Failure> {
        let holder =
            Holder { who: whoami(), host: hostname(), pid: std::process::id(), since: jiff::Timestamp::now(), doing };
        Ok(Lock::take(&self.site.state, &holder)?)
    }

    pub(super) fn scheduler(&self) -> Result<Box<dyn Scheduler>, Failure> {
        match &self.site.scheduler {
            SchedulerSettings::Local { folder, slots, memory_mib } => {
                Ok(Box::new(Local::new(folder.clone(), *slots, *memory_mib, program()?)))
            }
            SchedulerSettings::GridEngine(settings) => Ok(Box::new(GridEngine::new(settings.clone()))),
        }
    }

    pub(super) fn dhcp(&self) -> Box<dyn Dhcp> {
        match &self.site.network.dhcp {
            DhcpSettings::Dnsmasq { folder } => Box::new(dhcp::Dnsmasq::new(folder)),
            DhcpSettings::Omapi(settings) => Box::new(dhcp::Omapi::new(settings)),
            DhcpSettings::None => Box::new(dhcp::Elsewhere),
        }
    }

    pub(super) fn runs(&self, owner: Owner) -> run::OnStorage {
        run::OnStorage { root: self.site.storage.runs.clone(), owner }
    }

    /// Whom disks belong to and whom qemu runs as.
    pub(super) fn owner(&self) -> Result<Owner, Failure> {
        let name = &self.site.service_user;
        let missing = || {
            Failure::new(Exit::Failed, format!("the service user `{name}` does not exist on this machine; nothing was changed"))
                .hint(format!("make it with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`, or set `service_user:` in site.yaml"))
        };
        let found = nix::unistd::User::from_name(name).map_err(|errno| Failure::from_error(Exit::Failed, &errno))?;
        let user = found.ok_or_else(missing)?;
        Ok(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }

    /// Looks at the world and plans; the plan is the same for `plan`, `apply` and `destroy`.
    pub(super) fn plan(
        &self,
        desired: &Desired,
        recorded: &Recorded,
        allow: &[AddressPattern],
        asks: &BTreeMap<VmName, Ask>,
    ) -> Result<Plan, Failure> {
        self.plan_without(None, desired, recorded, allow, asks)
    }

    /// The same, with a host given up for lost.
    pub(super) fn plan_without(
        &self,
        lost_host: Option<&LostHost>,
        desired: &Desired,
        recorded: &Recorded,
        allow: &[AddressPattern],
        asks: &BTreeMap<VmName, Ask>,
    ) -> Result<Plan, Failure> {
        let observed = self.observe(desired, recorded)?;
        Ok(plan(&Inputs {
            desired,
            recorded,
            observed: &observed,
            site: &self.site,
            now: jiff::Timestamp::now(),
            allow,
            asks,
            lost_host,
        }))
    }

    pub(super) fn observe(&self, desired: &Desired, recorded: &Recorded) -> Result<Observed, Failure> {
        let (scheduler, dhcp) = (self.scheduler()?, self.dhcp());
        // Looking changes no owner, so any will do.
        let nobody = Owner { uid: 0, gid: 0 };
        let (runs, disks) = (self.runs(nobody), disks::OnStorage { owner: nobody });
        let storage = &self.site.storage;
        let world = World { runs: &runs, disks: &disks, scheduler: &*scheduler, dhcp: &*dhcp, storage };
        let observed = observe(&world, desired, recorded)?;
        self.remember(recorded, &observed);
        Ok(observed)
    }

    /// Keeps what images hold, so that nobody reads them again until they change. Who may not write just reads again.
    fn remember(&self, recorded: &Recorded, observed: &Observed) {
        let mut digests = observed.digests();
        digests.retain(|path, digest| recorded.digests.get(path) != Some(digest));
        let remembered = match digests.is_empty() {
            true => Ok(()),
            false => Store::open(&self.site.state).and_then(|mut store| store.remember(&digests)),
        };
        if let Err(error) = remembered {
            tracing::debug!(%error, "digests of images are not kept");
        }
    }
}

/// The state, once it is sure that it is no copy. That it was moved is said once, when its paths follow.
fn at_home(mut store: Store, site: &Site) -> Result<Store, Failure> {
    if let Some(from) = store.settle_at_home(&site.storage)? {
        let text =
            format!("the state was moved from {} to {}; its paths follow", from.display(), store.path().display());
        Ui::default().say(&text);
    }
    Ok(store)
}

/// Paths stand in the state and in the files of runs, which are text.
fn refuse_unwritable(path: &Path) -> Result<(), Failure> {
    if path.to_str().is_some() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("the name of {} is not UTF-8; nothing was changed", path.display()))
        .hint("labwright writes this path into its state and into files that programs read: rename the folder"))
}

/// An image that cannot be seen is a warning where manifests are only checked; here disks are to be made from it. Where every
/// image has its `sha256` written, what was published may be known by it, and the plan says so.
fn with_images(desired: Desired, mut findings: Diagnostics) -> Result<(Desired, Diagnostics), DesiredError> {
    let of_templates = desired.templates.values().flat_map(|template| &template.disks);
    if of_templates.into_iter().all(|disk| matches!(disk, DiskSource::Image { sha256: Some(_), .. })) {
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
fn applied(store: &mut Store, lab: LabName) -> Result<Desired, Failure> {
    let recorded = store.recorded(&lab)?;
    understood(lab, &recorded)
}

/// What is recorded, as a lab.
pub(super) fn understood(lab: LabName, recorded: &Recorded) -> Result<Desired, Failure> {
    as_applied(lab, recorded).map_err(|address| {
        Failure::new(
            Exit::Failed,
            format!("the state speaks of {address}, which is no name of its kind; nothing was changed"),
        )
    })
}

/// The settings that are named, or those of this machine.
fn site_file(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| Path::new(SITE_FILE).exists().then(|| SITE_FILE.into()))
}

fn load_site(file: &Path, ui: &Ui) -> Result<Site, Failure> {
    match manifests::site(file) {
        Ok((site, warnings)) => {
            ui.say_rendered(&report::diagnostics::human(&warnings, ui.is_styled()));
            Ok(site)
        }
        Err(SiteError::Load(error)) => Err(Failure::from_error(Exit::Failed, &error)),
        Err(SiteError::Invalid(diagnostics)) => {
            ui.say_rendered(&report::diagnostics::human(&diagnostics, ui.is_styled()));
            Err(Failure::new(Exit::Invalid, format!("{} has errors; nothing was changed", file.display())))
        }
    }
}

fn embedded(lab_folder: &Path) -> Result<Site, Failure> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    let memory_mib =
        memory.ok_or_else(|| Failure::new(Exit::Failed, "cannot read the machine's memory from /proc/meminfo"))? / 1024;
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
    Ok(Site::embedded(lab_folder, memory_mib, cpus).reachable_at(&place(lab_folder)))
}

/// This program, for the jobs that it submits.
pub(super) fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|source| Failure::from_error(Exit::Failed, &source).within("cannot find out where this program is"))
}

/// Commit of a folder under git, with `+` behind it where files differ from it; `None` outside git or without it.
pub(super) fn git_commit(folder: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "--", "."]).is_none_or(|changes| !changes.is_empty());
    Some(if dirty { format!("{commit}+") } else { commit })
}

pub(super) fn whoami() -> String {
    let uid = nix::unistd::getuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

pub(super) fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned())
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let exit = match error {
            StateError::Locked { .. }
            | StateError::Stale { .. }
            | StateError::Frozen { .. }
            | StateError::Traces { .. }
            | StateError::Copy { .. }
            | StateError::Exists { .. } => Exit::Refused,
            _ => Exit::Failed,
        };
        let failure = Self::from_error(exit, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::from_error(Exit::Failed, &error).hint("nothing else was changed; see `storage:` in site.yaml")
    }
}

impl From<ObserveError> for Failure {
    fn from(error: ObserveError) -> Self {
        let failure = Self::from_error(Exit::Failed, &error);
        match failure.hint {
            Some(_) => failure,
            None => failure.hint("nothing was changed: without seeing what is there, no plan is made"),
        }
    }
}

impl From<SchedulerError> for Failure {
    fn from(error: SchedulerError) -> Self {
        Self::from_error(Exit::Failed, &error)
    }
}

impl From<RunFileError> for Failure {
    fn from(error: RunFileError) -> Self {
        Self::from_error(Exit::Failed, &error)
    }
}
