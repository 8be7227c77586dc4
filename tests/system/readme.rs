//! What README.md tells a newcomer to type first, typed: the quickstart, in a clone below a home that only root may enter. It
//! takes a namespace and an account for itself, so it gets mounts of its own for both.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{BINARY, World, template, text, tool};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of README.md's first block that needs a host, without what follows a `#`.
fn first_block() -> Vec<String> {
    let readme = std::fs::read_to_string(project().join("README.md")).unwrap();
    let block = readme.split_once("```sh host\n").unwrap().1.split_once("```").unwrap().0;
    block
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.split(" #").next().unwrap().trim().to_owned())
        .collect()
}

/// A clone of what the quickstart needs, in a home of mode 0700.
struct Clone {
    _world: World,
    home: tempfile::TempDir,
}

impl Clone {
    fn new() -> Self {
        let world = World::bare();
        let own = world.folder.path().join("mounts");
        for place in ["/etc", "/run/netns", "/var/lib"] {
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
        tool("cp", &["-r", &text(&project().join("labs")), &text(clone.home.path())]);
        clone
    }

    fn folder(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    /// What a line of README.md says, typed by root with the program and the template that are there already.
    #[track_caller]
    fn type_in(&self, line: &str) -> String {
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(self.folder())
            .env("LABWRIGHT", BINARY)
            .env("TEMPLATE", template())
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{line}\n{said}");
        said
    }
}

#[test]
fn the_quickstart_comes_up_below_a_home_of_root_and_goes_away() {
    let clone = Clone::new();
    let has_account = || Command::new("id").arg("labwright").output().unwrap().status.success();
    let had_account = has_account();
    let block = first_block();
    assert_eq!(block, ["labs/quickstart/up", "labs/quickstart/down", "tests/run"]);
    let up = clone.type_in(&block[0]);
    assert!(up.contains("2/2 ready"), "{up}");
    assert!(up.contains("\nUp after "), "{up}");
    let again = clone.type_in(&block[0]);
    assert!(again.contains("no changes: "), "a second `up` changes nothing:\n{again}");
    let down = clone.type_in(&block[1]);
    assert!(down.contains("all of it is gone"), "{down}");
    assert_eq!(tool("ip", &["netns", "list"]), "");
    assert_eq!(has_account(), had_account, "the account is gone, too, if `up` made it");
}
