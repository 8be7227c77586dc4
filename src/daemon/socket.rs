//! The socket, who is at its other end, and how much of us anybody may take before a first byte is understood.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use super::bounds::Place;
use super::notify::Notify;
use super::{Daemon, Peer, api, keeper};
use crate::access::Person;
use crate::model::id::UserName;

/// A client that says nothing keeps its place for no longer.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a request's line and headers.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// How long connections may go on once we are to end. What is being done on a lab is waited for without end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Threads for what waits for files, accounts and programs. A class that connects at once would have one each, and each keeps
/// some memory: what is more waits its turn. Labs that owners apply take one each for as long as that goes on.
const WAITING_THREADS_MAX: usize = 32;
/// Where nobody wants to hear that we live.
const NO_WATCHDOG: Duration = Duration::from_secs(3600);
/// After an accept that failed, as for want of open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const FULL: &str =
    "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after: 1\r\n";
const FULL_BODY: &str =
    r#"{"code":"refused","message":"too many connections at once; nothing was done","causes":[],"hint":"try again"}"#;

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the folder {} of the socket cannot be used", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("others than root may write into {}, and could put a socket of their own in place of ours", folder.display())]
    Open { folder: PathBuf },
    #[error("a daemon serves {} already", socket.display())]
    Served { socket: PathBuf },
    #[error("{} is there and is not a socket", socket.display())]
    InTheWay { socket: PathBuf },
    #[error("cannot listen at {}", socket.display())]
    Listen { socket: PathBuf, source: io::Error },
    #[error("cannot start the daemon's threads")]
    Threads(#[source] io::Error),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// How we were started.
#[derive(Debug, Default)]
pub struct Started {
    /// The socket, where systemd has opened it: then it is not ours to remove.
    pub listener: Option<std::os::unix::net::UnixListener>,
    /// `NOTIFY_SOCKET` and `WATCHDOG_USEC` of the environment.
    pub notify: Option<String>,
    pub watchdog_micros: Option<String>,
}

/// Serves until SIGTERM or SIGINT; what is under way then is finished and recorded.
pub fn serve(daemon: Daemon, socket: &Path, started: Started) -> Result<(), ServeError> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let threads = threads.worker_threads(2).max_blocking_threads(WAITING_THREADS_MAX).enable_all().build();
    let runtime = threads.map_err(ServeError::Threads)?;
    let daemon = Arc::new(daemon);
    std::thread::scope(|scope| {
        scope.spawn(|| keeper::run(&daemon));
        let ended = runtime.block_on(accept(Arc::clone(&daemon), socket, started));
        daemon.keeper.end();
        // Waits for what works on a lab, as the scope does for the loop.
        drop(runtime);
        ended
    })
}

async fn accept(daemon: Arc<Daemon>, socket: &Path, started: Started) -> Result<(), ServeError> {
    let failed = |source| ServeError::Listen { socket: socket.to_owned(), source };
    let mut term = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let notify = Notify::new(started.notify.as_deref(), started.watchdog_micros.as_deref());
    let (listener, identity) = match started.listener {
        Some(listener) => {
            listener.set_nonblocking(true).map_err(failed)?;
            (UnixListener::from_std(listener).map_err(failed)?, None)
        }
        None => (listen(socket)?, Some(socket.symlink_metadata().map_err(failed)?.ino())),
    };
    let api = TowerToHyperService::new(api::router(Arc::clone(&daemon)));
    let mut watchdog = tokio::time::interval(notify.watchdog.unwrap_or(NO_WATCHDOG));
    notify.tell("READY=1");
    tracing::info!(socket = %socket.display(), "serving");
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => meet(&daemon, &api, stream, &connections),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = watchdog.tick() => notify.tell("WATCHDOG=1"),
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
    }
    daemon.interrupts.store(1, Ordering::Relaxed);
    notify.tell("STOPPING=1");
    if socket.symlink_metadata().is_ok_and(|now| Some(now.ino()) == identity) {
        // One that stays is taken for what it is by the next daemon.
        drop(std::fs::remove_file(socket));
    }
    drop(listener);
    tracing::info!("ending");
    if tokio::time::timeout(STOP_TIMEOUT, connections.shutdown()).await.is_err() {
        tracing::info!("some clients are left without an answer");
    }
    Ok(())
}

/// A socket for everybody, in a folder where nobody but root can put another.
fn listen(socket: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Listen { socket: socket.to_owned(), source };
    let folder = socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unusable = |source| ServeError::Folder { folder: folder.to_owned(), source };
    if !folder.exists() {
        std::fs::create_dir_all(folder).map_err(unusable)?;
        // Whatever umask root has, everybody is to get in.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(unusable)?;
    }
    let there = folder.metadata().map_err(unusable)?;
    if there.uid() != 0 || there.mode() & 0o022 != 0 {
        return Err(ServeError::Open { folder: folder.to_owned() });
    }
    match socket.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => return Err(ServeError::InTheWay { socket: socket.to_owned() }),
        Ok(_) if std::os::unix::net::UnixStream::connect(socket).is_ok() => {
            return Err(ServeError::Served { socket: socket.to_owned() });
        }
        // Of a daemon that was killed.
        Ok(_) => std::fs::remove_file(socket).map_err(failed)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

/// What answers, for all connections: one of their own each would cost more than all else that they hold.
type Api = TowerToHyperService<Router>;

/// Who it is is asked before they say anything.
fn meet(daemon: &Daemon, api: &Api, stream: UnixStream, connections: &GracefulShutdown) {
    let uid = match stream.peer_cred() {
        Ok(credentials) => credentials.uid(),
        Err(error) => return tracing::warn!(%error, "a connection of nobody"),
    };
    let Some(place) = daemon.bounds.connections.take(uid) else {
        tracing::warn!(uid, "too many connections");
        return turn_away(&stream);
    };
    let watcher = connections.watcher();
    let api = api.clone();
    tokio::spawn(async move {
        let Ok(peer) = tokio::task::spawn_blocking(move || peer(uid)).await else { return };
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            api.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(uid, %error, "a connection broke");
        }
        drop::<Place>(place);
    });
}

fn turn_away(stream: &UnixStream) {
    let answer = format!("{FULL}content-length: {}\r\n\r\n{FULL_BODY}", FULL_BODY.len());
    // A new socket takes as much at once; who is gone already needs no answer.
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        tracing::debug!(%error, "nobody heard that there are too many connections");
    }
}

/// Of an account without a valid login name nothing is known.
fn peer(uid: u32) -> Peer {
    let login = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
    let name = login.clone().unwrap_or_else(|| format!("uid {uid}"));
    let person = match login.and_then(|login| UserName::new(login).ok()) {
        _ if uid == 0 => Person::Root,
        Some(user) => Person::User(user),
        None => Person::Nobody,
    };
    Peer { uid, name, person }
}
