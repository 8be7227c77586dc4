//! Locks on ranges of a file's bytes, whether there are such bytes or not. A lock belongs to an open file description
//! (`F_OFD_SETLK`): it is inherited with the descriptor, and freed by the kernel when the last process that has it ends.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

fn flock(range: &Range<u64>, kind: libc::c_int) -> libc::flock {
    let offset = |n: u64| libc::off_t::try_from(n).expect("ranges end far below 2^63");
    libc::flock {
        l_type: libc::c_short::try_from(kind).expect("lock kinds are small"),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("SEEK_SET is 0"),
        l_start: offset(range.start),
        l_len: offset(range.end - range.start),
        l_pid: 0,
    }
}

/// Locks `range` for this file description alone; false where another one has a byte of it. A lock that this one had there
/// becomes such a one.
pub(crate) fn lock(held: impl AsFd, range: &Range<u64>) -> io::Result<bool> {
    try_lock(held, range, libc::F_WRLCK)
}

/// Locks `range` together with others who do the same; false where another file description has a byte of it for itself. A
/// lock that this one had there becomes such a one.
pub(crate) fn lock_shared(held: impl AsFd, range: &Range<u64>) -> io::Result<bool> {
    try_lock(held, range, libc::F_RDLCK)
}

fn try_lock(held: impl AsFd, range: &Range<u64>, kind: libc::c_int) -> io::Result<bool> {
    match fcntl(held, FcntlArg::F_OFD_SETLK(&flock(range, kind))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn unlock(held: impl AsFd, range: &Range<u64>) -> io::Result<()> {
    fcntl(held, FcntlArg::F_OFD_SETLK(&flock(range, libc::F_UNLCK)))?;
    Ok(())
}

/// The parts of `range` that *other* file descriptions have locked, in order. The kernel names one conflicting lock per
/// question, so this asks about twice as often as there are locks, whatever the range's length.
pub(crate) fn locked(held: impl AsFd, range: &Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut open = vec![range.clone()];
    while let Some(part) = open.pop() {
        if part.is_empty() {
            continue;
        }
        let mut answer = flock(&part, libc::F_WRLCK);
        fcntl(&held, FcntlArg::F_OFD_GETLK(&mut answer))?;
        if libc::c_int::from(answer.l_type) == libc::F_UNLCK {
            continue;
        }
        let start = u64::try_from(answer.l_start).unwrap_or(0).max(part.start);
        let length = u64::try_from(answer.l_len).unwrap_or(0);
        // A length of 0 means "to the end of the file, wherever that comes to be".
        let end = if length == 0 { part.end } else { (answer.l_start.unsigned_abs() + length).min(part.end) };
        open.push(part.start..start);
        open.push(end..part.end);
        found.push(start..end);
    }
    found.sort_by_key(|part| part.start);
    Ok(found)
}
