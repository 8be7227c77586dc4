//! `labwright apply`: plan, ask, act, and with `--wait` see the guests come up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::context::open;
use super::plan::Scope;
use super::{Ended, LabFolder};
use crate::apply::{BatchKind, Goal, Progress, Readiness, WaitEnd};
use crate::control::apply::{Client, Done, Request};
use crate::control::{self, Context, ControlError};
use crate::exit::Exit;
use crate::model::id::RunId;
use crate::model::lab::Desired;
use crate::plan::{Answer, Plan};
use crate::report::{self, Failure, Ui, command};
use crate::state::Recorded;

/// Effects that run side by side unless `--parallelism` says otherwise.
const PARALLELISM: usize = 4;

/// Make the lab as its manifest says
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright apply labs/quickstart             # shows the plan and asks
  labwright apply --yes --wait                # no question; ends when every guest uses its address

Ctrl-C once finishes and records what is under way, and ends a wait at once; twice stops at once, which is safe too.
What a guard refuses is left as it is, and the rest is done: then the exit code is 4.")]
pub(super) struct Arguments {
    /// Folder of the lab's manifests, or a plan that `labwright plan -o` kept. Without it, the folder that LABWRIGHT_LAB
    /// names, or this one.
    #[arg(value_name = "LAB|PLAN")]
    what: Option<PathBuf>,

    /// The lab's folder, written as an option.
    #[arg(long, short = 'C', value_name = "FOLDER")]
    lab: Option<PathBuf>,

    #[command(flatten)]
    scope: Scope,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    waiting: Waiting,
}

/// What all that change a lab have in common.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,

    /// How many effects run side by side.
    #[arg(long, value_name = "N", default_value_t = PARALLELISM, value_parser = parallelism)]
    parallelism: usize,

    /// One JSON object per line instead of text.
    #[arg(long)]
    json: bool,

    /// How long vms are waited for, if at all.
    #[arg(skip)]
    wait: Option<Duration>,
}

/// What those have in common that bring vms up.
#[derive(Debug, clap::Args)]
pub(super) struct Waiting {
    /// Wait until every vm that is on its way up uses its address; where vms are named, until these do.
    #[arg(long)]
    wait: bool,

    /// How long `--wait` waits.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

impl Options {
    /// For commands that only ask, if at all.
    pub(super) fn asking(yes: bool) -> Self {
        Self { yes, parallelism: PARALLELISM, json: false, wait: None }
    }

    pub(super) fn waiting(&self, waiting: &Waiting) -> Self {
        Self { wait: waiting.wait.then(|| Duration::from_secs(waiting.timeout)), ..self.clone() }
    }
}

fn parallelism(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(|| "give a number from 1 to 64".into())
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let what = LabFolder { place: arguments.what.clone(), option: arguments.lab.clone() }.folder()?;
    let is_manifest = what.file_name().and_then(|name| name.to_str()).is_some_and(crate::manifest::is_manifest);
    if what.is_file() && !is_manifest {
        return run_saved(arguments, &what, site, ui);
    }
    let context = open(site, &what)?;
    let desired = context.desired()?;
    let scope = control::plan::Scope::from(&arguments.scope);
    let make = |recorded: &Recorded| scope.plan(&context, &desired, recorded);
    reconcile(&context, &desired, &make, &arguments.options.waiting(&arguments.waiting), "apply", ui)
}

/// Carries out a kept plan, or refuses if another one would be made today.
fn run_saved(arguments: &Arguments, file: &Path, site: Option<&Path>, ui: &mut Ui) -> Ended {
    if !control::plan::Scope::from(&arguments.scope).is_everything() {
        return Err(Failure::new(Exit::Usage, "a kept plan has its own `--target`, `--allow` and `--refresh-only`")
            .hint("give them to `labwright plan -o FILE`"));
    }
    let saved = control::plan::read(file)?;
    let context = open(site, &saved.folder)?;
    let desired = context.desired()?;
    let make = |recorded: &Recorded| control::plan::again(&context, file, &saved, &desired, recorded);
    reconcile(&context, &saved.desired, &make, &arguments.options.waiting(&arguments.waiting), "apply", ui)
}

/// Carries out what `make` plans, and tells of it.
pub(super) fn reconcile(
    context: &Context,
    desired: &Desired,
    make: &dyn Fn(&Recorded) -> Result<Plan, ControlError>,
    options: &Options,
    doing: &str,
    ui: &mut Ui,
) -> Ended {
    let is_root = nix::unistd::geteuid().is_root();
    let request = Request { doing, parallelism: options.parallelism, is_root, is_agreed: options.yes };
    let mut client = Terminal { ui, options, doing, last: None };
    let done = control::apply::reconcile(context, desired, make, &request, &mut client);
    let Done { plan, summary } = done.map_err(|error| told(context, error))?;
    if !plan.is_empty() {
        let text = if options.json {
            report::apply::stream(&summary)
        } else {
            let look = options.wait.is_none().then(|| command(context, "status"));
            report::apply::text(&summary, &command(context, doing), look.as_deref())
        };
        client.ui.data(&text);
    }
    if !summary.failed.is_empty() || summary.interrupted {
        return Ok(Exit::Failed);
    }
    let ended = wait(context, desired, &plan, &mut client)?;
    tell_of_refused(&plan)?;
    tell_of_undone(&plan)?;
    Ok(ended)
}

/// What a machine lacks is told with the commands that mend it, as they can be typed here.
fn told(context: &Context, error: ControlError) -> Failure {
    let ControlError::NotReady { lacking } = &error else { return error.into() };
    let mends: BTreeSet<&str> = lacking.iter().filter_map(|line| line.mend.as_deref()).collect();
    let setup = command(context, "host setup");
    let mends: Vec<String> =
        mends.into_iter().map(|mend| mend.replace("`labwright host setup`", &format!("`{setup}`"))).collect();
    Failure::from(error).hint(mends.join("\nhint: "))
}

/// The plan; of vms that were asked for by name and are as they should be, just that.
fn show(plan: &Plan, options: &Options, ui: &Ui) {
    let already: Vec<String> = plan
        .answers
        .iter()
        .filter_map(|(vm, answer)| match answer {
            Answer::Already(why) => Some(format!("{vm} {why}\n")),
            Answer::Planned | Answer::NotDone(_) => None,
        })
        .collect();
    if options.json {
        ui.data(&report::plan::stream(plan));
    } else if plan.answers.is_empty() || !plan.is_empty() || !plan.refusals.is_empty() {
        ui.data(&report::paint::plan(&report::plan::text(plan, false)));
        ui.data(&already.concat());
    } else {
        ui.data(&already.concat());
    }
}

/// What was held back while all else was done.
fn tell_of_refused(plan: &Plan) -> Result<(), Failure> {
    const NAMES_MAX: usize = 5;
    if plan.refusals.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = plan.refusals.iter().map(|refusal| refusal.address.to_string()).collect();
    let more = if names.len() > NAMES_MAX { ", …" } else { "" };
    let what =
        format!("{}{more} refused, as said above, and left as it was", names[..names.len().min(NAMES_MAX)].join(", "));
    Err(Failure::new(Exit::Refused, what).hint("all else was done; each refusal says how to mean it"))
}

/// What was asked of a vm by name and is not done is an error, whatever the reason.
fn tell_of_undone(plan: &Plan) -> Result<(), Failure> {
    let undone = plan.answers.iter().filter_map(|(vm, answer)| match answer {
        Answer::NotDone(why) => Some(format!("{vm}: {why}")),
        Answer::Planned | Answer::Already(_) => None,
    });
    let undone: Vec<String> = undone.collect();
    let Some(first) = undone.first() else { return Ok(()) };
    if undone.len() == 1 {
        return Err(Failure::new(Exit::NotReady, format!("not done: {first}")));
    }
    let mut failure = Failure::new(Exit::NotReady, format!("not done for {} vms", undone.len()));
    failure.causes = undone;
    Err(failure)
}

/// What a person is asked before a plan is carried out.
fn question(plan: &Plan, doing: &str) -> String {
    let lab = &plan.lab;
    let without = if plan.refusals.is_empty() { "" } else { " without what is refused" };
    match doing {
        "apply" => format!("Apply this plan to lab `{lab}`{without}?"),
        "destroy" => format!("Take lab `{lab}` down{without}: stop its vms and set their disks aside?"),
        other => {
            let words = other.strip_prefix("vm ").unwrap_or(other);
            let (first, rest) = words.split_at(1);
            format!("{}{rest}{without}?", first.to_uppercase())
        }
    }
}

/// The person at the terminal, and what was typed.
struct Terminal<'a> {
    ui: &'a mut Ui,
    options: &'a Options,
    doing: &'a str,
    /// How far the guests were at the last look.
    last: Option<Readiness>,
}

impl Client for Terminal<'_> {
    fn shows(&mut self, plan: &Plan) {
        show(plan, self.options, self.ui);
    }

    fn agrees(&mut self, plan: &Plan) -> Option<bool> {
        self.ui.confirm(&question(plan, self.doing))
    }

    fn begins(&mut self) -> Arc<AtomicU8> {
        watch_interrupts()
    }

    fn looks(&mut self, readiness: &Readiness, goal: Goal) {
        let reached = readiness.reached(goal);
        self.ui.progress(&format!("guests {}", goal.word()), reached, readiness.wanted);
        if self.last.as_ref() != Some(readiness) {
            let Readiness { wanted, queued, starting, running, ended, gone, unheard, .. } = readiness;
            let booting = if goal == Goal::Ready { format!("{running} booting, ") } else { String::new() };
            self.ui.say(&format!(
                "  {reached}/{wanted} {}, {booting}{starting} starting, {queued} queued, {} ended{}",
                goal.word(),
                ended.len() + gone.len(),
                if *unheard > 0 { format!(", {unheard} unknown") } else { String::new() }
            ));
            self.last = Some(readiness.clone());
        }
    }
}

/// One line per batch.
impl Progress for Terminal<'_> {
    fn batch(&mut self, kind: BatchKind, done: usize, failed: usize, took: Duration) {
        if self.options.json || kind == BatchKind::Record {
            return;
        }
        let (one, many, participle) = kind.words();
        let what = if done == 1 { one } else { many };
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        self.ui.say(&format!("  {done} {what} {participle}{failures} ({:.1} s)", took.as_secs_f64()));
    }

    fn retry(&mut self, kind: BatchKind, number: usize, pause: Duration, why: &str) {
        let (one, many, participle) = kind.words();
        let what = if number == 1 { one } else { many };
        self.ui.say(&format!(
            "  {number} {what} not {participle} yet: {why}; another try in {:.1} s",
            pause.as_secs_f64()
        ));
    }
}

/// Counts Ctrl-C; the second one ends us at once, which is as safe as `kill -9`.
fn watch_interrupts() -> Arc<AtomicU8> {
    static INTERRUPTS: LazyLock<Arc<AtomicU8>> = LazyLock::new(|| {
        let interrupts = Arc::new(AtomicU8::new(0));
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        // Blocked here and thus in every thread made from now on; only the watcher takes the signal in.
        if signals.thread_block().is_ok() {
            let counter = Arc::clone(&interrupts);
            std::thread::spawn(move || {
                while signals.wait().is_ok() {
                    if counter.fetch_add(1, Ordering::Relaxed) > 0 {
                        std::process::exit(i32::from(Exit::Failed as u8));
                    }
                }
            });
        }
        interrupts
    });
    Arc::clone(&INTERRUPTS)
}

/// Waits, and ends with the table of what runs.
fn wait(context: &Context, desired: &Desired, plan: &Plan, client: &mut Terminal<'_>) -> Ended {
    let options = client.options;
    let Some(timeout) = options.wait else { return Ok(Exit::Done) };
    let waited = control::apply::wait(context, desired, plan, timeout, client);
    client.ui.progress_done();
    let Some(waited) = waited? else { return Ok(Exit::Done) };
    let mut rows = control::view::mappings(&waited.recorded, &waited.observed, &context.site);
    rows.retain(|row| waited.vms.values().any(|name| row.name == *name));
    let format = if options.json { report::table::Format::Json } else { report::table::Format::Table };
    client.ui.data(&report::table::render(&rows, format));
    let name = |run: &RunId| waited.vms.get(run).map_or_else(|| run.to_string(), ToString::to_string);
    for (run, reason) in &waited.readiness.ended {
        client.ui.say(&format!("{} is over: {reason}", name(run)));
    }
    for (run, said) in &waited.gone {
        let how = said.as_ref().map_or_else(|| " without a word".to_owned(), |said| format!("; it said: {said}"));
        client.ui.say(&format!("{} is gone: its job ended{how}", name(run)));
    }
    not_ready(&waited.readiness, waited.end, waited.goal)
}

fn not_ready(readiness: &Readiness, end: WaitEnd, goal: Goal) -> Ended {
    if end == WaitEnd::Settled && readiness.ended.is_empty() && readiness.gone.is_empty() {
        return Ok(Exit::Done);
    }
    let (reached, wanted) = (readiness.reached(goal), readiness.wanted);
    let so_far = format!("{reached} of {wanted} {} {}", if wanted == 1 { "vm is" } else { "vms are" }, goal.word());
    let failure = match end {
        WaitEnd::Interrupted => {
            Failure::new(Exit::NotReady, format!("you ended the wait; {so_far}, and nothing was taken back"))
        }
        WaitEnd::TimedOut => {
            Failure::new(Exit::NotReady, format!("{so_far} after all the time that `--timeout` gives"))
        }
        WaitEnd::Settled => Failure::new(Exit::NotReady, so_far),
    };
    Err(failure.hint("`labwright status` shows where the others are; `labwright apply --wait` goes on waiting"))
}
