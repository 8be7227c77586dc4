//! What is not dhcpd, or not well, on the other side. dhcpd itself is asked in `tests/system/dhcp.rs`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;

use super::*;
use crate::model::site::Algorithm;

/// A server that does this with every connection; and what a question to it comes to, with the time that took.
fn ask(serve: impl Fn(TcpStream) + Send + 'static) -> (String, Duration) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the test's process.
    std::thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("omapi.key");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key_file).unwrap();
    file.write_all(b"aGVsbG8=\n").unwrap();
    let settings = OmapiSettings {
        server: Ipv4Addr::LOCALHOST,
        port,
        key_name: "lab".to_owned(),
        algorithm: Algorithm::HmacSha256,
        key_file,
    };
    let omapi = Omapi {
        answer_wait: Duration::from_millis(300),
        restart_wait: Duration::from_millis(500),
        ..Omapi::new(&settings)
    };
    let began = Instant::now();
    let said = omapi.probe().unwrap_err().to_string();
    (said.replace(&port.to_string(), "PORT"), began.elapsed())
}

#[test]
fn who_says_nothing_or_one_byte_at_a_time_is_not_waited_for() {
    let (silent, silent_time) = ask(|stream| {
        std::thread::sleep(Duration::from_secs(60));
        drop(stream);
    });
    let (trickling, trickling_time) = ask(|mut stream| {
        let whole = [wire::greeting().as_slice(), &[0; 1000]].concat();
        for byte in whole {
            // The other side goes away in the middle, which is what is tested.
            drop(stream.write_all(&[byte]));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(silent, "dhcpd at 127.0.0.1:PORT did not answer within 300ms");
    assert_eq!(trickling, silent);
    assert!(silent_time.max(trickling_time) < Duration::from_secs(5), "{silent_time:?} {trickling_time:?}");
}

#[test]
fn who_speaks_something_else_is_told_apart() {
    let (ssh, _) = ask(|mut stream| stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap());
    assert_eq!(ssh, "dhcpd at 127.0.0.1:PORT does not speak OMAPI: its greeting is not that of version 100");
    let (nonsense, _) = ask(|mut stream| {
        stream.write_all(&wire::greeting()).unwrap();
        stream.write_all(&[0xff; 100]).unwrap();
        // What it asks is read, so that closing does not reset what was said.
        drop(stream.read(&mut [0; 500]));
    });
    assert_eq!(nonsense, "dhcpd at 127.0.0.1:PORT does not speak OMAPI: it sent a length of 4294967295");
}

#[test]
fn who_breaks_off_is_asked_again_for_a_while() {
    let (said, time) = ask(drop);
    assert!(said.starts_with("dhcpd at 127.0.0.1:PORT broke the conversation off: "), "{said}");
    assert!(time >= Duration::from_millis(500), "{time:?}");
}
