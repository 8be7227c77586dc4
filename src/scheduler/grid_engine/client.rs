//! Runs one of Grid Engine's tools and hands back what it said. Each run has a time limit and a bound on its answer's
//! size, an environment of nothing but what the tool needs, and the submitting account's ids.
//!
//! The tools themselves are run, not the wrappers that Debian puts on the path: those find out the machine's kind each
//! time, at 80 ms a call.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::answers;
use crate::model::site::GridEngineSettings;
use crate::scheduler::SchedulerError;

/// Largest answer: a queue of 100,000 jobs, three times over.
const ANSWER_BYTES_MAX: u64 = 512 << 20;
/// How often a tool that has said all it had to say is looked at until it ends.
const END_POLL: Duration = Duration::from_millis(5);

/// What a tool said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) status: ExitStatus,
}

impl Answer {
    /// What it said and how it ended, for messages. The tools spread one message over both streams.
    pub(super) fn told(&self) -> String {
        match answers::words(&format!("{}\n{}", self.stderr, self.stdout)) {
            words if words.is_empty() => format!("it gave no reason ({})", self.status),
            words => format!("{words} ({})", self.status),
        }
    }
}

/// How to reach one cluster.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) settings: GridEngineSettings,
}

impl Client {
    /// Runs a tool to its end, whatever that is.
    pub(super) fn ask(&self, tool: &str, arguments: &[OsString]) -> Result<Answer, SchedulerError> {
        self.ask_within(tool, arguments, Duration::from_secs(self.settings.answer_seconds))
    }

    fn ask_within(&self, tool: &str, arguments: &[OsString], limit: Duration) -> Result<Answer, SchedulerError> {
        let request = shown(tool, arguments);
        let program = self.settings.binaries.join(tool);
        let mut child = self.command(tool, arguments)?.spawn().map_err(|source| {
            let hint = if source.kind() == std::io::ErrorKind::NotFound {
                "; name the folder with Grid Engine's own programs as `binaries` under `scheduler:` in site.yaml"
            } else {
                ""
            };
            SchedulerError::Refused {
                request: request.clone(),
                detail: format!("cannot run {}: {source}{hint}", program.display()),
            }
        })?;
        let doubtful = |detail: String| SchedulerError::Doubtful { request: request.clone(), detail };
        converse(&mut child, limit).map_err(|source| {
            // It is ours and has not been waited for, so its number cannot be another's. Dead already is as good.
            drop(child.kill());
            drop(child.wait());
            doubtful(source)
        })
    }

    /// Runs a tool that only looks. Whatever goes wrong, nothing changed; that nobody answered is told apart.
    pub(super) fn look(&self, tool: &str, arguments: &[OsString]) -> Result<String, SchedulerError> {
        self.look_within(tool, arguments, Duration::from_secs(self.settings.answer_seconds))
    }

    /// The same, with a patience of its own.
    pub(super) fn look_within(
        &self,
        tool: &str,
        arguments: &[OsString],
        limit: Duration,
    ) -> Result<String, SchedulerError> {
        let answer = self.ask_within(tool, arguments, limit)?;
        if answer.status.success() {
            return Ok(answer.stdout);
        }
        let request = shown(tool, arguments);
        let detail = answer.told();
        Err(if answers::is_silence(&answer.stderr) {
            SchedulerError::Doubtful {
                request,
                detail: format!("{detail}; is the qmaster up, and is this a submit host?"),
            }
        } else {
            SchedulerError::Refused { request, detail }
        })
    }

    fn command(&self, tool: &str, arguments: &[OsString]) -> Result<Command, SchedulerError> {
        let settings = &self.settings;
        let mut command = Command::new(settings.binaries.join(tool));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .envs(std::env::var_os("LABWRIGHT_LOG").map(|value| ("LABWRIGHT_LOG", value)))
            .env("SGE_ROOT", &settings.root)
            .env("SGE_CELL", &settings.cell)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, port) in [("SGE_QMASTER_PORT", settings.qmaster_port), ("SGE_EXECD_PORT", settings.execd_port)] {
            if let Some(port) = port {
                command.env(name, port.to_string());
            }
        }
        let user = self.account()?;
        command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
        if user.uid != nix::unistd::geteuid() {
            command.gid(user.gid.as_raw()).uid(user.uid.as_raw());
        }
        Ok(command)
    }

    /// The account that jobs belong to.
    pub(super) fn account(&self) -> Result<nix::unistd::User, SchedulerError> {
        let found = match &self.settings.account {
            Some(name) => nix::unistd::User::from_name(name),
            None => nix::unistd::User::from_uid(nix::unistd::geteuid()),
        };
        let missing =
            |detail: String| SchedulerError::Refused { request: "find the submitting account".into(), detail };
        let name = || self.settings.account.clone().unwrap_or_else(|| format!("uid {}", nix::unistd::geteuid()));
        found
            .map_err(|error| missing(format!("cannot look {} up: {error}", name())))?
            .ok_or_else(|| missing(format!("there is no account {}; every host of the cluster must know it", name())))
    }
}

/// A command line for messages, short enough to read.
fn shown(tool: &str, arguments: &[OsString]) -> String {
    const CHARACTERS_MAX: usize = 200;
    let mut line = tool.to_owned();
    for argument in arguments {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    match line.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Takes in all that the program says until it ends or time is up. A thread per stream, so that neither can block it.
fn converse(child: &mut Child, limit: Duration) -> Result<Answer, String> {
    let deadline = Instant::now() + limit;
    let out = listen(child.stdout.take().expect("stdout is piped"));
    let err = listen(child.stderr.take().expect("stderr is piped"));
    let late = || format!("no answer within {} s", limit.as_secs());
    let hear = |stream: mpsc::Receiver<std::io::Result<Vec<u8>>>| {
        let heard = stream.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|_| late())?;
        let bytes = heard.map_err(|source| format!("cannot read its answer: {source}"))?;
        if bytes.len() as u64 > ANSWER_BYTES_MAX {
            return Err(format!("its answer is longer than {} MiB", ANSWER_BYTES_MAX >> 20));
        }
        Ok(String::from_utf8(bytes).unwrap_or_else(|bytes| String::from_utf8_lossy(bytes.as_bytes()).into_owned()))
    };
    let (stdout, stderr) = (hear(out)?, hear(err)?);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Answer { stdout, stderr, status }),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(END_POLL),
            Ok(None) => return Err(late()),
            Err(source) => return Err(format!("cannot wait for it: {source}")),
        }
    }
}

fn listen(stream: impl Read + Send + 'static) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stream.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes);
        // Nobody listens any more when time is up.
        drop(sender.send(read.map(|_| bytes)));
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    /// A client whose tool `qstat` is the given shell script.
    fn client(folder: &Path, script: &str) -> Client {
        let path = folder.join("qstat");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = GridEngineSettings {
            binaries: folder.to_owned(),
            answer_seconds: 1,
            ..GridEngineSettings::new(folder.to_owned())
        };
        Client { settings }
    }

    #[test]
    fn a_tool_sees_a_clean_environment() {
        let folder = tempfile::tempdir().unwrap();
        let said = client(folder.path(), "env -u PWD | cut -d= -f1 | sort | tr '\\n' ' '").look("qstat", &[]).unwrap();
        assert_eq!(said.replace("_ ", ""), "HOME LC_ALL LOGNAME PATH SGE_CELL SGE_ROOT USER ");
    }

    #[test]
    fn a_tool_that_hangs_is_doubtful_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let error = client(folder.path(), "exec sleep 60").look("qstat", &["-xml".into()]).unwrap_err();
        assert_eq!(error.to_string(), "no answer to `qstat -xml`: no answer within 1 s");
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn refusals_tell_the_tools_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let no = client(folder.path(), "echo 'Unable to run job: no such queue' >&2; echo Exiting. >&2; exit 25");
        let error = no.look("qstat", &[]).unwrap_err();
        assert_eq!(error.to_string(), "the batch system refused to qstat: no such queue (exit status: 25)");
        let missing = no.look("qhost", &[]).unwrap_err().to_string();
        assert!(missing.contains("`binaries` under `scheduler:` in site.yaml"), "{missing}");
    }
}
