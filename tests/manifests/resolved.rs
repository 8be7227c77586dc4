//! What sound manifests come to mean: the values that plan and apply work with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use labwright::control::manifests;
use labwright::manifest::load_memory;
use labwright::model::id::{UserGroupName, UserName, VmGroupName, VmName};
use labwright::model::lab::{
    AtEnd, Desired, DiskSource, Limits, Object, PowerState, RestartPolicy, Right, Station, Subject, VmGroup, VmSource,
};
use labwright::model::site::{
    Accel, Algorithm, DhcpServer, DhcpSettings, OmapiSettings, SchedulerSettings, Site, SiteContext,
};
use labwright::resolve::resolve;

pub(crate) fn context() -> SiteContext {
    SiteContext {
        all_vms: VmGroup::all_vms(),
        default_limits: Limits::USER,
        admins: [UserName::new("badmin").unwrap()].into(),
        labs: BTreeMap::new(),
    }
}

/// What these files want; there must be no finding at all.
fn desired(files: &[(&str, &[u8])]) -> Desired {
    let files: BTreeMap<PathBuf, Vec<u8>> = files.iter().map(|(path, text)| (path.into(), text.to_vec())).collect();
    let loaded = load_memory(&files);
    let resolved = resolve(&loaded.manifest, &context());
    let findings: Vec<String> = loaded
        .diagnostics
        .list
        .iter()
        .chain(&resolved.diagnostics.list)
        .map(|d| format!("{} {}", d.rule, d.message))
        .collect();
    assert_eq!(findings, Vec::<String>::new());
    resolved.desired.unwrap()
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

const WHOLE: &str = r#"
lab: lan-exam
user_groups:
  students:
    roster: students.csv
    limits: { running_vms: 3 }
  assistants:
    members: [doraz]
vm_groups:
  lab1:
    ip_range: 192.168.100.2-192.168.100.254
    exclude: [192.168.100.50, 192.168.100.60-192.168.100.62]
    gateway: 192.168.100.1
    dns: [141.85.224.15]
  net:
    ip_range: 10.4.0.0/24
    gateway: 10.4.0.1
    vlan: 120
    mac_prefix: "de:af"
templates:
  gsr:
    description: Scientific Linux for the LAN course
    owner: badmin
    vm_group: lab1
    disks: [{ size: 5G }, { size: 512M }]
    memory: 2G
    nic: e1000
vms:
  exam:
    derive: gsr
    for_each: students
    name: "{user}-gsr"
    state: running
  helper: { clone: gsr, owner: doraz, memory: 512M, vm_group: net, restart: always }
permissions:
  - { to: { group: students }, on: { template: gsr }, allow: [derive, run], force_isolated: true }
sessions:
  final:
    vms: [exam, helper]
    start: 2027-01-12T09:00[Europe/Bucharest]
    end: 2027-01-12T12:00[Europe/Bucharest]
    boot_before: 20m
    extra_time: { doraz: 50% }
    egress: ["141.85.224.15:53/udp", "10.0.0.0/28:443/tcp"]
    at_end: collect
    collect: ["home/*/answer*"]
moved:
  - { from: vm/old, to: vm/helper }
"#;

#[test]
fn a_whole_lab() {
    let roster = "\u{feff}user;Name;uid;extra_time\r\nana;\"Popa; Ana\";1001;\r\nion;\"Ion \"\"I\"\" X\";1002;25%\r\n";
    let lab = desired(&[("lab.yaml", WHOLE.as_bytes()), ("students.csv", roster.as_bytes())]);
    assert_eq!(lab.lab.as_str(), "lan-exam");
    let people: Vec<(&str, Option<u32>, u32, u32)> = lab
        .users
        .iter()
        .map(|(name, user)| (name.as_str(), user.uid, user.extra_time_percent, user.limits.running_vms))
        .collect();
    assert_eq!(people, [("ana", Some(1001), 0, 3), ("doraz", None, 0, 2), ("ion", Some(1002), 25, 3)]);
    assert_eq!(lab.user_groups[&UserGroupName::new("students").unwrap()].members, [user("ana"), user("ion")].into());

    let names: Vec<&str> = lab.vms.keys().map(VmName::as_str).collect();
    assert_eq!(names, ["ana-gsr", "helper", "ion-gsr"]);
    let exam = &lab.vms["ana-gsr"];
    assert_eq!((exam.owner.as_str(), exam.isolated, exam.state), ("ana", true, PowerState::Running));
    assert_eq!((exam.hardware.memory_mib, exam.vm_group.as_str()), (2048, "lab1"));
    assert_eq!((exam.origin.file.as_str(), exam.origin.line), ("lab.yaml", 29));
    let helper = &lab.vms["helper"];
    assert_eq!((helper.isolated, helper.state, helper.restart), (false, PowerState::OnDemand, RestartPolicy::Always));
    assert_eq!((helper.hardware.memory_mib, helper.hardware.nic), (512, exam.hardware.nic));
    assert!(matches!(&helper.source, VmSource::Clone(template) if template.as_str() == "gsr"));
    let template = lab.templates.values().next().unwrap();
    assert_eq!(
        template.disks,
        [DiskSource::Empty { size_bytes: 5 << 30 }, DiskSource::Empty { size_bytes: 512 << 20 }]
    );

    let permission = &lab.permissions[0];
    assert_eq!(permission.allow, [Right::Derive, Right::Run].into());
    assert!(matches!((&permission.to, &permission.on), (Subject::Group(_), Object::Template(_))));
    let session = lab.sessions.values().next().unwrap();
    assert_eq!((session.start.to_string().as_str(), session.vms.len()), ("2027-01-12T07:00:00Z", 3));
    assert_eq!(session.extra_time_percent, [(user("doraz"), 50), (user("ion"), 25)].into());
    assert_eq!((session.boot_before_seconds, session.at_end), (1200, AtEnd::Collect));
    let (opens, closes) = session.window();
    assert_eq!((opens.to_string(), closes.to_string()), ("2027-01-12T06:40:00Z".into(), "2027-01-12T11:30:00Z".into()));
    let egress: Vec<String> = session.egress.iter().map(|e| format!("{} {} {:?}", e.net, e.port, e.protocol)).collect();
    assert_eq!(egress, ["10.0.0.0/28 443 Tcp", "141.85.224.15/32 53 Udp"]);
    assert_eq!(lab.moved[0].from.to_string(), "vm/old");
}

#[test]
fn addresses_of_groups() {
    let lab = desired(&[("lab.yaml", WHOLE.as_bytes()), ("students.csv", b"user\nana\n")]);
    let lab1 = &lab.vm_groups[&VmGroupName::new("lab1").unwrap()];
    assert_eq!((lab1.subnet.to_string().as_str(), lab1.bridge.as_str()), ("192.168.100.0/24", "vbr0"));
    assert_eq!(lab1.range.count(), 253 - 4);
    let net = &lab.vm_groups[&VmGroupName::new("net").unwrap()];
    assert_eq!((net.bridge.as_str(), net.vlan), ("vbr120", Some(120)));
    let first = net.range.addresses().next().unwrap();
    assert_eq!((first.to_string().as_str(), net.range.count()), ("10.4.0.2", 253));
    assert_eq!(net.mac(first).to_string(), "de:af:0a:04:00:02");
    // Nobody uses the predefined group, so no plan needs to speak of it.
    assert!(!lab.vm_groups.contains_key(&VmGroupName::new("all_vms").unwrap()));
}

#[test]
fn rosters_as_schools_export_them() {
    let utf_16: Vec<u8> =
        "\u{feff}user\tName\r\nana\tMüller\r\nion\tX\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bare_utf_16 = |to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "user;Name\r\nana;M\r\nion;X\r\n".encode_utf16().flat_map(to_bytes).collect()
    };
    let cases: [(&str, &str, Vec<u8>); 18] = [
        ("plain", "r.csv", b"user\nana\nion\n".to_vec()),
        ("no line end", "r.csv", b"user\nana\nion".to_vec()),
        ("latin-1, empty lines", "r.csv", b"user;Name\r\nana;M\xfcller\r\n\r\n;\r\nion;\r\n".to_vec()),
        ("upper-case header, spare columns", "r.csv", b"No.,USER,\n1, ana ,\n2,ion,\n".to_vec()),
        ("columns", "{ file: r.csv, columns: { user: Login } }", b"Login,user\nana,x\nion,y\n".to_vec()),
        ("utf-16", "{ file: r.csv, separator: tab, encoding: utf-16 }", utf_16),
        ("utf-16 without a mark", "r.csv", bare_utf_16(u16::to_le_bytes)),
        ("utf-16, the other way round", "r.csv", bare_utf_16(u16::to_be_bytes)),
        ("Moodle", "r.csv", b"First name,Surname,Username,Email address\nAna,M,ana,a@b\nIon,X,ion,i@b\n".to_vec()),
        (
            "Moodle in German",
            "r.csv",
            b"\xef\xbb\xbf\"Vorname\";\"Anmeldename\"\n\"Ana\";\"ana\"\n\"Ion\";\"ion\"\n".to_vec(),
        ),
        ("User name", "r.csv", b"Last,User name\nM,ana\nX,ion\n".to_vec()),
        ("sep=;", "r.csv", b"sep=;\r\nuser;note\r\nana;a, b\r\nion;\r\n".to_vec()),
        ("sep= in quotes, a tab, and a mark", "r.csv", b"\xef\xbb\xbf\"SEP=\t\"\nuser\tx,y\nana\t1\nion\n".to_vec()),
        ("sep=|", "r.csv", b"sep=|\nName|user\nM|ana\nX|ion\n".to_vec()),
        ("short lines", "r.csv", b"user,Name,uid,extra_time\nana,M\nion\n".to_vec()),
        ("commas within a quoted header", "r.csv", b"\"Last, first, middle\";Login\n\"M, A\";ana\nX;ion\n".to_vec()),
        ("line ends of old Macs", "r.csv", b"user,Name\rana,M\rion,X\r".to_vec()),
        ("marks and hard blanks within", "r.csv", "user,x\n\u{a0}ana\u{a0},y\n\u{feff}ion,\n".as_bytes().to_vec()),
    ];
    for (what, roster, csv) in cases {
        let manifest = format!("lab: a\nuser_groups: {{ s: {{ roster: {roster} }} }}\n");
        let lab = desired(&[("lab.yaml", manifest.as_bytes()), ("r.csv", &csv)]);
        let users: Vec<&str> = lab.users.keys().map(UserName::as_str).collect();
        assert_eq!(users, ["ana", "ion"], "{what}");
    }
}

#[test]
fn yaml_as_people_write_it() {
    let text = "\u{feff}---\r\nlab: \"2027\"\r\ntemplates:\r\n  gsr: &t { owner: ana, disks: [ { size: 5G } ] }\r\n  b: *t\r\nvms:\r\nusers: {}\r\nmoved: []\r\n";
    let lab = desired(&[("lab.yaml", text.as_bytes())]);
    assert_eq!((lab.lab.as_str(), lab.templates.len()), ("2027", 2));
}

#[test]
fn all_users_are_those_of_groups_and_not_every_owner() {
    let text = "lab: a\nuser_groups: { s: { members: [ana] } }\ntemplates: { t: { owner: teacher, disks: [{ size: 5G }] } }\nvms: { x: { derive: t, for_each: all_users } }\n";
    let lab = desired(&[("lab.yaml", text.as_bytes())]);
    let vms: Vec<&str> = lab.vms.keys().map(VmName::as_str).collect();
    assert_eq!((vms, lab.users.len()), (vec!["ana-x"], 2));
}

#[test]
fn limits_of_users() {
    let text = "lab: a\nuser_groups:\n  few: { members: [ana, ion], limits: { running_vms: 1, storage: 1G } }\n  many: { members: [ion], limits: { running_vms: 9 } }\nusers:\n  eva: { limits: { storage: 2T } }\n  badmin: {}\n";
    let lab = desired(&[("lab.yaml", text.as_bytes())]);
    let of = |name: &str| (lab.users[name].limits.running_vms, lab.users[name].limits.storage_bytes);
    assert_eq!((of("ana"), of("ion")), ((1, 1 << 30), (9, 13 << 30)));
    assert_eq!((of("eva"), of("badmin")), ((2, 2 << 40), (1000, 133 << 30)));
}

#[test]
fn a_site_file_and_its_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.yaml");
    std::fs::write(&path, "storage: { root: shared }\n").unwrap();
    let (site, warnings) = manifests::site(&path).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(site.storage.vms, folder.path().join("shared/vms"));
    assert_eq!(site.state, Path::new("/var/lib/labwright/state.db"));
    assert_eq!((site.retention_days, site.history_days, site.service_user.as_str()), (30, 365, "labwright"));
    let text = "admins: [badmin]\nstate: s.db\nstorage: { root: /srv, runs: /fast/runs }\nscheduler: { local: { slots: 3, memory: 2G } }\n\
                network: { dhcp: none, gateway_on_host: false }\nqemu: { accel: tcg, extra_args: [\"-cpu\", \"max\"], vnc_bind: 10.0.0.1 }\n\
                timing: { heartbeat: 5s, grace: 1m }\nlimits: { running_vms: 4 }\nretention: 60d\nhistory: 730d\n\
                all_vms: { ip_range: 10.9.0.2-10.9.0.99, gateway: 10.9.0.1, bridge: br9 }\n";
    std::fs::write(&path, text).unwrap();
    let (site, _) = manifests::site(&path).unwrap();
    assert_eq!(
        (site.storage.runs.as_path(), site.storage.aside.as_path()),
        (Path::new("/fast/runs"), Path::new("/srv/aside"))
    );
    assert!(matches!(site.scheduler, SchedulerSettings::Local { slots: 3, memory_mib: 2048, .. }));
    assert_eq!((&site.network.dhcp, site.network.gateway_on_host), (&DhcpSettings::None, false));
    assert_eq!((site.qemu.accel, site.qemu.extra_args.len()), (Accel::Tcg, 2));
    assert_eq!((site.timing.heartbeat_seconds, site.timing.grace_seconds, site.timing.self_fence_seconds), (5, 60, 60));
    assert_eq!((site.default_limits.running_vms, site.retention_days, site.history_days), (4, 60, 730));
    assert_eq!((site.all_vms.bridge.as_str(), site.context().admins.len()), ("br9", 1));
}

#[test]
fn a_site_with_a_dhcpd_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.yaml");
    let read = |omapi: &str| {
        let text = format!("storage: {{ root: /srv }}\nnetwork: {{ dhcp: omapi, omapi: {{ {omapi} }} }}\n");
        std::fs::write(&path, text).unwrap();
        manifests::site(&path).unwrap().0.network.dhcp
    };
    let mut settings = OmapiSettings {
        server: [10, 0, 0, 5].into(),
        port: 7911,
        key_name: "lab_key".to_owned(),
        algorithm: Algorithm::HmacSha256,
        key_file: folder.path().join("omapi.key"),
    };
    let short = "server: 10.0.0.5, key_name: lab_key, key_file: omapi.key";
    assert_eq!(read(short), DhcpSettings::Omapi(settings.clone()), "the key need not be there to read the settings");
    (settings.port, settings.algorithm) = (7912, Algorithm::HmacMd5);
    let dhcp = read(&format!("{short}, port: 7912, algorithm: hmac-md5"));
    assert_eq!((dhcp.control_port(), dhcp), (7912, DhcpSettings::Omapi(settings)));
}

#[test]
fn a_site_names_who_answers_dhcp() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.yaml");
    let read = |network: &str| {
        std::fs::write(&path, format!("storage: {{ root: /srv }}\nnetwork: {{ {network} }}\n")).unwrap();
        let (site, warnings) = manifests::site(&path).unwrap();
        (site.network.dhcp_servers, warnings.list.len())
    };
    let server = |last: u8, mac: Option<&str>| DhcpServer {
        address: [10, 0, 0, last].into(),
        mac: mac.map(|mac| mac.parse().unwrap()),
    };
    let omapi = "dhcp: omapi, omapi: { server: 10.0.0.5, key_name: k, key_file: f }";
    assert_eq!(read("dhcp: dnsmasq"), (vec![], 0), "the bridge does");
    assert_eq!(read("dhcp: none"), (vec![], 1));
    assert_eq!(read("dhcp: none, dhcp_servers: []"), (vec![], 0));
    assert_eq!(read(omapi), (vec![server(5, None)], 1));
    let mac = "00:00:5e:00:53:05";
    let both = format!("{omapi}, dhcp_servers: [10.0.0.6, {{ address: 10.0.0.7, mac: \"{mac}\" }}]");
    assert_eq!(read(&both), (vec![server(6, None), server(7, Some(mac))], 0));
}

/// What was written before there were these keys means what it meant, and is recorded as it was.
#[test]
fn a_gateway_is_an_address_or_more() {
    let group = group_with("gateway: 10.4.0.1, dns: [10.4.0.5]");
    assert_eq!((group.gateway, group.stations.len(), group.routers.len()), (Some([10, 4, 0, 1].into()), 0, 0));
    let body = serde_json::to_value(&group).unwrap();
    assert!(body.get("stations").is_none() && body.get("routers").is_none(), "{body}");

    let group = group_with(
        "gateway: { address: 10.4.0.1, mac: \"00:00:5E:00:01:01\", routers: [{ address: 10.4.0.2, mac: \"00:00:5e:00:53:02\" }] }, \
         dns: [{ address: 10.4.0.5, mac: \"00:00:5e:00:53:05\" }, 10.9.9.9]",
    );
    let station = |last: u8, mac: &str| Station { address: [10, 4, 0, last].into(), mac: mac.parse().unwrap() };
    assert_eq!(group.stations, [station(1, "00:00:5e:00:01:01"), station(5, "00:00:5e:00:53:05")]);
    assert_eq!(group.routers, [station(2, "00:00:5e:00:53:02")]);
    assert_eq!(group.dns.len(), 2);
}

fn group_with(keys: &str) -> VmGroup {
    let text = format!("lab: a\nvm_groups:\n  hall: {{ ip_range: 10.4.0.10-10.4.0.20, {keys} }}\n");
    desired(&[("lab.yaml", text.as_bytes())]).vm_groups.remove(&VmGroupName::new("hall").unwrap()).unwrap()
}

#[test]
fn the_embedded_site() {
    let site = Site::embedded(Path::new("/lab"), 10_000, 2);
    assert_eq!(site.state, Path::new("/lab/.labwright/state.db"));
    assert!(
        matches!(site.scheduler, SchedulerSettings::Local { slots: 125, memory_mib: 8000, .. }),
        "{:?}",
        site.scheduler
    );
    assert!(matches!(
        Site::embedded(Path::new("/lab"), 100_000, 2).scheduler,
        SchedulerSettings::Local { slots: 128, .. }
    ));
}
