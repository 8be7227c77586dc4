//! Where frames arrive: everything that is heard on an interface, and what the gateway's own programs get.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::world::text;

/// Everything that is heard on an interface.
pub(crate) struct Listener {
    file: PathBuf,
    tcpdump: Child,
}

impl Listener {
    /// Listens in the namespace of the calling thread, for what `filter` of tcpdump matches.
    pub(crate) fn start(folder: &Path, interface: &str, filter: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let file = folder.join(format!("heard-{}.pcap", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let tcpdump = Command::new("tcpdump")
            .args(["-i", interface, "-U", "--immediate-mode", "-Z", "root", "-w", &text(&file), filter])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while std::fs::metadata(&file).map_or(0, |file| file.len()) == 0 {
            assert!(started.elapsed() < Duration::from_secs(60), "tcpdump does not listen on {interface}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { file, tcpdump }
    }

    /// The frames so far; the last may be on its way to the file.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(&self.file).unwrap();
        let mut rest = bytes.get(24..).unwrap_or_default();
        let mut frames = Vec::new();
        while let Some(length) = rest.get(8..12) {
            let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
            let Some(frame) = rest.get(16..16 + length) else { break };
            frames.push(frame.to_vec());
            rest = &rest[16 + length..];
        }
        frames
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.tcpdump.kill());
        drop(self.tcpdump.wait());
    }
}

/// A program on the gateway that takes UDP at the port of all probes. It hears what reaches the host by whatever way, also
/// past the bridge.
pub(crate) struct Program {
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Program {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("0.0.0.0:9999").unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(length) = socket.recv(&mut buffer) {
                to.lock().unwrap().push(buffer[..length].to_vec());
            }
        });
        Self { heard }
    }

    pub(crate) fn has_heard(&self, mark: &[u8]) -> bool {
        self.heard.lock().unwrap().iter().any(|data| contains(data, mark))
    }
}

pub(crate) fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}
