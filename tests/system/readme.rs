//! What README.md tells a newcomer to type, typed below a home that only root may enter: first the quickstart, in a clone;
//! then a lab of one's own. Both take an account, the first a namespace too, so there are mounts of their own for them.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{BINARY, World, console_at, processes, template, text, tool};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of each of README.md's blocks that need a host, without what follows a `#`.
fn blocks() -> [Vec<String>; 2] {
    let readme = std::fs::read_to_string(project().join("README.md")).unwrap();
    let blocks = readme.split("```sh host\n").skip(1).map(|rest| lines_of(rest.split_once("```").unwrap().0));
    blocks.collect::<Vec<_>>().try_into().expect("each of them is typed by a test below")
}

fn lines_of(block: &str) -> Vec<String> {
    block
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.split(" #").next().unwrap().trim().to_owned())
        .collect()
}

/// A clone of what the quickstart needs, in a home of mode 0700, with the program as if it were built there.
pub(crate) struct Clone {
    _world: World,
    home: tempfile::TempDir,
}

/// `ip netns identify` of a process, for those without a name.
fn network_of(process: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{process}/ns/net")).ok()
}

impl Drop for Clone {
    fn drop(&mut self) {
        let ours = network_of("thread-self");
        for (pid, _) in processes().into_iter().filter(|(pid, _)| network_of(&pid.to_string()) == ours) {
            // Only for a test that failed half-way; one that is gone already is as good.
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        }
    }
}

impl Clone {
    pub(crate) fn new() -> Self {
        let world = World::bare();
        let own = world.folder.path().join("mounts");
        for place in ["/etc", "/run/netns", "/usr/local/bin", "/var/lib"] {
            let copy = own.join(place.trim_start_matches('/'));
            std::fs::create_dir_all(&copy).unwrap();
            if place == "/etc" {
                tool("cp", &["-a", "/etc/.", &text(&copy)]);
            }
            if place == "/var/lib" {
                tool("cp", &["-a", "/var/lib/dpkg", &text(&copy)]);
            }
            std::fs::create_dir_all(place).unwrap();
            tool("mount", &["--bind", &text(&copy), place]);
        }
        let home = tempfile::Builder::new().prefix("labwright-home-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let clone = Self { _world: world, home };
        tool("cp", &["-r", &text(&project().join("labs")), &text(&project().join("docs")), &text(clone.home.path())]);
        std::fs::create_dir_all(clone.folder().join("target/release")).unwrap();
        std::os::unix::fs::symlink(BINARY, clone.folder().join("target/release/labwright")).unwrap();
        std::fs::create_dir(clone.folder().join("bin")).unwrap();
        // Not every machine has it, and here root types.
        let sudo = clone.folder().join("bin/sudo");
        std::fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n").unwrap();
        std::fs::set_permissions(&sudo, PermissionsExt::from_mode(0o755)).unwrap();
        clone
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    /// What a line of README.md says, typed by root with the program and the template that are there already.
    #[track_caller]
    pub(crate) fn type_in(&self, line: &str) -> String {
        let quickstart = [("LABWRIGHT", Path::new(BINARY)), ("TEMPLATE", template())];
        self.run(Command::new("sh").args(["-c", line]).envs(quickstart), "")
    }

    /// Several lines, typed at a terminal by somebody who answers what is asked.
    #[track_caller]
    fn type_at_a_terminal(&self, lines: &[String], answer: &str) -> String {
        let shell = format!("set -e\n{}\n", lines.join("\n"));
        self.run(Command::new("script").args(["-qefc", &shell, "/dev/null"]).env("SHELL", "/bin/sh"), answer)
    }

    #[track_caller]
    fn run(&self, command: &mut Command, answer: &str) -> String {
        let path = format!("{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", text(&self.folder().join("bin")));
        command.current_dir(self.folder()).env("PATH", path).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{command:?}\n{said}");
        said
    }
}

#[test]
fn the_quickstart_comes_up_below_a_home_of_root_and_goes_away() {
    let clone = Clone::new();
    let [block, _] = blocks();
    assert_eq!(block, ["labs/quickstart/up", "labs/quickstart/down", "tests/run"]);
    let up = clone.type_in(&block[0]);
    assert!(up.contains("2/2 ready"), "{up}");
    assert!(up.contains("\nUp after "), "{up}");
    let again = clone.type_in(&block[0]);
    assert!(again.contains("no changes: "), "a second `up` changes nothing:\n{again}");
    let down = clone.type_in(&block[1]);
    assert!(down.contains("all of it is gone but the guests' disks"), "{down}");
    assert_eq!(tool("ip", &["netns", "list"]), "");
    let kept = clone.type_in("$LABWRIGHT get aside --lab labs/quickstart -o name");
    assert_eq!(kept.lines().count(), 2, "{kept}");
}

/// What `init` writes has guests that answer, without a change and without a word about what is missing.
#[test]
fn a_lab_of_ones_own_answers() {
    let clone = Clone::new();
    // The kernel of its template is fetched; here from where it was fetched before.
    let fetched = clone.folder().join("my-lab/.labwright/template/out");
    std::fs::create_dir_all(&fetched).unwrap();
    template();
    let kernels = format!("cp {}/target/guest/linux-image-*.deb {}", text(project()), text(&fetched));
    tool("sh", &["-c", &kernels]);

    let [_, block] = blocks();
    let said = clone.type_at_a_terminal(&block, "yes\n");
    assert!(said.contains("wrote the lab my-lab to my-lab") && said.contains("2/2 ready"), "{said}");
    let screens = said.lines().filter(|line| line.contains("vncviewer 127.0.0.1:")).count();
    assert_eq!(screens, 2, "each screen is told, with its password:\n{said}");

    let mappings = clone.type_in("labwright get mappings -o json --lab my-lab");
    let mappings: Vec<serde_json::Value> = serde_json::from_str(&mappings).unwrap();
    for (vm, ip) in [("ana-work", "192.168.100.2"), ("ion-work", "192.168.100.3")] {
        let mapping = mappings.iter().find(|row| row["name"] == vm).unwrap_or_else(|| panic!("{vm} runs: {said}"));
        let (_, addresses) = console_at(mapping["tap"].as_str().unwrap()).run("ip -4 -o addr show eth0");
        assert!(addresses.contains(&format!("inet {ip}/24 ")), "{vm} has {addresses}");
    }
    clone.type_in("labwright destroy my-lab --yes && labwright host teardown --lab my-lab");
}
