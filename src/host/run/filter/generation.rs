//! The number of changes that the kernel has seen of this host's rules. As long as it stays, nothing of nftables or
//! ebtables-nft was added, changed or removed, so that nothing need be read again. Asking costs some 10 microseconds, where a
//! listing of nft costs milliseconds and one of ebtables, which is always of all runs, tens of them.
//!
//! One thing does not count: a table that goes with its owner. Whoever asks must know by itself that its owner lives.

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

/// `NFT_MSG_GETGEN` (16) of nf_tables (10), as a request (1), behind the length of the whole. The last four bytes are the
/// family, which may be any, the version, and nothing.
const QUESTION: (u32, u16, u16) = (20, 10 << 8 | 16, 1);
/// `NFT_MSG_NEWGEN`, its answer.
const ANSWER: u16 = 10 << 8 | 15;
/// Attribute `NFTA_GEN_ID`, a number in network byte order.
const NUMBER: u16 = 1;
const HEADERS: usize = 20;

const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A state of the rules of one network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    pub namespace: u64,
    pub number: u32,
}

impl Generation {
    /// The one after a single change.
    pub(super) fn next(self) -> Self {
        Self { number: self.number.wrapping_add(1), ..self }
    }
}

/// `None`: the kernel does not say.
pub(super) fn generation() -> Option<Generation> {
    let namespace = std::fs::metadata(NAMESPACE).ok()?.ino();
    Some(Generation { namespace, number: ask()? })
}

fn ask() -> Option<u32> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter).ok()?;
    let (length, kind, request) = QUESTION;
    let mut question = Vec::with_capacity(HEADERS);
    question.extend(length.to_ne_bytes());
    question.extend(kind.to_ne_bytes());
    question.extend(request.to_ne_bytes());
    question.resize(HEADERS, 0);
    // The kernel has answered when it has taken the question.
    sendto(kernel.as_raw_fd(), &question, &NetlinkAddr::new(0, 0), MsgFlags::empty()).ok()?;
    let mut answer = [0; 256];
    let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
    number(&answer[..length])
}

/// The number in an answer: behind its headers stand attributes of a length, a kind and a value, each filled up to four bytes.
fn number(answer: &[u8]) -> Option<u32> {
    let word = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if word(4)? != ANSWER {
        return None;
    }
    let mut at = HEADERS;
    loop {
        let length = usize::from(word(at)?);
        if word(at + 2)? == NUMBER {
            return Some(u32::from_be_bytes(answer.get(at + 4..at + 8)?.try_into().ok()?));
        }
        at += length.max(4).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let mut message = 36_u32.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(HEADERS, 0);
        message.extend(attributes);
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
    }

    #[test]
    fn the_number_is_found_wherever_it_stands() {
        let name = attribute(3, b"nft\0");
        let number_first = [attribute(NUMBER, &[0, 0, 1, 7]), name.clone()].concat();
        assert_eq!(number(&message(ANSWER, &number_first)), Some(263));
        let number_last = [name, attribute(NUMBER, &[0, 0, 1, 7])].concat();
        assert_eq!(number(&message(ANSWER, &number_last)), Some(263));
    }

    #[test]
    fn no_number_is_made_up() {
        assert_eq!(number(&message(2, &attribute(NUMBER, &[0, 0, 1, 7]))), None, "an error of netlink");
        assert_eq!(number(&message(ANSWER, &attribute(3, b"nft\0"))), None);
        assert_eq!(number(&message(ANSWER, &attribute(NUMBER, &[1]))), None);
        assert_eq!(number(&message(ANSWER, &[0, 0, 9, 0])), None);
        assert_eq!(number(&[]), None);
    }
}
