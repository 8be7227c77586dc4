//! Hosts, and the starters and guests on them. A starter decides by the product's own machine; what is of this world is the
//! thread that writes and reads storage, and a qemu that does what it is told.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use labwright::model::job::{TaskId, TaskState};
use labwright::run::{Control, Event, Record, RunSpec, StopReason, parse_report};
use labwright::starter::machine::{self, Act, Command, Input, Machine, Seen};

use super::{Inner, SimTask};
use labwright::model::id::RunId;

/// One execution host.
#[derive(Debug, Clone)]
pub(crate) struct SimHost {
    pub(crate) has_power: bool,
    /// The scheduler hears of it.
    pub(crate) is_heard: bool,
    pub(crate) has_storage: bool,
    /// Its clock minus the world's time.
    pub(crate) ahead: SignedDuration,
}

impl Default for SimHost {
    fn default() -> Self {
        Self { has_power: true, is_heard: true, has_storage: true, ahead: SignedDuration::ZERO }
    }
}

/// What a starter has of its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guest {
    /// There is no starter: not yet, or not any more.
    None,
    Executing,
    /// It stands still.
    Suspended,
}

/// A run's folder, and its starter where there is one.
pub(crate) struct SimRun {
    pub(crate) spec: RunSpec,
    pub(crate) control: Control,
    /// The bytes of `report.jsonl`; `None` until a starter makes the file.
    pub(crate) report: Option<Vec<u8>>,
    /// Where its last line begins, if that is a heartbeat.
    last_heartbeat: Option<usize>,
    /// Records that wait for storage.
    unwritten: Vec<Record>,
    pub(super) host: &'static str,
    pub(crate) guest: Guest,
    /// What its starter decides by, and what that is told next.
    machine: Option<Machine>,
    told: Vec<Input>,
    /// When its starter last wrote, in the world's time.
    pub(super) last_write: Timestamp,
    /// Disks that its guest has open.
    open: Vec<u64>,
    /// Guest hangs: it does not react to being asked.
    pub(crate) hung: bool,
    /// Its starter's writes hang, although storage works for everybody else.
    pub(crate) heart_stopped: bool,
}

impl SimRun {
    pub(super) fn new(spec: RunSpec, control: Control) -> Self {
        Self {
            spec,
            control,
            report: None,
            last_heartbeat: None,
            unwritten: Vec::new(),
            host: "h1",
            guest: Guest::None,
            machine: None,
            told: Vec::new(),
            last_write: Timestamp::UNIX_EPOCH,
            open: Vec::new(),
            hung: false,
            heart_stopped: false,
        }
    }

    /// What its starter has written.
    pub(crate) fn records(&self) -> Vec<Record> {
        let text = self.report.as_deref().unwrap_or_default();
        parse_report(text, Path::new("report.jsonl")).expect("a starter writes whole lines")
    }

    /// A heartbeat goes over the one before it.
    fn write(&mut self, record: &Record) {
        let report = self.report.get_or_insert_default();
        if let Some(at) = self.last_heartbeat.take_if(|_| record.event == Event::Heartbeat) {
            report.truncate(at);
        }
        self.last_heartbeat = (record.event == Event::Heartbeat).then_some(report.len());
        serde_json::to_writer(&mut *report, record).unwrap();
        report.push(b'\n');
    }
}

impl Inner {
    /// Time passes, and every starter does what it does once a second.
    pub(crate) fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        // A queue that shows a job late shows it within a minute: nobody has forgotten the job's run by then.
        if seconds >= 60 {
            self.tasks.values_mut().for_each(|task| task.hidden_for = 0);
        }
        self.starters_act();
    }

    fn reaches_storage(&self, run: &RunId) -> bool {
        let sim = &self.runs[run];
        self.hosts[sim.host].has_storage && !self.faults.storage_gone && !sim.heart_stopped
    }

    fn say(&mut self, run: &RunId, event: Event) {
        let reaches = self.reaches_storage(run);
        let (now, sim) = (self.now, self.runs.get_mut(run).expect("a run that speaks exists"));
        let at = now + self.hosts[sim.host].ahead;
        let is_first = sim.report.as_ref().is_none_or(Vec::is_empty) && sim.unwritten.is_empty();
        let obeys =
            is_first.then(|| self.faults.obeyed.unwrap_or(&machine::OBEYS).iter().map(ToString::to_string).collect());
        let record = Record { version: None, obeys, run: run.clone(), generation: sim.spec.generation, at, event };
        if reaches {
            sim.write(&record);
            sim.last_write = now;
        } else if record.event != Event::Heartbeat {
            sim.unwritten.push(record);
        }
    }

    /// A waiting task begins on the first host that takes it.
    pub(crate) fn start_task(&mut self, id: TaskId) {
        let able = self.hosts.iter().find(|(_, host)| host.has_power && host.is_heard).map(|(name, _)| *name);
        if let Some(host) = able {
            self.start_task_on(id, host);
        }
    }

    /// A waiting task begins: its starter reads spec and control, and refuses what is over.
    pub(crate) fn start_task_on(&mut self, id: TaskId, host: &'static str) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| matches!(task.state, TaskState::Pending { .. })) else {
            return;
        };
        task.state = TaskState::Running;
        task.host = Some(host);
        let run = task.run.clone();
        self.start_run(&run, host);
    }

    fn start_run(&mut self, run: &RunId, host: &'static str) {
        let has_storage = self.hosts[host].has_storage && !self.faults.storage_gone;
        let sim = self.runs.get_mut(run).expect("a submitted run has its folder");
        if !has_storage || sim.report.is_some() {
            // It cannot read what to do, or another starter carries the run out: either way it has nothing to say.
            self.tasks.retain(|_, task| task.run != *run || task.host != Some(host));
            return;
        }
        sim.report = Some(Vec::new());
        sim.host = host;
        sim.last_write = self.now;
        if let Some(reason) = machine::over(&sim.spec, &sim.control) {
            return self.end_run(run, reason);
        }
        let spec = sim.spec.clone();
        if let Some(lost) = spec.disks.iter().find(|disk| !self.disks.contains_key(&disk.path)) {
            let message = format!("the disk {} does not exist", lost.path.display());
            return self.end_run(run, StopReason::Failed { message });
        }
        self.say(run, Event::Prepared { host: host.into() });
        self.say(run, Event::Networked { tap: run.tap(), gateway: None });
        let now = self.uptime();
        let sim = self.runs.get_mut(run).expect("it starts");
        sim.guest = Guest::Suspended;
        sim.machine = Some(Machine::new(&spec, sim.control.clone(), now));
        self.decide(run);
    }

    fn running(&self, run: &RunId) -> Event {
        let sim = &self.runs[run];
        let network = &sim.spec.network;
        Event::Running {
            host: sim.host.into(),
            pid: 1000,
            tap: run.tap(),
            vnc: "127.0.0.1:5900".into(),
            ip: network.ip,
            mac: network.mac,
            isolated: network.isolated,
            accel: "tcg".into(),
            clock_offset_ms: i64::try_from(self.hosts[sim.host].ahead.as_millis()).unwrap(),
            unbounded: None,
        }
    }

    /// The world's time as a starter counts it.
    fn uptime(&self) -> Duration {
        self.now.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs()
    }

    /// The guest's first instruction. Nobody else may write where it writes from now on.
    fn open_disks(&mut self, run: &RunId, spec: &RunSpec) {
        let mut open = Vec::new();
        for disk in &spec.disks {
            if let Some(base) = disk.backing.iter().find(|base| !self.disks.contains_key(*base)) {
                self.break_promise(format!("{run} starts over {}, which is not there", base.display()));
            }
            let disk = self.disks.get_mut(&disk.path).expect("looked at before");
            disk.work_of = Some(spec.vm.clone());
            disk.last_run = Some(run.clone());
            open.push(disk.id);
        }
        let other = self.runs.iter().find(|(other, sim)| {
            *other != run && sim.guest == Guest::Executing && sim.open.iter().any(|disk| open.contains(disk))
        });
        if let Some((other, _)) = other {
            let how = format!("{run} starts on a disk that {other} has open");
            self.break_promise(how);
        }
        let sim = self.runs.get_mut(run).expect("it starts");
        sim.open = open;
    }

    /// Whether a guest that executes has this disk open.
    pub(super) fn open_by(&self, disk: u64) -> Option<&RunId> {
        self.runs.iter().find(|(_, sim)| sim.guest == Guest::Executing && sim.open.contains(&disk)).map(|(run, _)| run)
    }

    pub(crate) fn start_all(&mut self) {
        let waiting: Vec<TaskId> = self.tasks.keys().copied().collect();
        waiting.into_iter().for_each(|id| self.start_task(id));
    }

    /// The starter says its last word and its task leaves the queue.
    pub(crate) fn end_run(&mut self, run: &RunId, reason: StopReason) {
        self.say(run, Event::Stopped { reason, exit: None });
        self.kill_run(run);
    }

    /// The starter dies without a word, and its guest with it. The queue sees it where it hears of the host.
    pub(crate) fn kill_run(&mut self, run: &RunId) {
        let sim = self.runs.get_mut(run).expect("it has a folder");
        sim.guest = Guest::None;
        sim.machine = None;
        sim.unwritten.clear();
        sim.told.clear();
        let is_heard = self.hosts[sim.host].is_heard;
        self.tasks.retain(|_, task| task.run != *run || (!is_heard && task.state == TaskState::Unknown));
    }

    /// Starters with a guest.
    fn starters(&self) -> Vec<RunId> {
        self.runs.iter().filter(|(_, sim)| sim.guest != Guest::None).map(|(run, _)| run.clone()).collect()
    }

    pub(crate) fn starters_act(&mut self) {
        for run in self.starters() {
            self.starter_acts(&run);
        }
    }

    /// What the thread for storage does once a second, then what the machine decides.
    fn starter_acts(&mut self, run: &RunId) {
        let (reaches, now) = (self.reaches_storage(run), self.now);
        let sim = self.runs.get_mut(run).expect("it lives");
        if reaches {
            let silent = now.duration_since(sim.last_write).as_secs();
            let unwritten = std::mem::take(&mut sim.unwritten);
            if !unwritten.is_empty() {
                sim.last_write = now;
            }
            unwritten.iter().for_each(|record| sim.write(record));
            if silent >= sim.spec.timing.heartbeat_seconds.cast_signed() {
                self.say(run, Event::Heartbeat);
            }
            let looked = self.uptime();
            let sim = self.runs.get_mut(run).expect("it lives");
            sim.told.push(Input::Control { control: Box::new(sim.control.clone()), looked });
        }
        self.decide(run);
    }

    /// The scheduler's signal, as its job gets it.
    pub(super) fn signal(&mut self, run: &RunId) {
        self.runs.get_mut(run).expect("it has a folder").told.push(Input::Stop);
        self.decide(run);
    }

    fn decide(&mut self, run: &RunId) {
        loop {
            let now = self.uptime();
            let sim = self.runs.get_mut(run).expect("it has a folder");
            let written = sim.last_write.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs();
            let seen = Seen { told: std::mem::take(&mut sim.told), written, unanswered: None, server: self.now };
            let Some(machine) = &mut sim.machine else { return };
            let acts = machine.step(seen, now);
            acts.into_iter().for_each(|act| self.carry_out(run, act));
            if self.runs[run].told.is_empty() {
                return;
            }
        }
    }

    fn carry_out(&mut self, run: &RunId, act: Act) {
        if self.runs[run].machine.is_none() {
            return;
        }
        let told = match act {
            Act::TakeSlot => vec![Input::Slot],
            Act::Tell(Command::Cont) => {
                self.execute(run);
                vec![Input::Moves]
            }
            Act::Tell(Command::Stop) => {
                self.runs.get_mut(run).expect("it lives").guest = Guest::Suspended;
                vec![Input::Stands]
            }
            Act::Tell(Command::Reset) => Vec::new(),
            Act::Tell(Command::PowerButton | Command::Quit) if self.runs[run].hung => Vec::new(),
            Act::Tell(Command::PowerButton | Command::Quit) | Act::Kill => {
                vec![Input::Ended { exit: "exit 0".into(), last_words: String::new() }]
            }
            Act::ReportRunning => {
                self.say(run, self.running(run));
                vec![Input::Address]
            }
            Act::Report(event) => {
                if matches!(event, Event::Off { .. }) {
                    let sim = self.runs.get_mut(run).expect("it lives");
                    (sim.guest, sim.open) = (Guest::Suspended, Vec::new());
                }
                self.say(run, event);
                Vec::new()
            }
            Act::Restart { disks } => {
                if let Some(lost) = disks.iter().find(|disk| !self.disks.contains_key(&disk.path)) {
                    let message = format!("qemu cannot open {}", lost.path.display());
                    return self.end_run(run, StopReason::Broken { message });
                }
                self.runs.get_mut(run).expect("it lives").spec.disks = disks;
                Vec::new()
            }
            Act::End(end) => return self.end_run(run, end.reason),
            Act::Ping | Act::GiveSlotBack | Act::Warn(_) | Act::Carry(_) | Act::Answer(..) => Vec::new(),
        };
        self.runs.get_mut(run).expect("it lives").told.extend(told);
    }

    fn execute(&mut self, run: &RunId) {
        let sim = &self.runs[run];
        if sim.open.is_empty() {
            let spec = sim.spec.clone();
            self.open_disks(run, &spec);
            self.runs.get_mut(run).expect("it starts").guest = Guest::Executing;
        } else {
            self.resume(run);
        }
    }

    /// A guest goes on where nobody else has written since.
    fn resume(&mut self, run: &RunId) {
        let sim = self.runs.get_mut(run).expect("it lives");
        sim.guest = Guest::Executing;
        let open = sim.open.clone();
        let other = self.disks.values().find(|disk| open.contains(&disk.id) && disk.last_run.as_ref() != Some(run));
        if let Some(disk) = other {
            let how = format!("{run} goes on, although {:?} has written on its disk since", disk.last_run);
            self.break_promise(how);
        }
    }

    /// Neither the scheduler nor storage is reached from these hosts any more; what runs there goes on, or not.
    pub(crate) fn cut_off(&mut self, name: &str) {
        let host = self.hosts.get_mut(name).expect("a host of this world");
        (host.is_heard, host.has_storage) = (false, false);
        self.forget_to_hear(name);
    }

    fn forget_to_hear(&mut self, name: &str) {
        for task in self.tasks.values_mut().filter(|task| task.host == Some(name)) {
            task.state = TaskState::Unknown;
        }
    }

    /// Everything on it is gone at once, and nobody is told.
    pub(crate) fn power_off(&mut self, name: &str) {
        self.cut_off(name);
        self.hosts.get_mut(name).expect("it was cut off").has_power = false;
        for run in self.starters() {
            if self.runs[&run].host == name {
                self.kill_run(&run);
            }
        }
    }

    /// An impatient admin strikes a job on a host that nobody hears of from the queue; its starter lives on.
    pub(crate) fn forget_a_task_of(&mut self, name: &str) {
        let is_lost = |task: &SimTask| task.host == Some(name) && task.state == TaskState::Unknown;
        let lost = self.tasks.iter().find(|(_, task)| is_lost(task) && !self.unrecorded.contains(&task.run));
        if let Some(id) = lost.map(|(id, _)| *id) {
            self.tasks.remove(&id);
            self.asked_to_go.remove(&id);
        }
    }

    /// The scheduler begins a job of a host that it does not hear of once more, on `name`.
    pub(crate) fn begin_a_task_again(&mut self, name: &'static str) {
        let able = self.hosts[name].has_power && self.hosts[name].is_heard;
        let is_lost = |task: &SimTask| able && task.state == TaskState::Unknown;
        let lost = self.tasks.iter().find(|(_, task)| is_lost(task) && !self.unrecorded.contains(&task.run));
        if let Some((id, run)) = lost.map(|(id, task)| (*id, task.run.clone())) {
            let task = self.tasks.get_mut(&id).expect("just found");
            (task.state, task.host) = (TaskState::Running, Some(name));
            self.start_run(&run, name);
        }
    }

    /// The host is back: its starters read what was wanted of them meanwhile, and the scheduler tells what became of its
    /// tasks and kills those that it was to kill.
    pub(crate) fn bring_back(&mut self, name: &str) {
        *self.hosts.get_mut(name).expect("a host of this world") =
            SimHost { ahead: self.hosts[name].ahead, ..SimHost::default() };
        self.starters_act();
        let on_it: Vec<(TaskId, RunId)> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.host == Some(name))
            .map(|(id, task)| (*id, task.run.clone()))
            .collect();
        for (id, run) in on_it {
            let sim = &self.runs[&run];
            if sim.guest == Guest::None || sim.host != name {
                self.tasks.remove(&id);
            } else {
                self.tasks.get_mut(&id).expect("just listed").state = TaskState::Running;
                if self.asked_to_go.remove(&id) {
                    self.signal(&run);
                }
            }
        }
        // The scheduler tells a host to end what it does not know of.
        for run in self.starters() {
            if self.runs[&run].host == name && self.tasks.values().all(|task| task.run != run) {
                self.kill_run(&run);
            }
        }
    }

    /// The host of all tasks that run stops answering.
    pub(crate) fn lose_host(&mut self) {
        self.cut_off("h1");
    }

    pub(crate) fn host_returns(&mut self) {
        self.bring_back("h1");
    }
}
