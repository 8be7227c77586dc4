//! The lab as the teacher wrote it last, and what may come to a teacher's mind.

use std::collections::BTreeSet;

use crate::dice::Dice;

const STUDENTS: [&str; 7] = ["ada", "bea", "cid", "dan", "eve", "fay", "gil"];

/// Ranges that the vm group has had; the last one has no room for all.
const RANGES: [&str; 4] = ["10.1.0.2-10.1.0.40", "10.1.0.20-10.1.0.60", "10.1.0.2-10.1.0.60", "10.1.0.2-10.1.0.7"];

#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    members: BTreeSet<&'static str>,
    memory_mib: u64,
    isolated: bool,
    pub(crate) state: &'static str,
    restart: &'static str,
    /// `derive` or `clone`.
    how: &'static str,
    template: &'static str,
    suffix: &'static str,
    /// The suffix before the last rename.
    moved_from: Option<&'static str>,
    /// The name of the first template now, and before the last rename.
    first_template: &'static str,
    first_template_before: Option<&'static str>,
    range: usize,
    /// Vms with disks of their own, and what is wanted of them.
    servers: u64,
    server_state: &'static str,
    /// Begin and end, in minutes after 08:00.
    session: Option<(u64, u64)>,
    permission: bool,
    limit: u64,
}

impl Manifest {
    pub(crate) fn first() -> Self {
        Self {
            members: STUDENTS[..4].iter().copied().collect(),
            memory_mib: 512,
            isolated: true,
            state: "running",
            restart: "on_failure",
            how: "derive",
            template: "one",
            suffix: "vm",
            moved_from: None,
            first_template: "one",
            first_template_before: None,
            range: 0,
            servers: 1,
            server_state: "running",
            session: None,
            permission: false,
            limit: 4,
        }
    }

    pub(crate) fn text(&self) -> String {
        let Self { memory_mib, isolated, state, restart, how, suffix, servers, server_state, limit, .. } = self;
        let first = self.first_template;
        let template = if self.template == "one" { first } else { self.template };
        let members: Vec<&str> = self.members.iter().copied().collect();
        let range = RANGES[self.range];
        let mut text = format!(
            "lab: term\nusers: {{ boss: {{ limits: {{ running_vms: 9 }} }} }}\n\
             user_groups: {{ class: {{ members: [{}], limits: {{ running_vms: {limit} }} }} }}\n\
             vm_groups: {{ net: {{ ip_range: {range}, gateway: 10.1.0.1, bridge: vbr0 }} }}\n\
             templates:\n  {first}: {{ owner: boss, vm_group: net, disks: [{{ image: images/one.qcow2 }}], memory: {memory_mib}M }}\n  \
             two: {{ owner: boss, vm_group: net, disks: [{{ image: images/two.qcow2 }}, {{ image: images/data.qcow2 }}], memory: {memory_mib}M }}\n\
             vms:\n  family: {{ {how}: {template}, for_each: class, name: \"{{user}}-{suffix}\", state: {state}, \
             restart: {restart}, isolated: {isolated} }}\n",
            members.join(", "),
        );
        for server in 0..*servers {
            let disks = if server == 0 { "{ size: 1G }" } else { "{ image: images/own.qcow2 }, { size: 2G }" };
            let server = format!(
                "  server{server}: {{ owner: boss, vm_group: net, disks: [{disks}], memory: 256M, state: {server_state} }}\n"
            );
            text.push_str(&server);
        }
        if self.permission {
            let permission =
                format!("  - {{ to: {{ group: class }}, on: {{ template: {first} }}, allow: [derive] }}\n");
            text.extend(["permissions:\n", &permission]);
        }
        if let Some((begin, end)) = self.session {
            let time = |minutes: u64| format!("2027-01-12T{:02}:{:02}[UTC]", 8 + minutes / 60, minutes % 60);
            let (start, end) = (time(begin), time(end));
            let session = format!("  exam: {{ vms: [family], start: \"{start}\", end: \"{end}\" }}\n");
            text.extend(["sessions:\n", &session]);
        }
        text + &self.moved()
    }

    fn moved(&self) -> String {
        let mut moved = String::new();
        if let Some(old) = self.first_template_before {
            let new = self.first_template;
            moved.extend([format!("  - {{ from: template/{old}, to: template/{new} }}\n")]);
        }
        if let Some(old) = self.moved_from {
            let new = self.suffix;
            moved.extend(
                self.members.iter().map(|user| format!("  - {{ from: vm/{user}-{old}, to: vm/{user}-{new} }}\n")),
            );
        }
        if moved.is_empty() { moved } else { format!("moved:\n{moved}") }
    }

    /// One change of mind.
    pub(crate) fn edit(&mut self, dice: &mut Dice) {
        self.moved_from = None;
        self.first_template_before = None;
        match dice.below(19) {
            0..=3 => {
                let student = dice.pick(&STUDENTS).unwrap();
                if !self.members.remove(student) || self.members.is_empty() {
                    self.members.insert(student);
                }
            }
            4 => self.memory_mib = 512 + 512 * dice.below(3),
            5 => self.isolated = !self.isolated,
            6 | 7 => self.state = dice.pick(&["running", "running", "stopped", "on_demand"]).unwrap(),
            8 => self.restart = dice.pick(&["on_failure", "always"]).unwrap(),
            9 => self.template = dice.pick(&["one", "two"]).unwrap(),
            10 => self.how = dice.pick(&["derive", "derive", "clone"]).unwrap(),
            11 => self.range = dice.below(RANGES.len() as u64) as usize,
            12 => self.servers = dice.below(3),
            13 => self.server_state = dice.pick(&["running", "stopped", "on_demand"]).unwrap(),
            14 => {
                let begin = dice.below(300);
                let open = (begin, begin + 10 + dice.below(200));
                self.session = if dice.one_in(2) { Some(open) } else { None };
            }
            15 => self.permission = !self.permission,
            // One vm fewer than the family needs is an error that the teacher reads.
            16 => self.limit = dice.below(5),
            17 => {
                self.moved_from = Some(self.suffix);
                self.suffix = if self.suffix == "vm" { "box" } else { "vm" };
            }
            _ => {
                self.first_template_before = Some(self.first_template);
                self.first_template = if self.first_template == "one" { "uno" } else { "one" };
            }
        }
    }
}
