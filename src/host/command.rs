//! Runs a program to its end. A failure tells the whole command, how it ended and its own words.

use std::io::Write as _;
use std::process::{Command, ExitStatus, Stdio};

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the program `{program}` is not installed; on Debian: `apt-get install {package}`")]
    Missing { program: String, package: &'static str },
    #[error("cannot run `{command}`")]
    Run { command: String, source: std::io::Error },
    #[error("`{command}` failed ({status}): {}", said(.stderr))]
    Failed { command: String, status: ExitStatus, stderr: String },
}

fn said(stderr: &str) -> &str {
    if stderr.is_empty() { "it gave no reason" } else { stderr }
}

/// Runs `program`, feeds it `input`, and returns what it printed.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, CommandError> {
    let shown = || std::iter::once(program).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" ");
    let failed = |source| spawn_error(program, shown(), source);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A program that ends without reading its input has a reason of its own, which its status and stderr tell.
    drop(child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // A batch shows its commands, since the complaint alone (`RTNETLINK answers: ...`) names nothing.
    let commands = input.trim_end().replace('\n', "; ");
    let command = if commands.is_empty() { shown() } else { format!("{} [{commands}]", shown()) };
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(CommandError::Failed { command, status: output.status, stderr })
}

/// What to say of a program that could not be started.
pub(crate) fn spawn_error(program: &str, command: String, source: std::io::Error) -> CommandError {
    if source.kind() == std::io::ErrorKind::NotFound {
        CommandError::Missing { program: program.to_owned(), package: package_of(program) }
    } else {
        CommandError::Run { command, source }
    }
}

/// The Debian package of a program we start.
fn package_of(program: &str) -> &'static str {
    match program.rsplit('/').next().unwrap_or(program) {
        "ip" | "bridge" => "iproute2",
        "nft" => "nftables",
        "dnsmasq" => "dnsmasq-base",
        "ebtables-nft" | "ebtables-nft-save" | "ebtables-nft-restore" | "iptables-legacy-save" => "iptables",
        "useradd" => "passwd",
        "qemu-img" => "qemu-utils",
        _ => "qemu-system-x86",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = run("/nonexistent/nft", &["-f", "-"], "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the program `/nonexistent/nft` is not installed; on Debian: `apt-get install nftables`"
        );
    }

    #[test]
    fn a_failure_tells_command_status_and_words() {
        let error = run("sh", &["-c", "cat >&2; exit 3"], "no such bridge\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c cat >&2; exit 3 [no such bridge]` failed (exit status: 3): no such bridge"
        );
    }
}
