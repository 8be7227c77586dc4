//! A small world for one test: namespaces, a prepared host, storage, and guests that are asked over their serial port.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use labwright::dhcp::{Dhcp as _, Dnsmasq, Omapi};
use labwright::host::machine::setup::{self, Wanted};
use labwright::model::id::{LabName, MacPrefix, RunId, SiteTag, UserName, VmName};
use labwright::model::lab::{AddressRange, DisplayModel, Firmware, Hardware, NicModel, VmGroup};
use labwright::model::reservation::Reservation;
use labwright::model::site::{Accel, DhcpServer, DhcpSettings, Filter, NetworkSettings, QemuSettings, Timing, VncBind};
use labwright::run::{self, Control, Event, RunDisk, RunNetwork, RunSpec};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown};

#[path = "console.rs"]
mod console;

pub(crate) use console::{BOOT_WAIT, Console};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_labwright");
const SERVICE_USER: &str = "nobody";

/// Namespaces of this test's thread and of everything it starts. The kernel takes them away with the last process.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) group: VmGroup,
    pub(crate) network: NetworkSettings,
    pub(crate) qemu: QemuSettings,
    pub(crate) next_run: u64,
}

/// A starter that was started, and its run.
pub(crate) struct Run {
    pub(crate) spec: RunSpec,
    pub(crate) folder: PathBuf,
    pub(crate) starter: Child,
    host_folder: PathBuf,
}

impl World {
    /// A host that `host setup` has prepared.
    pub(crate) fn new() -> Self {
        let world = Self::bare();
        setup::setup(&world.wanted()).expect("the host can be set up");
        world
    }

    /// A host that `host setup` has prepared, of a site with another DHCP server than dnsmasq.
    pub(crate) fn with_dhcp(dhcp: impl FnOnce(&Path) -> DhcpSettings) -> Self {
        let mut world = Self::bare();
        world.network.dhcp = dhcp(world.folder.path());
        if let DhcpSettings::Omapi(settings) = &world.network.dhcp {
            world.network.dhcp_servers = vec![DhcpServer { address: settings.server, mac: None }];
        }
        setup::setup(&world.wanted()).expect("the host can be set up");
        world
    }

    /// A host that `host setup` has prepared, of a site that holds its filters this way.
    pub(crate) fn with_filter(filter: Filter) -> Self {
        let mut world = Self::bare();
        world.network.filter = filter;
        setup::setup(&world.wanted()).expect("the host can be set up");
        world
    }

    /// A host that nobody has prepared.
    pub(crate) fn bare() -> Self {
        // Its kernel is fetched with apt-get, which the namespaces below would cut off.
        template();
        nix::sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("system tests need root, for namespaces of their own");
        // Guests and daemons must enter what is made here, whatever whoever runs the tests keeps from others.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
        let folder = tempfile::Builder::new().prefix("labwright-test-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        tool("ip", &["link", "set", "lo", "up"]);
        let dhcp = DhcpSettings::Dnsmasq { folder: folder.path().join("dhcp") };
        Self {
            folder,
            group: VmGroup {
                range: AddressRange {
                    first: [192, 168, 100, 2].into(),
                    last: [192, 168, 100, 254].into(),
                    exclude: [].into(),
                },
                subnet: "192.168.100.0/24".parse().unwrap(),
                gateway: Some([192, 168, 100, 1].into()),
                routers: Vec::new(),
                dns: Vec::new(),
                stations: Vec::new(),
                domain: None,
                bridge: "vbr0".to_owned(),
                vlan: None,
                mac_prefix: MacPrefix::default(),
            },
            network: NetworkSettings {
                gateway_on_host: true,
                dhcp,
                dhcp_servers: Vec::new(),
                filter: Filter::default(),
                vnc_allow: Vec::new(),
                uplink: None,
                untagged_bridge: None,
                forwarding: None,
            },
            qemu: QemuSettings {
                binary: "/usr/bin/qemu-system-x86_64".into(),
                accel: Accel::Auto,
                extra_args: Vec::new(),
                vnc_bind: VncBind::default(),
            },
            next_run: 101,
        }
    }

    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            groups: std::slice::from_ref(&self.group),
            network: &self.network,
            qemu: &self.qemu,
            service_user: SERVICE_USER,
            run_root: Box::leak(self.run_root().into_boxed_path()),
        }
    }

    pub(crate) fn run_root(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The spec of a run whose guest gets the address ending in `last`.
    pub(crate) fn spec(&mut self, last: u8) -> RunSpec {
        let number = self.next_run;
        self.next_run += 1;
        let ip = Ipv4Addr::new(192, 168, 100, last);
        let range = (self.group.range.first, self.group.range.last);
        RunSpec {
            version: RunSpec::VERSION,
            run: RunId::new(SiteTag::new("t3st").unwrap(), number),
            lab: LabName::new("test").unwrap(),
            vm: VmName::new(format!("guest-{last}")).unwrap(),
            owner: UserName::new("doraz").unwrap(),
            generation: 1,
            hardware: Hardware {
                memory_mib: 128,
                cpus: 1,
                firmware: Firmware::Bios,
                nic: NicModel::Virtio,
                display: DisplayModel::Std,
                cdrom: None,
            },
            installs: false,
            disks: vec![self.disk(&format!("{number}.qcow2"))],
            seed: None,
            network: RunNetwork {
                bridge: self.group.bridge.clone(),
                ip,
                mac: self.group.mac(ip),
                subnet: self.group.subnet,
                gateway: self.group.gateway,
                routers: self.group.routers.clone(),
                dns: Vec::new(),
                stations: self.group.stations.clone(),
                dhcp_servers: Some(self.network.dhcp_servers.iter().map(|server| server.address).collect()),
                dhcp_on_bridge: matches!(self.network.dhcp, DhcpSettings::Dnsmasq { .. }),
                isolated: true,
                lab_ranges: vec![range],
                lab_mac_prefixes: vec![self.group.mac_prefix.clone()],
                egress: Vec::new(),
                dhcp_control_port: 7911,
                filter: self.network.filter,
            },
            qemu: self.qemu.clone(),
            service_user: SERVICE_USER.to_owned(),
            timing: Timing { heartbeat_seconds: 1, self_fence_seconds: 60, grace_seconds: 20, ..Timing::default() },
        }
    }

    /// A copy-on-write disk over the quickstart's template.
    fn disk(&self, name: &str) -> RunDisk {
        let path = self.folder.path().join(name);
        // In this world's folder: guests may not be able to enter the one that the project is in.
        let base = self.folder.path().join("template.qcow2");
        if !base.exists() {
            std::fs::copy(template(), &base).unwrap();
            std::fs::set_permissions(&base, PermissionsExt::from_mode(0o644)).unwrap();
        }
        tool("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &text(&base), &text(&path)]);
        own(&path);
        RunDisk { path, backing: vec![base] }
    }

    /// Writes the run's folder as the controller does. Nothing is started.
    pub(crate) fn write(&self, spec: &RunSpec) -> PathBuf {
        let folder = self.folder.path().join("runs").join(spec.run.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        spec.write(&folder).unwrap();
        let control = Control::new(spec.generation, run::Wanted::Running);
        control.write(&folder).unwrap();
        for path in [&folder, &folder.join(run::SPEC), &folder.join(run::CONTROL)] {
            own(path);
        }
        folder
    }

    /// Reserves the address and starts the starter.
    pub(crate) fn start(&self, spec: RunSpec) -> Run {
        self.start_by(spec, |folder| self.starter(folder))
    }

    /// The same with this control file in place of a plain one.
    pub(crate) fn start_with(&self, spec: RunSpec, control: &Control) -> Run {
        let folder = self.reserve_and_write(&spec);
        control.write(&folder).unwrap();
        own(&folder.join(run::CONTROL));
        let starter = self.starter(&folder).spawn().unwrap();
        self.run(spec, folder, starter)
    }

    /// Reserves the address and starts the starter by this command.
    pub(crate) fn start_by(&self, spec: RunSpec, command: impl FnOnce(&Path) -> Command) -> Run {
        let folder = self.reserve_and_write(&spec);
        let starter = command(&folder).spawn().unwrap();
        self.run(spec, folder, starter)
    }

    /// Starts many at one moment: everything else was done before.
    pub(crate) fn start_all(&self, specs: Vec<RunSpec>) -> Vec<Run> {
        let folders: Vec<PathBuf> = specs.iter().map(|spec| self.reserve_and_write(spec)).collect();
        let starters: Vec<Child> = folders.iter().map(|folder| self.starter(folder).spawn().unwrap()).collect();
        let runs = specs.into_iter().zip(folders).zip(starters);
        runs.map(|((spec, folder), starter)| self.run(spec, folder, starter)).collect()
    }

    fn run(&self, spec: RunSpec, folder: PathBuf, starter: Child) -> Run {
        Run { host_folder: self.run_root().join(spec.run.to_string()), spec, folder, starter }
    }

    fn reserve_and_write(&self, spec: &RunSpec) -> PathBuf {
        let network = &spec.network;
        let reservation = Reservation::new(spec.run.site(), &spec.lab, &spec.vm, network.mac, network.ip);
        match &self.network.dhcp {
            DhcpSettings::Dnsmasq { folder } => Dnsmasq::new(folder).reserve(&[reservation]).unwrap(),
            DhcpSettings::Omapi(settings) => Omapi::new(settings).reserve(&[reservation]).unwrap(),
            DhcpSettings::None => {}
        }
        self.write(spec)
    }

    /// A copy of the program for any account: the project may stand below a home that others cannot enter.
    pub(crate) fn program_in_reach(&self) -> PathBuf {
        let program = self.folder.path().join("labwright");
        // Written here, it would be busy for as long as a child of another test has its descriptor, too.
        tool("install", &["-m", "755", BINARY, &text(&program)]);
        program
    }

    /// The command that carries out the run in `folder`. What it reports is read from its report: among a suite's own lines
    /// stands only what worries it.
    pub(crate) fn starter(&self, folder: &Path) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("starter").arg("--run").arg(folder);
        command.env("LABWRIGHT_RUN_ROOT", self.run_root()).env("LABWRIGHT_LOG", "warn");
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that has failed has said more than this could.
        drop(setup::teardown(&self.wanted()));
        // What a test plugged into the bridge goes with its namespace; dnsmasq, which stays beside it, would not.
        if let DhcpSettings::Dnsmasq { folder } = &self.network.dhcp
            && let Some(pid) = Dnsmasq::new(folder).process()
        {
            kill(pid, Signal::SIGTERM).unwrap_or_default();
        }
    }
}

impl Run {
    /// What the report has said so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        run::read_report(&self.folder).unwrap().into_iter().map(|record| record.event).collect()
    }

    /// Waits for an event.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let started = Instant::now();
        loop {
            if let Some(event) = self.events().into_iter().find(|event| wanted(event)) {
                return event;
            }
            let events = self.events();
            assert!(!matches!(events.last(), Some(Event::Stopped { .. })), "{what} never came: {events:#?}");
            assert!(started.elapsed() < BOOT_WAIT, "{what} did not come in time: {events:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn wait_ready(&self) {
        self.wait_for("ready", |event| *event == Event::Ready);
    }

    pub(crate) fn control(&self, change: impl FnOnce(&mut Control)) {
        let mut control = Control::read(&self.folder).unwrap().unwrap();
        change(&mut control);
        control.write(&self.folder).unwrap();
        own(&self.folder.join(run::CONTROL));
    }

    /// The guest's console. Only one at a time.
    pub(crate) fn console(&self) -> Console {
        Console::open(&self.host_folder.join("serial.sock"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.starter.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the starter's end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.starter.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < BOOT_WAIT, "the starter does not end: {:#?}", self.events());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What this host still has of the run.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        if tool("ip", &["-o", "link"]).contains(&self.spec.run.tap()) {
            found.push("tap".to_owned());
        }
        if tool("nft", &["list", "tables"]).contains(&self.spec.run.nft_table()) {
            found.push("table".to_owned());
        }
        let disk = text(&self.spec.disks[0].path);
        found.extend(processes().into_iter().filter(|(_, command)| command.contains(&disk)).map(|(_, c)| c));
        found
    }

    pub(crate) fn has_host_folder(&self) -> bool {
        self.host_folder.exists()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Only what a failed test left running is alive here.
        drop(self.starter.kill());
        drop(self.starter.wait());
    }
}

/// The quickstart's template, made once for all tests.
pub(crate) fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join("target/guest");
        tool(&text(&root.join("labs/quickstart/make-template")), &[&text(&folder)]);
        folder.join("template.qcow2")
    })
}

/// The console of a guest of this host, by its tap: lw<tag><number> is the tap of run <tag>-<number>.
pub(crate) fn console_at(tap: &str) -> Console {
    let run = format!("{}-{}", &tap[2..6], &tap[6..]);
    Console::open(&Path::new(labwright::host::RUN_ROOT).join(run).join("serial.sock"))
}

/// Runs a program that must succeed.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every process of the machine with its command line.
pub(crate) fn processes() -> Vec<(i32, String)> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|c| !c.is_empty())?;
        Some((pid, String::from_utf8_lossy(&command).replace('\0', " ")))
    })
    .collect()
}

fn own(path: &Path) {
    let user = User::from_name(SERVICE_USER).unwrap().unwrap();
    chown(path, Some(user.uid), Some(user.gid)).unwrap();
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Waits for what the machine does by itself. However long that takes, the wait only has to end some time.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < BOOT_WAIT, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
