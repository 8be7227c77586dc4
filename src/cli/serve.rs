//! `labwright serve`: the daemon through which people who are not root get at what is theirs.

use std::path::{Path, PathBuf};

use super::Ended;
use crate::client::of_site_file;
use crate::daemon::{self, Daemon, Started};
use crate::exit::Exit;
use crate::host::{process, sys};
use crate::report::Failure;

/// Serve the site to its users over a socket of this machine
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Runs until SIGTERM. Meanwhile people use `labwright vm derive`, `vm start`, `get vms` and so on from their
own accounts, as far as the labs' permissions let them. Root needs no daemon.

Example: labwright serve"
)]
pub(super) struct Arguments {
    /// Where it listens; its folder must be root's.
    #[arg(long, value_name = "FILE", default_value = daemon::SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>) -> Ended {
    if !process::is_root() {
        return Err(Failure::new(Exit::Refused, "serving a site takes root; nothing was done"));
    }
    sys::share_heaps();
    let environment = |name| std::env::var(name).ok();
    let is_for_us = environment("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let started = Started {
        listener: (is_for_us && environment("LISTEN_FDS").as_deref() == Some("1")).then(sys::first_inherited_socket),
        notify: environment("NOTIFY_SOCKET"),
        watchdog_micros: environment("WATCHDOG_USEC"),
    };
    let daemon = Daemon::new(of_site_file(site)?);
    daemon::serve(daemon, &arguments.socket, started).map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    Ok(Exit::Done)
}
