//! Who else is on the guests' wire: a gateway that is silent, or two; a stranger who gives addresses. No guest boots here.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use labwright::host::machine::check::check;
use labwright::host::machine::setup;
use labwright::model::site::{DhcpServer, DhcpSettings, Storage};
use labwright::run::{Event, StopReason};
use nix::sys::signal::Signal;

use crate::world::{Run, World, text, tool, wait_until};

const ONE: &str = "00:00:5e:00:53:01";
const OTHER: &str = "00:00:5e:00:53:02";

/// A machine on the wire, with a network namespace of its own.
struct Machine {
    port: &'static str,
    process: Child,
}

impl Machine {
    /// Joins `vbr0` under an Ethernet address and an address.
    fn join(port: &'static str, mac: &str, ip: &str) -> Self {
        let process = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let machine = Self { port, process };
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let process = machine.process.id().to_string();
        let namespace = format!("/proc/{process}/ns/net");
        wait_until("the machine has its namespace", || std::fs::read_link(&namespace).is_ok_and(|other| other != own));
        tool("ip", &["link", "add", port, "type", "veth", "peer", "name", "wire", "netns", &process]);
        tool("ip", &["link", "set", port, "master", "vbr0", "up"]);
        machine.run(&["ip", "link", "set", "wire", "address", mac, "up"]);
        machine.run(&["ip", "addr", "add", ip, "dev", "wire"]);
        machine
    }

    fn inside(&self) -> [String; 4] {
        ["-t".to_owned(), self.process.id().to_string(), "--net".to_owned(), "--".to_owned()]
    }

    fn run(&self, command: &[&str]) {
        let inside = self.inside();
        tool("nsenter", &[inside.each_ref().map(String::as_str).as_slice(), command].concat());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        let port = Path::new("/sys/class/net").join(self.port);
        wait_until("its namespace is gone", || !port.exists());
    }
}

/// A host whose guests' gateway is another machine.
fn world() -> World {
    let mut world = World::bare();
    world.network.gateway_on_host = false;
    world.network.dhcp = DhcpSettings::None;
    setup::setup(&world.wanted()).expect("the host can be set up");
    world
}

/// Why a run could not be carried out.
fn refusal(run: &mut Run) -> String {
    run.end();
    assert_eq!(run.leftovers(), Vec::<String>::new());
    match run.events().pop() {
        Some(Event::Stopped { reason: StopReason::Failed { message }, .. }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_isolated_guest_is_not_started_without_the_one_gateway() {
    let mut world = world();
    let spec = world.spec(2);
    let mut silent = world.start(spec);
    insta::assert_snapshot!("silent", refusal(&mut silent));
    let _machines = [Machine::join("one", ONE, "192.168.100.1/24"), Machine::join("other", OTHER, "192.168.100.1/24")];
    let spec = world.spec(3);
    let mut several = world.start(spec);
    let message = refusal(&mut several);
    // Whoever was faster is named first.
    let sorted = message.replace(&format!("{OTHER} and {ONE}"), &format!("{ONE} and {OTHER}"));
    insta::assert_snapshot!("several", sorted.replace(&format!("mac: \"{OTHER}\""), &format!("mac: \"{ONE}\"")));
    world.network.dhcp_servers = vec![DhcpServer { address: [192, 168, 100, 200].into(), mac: None }];
    let mut spec = world.spec(4);
    spec.network.isolated = false;
    let mut without_dhcp = world.start(spec);
    insta::assert_snapshot!("without_dhcp", refusal(&mut without_dhcp));
}

#[test]
fn a_gateway_that_comes_up_meanwhile_is_waited_for() {
    let mut world = world();
    world.qemu.extra_args = vec!["-S".to_owned()];
    let spec = world.spec(2);
    let mut run = world.start(spec);
    let again = |event: &Event| matches!(event, Event::Warning { message } if message.contains("tried again (1 of 5)"));
    run.wait_for("the first try is over", again);
    let _gateway = Machine::join("one", ONE, "192.168.100.1/24");
    let networked =
        |event: &Event| matches!(event, Event::Networked { gateway: Some(mac), .. } if mac.to_string() == ONE);
    run.wait_for("it runs", networked);
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
}

/// What was found at the first start stays, and a check says that the gateway is another one now.
#[test]
fn a_check_says_who_answers() {
    let mut world = world();
    let storage = Storage::below(world.folder.path());
    let said = |world: &World| {
        let ours = ["dhcp answers", "gateway"];
        let lines = check(&world.wanted(), &storage).into_iter().filter(|line| ours.contains(&&*line.what));
        let text = |line: labwright::host::machine::check::Line| {
            format!("{}: {}: {}\n  {}\n", line.verdict.as_str(), line.what, line.found, line.mend.unwrap_or_default())
        };
        lines.map(text).collect::<String>().replace(&text_of(world), "ROOT")
    };
    let gateway = Machine::join("one", ONE, "192.168.100.1/24");
    let server = serve_dhcp(&gateway, &world);
    let mut all = vec![said(&world)];
    let Some(address) = world.group.gateway else { unreachable!("the group has one") };
    world.network.dhcp_servers = vec![DhcpServer { address, mac: Some(ONE.parse().unwrap()) }];
    let mut spec = world.spec(2);
    spec.qemu.binary = "/bin/false".into();
    let mut first = world.start(spec);
    first.end();
    all.push(said(&world));
    drop((server, gateway));
    let other = Machine::join("other", OTHER, "192.168.100.1/24");
    all.push(said(&world));
    drop(other);
    all.push(said(&world));
    insta::assert_snapshot!("answers", all.join("\n"));
}

fn text_of(world: &World) -> String {
    text(world.folder.path())
}

/// A DHCP server for whoever asks.
fn serve_dhcp(machine: &Machine, world: &World) -> Server {
    let leases = world.folder.path().join("strange-leases");
    let (leases, pid) = (format!("--dhcp-leasefile={}", text(&leases)), "--pid-file=".to_owned());
    let mut command = Command::new("nsenter");
    command.args(machine.inside()).args(["dnsmasq", "--conf-file=/dev/null", "--port=0", "--keep-in-foreground"]);
    command.args(["--interface=wire", "--bind-interfaces", "--no-ping", "--user=root", &leases, &pid]);
    let server = command.arg("--dhcp-range=192.168.100.210,192.168.100.220").stderr(Stdio::null()).spawn().unwrap();
    let server = Server(server);
    let inside = machine.inside();
    wait_until("it listens", || {
        let inside = inside.each_ref().map(String::as_str);
        tool("nsenter", &[inside.as_slice(), &["cat", "/proc/net/udp"]].concat()).contains(":0043 ")
    });
    server
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
