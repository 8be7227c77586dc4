//! What the controller and a job that tries its host say to each other, through the trial's folder on the shared storage: an
//! order there, an answer back.
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

use super::Trial;
use crate::error::chain;
use crate::files::{self, FileError, Flush};
use crate::host::machine::check::{Line, failed};
use crate::model::lab::VmGroup;
use crate::model::site::Site;

/// What a line of the page is about that tells of a job, not of its trial.
pub const JOB: &str = "exam: job";
const ORDER: &str = "order.json";
const FOUND: &str = "found.json";
/// The longest order or answer that is read.
const BYTES_MAX: u64 = 1 << 20;

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("cannot read the order {}", path.display())]
    Read { path: PathBuf, source: FileError },
    #[error("cannot read the order {}", path.display())]
    Format { path: PathBuf, source: serde_json::Error },
    #[error("the order has format {found}, this labwright knows {}", Order::VERSION)]
    Version { found: u32 },
    #[error("nobody waits for this trial since {until:.0}")]
    Late { until: jiff::Timestamp },
    #[error(transparent)]
    Answer(FileError),
}

/// What a job is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub version: u32,
    /// Later than this nobody waits for the answer.
    pub until: jiff::Timestamp,
    pub site: Site,
    pub groups: Vec<VmGroup>,
    /// Whether the host itself is to be looked at as well.
    pub with_host: bool,
    pub trial: Trial,
}

#[derive(Debug, Serialize, Deserialize)]
struct Found {
    version: u32,
    lines: Vec<Line>,
}

impl Order {
    pub const VERSION: u32 = 1;

    /// The order in a folder, as long as somebody waits for its answer.
    pub fn read(folder: &Path) -> Result<Self, OrderError> {
        let path = folder.join(ORDER);
        let text = files::read_bounded(&path, BYTES_MAX);
        let text = text.map_err(|source| OrderError::Read { path: path.clone(), source })?.unwrap_or_default();
        let order: Self = serde_json::from_slice(&text).map_err(|source| OrderError::Format { path, source })?;
        match order {
            Self { version: found, .. } if found != Self::VERSION => Err(OrderError::Version { found }),
            Self { until, .. } if jiff::Timestamp::now() > until => Err(OrderError::Late { until }),
            order => Ok(order),
        }
    }

    pub fn write(&self, folder: &Path) -> Result<(), Line> {
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
pub fn found(folder: &Path) -> Result<Option<Vec<Line>>, Line> {
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

/// Writes the answer down.
pub fn answer(folder: &Path, lines: Vec<Line>) -> Result<(), OrderError> {
    let found = Found { version: Order::VERSION, lines };
    let text = serde_json::to_vec(&found).expect("an answer has only string keys");
    files::write_atomically(&folder.join(FOUND), &text, 0o600, Flush::Now).map_err(OrderError::Answer)
}
