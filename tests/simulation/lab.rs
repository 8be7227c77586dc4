//! One lab in the world of `world`: a manifest on disk, a real SQLite state, and the product's own pipeline between them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use labwright::apply::{self, BatchKind, ClearError, Clearing, Clock as _, Progress, Summary};
use labwright::control::{manifests, view};
use labwright::model::address::{Address, AddressPattern};
use labwright::model::diagnostic::Diagnostics;
use labwright::model::id::{LabName, RunId, VmName};
use labwright::model::lab::{Desired, DiskSource, VmSource};
use labwright::model::site::Site;
use labwright::observe::{self, ObserveError, fold};
use labwright::plan::{
    Ask, Flaw, FoundJob, Inputs, LostHost, Plan, Wish, as_applied, check, give_up_only, import_job, plan, refuse_flaws,
    refuse_held, target, upkeep,
};
use labwright::report;
use labwright::resolve::with_claims;
use labwright::run::{Batch, BatchId, Runs as _};
use labwright::scheduler::Scheduler as _;
use labwright::state::{ApplyInfo, Holder, Ledger, Lock, Recorded, StateError, Store};

use crate::world::{Killed, World};

pub(crate) struct Lab {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) world: Arc<World>,
    pub(crate) site: Site,
    pub(crate) allow: Vec<AddressPattern>,
    pub(crate) lost_host: Option<LostHost>,
    pub(crate) told: Mutex<Vec<String>>,
}

/// How an apply ended.
#[derive(Debug)]
pub(crate) enum Applied {
    Done(Summary),
    Refused(Plan),
    /// Another controller holds the lock.
    Locked,
    /// The world could not be seen.
    Blind,
    /// The state could not be written, or the lab is another controller's by now.
    Stopped(StateError),
    /// The controller was killed in the middle.
    Killed,
}

/// What somebody asks of a lab: one command line.
struct Command<'a> {
    desired: &'a Desired,
    asks: BTreeMap<VmName, Ask>,
    /// The part of the plan that is meant.
    part: &'a dyn Fn(Plan, &Recorded) -> Plan,
}

/// What the user would be told of tries that are made again.
#[derive(Default)]
struct Told {
    retries: Vec<String>,
}

impl Progress for Told {
    fn batch(&mut self, _: BatchKind, _: usize, _: usize, _: Duration) {}

    fn retry(&mut self, kind: BatchKind, number: usize, pause: Duration, why: &str) {
        self.retries.push(format!("{number} {} in {pause:?}: {why}", kind.words().1));
    }
}

impl Lab {
    /// A lab with this manifest, an image for each path that ends in `.qcow2`, and a state that was just made.
    pub(crate) fn new(manifest: &str) -> Self {
        let folder = tempfile::tempdir_in(scratch()).unwrap();
        let world = Arc::new(World::new());
        let site = Site::embedded(&folder.path().canonicalize().unwrap(), 64 * 1024, 2);
        let now = world.with(|inner| inner.now);
        Store::create(&site.state, now).unwrap();
        let lab = Self { folder, world, site, allow: Vec::new(), lost_host: None, told: Mutex::default() };
        lab.edit(manifest);
        lab
    }

    /// Writes the manifest, which must be right.
    #[track_caller]
    pub(crate) fn edit(&self, manifest: &str) {
        if let Err(found) = self.try_edit(manifest) {
            panic!("the test's manifest is wrong:\n{}", report::diagnostics::human(&found, false));
        }
    }

    /// Writes the manifest; one that is wrong is found so, and stays.
    pub(crate) fn try_edit(&self, manifest: &str) -> Result<(), Diagnostics> {
        std::fs::write(self.folder.path().join("lab.yaml"), manifest).unwrap();
        let desired = self.read()?;
        self.world.with(|inner| {
            for image in images(&desired) {
                if !inner.images.contains_key(&image) {
                    inner.write_image(&image, "first");
                }
            }
        });
        Ok(())
    }

    fn read(&self) -> Result<Desired, Diagnostics> {
        match manifests::desired(self.folder.path(), &self.site.context()) {
            Ok((desired, _warnings)) => Ok(desired),
            Err(manifests::DesiredError::Invalid(diagnostics)) => Err(diagnostics),
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    pub(crate) fn desired(&self) -> Desired {
        self.read()
            .unwrap_or_else(|found| panic!("the manifest is wrong:\n{}", report::diagnostics::human(&found, false)))
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.site.state).unwrap()
    }

    /// Another program writes to the state.
    pub(crate) fn alter_state(&self, sql: &str) {
        rusqlite::Connection::open(&self.site.state).unwrap().execute_batch(sql).unwrap();
    }

    pub(crate) fn recorded(&self, desired: &Desired) -> Recorded {
        self.store().recorded(&desired.lab).unwrap()
    }

    fn make_plan(&self, desired: &Desired, recorded: &Recorded) -> Result<Plan, ObserveError> {
        self.with_inputs(desired, recorded, &BTreeMap::new(), plan)
    }

    fn with_inputs<T>(
        &self,
        desired: &Desired,
        recorded: &Recorded,
        asks: &BTreeMap<VmName, Ask>,
        make: impl FnOnce(&Inputs<'_>) -> T,
    ) -> Result<T, ObserveError> {
        let (world, storage) = (&*self.world, &self.site.storage);
        let ledger = &Ledger { state: self.site.state.clone() };
        let world = observe::World { runs: world, disks: world, scheduler: world, dhcp: world, storage, ledger };
        let observed = observe::observe(&world, desired, recorded)?;
        let inputs = Inputs {
            desired: &with_claims(desired, &recorded.claims),
            recorded,
            observed: &observed,
            site: &self.site,
            now: self.world.now(),
            allow: &self.allow,
            asks,
            by: "test",
            lost_host: self.lost_host.as_ref(),
        };
        assert_eq!(check(&plan(&inputs), &inputs), [], "a plan that breaks its own rules is our bug");
        Ok(make(&inputs))
    }

    /// What the checker says of the lab's plan after `spoil` had its way with it.
    pub(crate) fn flaws(&self, spoil: impl FnOnce(&mut Plan)) -> Vec<Flaw> {
        self.flaws_of(&[], spoil)
    }

    /// The same of a plan in which vms are asked for something by name.
    pub(crate) fn flaws_of(&self, asks: &[(&str, Wish)], spoil: impl FnOnce(&mut Plan)) -> Vec<Flaw> {
        let desired = self.desired();
        let asks = asks.iter().map(|(vm, wish)| (vm.parse().unwrap(), Ask::new(*wish, true))).collect();
        let judge = |inputs: &Inputs<'_>| {
            let mut plan = plan(inputs);
            spoil(&mut plan);
            check(&plan, inputs)
        };
        self.with_inputs(&desired, &self.recorded(&desired), &asks, judge).unwrap()
    }

    /// The lab's plan after `spoil` had its way with it, as it would be shown.
    pub(crate) fn judged(&self, spoil: impl FnOnce(&mut Plan)) -> Plan {
        let desired = self.desired();
        let judge = |inputs: &Inputs<'_>| {
            let mut plan = plan(inputs);
            spoil(&mut plan);
            refuse_flaws(plan, inputs)
        };
        self.with_inputs(&desired, &self.recorded(&desired), &BTreeMap::new(), judge).unwrap()
    }

    /// The job that carries a run out, with all that its mark leads to. As `cli::import` finds it.
    pub(crate) fn job_of(&self, run: &RunId) -> FoundJob {
        let (id, runs, spec, control) = self.world.with(|inner| {
            let id = *inner.tasks.iter().find(|(_, task)| task.run == *run).unwrap().0;
            let runs = inner.batch_of(run).unwrap().runs.clone();
            let sim = &inner.runs[run];
            (id, runs, sim.spec.clone(), sim.control.clone())
        });
        let lab = self.desired().lab;
        FoundJob {
            task: self.world.list().unwrap().into_iter().find(|task| task.id == id).unwrap(),
            account: "root".into(),
            index: Some(Batch { version: Batch::VERSION, id: BatchId(runs[0].clone()), lab, runs }),
            spec: Some(spec),
            control: Some(control),
            phase: fold(&self.world.report(run).unwrap()).map(|report| report.phase),
        }
    }

    /// Takes a job over as a vm's run, or says every reason why not. As `cli::import` does it.
    pub(crate) fn import(&self, vm: &str, job: &FoundJob) -> Result<(), Vec<String>> {
        let desired = self.desired();
        let recorded = self.recorded(&desired);
        let known = recorded.vms.iter().find(|(name, _)| name.as_str() == vm);
        let (name, known) = known.ok_or_else(|| vec![format!("there is no vm {vm}")])?;
        let judge = |inputs: &Inputs<'_>| import_job(inputs, name, known, job);
        let changes = self.with_inputs(&desired, &recorded, &BTreeMap::new(), judge).unwrap()?;
        self.store().record(&desired.lab, &changes, self.world.now()).unwrap();
        Ok(())
    }

    /// What people see of a vm.
    pub(crate) fn seen(&self, vm: &str) -> view::Vm {
        let (desired, nothing) = (self.desired(), BTreeMap::new());
        let look = |inputs: &Inputs<'_>| view::vms(inputs.recorded, inputs.observed, inputs.site);
        let vms = self.with_inputs(&desired, &self.recorded(&desired), &nothing, look).unwrap();
        vms.into_iter().find(|seen| seen.name.as_str() == vm).unwrap()
    }

    pub(crate) fn plan(&self) -> Plan {
        let desired = self.desired();
        self.make_plan(&desired, &self.recorded(&desired)).unwrap()
    }

    /// The plan as the user reads it, with the scratch folder's name taken out.
    pub(crate) fn plan_text(&self) -> String {
        self.text_of(&self.plan(), false)
    }

    /// The same with every field and step, and what stays as it is.
    pub(crate) fn whole_plan_text(&self) -> String {
        self.text_of(&self.plan(), true)
    }

    fn text_of(&self, plan: &Plan, verbose: bool) -> String {
        self.without_names(&report::plan::text(plan, verbose))
    }

    /// A text without what is another one in each run of the tests.
    pub(crate) fn without_names(&self, text: &str) -> String {
        let folder = self.folder.path().canonicalize().unwrap();
        let site = self.recorded(&self.desired()).site;
        let text = text.replace(&*folder.to_string_lossy(), "LAB").replace(&format!("{site}-"), "site-");
        text.replace(&format!("site/{site}"), "site/k3f9").replace(&format!("lw.{site}."), "lw.k3f9.")
    }

    pub(crate) fn apply(&self) -> Applied {
        self.apply_desired(&self.desired())
    }

    pub(crate) fn apply_desired(&self, desired: &Desired) -> Applied {
        self.reconcile(&Command { desired, asks: BTreeMap::new(), part: &|plan, _| plan })
    }

    /// Starts or stops one vm by its name, whatever its manifest says.
    pub(crate) fn power(&self, desired: &Desired, vm: &VmName, wish: Wish) -> Applied {
        let pattern: AddressPattern = Address::vm(vm).to_string().parse().unwrap();
        let targets = std::slice::from_ref(&pattern);
        let part = |plan, recorded: &Recorded| refuse_held(target(plan, targets), &recorded.held, targets);
        let asks = BTreeMap::from([(vm.clone(), Ask::new(wish, true))]);
        self.reconcile(&Command { desired, asks, part: &part })
    }

    /// What the site's loop would do, nobody asking: the lab is as it was last applied, whatever its files say.
    pub(crate) fn upkeep(&self) -> Plan {
        let (desired, recorded) = self.applied();
        upkeep(self.make_plan(&desired, &recorded).unwrap(), &recorded, &|_| true)
    }

    pub(crate) fn applied(&self) -> (Desired, Recorded) {
        let mut store = self.store();
        let (lab, _) = store.labs().unwrap().into_iter().next().expect("the lab was applied");
        let recorded = store.recorded(&lab).unwrap();
        (as_applied(lab, &recorded).unwrap(), recorded)
    }

    /// The part of the plan that is about this.
    pub(crate) fn target(&self, pattern: &str) -> Plan {
        target(self.plan(), &[pattern.parse().unwrap()])
    }

    /// What is planned for vms of which something is asked, by name or not.
    pub(crate) fn asked(&self, asks: &[(&str, Wish, bool)]) -> Plan {
        let desired = self.desired();
        let asks = asks.iter().map(|(vm, wish, by_name)| (vm.parse().unwrap(), Ask::new(*wish, *by_name)));
        let asks: BTreeMap<VmName, Ask> = asks.collect();
        let targets: Vec<AddressPattern> = asks.keys().map(|vm| Address::vm(vm).to_string().parse().unwrap()).collect();
        target(self.with_inputs(&desired, &self.recorded(&desired), &asks, plan).unwrap(), &targets)
    }

    /// Gives up the runs on `lost_host`.
    pub(crate) fn forget_host(&self) -> Applied {
        let desired = Desired::nothing(self.desired().lab);
        self.reconcile(&Command { desired: &desired, asks: BTreeMap::new(), part: &|plan, _| give_up_only(plan) })
    }

    /// Carries out the part of a plan that wants nothing; answers what the user reads of it.
    pub(crate) fn apply_part(&self, part: impl Fn(Plan) -> Plan) -> String {
        let desired = Desired::nothing(self.desired().lab);
        let plan = part(self.make_plan(&desired, &self.recorded(&desired)).unwrap());
        if plan.refusals.is_empty() {
            let done = self.carry_out(&plan).unwrap();
            assert!(done.failed.is_empty(), "{done:?}");
        }
        self.text_of(&plan, false)
    }

    /// As `cli::apply::reconcile` does it.
    fn reconcile(&self, command: &Command<'_>) -> Applied {
        self.unless_killed(|| self.try_reconcile(command))
    }

    /// Does it, unless the controller is killed on the way.
    pub(crate) fn unless_killed(&self, act: impl FnOnce() -> Applied) -> Applied {
        let attempt = catch_unwind(AssertUnwindSafe(act));
        self.world.with(|inner| {
            inner.faults.killed = false;
            inner.faults.kill_in = None;
        });
        match attempt {
            Ok(applied) => applied,
            Err(panic) if panic.is::<Killed>() || is_of_a_scope(&*panic) => Applied::Killed,
            Err(panic) => resume_unwind(panic),
        }
    }

    fn try_reconcile(&self, command: &Command<'_>) -> Applied {
        let mut store = self.store();
        let holder = Holder {
            who: "test".into(),
            host: "test".into(),
            pid: std::process::id(),
            since: self.world.now(),
            doing: "apply".into(),
        };
        let lock = match Lock::take(&self.site.state, &holder, Duration::ZERO) {
            Ok(lock) => lock,
            Err(StateError::Locked { .. }) => return Applied::Locked,
            Err(error) => panic!("{error}"),
        };
        let recorded = store.recorded(&command.desired.lab).unwrap();
        let Ok(plan) = self.with_inputs(command.desired, &recorded, &command.asks, plan) else {
            return Applied::Blind;
        };
        let plan = (command.part)(plan, &recorded);
        if plan.is_refused() || (plan.is_empty() && !plan.refusals.is_empty()) {
            return Applied::Refused(plan);
        }
        if plan.is_empty() {
            return Applied::Done(Summary::default());
        }
        drop(store);
        self.carry_out_from(&plan, Some(lock)).map_or_else(Applied::Stopped, Applied::Done)
    }

    /// Carries out a plan, whenever it was made.
    pub(crate) fn carry_out(&self, plan: &Plan) -> Result<Summary, StateError> {
        self.carry_out_from(plan, None)
    }

    /// Who applies it, for the history.
    pub(crate) fn info(&self) -> ApplyInfo {
        ApplyInfo {
            folder: self.folder.path().to_owned(),
            who: "test".into(),
            host: "test".into(),
            command: "apply".into(),
            commit: None,
            summary: String::new(),
            act: None,
            acts: Vec::new(),
        }
    }

    /// The lock covers the decision alone.
    fn carry_out_from(&self, plan: &Plan, lock: Option<Lock>) -> Result<Summary, StateError> {
        let mut store = self.store();
        let interrupts = AtomicU8::new(0);
        let world = apply::World {
            site: &self.site,
            lab: &plan.lab,
            scheduler: &*self.world,
            dhcp: &*self.world,
            program: Path::new("/usr/bin/labwright"),
            runs: &*self.world,
            disks: &*self.world,
            clock: &*self.world,
            interrupts: &interrupts,
            parallelism: 1,
        };
        let id = store.begin(&plan.lab, &apply::decision(plan), &self.info(), self.world.now())?;
        drop(lock);
        let mut told = Told::default();
        let summary = apply::apply(plan, id, &mut store, &world, &mut told)?;
        self.told.lock().unwrap().extend(told.retries);
        store.end(id, "ended", self.world.now())?;
        self.clear_away(&plan.lab, &mut store);
        Ok(summary)
    }

    /// Forgets what ended long ago: by more than the controller's clock is ever set, since a site remembers for days what is in
    /// its queue for seconds. Where the queue or the storage is away, that is another day's work.
    fn clear_away(&self, lab: &LabName, store: &mut Store) {
        let (recorded, now) = (store.recorded(lab).unwrap(), self.world.now());
        let before = now - jiff::SignedDuration::from_hours(5);
        let clearing = Clearing { lab, recorded: &recorded, scheduler: &*self.world, runs: &*self.world, before, now };
        match clearing.piece(store) {
            Ok(_) | Err(ClearError::Queue(_) | ClearError::Run(_)) => {}
            Err(ClearError::State(error)) => panic!("{error}"),
        }
    }

    /// What the user was told of tries that were made again, since the lab was made.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    /// Applies, and says what went wrong if anything did.
    #[track_caller]
    pub(crate) fn must_apply(&self) {
        match self.apply() {
            Applied::Done(summary) if summary.failed.is_empty() => {}
            other => panic!("the apply went wrong: {other:?}"),
        }
    }
}

/// All images that a lab names.
fn images(desired: &Desired) -> Vec<PathBuf> {
    let of_templates = desired.templates.values().flat_map(|template| &template.disks);
    let of_vms = desired.vms.values().filter_map(|vm| match &vm.source {
        VmSource::Disks(disks) => Some(disks),
        VmSource::Derive(_) | VmSource::Clone(_) => None,
    });
    let images = of_templates.chain(of_vms.flatten()).filter_map(|disk| match disk {
        DiskSource::Image { path, .. } => Some(path.clone()),
        DiskSource::Empty { .. } | DiskSource::Fetched { .. } => None,
    });
    images.collect()
}

/// What the scope of the executor's threads says when one of them was killed.
pub(crate) fn is_of_a_scope(panic: &(dyn std::any::Any + Send)) -> bool {
    panic.downcast_ref::<&str>().is_some_and(|text| text.contains("a scoped thread panicked"))
}

/// Memory-backed where there is such a folder: the simulation writes a state thousands of times.
fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
