//! `labwright host check --exam LAB`: a trial of this host with a real guest of the lab. For each template that vms are
//! made from, a guest of its own boots on scratch disks, under a free address and a run number that no record gives out.
//! In: the lab, what is recorded. Out: lines of the page. Never: a change of the state, or of a vm's disks, reservation or
//! run; and whatever the trial made is taken away at its end, also when it fails or is interrupted. What a killed trial
//! leaves is bounded: its guest ends at a deadline, and the next trial takes the rest away.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::context::{Context, program};
use crate::apply::chain;
use crate::disks::{self, Owner};
use crate::exit::Exit;
use crate::host::RUN_ROOT;
use crate::host::check::{Line, failed, ok};
use crate::host::dhcp::Reservation;
use crate::host::neighbour::{self, Neighbour, Sight};
use crate::host::vnc::{self, Entry};
use crate::id::{RunId, TemplateName, VmName};
use crate::plan::{Seat, run_spec};
use crate::report::{Failure, Ui};
use crate::resolve::{Desired, DiskSource, Vm, VmGroup, VmSource};
use crate::run::{Control, Event, RunSpec, Runs as _, StopReason, Wanted, read_report};
use crate::site::DhcpSettings;
use crate::state::{Recorded, RecordedDisk};

const BOOT: &str = "exam: boot";
const VNC: &str = "exam: vnc";
const ISOLATION: &str = "exam: isolation";
const GATEWAY: &str = "exam: gateway";
const CLEANUP: &str = "exam: clean-up";

/// The guest under trial, and two neighbours.
const SEATS: usize = 3;
/// Between two looks at the report.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(15);
/// Longer than all that comes after the boot.
const AFTER_BOOT: Duration = Duration::from_secs(120);
/// A starter that was told to end takes this long at the most, with a qemu that does not answer.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// The longest `--timeout`, in seconds; a trial's folder that is older than twice this is a killed one's.
pub(super) const TIMEOUT_SECONDS_MAX: u64 = 1800;
const ABANDONED: Duration = Duration::from_secs(2 * TIMEOUT_SECONDS_MAX);

/// All lines of the trial.
pub(super) fn lines(context: &Context, desired: &Desired, timeout: Duration, ui: &Ui) -> Result<Vec<Line>, Failure> {
    let signals = block_signals()
        .map_err(|source| Failure::from_error(Exit::Failed, &source).within("cannot hold signals back for a trial"))?;
    let exam = Exam {
        recorded: context.recorded(&desired.lab)?,
        owner: context.owner()?,
        context,
        desired,
        timeout,
        signals,
        ui,
    };
    let mut lines = exam.take_abandoned_away();
    let subjects = subjects(desired);
    if subjects.is_empty() {
        let mend = "give a vm `derive: TEMPLATE`, or try one of its vms with `labwright vm start`";
        lines.push(failed(BOOT, "no vm of the lab is made from a template; no guest was tried", mend));
    }
    for (template, vm) in subjects {
        lines.extend(exam.of_template(template, vm));
    }
    Ok(lines)
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

/// What would end this process is read as data, so that a trial is taken away first. Must be called while there is one
/// thread; children begin without this.
fn block_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

struct Exam<'a> {
    context: &'a Context,
    desired: &'a Desired,
    recorded: Recorded,
    owner: Owner,
    timeout: Duration,
    signals: SignalFd,
    ui: &'a Ui,
}

/// What one trial has made so far.
#[derive(Default)]
struct Scratch {
    /// Runs whose folders, made by us, keep their addresses from other trials.
    claims: Vec<RunId>,
    reservation: Option<Reservation>,
    starter: Option<Child>,
}

impl Exam<'_> {
    fn of_template(&self, template: &TemplateName, vm: &Vm) -> Vec<Line> {
        let mut scratch = Scratch::default();
        let mut lines = Vec::new();
        if let Err(line) = self.examine(template, vm, &mut scratch, &mut lines) {
            lines.push(line);
        }
        lines.extend(self.take_away(&mut scratch));
        lines
    }

    /// The trial itself; a line that is an error ends it.
    fn examine(
        &self,
        template: &TemplateName,
        vm: &Vm,
        scratch: &mut Scratch,
        lines: &mut Vec<Line>,
    ) -> Result<(), Line> {
        self.refuse_when_told_to_stop(BOOT)?;
        let group = self.desired.vm_groups.get(&vm.vm_group).ok_or_else(|| {
            failed(BOOT, format!("there is no vm group `{}`", vm.vm_group), "see `labwright validate`")
        })?;
        let seats = self.claim(group, scratch)?;
        let [(run, ip), neighbours @ ..] = seats.as_slice() else { unreachable!("three seats were claimed") };
        let disks = self.make_disks(template, run)?;
        let isolated = Vm { isolated: true, ..vm.clone() };
        let spec = self.spec(run, *ip, (&isolated, group), &disks);
        self.reserve(&spec, scratch)?;
        let (vnc, line) = self.boot(template, &spec, scratch)?;
        lines.push(line);
        lines.push(look_at_vnc(&vnc));
        lines.push(self.isolation(&spec, (vm, group), neighbours));
        lines.extend(self.gateway(&spec, group));
        self.refuse_when_told_to_stop(ISOLATION)
    }

    /// Free addresses, the highest first: plans take the lowest. A trial on another host may look at the same moment, so
    /// that each address is claimed by a folder that only one can make.
    fn claim(&self, group: &VmGroup, scratch: &mut Scratch) -> Result<Vec<(RunId, Ipv4Addr)>, Line> {
        let taken = &self.recorded.taken;
        let free: Vec<Ipv4Addr> =
            group.range.addresses().filter(|ip| Some(*ip) != group.gateway && !taken.contains_key(ip)).collect();
        let mut seats = Vec::new();
        for ip in free.into_iter().rev() {
            let run = trial_run(&self.recorded, ip);
            let folder = self.folder(&run);
            match std::fs::create_dir(&folder) {
                Ok(()) => scratch.claims.push(run.clone()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => {
                    let found = format!("cannot create {}: {error}", folder.display());
                    return Err(failed(BOOT, found, "the first `labwright apply` makes the storage; see its owner"));
                }
            }
            let given = chown(&folder, Some(self.owner.uid), Some(self.owner.gid));
            given.map_err(|error| {
                let found = format!("cannot give {} to {}: {error}", folder.display(), self.context.site.service_user);
                failed(BOOT, found, "storage must let this host's root do that (`no_root_squash`)")
            })?;
            seats.push((run, ip));
            if seats.len() == SEATS {
                return Ok(seats);
            }
        }
        let found = format!("the vm group has {} free addresses, a trial takes {SEATS}", seats.len());
        Err(failed(BOOT, found, "widen its `ip_range`, or try before the last vms are applied"))
    }

    fn folder(&self, run: &RunId) -> PathBuf {
        self.context.site.storage.runs.join(run.to_string())
    }

    /// Scratch disks over what a new vm of the template would get: its current published version, or before the first
    /// apply, its images.
    fn make_disks(&self, template: &TemplateName, run: &RunId) -> Result<Vec<RecordedDisk>, Line> {
        let versions = (template.clone(), 0)..=(template.clone(), u32::MAX);
        let published = self.recorded.versions.range(versions).next_back();
        let sources: Vec<DiskSource> = match published {
            Some((_, version)) => {
                let image = |path: &PathBuf| DiskSource::Image { path: path.clone(), sha256: None };
                version.disks.iter().map(|disk| image(&disk.path)).collect()
            }
            None => self.desired.templates.get(template).map(|wanted| wanted.disks.clone()).unwrap_or_default(),
        };
        let mut made = Vec::new();
        for (slot, source) in (0..).zip(sources) {
            let path = self.folder(run).join(format!("disk-{slot}.qcow2"));
            let (results, base) = match source {
                DiskSource::Image { path: base, .. } => {
                    (disks::derive(&base, std::slice::from_ref(&path), self.owner), Some(base))
                }
                DiskSource::Empty { size_bytes } => {
                    (disks::create_empty(size_bytes, std::slice::from_ref(&path), self.owner), None)
                }
            };
            for result in results {
                result.map_err(|error| {
                    let found = format!("no scratch disk of template {template}: {}", chain(&error));
                    failed(BOOT, found, "`labwright plan` says what is wrong with the template")
                })?;
            }
            made.push(RecordedDisk { slot, path, base, made: true, moving_to: None });
        }
        Ok(made)
    }

    fn spec(&self, run: &RunId, ip: Ipv4Addr, (vm, group): (&Vm, &VmGroup), disks: &[RecordedDisk]) -> RunSpec {
        let name = VmName::new(format!("trial-{}", run.number())).expect("letters, a hyphen and digits are a name");
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

    /// Starts a starter and waits until its guest uses its address; answers where vnc listens.
    fn boot(&self, template: &TemplateName, spec: &RunSpec, scratch: &mut Scratch) -> Result<(String, Line), Line> {
        let folder = self.folder(&spec.run);
        let internal = |error: &dyn std::error::Error| {
            failed(BOOT, format!("no run could be prepared: {}", chain(error)), "see the lines about storage")
        };
        let runs = self.context.runs(self.owner);
        runs.prepare(spec).map_err(|error| internal(&error))?;
        // Should this process be killed, the guest ends without it.
        let deadline = jiff::Timestamp::now()
            .checked_add(jiff::SignedDuration::try_from(self.timeout + AFTER_BOOT).expect("half an hour is one"))
            .expect("the next half hour is within time");
        let control =
            Control { generation: 1, wanted: Wanted::Running, deadline: Some(deadline), requests: Vec::new() };
        runs.control(&spec.run, &control).map_err(|error| internal(&error))?;
        let log = folder.join("starter.log");
        let program = program().map_err(|failure| failed(BOOT, failure.message, "install the program anew"))?;
        let starter = File::create(&log).and_then(|words| {
            let mut command = Command::new(program);
            command.arg("starter").arg("--run").arg(&folder);
            // Of a process group of its own: what a terminal says to us, we tell it ourselves.
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words).process_group(0).spawn()
        });
        scratch.starter = Some(starter.map_err(|error| internal(&error))?);
        self.ui.say(&format!("  a guest of template {template} boots as {} ({})", spec.network.ip, spec.network.mac));
        self.wait_ready(template, spec, scratch)
    }

    fn wait_ready(
        &self,
        template: &TemplateName,
        spec: &RunSpec,
        scratch: &mut Scratch,
    ) -> Result<(String, Line), Line> {
        let (began, mut told) = (Instant::now(), Instant::now());
        let folder = self.folder(&spec.run);
        loop {
            let ended = scratch.starter.as_mut().map(Child::try_wait);
            let records =
                read_report(&folder).map_err(|error| failed(BOOT, chain(&error), "see the lines about storage"))?;
            let mut vnc = None;
            let mut accelerator = String::new();
            for record in records {
                match record.event {
                    Event::Running { vnc: at, accel, .. } => (vnc, accelerator) = (Some(at), accel),
                    Event::Ready => {
                        let seconds = began.elapsed().as_secs_f32();
                        let found = format!(
                            "a guest of template {template} boots ({accelerator}) and uses its address {} after \
                             {seconds:.1} s",
                            spec.network.ip
                        );
                        return Ok((vnc.unwrap_or_default(), ok(BOOT, found)));
                    }
                    Event::Stopped { reason, exit } => return Err(ended_early(template, &reason, exit.as_deref())),
                    _ => {}
                }
            }
            if let Some(Ok(Some(status))) = ended {
                let words = std::fs::read_to_string(folder.join("starter.log")).unwrap_or_default();
                let found = format!("the starter ended without a report ({status}): {}", words.trim());
                return Err(failed(BOOT, found, "see the lines above"));
            }
            if began.elapsed() > self.timeout {
                return Err(self.too_late(template, spec, vnc.is_some()));
            }
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                self.ui.say(&format!("  still waiting for its address after {} s", began.elapsed().as_secs()));
            }
            self.refuse_when_told_to_stop(BOOT)?;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn too_late(&self, template: &TemplateName, spec: &RunSpec, runs: bool) -> Line {
        let seconds = self.timeout.as_secs();
        if !runs {
            let found = format!("a guest of template {template} did not start within {seconds} s");
            return failed(BOOT, found, "other guests boot here just now: try again, or say a longer `--timeout`");
        }
        let found = format!(
            "a guest of template {template} runs, but did not use its address {} within {seconds} s",
            spec.network.ip
        );
        let mend = match &self.context.site.network.dhcp {
            DhcpSettings::None => format!(
                "DHCP is not ours here: it must give {} to {}, and boot the image; or say a longer `--timeout`",
                spec.network.ip, spec.network.mac
            ),
            _ => "see that the image boots and asks DHCP for its address, and the line `dhcp`; or say a longer \
                  `--timeout`"
                .to_owned(),
        };
        failed(BOOT, found, mend)
    }

    /// Two neighbours as plain guests of the same group, the hardest case: nothing but the guest's own filter holds them off.
    fn isolation(&self, spec: &RunSpec, (vm, group): (&Vm, &VmGroup), seats: &[(RunId, Ipv4Addr)]) -> Line {
        let plain = Vm { isolated: false, ..vm.clone() };
        let join = |(run, ip): &(RunId, Ipv4Addr)| {
            let network = self.spec(run, *ip, (&plain, group), &[]).network;
            Neighbour::join(run, &network, Path::new(RUN_ROOT), self.owner)
        };
        let sight = || {
            let neighbours = seats.iter().map(join).collect::<Result<Vec<_>, _>>()?;
            let [one, other] = neighbours.as_slice() else { unreachable!("two of the seats are neighbours'") };
            neighbour::sight(one, other, (spec.network.ip, spec.network.mac))
        };
        self.ui.say("  two neighbours ask for it");
        match sight() {
            Ok(Sight::Isolated) => {
                ok(ISOLATION, "no answer to a neighbour's question by ARP, which another neighbour did hear")
            }
            Ok(Sight::Heard) => failed(
                ISOLATION,
                "a neighbour hears the isolated guest",
                "do not hold an exam here; see `filter`, `drop table` and what else stands in `nft list ruleset`",
            ),
            Ok(Sight::Deaf) => failed(
                ISOLATION,
                format!("not tried: no neighbour hears another on {}", group.bridge),
                "something holds frames back: see `foreign firewall`, and `bridge -d link`",
            ),
            Err(error) => failed(ISOLATION, format!("not tried: {}", chain(&error)), "see the lines above"),
        }
    }

    /// Isolation that also cuts off the gateway would cut off DHCP renewals and all that an exam allows.
    fn gateway(&self, spec: &RunSpec, group: &VmGroup) -> Option<Line> {
        let gateway = group.gateway.filter(|_| self.context.site.network.gateway_on_host)?;
        let guest = (spec.network.ip, spec.network.mac);
        Some(match neighbour::answers_gateway(gateway, &group.bridge, guest) {
            Ok(true) => ok(GATEWAY, format!("the guest answers {gateway}")),
            Ok(false) => failed(
                GATEWAY,
                format!("the guest does not answer {gateway}"),
                "see `bridge` and `foreign firewall`; the gateway's address must be this host's",
            ),
            Err(error) => failed(GATEWAY, chain(&error), "see the line `bridge`"),
        })
    }

    fn refuse_when_told_to_stop(&self, what: &'static str) -> Result<(), Line> {
        match self.signals.read_signal() {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(failed(what, "the trial was interrupted", "run it again")),
            Err(error) => Err(failed(what, format!("cannot read signals: {error}"), "run it again")),
        }
    }

    /// Ends the guest, then takes away what it used. A line for whatever stays behind.
    fn take_away(&self, scratch: &mut Scratch) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(mut starter) = scratch.starter.take()
            && let Err(error) = end(&mut starter)
        {
            let found = format!("the starter (process {}) does not end: {error}", starter.id());
            lines.push(failed(CLEANUP, found, "end it by hand; its guest goes with it"));
        }
        if let Some(reservation) = scratch.reservation.take()
            && let Err(error) = self.context.dhcp().release(std::slice::from_ref(&reservation))
        {
            let found = format!("the reservation {} stays: {}", reservation.mark, chain(&error));
            lines.push(failed(CLEANUP, found, "see the line `dhcp`, then take it away by hand"));
        }
        lines.extend(scratch.claims.drain(..).filter_map(|run| self.remove_folder(&run)));
        lines
    }

    fn remove_folder(&self, run: &RunId) -> Option<Line> {
        let folder = self.folder(run);
        let error = std::fs::remove_dir_all(&folder).err()?;
        Some(failed(CLEANUP, format!("{} stays: {error}", folder.display()), "remove it by hand: it is a trial's"))
    }

    /// What trials that were killed have left, on whatever host: their guests have met their deadlines.
    fn take_abandoned_away(&self) -> Vec<Line> {
        let Ok(entries) = std::fs::read_dir(&self.context.site.storage.runs) else { return Vec::new() };
        let mut lines = Vec::new();
        for entry in entries.flatten() {
            let run = entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok());
            let is_old = entry
                .metadata()
                .and_then(|data| data.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED));
            let ours = |run: &RunId| *run.site() == self.recorded.site && run.number() >= RunId::TRIAL;
            let Some(run) = run.filter(|run| is_old && ours(run)) else { continue };
            // A neighbour's has no spec, and needs no reservation.
            let reservation = RunSpec::read(&self.folder(&run)).ok().flatten().map(|spec| reservation(&spec));
            lines.extend(self.take_away(&mut Scratch { claims: vec![run], reservation, starter: None }));
        }
        lines
    }
}

/// The number of a trial with this address.
fn trial_run(recorded: &Recorded, ip: Ipv4Addr) -> RunId {
    let [.., high, low] = ip.octets();
    RunId::new(recorded.site.clone(), RunId::TRIAL + u64::from(u16::from_be_bytes([high, low])))
}

/// A mark that no vm's reservation has: a site's tag has four letters.
fn reservation(spec: &RunSpec) -> Reservation {
    let RunSpec { run, network, vm, .. } = spec;
    Reservation { mark: format!("lw-trial-{run}"), vm: vm.clone(), mac: network.mac, ip: network.ip }
}

fn ended_early(template: &TemplateName, reason: &StopReason, exit: Option<&str>) -> Line {
    let why = match reason {
        StopReason::Failed { message } => message.clone(),
        StopReason::Guest => "it powered itself off".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    let exit = exit.map(|exit| format!(" ({exit})")).unwrap_or_default();
    let found = format!("a guest of template {template} did not come up: {why}{exit}");
    failed(BOOT, found, "see the lines above; `labwright vm export-run NAME` shows how a vm is started")
}

fn look_at_vnc(at: &str) -> Line {
    let mend = "see `qemu.vnc_bind` in site.yaml, and the host's own firewall";
    if let Some(socket) = at.strip_prefix("unix:") {
        return match std::os::unix::net::UnixStream::connect(socket) {
            Ok(_) => ok(VNC, format!("{at} answers, to root and the service account alone")),
            Err(error) => failed(VNC, format!("{at} does not answer: {error}"), mend),
        };
    }
    let address: Option<SocketAddr> = at.parse().ok();
    let Some(mut address) = address else { return failed(VNC, format!("qemu says that vnc is at {at:?}"), mend) };
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    match vnc::look(address) {
        Ok(Entry::Password) => ok(VNC, format!("{at} answers and asks for its password")),
        Ok(Entry::Open) => failed(VNC, format!("{at} lets anybody in"), "remove `-vnc` from `qemu.extra_args`"),
        Err(error) => failed(VNC, chain(&error), mend),
    }
}

/// Asks the starter to end, and kills it when it does not: what it holds goes with it.
fn end(starter: &mut Child) -> std::io::Result<()> {
    if starter.try_wait()?.is_some() {
        return Ok(());
    }
    kill(Pid::from_raw(starter.id().cast_signed()), Signal::SIGTERM)?;
    let asked = Instant::now();
    while starter.try_wait()?.is_none() {
        if asked.elapsed() > STOP_WAIT {
            starter.kill()?;
            starter.wait()?;
            break;
        }
        std::thread::sleep(LOOK_EVERY / 4);
    }
    Ok(())
}
