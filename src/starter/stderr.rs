//! What qemu says on its standard error, for messages: the end of it, however much it says. A thread reads all of it, so
//! that a qemu that never stops talking neither waits for a reader nor fills the host's memory.

use std::collections::VecDeque;
use std::io::{PipeWriter, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is kept of it. A qemu that gives up says why in its last lines.
const KEPT_BYTES: usize = 1000;
/// How long the words of a qemu that has ended may take to arrive. They are in the pipe by then.
const ARRIVAL_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct LastWords {
    kept: Arc<Mutex<VecDeque<u8>>>,
    reader: JoinHandle<()>,
}

impl LastWords {
    /// The end that is qemu's, and what comes out of it. The thread ends when nobody holds qemu's end any more.
    pub(super) fn listen() -> std::io::Result<(PipeWriter, Self)> {
        let (from_qemu, qemus) = std::io::pipe()?;
        let kept = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT_BYTES)));
        let ours = Arc::clone(&kept);
        let reader = std::thread::Builder::new().name("qemu-says".to_owned()).spawn(move || keep(from_qemu, &ours))?;
        Ok((qemus, Self { kept, reader }))
    }

    /// The end of what a qemu has said that has ended.
    pub(super) fn last_words(&self) -> String {
        let deadline = Instant::now() + ARRIVAL_WAIT;
        while !self.reader.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let kept: Vec<u8> = self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&kept);
        // The one thing that qemu prints when all is well.
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("VNC server running on ")).collect();
        lines.join("\n").trim().to_owned()
    }
}

fn keep(mut from_qemu: impl Read, kept: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; 4096];
    loop {
        match from_qemu.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&buffer[..length]);
                let surplus = kept.len().saturating_sub(KEPT_BYTES);
                kept.drain(..surplus);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "what qemu says from now on is lost");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_end_of_an_endless_text_is_kept() {
        let (mut qemu, said) = LastWords::listen().unwrap();
        for number in 0..100_000 {
            writeln!(qemu, "the same thing again, for the {number}th time").unwrap();
        }
        write!(qemu, "VNC server running on 127.0.0.1:5900\nout of memory").unwrap();
        drop(qemu);
        let words = said.last_words();
        assert!(words.len() <= KEPT_BYTES && words.ends_with("the 99999th time\nout of memory"), "{words}");
    }

    /// Something else than qemu may hold its end of the pipe open: nobody waits for that for long.
    #[test]
    fn a_pipe_that_stays_open_holds_nobody_up() {
        let (mut qemu, said) = LastWords::listen().unwrap();
        writeln!(qemu, "a word").unwrap();
        assert_eq!(said.last_words(), "a word");
        drop(qemu);
        assert_eq!(said.last_words(), "a word");
    }
}
