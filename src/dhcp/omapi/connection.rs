//! One logged-in conversation with dhcpd.
//!
//! ```text
//! we    version, header size            dhcpd  the same
//! we    open authenticator              dhcpd  its handle; from here on each message is signed
//! we    open host, create or delete     dhcpd  the object, or a status
//! ```

use std::io::{self, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::error::{OmapiError, Problem};
use super::key::{Key, omapi_name};
use super::wire::{self, Message, Opcode};
use crate::model::reservation::Reservation;
use crate::model::site::OmapiSettings;

/// What dhcpd answers in place of an object; numbers of ISC's result codes.
const SUCCESS: u32 = 0;
const ALREADY_EXISTS: u32 = 0x12;
const NO_SUCH_OBJECT: u32 = 0x17;
/// Name and hardware address are those of two hosts.
const KEY_CONFLICT: u32 = 0x6_0007;

/// `hardware-type` of Ethernet.
const ETHERNET: u32 = 1;

pub(super) struct Connection<'a> {
    settings: &'a OmapiSettings,
    key: &'a Key,
    /// How long an answer may take.
    limit: Duration,
    stream: BufReader<Timed>,
    /// None until dhcpd knows us.
    authenticator: Option<u32>,
    last_id: u32,
}

/// A host object that dhcpd showed.
pub(super) struct Found {
    handle: u32,
    pub(super) mac: Vec<u8>,
    pub(super) ip: Vec<u8>,
}

/// A stream that gives an answer until a moment, however small the pieces in which it comes.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// The mark as dhcpd can read it back from its leases file: in a name it takes a dot only before a letter or digit, and
/// silently loses a host whose name has it elsewhere; it knows no `~` there. `_` stands for itself when doubled.
fn host_name(reservation: &Reservation) -> String {
    reservation.mark.replace('_', "__").replace('.', "_d").replace('~', "_t")
}

impl<'a> Connection<'a> {
    pub(super) fn open(settings: &'a OmapiSettings, key: &'a Key, limit: Duration) -> Result<Self, OmapiError> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from((settings.server, settings.port)), limit)
            .and_then(|stream| {
                stream.set_write_timeout(Some(limit))?;
                stream.set_nodelay(true)?;
                Ok(stream)
            })
            .map_err(|error| OmapiError::new(settings, Problem::Unreachable(error)))?;
        let stream = BufReader::new(Timed { stream, until: Instant::now() + limit });
        let mut connection = Self { settings, key, limit, stream, authenticator: None, last_id: 0 };
        connection.greet()?;
        connection.log_in()?;
        Ok(connection)
    }

    fn greet(&mut self) -> Result<(), OmapiError> {
        let ours = wire::greeting();
        self.send(&ours)?;
        let mut theirs = [0; 8];
        self.stream.read_exact(&mut theirs).map_err(|error| self.broken(error))?;
        if theirs == ours {
            Ok(())
        } else {
            Err(self.problem(Problem::Foreign("its greeting is not that of version 100".to_owned())))
        }
    }

    fn log_in(&mut self) -> Result<(), OmapiError> {
        let algorithm = self.settings.algorithm;
        let request = Message::new(Opcode::Open)
            .with("type", b"authenticator")
            .object("name", self.settings.key_name.as_bytes())
            .object("algorithm", omapi_name(algorithm).as_bytes());
        let reply = self.ask(request)?;
        if reply.opcode != Opcode::Update || reply.handle == 0 {
            let key = self.settings.key_name.clone();
            return Err(self.problem(Problem::UnknownKey { key, algorithm: algorithm.as_str() }));
        }
        self.authenticator = Some(reply.handle);
        Ok(())
    }

    /// The hosts with these reservations' names, in their order.
    pub(super) fn find(&mut self, reservations: &[Reservation]) -> Result<Vec<Option<Found>>, OmapiError> {
        let question = |reservation: &Reservation| {
            Message::new(Opcode::Open).with("type", b"host").object("name", host_name(reservation).as_bytes())
        };
        reservations
            .iter()
            .map(|reservation| {
                let reply = self.ask(question(reservation))?;
                self.found(&reply, reservation)
            })
            .collect()
    }

    fn found(&self, reply: &Message, reservation: &Reservation) -> Result<Option<Found>, OmapiError> {
        if reply.opcode == Opcode::Update {
            let value = |key: &str| reply.value(key).unwrap_or_default().to_vec();
            return Ok(Some(Found { handle: reply.handle, mac: value("hardware-address"), ip: value("ip-address") }));
        }
        match reply.result() {
            Some(NO_SUCH_OBJECT) => Ok(None),
            _ => Err(self.refused(reply, "look up", reservation)),
        }
    }

    pub(super) fn create(&mut self, reservation: &Reservation) -> Result<(), OmapiError> {
        let request = Message::new(Opcode::Open)
            .with("type", b"host")
            .with("create", &1_u32.to_be_bytes())
            .with("exclusive", &1_u32.to_be_bytes())
            .object("name", host_name(reservation).as_bytes())
            .object("hardware-address", &reservation.mac.0)
            .object("hardware-type", &ETHERNET.to_be_bytes())
            .object("ip-address", &reservation.ip.octets());
        let reply = self.ask(request)?;
        match (reply.opcode, reply.result()) {
            (Opcode::Update, _) => Ok(()),
            (_, Some(ALREADY_EXISTS | KEY_CONFLICT)) => {
                let (mark, mac) = (reservation.mark.clone(), reservation.mac.to_string());
                Err(self.problem(Problem::Taken { mark, mac }))
            }
            _ => Err(self.refused(&reply, "reserve an address for", reservation)),
        }
    }

    pub(super) fn delete(&mut self, found: &Found, reservation: &Reservation) -> Result<(), OmapiError> {
        let mut request = Message::new(Opcode::Delete);
        request.handle = found.handle;
        let reply = self.ask(request)?;
        match reply.result() {
            Some(SUCCESS | NO_SUCH_OBJECT) => Ok(()),
            _ => Err(self.refused(&reply, "release the address of", reservation)),
        }
    }

    /// Sends one message and reads the answer to it. One at a time: a dhcpd 4.4 that gets several at once ends.
    fn ask(&mut self, mut request: Message) -> Result<Message, OmapiError> {
        self.last_id += 1;
        request.id = self.last_id;
        self.send(&request.bytes(self.authenticator.map(|handle| (handle, self.key))))?;
        self.answer(request.id)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), OmapiError> {
        self.stream.get_mut().until = Instant::now() + self.limit;
        self.stream.get_mut().stream.write_all(bytes).map_err(|error| self.broken(error))
    }

    /// Reads the next answer, which must be the one to `id`: dhcpd answers in the order of the questions.
    fn answer(&mut self, id: u32) -> Result<Message, OmapiError> {
        let (reply, signed) = Message::read(&mut self.stream).map_err(|error| self.broken(error))?;
        if self.authenticator.is_some() && !signed.is_by(self.key) {
            return Err(self.problem(Problem::WrongSecret { key: self.settings.key_name.clone() }));
        }
        if reply.request == id {
            Ok(reply)
        } else {
            Err(self.problem(Problem::Foreign(format!("it answers message {} and not {id}", reply.request))))
        }
    }

    fn broken(&self, error: io::Error) -> OmapiError {
        use io::ErrorKind::{InvalidData, TimedOut, WouldBlock};
        self.problem(match error.kind() {
            WouldBlock | TimedOut => Problem::Silent(self.limit),
            InvalidData => Problem::Foreign(error.to_string()),
            _ => Problem::Broken(error),
        })
    }

    fn refused(&self, reply: &Message, action: &'static str, reservation: &Reservation) -> OmapiError {
        let words = reply.value("message").map(|text| String::from_utf8_lossy(text).into_owned());
        let words = words.filter(|words| !words.is_empty()).unwrap_or_else(|| "it gave no reason".to_owned());
        let (mark, result) = (reservation.mark.clone(), reply.result().unwrap_or_default());
        self.problem(Problem::Refused { action, mark, words, result })
    }

    fn problem(&self, problem: Problem) -> OmapiError {
        OmapiError::new(self.settings, problem)
    }
}
