//! qemu's argument list, from a run's spec. Pure. Nothing comes from qemu's own defaults, and no image's header decides
//! which files are opened: every layer of every disk is named here.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

use serde_json::{Value, json};

use super::accel::Accelerator;
use super::run_folder::{qemu_screen_socket, serial_socket, vnc_socket};
use crate::model::lab::{DisplayModel, Firmware, NicModel};
use crate::model::site::VncBind;
use crate::run::{RunDisk, RunSpec};

/// Ports of vnc servers: one per running guest of a host.
pub(in crate::host) const VNC_PORT_FIRST: u16 = 5900;
pub(in crate::host) const VNC_PORT_LAST: u16 = 6899;

/// What the starter hands to qemu besides the spec.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub accel: Accelerator,
    pub hold: Hold<'a>,
    /// The run's folder on its host, for sockets.
    pub folder: &'a Path,
    pub vnc_password: VncPassword<'a>,
}

/// How tap and monitor reach qemu, and who serves its screen.
#[derive(Debug, Clone, Copy)]
pub enum Hold<'a> {
    /// As descriptors of the starter, which lets viewers in by itself. The guest is not started: that is the monitor's `cont`.
    Starter { tap: RawFd, monitor: RawFd },
    /// By name, for a person. The guest starts at once.
    Hand { tap: &'a str, monitor: &'a Path },
}

/// Whether vnc asks for a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VncPassword<'a> {
    /// It is set through the monitor.
    Asked,
    /// It stands in a file that qemu may read.
    File(&'a Path),
    None,
}

/// Cache of translated code, in MiB: qemu's default is 1 GiB, which a class of guests under TCG would fill.
const TCG_CACHE_MIB: u32 = 32;
/// qemu tries the vnc ports from 5900 on until one is free; the filter keeps guests away from them.
const VNC_DISPLAYS_MAX: u16 = VNC_PORT_LAST - VNC_PORT_FIRST;
const UEFI_FIRMWARE: &str = "/usr/share/ovmf/OVMF.fd";

/// The arguments behind the program's name.
pub fn arguments(spec: &RunSpec, given: &Given<'_>) -> Vec<OsString> {
    let mut list = List::default();
    machine(&mut list, spec, given.accel);
    let (monitor, tap) = match given.hold {
        Hold::Starter { tap, monitor } => {
            list.0.push("-S".into());
            (format!("fd={monitor}"), format!("fd={tap}"))
        }
        Hold::Hand { tap, monitor } => {
            (format!("server=on,wait=off,path={}", escape(monitor)), format!("ifname={tap},script=no,downscript=no"))
        }
    };
    list.pair("-chardev", format!("socket,id=monitor,{monitor}"));
    list.pair("-mon", "chardev=monitor,mode=control");
    list.pair(
        "-chardev",
        format!("socket,id=serial0,server=on,wait=off,path={}", escape(&serial_socket(given.folder))),
    );
    list.pair("-serial", "chardev:serial0");
    display(&mut list, spec, given);
    disks(&mut list, spec);
    list.pair("-netdev", format!("tap,id=net0,{tap}"));
    list.pair("-device", format!("{},netdev=net0,mac={},romfile=", nic(spec.hardware.nic), spec.network.mac));
    // Behind all else, so that what the guest calls its disks and its network card does not depend on it.
    if let Some(seed) = &spec.seed {
        let file = json!({ "driver": "file", "filename": seed, "locking": "on" });
        let node = json!({ "driver": "raw", "node-name": "seed0", "read-only": true, "file": file });
        list.pair("-blockdev", node.to_string());
        list.pair("-device", "virtio-blk-pci,drive=seed0");
    }
    let mut arguments = list.0;
    arguments.extend(spec.qemu.extra_args.iter().map(OsString::from));
    arguments
}

#[derive(Default)]
struct List(Vec<OsString>);

impl List {
    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }
}

fn machine(list: &mut List, spec: &RunSpec, accel: Accelerator) {
    let hardware = &spec.hardware;
    list.pair("-name", format!("guest={}", spec.vm));
    list.0.extend(["-nodefaults", "-no-user-config"].map(OsString::from));
    list.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    let (machine, firmware) = match hardware.firmware {
        Firmware::Bios => ("pc", None),
        Firmware::Uefi => ("q35", Some(UEFI_FIRMWARE)),
    };
    list.pair("-machine", machine);
    if let Some(firmware) = firmware {
        list.pair("-bios", firmware);
    }
    let (accel, cpu) = match accel {
        Accelerator::Kvm => ("kvm".to_owned(), "host"),
        Accelerator::Tcg => (format!("tcg,tb-size={TCG_CACHE_MIB}"), "max"),
    };
    list.pair("-accel", accel);
    list.pair("-cpu", cpu);
    list.pair("-m", hardware.memory_mib.to_string());
    list.pair("-smp", hardware.cpus.to_string());
    list.pair("-rtc", "base=utc");
    list.pair("-boot", "strict=on");
}

/// The tablet tells the guest where the viewer's pointer is; without it two pointers drift apart.
fn display(list: &mut List, spec: &RunSpec, given: &Given<'_>) {
    let device = match spec.hardware.display {
        DisplayModel::Std => "VGA",
        DisplayModel::Cirrus => "cirrus-vga",
        DisplayModel::Virtio => "virtio-vga",
        DisplayModel::Qxl => "qxl-vga",
    };
    list.pair("-display", "none");
    list.pair("-device", device);
    list.pair("-device", "qemu-xhci");
    list.pair("-device", "usb-tablet");
    let asked = match given.vnc_password {
        VncPassword::Asked => ",password=on",
        VncPassword::File(file) => {
            list.pair("-object", format!("secret,id=vnc0,file={}", escape(file)));
            ",password-secret=vnc0"
        }
        VncPassword::None => "",
    };
    let place = match (given.hold, spec.qemu.vnc_bind) {
        (Hold::Starter { .. }, _) => format!("unix:{}", escape(&qemu_screen_socket(given.folder))),
        (Hold::Hand { .. }, VncBind::Address(address)) => format!("{address}:0,to={VNC_DISPLAYS_MAX}"),
        (Hold::Hand { .. }, VncBind::Socket) => format!("unix:{}", escape(&vnc_socket(given.folder))),
    };
    list.pair("-vnc", format!("{place}{asked}"));
}

fn disks(list: &mut List, spec: &RunSpec) {
    for (number, disk) in spec.disks.iter().enumerate() {
        list.pair("-blockdev", block_device(&format!("disk{number}"), disk).to_string());
        list.pair("-device", format!("virtio-blk-pci,drive=disk{number},bootindex={}", number + 1));
    }
    if let Some(cdrom) = &spec.hardware.cdrom {
        let file = json!({ "driver": "file", "filename": cdrom, "locking": "on" });
        let node = json!({ "driver": "raw", "node-name": "cdrom0", "read-only": true, "file": file });
        list.pair("-blockdev", node.to_string());
        let bootindex = if spec.installs { spec.disks.len() + 1 } else { 0 };
        list.pair("-device", format!("ide-cd,drive=cdrom0,bootindex={bootindex}"));
    }
}

/// A disk and all layers below it. The last has an explicit `null`, so that a name in its header is not followed.
fn block_device(name: &str, disk: &RunDisk) -> Value {
    let file = |path: &Path| json!({ "driver": "file", "filename": path, "locking": "on" });
    let below = disk.backing.iter().rev().fold(
        Value::Null,
        |backing, path| json!({ "driver": "qcow2", "read-only": true, "file": file(path), "backing": backing }),
    );
    let mut top_file = file(&disk.path);
    top_file["discard"] = json!("unmap");
    json!({ "driver": "qcow2", "node-name": name, "discard": "unmap", "file": top_file, "backing": below })
}

fn nic(model: NicModel) -> &'static str {
    match model {
        NicModel::Virtio => "virtio-net-pci",
        NicModel::E1000 => "e1000",
        NicModel::Rtl8139 => "rtl8139",
    }
}

/// A path inside a comma-separated option: a comma is written twice.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{LabName, RunId, SiteTag, UserName, VmName};
    use crate::model::lab::Hardware;
    use crate::model::site::{Accel, QemuSettings, Timing};
    use crate::run::RunNetwork;

    fn spec() -> RunSpec {
        RunSpec {
            version: RunSpec::VERSION,
            run: RunId::new(SiteTag::new("k3f9").unwrap(), 104),
            lab: LabName::new("lan-exam").unwrap(),
            vm: VmName::new("doraz-gsr").unwrap(),
            owner: UserName::new("doraz").unwrap(),
            generation: 1,
            hardware: Hardware {
                memory_mib: 2048,
                cpus: 2,
                firmware: Firmware::Bios,
                nic: NicModel::Virtio,
                display: DisplayModel::Std,
                cdrom: None,
            },
            installs: false,
            disks: vec![RunDisk {
                path: "/srv/vms/doraz-gsr/disk-0.qcow2".into(),
                backing: vec!["/srv/templates/gsr/2/disk-0.qcow2".into(), "/srv/templates/base/1/disk-0.qcow2".into()],
            }],
            seed: None,
            network: RunNetwork {
                bridge: "vbr0".to_owned(),
                ip: [192, 168, 100, 2].into(),
                mac: "de:af:de:af:64:02".parse().unwrap(),
                subnet: "192.168.100.0/24".parse().unwrap(),
                gateway: None,
                routers: Vec::new(),
                dns: Vec::new(),
                stations: Vec::new(),
                dhcp_servers: None,
                dhcp_on_bridge: false,
                isolated: false,
                lab_ranges: Vec::new(),
                lab_mac_prefixes: Vec::new(),
                egress: Vec::new(),
                dhcp_control_port: 7911,
                filter: crate::model::site::Filter::default(),
            },
            qemu: QemuSettings {
                binary: "/usr/bin/qemu-system-x86_64".into(),
                accel: Accel::Auto,
                extra_args: vec!["-device".to_owned(), "virtio-rng-pci".to_owned()],
                vnc_bind: VncBind::default(),
            },
            service_user: "labwright".to_owned(),
            timing: Timing::default(),
        }
    }

    /// One option with its value per line.
    fn written(spec: &RunSpec, accel: Accelerator, vnc_password: VncPassword<'_>) -> String {
        let folder = Path::new("/run/labwright/k3f9-104");
        let given = Given { accel, hold: Hold::Starter { tap: 9, monitor: 8 }, folder, vnc_password };
        let words = arguments(spec, &given);
        let text: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
        text.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn a_derived_vm_under_tcg() {
        insta::assert_snapshot!(written(&spec(), Accelerator::Tcg, VncPassword::None));
    }

    #[test]
    fn a_uefi_vm_with_a_cd_under_kvm() {
        let mut spec = spec();
        spec.hardware.firmware = Firmware::Uefi;
        spec.hardware.cdrom = Some("/srv/iso/debian,12.iso".into());
        spec.hardware.nic = NicModel::E1000;
        insta::assert_snapshot!(written(&spec, Accelerator::Kvm, VncPassword::Asked));
    }

    /// A guest never writes to it, and boots nothing from it.
    #[test]
    fn a_seed_is_the_last_device_and_only_read() {
        let mut spec = spec();
        let without = written(&spec, Accelerator::Tcg, VncPassword::None);
        spec.seed = Some("/srv/runs/k3f9-104/seed.img".into());
        let text = written(&spec, Accelerator::Tcg, VncPassword::None);
        let (before, extra) = without.split_once("\n-device virtio-rng-pci").unwrap();
        let seed =
            text.strip_prefix(before).unwrap().strip_suffix(&format!("\n-device virtio-rng-pci{extra}")).unwrap();
        assert!(seed.contains("\"read-only\":true") && seed.contains("seed.img"), "{seed}");
        assert!(seed.ends_with("-device virtio-blk-pci,drive=seed0"), "{seed}");
    }

    /// What it has installed boots the next time.
    #[test]
    fn a_guest_that_installs_looks_at_its_cd_last() {
        let mut spec = spec();
        (spec.hardware.cdrom, spec.installs) = (Some("/srv/iso/debian.iso".into()), true);
        let text = written(&spec, Accelerator::Tcg, VncPassword::None);
        let order: Vec<&str> = text.lines().filter(|line| line.contains("bootindex=")).collect();
        assert_eq!(
            order,
            ["-device virtio-blk-pci,drive=disk0,bootindex=1", "-device ide-cd,drive=cdrom0,bootindex=2"]
        );
    }

    /// A person has no starter that would let viewers in.
    #[test]
    fn qemu_serves_its_screen_only_where_nobody_else_does() {
        let mut spec = spec();
        let folder = Path::new("/run/labwright/k3f9-104");
        let vnc = |spec: &RunSpec, hold: Hold<'_>| {
            let given = Given { accel: Accelerator::Tcg, hold, folder, vnc_password: VncPassword::Asked };
            let words = arguments(spec, &given);
            let at = words.iter().position(|word| word == "-vnc").unwrap();
            words[at + 1].to_str().unwrap().to_owned()
        };
        let (starter, hand) =
            (Hold::Starter { tap: 9, monitor: 8 }, Hold::Hand { tap: "lw1", monitor: Path::new("/m") });
        assert_eq!(vnc(&spec, starter), "unix:/run/labwright/k3f9-104/screen.sock,password=on");
        assert_eq!(vnc(&spec, hand), "127.0.0.1:0,to=999,password=on");
        spec.qemu.vnc_bind = VncBind::Socket;
        assert_eq!(vnc(&spec, starter), "unix:/run/labwright/k3f9-104/screen.sock,password=on");
        assert_eq!(vnc(&spec, hand), "unix:/run/labwright/k3f9-104/vnc.sock,password=on");
    }
}
