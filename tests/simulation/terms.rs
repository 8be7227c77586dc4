//! One seed drives a whole term: rosters and templates change, guests boot, die and hang, hosts vanish and return, storage
//! and queue fail, answers get lost, the controller is killed at any call it makes. After every step the promises must
//! hold; in the end, with everything mended, two applies must bring the lab to rest.
//!
//! `tests/run simulation --steps 1000000 --seed 7` runs a campaign; a failure names the seed that replays it exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use labwright::id::{RunId, SiteTag};
use labwright::run::StopReason;
use labwright::scheduler::{JobId, TaskId, TaskState};

use crate::lab::{Applied, Lab};
use crate::world::{Inner, SimDisk, World};

/// Steps of one term: after these everything is mended and the lab must come to rest.
const STEPS_PER_TERM: u64 = 60;

/// What CI runs when nothing else is asked for.
const STEPS_IN_CI: u64 = 6_000;

const STUDENTS: [&str; 7] = ["ada", "bea", "cid", "dan", "eve", "fay", "gil"];

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): small, seeded, ours to replay.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len() as u64) as usize].clone()) }
    }
}

/// The lab as the teacher wrote it last.
#[derive(Clone, Debug)]
struct Manifest {
    members: BTreeSet<&'static str>,
    memory_mib: u64,
    isolated: bool,
    state: &'static str,
    restart: &'static str,
    template: &'static str,
    suffix: &'static str,
    /// The suffix before the last rename.
    moved_from: Option<&'static str>,
}

impl Manifest {
    fn first() -> Self {
        Self {
            members: STUDENTS[..4].iter().copied().collect(),
            memory_mib: 512,
            isolated: true,
            state: "running",
            restart: "on_failure",
            template: "one",
            suffix: "vm",
            moved_from: None,
        }
    }

    fn text(&self) -> String {
        let Self { memory_mib, isolated, state, restart, template, suffix, .. } = self;
        let members: Vec<&str> = self.members.iter().copied().collect();
        let moved: Vec<String> = self
            .moved_from
            .iter()
            .flat_map(|old| {
                members.iter().map(move |user| format!("  - {{ from: vm/{user}-{old}, to: vm/{user}-{suffix} }}\n"))
            })
            .collect();
        let moved = if moved.is_empty() { String::new() } else { format!("moved:\n{}", moved.concat()) };
        format!(
            "lab: term\nusers: {{ boss: {{}} }}\nuser_groups: {{ class: {{ members: [{}] }} }}\n\
             vm_groups: {{ net: {{ ip_range: 10.1.0.2-10.1.0.40, gateway: 10.1.0.1, bridge: vbr0 }} }}\n\
             templates:\n  one: {{ owner: boss, vm_group: net, disks: [{{ image: images/one.qcow2 }}], memory: {memory_mib}M }}\n  \
             two: {{ owner: boss, vm_group: net, disks: [{{ image: images/two.qcow2 }}, {{ image: images/data.qcow2 }}], memory: {memory_mib}M }}\n\
             vms:\n  family: {{ derive: {template}, for_each: class, name: \"{{user}}-{suffix}\", state: {state}, \
             restart: {restart}, isolated: {isolated} }}\n{moved}",
            members.join(", "),
        )
    }

    fn edit(&mut self, dice: &mut Dice) {
        self.moved_from = None;
        match dice.below(10) {
            0..=2 => {
                let student = dice.pick(&STUDENTS).unwrap();
                if !self.members.remove(student) || self.members.is_empty() {
                    self.members.insert(student);
                }
            }
            3 => self.memory_mib = 512 + 512 * dice.below(3),
            4 => self.isolated = !self.isolated,
            5 | 6 => self.state = dice.pick(&["running", "running", "stopped", "on_demand"]).unwrap(),
            7 => self.restart = dice.pick(&["on_failure", "always"]).unwrap(),
            8 => self.template = dice.pick(&["one", "two"]).unwrap(),
            _ => {
                self.moved_from = Some(self.suffix);
                self.suffix = if self.suffix == "vm" { "box" } else { "vm" };
            }
        }
    }
}

/// Things of others that must be there, untouched, after everything.
struct Foreign {
    task: TaskId,
    disk: PathBuf,
}

fn plant_foreign_things(world: &World) -> Foreign {
    let foreign =
        Foreign { task: TaskId { job: JobId(900_000), task: 1 }, disk: PathBuf::from("/srv/others/disk.qcow2") };
    world.with(|inner| {
        inner.foreign.insert(foreign.task, "lw.zzzz.term.1".to_owned());
        let origin = labwright::disks::DiskOrigin::Empty { size_bytes: 1 };
        inner.disks.insert(foreign.disk.clone(), SimDisk { origin, work_of: None });
    });
    foreign
}

struct Term {
    seed: u64,
    dice: Dice,
    lab: Lab,
    manifest: Manifest,
    foreign: Foreign,
    /// Disks that somebody worked on: they may move, never vanish.
    worked_on: usize,
    applies: u64,
    kills: u64,
    log: Vec<String>,
}

impl Term {
    fn new(seed: u64) -> Self {
        let manifest = Manifest::first();
        let mut lab = Lab::new(&manifest.text());
        lab.allow = ["user-group/*", "template/*", "vm/*"].map(|pattern| pattern.parse().unwrap()).to_vec();
        let foreign = plant_foreign_things(&lab.world);
        let dice = Dice(seed);
        Self { seed, dice, lab, manifest, foreign, worked_on: 0, applies: 0, kills: 0, log: Vec::new() }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
            self.check();
        }
        self.mend();
        self.come_to_rest();
    }

    fn say(&mut self, what: impl Into<String>) {
        self.log.push(what.into());
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..=11 => {
                self.manifest.edit(&mut self.dice);
                self.say(format!("edit {:?}", self.manifest));
                self.lab.edit(&self.manifest.text());
            }
            12..=39 => self.apply(),
            40..=54 => {
                // The executor is killed somewhere in the middle; a fresh one goes on later.
                let calls = 1 + self.dice.below(60);
                self.lab.world.with(|inner| inner.faults.kill_in = Some(calls));
                self.apply();
            }
            55..=69 => self.some_tasks_begin(),
            70..=79 => self.something_happens_to_a_run(),
            80..=83 => self.a_host_is_lost_or_returns(),
            84..=95 => self.a_fault_comes_or_goes(),
            96..=97 => {
                let image = self.dice.pick(&["one", "two"]).unwrap();
                let content = format!("content-{}", self.dice.below(4));
                self.say(format!("image {image} becomes {content}"));
                let path = self.lab.folder.path().canonicalize().unwrap().join(format!("images/{image}.qcow2"));
                self.lab.world.with(|inner| inner.write_image(&path, &content));
            }
            _ => {
                let seconds = self.dice.below(7200);
                self.say(format!("{seconds} s pass"));
                self.lab.world.with(|inner| inner.now += jiff::SignedDuration::from_secs(seconds.cast_signed()));
            }
        }
    }

    fn apply(&mut self) {
        self.applies += 1;
        let applied = self.lab.apply();
        self.kills += u64::from(matches!(applied, Applied::Killed));
        let words = match applied {
            Applied::Done(summary) => {
                format!("applied: {} failed, {} skipped", summary.failed.len(), summary.skipped.len())
            }
            Applied::Refused(plan) => format!("refused: {:?}", plan.refusals),
            Applied::Blind => "blind".into(),
            Applied::Killed => "killed".into(),
        };
        self.say(words);
    }

    fn some_tasks_begin(&mut self) {
        let waiting: Vec<TaskId> = self.lab.world.with(|inner| {
            let waits = |state: &TaskState| matches!(state, TaskState::Pending { .. });
            inner.tasks.iter().filter(|(_, task)| waits(&task.state)).map(|(id, _)| *id).collect()
        });
        for id in waiting {
            if self.dice.below(3) > 0 {
                self.lab.world.with(|inner| inner.start_task(id));
            }
        }
        self.say("some tasks begin");
    }

    fn running(&self) -> Vec<RunId> {
        self.lab.world.with(|inner| inner.live().into_values().flatten().collect())
    }

    fn something_happens_to_a_run(&mut self) {
        let Some(run) = self.dice.pick(&self.running()) else { return };
        let what = self.dice.below(5);
        self.say(format!("event {what} for {run}"));
        self.lab.world.with(|inner| match what {
            0 => inner.kill_run(&run),
            1 => inner.end_run(&run, StopReason::Guest),
            2 => inner.end_run(&run, StopReason::Crashed),
            3 => inner.runs.get_mut(&run).unwrap().hung = true,
            _ => inner.runs.get_mut(&run).unwrap().hung = false,
        });
    }

    fn a_host_is_lost_or_returns(&mut self) {
        let lost = self.dice.below(2) == 0;
        let Some(run) = self.dice.pick(&self.running()) else { return };
        self.say(format!("host of {run} lost: {lost}"));
        self.lab.world.with(|inner| {
            let task = inner.tasks.values_mut().find(|task| task.run == run).unwrap();
            task.state = if lost { TaskState::Unknown } else { TaskState::Running };
        });
    }

    fn a_fault_comes_or_goes(&mut self) {
        let (fault, on) = (self.dice.below(7), self.dice.below(3) == 0);
        self.say(format!("fault {fault}: {on}"));
        self.lab.world.with(|inner| {
            let faults = &mut inner.faults;
            match fault {
                0 => faults.queue_down = on,
                1 => faults.storage_gone = on,
                2 => faults.storage_full = on,
                3 => faults.dhcp_down = on,
                4 => faults.lose_submit_answer = on,
                5 => faults.refuse_submit = on,
                _ => faults.appear_late = u32::from(on) * 9,
            }
        });
    }

    /// What holds at every moment.
    fn check(&mut self) {
        let failed = self.lab.world.with(|inner| broken_promise(inner, &self.foreign, &mut self.worked_on));
        if let Some(promise) = failed {
            self.fail(&promise);
        }
    }

    fn fail(&self, what: &str) -> ! {
        let tail: Vec<&String> =
            self.log.iter().rev().take(number_from("LABWRIGHT_SIMULATION_TAIL", 40) as usize).collect();
        let story: Vec<&str> = tail.into_iter().rev().map(String::as_str).collect();
        panic!("seed {}: {what}\nthe last steps:\n  {}", self.seed, story.join("\n  "));
    }

    /// Everything works again, hosts are back, guests react.
    fn mend(&mut self) {
        self.say("mended");
        self.lab.world.with(|inner| {
            inner.faults = crate::world::Faults::default();
            for task in inner.tasks.values_mut() {
                task.hidden_for = 0;
                if task.state == TaskState::Unknown {
                    task.state = TaskState::Running;
                }
            }
            inner.runs.values_mut().for_each(|run| run.hung = false);
        });
    }

    fn come_to_rest(&mut self) {
        for _ in 0..2 {
            self.apply();
            self.check();
            self.lab.world.with(Inner::start_all);
            self.check();
        }
        let plan = self.lab.plan();
        if !plan.is_empty() || !plan.refusals.is_empty() {
            self.fail(&format!("no rest after two applies:\n{}", self.lab.plan_text()));
        }
        let desired = self.lab.desired();
        let live: BTreeSet<RunId> = self.running().into_iter().collect();
        let recorded = self.lab.recorded(&desired);
        // A renamed vm runs on under its old name, so runs are compared, not names. A guest that powered itself off stays
        // off, and the plan says so.
        let stays_off: BTreeSet<String> = plan.notes.into_iter().map(|note| note.address.name).collect();
        for name in desired.vms.keys().filter(|_| self.manifest.state == "running") {
            let runs = recorded.vms.get(name).and_then(|vm| vm.run.as_ref()).is_some_and(|run| live.contains(&run.run));
            if !runs && !stays_off.contains(name.as_str()) {
                self.fail(&format!("{name} should run"));
            }
        }
        let reserved = self.lab.world.with(|inner| inner.reservations.len());
        if reserved != desired.vms.len() {
            self.fail(&format!("{} vms have {reserved} reservations", desired.vms.len()));
        }
    }
}

/// The first promise that is broken, in words.
fn broken_promise(inner: &Inner, foreign: &Foreign, worked_on: &mut usize) -> Option<String> {
    if let Some((vm, runs)) = inner.live().into_iter().find(|(_, runs)| runs.len() > 1) {
        return Some(format!("{vm} runs twice: {runs:?}"));
    }
    let mut seen: BTreeMap<String, &RunId> = BTreeMap::new();
    for task in inner.tasks.values().filter(|task| !matches!(task.state, TaskState::Pending { .. })) {
        let network = &inner.runs[&task.run].spec.network;
        for address in [network.ip.to_string(), network.mac.to_string()] {
            if let Some(other) = seen.insert(address.clone(), &task.run) {
                return Some(format!("{other} and {} both have {address}", task.run));
            }
        }
    }
    let doubled = crate::world::doubled_addresses(inner);
    if !doubled.is_empty() {
        return Some(format!("reserved twice: {doubled:?}"));
    }
    if !inner.foreign.contains_key(&foreign.task) || !inner.disks.contains_key(&foreign.disk) {
        return Some("something of others was touched".into());
    }
    let now = inner.disks.values().filter(|disk| disk.work_of.is_some()).count();
    if now < *worked_on {
        return Some(format!("{} disks with work of students on them are lost", *worked_on - now));
    }
    *worked_on = now;
    None
}

fn number_from(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => otherwise,
    }
}

#[test]
fn the_promises_hold_whatever_happens() {
    // Kills are panics of the simulated world, thousands of them: only real ones are worth a message.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<crate::world::Killed>().is_none()
            && !info.payload_as_str().is_some_and(|text| text.contains("a scoped thread panicked"))
        {
            report(info);
        }
    }));
    let first_seed = number_from("LABWRIGHT_SIMULATION_SEED", 1);
    let steps = number_from("LABWRIGHT_SIMULATION_STEPS", STEPS_IN_CI);
    let (mut applies, mut kills) = (0, 0);
    let terms = steps.div_ceil(STEPS_PER_TERM);
    for seed in first_seed..first_seed + terms {
        let mut term = Term::new(seed);
        term.run(STEPS_PER_TERM);
        applies += term.applies;
        kills += term.kills;
    }
    assert!(kills > terms / 4, "a simulation that hardly ever kills proves little: {kills} kills in {terms} terms");
    let told = format!(
        "simulation: {} steps, {terms} terms from seed {first_seed}, {applies} applies, {kills} kills\n",
        terms * STEPS_PER_TERM
    );
    std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()).unwrap();
}

#[test]
fn a_foreign_mark_is_not_ours() {
    let site = SiteTag::new("aaaa").unwrap();
    assert_eq!(labwright::run::BatchId::from_job_name("lw.zzzz.term.1", &site), None);
}
