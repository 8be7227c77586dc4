//! One lab in the world of `world`: a manifest on disk, a real SQLite state, and the product's own pipeline between them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use labwright::address::AddressPattern;
use labwright::apply::{self, BatchKind, Clock as _, Progress, Summary};
use labwright::manifest;
use labwright::observe::{self, ObserveError};
use labwright::plan::{Flaw, Inputs, LostHost, Plan, check, plan};
use labwright::report;
use labwright::resolve::Desired;
use labwright::site::Site;
use labwright::state::{ApplyInfo, Recorded, Store};

use crate::world::World;

pub(crate) struct Lab {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) world: World,
    pub(crate) site: Site,
    pub(crate) allow: Vec<AddressPattern>,
    pub(crate) lost_host: Option<LostHost>,
    told: std::cell::RefCell<Vec<String>>,
}

/// How an apply ended.
#[derive(Debug)]
pub(crate) enum Applied {
    Done(Summary),
    Refused(Plan),
    /// The world could not be seen.
    Blind,
    /// The controller was killed in the middle.
    Killed,
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
        let world = World::new();
        let site = Site::embedded(&folder.path().canonicalize().unwrap(), 64 * 1024, 2);
        let now = world.with(|inner| inner.now);
        Store::create(&site.state, now).unwrap();
        let lab = Self { folder, world, site, allow: Vec::new(), lost_host: None, told: std::cell::RefCell::default() };
        lab.edit(manifest);
        lab
    }

    pub(crate) fn edit(&self, manifest: &str) {
        std::fs::write(self.folder.path().join("lab.yaml"), manifest).unwrap();
        let images: Vec<PathBuf> = self.images();
        self.world.with(|inner| {
            for image in images {
                if !inner.images.contains_key(&image) {
                    inner.write_image(&image, "first");
                }
            }
        });
    }

    fn images(&self) -> Vec<PathBuf> {
        use labwright::resolve::DiskSource;
        let desired = self.desired();
        let disks = desired.templates.values().flat_map(|template| &template.disks);
        let images = disks.filter_map(|disk| match disk {
            DiskSource::Image { path, .. } => Some(path.clone()),
            DiskSource::Empty { .. } => None,
        });
        images.collect()
    }

    pub(crate) fn desired(&self) -> Desired {
        match manifest::desired(self.folder.path(), &self.site.context()) {
            Ok((desired, _warnings)) => desired,
            Err(manifest::DesiredError::Invalid(diagnostics)) => {
                panic!("the test's manifest is wrong:\n{}", report::diagnostics::human(&diagnostics, false))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.site.state).unwrap()
    }

    pub(crate) fn recorded(&self, desired: &Desired) -> Recorded {
        self.store().recorded(&desired.lab).unwrap()
    }

    fn make_plan(&self, desired: &Desired, recorded: &Recorded) -> Result<Plan, ObserveError> {
        self.with_inputs(desired, recorded, plan)
    }

    fn with_inputs<T>(
        &self,
        desired: &Desired,
        recorded: &Recorded,
        make: impl FnOnce(&Inputs<'_>) -> T,
    ) -> Result<T, ObserveError> {
        let (world, storage) = (&self.world, &self.site.storage);
        let world = observe::World { runs: world, disks: world, scheduler: world, dhcp: world, storage };
        let observed = observe::observe(&world, desired, recorded)?;
        Ok(make(&Inputs {
            desired,
            recorded,
            observed: &observed,
            site: &self.site,
            now: self.world.now(),
            allow: &self.allow,
            power: &BTreeMap::new(),
            lost_host: self.lost_host.as_ref(),
        }))
    }

    /// What the checker says of the lab's plan after `spoil` had its way with it.
    pub(crate) fn flaws(&self, spoil: impl FnOnce(&mut Plan)) -> Vec<Flaw> {
        let desired = self.desired();
        let judge = |inputs: &Inputs<'_>| {
            let mut plan = plan(inputs);
            spoil(&mut plan);
            check(&plan, inputs)
        };
        self.with_inputs(&desired, &self.recorded(&desired), judge).unwrap()
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
        let folder = self.folder.path().canonicalize().unwrap();
        let site = self.recorded(&self.desired()).site;
        let text = report::plan::text(plan, verbose);
        let text = text.replace(&*folder.to_string_lossy(), "LAB").replace(&format!("{site}-"), "site-");
        text.replace(&format!("site/{site}"), "site/k3f9").replace(&format!("lw.{site}."), "lw.k3f9.")
    }

    pub(crate) fn apply(&self) -> Applied {
        self.apply_desired(&self.desired())
    }

    /// Carries out the part of a plan that wants nothing; answers what the user reads of it.
    pub(crate) fn apply_part(&self, part: impl Fn(Plan) -> Plan) -> String {
        let desired = Desired::nothing(self.desired().lab);
        let plan = part(self.make_plan(&desired, &self.recorded(&desired)).unwrap());
        if plan.refusals.is_empty() {
            let done = self.carry_out(&plan);
            assert!(done.failed.is_empty(), "{done:?}");
        }
        self.text_of(&plan, false)
    }

    pub(crate) fn apply_desired(&self, desired: &Desired) -> Applied {
        let attempt = catch_unwind(AssertUnwindSafe(|| self.try_apply(desired)));
        self.world.with(|inner| {
            inner.faults.killed = false;
            inner.faults.kill_in = None;
        });
        match attempt {
            Ok(applied) => applied,
            Err(_) => Applied::Killed,
        }
    }

    fn try_apply(&self, desired: &Desired) -> Applied {
        let mut store = self.store();
        let recorded = store.recorded(&desired.lab).unwrap();
        let Ok(plan) = self.make_plan(desired, &recorded) else { return Applied::Blind };
        if !plan.refusals.is_empty() {
            return Applied::Refused(plan);
        }
        drop(store);
        Applied::Done(self.carry_out(&plan))
    }

    fn carry_out(&self, plan: &Plan) -> Summary {
        let mut store = self.store();
        let info = ApplyInfo {
            folder: self.folder.path().to_owned(),
            who: "test".into(),
            host: "test".into(),
            commit: None,
            summary: String::new(),
        };
        let interrupts = AtomicU8::new(0);
        let world = apply::World {
            site: &self.site,
            lab: &plan.lab,
            scheduler: &self.world,
            dhcp: &self.world,
            program: Path::new("/usr/bin/labwright"),
            runs: &self.world,
            disks: &self.world,
            clock: &self.world,
            interrupts: &interrupts,
            parallelism: 1,
        };
        let id = store.begin(&plan.lab, &info, self.world.now()).unwrap();
        let mut told = Told::default();
        let summary = apply::apply(plan, id, &mut store, &world, &mut told).unwrap();
        self.told.borrow_mut().extend(told.retries);
        store.end(id, "ended", self.world.now()).unwrap();
        summary
    }

    /// What the user was told of tries that were made again, since the lab was made.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.borrow().clone()
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

/// Memory-backed where there is such a folder: the simulation writes a state thousands of times.
fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
