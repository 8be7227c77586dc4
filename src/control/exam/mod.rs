//! A trial with a real guest of the lab, of this host or, through the batch system, of
//! every one. For each template that vms are made from, a guest of its own boots on scratch disks, under a free address and a
//! run number that no record gives out. In: the lab, what is recorded. Out: lines of the page. Never: a change of a vm's
//! record, disks, reservation or run; and whatever a trial made is taken away at its end, also when it fails or is
//! interrupted. What a killed one leaves is bounded: its guest ends at a deadline, and the next check takes the rest away.
//!
//! ```text
//! prepare (here) ─▶ Trial ─▶ carry out: in this process, or in a job on the host (`hosts`) ─▶ lines ─▶ take away (here)
//! ```
//!
//! All of a trial is on the shared storage, below the site's `runs` folder:
//!
//! ```text
//! runs/<run>/                          the guest's run, with its disks; for each neighbour an empty one, which keeps its address
//! runs/trials/images/<template>/       copies of the images of a template that was never published
//! runs/trials/<run>/                   root's: a job's order and answer, and what it printed (see `trial`)
//! ```
//!
//! Nobody else is given an address that a trial uses, and no other check is under way meanwhile. The site's lock is held for a
//! choice of addresses alone.

mod hosts;
mod queue;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{self, lines_of_host};
use super::{Context, ControlError};
use crate::disks::{self, DiskError, Owner};
use crate::error::chain;
use crate::host::machine::check::{Line, failed};
use crate::model::id::{Mac, RunId, TemplateName, VmName};
use crate::model::lab::{Desired, DiskSource, Vm, VmGroup, VmSource};
use crate::model::reservation::Reservation;
use crate::plan::{Seat, run_spec};
use crate::run::{Clock, RunSpec};
use crate::state::{Recorded, RecordedDisk, TrialPlace};
pub use crate::trial::Onlooker;
use crate::trial::{BOOT, CLEANUP, Order, Trial, TrialHost, answer};

pub use hosts::{HostLine, Which, lines_of_hosts};

const MARK: &str = "lw-trial-";
/// Below the folder of all trials.
const COPIES: &str = "images";
/// The guest under trial, and two neighbours.
const SEATS: usize = 3;
/// The longest `--timeout`, in seconds; a trial's folder that is older than twice this is a killed one's.
pub const TIMEOUT_SECONDS_MAX: u64 = 1800;
const ABANDONED: Duration = Duration::from_secs(2 * TIMEOUT_SECONDS_MAX);

/// What can be said of this machine and of the cluster, then a trial of it.
pub fn lines_of_this_host(
    context: &Context,
    desired: &Desired,
    timeout: Duration,
    onlooker: &dyn Onlooker,
) -> Result<Vec<Line>, ControlError> {
    let groups: Vec<VmGroup> = desired.vm_groups.values().cloned().collect();
    let without_guest = check::lines(&groups, &context.site, &context.caller.program);
    Ok([without_guest, lines(context, desired, timeout, onlooker)?].concat())
}

/// All lines of a trial of this host.
fn lines(
    context: &Context,
    desired: &Desired,
    timeout: Duration,
    onlooker: &dyn Onlooker,
) -> Result<Vec<Line>, ControlError> {
    let exam = Exam::begin(context, desired, timeout, onlooker)?;
    let here = exam.here();
    let mut lines = exam.take_abandoned_away();
    let subjects = subjects(desired);
    if subjects.is_empty() {
        lines.push(no_subject());
    }
    for (template, vm) in subjects {
        let mut scratch = Scratch::default();
        match exam.bases(template).and_then(|bases| exam.prepare((template, &bases), vm, &mut scratch)) {
            Ok(trial) => lines.extend(trial.carry_out(&here)),
            Err(line) => lines.push(line),
        }
        lines.extend(exam.take_away(scratch));
    }
    lines.extend(exam.remove_copies());
    Ok(lines)
}

/// Tries this host, as an order says, and writes the answer beside it: what a job does.
pub fn carry_out(order: &Order, context: &Context, folder: &Path, onlooker: &dyn Onlooker) -> Result<(), ControlError> {
    let (site, program) = (&context.site, context.caller.program.as_path());
    let mut lines = if order.with_host { lines_of_host(&order.groups, site, program) } else { Vec::new() };
    lines.extend(order.trial.carry_out(&TrialHost { site, owner: context.owner()?, program, onlooker }));
    Ok(answer(folder, lines)?)
}

fn no_subject() -> Line {
    let mend = "give a vm `derive: TEMPLATE`, or try one of its vms with `labwright vm start`";
    failed(BOOT, "no vm of the lab is made from a template; no guest was tried", mend)
}

/// Every template that vms are made from, with the first such vm: its hardware and group are those of the exam.
fn subjects(desired: &Desired) -> BTreeMap<&TemplateName, &Vm> {
    let mut subjects = BTreeMap::new();
    for vm in desired.vms.values() {
        if let VmSource::Derive(template) | VmSource::Clone(template) = &vm.source {
            subjects.entry(template).or_insert(vm);
        }
    }
    subjects
}

struct Exam<'a> {
    context: &'a Context,
    desired: &'a Desired,
    recorded: Recorded,
    owner: Owner,
    timeout: Duration,
    onlooker: &'a dyn Onlooker,
    place: TrialPlace,
    /// Addresses that others use, when that was last read.
    taken: RefCell<BTreeSet<Ipv4Addr>>,
}

/// What one trial has made so far.
#[derive(Default)]
struct Scratch {
    /// Addresses that nobody else is given.
    seats: Vec<(Ipv4Addr, Mac)>,
    /// Runs whose folders, made by us, keep their addresses from other trials, should this one be killed.
    claims: Vec<RunId>,
    reservation: Option<Reservation>,
}

impl<'a> Exam<'a> {
    fn begin(
        context: &'a Context,
        desired: &'a Desired,
        timeout: Duration,
        onlooker: &'a dyn Onlooker,
    ) -> Result<Self, ControlError> {
        let mut store = context.store()?;
        let (recorded, owner) = (store.recorded(&desired.lab)?, context.owner()?);
        let place = TrialPlace::begin(&context.site.state)?;
        let taken = RefCell::new(recorded.taken.keys().copied().collect());
        let exam = Self { context, desired, recorded, owner, timeout, onlooker, place, taken };
        // Root's: hosts do what stands in it, and believe what is answered there.
        let folder = exam.trials();
        std::fs::create_dir_all(&folder).map_err(|source| ControlError::Folder { folder, source })?;
        Ok(exam)
    }

    fn here(&self) -> TrialHost<'a> {
        let Self { context, owner, onlooker, .. } = *self;
        TrialHost { site: &context.site, owner, program: &context.caller.program, onlooker }
    }
}

impl Exam<'_> {
    /// All that a host needs for a trial; what it took so far is in `scratch`, also where this fails.
    fn prepare(
        &self,
        (template, bases): (&TemplateName, &[Base]),
        vm: &Vm,
        scratch: &mut Scratch,
    ) -> Result<Trial, Line> {
        let group = self.group(vm)?;
        let seats = self.claim(group, scratch)?;
        let [(run, ip), neighbours @ ..] = seats;
        let disks = self.make_disks(template, bases, &run)?;
        let guest = self.spec(&run, ip, (&Vm { isolated: true, ..vm.clone() }, group), &disks);
        let plain = Vm { isolated: false, ..vm.clone() };
        let neighbours = neighbours.map(|(run, ip)| {
            let network = self.spec(&run, ip, (&plain, group), &[]).network;
            (run, network)
        });
        self.context.runs(self.owner).prepare(&guest, &Clock::default()).map_err(|error| {
            failed(BOOT, format!("no run could be prepared: {}", chain(&error)), "see the lines about storage")
        })?;
        self.reserve(&guest, scratch)?;
        Ok(Trial { template: template.clone(), guest, neighbours, timeout_seconds: self.timeout.as_secs() })
    }

    fn group(&self, vm: &Vm) -> Result<&VmGroup, Line> {
        self.desired
            .vm_groups
            .get(&vm.vm_group)
            .ok_or_else(|| failed(BOOT, format!("there is no vm group `{}`", vm.vm_group), "see `labwright validate`"))
    }

    /// Addresses of a group that no vm and no trial has, the highest first: plans take the lowest.
    fn free<'b>(&'b self, group: &'b VmGroup) -> impl Iterator<Item = Ipv4Addr> + 'b {
        let taken = self.taken.borrow();
        let free = group.range.addresses().filter(|ip| Some(*ip) != group.gateway && !taken.contains(ip));
        let free = free.collect::<Vec<_>>().into_iter().rev();
        free.filter(|ip| !self.folder(&trial_run(&self.recorded, *ip)).exists())
    }

    /// Addresses of its own for each trial: the MAC follows from the address, and the guests' network may span all hosts.
    fn claim(&self, group: &VmGroup, scratch: &mut Scratch) -> Result<[(RunId, Ipv4Addr); SEATS], Line> {
        let seats = self.choose(group).map_err(|error| {
            let found = format!("no addresses could be kept for the trial: {}", chain(&error));
            failed(BOOT, found, "see what it says, then run the check again")
        })?;
        scratch.seats.extend(seats.iter().map(|(_, ip)| (*ip, group.mac(*ip))));
        for (run, _) in &seats {
            let folder = self.folder(run);
            let created = std::fs::create_dir(&folder);
            created.map_err(|error| self.no_folder("create", &folder, &error))?;
            scratch.claims.push(run.clone());
            let given = chown(&folder, Some(self.owner.uid), Some(self.owner.gid));
            given.map_err(|error| self.no_folder("give to the service account", &folder, &error))?;
        }
        seats.try_into().map_err(|seats: Vec<_>| {
            let found = format!("the vm group has {} free addresses, a trial takes {SEATS}", seats.len());
            let mend = "widen its `ip_range`, or try before the last vms are applied; what a killed check had is free \
                        again after an hour";
            failed(BOOT, found, mend)
        })
    }

    fn no_folder(&self, action: &str, folder: &Path, error: &std::io::Error) -> Line {
        let found = format!("cannot {action} {}: {error}", folder.display());
        failed(BOOT, found, "storage must let this host's root do that (`no_root_squash`)")
    }

    /// Addresses that are free now, and nobody else's from now on. Under the lock: what somebody has just decided is recorded.
    fn choose(&self, group: &VmGroup) -> Result<Vec<(RunId, Ipv4Addr)>, ControlError> {
        let lab = &self.desired.lab;
        let mut store = self.context.known_store()?;
        let _lock = self.context.lock(format!("host check --exam {lab}"))?;
        *self.taken.borrow_mut() = store.recorded(lab)?.taken.into_keys().collect();
        let mut seats = Vec::new();
        for ip in self.free(group) {
            if self.place.take((ip, group.mac(ip)))? {
                seats.push((trial_run(&self.recorded, ip), ip));
            }
            if seats.len() == SEATS {
                break;
            }
        }
        Ok(seats)
    }

    fn folder(&self, run: &RunId) -> PathBuf {
        self.context.site.storage.runs.join(run.to_string())
    }

    fn trials(&self) -> PathBuf {
        self.context.site.storage.runs.join("trials")
    }

    /// What the disks of a new vm of the template would lie over: its current published version, or before the first apply,
    /// copies of its images, where hosts and service account can read them.
    fn bases(&self, template: &TemplateName) -> Result<Vec<Base>, Line> {
        let versions = (template.clone(), 0)..=(template.clone(), u32::MAX);
        if let Some((_, version)) = self.recorded.versions.range(versions).next_back() {
            return Ok(version.disks.iter().map(|disk| Base::Image(disk.path.clone())).collect());
        }
        let folder = self.trials().join(COPIES).join(template.as_str());
        let sources = self.desired.templates.get(template).map(|wanted| wanted.disks.as_slice()).unwrap_or_default();
        let base = |(slot, source): (usize, &DiskSource)| match source {
            DiskSource::Empty { size_bytes } => Ok(Base::Empty { size_bytes: *size_bytes }),
            DiskSource::Image { .. } | DiskSource::Fetched { .. } => {
                self.onlooker.hears(&format!("  {source} is not published yet: a copy is made for the trial"));
                let copy = folder.join(format!("disk-{slot}.qcow2"));
                self.copy(source, &copy).map_err(|error| no_disk(template, &error))?;
                Ok(Base::Image(copy))
            }
        };
        sources.iter().enumerate().map(base).collect()
    }

    fn copy(&self, source: &DiskSource, to: &Path) -> Result<(), DiskError> {
        let untold = &|_| ();
        let (image, sha256) = match source {
            DiskSource::Image { path, sha256 } => (path.clone(), sha256.as_deref()),
            DiskSource::Fetched { url, sha256 } => {
                let fetched = self.context.site.storage.fetched().join(sha256);
                self.context.disks(&self.desired.lab, self.owner).fetch(url, sha256, &fetched, untold)?;
                (fetched, Some(sha256.as_str()))
            }
            DiskSource::Empty { .. } => return Ok(()),
        };
        let images = self.context.images(&self.desired.lab);
        disks::publish(&images, &image, to, sha256, self.owner, untold).map(drop)
    }

    fn make_disks(&self, template: &TemplateName, bases: &[Base], run: &RunId) -> Result<Vec<RecordedDisk>, Line> {
        let mut made = Vec::new();
        for (slot, base) in (0..).zip(bases) {
            let path = self.folder(run).join(format!("disk-{slot}.qcow2"));
            let target = std::slice::from_ref(&path);
            let (results, base) = match base {
                Base::Image(base) => (disks::derive(base, target, self.owner), Some(base.clone())),
                Base::Empty { size_bytes } => (disks::create_empty(*size_bytes, target, self.owner), None),
            };
            for result in results {
                result.map_err(|error| no_disk(template, &error))?;
            }
            made.push(RecordedDisk { slot, path, base, made: true, moving_to: None, image: None, instance: None });
        }
        Ok(made)
    }

    fn spec(&self, run: &RunId, ip: Ipv4Addr, (vm, group): (&Vm, &VmGroup), disks: &[RecordedDisk]) -> RunSpec {
        let name = vm_name(run);
        let seat = Seat { run: run.clone(), generation: 1, ip, mac: group.mac(ip), disks };
        let mut spec = run_spec(&self.context.site, self.desired, &self.recorded, (&name, vm, group), &seat);
        // Nobody's work is lost; and a guest that dies is a finding, not to be tried again.
        spec.timing.grace_seconds = 0;
        spec.timing.start_attempts_max = 1;
        spec
    }

    fn reserve(&self, spec: &RunSpec, scratch: &mut Scratch) -> Result<(), Line> {
        let reservation = reservation(spec);
        // Noted first: one whose answer was lost is to be released too.
        scratch.reservation = Some(reservation.clone());
        self.context.dhcp().reserve(&[reservation]).map_err(|error| {
            failed(BOOT, format!("no reservation for {}: {}", spec.network.ip, chain(&error)), "see the line `dhcp`")
        })
    }

    /// Takes away what a trial used that is over. A line for whatever stays behind.
    fn take_away(&self, scratch: Scratch) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(reservation) = scratch.reservation
            && let Err(error) = self.context.dhcp().release(std::slice::from_ref(&reservation))
        {
            let found = format!("the reservation {} stays: {}", reservation.mark, chain(&error));
            lines.push(failed(CLEANUP, found, "see the line `dhcp`, then take it away by hand"));
        }
        for run in scratch.claims {
            lines.extend(remove(&self.trials().join(run.to_string())));
            lines.extend(remove(&self.folder(&run)));
        }
        if let Err(error) = scratch.seats.into_iter().try_for_each(|seat| self.place.let_go(seat)) {
            lines.push(failed(CLEANUP, chain(&error), "its addresses are free again when the check ends"));
        }
        lines
    }

    fn remove_copies(&self) -> Option<Line> {
        remove(&self.trials().join(COPIES))
    }

    /// What trials that were killed have left, on whatever host: their guests have met their deadlines.
    fn take_abandoned_away(&self) -> Vec<Line> {
        let Ok(entries) = std::fs::read_dir(&self.context.site.storage.runs) else { return Vec::new() };
        let mut lines: Vec<Line> = self.remove_copies().into_iter().collect();
        for entry in entries.flatten() {
            let run = entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok());
            let is_old = entry
                .metadata()
                .and_then(|data| data.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED));
            let ours = |run: &RunId| *run.site() == self.recorded.site && run.is_trial();
            let Some(run) = run.filter(|run| is_old && ours(run)) else { continue };
            // A neighbour's has no spec, and needs no reservation.
            match RunSpec::read(&self.folder(&run)) {
                Ok(spec) => {
                    let reservation = spec.map(|spec| reservation(&spec));
                    lines.extend(self.take_away(Scratch { claims: vec![run], reservation, ..Scratch::default() }));
                }
                // Its folder is all that tells which address is still reserved for it.
                Err(error) => lines.push(failed(CLEANUP, chain(&error), "mend that; the next check takes it away")),
            }
        }
        lines
    }
}

impl Drop for Exam<'_> {
    fn drop(&mut self) {
        // Where a trial's folder had to stay, so does this.
        drop(std::fs::remove_dir(self.trials()));
    }
}

/// What a disk of a trial lies over.
enum Base {
    Image(PathBuf),
    Empty { size_bytes: u64 },
}

fn no_disk(template: &TemplateName, error: &disks::DiskError) -> Line {
    let found = format!("no scratch disk of template {template}: {}", chain(error));
    failed(BOOT, found, "`labwright plan` says what is wrong with the template")
}

fn remove(folder: &Path) -> Option<Line> {
    let error = std::fs::remove_dir_all(folder).err().filter(|error| error.kind() != std::io::ErrorKind::NotFound)?;
    Some(failed(CLEANUP, format!("{} stays: {error}", folder.display()), "remove it by hand: it is a trial's"))
}

fn vm_name(run: &RunId) -> VmName {
    VmName::new(format!("trial-{}", run.number())).expect("letters, a hyphen and digits are a name")
}

/// The number of a trial with this address.
fn trial_run(recorded: &Recorded, ip: Ipv4Addr) -> RunId {
    let [.., high, low] = ip.octets();
    RunId::new(recorded.site.clone(), RunId::TRIAL + u64::from(u16::from_be_bytes([high, low])))
}

/// What a trial's job and reservation are called: no vm's are, since a site's tag has four letters.
fn mark(run: &RunId) -> String {
    format!("{MARK}{run}")
}

fn reservation(spec: &RunSpec) -> Reservation {
    let RunSpec { run, network, vm, .. } = spec;
    Reservation { mark: mark(run), vm: vm.clone(), mac: network.mac, ip: network.ip }
}
