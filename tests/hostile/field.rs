//! Two hosts on one wire, with guests of both kinds on each, and a machine on the same wire that follows no rules.
//!
//! ```text
//! near: vbr0 (gateway, DHCP) ── uplink ═══ uplink ── vbr0: far
//!   │ plain, plain victim,    │                        │ plain, isolated
//!   │ isolated, its victim,   ├ foreign ═══ wire
//!   │ isolated behind router  └ router ═══ base (vrrp on it): two routers' shared address
//! ```

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use labwright::dhcp::{Dhcp as _, Dnsmasq};
use labwright::host::machine::setup;
use labwright::model::id::Mac;
use labwright::model::lab::{Egress, Protocol, Station};
use labwright::model::reservation::Reservation;
use labwright::model::site::{DhcpServer, DhcpSettings, Filter};
use labwright::run::RunSpec;
use nix::sys::signal::Signal;

use crate::attacks::{DNS, EGRESS, GATEWAY, HOST, Party};
use crate::life::serve_beyond;
use crate::world::{Run, World, text, tool};

/// Who is where, in the order of `Field::guests`.
pub(crate) const PLAIN: usize = 0;
pub(crate) const PLAIN_VICTIM: usize = 1;
pub(crate) const ISOLATED: usize = 2;
pub(crate) const ISOLATED_VICTIM: usize = 3;
pub(crate) const FAR_PLAIN: usize = 4;
pub(crate) const FAR_ISOLATED: usize = 5;

/// Its gateway is one address of two routers, of which one is up.
pub(crate) const BEHIND_ROUTER: usize = 6;

const GUESTS: [(u8, bool); 7] = [(10, false), (11, false), (12, true), (13, true), (20, false), (21, true), (14, true)];

/// The address that two routers share, and the one that is up, which sends from its own. They lie in the lab's range.
pub(crate) const SHARED: Party = Party { mac: [0, 0, 0x5e, 0, 1, 3], ip: [192, 168, 100, 3] };
pub(crate) const ROUTER: Party = Party { mac: [0, 0, 0x5e, 0, 0x53, 4], ip: [192, 168, 100, 4] };

pub(crate) struct Field {
    pub(crate) guests: Vec<Run>,
    pub(crate) far: Far,
    _router: Far,
    pub(crate) near: World,
    pub(crate) filter: Filter,
}

impl Field {
    pub(crate) fn new(filter: Filter) -> Self {
        let mut near = World::bare();
        let far = Far::start();
        tool("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "uplink", "netns", &far.thread_id]);
        near.network.forwarding = Some(true);
        prepare(&mut near, filter);
        far.run(move |world| {
            world.network.gateway_on_host = false;
            world.network.dhcp = DhcpSettings::None;
            world.network.dhcp_servers = vec![DhcpServer { address: GATEWAY.into(), mac: None }];
            world.next_run = 201;
            prepare(world, filter);
            tool("ip", &["addr", "add", &format!("{}/24", address(HOST)), "dev", "vbr0"]);
        });
        tool("ip", &["link", "add", "foreign", "type", "veth", "peer", "name", "wire"]);
        tool("ip", &["link", "set", "foreign", "master", "vbr0", "up"]);
        // It is an interface of the gateway's kernel, which must not answer there for the gateway.
        std::fs::write("/proc/sys/net/ipv4/conf/wire/arp_ignore", "8").unwrap();
        tool("ip", &["link", "set", "wire", "up"]);
        for beyond in [EGRESS, DNS] {
            tool("ip", &["addr", "add", &format!("{}/32", address(beyond)), "dev", "lo"]);
        }
        let router = router();
        let mut field = Self { guests: Vec::new(), far, _router: router, near, filter };
        field.start_guests();
        field
    }

    fn start_guests(&mut self) {
        let DhcpSettings::Dnsmasq { folder } = self.near.network.dhcp.clone() else { unreachable!("near has dnsmasq") };
        for (number, (last, isolated)) in GUESTS.into_iter().enumerate() {
            let guest = if !is_far(number) {
                let mut spec = spec(&mut self.near, last, isolated);
                if number == BEHIND_ROUTER {
                    spec.network.gateway = Some(SHARED.ip.into());
                    spec.network.routers = vec![Station { address: ROUTER.ip.into(), mac: Mac(ROUTER.mac) }];
                }
                self.near.start(spec)
            } else {
                let folder = folder.clone();
                self.far.run(move |world| {
                    let spec = spec(world, last, isolated);
                    let (mac, ip) = (spec.network.mac, spec.network.ip);
                    let reservation = Reservation::new(spec.run.site(), &spec.lab, &spec.vm, mac, ip);
                    Dnsmasq::new(&folder).reserve(&[reservation]).unwrap();
                    world.start(spec)
                })
            };
            self.guests.push(guest);
        }
        self.guests.iter().for_each(Run::wait_ready);
    }

    pub(crate) fn party(&self, guest: usize) -> Party {
        let network = &self.guests[guest].spec.network;
        let Mac(mac) = network.mac;
        Party { mac, ip: network.ip.octets() }
    }

    /// The bridges' addresses: the gateway's, the other host's.
    pub(crate) fn hosts(&self) -> [[u8; 6]; 2] {
        [bridge_address(), self.far.run(|_| bridge_address())]
    }

    /// Ends the guests the short way.
    pub(crate) fn end(mut self) {
        for run in &mut self.guests {
            run.signal(Signal::SIGKILL);
            run.end();
        }
    }
}

pub(crate) fn is_isolated(guest: usize) -> bool {
    GUESTS[guest].1
}

pub(crate) fn is_far(guest: usize) -> bool {
    guest == FAR_PLAIN || guest == FAR_ISOLATED
}

fn prepare(world: &mut World, filter: Filter) {
    world.network.filter = filter;
    world.network.uplink = Some("uplink".to_owned());
    world.network.untagged_bridge = Some("vbr0".to_owned());
    world.group.range.last = [192, 168, 100, 199].into();
    setup::setup(&world.wanted()).expect("the host can be set up");
}

/// A router as keepalived makes one of several with `use_vmac`: the shared address is a macvlan's, and what is sent goes out
/// under the router's own.
fn router() -> Far {
    let router = Far::start();
    tool("ip", &["link", "add", "router", "type", "veth", "peer", "name", "base", "netns", &router.thread_id]);
    tool("ip", &["link", "set", "router", "master", "vbr0", "up"]);
    router.run(|_| {
        let (own, shared) = (Mac(ROUTER.mac).to_string(), Mac(SHARED.mac).to_string());
        tool("ip", &["link", "set", "base", "address", &own, "up"]);
        tool("ip", &["addr", "add", &format!("{}/24", address(ROUTER.ip)), "dev", "base"]);
        tool("ip", &["link", "add", "vrrp", "link", "base", "address", &shared, "type", "macvlan", "mode", "private"]);
        for (interface, setting, value) in [
            ("base", "arp_ignore", "1"),
            ("base", "arp_announce", "2"),
            ("vrrp", "arp_ignore", "1"),
            ("vrrp", "rp_filter", "0"),
            ("all", "rp_filter", "0"),
        ] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/{setting}"), value).unwrap();
        }
        tool("ip", &["addr", "add", &format!("{}/32", address(SHARED.ip)), "dev", "vrrp"]);
        tool("ip", &["link", "set", "vrrp", "up"]);
        for beyond in [EGRESS, DNS] {
            tool("ip", &["addr", "add", &format!("{}/32", address(beyond)), "dev", "lo"]);
        }
        serve_beyond();
    });
    router
}

fn spec(world: &mut World, last: u8, isolated: bool) -> RunSpec {
    let mut spec = world.spec(last);
    spec.network.isolated = isolated;
    spec.network.dns = vec![DNS.into()];
    let net = format!("{}/32", address(EGRESS)).parse().unwrap();
    spec.network.egress = vec![Egress { net, port: 443, protocol: Protocol::Tcp, mac: None }];
    spec
}

fn bridge_address() -> [u8; 6] {
    let Mac(mac) = std::fs::read_to_string("/sys/class/net/vbr0/address").unwrap().trim().parse().unwrap();
    mac
}

pub(crate) fn address(bytes: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(bytes).to_string()
}

type Job = Box<dyn FnOnce(&mut World) + Send>;

/// The other host: a thread with namespaces of its own, which carries out what it is told there.
pub(crate) struct Far {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) thread_id: String,
}

impl Far {
    fn start() -> Self {
        let (jobs, todo) = channel::<Job>();
        let (about, facts) = channel();
        let thread = std::thread::spawn(move || {
            let mut world = World::bare();
            about.send(nix::unistd::gettid().to_string()).unwrap();
            for job in todo {
                job(&mut world);
            }
        });
        let thread_id = facts.recv().unwrap();
        Self { jobs: Some(jobs), thread: Some(thread), thread_id }
    }

    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut World) -> T + Send + 'static) -> T {
        let (answer, result) = channel();
        let job: Job = Box::new(move |world| answer.send(job(world)).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().expect("the other host is well")
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A panic there was reported where its answer was waited for.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The sender of raw frames, for a machine that is no guest.
pub(crate) fn sender(folder: &Path) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs/quickstart/guest/send-frames.c");
    let program = text(&folder.join("send-frames"));
    if !Path::new(&program).exists() {
        tool("cc", &["-o", &program, &text(&source)]);
    }
    program
}
