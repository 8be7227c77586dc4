//! The `labwright` program: everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    labwright::host::sys::search_system_folders();
    // A hardened caller's umask would lock out the service account, the DHCP server and the starters; none at all would let
    // everybody write. What must be narrower than this has its mode set by whoever makes it.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    labwright::jobs::main().unwrap_or_else(labwright::cli::main).into()
}
