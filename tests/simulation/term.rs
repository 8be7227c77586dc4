//! One seed, one term: edits, jobs, hosts, storage, clocks, people and kills, all from the same dice; then everything is
//! mended and the lab must come to rest.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::SignedDuration;
use labwright::model::address::AddressPattern;
use labwright::model::id::{RunId, VmName};
use labwright::model::job::{TaskId, TaskState};
use labwright::model::lab::Desired;
use labwright::model::site::{GridEngineSettings, SchedulerSettings};
use labwright::plan::{Ground, LostHost, Plan, Wish};
use labwright::run::StopReason;
use labwright::state::{AsideSet, FreezeScope, Frozen};

use crate::dice::Dice;
use crate::lab::{Applied, Lab};
use crate::manifest::Manifest;
use crate::promises::Watched;
use crate::world::{Faults, Guest, Inner, SimHost, SimTask};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// Between two rounds of the loop.
const ROUND_SECONDS: i64 = 30;

/// What somebody may ask of a vm.
const WISHES: [Wish; 5] = [Wish::Start, Wish::Stop, Wish::Restart, Wish::Reimage, Wish::PutBack];

/// Everything that a guard may ask to be named.
const ALL_GUARDS: [&str; 4] = ["user-group/*", "template/*", "vm/*", "session/*"];

/// What a term went through.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) applies: u64,
    /// Those of them that were the loop's.
    pub(crate) rounds: u64,
    pub(crate) kills: u64,
    pub(crate) refusals: u64,
    /// Applies whose state could not be written.
    pub(crate) unwritten: u64,
    pub(crate) hosts_lost: u64,
    pub(crate) hosts_forgotten: u64,
    /// Runs that the state lost sight of.
    pub(crate) runs_lost: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { applies, rounds, kills, refusals, unwritten, hosts_lost, hosts_forgotten, runs_lost } = other;
        self.applies += applies;
        self.rounds += rounds;
        self.kills += kills;
        self.refusals += refusals;
        self.unwritten += unwritten;
        self.hosts_lost += hosts_lost;
        self.hosts_forgotten += hosts_forgotten;
        self.runs_lost += runs_lost;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { applies, rounds, kills, refusals, unwritten, hosts_lost, hosts_forgotten, runs_lost } = self;
        write!(
            f,
            "{applies} applies, {rounds} by the loop, {kills} killed, {refusals} refused, {unwritten} without a writable state; \
             {hosts_lost} hosts lost, {hosts_forgotten} given up, {runs_lost} runs lost sight of"
        )
    }
}

pub(crate) struct Term {
    seed: u64,
    pub(crate) dice: Dice,
    pub(crate) lab: Lab,
    manifest: Manifest,
    /// Jobs go to a cluster, which can lose hosts; otherwise they are processes of the controller's machine.
    on_cluster: bool,
    watched: Watched,
    pub(crate) counts: Counts,
    story: Vec<String>,
}

impl Term {
    pub(crate) fn new(seed: u64) -> Self {
        let manifest = Manifest::first();
        let mut lab = Lab::new(&manifest.text());
        let watched = Watched::new(&lab.world);
        let mut dice = Dice(seed);
        let on_cluster = dice.below(3) > 0;
        if on_cluster {
            lab.site.scheduler = SchedulerSettings::GridEngine(GridEngineSettings::new("/opt/sge".into()));
            lab.world.with(|inner| {
                for name in HOSTS {
                    let ahead = SignedDuration::from_secs(dice.below(7200).cast_signed() - 3600);
                    inner.hosts.insert(name, SimHost { ahead, ..SimHost::default() });
                }
            });
        }
        let story = vec![format!("a site {}", if on_cluster { "with a cluster" } else { "of one machine" })];
        Self { seed, dice, lab, manifest, on_cluster, watched, counts: Counts::default(), story }
    }

    pub(crate) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
            self.check();
        }
        self.mend();
        self.come_to_rest();
    }

    /// An hour of the daemon: its loop goes round every half minute, and now and then dies in the middle. Beside it all goes on that
    /// happens in a term: root edits and applies, guests end, hosts are lost.
    pub(crate) fn hour(&mut self) {
        drop(self.apply());
        for _ in 0..3600 / ROUND_SECONDS {
            self.the_loop_goes_round();
            self.check();
            self.step();
            self.check();
            self.lab.world.with(|inner| inner.pass(ROUND_SECONDS));
            self.check();
        }
        self.mend();
        self.come_to_rest();
    }

    pub(crate) fn say(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    fn step(&mut self) {
        match self.dice.below(114) {
            0..=11 => self.edit(),
            12..=33 => drop(self.apply()),
            34..=47 => self.killed_apply(),
            48..=60 => self.some_tasks_begin(),
            61..=68 => self.something_happens_to_a_run(),
            69..=74 => self.something_happens_to_a_host(),
            75..=84 => self.a_fault_comes_or_goes(),
            85 => self.an_image_changes(),
            86..=89 => self.time_passes(),
            90 => self.a_clock_jumps(),
            91..=92 => self.somebody_starts_or_stops_a_vm(),
            93 => self.somebody_freezes_or_thaws(),
            94..=95 => self.a_host_is_forgotten(),
            96 => self.an_apply_cannot_write(),
            97 => self.a_plan_grows_old(),
            98 => self.two_controllers(),
            99..=100 => self.the_state_loses_sight_of_runs(),
            101..=102 => self.somebody_imports_a_job(),
            103..=112 => self.the_loop_goes_round(),
            _ if self.dice.one_in(4) => self.destroy(),
            _ => self.storage_is_not_mounted(),
        }
    }

    fn edit(&mut self) {
        let before = self.manifest.clone();
        self.manifest.edit(&mut self.dice);
        self.say(format!("edit {:?}", self.manifest));
        if self.lab.try_edit(&self.manifest.text()).is_err() {
            self.say("which is found wrong, and taken back");
            self.manifest = before;
            self.lab.edit(&self.manifest.text());
        }
    }

    pub(crate) fn apply(&mut self) -> Applied {
        let applied = self.lab.apply();
        self.tell(&applied);
        // The teacher reads what is refused, and may mean it.
        if let Applied::Refused(plan) = &applied
            && self.dice.one_in(2)
        {
            self.mean_it(plan);
        }
        applied
    }

    fn mean_it(&mut self, plan: &Plan) {
        let lost = plan.refusals.iter().find(|refusal| matches!(refusal.why, Ground::DiskGone { .. }));
        if let Some(refusal) = lost {
            // Nobody gives a disk up while storage is away; and where it is there, no disk may be gone.
            if !self.lab.world.with(|inner| inner.faults.storage_unmounted) {
                self.fail(&format!("{}: {}", refusal.address, refusal.why));
            }
            return;
        }
        let patterns = plan.refusals.iter().filter_map(|refusal| refusal.address.to_string().parse().ok());
        self.lab.allow = patterns.collect();
        self.say(format!(
            "with --allow {:?}",
            plan.refusals.iter().map(|refusal| refusal.address.to_string()).collect::<Vec<_>>()
        ));
        let applied = self.lab.apply();
        self.tell(&applied);
        self.lab.allow.clear();
    }

    /// Counts how an apply ended, and adds it to the story.
    pub(crate) fn tell(&mut self, applied: &Applied) {
        self.counts.applies += 1;
        let words = match applied {
            Applied::Done(summary) => {
                let failed: Vec<_> =
                    summary.failed.iter().map(|f| format!("{} of {}: {}", f.effect, f.address, f.detail)).collect();
                format!("applied: {} done, {} skipped, failed: {failed:?}", summary.done.len(), summary.skipped.len())
            }
            Applied::Refused(plan) => {
                self.counts.refusals += 1;
                let texts: Vec<_> = plan.refusals.iter().map(|r| format!("{}: {}", r.address, r.why)).collect();
                format!("refused: {texts:?}")
            }
            Applied::Locked => "locked".into(),
            Applied::Blind => "blind".into(),
            Applied::Stopped(error) => format!("stopped: {error}"),
            Applied::Killed => {
                self.counts.kills += 1;
                "killed".into()
            }
        };
        self.say(words);
    }

    /// The controller is killed somewhere in the middle; a fresh one goes on later.
    fn killed_apply(&mut self) {
        let calls = 1 + self.dice.below(90);
        self.lab.world.with(|inner| inner.faults.kill_in = Some(calls));
        self.say(format!("killed at call {calls}:"));
        self.apply();
    }

    /// The daemon's loop, beside all that people do; now and then it dies in the middle.
    fn the_loop_goes_round(&mut self) {
        if self.lab.store().labs().unwrap().is_empty() {
            return;
        }
        let kill_in = self.dice.one_in(3).then(|| 1 + self.dice.below(40));
        self.say(format!("the loop goes round, killed at {kill_in:?}:"));
        self.lab.world.with(|inner| inner.faults.kill_in = kill_in);
        let kept = self.lab.keep();
        self.counts.rounds += 1;
        self.tell(&kept);
    }

    fn some_tasks_begin(&mut self) {
        let waiting: Vec<TaskId> = self.lab.world.with(|inner| {
            let waits = |state: &TaskState| matches!(state, TaskState::Pending { .. });
            inner.tasks.iter().filter(|(_, task)| waits(&task.state)).map(|(id, _)| *id).collect()
        });
        let hosts = self.hosts(|host| host.has_power && host.is_heard);
        for id in waiting {
            let Some(host) = self.dice.pick(&hosts) else { continue };
            if !self.dice.one_in(3) {
                self.say(format!("task {id} begins on {host}"));
                self.lab.world.with(|inner| inner.start_task_on(id, host));
            }
        }
    }

    fn hosts(&self, are: impl Fn(&SimHost) -> bool) -> Vec<&'static str> {
        self.lab.world.with(|inner| inner.hosts.iter().filter(|(_, host)| are(host)).map(|(name, _)| *name).collect())
    }

    fn something_happens_to_a_run(&mut self) {
        let live: Vec<RunId> = self.lab.world.with(|inner| inner.live().into_values().flatten().collect());
        let Some(run) = self.dice.pick(&live) else { return };
        let what = self.dice.below(7);
        self.say(format!("event {what} for {run}"));
        self.lab.world.with(|inner| match what {
            0 => inner.kill_run(&run),
            1 if inner.runs[&run].guest == Guest::Executing => inner.end_run(&run, StopReason::Guest),
            2 => inner.end_run(&run, StopReason::Crashed),
            3 => inner.runs.get_mut(&run).unwrap().hung = true,
            4 => inner.runs.get_mut(&run).unwrap().hung = false,
            5 => inner.runs.get_mut(&run).unwrap().heart_stopped = true,
            _ => inner.runs.get_mut(&run).unwrap().heart_stopped = false,
        });
    }

    /// Hosts of a cluster are cut off, lose their power or their way to storage, and come back; a job on a host that nobody
    /// hears of is struck from the queue by an impatient admin, or begun a second time elsewhere by the scheduler.
    fn something_happens_to_a_host(&mut self) {
        if !self.on_cluster {
            return;
        }
        let host = self.dice.pick(&HOSTS).unwrap();
        let what = self.dice.below(9);
        self.say(format!("event {what} for {host}"));
        self.counts.hosts_lost += u64::from(what < 3);
        self.lab.world.with(|inner| match what {
            0 | 1 => inner.cut_off(host),
            2 => inner.power_off(host),
            3 => inner.hosts.get_mut(host).unwrap().has_storage = false,
            4 => inner.forget_a_task_of(host),
            5 => inner.begin_a_task_again(host),
            _ => inner.bring_back(host),
        });
    }

    fn a_fault_comes_or_goes(&mut self) {
        let (fault, on) = (self.dice.below(10), self.dice.one_in(3));
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
                6 => faults.lose_kill_answer = on,
                7 => faults.lose_dhcp_answer = on,
                8 => faults.torn_reports = on,
                _ => faults.appear_late = u32::from(on) * 9,
            }
            inner.starters_act();
        });
    }

    fn storage_is_not_mounted(&mut self) {
        let on = self.dice.one_in(2);
        self.say(format!("the controller's storage is not mounted: {on}"));
        self.lab.world.with(|inner| inner.faults.storage_unmounted = on);
    }

    fn an_image_changes(&mut self) {
        let image = self.dice.pick(&["one", "two"]).unwrap();
        let content = format!("content-{}", self.dice.below(4));
        self.say(format!("image {image} becomes {content}"));
        let path = self.image(image);
        self.lab.world.with(|inner| inner.write_image(&path, &content));
    }

    fn image(&self, name: &str) -> PathBuf {
        self.lab.folder.path().canonicalize().unwrap().join(format!("images/{name}.qcow2"))
    }

    fn time_passes(&mut self) {
        let most = self.dice.pick(&[20, 200, 7200]).unwrap();
        let seconds = self.dice.below(most).cast_signed();
        self.say(format!("{seconds} s pass"));
        self.lab.world.with(|inner| inner.pass(seconds));
    }

    /// The controller's clock is set; nothing about guests may be read from it.
    fn a_clock_jumps(&mut self) {
        let seconds = self.dice.below(14_401).cast_signed() - 7200;
        self.say(format!("the controller's clock is set {seconds} s off"));
        self.lab.world.with(|inner| inner.controller_ahead = SignedDuration::from_secs(seconds));
    }

    fn somebody_starts_or_stops_a_vm(&mut self) {
        let desired = self.lab.desired();
        let vms: Vec<&VmName> = desired.vms.keys().collect();
        let Some(vm) = self.dice.pick(&vms) else { return };
        let wanted = self.dice.pick(&WISHES).unwrap();
        let kill_in = self.dice.one_in(3).then(|| 1 + self.dice.below(40));
        // Disks of before are looked for on this machine, where no daemon of this world finds any.
        let of_daemon = wanted != Wish::PutBack && !self.lab.store().labs().unwrap().is_empty() && self.dice.one_in(2);
        self.say(format!("somebody wants {vm} {wanted:?} of the daemon: {of_daemon}, killed at {kill_in:?}:"));
        self.lab.world.with(|inner| inner.faults.kill_in = kill_in);
        let applied = if of_daemon { self.lab.ask(vm, wanted) } else { self.lab.power(&desired, vm, wanted) };
        self.tell(&applied);
    }

    fn somebody_freezes_or_thaws(&mut self) {
        let on = self.dice.one_in(3);
        self.say(format!("frozen: {on}"));
        let frozen = Frozen {
            who: "test".into(),
            since: "2027-01-12T08:00:00Z".parse().unwrap(),
            why: "exam".into(),
            scope: FreezeScope::Lab,
        };
        self.freeze(on.then_some(&frozen));
    }

    fn freeze(&self, frozen: Option<&Frozen>) {
        let lab = self.lab.desired().lab;
        self.lab.store().freeze(Some(&lab), frozen).unwrap();
    }

    /// An admin gives a host up that nobody hears of; that it is without power they say only if it is.
    fn a_host_is_forgotten(&mut self) {
        let lost = self.hosts(|host| !host.is_heard);
        let Some(name) = self.dice.pick(&lost) else { return };
        let powered_off = self.lab.world.with(|inner| !inner.hosts[name].has_power);
        let kill_in = self.dice.one_in(3).then(|| 1 + self.dice.below(20));
        self.say(format!("{name} is given up, powered off: {powered_off}, killed at {kill_in:?}:"));
        self.counts.hosts_forgotten += 1;
        self.lab.world.with(|inner| inner.faults.kill_in = kill_in);
        self.lab.lost_host = Some(LostHost { name: name.into(), powered_off });
        let applied = self.lab.forget_host();
        self.lab.lost_host = None;
        self.tell(&applied);
    }

    /// SQLite refuses the writes of an apply from some moment on, as on a full disk or under another program's lock.
    fn an_apply_cannot_write(&mut self) {
        let writes = self.dice.below(12);
        self.say(format!("the state takes {writes} more writes:"));
        let serial = self.lab.recorded(&self.lab.desired()).serial + writes;
        self.lab.alter_state(&format!(
            "CREATE TRIGGER full BEFORE UPDATE OF serial ON labs WHEN NEW.serial > {serial} \
             BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        ));
        let applied = self.lab.apply();
        self.counts.unwritten += u64::from(matches!(applied, Applied::Stopped(_)));
        self.tell(&applied);
        self.lab.alter_state("DROP TRIGGER full");
    }

    /// A plan is kept, the lab moves on, and the plan is applied all the same.
    fn a_plan_grows_old(&mut self) {
        if self.lab.world.with(|inner| inner.faults.queue_down || inner.faults.storage_gone || inner.faults.dhcp_down) {
            return;
        }
        let desired = self.lab.desired();
        let plan = self.lab.plan();
        if plan.is_empty() || !plan.refusals.is_empty() {
            return;
        }
        self.say("a plan is kept");
        let serial = plan.serial;
        self.apply();
        if self.lab.recorded(&desired).serial == serial {
            return;
        }
        match self.lab.carry_out(&plan) {
            Err(labwright::state::StateError::Stale { .. }) => self.say("the kept plan is refused"),
            other => self.fail(&format!("a plan that was made before another apply was carried out: {other:?}")),
        }
    }

    /// While one controller is at work, another one comes; either may be killed.
    fn two_controllers(&mut self) {
        let desired = self.lab.desired();
        let nothing = Desired::nothing(desired.lab.clone());
        let vms: Vec<&VmName> = desired.vms.keys().collect();
        let mut asks = || Some((self.dice.pick(&vms)?, self.dice.pick(&WISHES)?)).filter(|_| self.dice.one_in(2));
        let (ask, other_ask) = (asks(), asks());
        let (calls, destroys) = (1 + self.dice.below(80), self.dice.one_in(8));
        let mut kills = || self.dice.one_in(4).then(|| 1 + self.dice.below(40));
        let (kill, other_kill) = (kills(), kills());
        self.say(format!(
            "one wants {ask:?} and is killed at {kill:?}; at its call {calls} a second one wants {other_ask:?} (all gone: {destroys}) \
             and is killed at {other_kill:?}:"
        ));
        let lab = &self.lab;
        let act = |ask: Option<(&VmName, Wish)>| match ask {
            Some((vm, wish)) => lab.power(&desired, vm, wish),
            None => lab.apply_desired(&desired),
        };
        let (first, second) = crate::rivals::side_by_side(
            lab,
            calls,
            || act(ask),
            || {
                lab.world.with(|inner| inner.faults.kill_in = other_kill);
                let second = if destroys { lab.apply_desired(&nothing) } else { act(other_ask) };
                // From here on it is the first one that it strikes.
                lab.world.with(|inner| inner.faults.kill_in = kill);
                second
            },
        );
        lab.world.with(|inner| inner.faults.kill_in = None);
        for applied in std::iter::once(first).chain(second) {
            self.tell(&applied);
            if let Applied::Stopped(error) = &applied {
                self.fail(&format!("with the lock, nobody is overtaken: {error}"));
            }
        }
    }

    fn destroy(&mut self) {
        self.say("destroy:");
        let applied = self.lab.apply_desired(&Desired::nothing(self.lab.desired().lab));
        self.tell(&applied);
    }

    /// The state is a copy of before these runs, which go on.
    fn the_state_loses_sight_of_runs(&mut self) {
        let recorded = self.lab.recorded(&self.lab.desired());
        let runs = recorded.vms.into_values().filter_map(|vm| vm.run).map(|run| run.run);
        let live: BTreeSet<RunId> = self.lab.world.with(|inner| {
            let on_host = |task: &&SimTask| matches!(task.state, TaskState::Running | TaskState::Unknown);
            inner.tasks.values().filter(on_host).map(|task| task.run.clone()).collect()
        });
        for run in runs.filter(|run| live.contains(run)).collect::<Vec<_>>() {
            if self.dice.one_in(2) {
                self.say(format!("the state loses sight of {run}"));
                self.counts.runs_lost += 1;
                self.lab.alter_state(&format!(
                    "UPDATE vms SET run = NULL, generation = generation - 1 WHERE run = '{run}'; \
                     DELETE FROM runs WHERE run = '{run}'"
                ));
                self.lab.world.with(|inner| inner.unrecorded.insert(run));
            }
        }
    }

    fn somebody_imports_a_job(&mut self) {
        for run in self.unrecorded_jobs() {
            self.import(&run);
        }
    }

    /// Runs in the queue that the state lost sight of.
    fn unrecorded_jobs(&self) -> Vec<RunId> {
        let of_tasks = |inner: &mut Inner| {
            let runs = inner.tasks.values().map(|task| task.run.clone());
            runs.filter(|run| inner.unrecorded.contains(run)).collect()
        };
        self.lab.world.with(of_tasks)
    }

    /// Has a job taken over by the vm that it runs; answers whether it was.
    fn import(&mut self, run: &RunId) -> bool {
        if self.lab.world.with(|inner| inner.faults.queue_down || inner.faults.storage_gone || inner.faults.dhcp_down) {
            return false;
        }
        let job = self.lab.job_of(run);
        let vm = self.lab.world.with(|inner| inner.runs[run].spec.vm.clone());
        let imported = self.lab.import(vm.as_str(), &job);
        self.say(format!("import of {run} as {vm}: {imported:?}"));
        if imported.is_ok() {
            self.lab.world.with(|inner| inner.unrecorded.remove(run));
        }
        imported.is_ok()
    }

    /// What holds at every moment.
    pub(crate) fn check(&mut self) {
        let broken = self.lab.world.with(|inner| self.watched.broken(inner));
        if let Some(promise) = broken {
            self.fail(&promise);
        }
    }

    pub(crate) fn fail(&self, what: &str) -> ! {
        let tail = crate::terms::number_from("LABWRIGHT_SIMULATION_TAIL", 40) as usize;
        let story: Vec<&str> = self.story[self.story.len().saturating_sub(tail)..].iter().map(String::as_str).collect();
        panic!(
            "seed {}: {what}\nthe last steps:\n  {}\nreplay: tests/run simulation --steps 1 --seed {0}",
            self.seed,
            story.join("\n  ")
        );
    }

    /// Everything works again, hosts are back, guests react, clocks are right, nobody waits for an exam to end.
    pub(crate) fn mend(&mut self) {
        self.say("mended");
        self.freeze(None);
        self.lab.allow = ALL_GUARDS.map(|pattern| pattern.parse::<AddressPattern>().unwrap()).to_vec();
        self.lab.world.with(|inner| {
            inner.faults = Faults::default();
            inner.controller_ahead = SignedDuration::ZERO;
            for task in inner.tasks.values_mut() {
                task.hidden_for = 0;
            }
            for run in inner.runs.values_mut() {
                (run.hung, run.heart_stopped) = (false, false);
            }
            HOSTS
                .into_iter()
                .filter(|name| inner.hosts.contains_key(name))
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|name| inner.bring_back(name));
            // Starters of jobs that the queue has forgotten are silent for long enough to be taken for over.
            inner.pass(100);
        });
        // Each job that no record knows is taken over, or an admin ends it.
        for run in self.unrecorded_jobs() {
            if !self.import(&run) {
                self.lab.world.with(|inner| inner.end_run(&run, StopReason::Asked));
            }
        }
        self.check();
        self.finish_undos();
    }

    /// Who asked for disks of before, and was cut short, asks again.
    fn finish_undos(&mut self) {
        let (applied, recorded) = self.lab.applied();
        let returning = |sets: &[AsideSet]| sets.iter().any(AsideSet::is_returning);
        let cut_short = recorded.aside.iter().filter(|(vm, sets)| recorded.vms.contains_key(*vm) && returning(sets));
        for (vm, _) in cut_short {
            let done = self.lab.power(&applied, vm, Wish::PutBack);
            self.tell(&done);
            self.check();
        }
    }

    pub(crate) fn come_to_rest(&mut self) {
        for _ in 0..2 {
            let applied = self.lab.apply();
            self.tell(&applied);
            self.check();
            self.lab.world.with(Inner::start_all);
            self.check();
        }
        let plan = self.lab.plan();
        if !plan.is_empty() || !plan.refusals.is_empty() {
            self.fail(&format!("no rest after two applies:\n{}", self.lab.plan_text()));
        }
        if !self.lab.upkeep().is_empty() {
            self.fail("the loop finds something to do in a lab that is at rest");
        }
        if let Some(promise) = self.watched.broken_at_rest(&self.lab) {
            self.fail(&promise);
        }
    }
}
