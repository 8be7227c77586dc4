//! Who sits at this command line, for the audit, as the kernel knows it: the account, who logged in and became it, and how they came.

use super::process;
use crate::model::audit::{Account, Actor, Via};

/// A process of nobody's log-in, as the kernel writes it.
const NOBODY_LOGGED_IN: u32 = u32::MAX;
/// No log-in is deeper.
const ANCESTORS_MAX: usize = 64;

pub fn actor() -> Actor {
    let account = account(nix::unistd::getuid().as_raw());
    let behind = behind().filter(|uid| *uid != account.uid).map(self::account);
    Actor { account, behind, via: via() }
}

fn account(uid: u32) -> Account {
    Account { uid, login: process::login(uid.into()) }
}

/// The kernel keeps who logged in, whoever they become; where it was not told, as in a container, `sudo` says so.
fn behind() -> Option<u32> {
    let number = |text: String| text.trim().parse().ok();
    let logged_in = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(number);
    let by_sudo = || std::env::var("SUDO_UID").ok().filter(|_| process::is_root()).and_then(number);
    logged_in.filter(|uid| *uid != NOBODY_LOGGED_IN).or_else(by_sudo)
}

/// By the processes that led here: `sudo` clears what ssh says in the environment.
fn via() -> Via {
    let Some(own) = Process::of(std::process::id()) else { return Via::Other };
    let has_terminal = own.terminal != 0;
    let ancestors = std::iter::successors(Some(own), |process| Process::of(process.parent)).take(ANCESTORS_MAX);
    match ancestors.into_iter().any(|process| process.name.starts_with("sshd")) {
        true => Via::Ssh,
        false if has_terminal => Via::Terminal,
        false => Via::Program,
    }
}

struct Process {
    name: String,
    parent: u32,
    /// Number of its terminal's device; 0 where it has none.
    terminal: i32,
}

impl Process {
    /// `pid (name) state parent group session terminal …`, where the name may have blanks and brackets.
    fn of(id: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(1);
        let parent = fields.next()?.parse().ok()?;
        let terminal = fields.nth(2)?.parse().ok()?;
        Some(Self { name: name.split_once('(')?.1.to_owned(), parent, terminal })
    }
}
