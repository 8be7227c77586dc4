//! `host check` on a host that nobody has prepared, and on one that `host setup` has; and `host sweep`.

use std::path::Path;
use std::process::Command;

use labwright::host::machine::check::check;
use labwright::host::machine::setup;
use labwright::host::run::sweep;
use labwright::model::site::Storage;
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::world::{BINARY, World, text, tool, wait_until};

/// The lines that do not depend on the machine.
fn page(world: &World) -> String {
    let storage = Storage::below(world.folder.path());
    let root = world.folder.path().display().to_string();
    let of_the_machine = [
        "qemu",
        "acceleration",
        "kvm modules",
        "landlock",
        "other firewalls",
        "forwarding",
        "run root",
        "storage",
        "dhcp range",
    ];
    let mut page = String::new();
    for line in check(&world.wanted(), &storage).into_iter().filter(|line| !of_the_machine.contains(&&*line.what)) {
        let mend = line.mend.map(|mend| format!("\n          {mend}")).unwrap_or_default();
        page += &format!("{:<8}  {}: {}{mend}\n", line.verdict.as_str(), line.what, line.found).replace(&root, "ROOT");
    }
    let words = page.split("(process ").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
    words.collect::<Vec<_>>().join("(process N")
}

#[test]
fn the_page_before_and_after_setup() {
    let world = World::bare();
    insta::assert_snapshot!("before", page(&world));
    let storage = Storage::below(world.folder.path());
    for folder in [&storage.runs, &storage.vms, &storage.templates] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let done = setup::setup(&world.wanted()).unwrap();
    assert!(done.len() >= 3, "{done:?}");
    insta::assert_snapshot!("after", page(&world));
    assert_eq!(setup::setup(&world.wanted()).unwrap(), Vec::<String>::new(), "a second time finds all standing");

    setup::teardown(&world.wanted()).unwrap();
    assert!(!Path::new("/sys/class/net/vbr0").exists());
    assert_eq!(tool("nft", &["list", "tables"]), "");
}

/// What others have set up on the host, each with its line.
#[test]
fn what_stands_in_the_guests_way_is_named() {
    let world = World::new();
    let storage = Storage::below(world.folder.path());
    for folder in [&storage.runs, &storage.vms, &storage.templates] {
        std::fs::create_dir_all(folder).unwrap();
    }
    tool("nft", &["add table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; } ; }"]);
    tool("nft", &["add table bridge strict { chain each { type filter hook forward priority 0; policy drop; } ; }"]);
    iptables_sees_bridges(false);
    // A file of another name in a folder of this test's own, seen in its mount namespace alone.
    let etc = world.folder.path().join("etc");
    std::fs::create_dir_all(etc.join("dhcp")).unwrap();
    let range = "subnet 192.168.100.0 netmask 255.255.255.0 { range 192.168.100.250 192.168.100.252; }\n";
    let more = "include \"/etc/dhcp/more.conf\"; include \"/etc/dhcp/missing.conf\";\n";
    std::fs::write(etc.join("dhcp/dhcpd.conf"), format!("{range}{more}")).unwrap();
    let range = "include \"/etc/dhcp/dhcpd.conf\";\npool { range 192.168.100.240; }\n";
    std::fs::write(etc.join("dhcp/more.conf"), range).unwrap();
    for file in ["passwd", "group", "nsswitch.conf"] {
        std::fs::copy(Path::new("/etc").join(file), etc.join(file)).unwrap();
    }
    tool("mount", &["--bind", etc.to_str().unwrap(), "/etc"]);
    tool("chmod", &["700", world.folder.path().to_str().unwrap()]);
    let root = world.folder.path().display().to_string();
    let ours = ["foreign firewall", "dhcp range", "storage rights"];
    let lines = check(&world.wanted(), &storage).into_iter().filter(|line| ours.contains(&&*line.what));
    let said: Vec<String> = lines
        .map(|line| {
            format!("{}: {}: {}\n  {}", line.verdict.as_str(), line.what, line.found, line.mend.unwrap_or_default())
        })
        .collect();
    insta::assert_snapshot!("obstacles", said.join("\n").replace(&root, "ROOT"));
    tool("chmod", &["755", world.folder.path().to_str().unwrap()]);
    let well = check(&world.wanted(), &storage).into_iter().filter(|line| line.what == "storage rights");
    assert!(well.map(|line| line.verdict).all(|verdict| verdict == labwright::host::machine::check::Verdict::Ok));
    tool("umount", &["/etc"]);
}

/// Whether the rules for what is forwarded see the bridges; answers whether they do now. Kernels without br_netfilter never
/// show them.
fn iptables_sees_bridges(wanted: bool) -> bool {
    let written = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", if wanted { "1" } else { "0" });
    written.is_ok() && wanted
}

/// `nft` does not show these tables. Kernels without them, such as those of some test machines, have no such rules either.
#[test]
fn rules_of_iptables_legacy_are_named() {
    let world = World::new();
    let storage = Storage::below(world.folder.path());
    let lines = || {
        let lines = check(&world.wanted(), &storage).into_iter().filter(|line| line.what == "foreign firewall");
        lines.map(|line| format!("{}: {}", line.verdict.as_str(), line.found)).collect::<Vec<_>>()
    };
    iptables_sees_bridges(false);
    assert_eq!(lines(), [] as [&str; 0]);
    let made = Command::new("iptables-legacy").args(["-P", "FORWARD", "DROP"]).output().unwrap();
    if !made.status.success() {
        assert_eq!(lines(), [] as [&str; 0], "{}", String::from_utf8_lossy(&made.stderr));
        return;
    }
    let name = "chain FORWARD of iptables-legacy's table filter";
    assert_eq!(lines(), [format!("warning: {name} drops what this host would forward for guests")]);
    if iptables_sees_bridges(true) {
        assert_eq!(lines(), [format!("failed: {name} drops guests' frames on the bridges")]);
    }
    tool("iptables-legacy", &["-P", "FORWARD", "ACCEPT"]);
    assert_eq!(lines(), [] as [&str; 0]);
}

/// A tap that the kernel did not take back, as with a persistent one, and the folder of a killed starter go; a living
/// run's stay, and so does what is not ours.
#[test]
fn a_sweep_takes_what_dead_runs_left_and_nothing_else() {
    let mut world = World::new();
    let (dead, alive) = (world.spec(2), world.spec(3));
    let (mut dead, mut alive) = (world.start(dead), world.start(alive));
    for run in [&dead, &alive] {
        run.wait_for("networked", |event| matches!(event, labwright::run::Event::Networked { .. }));
    }
    dead.signal(Signal::SIGKILL);
    dead.end();
    wait_until("nothing is left of it", || dead.leftovers().is_empty());
    for (name, alias) in [("lwt3st999", format!("labwright:{}", dead.spec.run)), ("lwother", "mine".to_owned())] {
        tool("ip", &["tuntap", "add", "dev", name, "mode", "tap"]);
        tool("ip", &["link", "set", "dev", name, "alias", &alias]);
    }
    let swept = sweep::sweep(&world.run_root());
    assert_eq!(swept.removed, [format!("tap lwt3st999 of run {}", dead.spec.run)]);
    assert!(swept.errors.is_empty(), "{:?}", swept.errors);
    let links = tool("ip", &["-o", "link"]);
    assert!(links.contains(&alive.spec.run.tap()) && links.contains("lwother"), "{links}");
    alive.signal(Signal::SIGTERM);
    assert!(alive.end().success());
}

/// Cron, `su` and many a colleague's shell look for programs where there is neither `nft` nor `ip`.
#[test]
fn a_search_path_without_sbin_is_enough() {
    let lab = Lab::new();
    let said = Command::new(BINARY)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .args(["--site", &text(&lab.site), "host", "setup", "--lab", &text(&lab.folder)])
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    lab.must(&["host", "teardown", "--lab", &text(&lab.folder)]);
}
