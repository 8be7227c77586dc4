//! The system calls that have no safe wrapper: binding an open `/dev/net/tun` to a tap, ignoring a signal,
//! and keeping inherited descriptors from children. Nothing else in the program is unsafe.

use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;

use nix::libc;
use nix::sys::signal::{SigHandler, Signal};

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
