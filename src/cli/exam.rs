//! `labwright host check --exam`: the usual page, then a trial with real guests, here or in jobs on the site's hosts, and what
//! both come to. And the hidden command that such a job runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Ended;
use super::context::{of_site, open, program};
use super::interrupt::Interrupt;
use crate::control::check::{lines_of_cluster, lines_of_host};
use crate::control::exam::{self, HostLine, Which};
use crate::control::{Context, ControlError};
use crate::exit::Exit;
use crate::host::machine::check::{Line, Verdict};
use crate::model::lab::{Desired, VmGroup};
use crate::model::site::Site;
use crate::report::page::page;
use crate::report::table::Format;
use crate::report::{Failure, Ui};
use crate::trial::{Onlooker, Order};

/// The person at the terminal, who may have enough of it.
struct Terminal<'a> {
    ui: &'a Ui,
    interrupt: Interrupt,
}

impl Onlooker for Terminal<'_> {
    fn hears(&self, line: &str) {
        self.ui.say(line);
    }

    fn wants_end(&self) -> bool {
        self.interrupt.has_come()
    }
}

pub(super) fn failures(lines: &[Line]) -> usize {
    lines.iter().filter(|line| line.verdict == Verdict::Failed).count()
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
    let context = open(site, wanted.lab)?;
    let desired = context.desired()?;
    // A site that was made before `state init` made its folders may have none yet.
    context.make_storage()?;
    let onlooker = Terminal { ui, interrupt: Interrupt::hold_back()? };
    match &wanted.which {
        Some(which) => hosts(&context, &desired, which, wanted, &onlooker),
        None => here(&context, &desired, wanted, &onlooker),
    }
}

fn hosts(context: &Context, desired: &Desired, which: &Which, wanted: &Wanted<'_>, onlooker: &Terminal<'_>) -> Ended {
    let of_cluster: Vec<HostLine> = lines_of_cluster(&context.site, &context.caller.program)
        .into_iter()
        .map(|line| HostLine::new(None, line))
        .collect();
    let (hosts, of_hosts) = exam::lines_of_hosts(context, desired, which, wanted.timeout, onlooker)?;
    let mut lines = [of_cluster, of_hosts].concat();
    let is_red = |host: &&String| lines.iter().any(|line| line.is_red() && line.host.as_ref() == Some(host));
    let red: Vec<&str> = hosts.iter().filter(is_red).map(String::as_str).collect();
    let green = hosts.len() - red.len();
    let (word, exit) = if lines.iter().any(HostLine::is_red) {
        let named = if red.is_empty() { String::new() } else { format!(", not {}", red.join(", ")) };
        (format!("red: {green} of {} hosts are ready for {}{named}", hosts.len(), desired.lab), Exit::NotReady)
    } else {
        (format!("green: {green} of {green} hosts are ready for {}", desired.lab), Exit::Done)
    };
    if wanted.output == Format::Table {
        lines.retain(HostLine::is_news);
    }
    show(&page(&lines, wanted.output), &word, wanted.output, onlooker.ui);
    Ok(exit)
}

fn here(context: &Context, desired: &Desired, wanted: &Wanted<'_>, onlooker: &Terminal<'_>) -> Ended {
    let groups: Vec<VmGroup> = desired.vm_groups.values().cloned().collect();
    let mut lines = lines_of_host(&groups, &context.site, &context.caller.program);
    lines.extend(lines_of_cluster(&context.site, &context.caller.program));
    lines.extend(exam::lines(context, desired, wanted.timeout, onlooker)?);
    let (word, exit) = match failures(&lines) {
        0 => (format!("green: this host is ready for {}", desired.lab), Exit::Done),
        1 => ("red: 1 thing to mend".to_owned(), Exit::NotReady),
        many => (format!("red: {many} things to mend"), Exit::NotReady),
    };
    show(&page(&lines, wanted.output), &word, wanted.output, onlooker.ui);
    Ok(exit)
}

fn show(page: &str, word: &str, output: Format, ui: &Ui) {
    ui.data(page);
    if output == Format::Table {
        ui.data(&format!("{word}\n"));
    }
}

/// The usual page, without a guest.
pub(super) fn without_guest(groups: &[VmGroup], site: &Site) -> Result<Vec<Line>, Failure> {
    let program = program()?;
    Ok([lines_of_host(groups, site, &program), lines_of_cluster(site, &program)].concat())
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
        let onlooker = Terminal { ui, interrupt: Interrupt::hold_back()? };
        let order = Order::read(&self.folder).map_err(ControlError::from)?;
        let context = of_site(order.site.clone())?;
        exam::carry_out(&order, &context, &self.folder, &onlooker)?;
        Ok(Exit::Done)
    }
}
