//! `labwright host check --exam`: the usual page, then a trial with real guests, here or in jobs on the site's hosts, and what
//! both come to. And the hidden command that such a job runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Ended;
use super::context::{of_site, open};
use crate::control::ControlError;
use crate::control::exam::{self, Which};
use crate::exit::Exit;
use crate::host::signals::Interrupt;
use crate::report::page::{self, page};
use crate::report::table::Format;
use crate::report::{Failure, Ui};
use crate::trial::{Onlooker, Order};

/// The person at the terminal, who may have enough of it.
struct Terminal<'a> {
    ui: &'a Ui,
    interrupt: Interrupt,
}

impl<'a> Terminal<'a> {
    fn new(ui: &'a Ui) -> Result<Self, Failure> {
        let interrupt = Interrupt::hold_back().map_err(|error| {
            Failure::from_error(Exit::Failed, &error).within("cannot hold signals back for a trial")
        })?;
        Ok(Self { ui, interrupt })
    }
}

impl Onlooker for Terminal<'_> {
    fn hears(&self, line: &str) {
        self.ui.say(line);
    }

    fn wants_end(&self) -> bool {
        self.interrupt.has_come()
    }
}

/// What a person wants to know of a lab on the day before its exam.
pub(super) struct Wanted<'a> {
    pub(super) lab: &'a Path,
    /// Which of the site's hosts; this one where none is named.
    pub(super) which: Option<Which>,
    pub(super) timeout: Duration,
    pub(super) output: Format,
}

pub(super) fn run(wanted: &Wanted<'_>, site: Option<&Path>, ui: &Ui) -> Ended {
    let Wanted { lab, which, timeout, output } = wanted;
    let context = open(site, lab)?;
    let desired = context.desired()?;
    // A site that was made before `state init` made its folders may have none yet.
    context.make_storage()?;
    let onlooker = Terminal::new(ui)?;
    let (page, (is_green, word)) = match which {
        Some(which) => {
            let (hosts, mut lines) = exam::lines_of_hosts(&context, &desired, which, *timeout, &onlooker)?;
            let verdict = page::of_hosts(&hosts, &lines, &desired.lab);
            lines.retain(|line| *output != Format::Table || line.is_news());
            (page(&lines, *output), verdict)
        }
        None => {
            let lines = exam::lines_of_this_host(&context, &desired, *timeout, &onlooker)?;
            (page(&lines, *output), page::of_host(&lines, &desired.lab))
        }
    };
    ui.data(&page);
    if *output == Format::Table {
        ui.data(&format!("{word}\n"));
    }
    Ok(if is_green { Exit::Done } else { Exit::NotReady })
}

/// Try this host, as an order says; the batch system calls this.
#[derive(Debug, clap::Args)]
pub(super) struct JobArguments {
    /// Where the order is, and the answer goes.
    folder: PathBuf,
    /// Number of the job's only task.
    task: u32,
}

impl JobArguments {
    pub(super) fn run(&self, ui: &Ui) -> Ended {
        let onlooker = Terminal::new(ui)?;
        let order = Order::read(&self.folder).map_err(ControlError::from)?;
        let context = of_site(order.site.clone())?;
        exam::carry_out(&order, &context, &self.folder, &onlooker)?;
        Ok(Exit::Done)
    }
}
