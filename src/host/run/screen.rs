//! The guest's screen as its starter serves it. Viewers connect to the starter, which hands each connection to qemu and keeps
//! it besides: so it knows who looks, and can cut them off, which qemu itself cannot. In: connections, what qemu tells of
//! them. Out: who looks.
//!
//! qemu asks for the password, as ever, and serves no address of its own: what it listens on has no name any more by the
//! time its guest begins (-> run_folder), and only makes it tell of its viewers, which it does not without.

use std::ffi::OsString;
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{Shutdown, shutdown};
use serde_json::json;

use super::qemu::{VNC_PORT_FIRST, VNC_PORT_LAST};
use super::qmp::{Event, Monitor, QmpError};
use super::run_folder::vnc_socket;
use crate::model::site::VncBind;

/// qemu takes 32 that have not said the password. Whoever comes when there are more than this is turned away.
const VIEWERS_MAX: usize = 64;
/// How a viewer is called that comes from this host, through a socket.
const LOCAL: &str = "socket";

/// The command that hands a viewer over, whose answers go to `Screen::answered`.
pub const HAND_OVER: &str = "add_client";

#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    #[error("vnc has no free port on {address} between {VNC_PORT_FIRST} and {VNC_PORT_LAST}")]
    NoPort { address: std::net::Ipv4Addr },
    #[error("vnc cannot listen on {place}; see `vnc_bind` of site.yaml")]
    Listen { place: String, source: Error },
}

/// Listens as long as it lives; its viewers are cut off with it.
#[derive(Debug)]
pub struct Screen {
    listener: Listener,
    viewers: Vec<Viewer>,
}

#[derive(Debug)]
enum Listener {
    Port(TcpListener),
    Socket(UnixListener, PathBuf),
}

#[derive(Debug)]
struct Viewer {
    /// The same connection that qemu has.
    stream: OwnedFd,
    peer: String,
    /// qemu has taken it.
    is_handed: bool,
    /// The password was right.
    looks: bool,
}

impl Screen {
    /// On the first free port of the site's address, or on the socket in the run's folder.
    pub fn listen(bind: VncBind, folder: &Path) -> Result<Self, ScreenError> {
        let listener = match bind {
            VncBind::Address(address) => Listener::Port(listen_on(address)?),
            VncBind::Socket => {
                let path = vnc_socket(folder);
                let failed = |source| ScreenError::Listen { place: path.display().to_string(), source };
                Listener::Socket(listen_at(&path).map_err(failed)?, path)
            }
        };
        Ok(Self { listener, viewers: Vec::new() })
    }

    /// As people are told it: `address:port`, or `unix:PATH`.
    pub fn place(&self) -> String {
        match &self.listener {
            Listener::Port(port) => port.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string()),
            Listener::Socket(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// Hands all who have come to qemu, or turns them away.
    pub fn let_in(&mut self, is_open: bool, qemu: &Monitor) -> Result<(), QmpError> {
        while let Some((stream, peer)) = self.next() {
            if is_open && self.viewers.len() < VIEWERS_MAX {
                qemu.tell_with("getfd", json!({ "fdname": "viewer" }), Some(stream.as_fd()))?;
                // One that is not known by its name any more is refused, and nobody else gets its connection.
                qemu.tell_with(HAND_OVER, json!({ "protocol": "vnc", "fdname": "viewer" }), None)?;
                self.viewers.push(Viewer { stream, peer, is_handed: false, looks: false });
            }
        }
        Ok(())
    }

    /// A connection that waits, with where it comes from. One that broke off meanwhile is none.
    fn next(&self) -> Option<(OwnedFd, String)> {
        loop {
            let accepted = match &self.listener {
                Listener::Port(port) => port.accept().map(|(stream, from)| {
                    // What qemu sends are small answers to small questions; without this they would wait.
                    stream.set_nodelay(true).unwrap_or_default();
                    (OwnedFd::from(stream), from.to_string())
                }),
                Listener::Socket(socket, _) => socket.accept().map(|(stream, _)| (stream.into(), LOCAL.to_owned())),
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) => return None,
            }
        }
    }

    /// Cuts off all who look or wait for it. Says whether there was anybody.
    pub fn cut(&mut self) -> bool {
        let cut = std::mem::take(&mut self.viewers);
        cut.iter().for_each(Viewer::cut);
        !cut.is_empty()
    }

    /// qemu has taken a viewer, or refused it. Its answers are in the order of the questions.
    pub fn answered(&mut self, is_taken: bool) {
        let Some(at) = self.viewers.iter().position(|viewer| !viewer.is_handed) else { return };
        if is_taken {
            self.viewers[at].is_handed = true;
        } else {
            self.viewers.remove(at).cut();
        }
    }

    /// What qemu tells of its viewers. Says whether others look than before.
    pub fn hear(&mut self, event: &Event, qemu: u32) -> bool {
        match event.name.as_str() {
            "VNC_INITIALIZED" => {
                let peer = peer(event);
                let new = self.viewers.iter_mut().find(|viewer| viewer.peer == peer && !viewer.looks);
                new.map(|viewer| viewer.looks = true).is_some()
            }
            "VNC_DISCONNECTED" => {
                let before = self.viewers.len();
                let held = sockets_of(qemu);
                self.viewers.retain(|viewer| {
                    let is_there = !viewer.is_handed || held.as_ref().is_none_or(|held| held.contains(&viewer.link()));
                    if !is_there {
                        viewer.cut();
                    }
                    is_there
                });
                self.viewers.len() < before
            }
            _ => false,
        }
    }

    /// Who looks, by where they come from.
    pub fn looking(&self) -> Vec<String> {
        self.viewers.iter().filter(|viewer| viewer.looks).map(|viewer| viewer.peer.clone()).collect()
    }
}

impl AsFd for Screen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Port(port) => port.as_fd(),
            Listener::Socket(socket, _) => socket.as_fd(),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Viewer {
    /// Also where qemu has the same connection open.
    fn cut(&self) {
        use std::os::fd::AsRawFd as _;
        // An error means that the other side was faster.
        shutdown(self.stream.as_raw_fd(), Shutdown::Both).unwrap_or_default();
    }

    /// As the kernel names the connection among a process's descriptors.
    fn link(&self) -> OsString {
        let number = nix::sys::stat::fstat(&self.stream).map_or(0, |found| found.st_ino);
        format!("socket:[{number}]").into()
    }
}

/// The connections that a process has open. qemu tells that a viewer is gone and not which, where it came through a socket.
fn sockets_of(pid: u32) -> Option<Vec<OsString>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    Some(links.map(PathBuf::into_os_string).collect())
}

/// Where a viewer comes from, as `Screen::next` says it.
fn peer(event: &Event) -> String {
    let client = &event.data["client"];
    let word = |key: &str| client[key].as_str().unwrap_or_default();
    let (host, port) = (word("host").parse(), word("service").parse());
    match (host, port) {
        (Ok(host), Ok(port)) => SocketAddr::new(host, port).to_string(),
        _ => LOCAL.to_owned(),
    }
}

fn listen_on(address: std::net::Ipv4Addr) -> Result<TcpListener, ScreenError> {
    for port in VNC_PORT_FIRST..=VNC_PORT_LAST {
        let listened = TcpListener::bind((address, port)).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match listened {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(source) => return Err(ScreenError::Listen { place: address.to_string(), source }),
        }
    }
    Err(ScreenError::NoPort { address })
}

/// For this account alone.
fn listen_at(path: &Path) -> std::io::Result<UnixListener> {
    // A starter that was killed may have left one.
    drop(std::fs::remove_file(path));
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
