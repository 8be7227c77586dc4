//! One trial on the host that it is about: a guest whose run is prepared, and two neighbours. In: a `Trial`. Out: lines of
//! the page. Knows no state and no DHCP server, so that a host which has neither can carry it out; ends its guest whatever
//! happens, and leaves its run's folder to who prepared it.

mod order;

pub use order::{JOB, Order, OrderError, answer, found};

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::disks::Owner;
use crate::error::chain;
use crate::host::RUN_ROOT;
use crate::host::machine::check::{Line, failed, ok};
use crate::host::machine::probe::{self, Neighbour, Sight};
use crate::host::machine::vnc::{self, Entry};
use crate::host::machine::wire;
use crate::model::id::{RunId, TemplateName};
use crate::model::site::{DhcpSettings, Site};
use crate::run::{Control, Event, OnStorage, RunNetwork, RunSpec, Runs as _, StopReason, Wanted, read_report};

pub const BOOT: &str = "exam: boot";
const VNC: &str = "exam: vnc";
const ISOLATION: &str = "exam: isolation";
const GATEWAY: &str = "exam: gateway";
pub const CLEANUP: &str = "exam: clean-up";

/// Between two looks at the report.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(15);
/// Longer than all that comes after the boot.
const AFTER_BOOT: Duration = Duration::from_secs(120);
/// A starter that was told to end takes this long at the most, with a qemu that does not answer.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// How much of what a program printed is shown.
const PRINTED_BYTES_MAX: u64 = 2000;

/// What a host is to try.
#[derive(Debug, Serialize, Deserialize)]
pub struct Trial {
    pub template: TemplateName,
    /// Its run is prepared.
    pub guest: RunSpec,
    /// Plain guests of the same group, the hardest case: nothing but the guest's own filter holds them off.
    pub neighbours: [(RunId, RunNetwork); 2],
    pub timeout_seconds: u64,
}

/// What a trial needs of its host.
pub struct TrialHost<'a> {
    pub site: &'a Site,
    pub owner: Owner,
    /// What starts a guest: this one.
    pub program: &'a Path,
    pub onlooker: &'a dyn Onlooker,
}

/// Who looks on while guests are tried.
pub trait Onlooker {
    /// What is under way.
    fn hears(&self, line: &str);

    /// Whether it is to end before its time: now, or at some moment before.
    fn wants_end(&self) -> bool;
}

impl Trial {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// How long all of it takes at the most.
    pub fn seconds_max(&self) -> Duration {
        self.timeout() + AFTER_BOOT + STOP_WAIT
    }

    pub fn carry_out(&self, here: &TrialHost<'_>) -> Vec<Line> {
        let (mut lines, mut starter) = (Vec::new(), None);
        if let Err(line) = self.examine(here, &mut starter, &mut lines) {
            lines.push(line);
        }
        if let Some(mut starter) = starter
            && let Err(error) = end(&mut starter)
        {
            let found = format!("the starter (process {}) does not end: {error}", starter.id());
            lines.push(failed(CLEANUP, found, "end it by hand; its guest goes with it"));
        }
        lines
    }

    /// A line that is an error ends it.
    fn examine(&self, here: &TrialHost<'_>, starter: &mut Option<Child>, lines: &mut Vec<Line>) -> Result<(), Line> {
        here.refuse_when_interrupted(BOOT)?;
        let (vnc, line) = self.boot(here, starter)?;
        lines.push(line);
        lines.push(look_at_vnc(&vnc));
        lines.push(self.isolation(here));
        lines.extend(self.gateway(here));
        lines.extend(self.gateways_traffic(here));
        here.refuse_when_interrupted(ISOLATION)
    }

    /// Starts a starter and waits until its guest uses its address; answers where vnc listens.
    fn boot(&self, here: &TrialHost<'_>, starter: &mut Option<Child>) -> Result<(String, Line), Line> {
        let Self { template, guest: RunSpec { run, network, .. }, .. } = self;
        let folder = here.folder(run);
        let internal = |error: &dyn std::error::Error| {
            failed(BOOT, format!("no starter could begin: {}", chain(error)), "see the lines about storage")
        };
        // Should this process be killed, the guest ends without it.
        let deadline = jiff::Timestamp::now()
            .checked_add(jiff::SignedDuration::try_from(self.timeout() + AFTER_BOOT).expect("half an hour is one"))
            .expect("the next half hour is within time");
        let mut control = Control::new(1, Wanted::Running);
        control.end_at(deadline);
        here.runs().control(run, &control).map_err(|error| internal(&error))?;
        let log = folder.join("starter.log");
        let spawned = File::create(&log).and_then(|words| {
            let mut command = Command::new(here.program);
            // A job's own task number is none of the guest's run.
            command.env_remove("SGE_TASK_ID");
            command.arg("starter").arg("--run").arg(&folder);
            // Of a process group of its own: what a terminal says to us, we tell it ourselves.
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words).process_group(0).spawn()
        });
        let starter = starter.insert(spawned.map_err(|error| internal(&error))?);
        here.onlooker.hears(&format!("  a guest of template {template} boots as {} ({})", network.ip, network.mac));
        self.wait_ready(here, starter)
    }

    fn wait_ready(&self, here: &TrialHost<'_>, starter: &mut Child) -> Result<(String, Line), Line> {
        let Self { template, guest: spec, .. } = self;
        let (began, mut told) = (Instant::now(), Instant::now());
        let folder = here.folder(&spec.run);
        loop {
            let ended = starter.try_wait();
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
            if let Ok(Some(status)) = ended {
                let words = printed(&folder);
                let found = format!("the starter ended without a report ({status}); it printed: {words}");
                return Err(failed(BOOT, found, "see the lines above"));
            }
            if began.elapsed() > self.timeout() {
                return Err(self.too_late(here, vnc.is_some()));
            }
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                here.onlooker.hears(&format!("  still waiting for its address after {} s", began.elapsed().as_secs()));
            }
            here.refuse_when_interrupted(BOOT)?;
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn too_late(&self, here: &TrialHost<'_>, runs: bool) -> Line {
        let Self { template, guest: spec, timeout_seconds: seconds, .. } = self;
        if !runs {
            let found = format!("a guest of template {template} did not start within {seconds} s");
            return failed(BOOT, found, "other guests boot here just now: try again, or say a longer `--timeout`");
        }
        let found = format!(
            "a guest of template {template} runs, but did not use its address {} within {seconds} s",
            spec.network.ip
        );
        let mend = match &here.site.network.dhcp {
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

    fn isolation(&self, here: &TrialHost<'_>) -> Line {
        let RunNetwork { ip, mac, bridge, .. } = &self.guest.network;
        let join =
            |(run, network): &(RunId, RunNetwork)| Neighbour::join(run, network, Path::new(RUN_ROOT), here.owner);
        let [one, other] = &self.neighbours;
        let sight = || probe::sight(&join(one)?, &join(other)?, (*ip, *mac));
        here.onlooker.hears("  two neighbours ask for it");
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
                format!("not tried: no neighbour hears another on {bridge}"),
                "something holds frames back: see `foreign firewall`, and `bridge -d link`",
            ),
            Err(error) => failed(ISOLATION, format!("not tried: {}", chain(&error)), "see the lines above"),
        }
    }

    /// Isolation that also cuts off the gateway would cut off DHCP renewals and all that an exam allows.
    fn gateway(&self, here: &TrialHost<'_>) -> Option<Line> {
        let RunNetwork { ip, mac, bridge, gateway, .. } = &self.guest.network;
        let gateway = gateway.filter(|_| here.site.network.gateway_on_host)?;
        Some(match probe::answers_gateway(gateway, bridge, (*ip, *mac)) {
            Ok(true) => ok(GATEWAY, format!("the guest answers {gateway}")),
            Ok(false) => failed(
                GATEWAY,
                format!("the guest does not answer {gateway}"),
                "see `bridge` and `foreign firewall`; the gateway's address must be this host's",
            ),
            Err(error) => failed(GATEWAY, chain(&error), "see the line `bridge`"),
        })
    }
}

impl Trial {
    /// A redundant gateway may send from other Ethernet addresses than it has.
    fn gateways_traffic(&self, here: &TrialHost<'_>) -> Option<Line> {
        here.onlooker.hears("  a neighbour speaks with the gateway");
        let (_, network) = self.neighbours.first()?;
        wire::watch_gateway(network, Path::new(RUN_ROOT)).unwrap_or_else(|error| {
            Some(failed(GATEWAY, format!("its traffic was not watched: {}", chain(&error)), "see the line `gateway`"))
        })
    }
}

impl TrialHost<'_> {
    fn runs(&self) -> OnStorage {
        OnStorage { root: self.site.storage.runs.clone(), owner: self.owner }
    }

    fn folder(&self, run: &RunId) -> PathBuf {
        self.runs().folder(run)
    }

    fn refuse_when_interrupted(&self, what: &'static str) -> Result<(), Line> {
        if self.onlooker.wants_end() { Err(interrupted(what)) } else { Ok(()) }
    }
}

pub fn interrupted(what: &'static str) -> Line {
    failed(what, "the trial was interrupted", "run it again")
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
    let Ok(place) = at.parse() else { return failed(VNC, format!("qemu says that vnc is at {at:?}"), mend) };
    match vnc::look(&place) {
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

/// The end of the logs in a folder, on one line.
pub fn printed(folder: &Path) -> String {
    let end_of = |path: PathBuf| -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(PRINTED_BYTES_MAX)))?;
        let mut text = Vec::new();
        file.take(PRINTED_BYTES_MAX).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let logs = entries.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let words: Vec<String> = logs.filter_map(|path| end_of(path).ok()).collect();
    let words: Vec<&str> =
        words.iter().flat_map(|words| words.lines()).map(str::trim).filter(|l| !l.is_empty()).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join("; ") }
}
