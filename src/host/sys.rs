//! What has no safe wrapper: binding an open `/dev/net/tun` to a tap, ignoring a signal, keeping inherited descriptors
//! from children, a process as a descriptor, widening the search path, and a filter of system calls. Nothing else in the program
//! is unsafe.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::Pid;

nix::ioctl_write_ptr_bad!(tun_set_interface, libc::TUNSETIFF, libc::ifreq);

/// Makes `tun` a tap of name `name`, with a virtio header on every frame. The interface lives as long as the descriptor.
#[expect(unsafe_code, reason = "TUNSETIFF has no wrapper")]
pub(super) fn bind_tap(tun: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: interface_flags() },
    };
    if name.len() >= request.ifr_name.len() {
        return Err(nix::errno::Errno::ENAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the descriptor is open for the whole call, and the kernel reads one `ifreq` from the pointer, which is
    // initialised in the members that TUNSETIFF looks at: the name, ended by 0, and the flags.
    unsafe { tun_set_interface(tun.as_raw_fd(), &raw const request) }.map(|_| ())
}

fn interface_flags() -> libc::c_short {
    libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).expect("the flags are 15 bits")
}

/// From now on, and in every child, `signal` does nothing. Blocked as well, it can still be read from a `signalfd`.
#[expect(unsafe_code, reason = "signal(2) can install handlers, so that its wrapper is unsafe")]
pub fn ignore_signal(signal: Signal) -> nix::Result<()> {
    // SAFETY: no handler is installed, so that no code of ours ever runs in signal context.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.map(|_| ())
}

/// Whatever descriptor behind standard error this process has, its children do not get it.
#[expect(unsafe_code, reason = "close_range has no wrapper")]
pub fn keep_descriptors_from_children() -> nix::Result<()> {
    let (first, last) = (3, libc::c_uint::MAX);
    let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).expect("the flag is 1 << 2");
    // SAFETY: with this flag nothing is closed; only the close-on-exec flag of open descriptors is set.
    nix::errno::Errno::result(unsafe { libc::close_range(first, last, flags) }).map(|_| ())
}

/// The socket that systemd has opened for us, the first and only one: sd_listen_fds(3). Called once, and only where it says so.
#[expect(unsafe_code, reason = "a descriptor is known by its number alone")]
pub fn first_inherited_socket() -> std::os::unix::net::UnixListener {
    // SAFETY: whoever started us opened descriptor 3 for us to own, and nothing else in this process knows of it.
    unsafe { std::os::unix::net::UnixListener::from_raw_fd(3) }
}

/// A process, whatever becomes of its number, which is used again.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    #[expect(unsafe_code, reason = "pidfd_open has no wrapper")]
    pub fn open(pid: Pid) -> nix::Result<Self> {
        // SAFETY: no memory is passed.
        let made = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        let number = RawFd::try_from(made).expect("a descriptor is an int");
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    #[expect(unsafe_code, reason = "pidfd_send_signal has no wrapper")]
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open for the whole call; without details the kernel fills in those of `kill`.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as libc::c_int, nothing, 0)
        };
        Errno::result(sent).map(|_| ())
    }
}

/// Where systems keep the programs of their admins, such as `nft`, `ip` and `useradd`.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// All threads share two heaps. The C library gives each processor eight of their own, and what many threads took once and gave back
/// stays with each (mallopt(3), `M_ARENA_MAX`): for a daemon that waits on threads, twice the memory that it uses.
#[cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "mallopt has no wrapper"))]
pub fn share_heaps() {
    // SAFETY: it sets a number of the allocator, and takes no pointers. A no leaves all as it was.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 2)
    };
}

/// Lets this program and all that it starts find an admin's programs, also where the search path is a plain user's, as
/// under cron, after `su`, or in the shell of a colleague. What the path names already keeps its place.
///
/// Only for the first lines of the program: nothing else may run yet.
#[expect(unsafe_code, reason = "the environment is every thread's")]
pub fn search_system_folders() {
    let Some(path) = path_with_system_folders(std::env::var_os("PATH").as_deref()) else { return };
    // SAFETY: called by `main` before anything else, so that there is no second thread that could read the environment.
    unsafe { std::env::set_var("PATH", path) };
}

/// The search path with our folders behind its own; `None` where it names them all.
fn path_with_system_folders(path: Option<&OsStr>) -> Option<OsString> {
    // Where there is none, the system's programs look into these.
    let path = path.filter(|path| !path.is_empty()).unwrap_or(OsStr::new("/usr/bin:/bin"));
    let folders: Vec<PathBuf> = std::env::split_paths(path).collect();
    let missing = SYSTEM_FOLDERS.iter().map(PathBuf::from).filter(|folder| !folders.contains(folder));
    let all: Vec<PathBuf> = folders.iter().cloned().chain(missing).collect();
    // A folder with a `:` in its name cannot have come from a path.
    (all.len() > folders.len()).then(|| std::env::join_paths(all).ok()).flatten()
}

/// What the kernel calls the machine that this program is made for, in `seccomp_data` (linux/audit.h). Numbers of system calls mean
/// something else on another one, so that calls of any other kind are refused.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;
/// From this number on, calls of x86-64 are those of its 32-bit kind; no other machine has so many.
const X32: u32 = 0x4000_0000;
/// Where `seccomp_data` has the call's number, and the machine.
const NUMBER_AT: u32 = 0;
const MACHINE_AT: u32 = 4;

/// From now on this thread, and all that it starts, gets no socket of any kind: Landlock rules TCP alone, and a namespace takes rights
/// that a hardened service has not. What is open stays open. Needs `no_new_privs`.
#[expect(unsafe_code, reason = "seccomp filters have no wrapper")]
pub(super) fn refuse_sockets() -> nix::Result<()> {
    let load =
        |at: u32| libc::sock_filter { code: code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), jt: 0, jf: 0, k: at };
    // `past` instructions are left out where it holds, and none where it does not.
    let skip = |test: u32, k: u32, past: u8| {
        let code = code(libc::BPF_JMP | test | libc::BPF_K);
        libc::sock_filter { code, jt: past, jf: 0, k }
    };
    let answer = |k: u32| libc::sock_filter { code: code(libc::BPF_RET | libc::BPF_K), jt: 0, jf: 0, k };
    let call = |number: libc::c_long| u32::try_from(number).expect("a system call has a small number");
    let refuse = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned());
    let mut filter = [
        load(MACHINE_AT),
        skip(libc::BPF_JEQ, AUDIT_ARCH, 1),
        refuse,
        load(NUMBER_AT),
        skip(libc::BPF_JGE, X32, 4),
        skip(libc::BPF_JEQ, call(libc::SYS_socket), 3),
        skip(libc::BPF_JEQ, call(libc::SYS_socketpair), 2),
        // It opens sockets, too.
        skip(libc::BPF_JEQ, call(libc::SYS_io_uring_setup), 1),
        answer(libc::SECCOMP_RET_ALLOW),
        refuse,
    ];
    let len = u16::try_from(filter.len()).expect("it is short");
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program from the pointer during the call; both it and its instructions live for that long.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    Errno::result(set).map(drop)
}

fn code(of: u32) -> u16 {
    u16::try_from(of).expect("a code of a filter has 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_path_gets_what_it_lacks_at_its_end() {
        let path = |text: &str| path_with_system_folders(Some(OsStr::new(text)));
        assert_eq!(path("/usr/bin:/bin").unwrap(), "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
        assert_eq!(path("/sbin:/opt/a b").unwrap(), "/sbin:/opt/a b:/usr/local/sbin:/usr/sbin");
        assert_eq!(path("/usr/sbin:/usr/local/sbin:/sbin"), None);
        let bare = "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
        assert_eq!((path("").unwrap(), path_with_system_folders(None).unwrap()), (bare.into(), bare.into()));
    }

    /// It holds for one thread: the others of this process keep their sockets.
    #[test]
    fn who_may_open_no_socket_reaches_nothing() {
        use std::net::{TcpListener, UdpSocket};
        use std::os::unix::net::{UnixDatagram, UnixStream};
        let refused = std::thread::spawn(|| {
            assert!(UdpSocket::bind("127.0.0.1:0").is_ok(), "until then it may");
            nix::sys::prctl::set_no_new_privs().unwrap();
            refuse_sockets().unwrap();
            let kinds = [
                UdpSocket::bind("127.0.0.1:0").map(drop),
                TcpListener::bind("127.0.0.1:0").map(drop),
                UnixDatagram::unbound().map(drop),
                UnixStream::pair().map(drop),
            ];
            assert!(std::fs::read("/proc/self/status").is_ok(), "files are another matter");
            kinds.map(|tried| tried.unwrap_err().kind())
        });
        assert_eq!(refused.join().unwrap(), [std::io::ErrorKind::PermissionDenied; 4]);
        assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
    }
}
