//! Reservations with a dnsmasq on this machine, started by `host setup` with `--dhcp-hostsdir`: one file each.
//!
//! ```text
//! <folder>/
//!   hosts/<mark>       `de:af:de:af:64:02,192.168.100.2,doraz-gsr.`
//!   dnsmasq.pid
//!   leases
//! ```
//!
//! dnsmasq sees a new file by itself; what has gone or changed it serves as it was until SIGHUP. What was leased stays so until
//! it is given back (see `lease`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::lease::{self, Lease};
use super::{Dhcp, DhcpError};
use crate::host::sys::Process;
use crate::model::id::Mac;
use crate::model::reservation::Reservation;

pub const HOSTS_FOLDER: &str = "hosts";
pub const PID_FILE: &str = "dnsmasq.pid";

/// The dnsmasq whose files are below `folder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dnsmasq {
    folder: PathBuf,
}

impl Dnsmasq {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn read_again(&self) -> Result<(), DhcpError> {
        match self.signal(Signal::SIGHUP) {
            Ok(_) => Ok(()),
            Err((pid, source)) => Err(DhcpError::Signal { pid: pid.as_raw(), source }),
        }
    }

    /// Signals the running dnsmasq, if there is one, and no other that could have its number by now.
    pub(crate) fn signal(&self, signal: Signal) -> Result<Option<Pid>, (Pid, nix::Error)> {
        let Some(pid) = self.process() else { return Ok(None) };
        let process = match Process::open(pid) {
            Err(Errno::ESRCH) => return Ok(None),
            opened => opened.map_err(|error| (pid, error))?,
        };
        // Looked at again: from here on the number cannot become another's.
        if self.process() != Some(pid) {
            return Ok(None);
        }
        match process.signal(signal) {
            Err(Errno::ESRCH) => Ok(None),
            signalled => signalled.map(|()| Some(pid)).map_err(|error| (pid, error)),
        }
    }

    fn end_leases(&self, over: &dyn Fn(&Lease) -> bool) -> Result<(), DhcpError> {
        lease::end(&self.folder, self.process().is_some(), over)
    }

    fn hosts(&self) -> Result<PathBuf, DhcpError> {
        let hosts = self.folder.join(HOSTS_FOLDER);
        if hosts.is_dir() { Ok(hosts) } else { Err(DhcpError::NotSetUp { folder: self.folder.clone() }) }
    }

    /// The running dnsmasq of this folder: the process in the pid file, if its command line names this very file. Pids
    /// are used again, and a stranger must not be signalled.
    pub fn process(&self) -> Option<Pid> {
        let path = self.folder.join(PID_FILE);
        let pid: i32 = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let wanted = format!("--pid-file={}", path.display());
        command.split(|b| *b == 0).any(|argument| argument == wanted.as_bytes()).then(|| Pid::from_raw(pid))
    }

    /// The folder of another dnsmasq of ours that serves this bridge: that of a lab which knows nothing of this one's
    /// addresses, nor this one of its.
    pub fn rival(&self, bridge: &str) -> Option<PathBuf> {
        // An entry that cannot be read is a process that is gone.
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| served_from(&pid.to_string(), bridge)).find(|folder| *folder != self.folder)
    }
}

/// The folder whose reservations a process gives out on a bridge of this network.
fn served_from(process: &str, bridge: &str) -> Option<PathBuf> {
    let command = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
    let arguments = || command.split(|byte| *byte == 0).filter_map(|argument| std::str::from_utf8(argument).ok());
    let hosts = arguments().find_map(|argument| argument.strip_prefix("--dhcp-hostsdir="))?;
    let folder = Path::new(hosts).parent().filter(|_| hosts.ends_with(HOSTS_FOLDER))?;
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let serves = arguments().any(|argument| argument.strip_prefix("--interface=") == Some(bridge));
    (serves && network(process) == network("thread-self")).then(|| folder.to_owned())
}

/// The file that is a reservation. dnsmasq tells its words by what they look like, and takes `ignore`, `infinite`, `7d`
/// or `42` for orders; with the dot of a complete domain name, which it drops, a name is never one of them.
pub(crate) fn line(reservation: &Reservation) -> String {
    format!(
        "{},{},{}.\n",
        reservation.mac,
        reservation.ip,
        reservation.vm.to_string().replace(['.', '_'], "-").replace('/', "--")
    )
}

/// As earlier versions wrote it. No word of dnsmasq has a dash, so that a name with one was read as it was meant.
fn is_as_before(text: &str, reservation: &Reservation) -> bool {
    let line = line(reservation);
    line.contains('-') && text.trim_end() == line.trim_end().trim_end_matches('.')
}

impl Dhcp for Dnsmasq {
    fn reserve(&self, reservations: &[Reservation]) -> Result<(), DhcpError> {
        let hosts = self.hosts()?;
        let standing = self.present(reservations)?;
        let new: Vec<&Reservation> =
            reservations.iter().zip(standing).filter_map(|(new, stands)| (!stands).then_some(new)).collect();
        // Left by who had the address before, where that machine, or we, were cut short.
        let of_others: BTreeMap<Ipv4Addr, Mac> = new.iter().map(|new| (new.ip, new.mac)).collect();
        self.end_leases(&|lease| of_others.get(&lease.ip).is_some_and(|mac| *mac != lease.mac))?;
        let replaces = new.iter().any(|new| hosts.join(&new.mark).exists());
        new.into_iter().try_for_each(|new| write(&hosts.join(&new.mark), &line(new)))?;
        // Until then it keeps what the file held before, and takes a second reservation of an address for a mistake.
        if replaces { self.read_again() } else { Ok(()) }
    }

    fn release(&self, reservations: &[Reservation]) -> Result<(), DhcpError> {
        let hosts = self.hosts()?;
        for reservation in reservations {
            let path = hosts.join(&reservation.mark);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DhcpError::Io { action: "remove", path, source });
                }
                _ => {}
            }
        }
        // Also when nothing was removed now: the last time may have died between the removal and this.
        self.read_again()?;
        let released: BTreeSet<Ipv4Addr> = reservations.iter().map(|reservation| reservation.ip).collect();
        self.end_leases(&|lease| released.contains(&lease.ip))
    }

    fn present(&self, reservations: &[Reservation]) -> Result<Vec<bool>, DhcpError> {
        // Where nothing was set up, nothing stands; only who reserves must be told.
        let hosts = self.folder.join(HOSTS_FOLDER);
        let stands = |reservation: &Reservation| {
            let path = hosts.join(&reservation.mark);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(text == line(reservation) || is_as_before(&text, reservation)),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(source) => Err(DhcpError::Io { action: "read", path, source }),
            }
        };
        reservations.iter().map(stands).collect()
    }
}

/// Writes in place and not by a rename: dnsmasq looks at files that were closed after writing and would take a temporary
/// name for a reservation.
fn write(path: &Path, text: &str) -> Result<(), DhcpError> {
    use std::io::Write as _;
    let io = |action, source| DhcpError::Io { action, path: path.to_owned(), source };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(path)
        .map_err(|source| io("create", source))?;
    file.write_all(text.as_bytes()).map_err(|source| io("write", source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{LabName, SiteTag, VmName};

    fn reservation(last: u8) -> Reservation {
        let (site, lab) = (SiteTag::new("k3f9").unwrap(), LabName::new("net").unwrap());
        let vm = VmName::new("doraz-gsr").unwrap();
        let mac = format!("de:af:de:af:64:{last:02x}").parse().unwrap();
        Reservation::new(&site, &lab, &vm, mac, [192, 168, 100, last].into())
    }

    #[test]
    fn a_reservation_is_one_file_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let dhcp = Dnsmasq::new(folder.path());
        let unset = dhcp.reserve(&[reservation(2)]).unwrap_err();
        assert!(matches!(unset, DhcpError::NotSetUp { .. }), "{unset}");

        std::fs::create_dir(folder.path().join(HOSTS_FOLDER)).unwrap();
        dhcp.reserve(&[reservation(2)]).unwrap();
        let text = std::fs::read_to_string(folder.path().join("hosts/lw-k3f9-net-doraz-gsr")).unwrap();
        assert_eq!(text, "de:af:de:af:64:02,192.168.100.2,doraz-gsr.\n");
        assert_eq!(dhcp.present(&[reservation(2), reservation(3)]).unwrap(), [true, false]);

        dhcp.reserve(&[reservation(3)]).unwrap();
        assert_eq!(dhcp.present(&[reservation(2), reservation(3)]).unwrap(), [false, true]);
        dhcp.release(&[reservation(3)]).unwrap();
        dhcp.release(&[reservation(3)]).unwrap();
        assert_eq!(dhcp.present(&[reservation(3)]).unwrap(), [false]);
    }

    #[test]
    fn a_stranger_with_the_pid_is_not_taken_for_dnsmasq() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(PID_FILE), std::process::id().to_string()).unwrap();
        assert_eq!(Dnsmasq::new(folder.path()).process(), None);
    }
}
