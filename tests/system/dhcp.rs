//! Reservations on a real ISC dhcpd, through OMAPI.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use labwright::dhcp::{Dhcp as _, Omapi};
use labwright::host::machine::check::check;
use labwright::host::machine::setup;
use labwright::model::id::{LabName, MacPrefix, SiteTag, VmName};
use labwright::model::reservation::Reservation;
use labwright::model::site::{Algorithm, DhcpSettings, OmapiSettings, Storage};
use nix::sys::signal::Signal;

use crate::world::{World, text, tool, wait_until};

const SECRET: &str = "c2VjcmV0LW9mLXRoZS1sYWI=";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);
/// Not the usual one, so that a forgotten setting shows.
const PORT: u16 = 7912;

struct Dhcpd(Child);

impl Dhcpd {
    /// dhcpd as an admin runs it; its leases stay in `folder`.
    fn start(folder: &Path, algorithm: Algorithm) -> Self {
        let configuration = folder.join("dhcpd.conf");
        let algorithm = algorithm.as_str();
        std::fs::write(
            &configuration,
            format!(
                "authoritative; ddns-update-style none; omapi-port {PORT};\n\
                 key lab {{ algorithm {algorithm}; secret \"{SECRET}\"; }};\nomapi-key lab;\n\
                 host printer {{ hardware ethernet de:af:de:af:77:88; fixed-address 192.168.100.250; }}\n\
                 subnet 192.168.100.0 netmask 255.255.255.0 {{ option routers {GATEWAY}; }}\n"
            ),
        )
        .unwrap();
        let leases = folder.join("dhcpd.leases");
        if !leases.exists() {
            std::fs::write(&leases, "").unwrap();
        }
        let child = Command::new("dhcpd")
            .args(["-4", "-q", "-f", "--no-pid", "-cf"])
            .arg(&configuration)
            .arg("-lf")
            .arg(&leases)
            .arg("vbr0")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let dhcpd = Self(child);
        wait_until("dhcpd listens", || TcpStream::connect((GATEWAY, PORT)).is_ok());
        dhcpd
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Dhcpd {
    /// `kill -9`: what dhcpd was told must be on its disk.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The site's settings, and the key file with `secret` that they name.
fn settings(folder: &Path, algorithm: Algorithm, key_name: &str, secret: &str) -> OmapiSettings {
    let key_file = folder.join(format!("{key_name}-{}.key", secret.len()));
    std::fs::write(&key_file, format!("{secret}\n")).unwrap();
    tool("chmod", &["600", &text(&key_file)]);
    OmapiSettings { server: GATEWAY, port: PORT, key_name: key_name.to_owned(), algorithm, key_file }
}

fn world() -> World {
    World::with_dhcp(|folder| DhcpSettings::Omapi(settings(folder, Algorithm::HmacSha256, "lab", SECRET)))
}

fn omapi(folder: &Path, algorithm: Algorithm) -> Omapi {
    Omapi::new(&settings(folder, algorithm, "lab", SECRET))
}

fn reservation(vm: &str, number: u16) -> Reservation {
    let [high, low] = number.to_be_bytes();
    let ip = Ipv4Addr::new(192, 168, 100 + high, low);
    let (site, lab) = (SiteTag::new("t3st").unwrap(), LabName::new("lab").unwrap());
    Reservation::new(&site, &lab, &VmName::new(vm).unwrap(), MacPrefix::default().mac(ip), ip)
}

fn many(count: u16) -> Vec<Reservation> {
    (2..2 + count).map(|n| reservation(&format!("vm{n}"), n)).collect()
}

fn standing(omapi: &Omapi, reservations: &[Reservation]) -> usize {
    omapi.present(reservations).unwrap().into_iter().filter(|stands| *stands).count()
}

#[test]
fn dhcpd_keeps_reservations_through_omapi() {
    let world = world();
    for algorithm in [Algorithm::HmacMd5, Algorithm::HmacSha256, Algorithm::HmacSha512] {
        let folder = world.folder.path().join(algorithm.as_str());
        std::fs::create_dir(&folder).unwrap();
        let dhcpd = Dhcpd::start(&folder, algorithm);
        let omapi = omapi(&folder, algorithm);
        let many = many(100);
        assert_eq!(standing(&omapi, &many), 0);
        omapi.reserve(&many).unwrap();
        omapi.reserve(&many).unwrap();
        assert_eq!(standing(&omapi, &many), 100, "{algorithm:?}");
        assert_eq!(standing(&omapi, &[reservation("vm2", 200)]), 0, "another address is not this one");

        // Killed and started anew, it has them still; then they go, and go again.
        drop(dhcpd);
        let dhcpd = Dhcpd::start(&folder, algorithm);
        assert_eq!(standing(&omapi, &many), 100, "{algorithm:?}, after kill -9");
        omapi.release(&many[1..]).unwrap();
        omapi.release(&many[1..]).unwrap();
        let first_alone: Vec<bool> = (0..100).map(|n| n == 0).collect();
        assert_eq!(omapi.present(&many).unwrap(), first_alone);
        omapi.reserve(&[reservation("vm2", 200)]).unwrap();
        assert_eq!(standing(&omapi, &[reservation("vm2", 200)]), 1, "a vm that moved");
        assert_eq!(omapi.present(&[]).unwrap(), [] as [bool; 0]);
        drop(dhcpd);
    }
}

/// Every name that a vm can have: dhcpd writes it into a file that it must read back.
#[test]
fn dhcpd_reads_back_every_name() {
    let world = world();
    let dhcpd = Dhcpd::start(world.folder.path(), Algorithm::HmacSha256);
    let omapi = omapi(world.folder.path(), Algorithm::HmacSha256);
    let long = "x".repeat(VmName::BYTES_MAX);
    let names =
        ["a_b", "a.1b", "a..b", "a.", "1", "Doraz-gsr", "doraz-gsr", "a-", "a.host", "a.-", "7.7", "a._", &long];
    let odd: Vec<Reservation> = names.iter().zip(2..).map(|(name, n)| reservation(name, n)).collect();
    omapi.reserve(&odd).unwrap();
    assert_eq!(omapi.present(&odd).unwrap(), vec![true; odd.len()]);
    drop(dhcpd);
    let dhcpd = Dhcpd::start(world.folder.path(), Algorithm::HmacSha256);
    let lost: Vec<&str> =
        names.into_iter().zip(omapi.present(&odd).unwrap()).filter(|(_, s)| !s).map(|(n, _)| n).collect();
    assert_eq!(lost, [] as [&str; 0]);
    drop(dhcpd);
}

/// An admin restarts dhcpd while a lab is applied.
#[test]
fn a_restart_in_the_middle_loses_nothing() {
    let world = world();
    let dhcpd = Dhcpd::start(world.folder.path(), Algorithm::HmacSha256);
    let omapi = omapi(world.folder.path(), Algorithm::HmacSha256);
    let many = many(1000);
    let reserving = std::thread::spawn({
        let (omapi, many) = (omapi.clone(), many.clone());
        move || omapi.reserve(&many)
    });
    while standing(&omapi, &many[..10]) < 10 {}
    drop(dhcpd);
    assert!(!reserving.is_finished(), "it was in the middle");
    let dhcpd = Dhcpd::start(world.folder.path(), Algorithm::HmacSha256);
    reserving.join().unwrap().unwrap();
    assert_eq!(standing(&omapi, &many), 1000);
    drop(dhcpd);
}

/// What an admin reads when something is wrong; and nothing was reserved.
#[test]
fn what_goes_wrong_is_told_apart() {
    let world = world();
    let folder = world.folder.path();
    let one = [reservation("a", 2)];
    let right = settings(folder, Algorithm::HmacSha256, "lab", SECRET);
    let says = |settings: &OmapiSettings, one: &[Reservation]| {
        Omapi::new(settings).reserve(one).unwrap_err().to_string().replace(&text(folder), "ROOT")
    };
    let mut said = vec![says(&right, &one)];
    let dhcpd = Dhcpd::start(folder, Algorithm::HmacSha256);
    said.push(says(&settings(folder, Algorithm::HmacSha256, "lab", "d3JvbmctLXNlY3JldA=="), &one));
    said.push(says(&settings(folder, Algorithm::HmacSha256, "other", SECRET), &one));
    said.push(says(&settings(folder, Algorithm::HmacMd5, "lab", SECRET), &one));
    said.push(says(&right, &[reservation("a", 5000)]));
    tool("chmod", &["640", &text(&right.key_file)]);
    said.push(says(&right, &one));
    tool("rm", &[&text(&right.key_file)]);
    said.push(says(&right, &one));
    insta::assert_snapshot!(said.join("\n"));
    assert_eq!(standing(&omapi(folder, Algorithm::HmacSha256), &one), 0);
    drop(dhcpd);
}

/// The admins' dhcpd is theirs: `host setup` neither starts nor ends one, `host check` asks it.
#[test]
fn setup_and_teardown_leave_a_foreign_dhcpd_alone() {
    let world = world();
    let storage = Storage::below(world.folder.path());
    let line = || {
        let line = check(&world.wanted(), &storage).into_iter().find(|line| line.what == "dhcp").unwrap();
        format!("{}: {}", line.verdict.as_str(), line.found)
    };
    assert!(line().starts_with("failed: dhcpd at 192.168.100.1:7912 cannot be reached: "), "{}", line());
    let mut dhcpd = Dhcpd::start(world.folder.path(), Algorithm::HmacSha256);
    assert_eq!(line(), "ok: dhcpd at 192.168.100.1:7912 takes orders");
    assert_eq!(setup::setup(&world.wanted()).unwrap(), Vec::<String>::new());
    let configuration = std::fs::read(world.folder.path().join("dhcpd.conf")).unwrap();
    setup::teardown(&world.wanted()).unwrap();
    assert!(dhcpd.is_alive());
    assert_eq!(std::fs::read(world.folder.path().join("dhcpd.conf")).unwrap(), configuration);
}

/// A guest asks dhcpd and gets its planned address.
#[test]
fn a_guest_gets_its_address_from_dhcpd() {
    let mut world = world();
    let dhcpd = Dhcpd::start(world.folder.path(), Algorithm::HmacSha256);
    let spec = world.spec(77);
    let mut run = world.start(spec);
    run.wait_ready();
    let (_, addresses) = run.console().run("ip -4 addr show");
    assert!(addresses.contains("192.168.100.77/24"), "{addresses}");
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
    drop(dhcpd);
}
