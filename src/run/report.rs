//! `report.jsonl`: what a starter says of its run, one JSON object per line. One writer; each record is fsynced; a torn
//! last line is unfinished and not read. The file stays small: see `starter`.
//!
//! ```text
//! prepared ─▶ networked ─▶ running ─▶ ready ─▶ stopping ─▶ stopped
//!     │           │           │  ▲                            ▲
//!     │           │           ▼  │ resumed                    │
//!     │           │       paused, off                         │
//!     └───────────┴───────────┴────── anything may end ───────┘
//! ```

use std::net::Ipv4Addr;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dropped, REPORT, RunFileError};
use crate::files::{self, Folder};
use crate::model::id::{Mac, RunId};
use crate::model::lab::Egress;

/// One line of a run's `report.jsonl`, written by its starter. A last line without a line end is unfinished: do not read
/// it. Fields and events are only added: ignore those that you do not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// The version of the report's format, in its first record. Reports of before there were versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Which parts of `control.json` the starter obeys, in its first record: it does nothing about any other. Starters that
    /// have none obey `generation`, `wanted`, `requests` and version 1's `deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obeys: Option<Vec<String>>,
    /// The run that it is about.
    pub run: RunId,
    /// Counts the runs of the vm; of two, the greater one is the vm's.
    pub generation: u64,
    /// When, on the host's clock.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: jiff::Timestamp,
    #[serde(flatten)]
    pub event: Event,
}

/// Why a guest is paused that somebody had suspended; any other reason is for the sake of its disks, or qemu's own.
pub const PAUSED_ON_REQUEST: &str = "it was asked to";
/// Why one is paused whose clock stands still.
pub const PAUSED_BY_SESSION: &str = "its session is paused";

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The host has what the run needs.
    Prepared {
        /// Name of the host.
        host: String,
    },
    /// Filter and tap stand, and qemu answers; its guest waits for its turn to boot.
    Networked {
        /// The guest's interface on the host.
        tap: String,
        /// Ethernet address of the gateway, where the guest's filter goes by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gateway: Option<Mac>,
    },
    /// qemu answers. The mapping of the paper (section III).
    Running {
        /// Name of the host.
        host: String,
        /// Process of qemu on the host.
        pid: u32,
        /// The guest's interface on the host.
        tap: String,
        /// `address:port` of the vnc server; `unix:PATH` where it is a socket on the host.
        vnc: String,
        /// Address that the guest may use.
        ip: Ipv4Addr,
        /// Ethernet address that the guest may use.
        mac: Mac,
        /// Whether the guest is kept away from the other vms.
        isolated: bool,
        /// `kvm` or `tcg`.
        accel: String,
        /// The host's clock minus the storage server's, in milliseconds.
        clock_offset_ms: i64,
        /// Which bounds of memory, processors and threads the guest goes without on this host, and why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unbounded: Option<String>,
    },
    /// The guest was seen using its planned address.
    Ready,
    /// The guest stands still: it was asked to, its session is paused, the starter could not reach its storage for `self_fence`, qemu halted it, as
    /// on a full disk, or qemu does not answer.
    Paused {
        /// Why it stands still.
        reason: String,
    },
    /// The guest goes on.
    Resumed,
    /// The guest is its owner's: it is not locked, or not any more. Said only of one that was, or could have been.
    Opened,
    /// Nobody can look at the guest, and it reaches nobody, or one of both; it runs.
    Locked {
        /// Why it is locked.
        reason: Lock,
    },
    /// The guest was told how much time its owner has left.
    Warned {
        /// As of the warning.
        left_seconds: u64,
        /// What was in the way, where it was not told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// Others look at the guest's screen than before. Of many changes in a short time one record tells.
    LookedAt {
        /// How many look now.
        viewers: u32,
        /// Who has begun to since the last such record: addresses, `socket` for a process of the host. Of very many, some.
        began: Vec<String>,
    },
    /// The starter lives.
    Heartbeat,
    /// Request `number` was carried out, or not.
    Answer {
        /// The request's number in `control.json`.
        number: u64,
        /// What came of it, below the run's folder.
        file: Option<String>,
        /// Why it was not carried out.
        error: Option<String>,
    },
    /// The guest died early; the starter starts it again.
    Restarting {
        /// Which start this is.
        attempt: u32,
        /// How the guest ended.
        exit: String,
    },
    /// The guest is off, and its run goes on without: it begins again, with other disks, when that is wanted.
    Off {
        /// How qemu ended.
        exit: String,
    },
    /// The guest was asked to power itself off.
    Stopping {
        /// Why the run ends.
        reason: StopReason,
    },
    /// The guest runs and reaches nobody: its host has lost the bridge, or the filter that it must have.
    CutOff {
        /// What is missing.
        reason: String,
    },
    /// It is back on its bridge, behind its filter.
    Connected,
    /// Something that an admin should know, and that changes nothing for the guest.
    Warning {
        /// What it is.
        message: String,
    },
    /// The rules that decide whom the guest reaches, as they were read back after they were put up; of guests that have a session.
    Filtered {
        /// What they open besides DHCP and the gateway. Without: what the run began with, or nothing while it is locked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        egress: Option<Vec<Egress>>,
        /// Each with the name of its chain.
        rules: Vec<String>,
    },
    /// Frames that the guest's filter has dropped by now, by why; not of every filter.
    Dropped(Dropped),
    /// The last record of a run.
    Stopped {
        /// Why the run ended.
        reason: StopReason,
        /// How qemu ended.
        exit: Option<String>,
    },
    /// An event of a newer labwright than this one.
    #[serde(other)]
    #[schemars(skip)]
    Other,
}

/// Why a guest is locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// Its owner's time has not begun.
    Early,
    /// Its owner's time is over. It runs on until it is stopped, so that it writes what was saved.
    Over,
    /// `control.json` asks for it; only its console is shut then.
    Asked,
    /// A reason of a newer labwright than this one, as it is written.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(serde_json::Value),
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The guest powered itself off.
    Guest,
    /// `control.json` asked for it, or the scheduler's signal did.
    Asked,
    /// The guest's time in `control.json` was over, and its grace.
    Deadline,
    /// A newer run of the vm exists.
    Superseded,
    /// qemu ended by itself with an error.
    Crashed,
    /// Nobody heard of its host any more, and it was given up. No starter writes this.
    HostLost {
        /// Name of the host.
        host: String,
    },
    /// Its starter said nothing, and the batch system's books say this. No starter writes this.
    Scheduler {
        /// How the job ended, in its words.
        message: String,
    },
    /// Something could not be set up; the text says what, and what to do.
    Failed {
        /// What was tried, why it did not work, what to do.
        message: String,
    },
    /// The guest ran, and something that it needs was lost for good.
    Broken {
        /// What was lost, and what to do.
        message: String,
    },
    /// A reason of a newer labwright than this one, as it is written.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(serde_json::Value),
}

impl Record {
    /// Of a report's format. It changes only when a reader that ignores what it does not know would be led astray.
    pub const VERSION: u32 = 1;
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Guest => f.write_str("the guest powered itself off"),
            Self::Asked => f.write_str("it was asked to stop"),
            Self::Deadline => f.write_str("its time was over"),
            Self::Superseded => f.write_str("a newer run took its place"),
            Self::Crashed => f.write_str("qemu ended with an error"),
            Self::HostLost { host } => write!(f, "its host {host} was given up for lost"),
            Self::Scheduler { message } => {
                write!(f, "its starter said nothing; by the batch system's books, {message}")
            }
            Self::Failed { message } => write!(f, "it could not start: {message}"),
            Self::Broken { message } => write!(f, "it could not go on: {message}"),
            Self::Other(reason) => write!(f, "of a newer labwright's reason {reason}"),
        }
    }
}

/// A report as it stands, in order.
pub fn read_report(folder: &Path) -> Result<Vec<Record>, RunFileError> {
    let Some(opened) = Folder::open(folder)? else { return Ok(Vec::new()) };
    let text = opened.read(REPORT, files::BYTES_MAX)?;
    text.map_or_else(|| Ok(Vec::new()), |text| parse_report(&text, &folder.join(REPORT)))
}

/// The same of a run, by the folder that all runs are in.
pub(super) fn read_report_in(runs: &Folder, run: &RunId) -> Result<Vec<Record>, RunFileError> {
    let run = run.to_string();
    let Some(text) = runs.read_in(&run, REPORT, files::BYTES_MAX)? else { return Ok(Vec::new()) };
    records(&text).map_err(|source| RunFileError::Format { path: runs.path().join(run).join(REPORT), source })
}

/// The records in a report's bytes; `path` is where they were read, for messages.
pub fn parse_report(text: &[u8], path: &Path) -> Result<Vec<Record>, RunFileError> {
    records(text).map_err(|source| RunFileError::Format { path: path.to_owned(), source })
}

fn records(text: &[u8]) -> serde_json::Result<Vec<Record>> {
    let ends = memchr::memchr_iter(b'\n', text);
    ends.scan(0, |begin, end| Some(&text[std::mem::replace(begin, end + 1)..end])).map(record).collect()
}

fn record(line: &[u8]) -> serde_json::Result<Record> {
    let plain = std::str::from_utf8(line).ok().and_then(|line| serde_json::from_str(line).ok());
    plain.and_then(PlainRecord::record).map_or_else(|| serde_json::from_slice(line), Ok)
}

/// How a starter introduced itself; `None` where it has not, or cannot be understood.
pub(super) fn first_record(folder: &Folder) -> Option<Record> {
    let text = folder.read(REPORT, files::BYTES_MAX).ok()??;
    let line = text.split_inclusive(|byte| *byte == b'\n').next()?.strip_suffix(b"\n")?;
    serde_json::from_slice(line).ok()
}

/// A record of the events that every report has, as starters write them: all fields that these have, in one. serde has to keep all of
/// a `Record` until it knows the event, which takes ten times as long, and a plan of 10,000 running vms reads 50,000. Whatever does
/// not fit in here is left to `Record`, which says what is wrong.
#[derive(Deserialize)]
struct PlainRecord<'a> {
    version: Option<u32>,
    obeys: Option<Vec<String>>,
    run: RunId,
    generation: u64,
    at: jiff::Timestamp,
    event: &'a str,
    host: Option<&'a str>,
    pid: Option<u32>,
    tap: Option<&'a str>,
    gateway: Option<Mac>,
    vnc: Option<&'a str>,
    ip: Option<Ipv4Addr>,
    mac: Option<Mac>,
    isolated: Option<bool>,
    accel: Option<&'a str>,
    clock_offset_ms: Option<i64>,
    unbounded: Option<&'a str>,
}

impl PlainRecord<'_> {
    /// `None` of another event, and of one that lacks something.
    fn record(self) -> Option<Record> {
        let event = match self.event {
            "heartbeat" => Event::Heartbeat,
            "ready" => Event::Ready,
            "prepared" => Event::Prepared { host: self.host?.to_owned() },
            "networked" => Event::Networked { tap: self.tap?.to_owned(), gateway: self.gateway },
            "running" => Event::Running {
                host: self.host?.to_owned(),
                pid: self.pid?,
                tap: self.tap?.to_owned(),
                vnc: self.vnc?.to_owned(),
                ip: self.ip?,
                mac: self.mac?,
                isolated: self.isolated?,
                accel: self.accel?.to_owned(),
                clock_offset_ms: self.clock_offset_ms?,
                unbounded: self.unbounded.map(str::to_owned),
            },
            _ => return None,
        };
        let Self { version, obeys, run, generation, at, .. } = self;
        Some(Record { version, obeys, run, generation, at, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain_record(line: &[u8]) -> Option<Record> {
        serde_json::from_slice(line).ok().and_then(PlainRecord::record)
    }

    /// Both ways to read a line come to the same, or the short one leaves it to the other.
    #[test]
    fn the_short_way_leads_to_the_same_record() {
        let head = r#"{"run":"k3f9-1","generation":3,"at":"2027-01-12T08:00:00.25Z""#;
        let running = r#""event":"running","host":"h1","pid":7,"tap":"lw1","vnc":"127.0.0.1:5901","ip":"10.0.0.2","mac":"de:af:de:af:00:02","isolated":true,"accel":"kvm","clock_offset_ms":-3"#;
        let line = |rest: &str| format!("{head},{rest}}}");
        let known = [
            line(r#""event":"heartbeat""#),
            line(r#""event":"ready","of_a_newer_labwright":[1]"#),
            line(r#""version":1,"obeys":["wanted","clock.end"],"event":"prepared","host":"hé""#),
            line(r#""event":"networked","tap":"lw1""#),
            line(r#""event":"networked","tap":"lw1","gateway":"00:00:5e:00:01:01""#),
            line(r#""event":"networked","tap":"lw1","gateway":null"#),
            line(r#""event":"ready", "more":{"a":[1,2]}"#),
            line(running),
            line(&format!(r#"{running},"unbounded":"no cgroups""#)),
        ];
        for line in &known {
            let short = plain_record(line.as_bytes());
            assert!(short.is_some(), "{line}");
            assert_eq!(short, serde_json::from_str::<Record>(line).ok(), "{line}");
        }
        let others = [
            r#""event":"paused","reason":"it was asked to""#,
            r#""event":"running","host":"h1""#,
            r#""event":"dropped","spoofed_ip":3,"arp":12"#,
            r#""event":7"#,
            r#""event":"prepared","host":"a\"b""#,
            r#""event":"prepared","host":"a\u0062""#,
            r#""event":"networked","tap":"lw1","gateway":7"#,
        ];
        for line in others.map(line) {
            assert_eq!(plain_record(line.as_bytes()), None, "{line}");
        }
        // One byte more, less, or another: whatever the short way makes of that, `Record` does too.
        for line in known {
            for at in 0..line.len() {
                for with in ["", "\"", ",", "0", "-", "+", "\\", " ", "]", "}", "\u{1}"] {
                    for end in [at, at + 1] {
                        let mut bytes = line.as_bytes().to_vec();
                        bytes.splice(at..end, with.bytes());
                        let Some(short) = plain_record(&bytes) else { continue };
                        let read = serde_json::from_slice::<Record>(&bytes).ok();
                        assert_eq!(Some(short), read, "{}", String::from_utf8_lossy(&bytes));
                    }
                }
            }
        }
    }
}
