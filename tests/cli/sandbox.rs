//! A folder for one test: a lab, a site, a home, and a shell that sees nothing else of whoever runs the tests.
//!
//! ```text
//! PARENT/labwright-cli.XXXXXX/
//!   lab/         a copy of `tests/cli/lab`; commands run here
//!   site.yaml    for `--site ../site.yaml`: with it `apply` needs neither network nor DHCP server
//!   site/        what that site keeps
//!   home/        empty
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Ends a command that hangs before the test run as a whole is given up. A machine that builds beside can make an apply, with
/// its flushes, take minutes.
const TIMEOUT_SECONDS: &str = "300";

pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    /// Below `parent`, a fixed folder, so that the tables in transcripts are as wide everywhere; with the files of `overlay`
    /// laid over the lab's.
    pub(crate) fn new(parent: &str, overlay: Option<&Path>) -> Self {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
        // Whoever runs the tests may keep all to themselves; other accounts must enter what is made here.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        assert!(!Path::new("/etc/labwright").exists(), "these tests need a machine without /etc/labwright");
        let folder = tempfile::Builder::new().prefix("labwright-cli.").rand_bytes(6).tempdir_in(parent).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let sandbox = Self { folder };
        std::fs::create_dir(sandbox.path("home")).unwrap();
        copy_file(&samples.join("site.yaml"), &sandbox.path("site.yaml"));
        copy(&samples.join("lab"), &sandbox.path("lab"));
        if let Some(overlay) = overlay.filter(|overlay| overlay.exists()) {
            copy(overlay, &sandbox.path("lab"));
        }
        // Made here, because a binary file in git could not be read by who reviews it.
        let made = sandbox.shell("mkdir -p images && qemu-img create -q -f qcow2 images/base.qcow2 1M");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a line of shell printed.
    pub(crate) fn shell(&self, line: &str) -> Output {
        self.command("timeout").args([TIMEOUT_SECONDS, "sh", "-c", line]).output().expect("coreutils are installed")
    }

    /// A program in the lab's folder, with nothing of our environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let ours = Path::new(env!("CARGO_BIN_EXE_labwright")).parent().expect("a program is in a folder");
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", ours.display()))
            .env("HOME", self.path("home"))
            .env("LC_ALL", "C")
            .env("COLUMNS", "100")
            .env("TZ", "Asia/Kolkata")
            .current_dir(self.path("lab"))
            .stdin(Stdio::null());
        command
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            copy_file(&entry.path(), &target);
        }
    }
}

/// The content alone: a checkout may keep its files from everybody else.
fn copy_file(from: &Path, to: &Path) {
    std::fs::write(to, std::fs::read(from).unwrap()).unwrap();
}
