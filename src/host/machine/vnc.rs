//! A look at a vnc server as a viewer sees it: the handshake of RFC 6143 up to the question for the password. Nothing is
//! shown, nothing is logged in to.

use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};

const WAIT: Duration = Duration::from_secs(5);
/// Version 3.8 of the protocol, which qemu speaks.
const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Security types of RFC 6143, section 7.1.2.
const NONE: u8 = 1;
const PASSWORD: u8 = 2;
/// What a server sends to be encrypted with the password.
const CHALLENGE_BYTES: usize = 16;

/// Where a server listens, as a starter reports it: `10.0.0.5:5901`, or `unix:/run/labwright/k3f9-104/vnc.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Address(SocketAddr),
    Socket(PathBuf),
}

impl FromStr for Place {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Socket(path.into())),
            None => text.parse().map(Self::Address),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whom the server lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It asked for the password.
    Password,
    /// Anybody.
    Open,
}

#[derive(Debug, thiserror::Error)]
pub enum VncError {
    #[error("cannot talk to the vnc server at {place}")]
    Io { place: Place, source: std::io::Error },
    #[error("what listens at {place} is not a vnc server: it says {words:?}")]
    Stranger { place: Place, words: String },
    #[error("the vnc server at {place} offers none of the ways in that labwright sets: {offered:?}")]
    Ways { place: Place, offered: Vec<u8> },
}

/// Connects, and goes as far as one can without the password. A server on every address is tried on this host.
pub fn look(place: &Place) -> Result<Entry, VncError> {
    let io = |source| VncError::Io { place: place.clone(), source };
    match place {
        Place::Address(address) => {
            let mut address = *address;
            if address.ip().is_unspecified() {
                address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
            let stream = TcpStream::connect_timeout(&address, WAIT).map_err(io)?;
            stream.set_read_timeout(Some(WAIT)).map_err(io)?;
            stream.set_write_timeout(Some(WAIT)).map_err(io)?;
            shake_hands(stream, place)
        }
        Place::Socket(path) => {
            let stream = connect_at_once(path).map_err(io)?;
            stream.set_read_timeout(Some(WAIT)).map_err(io)?;
            stream.set_write_timeout(Some(WAIT)).map_err(io)?;
            shake_hands(stream, place)
        }
    }
}

/// A server on a socket takes a viewer in at once or, with its queue full, not at all: waiting for it would have no end.
fn connect_at_once(path: &Path) -> std::io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn shake_hands(mut stream: impl Read + Write, place: &Place) -> Result<Entry, VncError> {
    let io = |source| VncError::Io { place: place.clone(), source };
    let mut version = [0; VERSION.len()];
    stream.read_exact(&mut version).map_err(io)?;
    if !version.starts_with(b"RFB ") {
        let words = String::from_utf8_lossy(&version).into_owned();
        return Err(VncError::Stranger { place: place.clone(), words });
    }
    stream.write_all(VERSION).map_err(io)?;
    let mut count = [0];
    stream.read_exact(&mut count).map_err(io)?;
    let mut offered = vec![0; usize::from(count[0])];
    stream.read_exact(&mut offered).map_err(io)?;
    if offered.contains(&NONE) {
        return Ok(Entry::Open);
    }
    if !offered.contains(&PASSWORD) {
        return Err(VncError::Ways { place: place.clone(), offered });
    }
    stream.write_all(&[PASSWORD]).map_err(io)?;
    stream.read_exact(&mut [0; CHALLENGE_BYTES]).map_err(io)?;
    Ok(Entry::Password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Looks at a server that says `first`, and `then` after the viewer's version.
    fn look_at(first: &'static [u8], then: &'static [u8]) -> Result<Entry, VncError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(first).unwrap();
            if !then.is_empty() {
                stream.read_exact(&mut [0; 12]).unwrap();
                stream.write_all(then).unwrap();
                // Until the viewer has read all and hangs up.
                std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
            }
        });
        let found = look(&Place::Address(address));
        server.join().unwrap();
        found
    }

    #[test]
    fn a_server_with_a_password_asks_for_it() {
        let found = look_at(VERSION, b"\x01\x020123456789abcdef");
        assert_eq!(found.unwrap(), Entry::Password);
    }

    #[test]
    fn a_server_without_one_is_open_whatever_else_it_offers() {
        assert_eq!(look_at(VERSION, b"\x02\x02\x01").unwrap(), Entry::Open);
    }

    #[test]
    fn a_question_that_breaks_off_is_no_question() {
        assert!(matches!(look_at(b"RFB 003.0", b""), Err(VncError::Io { .. })));
    }

    #[test]
    fn others_are_told_apart() {
        assert!(matches!(look_at(b"SSH-2.0-Open", b""), Err(VncError::Stranger { .. })));
        assert!(matches!(look_at(VERSION, b"\x01\x13"), Err(VncError::Ways { offered, .. }) if offered == [0x13]));
    }
}
