//! Random exams on a virtual clock: people move times, machines and controllers die, storage goes away, clocks are put forward and
//! back. What each one's end is, a sum of its own says here, and:
//!
//! ```text
//! nobody's guest ends before their time         nobody works after it, beyond the grace
//! everybody's guest runs in their time, from the start on, a few minutes after the last fault
//! no vm runs twice
//! ```

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use labwright::model::accommodation::{Accommodated, Accommodation};
use labwright::model::claim::{AccommodatedBy, AccommodationClaim, ClaimBody, TimeChange, TimeClaim};
use labwright::model::id::{SessionName, UserName};
use labwright::model::site::Site;
use labwright::plan::times_of;
use labwright::resolve::with_claims;
use labwright::run::{Event, Runs as _, StopReason};
use labwright::state::Change;

use crate::dice::Dice;
use crate::lab::{Applied, Lab};
use crate::terms::{number_from, silence_kills};
use crate::world::Guest;

/// Between two looks of starters at storage more time means an outage to them.
const STEP: i64 = 5;
/// Between two rounds of the loop.
const ROUND: i64 = 60;
/// After a fault, this is what starts, ends and what was told take.
const SETTLES: i64 = 360;
const GRACE: i64 = 120;
/// Mornings on which clocks are put forward, back, and stay.
const DAYS: [&str; 3] = ["2027-03-28T00:00:00Z", "2027-10-31T00:00:00Z", "2027-01-12T08:00:00Z"];
const ZONE: &str = "Europe/Bucharest";

/// One who sits it, by our own reckoning.
#[derive(Debug, Clone)]
struct Sits {
    /// Before this second nobody knew of them.
    since: i64,
    /// How long their time is.
    length: i64,
    /// What was added, pauses too.
    added: i64,
    /// Since when their clock stands still.
    paused: Option<i64>,
    /// When their end was moved last.
    moved: i64,
}

struct Exam {
    seed: u64,
    dice: Dice,
    lab: Lab,
    start: i64,
    length: i64,
    sits: BTreeMap<String, Sits>,
    /// When something last went wrong.
    fault: i64,
    away_until: i64,
    /// Runs whose end was judged.
    judged: BTreeSet<String>,
    story: Vec<String>,
    acts: u64,
}

fn session() -> SessionName {
    "final".parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Exam {
    /// An exam that begins so many minutes after a midnight at which clocks may change soon.
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let lab = Lab::new("lab: exam\n");
        let folder = lab.folder.path().canonicalize().unwrap();
        let mut lab = lab;
        lab.site = Site::embedded(&folder, 64 * 1024, 64);
        let now: Timestamp = dice.pick(&DAYS).unwrap().parse().unwrap();
        lab.world.with(|inner| inner.now = now);
        let length = 60 * (10 + i64::try_from(dice.below(25)).unwrap());
        let start = now.as_second() + 60 * (15 + i64::try_from(dice.below(40)).unwrap());
        let since = now.as_second();
        let sits = Sits { since, length, added: 0, paused: None, moved: since };
        let names = (0..3 + dice.below(3)).map(|number| (format!("s{number}"), sits.clone()));
        let (sits, story, judged) = (names.collect(), Vec::new(), BTreeSet::new());
        Self { seed, dice, lab, start, length, sits, fault: 0, away_until: 0, judged, story, acts: 0 }
    }

    fn now(&self) -> i64 {
        self.lab.world.with(|inner| inner.now.as_second())
    }

    fn end(&self, sits: &Sits, now: i64) -> Option<i64> {
        match sits.paused {
            Some(_) => None,
            None => Some(self.start + sits.length + sits.added).filter(|_| now >= sits.since),
        }
    }

    /// The start as a teacher writes it: by the clock on the wall.
    fn manifest(&self) -> String {
        let zone = TimeZone::get(ZONE).unwrap();
        let wall = zone.to_datetime(at(self.start)).strftime("%FT%T").to_string();
        let offset = zone.to_offset(at(self.start));
        let members: Vec<&str> = self.sits.keys().map(String::as_str).collect();
        format!(
            "lab: exam\nusers: {{ badmin: {{}} }}\nuser_groups: {{ all: {{ members: [{}] }} }}\n\
             vm_groups: {{ lab1: {{ ip_range: 192.168.100.2-192.168.100.30, gateway: 192.168.100.1, bridge: vbr0 }} }}\n\
             templates: {{ gsr: {{ owner: badmin, vm_group: lab1, disks: [{{ image: images/gsr.qcow2 }}], memory: 512M }} }}\n\
             vms: {{ desk: {{ derive: gsr, for_each: all }} }}\n\
             sessions: {{ final: {{ kind: exam, vms: [desk], boot_before: 10m, start: \"{wall}{offset}[{ZONE}]\", \
             duration: {}s }} }}\n",
            members.join(", "),
            self.length
        )
    }

    fn apply(&mut self) {
        self.lab.edit(&self.manifest());
        let applied = self.lab.apply();
        self.note(&format!("apply: {}", matches!(applied, Applied::Done(_))));
    }

    fn note(&mut self, what: &str) {
        let now = self.now();
        self.story.push(format!("{:>5} {what}", now - self.start));
    }

    fn run(&mut self) {
        self.apply();
        let mut rounds = 0;
        let last = self.start + 2 * self.length + 6 * 3600;
        while self.now() < last && !self.is_over() {
            self.lab.world.with(|inner| inner.pass(STEP));
            let now = self.now();
            self.happen(now);
            if now - rounds >= ROUND {
                rounds = now;
                self.round();
            }
            self.lab.world.with(|inner| inner.start_all());
            self.judge(now);
        }
        assert!(self.is_over(), "{}", self.told("it never ends"));
    }

    fn is_over(&self) -> bool {
        let now = self.now();
        if now < self.start + 3 * self.length / 2 {
            return false;
        }
        let is_over = |sits: &Sits| self.end(sits, now).is_some_and(|end| now > end + GRACE + SETTLES);
        self.sits.values().all(is_over)
    }

    /// One round of the loop, which may die in the middle; the next one is another process.
    fn round(&mut self) {
        let kill = self.dice.one_in(8).then(|| self.dice.below(40));
        self.lab.world.with(|inner| inner.faults.kill_in = kill);
        if matches!(self.lab.keep(), Applied::Killed) {
            let now = self.now();
            self.fault = now;
            self.note("the loop is killed");
        }
        self.lab.world.with(|inner| (inner.faults.kill_in, inner.faults.killed) = (None, false));
    }

    /// What people do, and what breaks.
    fn happen(&mut self, now: i64) {
        if self.away_until > 0 && now >= self.away_until {
            self.away_until = 0;
            self.fault = now;
            self.lab.world.with(|inner| inner.faults.storage_gone = false);
            self.note("storage is back");
        }
        let is_away = self.away_until > 0;
        if is_away {
            self.fault = now;
        }
        let name = self.dice.pick(&self.sits.keys().cloned().collect::<Vec<_>>()).unwrap();
        let goes_on = now < self.start + 3 * self.length / 2;
        match self.dice.below(900) {
            0..8 if goes_on => self.extend(now, Some(name)),
            8..11 if goes_on => self.extend(now, None),
            11..15 => self.pause_or_resume(now, &name),
            15..18 if goes_on => self.accommodate(now, &name),
            18..21 if !is_away => {
                self.away_until = now + 15 + i64::try_from(self.dice.below(200)).unwrap();
                self.lab.world.with(|inner| inner.faults.storage_gone = true);
                self.note("storage is away");
            }
            21..25 => self.crash(now, &name),
            25..28 => {
                let ahead = jiff::SignedDuration::from_secs(i64::try_from(self.dice.below(20)).unwrap() - 10);
                self.lab.world.with(|inner| inner.controller_ahead = ahead);
            }
            28..30 if !is_away && now < self.start => self.register(now),
            _ => {}
        }
    }

    fn extend(&mut self, now: i64, whose: Option<String>) {
        let seconds = 60 + i64::try_from(self.dice.below(600)).unwrap();
        let meant = |name: &String| whose.as_ref().is_none_or(|one| one == name);
        for (_, sits) in self.sits.iter_mut().filter(|(name, _)| meant(name)) {
            (sits.added, sits.moved) = (sits.added + seconds, now);
        }
        self.act(TimeChange::Extend { seconds }, whose);
    }

    /// While people work: a pause that lies elsewhere counts for nobody, which is for others to test.
    fn pause_or_resume(&mut self, now: i64, name: &str) {
        let sits = self.sits[name].clone();
        match sits.paused {
            Some(from) if now > from => {
                let ended = format!(
                    "UPDATE claims SET ended_at = at, ended = 'it goes on' WHERE kind = 'time' AND ended_at IS NULL
                     AND json_extract(body, '$.user') = '{name}' AND json_extract(body, '$.change.pause.from') IS NOT NULL
                     AND json_extract(body, '$.change.pause.until') IS NULL"
                );
                self.lab.alter_state(&ended);
                let sits = self.sits.get_mut(name).unwrap();
                (sits.paused, sits.added, sits.moved) = (None, sits.added + now - from, now);
                let change = TimeChange::Pause { from: at(from), until: Some(at(now)) };
                self.act(change, Some(name.to_owned()));
            }
            None if now > self.start
                && now < self.start + self.length
                && self.end(&sits, now).is_some_and(|end| now < end - 60) =>
            {
                let sits = self.sits.get_mut(name).unwrap();
                (sits.paused, sits.moved) = (Some(now), now);
                self.act(TimeChange::Pause { from: at(now), until: None }, Some(name.to_owned()));
            }
            _ => {}
        }
    }

    fn accommodate(&mut self, now: i64, name: &str) {
        let factor = 1100 + 100 * u32::try_from(self.dice.below(9)).unwrap();
        let sits = self.sits.get_mut(name).unwrap();
        let length = self.length * i64::from(factor) / 1000;
        // Nobody's need becomes smaller here: that would be an end that is moved ahead.
        if length <= sits.length {
            return;
        }
        (sits.length, sits.moved) = (length, now);
        let of = Accommodation { factor_permille: Some(factor), ..Accommodation::default() };
        let people = Accommodated::from([(name.parse::<UserName>().unwrap(), of)]);
        let (version, by) = (ClaimBody::VERSION, AccommodatedBy::Command);
        let body = AccommodationClaim { version, session: session(), by, people };
        self.claim(ClaimBody::Accommodation(body), &format!("{name} needs {factor}"));
    }

    fn act(&mut self, change: TimeChange, whose: Option<String>) {
        let what = format!("{change:?} {whose:?}");
        let user = whose.map(|name| name.parse().unwrap());
        self.claim(ClaimBody::Time(TimeClaim::new(session(), user, change, None)), &what);
    }

    /// As the command does it: it is written down, and guests that run are told, where storage is there.
    fn claim(&mut self, body: ClaimBody, what: &str) {
        self.acts += 1;
        self.note(what);
        let put = Change::PutClaim { name: "final".into(), body, by: "ana".into() };
        let lab = &self.lab;
        let (applied, _) = lab.applied();
        lab.store().record(&applied.lab, &[put], at(self.now())).unwrap();
        let (applied, recorded) = lab.applied();
        let desired = with_claims(&applied, &recorded.claims);
        for (vm, known) in &recorded.vms {
            let run = known.run.as_ref().filter(|run| !run.is_over());
            let times = times_of(&desired, vm, &known.vm.owner, at(self.now()));
            if let (Some(run), Some(times)) = (run, times) {
                // What cannot be told now, the loop tells.
                drop(lab.world.tell(&run.run, &times.clock(&known.vm.owner), None));
            }
        }
    }

    fn crash(&mut self, now: i64, name: &str) {
        let vm = format!("{name}-final");
        let run = self.lab.world.with(|inner| {
            inner
                .runs
                .iter()
                .find(|(_, sim)| sim.spec.vm.as_str() == vm && sim.guest != Guest::None)
                .map(|(run, _)| run.clone())
        });
        if let Some(run) = run {
            self.fault = now;
            self.lab.world.with(|inner| inner.end_run(&run, StopReason::Crashed));
            self.note(&format!("{name}'s guest dies"));
        }
    }

    fn register(&mut self, now: i64) {
        let name = format!("s{}", self.sits.len());
        let added = self.everybodys();
        let sits = Sits { since: now, length: self.length, added, paused: None, moved: now };
        self.sits.insert(name, sits);
        self.fault = now;
        self.apply();
    }

    /// What all were given counts for who comes later, too.
    fn everybodys(&self) -> i64 {
        let (_, recorded) = self.lab.applied();
        let of_all = recorded.claims.iter().filter_map(|claim| match &claim.body {
            ClaimBody::Time(TimeClaim { user: None, change: TimeChange::Extend { seconds }, .. }) => Some(*seconds),
            _ => None,
        });
        of_all.sum()
    }

    fn judge(&mut self, now: i64) {
        self.no_vm_runs_twice();
        self.nobody_ends_early(now);
        let calm = self.away_until == 0 && now - self.fault > SETTLES;
        for (name, sits) in &self.sits {
            let vm = format!("{name}-final");
            let executes = self.lab.world.with(|inner| inner.executing().any(|(_, spec)| spec.vm.as_str() == vm));
            let settled = calm && now - sits.moved > SETTLES && now - sits.since > SETTLES;
            let Some(end) = self.end(sits, now) else {
                assert!(!executes || !settled, "{}", self.told(&format!("{name} works in a pause")));
                continue;
            };
            if settled && now >= self.start && now < end {
                assert!(
                    executes,
                    "{}",
                    self.told(&format!("{name} has no guest in their time, which ends {}", end - self.start))
                );
            }
            if settled && now > end + GRACE + SETTLES {
                assert!(!executes, "{}", self.told(&format!("{name} works after their end, {}", end - self.start)));
            }
        }
    }

    fn no_vm_runs_twice(&self) {
        let (broken, vms) = self.lab.world.with(|inner| {
            let vms: Vec<String> = inner.executing().map(|(_, spec)| spec.vm.to_string()).collect();
            (inner.broken.clone(), vms)
        });
        assert_eq!(broken, None, "{}", self.told("a promise broke"));
        let once: BTreeSet<&String> = vms.iter().collect();
        assert_eq!(once.len(), vms.len(), "{}", self.told("a vm runs twice"));
    }

    /// Each run that its starter ended by the clock is looked at once, when it has ended.
    fn nobody_ends_early(&mut self, now: i64) {
        let judged = &self.judged;
        let ended: Vec<(String, String, bool)> = self.lab.world.with(|inner| {
            let news =
                inner.runs.iter().filter(|(run, sim)| sim.guest == Guest::None && !judged.contains(&run.to_string()));
            let ended = news.filter_map(|(run, sim)| {
                let by_time = sim.records().iter().find_map(|record| match &record.event {
                    Event::Stopped { reason, .. } => Some(*reason == StopReason::Deadline),
                    _ => None,
                })?;
                Some((run.to_string(), sim.spec.owner.to_string(), by_time))
            });
            ended.collect()
        });
        for (run, owner, by_time) in ended {
            self.judged.insert(run);
            let sits = &self.sits[&owner];
            let end = self.end(sits, now);
            // An act and an end in the same moment are nobody's fault.
            let is_late = end.is_some_and(|end| end <= now) || now - sits.moved <= STEP;
            assert!(!by_time || is_late, "{}", self.told(&format!("{owner} is ended early: {end:?}")));
        }
    }

    fn told(&self, what: &str) -> String {
        let seed = self.seed;
        format!("exam {seed}: {what}; now {}\n{}", self.now() - self.start, self.story.join("\n"))
    }
}

#[test]
fn random_exams_keep_everybodys_time() {
    silence_kills();
    let first = number_from("LABWRIGHT_SIMULATION_SEED", 1);
    let exams = number_from("LABWRIGHT_SIMULATION_EXAMS", 6);
    let next = std::sync::atomic::AtomicU64::new(first);
    let acts = std::sync::atomic::AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= first + exams {
                return;
            }
            let mut exam = Exam::new(seed);
            exam.run();
            acts.fetch_add(exam.acts, std::sync::atomic::Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                next.store(first + exams, std::sync::atomic::Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
    });
    let acts = acts.into_inner();
    assert!(acts > 2 * exams, "exams in which nobody's time is moved prove little: {acts} acts");
}
