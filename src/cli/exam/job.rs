//! What the controller and a job that tries its host say to each other, through the trial's folder on the shared storage: an
//! order there, an answer back. In the job, the carrying out.
//!
//! ```text
//! runs/trials/<run>/
//!   order.json    what to try; written before the submit
//!   found.json    the job's answer
//!   <job>.log     what it printed
//! ```

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::Ended;
use super::super::context::of_site;
use super::super::host;
use super::interrupt::Interrupt;
use super::trial::{Here, Trial};
use crate::error::chain;
use crate::exit::Exit;
use crate::files::{self, Flush};
use crate::host::machine::check::{Line, failed};
use crate::model::lab::VmGroup;
use crate::model::site::Site;
use crate::report::{Failure, Ui};
use crate::run::RunFileError;

/// What a line of the page is about that tells of a job, not of its trial.
pub(super) const JOB: &str = "exam: job";
const ORDER: &str = "order.json";
const FOUND: &str = "found.json";
/// The longest order or answer that is read.
const BYTES_MAX: u64 = 1 << 20;

/// What a job is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) version: u32,
    /// Later than this nobody waits for the answer.
    pub(super) until: jiff::Timestamp,
    pub(super) site: Site,
    pub(super) groups: Vec<VmGroup>,
    /// Whether the host itself is to be looked at as well.
    pub(super) with_host: bool,
    pub(super) trial: Trial,
}

#[derive(Debug, Serialize, Deserialize)]
struct Found {
    version: u32,
    lines: Vec<Line>,
}

impl Order {
    pub(super) const VERSION: u32 = 1;

    pub(super) fn write(&self, folder: &Path) -> Result<(), Line> {
        let text = serde_json::to_vec(self).expect("an order has only string keys");
        let made = DirBuilder::new().mode(0o700).create(folder);
        made.map_err(|error| chain(&error))
            .and_then(|()| {
                files::write_atomically(&folder.join(ORDER), &text, 0o600, Flush::Now).map_err(|error| chain(&error))
            })
            .map_err(|error| failed(JOB, format!("cannot write into {}: {error}", folder.display()), "see its owner"))
    }
}

/// The answer, once it is there.
pub(super) fn found(folder: &Path) -> Result<Option<Vec<Line>>, Line> {
    let path = folder.join(FOUND);
    let text = match files::read_bounded(&path, BYTES_MAX) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        Err(error) => return Err(failed(JOB, chain(&error), "see the lines about storage")),
    };
    match serde_json::from_slice(&text) {
        Ok(Found { version: Order::VERSION, lines }) => Ok(Some(lines)),
        _ => {
            let mend = "the program must be the same on every host: install it there anew";
            Err(failed(JOB, format!("{} is not what this labwright writes there", path.display()), mend))
        }
    }
}

/// Try this host, as an order says; the batch system calls this.
#[derive(Debug, clap::Args)]
pub(in super::super) struct JobArguments {
    /// Where the order is, and the answer goes.
    folder: PathBuf,
    /// Number of the job's only task.
    task: u32,
}

impl JobArguments {
    pub(in super::super) fn run(&self, ui: &Ui) -> Ended {
        let interrupt = Interrupt::hold_back()?;
        let path = self.folder.join(ORDER);
        let wrong = |error: &dyn std::error::Error| {
            Failure::from_error(Exit::Failed, error).within(format!("cannot read the order {}", path.display()))
        };
        let text = files::read_bounded(&path, BYTES_MAX).map_err(|error| wrong(&error))?.unwrap_or_default();
        let order: Order = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
        if order.version != Order::VERSION {
            let message = format!("the order has format {}, this labwright knows {}", order.version, Order::VERSION);
            return Err(Failure::new(Exit::Failed, message));
        }
        if jiff::Timestamp::now() > order.until {
            return Err(Failure::new(Exit::Failed, format!("nobody waits for this trial since {:.0}", order.until)));
        }
        let context = of_site(order.site)?;
        let mut lines = if order.with_host { host::lines_of_host(&order.groups, &context.site)? } else { Vec::new() };
        let here = Here { owner: context.owner()?, context: &context, interrupt: &interrupt, ui };
        lines.extend(order.trial.carry_out(&here));
        let found = Found { version: Order::VERSION, lines };
        let text = serde_json::to_vec(&found).expect("an answer has only string keys");
        files::write_atomically(&self.folder.join(FOUND), &text, 0o600, Flush::Now).map_err(RunFileError::from)?;
        Ok(Exit::Done)
    }
}
