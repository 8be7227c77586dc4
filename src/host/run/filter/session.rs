//! An `nft -i` child that owns a run's table: the table lives exactly as long as the child, the child as long as its
//! standard input, and that as long as the starter. Commands go in as lines; listings come back as text.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ebtables::EbtablesError;
use super::listing::Listing;
use super::table::Table;
use super::{HOST_TABLE, difference, host_table};
use crate::host::command::{CommandError, spawn_error};

/// How long nft may take to answer: it takes milliseconds, so that this is long enough on a host that boots a class.
const ANSWER_SECONDS_MAX: u64 = 10;

/// What nft may keep of memory that it has freed.
const FREE_KEPT_BYTES_MAX: &str = "65536";

/// How long the pieces of one complaint may take to arrive.
const COMPLAINT_WAIT: Duration = Duration::from_millis(20);

/// What went wrong with a filter. A guest whose filter does not stand reaches nobody.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error(transparent)]
    Start(CommandError),
    #[error("nft refused `{command}`: {stderr}")]
    Refused { command: String, stderr: String },
    #[error("nft gave no answer to `{command}` within {ANSWER_SECONDS_MAX} s")]
    Silent { command: String },
    #[error("nft, which holds the filter, has ended at `{command}`")]
    Ended { command: String },
    #[error("the filter `{table}` does not read back from the kernel as it was written: {difference}")]
    Differs { table: String, difference: String },
    #[error(transparent)]
    Ebtables(#[from] EbtablesError),
    #[error(
        "this host's table `bridge {HOST_TABLE}`, which cuts off guests without a filter, is {state}; \
         run `labwright host setup` on this host"
    )]
    HostTable { state: String },
}

/// A running `nft -i`.
#[derive(Debug)]
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    errors: ChildStderr,
}

impl Session {
    /// Starts nft; signals that must not end it are to be ignored by then. Nothing is waited for.
    pub fn start() -> Result<Self, FilterError> {
        // Priorities as numbers: nft has names for some.
        let mut child = Command::new("nft")
            .args(["-y", "-i"])
            // To add a table, nft takes half a MiB for each that stands on this host, and would keep it as long as it lives.
            .env("MALLOC_TRIM_THRESHOLD_", FREE_KEPT_BYTES_MAX)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| FilterError::Start(spawn_error("nft", "nft -y -i".to_owned(), source)))?;
        let input = child.stdin.take().expect("stdin is piped");
        let output = child.stdout.take().expect("stdout is piped");
        let errors = child.stderr.take().expect("stderr is piped");
        Ok(Self { child, input, output, errors })
    }

    /// Gives the kernel the table; `verify` says whether it took it.
    pub fn add(&mut self, table: &Table) -> Result<(), FilterError> {
        self.send(&table.command())
    }

    /// Gives the kernel the table in place of the one of its name, in one transaction.
    pub fn replace(&mut self, table: &Table) -> Result<(), FilterError> {
        self.send(&format!("delete table bridge {} ; {}", table.name, table.command()))
    }

    /// Reads the table back and compares.
    pub fn verify(&mut self, table: &Table) -> Result<Listing, FilterError> {
        self.whole(table)?.map_err(|difference| FilterError::Differs { table: table.name.clone(), difference })
    }

    /// Whether the host's permanent table stands.
    pub fn verify_host_table(&mut self) -> Result<(), FilterError> {
        let state = match self.whole(&host_table()) {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(difference)) => format!("not as it should be ({difference})"),
            Err(FilterError::Refused { .. }) => "missing".to_owned(),
            Err(error) => return Err(error),
        };
        Err(FilterError::HostTable { state })
    }

    /// The table as it is listed, or what of it differs.
    fn whole(&mut self, table: &Table) -> Result<Result<Listing, String>, FilterError> {
        let command = format!("list table bridge {}", table.name);
        difference(|| Ok(Listing::read(&self.list(&command)?)), |listing| table.difference(listing))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether nft has not ended, and the run's table with it.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends nft, and the run's table with it.
    pub fn end(&mut self) {
        // An error means that the child is gone already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Gives nft a command whose success says nothing; a refusal comes with the next listing.
    pub fn send(&mut self, command: &str) -> Result<(), FilterError> {
        let line = format!("{command}\n");
        self.input
            .write_all(line.as_bytes())
            .and_then(|()| self.input.flush())
            .map_err(|_| FilterError::Ended { command: shortened(command) })
    }

    /// A listing ends with a brace at the start of a line; a refusal comes on the other pipe.
    fn list(&mut self, command: &str) -> Result<String, FilterError> {
        self.send(command)?;
        let deadline = Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
        let mut text = Vec::new();
        while !text.ends_with(b"\n}\n") {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FilterError::Silent { command: shortened(command) });
            }
            self.read_some(&mut text, left, command)?;
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn read_some(&mut self, text: &mut Vec<u8>, wait: Duration, command: &str) -> Result<(), FilterError> {
        let mut ready =
            [PollFd::new(self.output.as_fd(), PollFlags::POLLIN), PollFd::new(self.errors.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        // An interrupted or failed poll reads as "nothing yet"; the deadline of the caller ends it.
        if poll(&mut ready, wait).unwrap_or(0) == 0 {
            return Ok(());
        }
        let [output, errors] = ready.map(|fd| fd.any().unwrap_or(false));
        let mut buffer = [0; 4096];
        let ended = |_| FilterError::Ended { command: shortened(command) };
        if errors {
            // nft writes a complaint in several pieces.
            std::thread::sleep(COMPLAINT_WAIT);
            let length = self.errors.read(&mut buffer).map_err(ended)?;
            if let Some(stderr) = refusal(&String::from_utf8_lossy(&buffer[..length])) {
                return Err(FilterError::Refused { command: shortened(command), stderr });
            }
        }
        if output {
            let length = self.output.read(&mut buffer).map_err(ended)?;
            if length == 0 {
                return Err(FilterError::Ended { command: shortened(command) });
            }
            text.extend_from_slice(&buffer[..length]);
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whole tables make no readable message.
fn shortened(command: &str) -> String {
    command.chars().take(80).collect()
}

/// nft's reasons to refuse a command, without the command that it repeats below them. It says other things, too: without a
/// terminal's name, as in a batch job, nft 1.1 complains that it must use dumb settings.
fn refusal(stderr: &str) -> Option<String> {
    let reasons: Vec<&str> = stderr.lines().filter(|line| line.contains("Error:")).collect();
    (!reasons.is_empty()).then(|| reasons.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reason_is_a_refusal() {
        let refused = "Error: No such file or directory\nlist table bridge lw_x\n                  ^^^^\n";
        assert_eq!(refusal(refused).unwrap(), "Error: No such file or directory");
        let cache = "netlink: Error: cache initialization failed: Operation not permitted\n";
        assert_eq!(refusal(cache).unwrap(), cache.trim_end());
        assert_eq!(refusal("Cannot read termcap database;\nusing dumb terminal settings.\n"), None);
        assert_eq!(refusal(""), None);
    }
}
