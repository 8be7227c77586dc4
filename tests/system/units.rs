//! The files that systemd reads are such that it understands them, and the daemon is what they say of it: it takes the socket that is
//! open already, and tells when it serves.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Lab;
use crate::world::{BINARY, template, text};

#[test]
fn systemd_understands_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/systemd");
    let mut names = Vec::new();
    for unit in std::fs::read_dir(units).unwrap().map(|unit| unit.unwrap().path()) {
        let name = unit.file_name().unwrap().to_str().unwrap().to_owned();
        // The program is not installed here.
        let read = std::fs::read_to_string(&unit).unwrap().replace("/usr/bin/labwright", BINARY);
        match name.as_str() {
            "cluster.conf" => {
                let place = folder.path().join("labwright.service.d");
                std::fs::create_dir(&place).unwrap();
                std::fs::write(place.join(&name), read).unwrap();
            }
            "labwright.conf" => {}
            _ => {
                std::fs::write(folder.path().join(&name), read).unwrap();
                names.push(folder.path().join(name));
            }
        }
    }
    assert_eq!(names.len(), 5, "{names:?}");
    let verified = Command::new("systemd-analyze").arg("verify").arg("--man=no").args(&names).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_daemon_takes_the_socket_that_systemd_opened_and_says_when_it_serves() {
    let lab = Lab::prepared("", |folder| {
        std::fs::create_dir_all(folder.join("images")).unwrap();
        std::fs::copy(template(), folder.join("images/tiny.qcow2")).unwrap();
    });
    let folder = lab.world.folder.path().join("run-of-daemon");
    std::fs::create_dir(&folder).unwrap();
    let (socket, systemd) = (folder.join("api.sock"), UnixDatagram::bind(folder.join("notify")).unwrap());
    systemd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    // A connection that was made before there was a daemon is heard all the same.
    let mut early = UnixStream::connect(&socket).unwrap();
    early.write_all(b"GET /v1/labs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let shell = format!(
        "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec {BINARY} --site {} serve --socket {}",
        text(&lab.site),
        text(&socket)
    );
    let stdin = Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));
    let mut daemon = Command::new("sh")
        .args(["-c", &shell])
        .env("NOTIFY_SOCKET", folder.join("notify"))
        .env("WATCHDOG_USEC", "2000000")
        .stdin(stdin)
        .spawn()
        .unwrap();
    let hear = || {
        let mut heard = [0; 64];
        let length = systemd.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    assert_eq!(hear(), "WATCHDOG=1");
    early.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut early, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    kill(Pid::from_raw(i32::try_from(daemon.id()).unwrap()), Signal::SIGTERM).unwrap();
    while hear() != "STOPPING=1" {}
    assert!(daemon.wait().unwrap().success());
    assert!(socket.exists(), "the socket is systemd's");
}
