//! A lab that somebody owns who is not root: its files are read here and sent as text, and the daemon validates, plans and applies
//! it, in the words that root hears.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::here::{Manner, PARALLELISM, watch_interrupts};
use super::{Client, ClientError, Ended, OfLab};
use crate::control::apply::Client as _;
use crate::control::plan::Scope;
use crate::control::view::VmState;
use crate::control::{ControlError, Note};
use crate::daemon::lab_messages::{Agreed, LabRequest, Told};
use crate::exit::Exit;
use crate::manifest::{Gathered, gather};
use crate::model::id::LabName;
use crate::plan::Plan;
use crate::report::terminal::Terminal;
use crate::report::{self, Failure, Ui, shortfall, table};

/// Between two looks at guests that are waited for.
const PAUSE: Duration = Duration::from_secs(2);

/// A lab as its owner has it, for the daemon of this machine.
pub struct OwnLab {
    lab: OfLab,
    /// None where its folder is gone: it can still be destroyed.
    files: Option<Gathered>,
    folder: PathBuf,
    scope: Scope,
}

/// What came back.
#[derive(Default)]
struct Heard {
    findings: String,
    plan: Option<(Plan, String)>,
    has_moved: bool,
    outcome: Option<(String, String, bool)>,
    no: Option<Failure>,
}

impl OwnLab {
    /// Reads the lab's files; what is wrong with them is said here, before anything is sent.
    pub fn read(client: Client, folder: &Path, scope: Scope, ui: &Ui) -> Result<Self, Failure> {
        let place = crate::manifest::lab_folder(folder);
        let (loaded, files) = gather(place).map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        let name = loaded.manifest.lab.as_ref().map(|lab| lab.value.clone());
        let Some(name) = name.filter(|_| !loaded.diagnostics.has_errors()) else {
            ui.say_rendered(&report::diagnostics::human(&loaded.diagnostics, ui.is_styled()));
            return Err(ControlError::InvalidManifest.into());
        };
        let lab = OfLab::new(client, Some(name))?;
        Ok(Self { lab, folder: canonical(place), files: Some(files), scope })
    }

    /// The lab whose folder this is, or was: nothing of its files counts, and they may be broken.
    pub fn known(client: Client, folder: &Path, scope: Scope) -> Result<Self, Failure> {
        let of_files = gather(crate::manifest::lab_folder(folder)).ok().and_then(|(loaded, _)| loaded.manifest.lab);
        let of_folder = || folder.file_name().and_then(|name| LabName::new(name.to_str()?).ok());
        let lab = OfLab::new(client, of_files.map(|name| name.value).or_else(of_folder))?;
        Ok(Self { lab, files: None, folder: canonical(folder), scope })
    }

    pub fn plan(&self, ui: &Ui) -> Result<Plan, Failure> {
        let (plan, _) = self.planned(self.send("plan", Agreed::ToNothing, ui, true)?, ui)?;
        Ok(plan)
    }

    fn send(&self, doing: &str, agreed: Agreed, ui: &Ui, is_quiet: bool) -> Result<Heard, Failure> {
        let Scope { targets, allow, refresh_only } = self.scope.clone();
        let (folder, is_styled) = (self.folder.clone(), ui.is_styled());
        let request = LabRequest { folder, targets, allow, refresh_only, agreed, is_styled };
        let mut body = serde_json::to_vec(&request).expect("a lab's folder is text");
        body.push(b'\n');
        body.extend(self.files.iter().flat_map(Gathered::to_bytes));
        let mut heard = Heard::default();
        self.lab.send(doing, body, &mut |told| match told {
            Told::Findings(findings) => heard.findings = findings,
            Told::Plan { plan, digest } => heard.plan = Some((*plan, digest)),
            Told::Moved { plan, digest } => (heard.plan, heard.has_moved) = (Some((*plan, digest)), true),
            Told::Progress(line) if !is_quiet => ui.say(&line),
            Told::Progress(_) => {}
            Told::Outcome { text, stream, is_whole } => heard.outcome = Some((text, stream, is_whole)),
            Told::No(refusal) => heard.no = Some(ClientError::Refused(refusal).into()),
        })?;
        Ok(heard)
    }

    /// What was heard of the files is said once, and of a plan that there is none.
    fn planned(&self, heard: Heard, ui: &Ui) -> Result<(Plan, String), Failure> {
        ui.say_rendered(&heard.findings);
        match (heard.no, heard.plan) {
            (None, Some(plan)) => Ok(plan),
            (Some(no), _) => Err(no),
            (None, None) => Err(Failure::new(Exit::Failed, "the daemon broke off")),
        }
    }

    /// Shows what `doing` would change, asks, and hears how it goes.
    pub fn carry_out(&self, doing: &str, manner: &Manner, ui: &mut Ui) -> Ended {
        if manner.parallelism != PARALLELISM {
            return Err(Failure::new(Exit::Usage, "the daemon takes no `--parallelism`; nothing was done"));
        }
        let client = &mut Terminal::new(ui, doing, manner.is_json, watch_interrupts);
        let mut agreed = if manner.is_agreed { Agreed::ToAll } else { Agreed::ToNothing };
        let mut seen: Option<Plan> = None;
        loop {
            let mut heard = self.send(doing, agreed, client.ui, manner.is_json)?;
            let outcome = heard.outcome.take();
            if heard.has_moved {
                client.ui.say(&report::notes::words(&Note::PlanMoved { lab: &self.lab.name }));
            }
            if let Some((plan, _)) = &heard.plan {
                client.shows(plan);
            }
            if let Some((text, stream, is_whole)) = outcome {
                client.ui.data(if manner.is_json { &stream } else { &text });
                let plan = heard.plan.map(|(plan, _)| plan).or(seen);
                return self.ended(plan.as_ref(), is_whole, manner, client.ui);
            }
            let (plan, digest) = self.planned(heard, client.ui)?;
            if plan.is_refused() || (plan.is_empty() && !plan.refusals.is_empty()) {
                return Err(ControlError::PlanRefused.into());
            }
            if plan.is_empty() {
                return self.ended(Some(&plan), true, manner, client.ui);
            }
            match client.agrees(&plan) {
                Some(true) => (agreed, seen) = (Agreed::To(digest), Some(plan)),
                Some(false) => return Err(ControlError::NotConfirmed.into()),
                None => return Err(ControlError::NobodyToAsk.into()),
            }
        }
    }

    fn ended(&self, plan: Option<&Plan>, is_whole: bool, manner: &Manner, ui: &Ui) -> Ended {
        if !is_whole {
            return Ok(Exit::Failed);
        }
        let waited = manner.wait.map_or(Ok(Exit::Done), |patience| self.wait(patience, manner.is_json, ui));
        plan.and_then(shortfall::left_undone).map_or(waited, Err)
    }

    /// Until no guest of the lab is on its way up any more.
    fn wait(&self, patience: Duration, is_json: bool, ui: &Ui) -> Ended {
        let begun = Instant::now();
        let comes =
            |state| matches!(state, VmState::Queued | VmState::Starting | VmState::Transferring | VmState::Booting);
        loop {
            let vms = self.lab.vms()?;
            let coming = vms.iter().filter(|vm| comes(vm.state)).count();
            if coming == 0 || begun.elapsed() > patience {
                let format = if is_json { table::Format::Json } else { table::Format::Table };
                ui.data(&table::render(&self.lab.mappings()?, format));
                let late = || Failure::new(Exit::NotReady, format!("{coming} vms are not ready yet"));
                return if coming == 0 {
                    Ok(Exit::Done)
                } else {
                    Err(late().hint("`labwright get vms` shows where they are"))
                };
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn canonical(folder: &Path) -> PathBuf {
    folder.canonicalize().or_else(|_| std::path::absolute(folder)).unwrap_or_else(|_| folder.to_owned())
}

/// What the site has to say of a lab besides: its text, and whether it is wrong. Nothing where who asks does not own it.
pub fn validate(client: Client, folder: &Path, ui: &Ui) -> Option<(String, bool)> {
    let (loaded, files) = gather(crate::manifest::lab_folder(folder)).ok()?;
    let name = loaded.manifest.lab.filter(|_| !loaded.diagnostics.has_errors())?.value;
    let folder = canonical(crate::manifest::lab_folder(folder));
    let lab = OfLab::new(client, Some(name)).ok()?;
    let own = OwnLab { lab, files: Some(files), folder, scope: Scope::default() };
    let heard = own.send("validate", Agreed::ToNothing, ui, true).ok()?;
    let is_wrong = heard.no.is_some_and(|no| no.exit == Exit::Invalid);
    (!heard.findings.is_empty()).then_some((heard.findings, is_wrong))
}
