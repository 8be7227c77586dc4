//! Images from a server of our own, with a certificate of its own. `openssl s_server` is the wire; what a server says is said here.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use labwright::disks::{DiskError, Source, fetch};
use sha2::{Digest as _, Sha256};

use super::{OWNER, UNTOLD, names};

/// Enough that half of it does not fit one record of TLS.
const BYTES: usize = 200_000;

struct Server {
    openssl: Child,
    port: u16,
}

impl Server {
    /// Takes so many connections, one after the other.
    fn start(folder: &Path, connections: u32) -> Self {
        // Whoever takes the port in between makes the test fail, not pass.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-accept", &port.to_string(), "-naccept", &connections.to_string()]);
        command.arg("-cert").arg(folder.join("ca.pem")).arg("-key").arg(folder.join("key.pem"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let server = Self { openssl: command.spawn().unwrap(), port };
        while Command::new("sh").args(["-c", &format!("ss -ltn | grep -q ':{port} '")]).status().unwrap().code()
            != Some(0)
        {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        server
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/image", self.port)
    }

    /// Hears one request and says this; answers what was asked for.
    fn answer(&mut self, head: &str, body: &[u8]) -> String {
        let mut request = Vec::new();
        let stdout = self.openssl.stdout.as_mut().unwrap();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let stdin = self.openssl.stdin.as_mut().unwrap();
        stdin.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).and_then(|()| stdin.write_all(body)).unwrap();
        stdin.flush().unwrap();
        String::from_utf8(request).unwrap().to_lowercase()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.openssl.kill());
        drop(self.openssl.wait());
    }
}

/// A folder that the account of the guests can enter, with a certificate.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut made = Command::new("openssl");
    made.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    made.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    made.arg("-keyout").arg(folder.path().join("key.pem")).arg("-out").arg(folder.path().join("ca.pem"));
    assert!(made.output().unwrap().status.success());
    folder
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_image_is_fetched_once_and_what_was_cut_short_is_gone_on_with() {
    let folder = folder();
    let image: Vec<u8> = (0..BYTES).map(|n| u8::try_from(n * n % 251).unwrap()).collect();
    let sha256 = sum(&image);
    let store = folder.path().join("store");
    let target: PathBuf = store.join(&sha256);
    let authorities = folder.path().join("ca.pem");
    let try_at = |url: &str, sha256: &str| {
        let (url, sha256, target) = (url.to_owned(), sha256.to_owned(), store.join(sha256));
        let authorities = authorities.clone();
        std::thread::spawn(move || {
            let source = Source { url: &url, sha256: &sha256, authorities: Some(&authorities) };
            fetch(&source, &target, OWNER, UNTOLD)
        })
    };
    let whole = format!("200 OK\r\nContent-Length: {BYTES}");

    // Cut off in the middle: nothing has the name, what came is kept.
    let mut server = Server::start(folder.path(), 1);
    let trying = try_at(&server.url(), &sha256);
    server.answer(&whole, &image[..BYTES / 2]);
    let part = store.join(format!(".{sha256}.part/part"));
    while fs::metadata(&part).map_or(0, |found| found.len()) < 16_384 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(server);
    let cut = trying.join().unwrap();
    assert!(matches!(cut, Err(DiskError::NotFetched { .. })), "{cut:?}");
    assert_eq!(names(&store), [format!(".{sha256}.part")]);
    let came = fs::read(&part).unwrap();
    assert!(image.starts_with(&came) && came.len() < BYTES);

    // The rest is asked for.
    let mut server = Server::start(folder.path(), 1);
    let trying = try_at(&server.url(), &sha256);
    let head = format!(
        "206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/{BYTES}",
        BYTES - came.len(),
        came.len(),
        BYTES - 1
    );
    let asked = server.answer(&head, &image[came.len()..]);
    assert!(asked.contains(&format!("range: bytes={}-", came.len())), "{asked}");
    trying.join().unwrap().unwrap();
    assert_eq!(names(&store), std::slice::from_ref(&sha256));
    assert_eq!(fs::read(&target).unwrap(), image);
    drop(server);
    // From now on it needs no server.
    try_at("https://localhost:1/image", &sha256).join().unwrap().unwrap();

    // Another content than was promised is not kept, and both sums are told.
    let mut server = Server::start(folder.path(), 1);
    let promised = sum(b"another");
    let other = store.join(&promised);
    let trying = try_at(&server.url(), &promised);
    server.answer(&whole, &image);
    let said = trying.join().unwrap().unwrap_err().to_string();
    assert!(said.contains(&promised) && said.contains(&sha256), "{said}");
    assert!(!other.exists() && !store.join(format!(".{promised}.part/part")).exists());

    // A server that cannot begin in the middle sends it all again.
    fs::remove_file(&target).unwrap();
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, &image[..1000]).unwrap();
    for place in [part.parent().unwrap(), &part] {
        std::os::unix::fs::chown(place, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
    }
    let mut server = Server::start(folder.path(), 2);
    let trying = try_at(&server.url(), &sha256);
    server.answer(&whole, &image[..100]);
    let asked = server.answer(&whole, &image);
    assert!(!asked.contains("range:"), "{asked}");
    trying.join().unwrap().unwrap();
    assert_eq!(fs::read(&target).unwrap(), image);

    // Who is sent on to an address without a certificate goes nowhere.
    let mut server = Server::start(folder.path(), 1);
    let trying = try_at(&server.url(), &"f".repeat(64));
    server.answer("302 Found\r\nLocation: http://localhost:1/image\r\nContent-Length: 0", &[]);
    let refused = trying.join().unwrap();
    assert!(matches!(&refused, Err(DiskError::NotFetched { why, .. }) if why.contains("rotocol")), "{refused:?}");
}
