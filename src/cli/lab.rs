//! `plan`, `apply`, `destroy` and `validate` of people who own a lab and are not root: the daemon does it, in the same words.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Ended, apply, plan, remote};
use crate::control::apply::Client as _;
use crate::control::plan::Scope;
use crate::control::view::VmState;
use crate::control::{ControlError, Note};
use crate::daemon::client::{Client, ClientError};
use crate::daemon::lab_messages::{Agreed, LabRequest, Told};
use crate::daemon::of_lab::OfLab;
use crate::exit::Exit;
use crate::manifest::{Gathered, gather};
use crate::model::id::LabName;
use crate::plan::Plan;
use crate::report::terminal::Terminal;
use crate::report::{self, Failure, Ui, progress, shortfall, table};

/// Between two looks at guests that are waited for.
const PAUSE: Duration = Duration::from_secs(2);

/// A lab as its owner has it, for the daemon of this machine.
struct Own {
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

impl Own {
    /// Reads the lab's files; what is wrong with them is said here, before anything is sent.
    fn read(client: Client, folder: &Path, scope: Scope, ui: &Ui) -> Result<Self, Failure> {
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
}

fn canonical(folder: &Path) -> PathBuf {
    folder.canonicalize().or_else(|_| std::path::absolute(folder)).unwrap_or_else(|_| folder.to_owned())
}

pub(super) fn plan(client: Client, folder: &Path, arguments: &plan::Arguments, ui: &Ui) -> Ended {
    if arguments.output.is_some() {
        return Err(Failure::new(Exit::Usage, "the daemon keeps no plans in files; nothing was done")
            .hint("without `-o`, `labwright apply` shows the plan and asks"));
    }
    let own = Own::read(client, folder, Scope::from(&arguments.scope), ui)?;
    let (plan, _) = own.planned(own.send("plan", Agreed::ToNothing, ui, true)?, ui)?;
    Ok(plan::show(&plan, arguments, ui))
}

pub(super) fn apply(client: Client, folder: &Path, scope: Scope, options: &apply::Options, ui: &mut Ui) -> Ended {
    carry_out(&Own::read(client, folder, scope, ui)?, "apply", options, ui)
}

/// Also of a lab whose folder is gone or broken: then it is named.
pub(super) fn destroy(client: Client, folder: &Path, scope: Scope, options: &apply::Options, ui: &mut Ui) -> Ended {
    let of_files = gather(crate::manifest::lab_folder(folder)).ok().and_then(|(loaded, _)| loaded.manifest.lab);
    let of_folder = || folder.file_name().and_then(|name| LabName::new(name.to_str()?).ok());
    let lab = OfLab::new(client, of_files.map(|name| name.value).or_else(of_folder))?;
    let own = Own { lab, files: None, folder: canonical(folder), scope };
    carry_out(&own, "destroy", options, ui)
}

fn carry_out(own: &Own, doing: &str, options: &apply::Options, ui: &mut Ui) -> Ended {
    if options.parallelism != apply::PARALLELISM {
        return Err(Failure::new(Exit::Usage, "the daemon takes no `--parallelism`; nothing was done"));
    }
    let mut agreed = if options.yes { Agreed::ToAll } else { Agreed::ToNothing };
    let mut seen: Option<Plan> = None;
    loop {
        let mut heard = own.send(doing, agreed, ui, options.json)?;
        let outcome = heard.outcome.take();
        if heard.has_moved {
            ui.say(&report::notes::words(&Note::PlanMoved { lab: &own.lab.name }));
        }
        if let Some((plan, _)) = &heard.plan {
            Terminal::new(ui, doing, options.json, apply::watch_interrupts).shows(plan);
        }
        if let Some((text, stream, is_whole)) = outcome {
            ui.data(if options.json { &stream } else { &text });
            let plan = heard.plan.map(|(plan, _)| plan).or(seen);
            return ended(own, plan.as_ref(), is_whole, options, ui);
        }
        let (plan, digest) = own.planned(heard, ui)?;
        if plan.is_refused() || (plan.is_empty() && !plan.refusals.is_empty()) {
            return Err(ControlError::PlanRefused.into());
        }
        if plan.is_empty() {
            return ended(own, Some(&plan), true, options, ui);
        }
        match ui.confirm(&progress::question(&plan, doing)) {
            Some(true) => (agreed, seen) = (Agreed::To(digest), Some(plan)),
            Some(false) => return Err(ControlError::NotConfirmed.into()),
            None => return Err(ControlError::NobodyToAsk.into()),
        }
    }
}

fn ended(own: &Own, plan: Option<&Plan>, is_whole: bool, options: &apply::Options, ui: &mut Ui) -> Ended {
    if !is_whole {
        return Ok(Exit::Failed);
    }
    let waited = options.wait.map_or(Ok(Exit::Done), |patience| wait(own, patience, options.json, ui));
    plan.and_then(shortfall::left_undone).map_or(waited, Err)
}

/// Until no guest of the lab is on its way up any more.
fn wait(own: &Own, patience: Duration, is_json: bool, ui: &Ui) -> Ended {
    let begun = Instant::now();
    let comes = |state| matches!(state, VmState::Queued | VmState::Starting | VmState::Transferring | VmState::Booting);
    loop {
        let vms = own.lab.vms()?;
        let coming = vms.iter().filter(|vm| comes(vm.state)).count();
        if coming == 0 || begun.elapsed() > patience {
            let format = if is_json { table::Format::Json } else { table::Format::Table };
            ui.data(&table::render(&own.lab.mappings()?, format));
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

/// What the site has to say of a lab besides: its text, and whether it is wrong. Nothing where who asks does not own it.
pub(super) fn validate(folder: &Path, ui: &Ui) -> Option<(String, bool)> {
    let client = remote::client(None)?;
    let (loaded, files) = gather(crate::manifest::lab_folder(folder)).ok()?;
    let name = loaded.manifest.lab.filter(|_| !loaded.diagnostics.has_errors())?.value;
    let folder = canonical(crate::manifest::lab_folder(folder));
    let lab = OfLab::new(client, Some(name)).ok()?;
    let own = Own { lab, files: Some(files), folder, scope: Scope::default() };
    let heard = own.send("validate", Agreed::ToNothing, ui, true).ok()?;
    let is_wrong = heard.no.is_some_and(|no| no.exit == Exit::Invalid);
    (!heard.findings.is_empty()).then_some((heard.findings, is_wrong))
}
