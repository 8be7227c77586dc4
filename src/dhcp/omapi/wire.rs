//! OMAPI's messages as bytes. What comes from the network is bounded: an answer of dhcpd has some hundred bytes.
//!
//! ```text
//! greeting      version 100, header size 24
//! message       authenticator id, signature length, opcode, handle, id, id of the request
//!               | dictionary of the message | dictionary of the object | signature
//! dictionary    (u16 length, name, u32 length, value)* u16 0
//! ```
//!
//! All numbers are big endian. The signature covers everything but the authenticator's id.

use std::io::{self, Read};

use super::key::Key;

const VERSION: u32 = 100;
const HEADER_BYTES: u32 = 24;

/// Longest name, value and signature that are read; dhcpd's own have at most some hundred bytes.
const VALUE_BYTES_MAX: u32 = 4096;

/// Most entries of one dictionary.
const ENTRIES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Open = 1,
    Update = 3,
    Status = 5,
    Delete = 6,
}

type Dictionary = Vec<(String, Vec<u8>)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) opcode: Opcode,
    pub(super) handle: u32,
    pub(super) id: u32,
    pub(super) request: u32,
    message: Dictionary,
    object: Dictionary,
}

/// The signed part of a message that was read, and its signature.
pub(super) struct Signed {
    bytes: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    pub(super) fn is_by(&self, key: &Key) -> bool {
        key.signed(&self.bytes, &self.signature)
    }
}

pub(super) fn greeting() -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&VERSION.to_be_bytes());
    bytes[4..].copy_from_slice(&HEADER_BYTES.to_be_bytes());
    bytes
}

impl Message {
    pub(super) fn new(opcode: Opcode) -> Self {
        Self { opcode, handle: 0, id: 0, request: 0, message: Vec::new(), object: Vec::new() }
    }

    pub(super) fn with(mut self, name: &str, value: &[u8]) -> Self {
        self.message.push((name.to_owned(), value.to_vec()));
        self
    }

    pub(super) fn object(mut self, name: &str, value: &[u8]) -> Self {
        self.object.push((name.to_owned(), value.to_vec()));
        self
    }

    /// A value of either dictionary.
    pub(super) fn value(&self, name: &str) -> Option<&[u8]> {
        let mut entries = self.message.iter().chain(&self.object);
        entries.find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    /// The number of a status message.
    pub(super) fn result(&self) -> Option<u32> {
        self.value("result").and_then(|value| value.try_into().ok()).map(u32::from_be_bytes)
    }

    pub(super) fn bytes(&self, sign: Option<(u32, &Key)>) -> Vec<u8> {
        let (authenticator, length) = sign.map_or((0, 0), |(id, key)| (id, key.signature_bytes()));
        let mut signed = Vec::new();
        for number in [length, self.opcode as u32, self.handle, self.id, self.request] {
            signed.extend(number.to_be_bytes());
        }
        for dictionary in [&self.message, &self.object] {
            write_dictionary(dictionary, &mut signed);
        }
        let signature = sign.map(|(_, key)| key.sign(&signed)).unwrap_or_default();
        [authenticator.to_be_bytes().as_slice(), &signed, &signature].concat()
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<(Self, Signed)> {
        read_number(from)?;
        let mut copy = Copy { from, bytes: Vec::new() };
        let length = bounded(read_number(&mut copy)?)?;
        let opcode = match read_number(&mut copy)? {
            1 => Opcode::Open,
            3 => Opcode::Update,
            5 => Opcode::Status,
            6 => Opcode::Delete,
            other => return Err(malformed(format!("opcode {other}"))),
        };
        let (handle, id, request) = (read_number(&mut copy)?, read_number(&mut copy)?, read_number(&mut copy)?);
        let (message, object) = (read_dictionary(&mut copy)?, read_dictionary(&mut copy)?);
        let bytes = copy.bytes;
        let mut signature = vec![0; length];
        from.read_exact(&mut signature)?;
        Ok((Self { opcode, handle, id, request, message, object }, Signed { bytes, signature }))
    }
}

/// Keeps what it reads, for the signature.
struct Copy<'a, R> {
    from: &'a mut R,
    bytes: Vec<u8>,
}

impl<R: Read> Read for Copy<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..n]);
        Ok(n)
    }
}

fn write_dictionary(dictionary: &Dictionary, into: &mut Vec<u8>) {
    for (name, value) in dictionary {
        let name_length = u16::try_from(name.len()).expect("our names have at most some hundred bytes");
        let value_length = u32::try_from(value.len()).expect("our values have at most some hundred bytes");
        into.extend(name_length.to_be_bytes());
        into.extend(name.as_bytes());
        into.extend(value_length.to_be_bytes());
        into.extend(value);
    }
    into.extend(0_u16.to_be_bytes());
}

fn read_dictionary(from: &mut impl Read) -> io::Result<Dictionary> {
    let mut dictionary = Vec::new();
    loop {
        let mut length = [0; 2];
        from.read_exact(&mut length)?;
        let length = u16::from_be_bytes(length);
        if length == 0 {
            return Ok(dictionary);
        }
        if dictionary.len() == ENTRIES_MAX {
            return Err(malformed("a dictionary without end".to_owned()));
        }
        let mut name = vec![0; bounded(u32::from(length))?];
        from.read_exact(&mut name)?;
        let mut value = vec![0; bounded(read_number(from)?)?];
        from.read_exact(&mut value)?;
        dictionary.push((String::from_utf8_lossy(&name).into_owned(), value));
    }
}

fn read_number(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn bounded(length: u32) -> io::Result<usize> {
    if length <= VALUE_BYTES_MAX { Ok(length as usize) } else { Err(malformed(format!("a length of {length}"))) }
}

fn malformed(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it sent {what}"))
}

#[cfg(test)]
mod tests {
    use super::super::key::for_tests;
    use super::*;

    /// A connection that hands out one byte at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(1).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn message() -> Message {
        Message::new(Opcode::Status).with("result", &0x17_u32.to_be_bytes()).object("name", b"vm")
    }

    #[test]
    fn a_message_that_comes_in_pieces_reads_back_with_its_signature() {
        let key = for_tests(b"hello");
        let bytes = message().bytes(Some((7, &key)));
        let (read, signed) = Message::read(&mut Trickle(&bytes)).unwrap();
        assert_eq!(read, message());
        assert_eq!(read.result(), Some(0x17));
        assert!(signed.is_by(&key));
        assert!(!signed.is_by(&for_tests(b"hello!")));
    }

    #[test]
    fn nonsense_ends_instead_of_filling_memory() {
        let bytes = message().bytes(None);
        for end in 0..bytes.len() {
            assert!(Message::read(&mut &bytes[..end]).is_err(), "{end}");
        }
        assert!(Message::read(&mut [0xff; 64].as_slice()).is_err());
    }
}
