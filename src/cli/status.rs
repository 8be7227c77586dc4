//! `labwright status`: where the lab stands, in one screen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::context::{command, of_known_lab};
use super::get::vms::{self, VmRow};
use super::{Ended, LabFolder};
use crate::control::{Context, pick};
use crate::exit::Exit;
use crate::model::lab::Desired;
use crate::report::table::{Format, render};
use crate::report::{Failure, Ui, harmless, times};
use crate::state::{FreezeScope, Frozen};

/// Most vms whose trouble is told below the table, one line each.
const REASONS_MAX: usize = 10;

/// How long a look stands where somebody watches.
const WATCH_PERIOD: Duration = Duration::from_secs(2);

/// Show where the lab stands
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright status
  labwright status labs/net exam            # one family of it
  labwright status . 'alice-*' -o json
  labwright status --watch                  # until Ctrl-C
  labwright status --watch -o json | while read -r line; do ...; done")]
pub(super) struct Arguments {
    #[command(flatten)]
    lab: LabFolder,

    /// Only these vms, by name or family; `*` stands for anything.
    #[arg(value_name = "VM")]
    vms: Vec<String>,

    /// How it is written: `json` and `yaml` have all that is known, `wide` all columns.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    /// Look again every 2 seconds, until Ctrl-C: a terminal is drawn anew, `-o json` has a line for each look.
    #[arg(long, short)]
    watch: bool,
}

/// All of it, for programs.
#[derive(Debug, Serialize)]
struct Status<'a> {
    lab: String,
    serial: u64,
    frozen: Option<Freeze<'a>>,
    /// How many vms are in each state.
    states: BTreeMap<&'a str, usize>,
    vms: &'a [VmRow],
}

#[derive(Debug, Serialize)]
struct Freeze<'a> {
    /// `lab` or `site`.
    scope: &'static str,
    who: &'a str,
    why: &'a str,
    #[serde(serialize_with = "times::serialize")]
    since: jiff::Timestamp,
}

impl<'a> Freeze<'a> {
    fn of(frozen: &'a Frozen) -> Self {
        let scope = match frozen.scope {
            FreezeScope::Lab => "lab",
            FreezeScope::Site => "site",
        };
        Self { scope, who: &frozen.who, why: &frozen.why, since: frozen.since }
    }
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (folder, first) = arguments.lab.folder_and_operand();
    let (context, desired) = of_known_lab(site, &folder)?;
    let first = first.map(|word| word.to_string_lossy().into_owned());
    let vms: Vec<String> = first.into_iter().chain(arguments.vms.iter().cloned()).collect();
    let look = || look(&context, &desired, &vms, arguments);
    ui.data(&look()?);
    if !arguments.watch {
        return Ok(Exit::Done);
    }
    loop {
        std::thread::sleep(WATCH_PERIOD);
        match look() {
            Ok(text) if arguments.output == Format::Json => ui.data(&text),
            Ok(text) => ui.redraw(&text),
            // A queue that does not answer now may answer the next time.
            Err(failure) => ui.say_rendered(&failure.render()),
        }
    }
}

/// How the lab stands at this moment.
fn look(context: &Context, desired: &Desired, vms: &[String], arguments: &Arguments) -> Result<String, Failure> {
    let recorded = context.recorded(&desired.lab)?;
    let observed = context.observe(desired, &recorded)?;
    let mut rows = vms::vm_rows(&recorded, &observed, &context.site);
    if !vms.is_empty() {
        let picked = pick::recorded_vms(&desired.lab, vms, &recorded)?;
        rows.retain(|row| picked.iter().any(|vm| vm.as_str() == row.name));
    }
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().for_each(|row| *states.entry(&row.state).or_default() += 1);
    let status = Status {
        lab: desired.lab.to_string(),
        serial: recorded.serial,
        frozen: recorded.frozen.as_ref().map(Freeze::of),
        states,
        vms: &rows,
    };
    Ok(match arguments.output {
        Format::Json if arguments.watch => serde_json::to_string(&status).expect("it has only string keys") + "\n",
        Format::Json => serde_json::to_string_pretty(&status).expect("it has only string keys") + "\n",
        Format::Yaml => serde_yaml::to_string(&status).expect("it has only string keys"),
        Format::Csv | Format::Name => render(&rows, arguments.output),
        Format::Table | Format::Wide => text(&status, &command(context, "apply"), arguments.output),
    })
}

fn text(status: &Status<'_>, apply: &str, format: Format) -> String {
    let counts: Vec<String> = status.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let counts = match (counts.is_empty(), status.serial) {
        (false, _) => counts.join(", "),
        (true, 0) => format!("no vms yet: `{apply}` makes them"),
        (true, _) => "it has no vms".to_owned(),
    };
    let mut text = format!("lab {} (serial {}): {counts}\n", status.lab, status.serial);
    if let Some(Freeze { scope, who, why, since }) = &status.frozen {
        let (thing, all) = if *scope == "site" { ("the whole site", " --all") } else { ("the lab", "") };
        let since = times::local(*since);
        let why = harmless(why);
        writeln!(text, "frozen: {who} froze {thing} at {since} ({why}); `labwright thaw{all}` ends it")
            .expect(TAKES_ALL);
    }
    text.push('\n');
    text.push_str(&render(status.vms, format));
    text.push_str(&reasons(status.vms));
    text
}

const TAKES_ALL: &str = "a string takes all";

/// Why vms are not what was wanted of them. What many have in common is said once.
fn reasons(rows: &[VmRow]) -> String {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        if let Some(why) = &row.why {
            by_reason.entry(why).or_default().push(&row.name);
        }
    }
    let mut text = String::new();
    for (why, vms) in by_reason.iter().take(REASONS_MAX) {
        let lead = if text.is_empty() { "\n" } else { "" };
        let others = match vms.len() {
            1 => String::new(),
            2 => " and 1 more".to_owned(),
            n => format!(" and {} more", n - 1),
        };
        writeln!(text, "{lead}{}{others}: {}", harmless(vms[0]), harmless(why)).expect(TAKES_ALL);
    }
    if by_reason.len() > REASONS_MAX {
        writeln!(text, "… {} more reasons: `-o wide` shows them all", by_reason.len() - REASONS_MAX).expect(TAKES_ALL);
    }
    text
}
