//! A machine of a test's own, as far as networks and mounts go, and what runs there.

use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Namespaces for this thread and all that it starts: bridge, taps and filter touch nobody else's.
pub(crate) fn of_its_own() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("this takes root, for namespaces of its own");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
}

/// Processes whose command line names `path`, with that command line.
pub(crate) fn processes_that_name(path: &str) -> Vec<(i32, String)> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    let commands = pids.filter_map(|pid: i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&command).replace('\0', " ")))
    });
    commands.filter(|(_, command)| command.contains(path)).collect()
}
