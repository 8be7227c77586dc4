//! `labwright vm`: one vm at a time.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::context::Context;
use super::pick;
use super::plan::refuse_unknown;
use super::vm_request::Guest;
use super::{Ended, LabOption, apply, export_run, vnc};
use crate::exit::Exit;
use crate::model::address::{Address, AddressPattern};
use crate::model::id::{LabName, SnapshotName, VmName};
use crate::model::lab::{Desired, Vm};
use crate::plan::{Ask, Wish, target};
use crate::report::table::Format;
use crate::report::{Failure, Ui};
use crate::run::RequestKind;
use crate::state::Recorded;

/// Start, stop, look at one vm, and take it back in time
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Start vms, whatever their manifest says
    #[command(after_help = "Examples:
  labwright vm start alice-gsr --wait
  labwright vm start exam                 # every vm of the family
  labwright vm start 'a*-gsr' bob-gsr")]
    Start(PowerArguments),
    /// Stop vms; the next apply starts those that are to be `running` again
    #[command(after_help = STOP_HELP)]
    Stop(PowerArguments),
    /// Stop vms and start them again, with what their manifest says now
    #[command(after_help = STOP_HELP)]
    Restart(PowerArguments),
    /// Tell where the screens of running vms are, and their passwords
    Vnc(vnc::Arguments),
    /// Take a picture of a guest's screen
    #[command(after_help = "Example: labwright vm screen alice-gsr -o guest.png")]
    Screen {
        name: VmName,
        #[command(flatten)]
        lab: LabOption,
        /// Where the PNG goes.
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// Let a guest stand still, in memory, until `vm resume`
    #[command(after_help = "Example: labwright vm suspend alice-gsr")]
    Suspend {
        /// Names of vms or families; `*` stands for anything.
        #[arg(value_name = NAMES, required = true)]
        names: Vec<String>,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Let a suspended guest go on
    #[command(after_help = "Example: labwright vm resume alice-gsr")]
    Resume {
        /// Names of vms or families; `*` stands for anything.
        #[arg(value_name = NAMES, required = true)]
        names: Vec<String>,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Keep memory and disks of a running guest as they are now, to go back to
    ///
    /// The guest stands still while its memory is written into its first disk.
    #[command(after_help = "Examples:
  labwright vm snapshot alice-gsr                # named after the time
  labwright vm snapshot alice-gsr before-task-2")]
    Snapshot {
        name: VmName,
        /// What to call it.
        snapshot: Option<SnapshotName>,
        #[command(flatten)]
        lab: LabOption,
    },
    /// List the snapshots of a vm, whether it runs or not
    #[command(after_help = "Example: labwright vm snapshots alice-gsr")]
    Snapshots {
        name: VmName,
        #[command(flatten)]
        lab: LabOption,
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Take a running guest back to a snapshot; what it did since is lost
    #[command(after_help = "Example: labwright vm revert alice-gsr before-task-2")]
    Revert {
        name: VmName,
        /// One that `labwright vm snapshots NAME` lists.
        snapshot: SnapshotName,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Delete a snapshot of a running guest
    #[command(after_help = "Example: labwright vm delete-snapshot alice-gsr before-task-2")]
    DeleteSnapshot {
        name: VmName,
        /// One that `labwright vm snapshots NAME` lists.
        snapshot: SnapshotName,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Print a shell script that starts a vm by hand, for when nothing else works
    ///
    /// It holds the exact commands of a start (ip, bridge, nft, qemu), filter included, and no secret.
    #[command(after_help = "Examples:
  labwright vm export-run alice-gsr >alice.sh       # keep one for every vm before an exam
  sudo sh alice.sh                                  # on a host that has the disks")]
    ExportRun {
        name: VmName,
        #[command(flatten)]
        lab: LabOption,
        /// What qemu is to use there; by default what the site says, or what was found out on this host.
        #[arg(long, value_enum)]
        accel: Option<export_run::Accel>,
    },
    /// Talk to a guest over its serial line; Ctrl-D ends it
    Console {
        name: VmName,
        #[command(flatten)]
        lab: LabOption,
    },
}

const NAMES: &str = "VM|FAMILY|GLOB";

const STOP_HELP: &str =
    "In an open session, a vm that is named by its own name is meant. Of a family or a pattern, each vm
must be allowed: `--allow 'vm/*-gsr'`.

Examples:
  labwright vm stop alice-gsr
  labwright vm stop exam --yes            # every vm of the family";

#[derive(Debug, clap::Args)]
pub(super) struct PowerArguments {
    /// Names of vms or families; `*` stands for anything.
    #[arg(value_name = NAMES, required = true)]
    names: Vec<String>,
    /// Do what a guard refuses, for this address, such as `vm/ana-gsr`.
    #[arg(long, value_name = "ADDRESS")]
    allow: Vec<AddressPattern>,
    #[command(flatten)]
    lab: LabOption,
    #[command(flatten)]
    options: apply::Options,
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &mut Ui) -> Ended {
    match command {
        Command::Start(arguments) => power(arguments, Wish::Start, site, ui),
        Command::Stop(arguments) => power(arguments, Wish::Stop, site, ui),
        Command::Restart(arguments) => power(arguments, Wish::Restart, site, ui),
        Command::Vnc(arguments) => vnc::run(arguments, site, ui),
        Command::Screen { name, lab, output } => guest(name, lab, site, ui)?.screen(output, ui),
        Command::Suspend { names, lab } => guests(names, lab, site, ui, RequestKind::Suspend),
        Command::Resume { names, lab } => guests(names, lab, site, ui, RequestKind::Resume),
        Command::Snapshot { name, snapshot, lab } => guest(name, lab, site, ui)?.snapshot(snapshot.as_ref(), ui),
        Command::Snapshots { name, lab, output } => guest(name, lab, site, ui)?.list(*output, ui),
        Command::Revert { name, snapshot, lab } => {
            let kind = RequestKind::Revert { name: snapshot.to_string() };
            guest(name, lab, site, ui)?.with_snapshot(snapshot, kind, ui)
        }
        Command::DeleteSnapshot { name, snapshot, lab } => {
            let kind = RequestKind::DeleteSnapshot { name: snapshot.to_string() };
            guest(name, lab, site, ui)?.with_snapshot(snapshot, kind, ui)
        }
        Command::ExportRun { name, lab, accel } => {
            let (context, desired) = Context::of_known_lab(site, &lab.lab, ui)?;
            export_run::run(&context, &desired, name, *accel, ui)
        }
        Command::Console { name, lab } => {
            let run = guest(name, lab, site, ui)?.run()?;
            let folder = Path::new(crate::host::RUN_ROOT).join(run.to_string());
            console(name, &crate::host::run::run_folder::serial_socket(&folder))
        }
    }
}

fn guest(name: &VmName, lab: &LabOption, site: Option<&Path>, ui: &Ui) -> Result<Guest, Failure> {
    let (context, Desired { lab, .. }) = Context::of_known_lab(site, &lab.lab, ui)?;
    let mut recorded = context.recorded(&lab)?;
    match recorded.vms.remove(name) {
        Some(vm) => Ok(Guest { name: name.clone(), vm, runs: context.site.storage.runs }),
        None => Err(unknown(&lab, name.as_str(), recorded.vms.keys().map(VmName::as_str))),
    }
}

/// Asks the same of several guests, one after the other; one that cannot do it keeps nobody else from it.
fn guests(names: &[String], lab: &LabOption, site: Option<&Path>, ui: &Ui, kind: RequestKind) -> Ended {
    let (context, desired) = Context::of_known_lab(site, &lab.lab, ui)?;
    let mut recorded = context.recorded(&desired.lab)?;
    let meant = pick::recorded_vms(&desired.lab, names, &recorded)?;
    let mut failures = Vec::new();
    for name in &meant {
        let Some(vm) = recorded.vms.remove(name) else { continue };
        let guest = Guest { name: name.clone(), vm, runs: context.site.storage.runs.clone() };
        if let Err(failure) = guest.carry_out(kind.clone(), ui) {
            failures.push((name, failure));
        }
    }
    match failures.len() {
        0 => Ok(Exit::Done),
        1 => Err(failures.remove(0).1),
        number => {
            let mut failure = Failure::new(Exit::Failed, format!("{number} of {} vms did not do it", meant.len()));
            failure.causes =
                failures.into_iter().map(|(name, failure)| format!("{name}: {}", failure.message)).collect();
            Err(failure)
        }
    }
}

/// The part of the lab's plan that does what is asked of vms.
fn power(arguments: &PowerArguments, wish: Wish, site: Option<&Path>, ui: &mut Ui) -> Ended {
    let (context, desired) = &Context::of_known_lab(site, &arguments.lab.lab, ui)?;
    let recorded = context.recorded(&desired.lab)?;
    let leaving = recorded.vms.iter().filter(|(name, _)| !desired.vms.contains_key(*name));
    let leaving = leaving.filter(|_| wish == Wish::Stop).map(|(name, known)| (name, &known.vm));
    let known: Vec<(&VmName, &Vm)> = desired.vms.iter().chain(leaving).collect();
    let families = known.iter().map(|(name, vm)| (*name, &vm.family));
    let meant = pick::vms(&desired.lab, &arguments.names, families)?;
    let is_named = |name: &VmName| arguments.names.iter().any(|word| word.trim_start_matches("vm/") == name.as_str());
    let ask = |name: VmName| (name.clone(), Ask { wish, by_name: is_named(&name) });
    let asks: BTreeMap<VmName, Ask> = meant.into_iter().map(ask).collect();
    let pattern = |name: &VmName| Address::vm(name).to_string().parse().expect("a vm's address is a pattern");
    let targets: Vec<AddressPattern> = asks.keys().map(pattern).collect();
    let make = |recorded: &Recorded| {
        let plan = context.plan(desired, recorded, &arguments.allow, &asks)?;
        refuse_unknown("--allow", &arguments.allow, desired, recorded, &plan)?;
        Ok(target(plan, &targets))
    };
    let verb = match wish {
        Wish::Start => "start",
        Wish::Stop => "stop",
        Wish::Restart => "restart",
    };
    let doing = format!("vm {verb} {}", arguments.names.join(" "));
    apply::reconcile(context, desired, &make, &arguments.options, &doing, ui)
}

pub(super) fn unknown<'a>(lab: &LabName, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    const LIKENESS_MIN: u32 = 700;
    let failure = Failure::new(Exit::Failed, format!("lab `{lab}` has no vm `{name}`"));
    let all: Vec<&str> = known.collect();
    let near = all.iter().max_by_key(|known| score(known, name)).filter(|known| score(known, name) >= LIKENESS_MIN);
    match near {
        Some(near) => failure.hint(format!("did you mean `{near}`? `labwright get vms` lists all")),
        None if all.is_empty() => failure.hint("no vm was made yet: `labwright apply` makes them"),
        None => failure.hint("`labwright get vms` lists all"),
    }
}

fn score(known: &str, wanted: &str) -> u32 {
    // Similarities are between 0 and 1; a thousandth is fine enough to order names by.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    let score = (strsim::jaro_winkler(known, wanted) * 1000.0) as u32;
    score
}

/// Joins standard input and output with a guest's serial line.
fn console(name: &VmName, socket: &Path) -> Ended {
    let failed = |source: std::io::Error| {
        Failure::from_error(Exit::Failed, &source)
            .within(format!("cannot reach the serial line of `{name}` at {}", socket.display()))
            .hint("the console works on the host that runs the vm: see `labwright get mappings`")
    };
    let mut line = UnixStream::connect(socket).map_err(failed)?;
    let mut from_guest = line.try_clone().map_err(failed)?;
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from_guest.read(&mut buffer) {
            let mut out = std::io::stdout().lock();
            if out.write_all(&buffer[..read]).and_then(|()| out.flush()).is_err() {
                break;
            }
        }
        std::process::exit(i32::from(Exit::Done as u8));
    });
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = std::io::stdin().read(&mut buffer) {
        line.write_all(&buffer[..read]).map_err(failed)?;
    }
    Ok(Exit::Done)
}
