//! This machine as an execution host: what only a look at it can tell. In: the site's accounts and folders. Out: findings
//! with what mends them. What a try makes goes with it.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::check::{error, warning};
use super::engine::GridEngine;
use crate::run::probe_name;
use crate::scheduler::{Finding, ThisHost};

/// What is wrong with this machine; nothing, if all is as it should be.
pub(super) fn check_here(engine: &GridEngine, here: &ThisHost<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match engine.client.account() {
        Err(wrong) => {
            let mend = "make the account on every host, with the same uid, or name another `account` in site.yaml";
            findings.push(error(wrong.to_string(), mend));
        }
        Ok(account) if !account.uid.is_root() => {
            let message =
                format!("jobs belong to {}, and a starter takes root for tap, bridge and filter", account.name);
            let mend = "let root submit: no `account` in site.yaml, and qconf -mconf: `min_uid 0` and `min_gid 0`";
            findings.push(error(message, mend));
        }
        Ok(_) => {}
    }
    findings.extend(of_program(here.program));
    findings.extend(of_runs(here));
    findings
}

/// Jobs run it as root, so nobody else may be able to change it, or to put another in its place.
fn of_program(program: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let others_write = |path: &&Path| {
        std::fs::metadata(path).is_ok_and(|found| {
            let sticky_folder = found.is_dir() && found.mode() & 0o1000 != 0;
            found.uid() != 0 || (found.mode() & 0o022 != 0 && !sticky_folder)
        })
    };
    if let Some(path) = program.ancestors().find(others_write) {
        let message =
            format!("jobs run {} as root, and others than root can change {}", program.display(), path.display());
        let mend = format!(
            "install it on each host: `install -o root -g root -m 0755 {} /usr/local/sbin/`",
            program.display()
        );
        findings.push(warning(message, mend));
    }
    if let Ok(Some(file_system)) = crate::files::foreign_file_system(program) {
        let message = format!("{} is on {file_system}: when that hangs, no starter can begin", program.display());
        findings.push(warning(message, "install it on a disk of each host, at the same path"));
    }
    findings
}

/// A run's folder is made by the controller's root and belongs to the service account, which its starter acts as.
fn of_runs(here: &ThisHost<'_>) -> Vec<Finding> {
    let Ok(Some(user)) = User::from_name(here.service_user) else { return Vec::new() };
    if !Uid::effective().is_root() {
        return Vec::new();
    }
    let folder = here.runs.join(probe_name("run"));
    let made =
        std::fs::create_dir(&folder).and_then(|()| chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())));
    let finding = match made {
        Err(source) => Some(error(
            format!(
                "root may not write in {}: {source}; jobs print there, and `labwright apply` makes runs there",
                here.runs.display()
            ),
            "export the storage to this machine with `no_root_squash`",
        )),
        Ok(()) => written_as(user, folder.join("report.jsonl")).err().map(|source| {
            error(
                format!("{} may not write below {}: {source}", here.service_user, here.runs.display()),
                format!("give the folders above it the right to pass: `chmod o+x {}`", here.runs.display()),
            )
        }),
    };
    // What stays behind is an empty folder of ours that the next look at this process's number would find.
    drop(std::fs::remove_dir_all(&folder));
    finding.into_iter().collect()
}

/// Writes as a starter does: with the file system rights of the folder's owner. They are a thread's own, so this takes one.
pub(super) fn written_as(user: User, file: PathBuf) -> std::io::Result<()> {
    let write = move || {
        nix::unistd::setfsgid(user.gid);
        nix::unistd::setfsuid(user.uid);
        std::fs::write(file, "x")
    };
    std::thread::spawn(write).join().unwrap_or_else(|_| Err(std::io::Error::other("the try came to no end")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_others_can_change_is_told() {
        assert_eq!(of_program(Path::new("/bin/sh")), []);
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("labwright");
        std::fs::write(&program, "").unwrap();
        let mode =
            |mode| std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        mode(0o755);
        let rooted = Uid::effective().is_root();
        assert_eq!(of_program(&program).is_empty(), rooted, "in a folder of ours below a sticky one");
        mode(0o775);
        let found = of_program(&program);
        assert!(found[0].message.contains("can change"), "{found:?}");
    }

    /// Takes root, as these tests do (see `tests/run`).
    #[test]
    fn a_folder_that_the_service_account_cannot_pass_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |mode| {
            std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(0o700);
        let here = ThisHost { runs: folder.path(), service_user: "nobody", program: Path::new("/bin/sh") };
        let found = of_runs(&here);
        assert!(found[0].message.contains("nobody may not write below"), "{found:?}");
        mode(0o711);
        assert_eq!(of_runs(&here), []);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a look leaves nothing behind");
    }
}
