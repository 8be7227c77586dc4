//! `vm export-run`: the script that starts a vm without us, carried out.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use labwright::host::machine::break_glass::{ByHand, script};
use labwright::host::run::accel::Accelerator;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Console, World, text, tool, wait_until};

/// A shell that carries out the script; a failed test must not leave its guest behind.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        // An error means that it has ended.
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap_or_default();
        drop(self.0.wait());
    }
}

/// The guest gets its planned address and is held by its filter; when the shell ends, nothing is left.
#[test]
fn a_vm_started_by_hand_is_as_one_of_ours() {
    let mut world = World::new();
    let spec = world.spec(60);
    // As on a host that never ran one: nothing of it is there, and what the script makes is for root alone but for this.
    let folder = world.folder.path().join("never used/by hand, it's here");
    // As on most systems; here, everybody may open it in this test's mount namespace alone.
    let tun = text(&world.folder.path().join("tun"));
    tool("mknod", &["-m", "666", &tun, "c", "10", "200"]);
    tool("mount", &["--bind", &tun, "/dev/net/tun"]);
    let (group, network, accel) = (&world.group, world.wanted().network, Accelerator::Tcg);
    let by_hand = ByHand { spec: &spec, group, network, accel, folder: &folder, running: None };
    let mut shell = Shell(Command::new("sh").arg("-s").stdin(Stdio::piped()).spawn().unwrap());
    shell.0.stdin.take().unwrap().write_all(script(&by_hand).as_bytes()).unwrap();

    // As a starter finds it: the guest has been seen using its planned address.
    wait_until("the guest uses its planned address", || ready(&spec.run.nft_table()));
    let mut guest = Console::open(&folder.join("serial.sock"));
    assert!(guest.run("ip -4 addr show").1.contains("192.168.100.60/24"));
    assert_eq!(guest.run("ping -c1 -W5 192.168.100.1").0, 0, "its gateway");
    // Another address of the lab, and one that is not the guest's: both would answer without the filter.
    tool("ip", &["addr", "add", "192.168.100.61/24", "dev", "vbr0"]);
    assert_ne!(guest.run("ping -c1 -W2 192.168.100.61").0, 0, "it is isolated");
    guest.run("ip addr add 192.168.100.62/24 dev eth0");
    assert_ne!(guest.run("ping -c1 -W2 -I 192.168.100.62 192.168.100.1").0, 0, "it cannot take another address");
    let listing = tool("nft", &["list", "table", "bridge", &spec.run.nft_table()]);
    assert!(listing.contains("jump from_guest"), "{listing}");
    assert_eq!(std::fs::read_to_string(folder.join("vnc.password")).unwrap().len(), 8);

    kill(Pid::from_raw(shell.0.id().cast_signed()), Signal::SIGTERM).unwrap();
    shell.0.wait().unwrap();
    assert!(!tool("ip", &["-o", "link"]).contains(&spec.run.tap()), "its tap is gone");
    assert!(!tool("nft", &["list", "tables"]).contains(&spec.run.nft_table()), "its filter is gone");
    assert!(!folder.exists());
    let qemu = text(&spec.disks[0].path);
    assert!(!crate::world::processes().iter().any(|(_, command)| command.contains(&qemu)));
}

fn ready(table: &str) -> bool {
    let listed = Command::new("nft").args(["list", "counter", "bridge", table, "ready"]).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.contains("packets ") && !text.contains("packets 0 ")
}
