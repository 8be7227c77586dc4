//! Whoever means the daemon ill: what they send, how slowly, and how often; guesses at what is others'; and links in storage.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::serve::Served;
use crate::world::{text, wait_until};

#[test]
fn nobody_breaks_the_daemon() {
    let served = Served::new();
    for (line, status) in [
        ("GET /v1/labs", "200"),
        ("GET /v1/labs/net101/vms", "200"),
        ("GET /v1/labs/net101/vms/doraz%2F..%2F..%2Fetc", "400"),
        ("GET /v1/labs/..%2F..%2Fetc/vms", "400"),
        ("GET /v1/labs/../../etc/passwd", "404"),
        ("GET /v1/labs/net101/vms/a%00b%1b%5B31m", "400"),
        ("GET /v1/labs/net101/vms/%ff%fe", "400"),
        ("GET /v1/labs/net101/vms/none", "404"),
        ("GET /v1/labs/none/vms", "404"),
        ("GET /", "404"),
        ("PUT /v1/labs", "405"),
        ("POST /v1/labs/net101/vms", "415"),
        ("nonsense", "400"),
    ] {
        assert_eq!(served.status(line), status, "{line}");
    }
    let post = |body: &str, length: usize| {
        let head =
            "POST /v1/labs/net101/vms HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
        let answer = served.answer(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes());
        answer.split_whitespace().nth(1).unwrap_or("nothing").to_owned()
    };
    for (body, status) in [
        ("{", "400"),
        (r#"{"template":"gsr","name":"../x"}"#, "422"),
        (r#"{"template":"gsr","name":"x","is_root":true}"#, "422"),
        (r#"{"template":"gsr","name":"x","owner":"doraz","cpus":0}"#, "400"),
        (r#"{"template":"gsr","name":"x","owner":"doraz","memory_mib":4294967295}"#, "400"),
    ] {
        assert_eq!(post(body, body.len()), status, "{body}");
    }
    assert_eq!(post(&" ".repeat((1 << 20) + 1), (1 << 20) + 1), "413");

    a_guess_tells_nothing(&served);
    a_link_in_storage_leads_nowhere(&served);

    // A byte now and then keeps no place either: not as a head, not as a body, which would come to its end some day.
    let body = "POST /v1/labs/net101/vms HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n";
    let slow = ["GET /v1/labs HTTP/1.1\r\nx-", body].map(|begin| {
        let socket = served.socket.clone();
        std::thread::spawn(move || trickle(&socket, begin))
    });
    // Who goes away while they are answered.
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&served.socket).unwrap();
        stream.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 16]).unwrap();
    }
    assert_eq!(served.status("GET /v1/labs"), "200");

    // Half a request and no more, a body that never comes, and as many connections as anybody can make.
    let half: Vec<UnixStream> = ["GET /v1/la", "POST /v1/labs/net101/vms HTTP/1.1\r\ncontent-length: 9\r\n\r\n"]
        .into_iter()
        .map(|begin| {
            let mut stream = UnixStream::connect(&served.socket).unwrap();
            stream.write_all(begin.as_bytes()).unwrap();
            stream
        })
        .collect();
    let crowd: Vec<UnixStream> = (0..500).map(|_| UnixStream::connect(&served.socket).unwrap()).collect();
    served.expect("doraz", "get vms -o name", 0, "");
    let mut last = crowd.last().unwrap();
    let mut answer = [0; 64];
    let read = last.read(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 429 "), "one account has its share");
    for mut stream in half {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it is closed, not kept for ever");
    }
    let [head, body] = slow.map(|slow| slow.join().unwrap());
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 4"), "{head}");
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    drop(crowd);
    wait_until("others are served again", || served.status("GET /v1/labs") == "200");

    // A second daemon does not take the socket away, and a file in the way is left alone.
    let serve = |socket: &Path| served.lab.labwright(&["serve", "--socket", &text(socket)]);
    assert!(!serve(&served.socket).status.success());
    assert_eq!(served.status("GET /v1/labs"), "200");
    let open = served.lab.world.folder.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(!serve(&open.join("api.sock")).status.success(), "a folder that others may write into");
}

/// Sends a byte now and then until the other end has had enough; what that says.
fn trickle(socket: &Path, begin: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.write_all(begin.as_bytes()).unwrap();
    let (begun, mut heard) = (std::time::Instant::now(), [0; 64]);
    loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is closed, not kept for ever");
        match stream.read(&mut heard) {
            Ok(length) => return String::from_utf8_lossy(&heard[..length]).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => drop(stream.write_all(b"x")),
            Err(_) => return String::new(),
        }
    }
}

/// The guests' account, which owns the folders of disks, puts links in their place: to where root alone may write.
fn a_link_in_storage_leads_nowhere(served: &Served) {
    assert_eq!(served.says("doraz", "vm derive gsr --name linked").1, 0);
    let root = served.lab.world.folder.path();
    let (folder, elsewhere, precious) = (root.join("site/vms/net101"), root.join("elsewhere"), root.join("precious"));
    let disk = root.join("site/vms/net101/doraz~linked/disk-0.qcow2");
    let account = std::fs::metadata(&disk).unwrap().uid();
    std::fs::write(&precious, "precious").unwrap();
    let put_link = |from: &Path, to: &Path| {
        symlink(to, from).unwrap();
        lchown(from, Some(account), None).unwrap();
    };
    std::fs::remove_file(&disk).unwrap();
    put_link(&disk, &precious);
    for line in ["vm start doraz/linked --isolate", "vm reimage doraz/linked", "vm delete doraz/linked"] {
        let (said, code) = served.says("doraz", line);
        assert!(code != 0, "{line}: {said}");
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious", "{line}");
    }
    std::fs::rename(&folder, &elsewhere).unwrap();
    put_link(&folder, &elsewhere);
    let before = tree(&elsewhere);
    let (said, code) = served.says("doraz", "vm derive gsr --name led");
    assert!(code != 0 && said.contains("symbolic link"), "{said}");
    assert_eq!(tree(&elsewhere), before, "nothing is made there");
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&elsewhere, &folder).unwrap();
    // What was asked for is made once the storage is what it was.
    wait_until("it is made", || folder.join("doraz~led/disk-0.qcow2").exists());
    assert_eq!(served.says("doraz", "vm delete doraz/led").1, 0);
    wait_until("both are given up", || served.says("doraz", "get vms -o name") == (String::new(), 0));
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}

/// All that is below a folder.
fn tree(folder: &Path) -> Vec<String> {
    let found = Command::new("find").arg(folder).output().unwrap();
    let mut found: Vec<String> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
    found.sort();
    found
}

/// Whoever has no right to a vm is answered the same whether or not there is one, whatever they ask; and names with control characters
/// come back to no terminal.
fn a_guess_tells_nothing(served: &Served) {
    assert_eq!(served.says("doraz", "vm derive gsr --name mine").1, 0);
    let power = |wanted: &str| ("POST", "/power", format!(r#"{{"wanted":"{wanted}","isolated":true,"by_name":true}}"#));
    let edit = |body: &str| ("POST", "/edit", body.to_owned());
    let request = |body: &str| ("POST", "/requests", body.to_owned());
    let asks = [
        ("GET", "", String::new()),
        ("GET", "/snapshots", String::new()),
        ("GET", "/screen", String::new()),
        ("GET", "/events", String::new()),
        ("DELETE", "", String::new()),
        power("start"),
        power("stop"),
        power("restart"),
        power("reimage"),
        power("put_back"),
        edit(r#"{"cpus":2}"#),
        edit(r#"{"ejects":true}"#),
        edit(r#"{"name":"x"}"#),
        request(r#""suspend""#),
        request(r#"{"snapshot":{"name":"x"}}"#),
        request(r#"{"revert":{"name":"x"}}"#),
    ];
    for (method, what, body) in asks {
        let [there, not_there] = ["mine", "none"].map(|name| {
            let line = format!("{method} /v1/labs/net101/vms/doraz%2F{name}{what}");
            let (status, said) = served.raw("alex", &line, &body);
            (status, said.replace(&format!("doraz/{name}"), "VM"))
        });
        assert_eq!(there, not_there, "{method} {what} {body}");
        assert!(there.0 == "403" || there.0 == "404", "{method} {what} {body}: {there:?}");
    }
    for (path, body) in [
        ("vms/doraz%2Fmine/edit", r#"{"name":"a\u001b[31mb"}"#),
        ("vms", r#"{"template":"gsr","name":"a\u001b[31mb"}"#),
        ("vms", r#"{"template":"g\u0007\u0000","name":"x"}"#),
        ("vms/doraz%2Fmine/requests", r#"{"snapshot":{"name":"a\u001b[31mb"}}"#),
        ("vms/doraz%2Fmine/requests", r#"{"snapshot":{"name":"../../x"}}"#),
    ] {
        let (status, said) = served.raw("doraz", &format!("POST /v1/labs/net101/{path}"), body);
        assert!(
            status.starts_with('4') && !said.contains(|c: char| c.is_control() && c != '\n'),
            "{body}: {status} {said}"
        );
    }
    assert_eq!(served.says("doraz", "vm delete doraz/mine").1, 0);
}
