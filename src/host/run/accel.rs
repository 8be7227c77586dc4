//! Whether guests boot under KVM on this host: found out once by `host setup`, read by every starter. An open `/dev/kvm`
//! proves nothing: there are hosts where it opens, makes a virtual cpu, and then no kernel gets through its boot.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, Flush};
use crate::model::site::Accel;

const FILE: &str = "accel.json";

/// What qemu is told to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    Kvm,
    /// qemu's own translator: works everywhere, ten to thirty times slower.
    Tcg,
}

impl Accelerator {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub accel: Accelerator,
    /// Why, for `host check`.
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum AccelError {
    #[error(
        "it is not known whether guests boot under KVM on this host ({path} is missing); run `labwright host setup`"
    )]
    Unknown { path: PathBuf },
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is not what `labwright host setup` writes there; run it again")]
    Format { path: PathBuf, source: serde_json::Error },
}

impl From<FileError> for AccelError {
    fn from(FileError { action, path, source }: FileError) -> Self {
        Self::Io { action, path, source }
    }
}

/// What a run uses: the site's word, or where that is `auto`, what was found out below `root`.
pub fn choose(wanted: Accel, root: &Path) -> Result<Accelerator, AccelError> {
    match wanted {
        Accel::Kvm => Ok(Accelerator::Kvm),
        Accel::Tcg => Ok(Accelerator::Tcg),
        Accel::Auto => {
            read(root)?.map(|finding| finding.accel).ok_or_else(|| AccelError::Unknown { path: root.join(FILE) })
        }
    }
}

pub fn read(root: &Path) -> Result<Option<Finding>, AccelError> {
    let path = root.join(FILE);
    let text = files::read_bounded(&path, files::BYTES_MAX)?;
    text.map(|text| serde_json::from_slice(&text).map_err(|source| AccelError::Format { path, source })).transpose()
}

/// Starters read it meanwhile.
pub fn write(root: &Path, finding: &Finding) -> Result<(), AccelError> {
    let text = serde_json::to_vec(finding).expect("a finding has only string keys");
    let made = std::fs::create_dir_all(root);
    made.map_err(|source| AccelError::Io { action: "create", path: root.to_owned(), source })?;
    Ok(files::write_atomically(&root.join(FILE), &text, 0o644, Flush::Later)?)
}

/// How long the probe's kernel may take to get through its boot: under KVM it takes a second.
const PROBE_SECONDS_MAX: u64 = 20;

/// Finds out whether a guest boots under KVM here, by booting one: this host's own kernel, without a root file system,
/// so that it gets as far as missing it.
pub fn probe(qemu: &Path) -> Finding {
    let tcg = |reason: String| Finding { accel: Accelerator::Tcg, reason };
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        return tcg("the cpu offers no virtualisation (no `vmx` or `svm` flag)".to_owned());
    }
    if !Path::new("/dev/kvm").exists() {
        return tcg("there is no /dev/kvm: load `kvm_intel` or `kvm_amd`".to_owned());
    }
    let Some(kernel) = own_kernel() else {
        return Finding {
            accel: Accelerator::Kvm,
            reason: "the cpu offers it; not tried, since /boot has no kernel of this host".to_owned(),
        };
    };
    match boots_under_kvm(qemu, &kernel) {
        Ok(true) => Finding { accel: Accelerator::Kvm, reason: "a kernel got through its boot".to_owned() },
        Ok(false) => tcg(format!("no kernel got through its boot under KVM within {PROBE_SECONDS_MAX} s")),
        Err(error) => tcg(format!("qemu could not be tried: {error}")),
    }
}

fn own_kernel() -> Option<PathBuf> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let path = PathBuf::from(format!("/boot/vmlinuz-{}", release.trim()));
    path.exists().then_some(path)
}

/// The kernel's last words before it gives up for want of a root file system.
const BOOTED: &str = "Unable to mount root fs";

fn boots_under_kvm(qemu: &Path, kernel: &Path) -> std::io::Result<bool> {
    use std::process::{Command, Stdio};
    let mut child = Command::new(qemu)
        .args(["-nodefaults", "-no-user-config", "-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", "256"])
        .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(PROBE_SECONDS_MAX);
    let mut output = child.stdout.take().expect("stdout is piped");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What was read up to an error is judged like a whole output.
        let _ = std::io::Read::read_to_end(&mut output, &mut text);
        String::from_utf8_lossy(&text).contains(BOOTED)
    });
    while child.try_wait()?.is_none() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // An error means that it has ended.
    drop(child.kill());
    child.wait()?;
    Ok(reader.join().unwrap_or(false))
}
