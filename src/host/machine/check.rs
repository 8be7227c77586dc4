//! Whether this host can run guests: every thing a run needs is tried, not looked up. One line each, with the mend where
//! it is not well. Nothing is changed; what a try makes goes with it.

use std::borrow::Cow;
use std::path::Path;
use std::time::SystemTime;

use nix::sys::statfs::{CODA_SUPER_MAGIC, FUSE_SUPER_MAGIC, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, statfs};
use nix::unistd::{Uid, User};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflicts::{self, DroppingChain, dropping_chains, dropping_legacy_chains};
use super::readiness::{self, of_drop_table};
use super::screens::{self, Reach};
use super::setup::Wanted;
use super::wire;
use crate::error::chain;
use crate::host::command;
use crate::host::run::accel;
use crate::host::run::bounds::{self, Standing};
use crate::host::run::confine::{self, Reach as Confined};
use crate::host::run::filter::{Chain, EBTABLES_CANNOT, Session, Table, Turns};
use crate::host::run::tap::Tap;
use crate::model::lab::VmGroup;
use crate::model::site::{Accel, Filter, Storage};
use crate::run::probe_name;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub what: Cow<'static, str>,
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, where it is not well.
    pub mend: Option<String>,
}

/// Worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// Guests run, but slower or less guarded than they could.
    Warning,
    /// No guest starts, or one would run other than the lab asks.
    Failed,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

pub(crate) fn ok(what: &'static str, found: impl Into<String>) -> Line {
    Line { what: what.into(), verdict: Verdict::Ok, found: found.into(), mend: None }
}

pub(crate) fn warning(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Line {
    Line { what: what.into(), verdict: Verdict::Warning, found: found.into(), mend: Some(mend.into()) }
}

pub(crate) fn failed(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Line {
    Line { what: what.into(), verdict: Verdict::Failed, found: found.into(), mend: Some(mend.into()) }
}

/// Tries everything; the lines come in the order in which a start needs things.
pub fn check(wanted: &Wanted<'_>, storage: &Storage) -> Vec<Line> {
    let mut lines =
        vec![rights(), readiness::service_user(wanted.service_user), qemu(&wanted.qemu.binary), accelerator(wanted)];
    lines.push(kvm_modules_here(wanted.qemu.accel));
    lines.push(tap());
    lines.extend(filter(wanted.run_root));
    lines.extend(ebtables(wanted.network.filter));
    lines.push(vnc(wanted));
    lines.extend(bridges(wanted));
    lines.push(vlan(wanted));
    lines.push(iptables());
    lines.extend(foreign_chains());
    lines.push(forwarding());
    lines.push(readiness::dhcp(wanted));
    lines.extend(dynamic_ranges(wanted));
    lines.extend(wire::lines(wanted));
    lines.push(confinement());
    lines.push(memory_bounds(wanted.run_root));
    lines.push(run_root(wanted.run_root));
    lines.extend(folders(storage));
    // A missing folder has its line already.
    let there = [&storage.runs, &storage.vms].into_iter().filter(|folder| folder.exists());
    lines.extend(there.map(|folder| writable(folder, wanted.service_user)));
    lines
}

fn rights() -> Line {
    if Uid::effective().is_root() {
        ok("rights", "root")
    } else {
        failed("rights", format!("user {}", Uid::effective()), "run this as root, as the starter is")
    }
}

pub(super) fn qemu(binary: &Path) -> Line {
    match command::run(&binary.display().to_string(), &["--version"], "") {
        Ok(text) => ok("qemu", text.lines().next().unwrap_or_default().to_owned()),
        Err(error) => failed("qemu", error.to_string(), "on Debian: `apt-get install qemu-system-x86 qemu-utils`"),
    }
}

pub(super) fn accelerator(wanted: &Wanted<'_>) -> Line {
    const WHAT: &str = "acceleration";
    match (wanted.qemu.accel, accel::read(wanted.run_root)) {
        (Accel::Tcg, _) => ok(WHAT, "tcg, as the site asks"),
        (_, Err(error)) => failed(WHAT, error.to_string(), "run `labwright host setup`"),
        (_, Ok(None)) => failed(WHAT, "no guest was tried under KVM yet", "run `labwright host setup`"),
        (_, Ok(Some(finding))) => {
            let found = format!("{}: {}", finding.accel.as_str(), finding.reason);
            match (wanted.qemu.accel, finding.accel) {
                (_, accel::Accelerator::Kvm) => ok(WHAT, found),
                (Accel::Kvm, _) => failed(WHAT, found, "the site asks for kvm: mend that, or write `accel: auto`"),
                _ => warning(WHAT, found, "guests run ten to thirty times slower than under KVM"),
            }
        }
    }
}

fn kvm_modules_here(asked: Accel) -> Line {
    let loaded =
        ["kvm_intel", "kvm_amd", "kvm_pvm"].into_iter().find(|name| Path::new("/sys/module").join(name).exists());
    // What cannot be read shows no flags.
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    kvm_modules(asked, &cpus, loaded)
}

/// Apart from `acceleration`, which says whether a guest boots: what is missing may be the processor's or the kernel's.
fn kvm_modules(asked: Accel, cpuinfo: &str, loaded: Option<&str>) -> Line {
    const WHAT: &str = "kvm modules";
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let module = flags.split_whitespace().find_map(|flag| match flag {
        "vmx" => Some("kvm_intel"),
        "svm" => Some("kvm_amd"),
        _ => None,
    });
    let missing = if asked == Accel::Kvm { failed } else { warning };
    match (asked, loaded, module) {
        (Accel::Tcg, ..) => ok(WHAT, "none needed: the site asks for tcg"),
        (_, Some(loaded), _) => ok(WHAT, format!("{loaded} is loaded")),
        (_, None, Some(module)) => missing(
            WHAT,
            format!("{module} is not loaded, and the processor could do it"),
            format!("`modprobe {module}`; where it refuses, `dmesg` says why"),
        ),
        (_, None, None) => missing(
            WHAT,
            "none is loaded, and the processor shows neither vmx nor svm".to_owned(),
            "switch virtualisation on in the firmware; in a virtual machine, nested virtualisation on its host"
                .to_owned(),
        ),
    }
}

fn tap() -> Line {
    let name = format!("lwcheck{}", std::process::id() % 100_000_000);
    match Tap::open(&name) {
        Ok(_) => ok("tap", "/dev/net/tun makes one"),
        Err(error) => failed("tap", chain(&error), "load the module with `modprobe tun`"),
    }
}

/// A table like a run's, owned by the process that made it; and the host's own.
fn filter(run_root: &Path) -> Vec<Line> {
    let rule = "iifname \"lwcheck\" ether saddr 02:00:00:00:00:01 drop".to_owned();
    let table = Table {
        name: format!("lw_check_{}", std::process::id()),
        owned: true,
        counters: vec!["ready".to_owned()],
        chains: vec![Chain { name: "from_tap", hook: Some("prerouting priority -300"), rules: vec![rule] }],
    };
    let mut session = match Session::start() {
        Ok(session) => session,
        Err(error) => return vec![failed("filter", chain(&error), "on Debian: `apt-get install nftables`")],
    };
    let turn = Turns::new(run_root).take();
    let tried = session.add(&table).and_then(|()| session.verify(&table));
    drop(turn);
    let own = match tried {
        Ok(_) => ok("filter", "nftables holds a bridge table for as long as its owner lives"),
        Err(error) => failed(
            "filter",
            error.to_string(),
            "the kernel needs nf_tables with the bridge family and owned tables (Linux 5.12, nft 1.0)",
        ),
    };
    let host = of_drop_table(&mut session);
    vec![own, host]
}

/// Only where the site asks for it.
fn ebtables(asked: Filter) -> Option<Line> {
    const WHAT: &str = "ebtables";
    if asked != Filter::Ebtables {
        return None;
    }
    Some(match command::run("ebtables-nft", &["--version"], "") {
        Ok(version) => warning(
            WHAT,
            format!("{}: {EBTABLES_CANNOT}", version.trim()),
            "`filter: nftables` in site.yaml drops all of these",
        ),
        Err(error) => failed(WHAT, error.to_string(), "or write `filter: nftables` in site.yaml"),
    })
}

/// Who can connect to a guest's screen.
fn vnc(wanted: &Wanted<'_>) -> Line {
    const WHAT: &str = "vnc";
    const SETUP: &str = "run `labwright host setup`";
    let allowed = &wanted.network.vnc_allow;
    match screens::stands(wanted.network, wanted.qemu) {
        Err(error) => return failed(WHAT, error.to_string(), SETUP),
        Ok(false) if allowed.is_empty() => {
            return warning(WHAT, "the table of an earlier `vnc_allow` still stands", SETUP);
        }
        Ok(false) => return failed(WHAT, "the table that keeps others than `vnc_allow` away does not stand", SETUP),
        Ok(true) => {}
    }
    match screens::reach(wanted.qemu) {
        Reach::Socket => ok(WHAT, "on a socket of each run, for root alone"),
        Reach::Host => ok(WHAT, "from this host alone, with each run's password"),
        Reach::Network(address) if allowed.is_empty() => warning(
            WHAT,
            format!("whoever reaches {address} can try passwords, and see what is on the wire"),
            "name who may connect: `qemu: { vnc_allow: [...] }` in site.yaml",
        ),
        Reach::Network(address) => {
            let networks: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            ok(WHAT, format!("on {address}, from {} alone", networks.join(", ")))
        }
    }
}

pub(super) fn bridges(wanted: &Wanted<'_>) -> Vec<Line> {
    let mut names: Vec<&str> = wanted.groups.iter().map(|group| group.bridge.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| bridge(name, wanted)).collect()
}

fn bridge(name: &str, wanted: &Wanted<'_>) -> Line {
    const WHAT: &str = "bridge";
    let sys = Path::new("/sys/class/net").join(name);
    if !sys.join("bridge").exists() {
        return failed(WHAT, format!("there is no {name}"), "run `labwright host setup`");
    }
    // `addr_assign_type` 3: somebody has set the address, so that no port changes it (3 = NET_ADDR_SET).
    let pinned = std::fs::read_to_string(sys.join("addr_assign_type")).is_ok_and(|text| text.trim() == "3");
    if !pinned {
        let mend = format!("pin it: `ip link set dev {name} address \"$(cat /sys/class/net/{name}/address)\"`");
        return warning(
            WHAT,
            format!("{name} changes its address with its ports, and guests lose their gateway"),
            mend,
        );
    }
    let addresses = command::run("ip", &["-o", "-4", "addr", "show", "dev", name], "").unwrap_or_default();
    let mine = wanted.groups.iter().filter(|group| group.bridge == name && wanted.network.gateway_on_host);
    let missing: Vec<String> = mine
        .filter_map(|group| group.gateway.map(|ip| format!("{ip}/{}", group.subnet.prefix_len())))
        .filter(|address| !addresses.split_whitespace().any(|word| word == address))
        .collect();
    if missing.is_empty() {
        ok(WHAT, name)
    } else {
        failed(WHAT, format!("{name} lacks the gateway's address {}", missing.join(", ")), "run `labwright host setup`")
    }
}

/// Some kernels are built without 802.1Q; a vm group with `vlan:` needs it.
fn vlan(wanted: &Wanted<'_>) -> Line {
    let here = Path::new("/proc/net/vlan").exists() || Path::new("/sys/module/8021q").exists();
    let asked = wanted.groups.iter().any(|group| group.vlan.is_some());
    let mend = "load it with `modprobe 8021q`; a kernel built without it cannot serve these groups";
    match (asked, here) {
        (true, false) => failed("vlan", "a vm group has a `vlan:`, the kernel no 802.1Q loaded", mend),
        (true, true) => ok("vlan", "802.1Q is there"),
        (false, _) => ok("vlan", "no vm group asks for it"),
    }
}

/// Whether the rules for what this host forwards also see what passes its bridges.
fn iptables_sees_bridges() -> bool {
    std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|text| text.trim() != "0")
}

fn iptables() -> Line {
    if iptables_sees_bridges() {
        warning(
            "other firewalls",
            "iptables sees what passes the bridges (br_netfilter); docker's rules drop guests' frames",
            "`sysctl -w net.bridge.bridge-nf-call-iptables=0`, unless something here needs it",
        )
    } else {
        ok("other firewalls", "none looks into the bridges")
    }
}

/// Firewalls of others that drop by default, one line each; none is no line.
fn foreign_chains() -> Vec<Line> {
    const WHAT: &str = "foreign firewall";
    let listing = match command::run("nft", &["list", "chains"], "") {
        Ok(listing) => listing,
        Err(error) => return vec![failed(WHAT, error.to_string(), "without nft no guest starts")],
    };
    // Of this thread's network namespace; a kernel without these tables has no such file.
    let legacy = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    let saved = if legacy.is_empty() { Ok(String::new()) } else { command::run("iptables-legacy-save", &[], "") };
    let sees_bridges = iptables_sees_bridges();
    let line = |chain: DroppingChain| {
        let name = chain.name;
        if chain.on_bridges {
            let mend =
                "accept there what comes from and goes to `lw*` ports, or remove it: guests have filters of their own";
            failed(WHAT, format!("chain {name} drops guests' frames on the bridges"), mend)
        } else {
            let mend =
                "accept there what comes from and goes to the lab's bridges; with docker, in its chain DOCKER-USER";
            warning(WHAT, format!("chain {name} drops what this host would forward for guests"), mend)
        }
    };
    let mut lines: Vec<Line> = dropping_chains(&listing, sees_bridges).into_iter().map(line).collect();
    match saved {
        Ok(saved) => lines.extend(dropping_legacy_chains(&saved, sees_bridges).into_iter().map(line)),
        Err(error) => {
            let names = legacy.split_whitespace().collect::<Vec<_>>().join(", ");
            let found =
                format!("iptables-legacy has tables here ({names}), and what they drop cannot be seen: {error}");
            lines.push(warning(WHAT, found, "mend that and check again, or make these rules with nft"));
        }
    }
    lines
}

/// DHCP servers of this host that give a lab's addresses to anyone who asks, one line each.
fn dynamic_ranges(wanted: &Wanted<'_>) -> Vec<Line> {
    const WHAT: &str = "dhcp range";
    let given = conflicts::given_to_anyone();
    let unread = given.unread.into_iter().map(|(path, error)| {
        let found = format!("what {} gives to anyone cannot be seen: {error}", path.display());
        warning(WHAT, found, "see whether the DHCP server that reads it still starts")
    });
    let mut lines: Vec<Line> = unread.collect();
    for (path, (first, last)) in given.ranges {
        let meets = |group: &&VmGroup| first <= group.range.last && group.range.first <= last;
        if let Some(group) = wanted.groups.iter().find(meets) {
            let (path, range) = (path.display(), &group.range);
            let found = format!(
                "{path} gives {first}-{last} to anyone, and a vm group has {}-{}: two machines would get one address",
                range.first, range.last
            );
            lines.push(failed(WHAT, found, "move that range, or the group's `ip_range`"));
        }
    }
    lines
}

/// Either is well: it says where guests without isolation get to through this host.
fn forwarding() -> Line {
    let on = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1");
    let found = if on {
        "on: only its filter holds an isolated guest back"
    } else {
        "off: guests get no further than this host"
    };
    ok("forwarding", found)
}

fn memory_bounds(run_root: &Path) -> Line {
    const WHAT: &str = "memory bounds";
    match bounds::standing(run_root) {
        Standing::Bounded { folder, controllers } => {
            ok(WHAT, format!("each guest has a cgroup with {} in {}", controllers.join(", "), folder.display()))
        }
        Standing::NotPrepared { hierarchy } => warning(
            WHAT,
            format!("guests have none, and {} could bound them", hierarchy.display()),
            "run `labwright host setup`, which says why where it cannot",
        ),
        Standing::Impossible { found } => warning(
            WHAT,
            format!("guests have none: {found}"),
            "boot with `systemd.unified_cgroup_hierarchy=1`, and without `cgroup_disable=memory`",
        ),
    }
}

/// Space below which the runs' sockets and screens may not fit.
const RUN_ROOT_FREE_MIB_MIN: u64 = 64;

fn run_root(folder: &Path) -> Line {
    const WHAT: &str = "run root";
    let shown = folder.display();
    let Ok(stat) = statfs(folder) else {
        return failed(WHAT, format!("{shown} is missing"), "run `labwright host setup`");
    };
    let block = u64::try_from(stat.block_size()).unwrap_or(0);
    let free_mib = stat.blocks_available().saturating_mul(block) >> 20;
    let found = format!("{shown}: {free_mib} MiB free");
    if free_mib < RUN_ROOT_FREE_MIB_MIN {
        failed(WHAT, found, "make room: every run keeps its sockets and screens there")
    } else {
        ok(WHAT, found)
    }
}

fn confinement() -> Line {
    const WHAT: &str = "landlock";
    match confine::reach() {
        Confined::FilesAndSignals => {
            ok(WHAT, "a guest that breaks out of qemu reads its own disks only, and ends no other guest")
        }
        Confined::Files => warning(
            WHAT,
            "a guest that breaks out of qemu reads its own disks only, but could end other guests",
            "a kernel from 6.12 on keeps its signals to itself",
        ),
        Confined::Account => warning(
            WHAT,
            "this kernel has none: a guest that breaks out of qemu can read other guests' disks, and end them",
            "a kernel from 6.12 on with `landlock` in `lsm=`",
        ),
    }
}

/// Space below which a host is warned of: a few guests' overlays.
const FREE_GIB_MIN: u64 = 5;
/// Clocks further apart than this spoil deadlines and heartbeats.
const SKEW_SECONDS_MAX: u64 = 2;

fn folders(storage: &Storage) -> Vec<Line> {
    let mut lines = Vec::new();
    for folder in [&storage.runs, &storage.vms, &storage.templates] {
        lines.push(folder_line(folder));
    }
    // Without it there is nothing to compare, and it has its line.
    lines.extend(storage.runs.exists().then(|| clock(&storage.runs)));
    lines
}

fn folder_line(folder: &Path) -> Line {
    const WHAT: &str = "storage";
    let shown = folder.display();
    let Ok(stat) = statfs(folder) else {
        let mend = "mount the shared storage here; without a site file, `labwright host setup` makes it";
        return failed(WHAT, format!("{shown} is missing"), mend);
    };
    let network = [NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, CODA_SUPER_MAGIC, FUSE_SUPER_MAGIC];
    let kind = if network.contains(&stat.filesystem_type()) { "shared" } else { "this machine's alone" };
    let block = u64::try_from(stat.block_size()).unwrap_or(0);
    let free_gib = stat.blocks_available().saturating_mul(block) >> 30;
    let found = format!("{shown}: {kind}, {free_gib} GiB free");
    if free_gib < FREE_GIB_MIN {
        warning(WHAT, found, "make room: a full disk stops every guest on it")
    } else {
        ok(WHAT, found)
    }
}

/// Whether the account that runs the guests can write in a folder of its own there, as it must with reports and disks. A
/// file server may give root fewer rights than the account, so the folder is made by whoever can.
fn writable(folder: &Path, account: &str) -> Line {
    const WHAT: &str = "storage rights";
    let shown = folder.display();
    let Ok(Some(user)) = User::from_name(account) else {
        return failed(WHAT, format!("{shown}: not tried, there is no {account}"), "run `labwright host setup`");
    };
    let probe = folder.join(probe_name(account));
    let (made, owner) = (probe.clone(), user.clone());
    let made_by_root =
        std::fs::create_dir(&made).and_then(|()| Ok(nix::unistd::chown(&made, Some(owner.uid), Some(owner.gid))?));
    // The account's rights are this one thread's, and go with it.
    let tried = std::thread::spawn(move || {
        nix::unistd::setfsgid(user.gid);
        nix::unistd::setfsuid(user.uid);
        made_by_root.or_else(|_| std::fs::create_dir(&made))?;
        std::fs::write(made.join("probe"), "x")?;
        std::fs::remove_file(made.join("probe"))
    });
    let tried = tried.join().expect("the thread only returns errors");
    // What stays behind is an empty folder under a name that says what it was.
    drop(std::fs::remove_dir(&probe));
    match tried {
        Ok(()) => ok(WHAT, format!("{shown}: {account} can write there")),
        Err(error) => {
            let mend =
                format!("every folder above it must let {account} pass (`chmod o+x`); see also the server's exports");
            failed(WHAT, format!("{shown}: {account} cannot write there: {error}"), mend)
        }
    }
}

/// The server stamps a new file with its own clock.
pub(crate) fn clock(runs: &Path) -> Line {
    const WHAT: &str = "clock";
    let probe = runs.join(probe_name("clock"));
    let before = SystemTime::now();
    let stamp = std::fs::write(&probe, "x").and_then(|()| std::fs::metadata(&probe)).and_then(|m| m.modified());
    // A probe that stays behind is one byte in a folder of ours.
    drop(std::fs::remove_file(&probe));
    match stamp {
        Err(error) => failed(
            WHAT,
            format!("cannot write into {}: {error}", runs.display()),
            "run this as root; see the server's exports",
        ),
        Ok(stamp) => {
            let apart = before.duration_since(stamp).unwrap_or_else(|error| error.duration()).as_secs();
            if apart > SKEW_SECONDS_MAX {
                warning(WHAT, format!("{apart} s apart from the storage server's"), "run an NTP client on both")
            } else {
                ok(WHAT, "together with the storage server's")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_lacks_a_module_or_a_processor() {
        let (intel, amd, neither) =
            ("model : x\nflags\t\t: fpu vmx sse\n", "flags : svm\n", "flags : fpu\nbugs : vmx\n");
        let cases = [
            (Accel::Tcg, neither, None),
            (Accel::Auto, intel, Some("kvm_intel")),
            (Accel::Auto, intel, None),
            (Accel::Kvm, amd, None),
            (Accel::Auto, neither, None),
            (Accel::Kvm, "", None),
        ];
        let said = cases.map(|(asked, cpuinfo, loaded)| {
            let line = kvm_modules(asked, cpuinfo, loaded);
            format!("{}: {}\n  {}", line.verdict.as_str(), line.found, line.mend.unwrap_or_default())
        });
        insta::assert_snapshot!(said.join("\n"));
    }
}
