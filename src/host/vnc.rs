//! A look at a vnc server as a viewer sees it: the handshake of RFC 6143 up to the question for the password. Nothing is
//! shown, nothing is logged in to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(5);
/// Version 3.8 of the protocol, which qemu speaks.
const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Security types of RFC 6143, section 7.1.2.
const NONE: u8 = 1;
const PASSWORD: u8 = 2;
/// What a server sends to be encrypted with the password.
const CHALLENGE_BYTES: usize = 16;

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
    #[error("cannot talk to the vnc server at {address}")]
    Io { address: SocketAddr, source: std::io::Error },
    #[error("what listens at {address} is no vnc server: it says {words:?}")]
    Stranger { address: SocketAddr, words: String },
    #[error("the vnc server at {address} offers none of the ways in that labwright sets: {offered:?}")]
    Ways { address: SocketAddr, offered: Vec<u8> },
}

/// Connects, and goes as far as one can without the password.
pub fn look(address: SocketAddr) -> Result<Entry, VncError> {
    let io = |source| VncError::Io { address, source };
    let mut stream = TcpStream::connect_timeout(&address, WAIT).map_err(io)?;
    stream.set_read_timeout(Some(WAIT)).map_err(io)?;
    stream.set_write_timeout(Some(WAIT)).map_err(io)?;
    let mut version = [0; VERSION.len()];
    stream.read_exact(&mut version).map_err(io)?;
    if !version.starts_with(b"RFB ") {
        return Err(VncError::Stranger { address, words: String::from_utf8_lossy(&version).into_owned() });
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
        return Err(VncError::Ways { address, offered });
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
        let found = look(address);
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
