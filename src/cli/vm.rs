//! `labwright vm`: one vm at a time.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::context::Context;
use super::{Ended, LabOption, apply};
use crate::address::{Address, AddressPattern};
use crate::exit::Exit;
use crate::id::{LabName, RunId, VmName};
use crate::plan::target;
use crate::report::{Failure, Ui};
use crate::resolve::PowerState;
use crate::run::{self, Control, Event, RequestKind};
use crate::state::{Recorded, RunState};

/// How long a starter may take to answer a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

const ANSWER_POLL: Duration = Duration::from_millis(50);

/// Look at one vm
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Start a vm, whatever its manifest says
    Start {
        name: VmName,
        #[command(flatten)]
        lab: LabOption,
        #[command(flatten)]
        options: apply::Options,
    },
    /// Stop a vm; the next apply starts one that is to be `running` again
    Stop {
        name: VmName,
        #[command(flatten)]
        lab: LabOption,
        #[command(flatten)]
        options: apply::Options,
    },
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
    /// Talk to a guest over its serial line; Ctrl-D ends it
    Console {
        name: VmName,
        #[command(flatten)]
        lab: LabOption,
    },
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &mut Ui) -> Ended {
    match command {
        Command::Start { name, lab, options } => {
            let context = Context::new(site, &lab.lab, ui)?;
            power(&context, name, PowerState::Running, options, ui)
        }
        Command::Stop { name, lab, options } => {
            let context = Context::new(site, &lab.lab, ui)?;
            power(&context, name, PowerState::Stopped, options, ui)
        }
        Command::Screen { name, lab, output } => {
            let context = Context::new(site, &lab.lab, ui)?;
            screen(&context, name, output, ui)
        }
        Command::Console { name, lab } => {
            let context = Context::new(site, &lab.lab, ui)?;
            let run = live_run(&context, name, ui)?;
            let folder = Path::new(crate::host::RUN_ROOT).join(run.to_string());
            console(name, &crate::host::run_folder::serial_socket(&folder))
        }
    }
}

/// The part of the lab's plan that starts or stops one vm.
fn power(context: &Context, name: &VmName, wanted: PowerState, options: &apply::Options, ui: &mut Ui) -> Ended {
    let desired = context.desired(ui)?;
    if !desired.vms.contains_key(name) {
        return Err(unknown(&desired.lab, name, desired.vms.keys()));
    }
    let power = BTreeMap::from([(name.clone(), wanted)]);
    let pattern: AddressPattern = Address::vm(name).to_string().parse().expect("a vm's address is a pattern");
    let make = |recorded: &Recorded| {
        Ok(target(context.plan(&desired, recorded, &[], &power)?, std::slice::from_ref(&pattern)))
    };
    let doing = if wanted == PowerState::Running { "vm start" } else { "vm stop" };
    apply::reconcile(context, &desired, &make, options, doing, ui)
}

fn unknown<'a>(lab: &LabName, name: &VmName, known: impl Iterator<Item = &'a VmName>) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("lab `{lab}` has no vm `{name}`"));
    match known.max_by_key(|known| score(known.as_str(), name.as_str())) {
        Some(near) => failure.hint(format!("did you mean `{near}`? `labwright get vms` lists all")),
        None => failure.hint("no vm was made yet: `labwright apply` makes them"),
    }
}

/// The run of a vm that is not over, by the records.
fn live_run(context: &Context, name: &VmName, ui: &Ui) -> Result<RunId, Failure> {
    let desired = context.desired(ui)?;
    let recorded = context.recorded(&desired.lab)?;
    let vm = recorded.vms.get(name).ok_or_else(|| unknown(&desired.lab, name, recorded.vms.keys()))?;
    match &vm.run {
        Some(run) if !matches!(run.state, RunState::Ended { .. }) => Ok(run.run.clone()),
        _ => {
            Err(Failure::new(Exit::Failed, format!("vm `{name}` is not running")).hint("`labwright status` shows why"))
        }
    }
}

fn score(known: &str, wanted: &str) -> u32 {
    // Similarities are between 0 and 1; a thousandth is fine enough to order names by.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    let score = (strsim::jaro_winkler(known, wanted) * 1000.0) as u32;
    score
}

fn screen(context: &Context, name: &VmName, output: &Path, ui: &Ui) -> Ended {
    let run = live_run(context, name, ui)?;
    let folder = context.site.storage.runs.join(run.to_string());
    let file = ask(&folder, RequestKind::Screen, name)?;
    let copied = std::fs::copy(folder.join(run::ANSWERS).join(&file), output);
    copied.map_err(|source| {
        Failure::from_error(Exit::Failed, &source).within(format!("cannot write the picture to {}", output.display()))
    })?;
    ui.say(&format!("the screen of {name} is in {}", output.display()));
    Ok(Exit::Done)
}

/// Puts a request into the run's folder and waits for its answer.
fn ask(folder: &Path, kind: RequestKind, name: &VmName) -> Result<String, Failure> {
    let not_running = || {
        Failure::new(Exit::Failed, format!("vm `{name}` has no run folder any more"))
            .hint("`labwright status` shows why")
    };
    let mut control = Control::read(folder)?.ok_or_else(not_running)?;
    let records = run::read_report(folder)?;
    let answered = records.iter().filter_map(|record| match record.event {
        Event::Answer { number, .. } => Some(number),
        _ => None,
    });
    let number = control.ask(kind, answered.max().unwrap_or(0));
    control.write(folder)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while Instant::now() < deadline {
        for record in run::read_report(folder)? {
            match record.event {
                Event::Answer { number: n, file: Some(file), .. } if n == number => return Ok(file),
                Event::Answer { number: n, error, .. } if n == number => {
                    return Err(Failure::new(
                        Exit::Failed,
                        error.unwrap_or_else(|| "the starter could not do it".into()),
                    ));
                }
                Event::Stopped { reason, .. } => {
                    return Err(Failure::new(Exit::Failed, format!("vm `{name}` is not running: {reason}")));
                }
                _ => {}
            }
        }
        std::thread::sleep(ANSWER_POLL);
    }
    Err(Failure::new(
        Exit::NotReady,
        format!("the starter of `{name}` did not answer within {} s", ANSWER_TIMEOUT.as_secs()),
    )
    .hint("it may still wait in the queue, or its host may be gone: `labwright status` shows where it is"))
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
