//! A guest's serial line on a terminal.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Failure;
use crate::exit::Exit;
use crate::model::id::VmName;

/// Joins standard input and output with a guest's serial line, until one of them ends.
pub fn join(name: &VmName, socket: &Path) -> Result<(), Failure> {
    let failed = |source: std::io::Error| {
        Failure::from_error(Exit::Failed, &source)
            .within(format!("cannot reach the serial line of `{name}` at {}", socket.display()))
            .hint("the console works on the host that runs the vm: see `labwright get mappings`")
    };
    let mut line = UnixStream::connect(socket).map_err(failed)?;
    let mut from_guest = line.try_clone().map_err(failed)?;
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from_guest.read(&mut buffer) {
            let mut out = std::io::stdout().lock();
            if out.write_all(&buffer[..read]).and_then(|()| out.flush()).is_err() {
                break;
            }
        }
        std::process::exit(i32::from(Exit::Done as u8));
    });
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = std::io::stdin().read(&mut buffer) {
        line.write_all(&buffer[..read]).map_err(failed)?;
    }
    Ok(())
}
