//! The manifest language: every key, once. A key's type says how it is read, and its comment is what an editor shows.
//! Adding a key here adds it to the reader, the errors and the schema.

use ipnet::Ipv4Net;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::containers::Named;
use super::decode::{Decode, Decoder, Spanned};
use super::record::{choice, record};
use super::seeds::{KeySource, SeedDecl};
use super::stations::{EgressDecl, GatewayDecl, ServerDecl};
use super::times::Moment;
use super::tree::{Node, Value};
use super::values::{Duration, Excluded, IpRange, Percent, Size, Text};
use super::words::{Domain, FilePath, ImagePlace, InterfaceName, NamePattern, Sha256};
use crate::model::address::Address;
use crate::model::file_pattern::FilePattern;
use crate::model::id::{
    FamilyName, LabName, MacPrefix, SessionName, TemplateName, UserGroupName, UserName, VmGroupName, VmName,
};
use crate::model::lab::{AtEnd, DisplayModel, Firmware, Late, NicModel, PowerState, RestartPolicy, Right, SessionKind};

record! {
    /// A manifest of labwright. All `*.yaml` files below a folder form one lab; each may hold any of these keys.
    pub struct LabFile as "a manifest" {
        /// The lab's name, unique within the site. Written in one file of the folder.
        #[example("lan-exam")]
        pub lab: Option<Spanned<LabName>>,
        /// What templates and vms take when they say nothing else.
        pub defaults: Option<Spanned<Defaults>>,
        /// Settings of single users. Users need not stand here: members of groups and owners are users too.
        pub users: Named<UserName, UserDecl>,
        /// Sets of users. `admin` and `all_users` exist by themselves.
        pub user_groups: Named<UserGroupName, UserGroupDecl>,
        /// Address ranges and their networks. `all_vms` exists by itself and is the default.
        pub vm_groups: Named<VmGroupName, VmGroupDecl>,
        /// Vms whose disks others derive from.
        pub templates: Named<TemplateName, TemplateDecl>,
        /// Single vms, and families with one vm per member of a group.
        pub vms: Named<FamilyName, VmDecl>,
        /// Who may do what.
        pub permissions: Vec<Spanned<PermissionDecl>>,
        /// Exams and classes: windows of time in which vms are guarded.
        pub sessions: Named<SessionName, SessionDecl>,
        /// Renames that keep disks, address and history.
        pub moved: Vec<Spanned<MovedDecl>>,
    }
}

record! {
    /// What templates and vms take when they say nothing else.
    pub struct Defaults as "`defaults`" {
        /// Who owns a template or a vm.
        #[example("badmin")]
        pub owner: Option<Spanned<UserName>>,
        /// Where addresses come from.
        pub vm_group: Option<Spanned<VmGroupName>>,
        /// Main memory.
        #[example("2G")]
        pub memory: Option<Spanned<Size>>,
        /// Virtual processors.
        pub cpus: Option<Spanned<u32>>,
        /// What the guest boots with.
        pub firmware: Option<Spanned<Firmware>>,
        /// Model of the network card.
        pub nic: Option<Spanned<NicModel>>,
        /// Model of the graphics card.
        pub display: Option<Spanned<DisplayModel>>,
        /// Whether vms reach nothing but their gateway, DHCP and DNS.
        pub isolated: Option<Spanned<bool>>,
        /// What is kept up by apply.
        pub state: Option<Spanned<PowerState>>,
        /// What happens to a running vm whose guest powered itself off.
        pub restart: Option<Spanned<RestartPolicy>>,
    }
}

record! {
    /// What a user may use at once.
    pub struct LimitsDecl as "`limits`" {
        /// How many vms may run at the same time, started by the manifest or by command.
        #[example(2)]
        pub running_vms: Option<Spanned<u32>>,
        /// How much room copied and new disks may take; derived ones are not counted, so far.
        #[example("13G")]
        pub storage: Option<Spanned<Size>>,
    }
}

record! {
    /// One user.
    pub struct UserDecl as "a user" {
        /// Number of the account on the hosts.
        pub uid: Option<Spanned<u32>>,
        /// Folder for this user's disks instead of the site's.
        pub storage_folder: Option<Spanned<FilePath>>,
        /// What this user may use at once.
        pub limits: Option<Spanned<LimitsDecl>>,
        /// How much longer sessions are for this user.
        #[example("25%")]
        pub extra_time: Option<Spanned<Percent>>,
        /// Public keys with which this user logs in to guests that have a `seed`: each as `authorized_keys` has it, or a file of
        /// such lines.
        #[example(["keys/ana.pub"])]
        pub ssh_keys: Vec<Spanned<KeySource>>,
    }
}

record! {
    /// A set of users, from a list or a CSV file or both.
    pub struct UserGroupDecl as "a user group" {
        /// Users by name.
        pub members: Vec<Spanned<UserName>>,
        /// A CSV file with a header line: `user` (or `Username`, `Login` and the like), and if you need them `uid`,
        /// `extra_time` and `ssh_key`.
        #[example("students.csv")]
        pub roster: Option<Spanned<RosterDecl>>,
        /// What each member may use at once.
        pub limits: Option<Spanned<LimitsDecl>>,
    }
}

record! {
    /// A CSV file as a school system exports it.
    pub struct RosterFile as "a roster" {
        /// The CSV file.
        #[example("students.csv")]
        pub file: Spanned<FilePath>,
        /// Which column of the header line is what.
        pub columns: Option<Spanned<RosterColumns>>,
        /// What stands between the columns; found out from the header line if not written.
        pub separator: Option<Spanned<Separator>>,
        /// Encoding of the file; found out if not written.
        pub encoding: Option<Spanned<Encoding>>,
    }
}

record! {
    /// Names of a roster's columns.
    pub struct RosterColumns as "`columns`" {
        /// Column with the login name; `user`, `Username`, `Login` and the like if not written.
        #[example("Login")]
        pub user: Option<Spanned<Text>>,
        /// Column with the uid; `uid` if not written.
        pub uid: Option<Spanned<Text>>,
        /// Column with the extra time; `extra_time` if not written.
        pub extra_time: Option<Spanned<Text>>,
        /// Column with the person's name; `name`, `Full name` and the like if not written.
        #[example("Full name")]
        pub name: Option<Spanned<Text>>,
        /// Column with the person's number at the school; `student_id`, `Matrikelnummer` and the like if not written.
        #[example("Matrikelnummer")]
        pub student_id: Option<Spanned<Text>>,
        /// Column with what stands for the person on submissions; `candidate`, `Candidate number` and the like if not written.
        #[example("Candidate number")]
        pub candidate: Option<Spanned<Text>>,
        /// Column with the person's public key for ssh; `ssh_key` and the like if not written.
        #[example("SSH key")]
        pub ssh_key: Option<Spanned<Text>>,
    }
}

/// What stands between the columns of a CSV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    Comma,
    Semicolon,
    Tab,
}

choice!(Separator as "a separator" {
    "," => Comma "a comma",
    ";" => Semicolon "a semicolon, as German and French spreadsheets write",
    "tab" => Tab "a tab",
});

/// Encoding of a CSV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Latin1,
    Utf16,
}

choice!(Encoding as "an encoding" {
    "utf-8" => Utf8 "UTF-8, with or without byte order mark",
    "latin1" => Latin1 "Latin-1 or Windows-1252",
    "utf-16" => Utf16 "UTF-16, as Excel's Unicode text",
});

/// A roster: the name of a CSV file, or a group of keys about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RosterDecl {
    File(Spanned<FilePath>),
    Described(Box<RosterFile>),
}

impl Decode for RosterDecl {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Mapping(_) => RosterFile::decode(node, decoder).map(|file| Self::Described(Box::new(file))),
            _ => Spanned::decode(node, decoder).map(Self::File),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let file = FilePath::schema(generator);
        let described = RosterFile::schema(generator);
        json_schema!({ "anyOf": [file, described] })
    }
}

record! {
    /// An address range and its network.
    pub struct VmGroupDecl as "a vm group" {
        /// Addresses for vms: first and last, or a whole network. It must hold all vms of the group.
        #[example("192.168.100.2-192.168.100.254", "10.4.0.0/24")]
        pub ip_range: Spanned<IpRange>,
        /// Addresses inside the range that no vm gets.
        #[example(["192.168.100.50", "192.168.100.200-192.168.100.210"])]
        pub exclude: Vec<Spanned<Excluded>>,
        /// The network that the range is part of; the /24 around it if not written and that is enough.
        #[example("192.168.100.0/24")]
        pub subnet: Option<Spanned<Ipv4Net>>,
        /// The guests' way out: an address, or keys where its Ethernet address or its routers are written.
        #[example("192.168.100.1")]
        pub gateway: Option<GatewayDecl>,
        /// The guests' name servers: addresses, or keys where an Ethernet address is written.
        #[example(["141.85.224.15"])]
        pub dns: Vec<ServerDecl>,
        /// The guests' DNS domain.
        pub domain: Option<Spanned<Domain>>,
        /// Linux bridge that the guests join.
        #[example("vbr0")]
        pub bridge: Option<Spanned<InterfaceName>>,
        /// 802.1Q tag: the group then has a bridge of its own on a tagged port.
        #[example(120)]
        pub vlan: Option<Spanned<u32>>,
        /// First bytes of the guests' Ethernet addresses; the rest is the end of the IP address.
        #[example("de:af:de:af")]
        pub mac_prefix: Option<Spanned<MacPrefix>>,
    }
}

record! {
    /// A disk: from an image file, or new and empty.
    #[structure({
        "oneOf": [{ "required": ["image"] }, { "required": ["size"], "not": { "required": ["sha256"] } }],
        "if": { "properties": { "image": { "description": "An address of the web.", "pattern": "^https://" } }, "required": ["image"] },
        "then": { "required": ["sha256"] }
    })]
    pub struct DiskDecl as "a disk" {
        /// A qcow2 file or a raw disk, or `https://…`: then it is fetched once, checked against its `sha256`, and kept.
        #[example("images/gsr.qcow2")]
        pub image: Option<Spanned<ImagePlace>>,
        /// Checksum of the image, as `sha256sum` prints it.
        pub sha256: Option<Spanned<Sha256>>,
        /// Size of a new, empty disk.
        #[example("5G")]
        pub size: Option<Spanned<Size>>,
    }
}

record! {
    /// A vm whose disks others derive from.
    pub struct TemplateDecl as "a template" {
        /// What it is, for people.
        pub description: Option<Spanned<Text>>,
        /// Who may change it.
        #[example("badmin")]
        pub owner: Option<Spanned<UserName>>,
        /// Where its own address comes from, and that of vms made from it.
        pub vm_group: Option<Spanned<VmGroupName>>,
        /// Its disks, in the order of the bus.
        pub disks: Vec<Spanned<DiskDecl>>,
        /// Main memory.
        #[example("2G")]
        pub memory: Option<Spanned<Size>>,
        /// Virtual processors.
        pub cpus: Option<Spanned<u32>>,
        /// What the guest boots with.
        pub firmware: Option<Spanned<Firmware>>,
        /// Model of the network card.
        pub nic: Option<Spanned<NicModel>>,
        /// Model of the graphics card.
        pub display: Option<Spanned<DisplayModel>>,
        /// Image in the cd drive, to install from.
        pub cdrom: Option<Spanned<FilePath>>,
        /// What guests of vms made from it learn of themselves at a disk's first boot; `true` for all that goes without saying.
        #[example(true)]
        pub seed: Option<Spanned<SeedDecl>>,
        /// How long disks of vms made from it are kept for once they are set aside, in whole days; no purge deletes them before. As
        /// long as the site's `retention` says, unless it is written.
        #[example("400d")]
        pub keep: Option<Spanned<Duration>>,
    }
}

record! {
    /// One vm, or a family of vms with `for_each` or `count`.
    #[structure({ "oneOf": [{ "required": ["derive"] }, { "required": ["clone"] }, { "required": ["disks"] }] })]
    pub struct VmDecl as "a vm" {
        /// Template whose disks it stands on, copy-on-write.
        #[example("gsr")]
        pub derive: Option<Spanned<TemplateName>>,
        /// Template whose disks it copies in full.
        pub clone: Option<Spanned<TemplateName>>,
        /// Disks of its own.
        pub disks: Vec<Spanned<DiskDecl>>,
        /// One vm per member of this user group, owned by the member.
        #[example("students")]
        pub for_each: Option<Spanned<UserGroupName>>,
        /// This many vms; together with `for_each` this many per member.
        #[example(3)]
        pub count: Option<Spanned<u32>>,
        /// What the vms are called; `{user}`, `{group}` and `{n}` are filled in.
        #[example("{user}-gsr")]
        pub name: Option<Spanned<NamePattern>>,
        /// What it is, for people.
        pub description: Option<Spanned<Text>>,
        /// Who owns it; with `for_each` the member does.
        pub owner: Option<Spanned<UserName>>,
        /// Where its address comes from; the template's if not written.
        pub vm_group: Option<Spanned<VmGroupName>>,
        /// Main memory; the template's if not written.
        #[example("2G")]
        pub memory: Option<Spanned<Size>>,
        /// Virtual processors; the template's if not written.
        pub cpus: Option<Spanned<u32>>,
        /// What the guest boots with; the template's if not written.
        pub firmware: Option<Spanned<Firmware>>,
        /// Model of the network card; the template's if not written.
        pub nic: Option<Spanned<NicModel>>,
        /// Model of the graphics card; the template's if not written.
        pub display: Option<Spanned<DisplayModel>>,
        /// Image in the cd drive.
        pub cdrom: Option<Spanned<FilePath>>,
        /// Whether it reaches nothing but its gateway, DHCP and DNS.
        pub isolated: Option<Spanned<bool>>,
        /// What apply keeps up.
        pub state: Option<Spanned<PowerState>>,
        /// What happens to a running vm whose guest powered itself off.
        pub restart: Option<Spanned<RestartPolicy>>,
        /// What its guest learns of itself at its disk's first boot; the template's if not written, `false` for nothing.
        #[example(true)]
        pub seed: Option<Spanned<SeedDecl>>,
        /// Whether the members of `for_each` may give their own a new disk; the old one is kept.
        pub may_reimage: Option<Spanned<bool>>,
        /// Files that `vm collect` reads out of its disk: paths from the top of the file system, in which `*` stands for anything
        /// within one name. A folder means all that is below it.
        #[example(["home/*/answer*"])]
        pub collect: Vec<Spanned<FilePattern>>,
    }
}

record! {
    /// Somebody may do something.
    pub struct PermissionDecl as "a permission" {
        /// Who it is for.
        pub to: Spanned<SubjectDecl>,
        /// What it is about.
        pub on: Spanned<ObjectDecl>,
        /// What they may do with it, from their own account where `labwright serve` runs.
        #[example(["run", "derive"])]
        pub allow: Vec<Spanned<Right>>,
        /// Whether vms that this is about are isolated, whatever they say themselves.
        pub force_isolated: Option<Spanned<bool>>,
    }
}

record! {
    /// Who a permission is for: one user or one group.
    #[structure({ "minProperties": 1, "maxProperties": 1 })]
    pub struct SubjectDecl as "`to`" {
        /// One user.
        pub user: Option<Spanned<UserName>>,
        /// All members of a user group.
        pub group: Option<Spanned<UserGroupName>>,
    }
}

record! {
    /// What a permission is about: one vm, template or vm group.
    #[structure({ "minProperties": 1, "maxProperties": 1 })]
    pub struct ObjectDecl as "`on`" {
        /// One vm.
        pub vm: Option<Spanned<VmName>>,
        /// One template.
        pub template: Option<Spanned<TemplateName>>,
        /// All vms of a vm group.
        pub vm_group: Option<Spanned<VmGroupName>>,
    }
}

record! {
    /// An exam or a class: a window of time over vms. While it is open, no plan stops or changes them. A guest that runs is
    /// stopped at its owner's own end.
    #[structure({
        "oneOf": [{ "required": ["end"] }, { "required": ["duration"] }],
        "if": { "properties": { "late": { "description": "The whole time.", "const": "full_time" } }, "required": ["late"] },
        "then": { "required": ["latest_end"] }
    })]
    pub struct SessionDecl as "a session" {
        /// A `class`, unless it is written otherwise, or an `exam`, whose vms are its alone: they begin with new disks, and are
        /// closed to their owners before it and after it.
        pub kind: Option<Spanned<SessionKind>>,
        /// Vms and families that take part.
        #[example(["exam"])]
        pub vms: Vec<Spanned<FamilyName>>,
        /// When it begins.
        #[example("2027-01-12T09:00[Europe/Bucharest]")]
        pub start: Spanned<Moment>,
        /// When it ends.
        #[example("2027-01-12T12:00[Europe/Bucharest]")]
        pub end: Option<Spanned<Moment>>,
        /// How long it lasts, in place of `end`.
        #[example("3h")]
        pub duration: Option<Spanned<Duration>>,
        /// Whether whoever starts late works `until_end`, unless it is written otherwise, or has the `full_time` from then on,
        /// up to `latest_end`.
        pub late: Option<Spanned<Late>>,
        /// No end is moved beyond this by command, and no late one's time lasts longer.
        #[example("2027-01-12T13:00[Europe/Bucharest]")]
        pub latest_end: Option<Spanned<Moment>>,
        /// A CSV file outside the repository that its owner alone can read: who has more time, or an own start. Its columns are
        /// `user`, and `factor`, `minutes` or `start`.
        #[example("/srv/labwright-private/lan.csv")]
        pub accommodations: Option<Spanned<FilePath>>,
        /// How long before the start vms are booted, by the daemon or by `labwright reconcile --once`. An exam's are booted
        /// at its start, if this is not written; those of a class are not.
        #[example("20m")]
        pub boot_before: Option<Spanned<Duration>>,
        /// The old key for it, which guards the vms from then on and boots none.
        #[example("20m")]
        pub open_before: Option<Spanned<Duration>>,
        /// How much longer it is for single users.
        #[example({ "doraz": "25%" })]
        pub extra_time: Named<UserName, Spanned<Percent>>,
        /// What an isolated guest may reach besides DHCP and its gateway, from the start to its owner's own end.
        #[example(["141.85.224.15:53/udp", "10.0.0.5:443/tcp"])]
        pub egress: Vec<EgressDecl>,
        /// How long an exam's guest runs on after its owner's own end, with console and egress shut, so that it writes what was saved:
        /// at least a minute, two if not written.
        #[example("2m")]
        pub grace: Option<Spanned<Duration>>,
        /// How long it does so where no daemon was awake, which could have moved that end: half an hour if not written.
        #[example("30m")]
        pub offline_grace: Option<Spanned<Duration>>,
        /// How long before their ends an exam's guests are told of them, on their serial line: ten minutes and two if not written.
        #[example(["10m", "2m"])]
        pub warn_before: Vec<Spanned<Duration>>,
        /// What happens to guests at their owner's own end: `stop`, unless it is written otherwise, or `keep`.
        pub at_end: Option<Spanned<AtEnd>>,
        /// Files that are read out of the vms' disks once each is off after its owner's own end: paths as in `collect` of a vm,
        /// which holds where this is not written, for exams and with `at_end: collect`.
        #[example(["home/*/answer*"])]
        pub collect: Vec<Spanned<FilePattern>>,
        /// How long after its end `purge` leaves the vms' disks, also those that are set aside.
        #[example("400d")]
        pub keep: Option<Spanned<Duration>>,
    }
}

record! {
    /// A rename that keeps disks, address and history.
    pub struct MovedDecl as "a rename" {
        /// What it was called.
        #[example("vm/old-name")]
        pub from: Spanned<Address>,
        /// What it is called now.
        #[example("vm/new-name")]
        pub to: Spanned<Address>,
    }
}
