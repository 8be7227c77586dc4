//! Manifest in, `Desired` out, or all diagnostics at once. Pure: no file, clock, process, environment or database.
//!
//! ```text
//! people ─▶ networks ─▶ machines ─▶ permissions ─▶ isolation ─▶ sessions ─▶ limits ─▶ moved
//! ```
//!
//! Each step binds the names it needs from the steps before it, and goes on past what it cannot bind.

mod accounts;
mod alike;
mod claims;
mod disks;
mod labs;
mod limits;
mod machines;
mod moved;
mod networks;
mod people;
mod permissions;
mod seeds;
mod sessions;
mod shares;
mod site;
mod unbuilt;
mod wire;

pub use accounts::check_accounts;
pub use claims::{why_idle, with_claims};
pub use labs::{SoundLab, across};
pub use site::resolve_site;
pub use unbuilt::not_yet_acted_upon;

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{At, Manifest, Spanned, nearest};
use crate::model::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::model::id::{FamilyName, LabName, VmGroupName, VmName};
use crate::model::lab::{Desired, Limits, Origin, VmGroup};
use crate::model::rules::Rule;
use crate::model::site::SiteContext;

/// What `resolve` found.
#[derive(Debug)]
#[must_use = "the findings are for the user: report them"]
pub struct Resolved {
    /// None where there are errors.
    pub desired: Option<Desired>,
    pub diagnostics: Diagnostics,
}

/// Binds every name of a manifest and writes every vm out.
pub fn resolve(manifest: &Manifest, site: &SiteContext) -> Resolved {
    let mut resolver = Resolver::new(manifest, site);
    let r = &mut resolver;
    let mut people = r.people();
    let mut vm_groups = r.networks();
    let templates = r.templates(&mut people, &vm_groups);
    let machines = r.machines(&mut people, &vm_groups, &templates);
    let mut desired = Desired {
        lab: manifest.lab.as_ref().map_or_else(unnamed, |lab| lab.value.clone()),
        users: BTreeMap::new(),
        user_groups: BTreeMap::new(),
        vm_groups: BTreeMap::new(),
        templates,
        vms: machines.vms,
        permissions: Vec::new(),
        sessions: BTreeMap::new(),
        moved: Vec::new(),
        power: BTreeMap::new(),
        written_permissions: BTreeMap::new(),
        particulars: None,
        accommodations: BTreeMap::new(),
    };
    r.range_sizes(&desired.vms, &vm_groups);
    let families = machines.families;
    let forced = r.permissions(&mut people, &vm_groups, &families, &mut desired);
    r.users_alike(&people);
    people.finish(&mut desired);
    r.isolate(&forced, &mut desired);
    r.sessions(&families, &vm_groups, &mut desired);
    r.running_limits(&desired);
    r.storage_limits(&desired);
    let used = |name: &VmGroupName| {
        desired.vms.values().any(|vm| vm.vm_group == *name) || desired.templates.values().any(|t| t.vm_group == *name)
    };
    let all_vms = vm_group_all_vms();
    if !used(&all_vms) {
        vm_groups.remove(&all_vms);
    }
    desired.vm_groups = vm_groups;
    r.share(&desired);
    r.moved(&mut desired);
    let diagnostics = resolver.diagnostics;
    let whole = manifest.lab.is_some() && !diagnostics.has_errors();
    Resolved { desired: whole.then_some(desired), diagnostics }
}

/// The one vm group of a manifest, judged alone: for the site's own group.
fn resolve_vm_group(manifest: &Manifest) -> (Option<VmGroup>, Diagnostics) {
    let site = SiteContext {
        all_vms: VmGroup::all_vms(),
        default_limits: Limits::USER,
        admins: BTreeSet::new(),
        labs: BTreeMap::new(),
    };
    let mut resolver = Resolver::new(manifest, &site);
    let group = manifest.vm_groups.iter().next().and_then(|(_, decl)| resolver.vm_group(decl));
    (group, resolver.diagnostics)
}

fn unnamed() -> LabName {
    LabName::new("unnamed").expect("it is a valid name")
}

fn vm_group_all_vms() -> VmGroupName {
    VmGroupName::new(VmGroupName::ALL_VMS).expect("the predefined name is valid")
}

/// The vms that each key under `vms:` stands for.
type Families = BTreeMap<FamilyName, BTreeSet<VmName>>;

struct Resolver<'a> {
    manifest: &'a Manifest,
    site: &'a SiteContext,
    diagnostics: Diagnostics,
    /// How many more times a mistyped name is compared with all known ones, which costs time.
    suggestions: usize,
    /// Some vms are missing because what they come from is broken: an unknown name may be one of them.
    vms_missing: bool,
}

impl<'a> Resolver<'a> {
    fn new(manifest: &'a Manifest, site: &'a SiteContext) -> Self {
        const SUGGESTIONS_MAX: usize = 50;
        Self { manifest, site, diagnostics: Diagnostics::default(), suggestions: SUGGESTIONS_MAX, vms_missing: false }
    }
}

impl Resolver<'_> {
    fn span(&self, at: At) -> Span {
        self.manifest.span(at)
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Notes a finding at a place.
    fn note(&mut self, rule: Rule, at: At, message: impl Into<String>, hint: impl Into<String>) {
        let diagnostic = Diagnostic::new(rule, message).at(self.span(at)).hint(hint);
        self.push(diagnostic);
    }

    /// Notes a finding that has to do with a second place.
    fn note_both(&mut self, rule: Rule, at: (At, &str), other: (At, &str), hint: impl Into<String>) {
        let diagnostic =
            Diagnostic::new(rule, at.1).at(self.span(at.0)).related(self.span(other.0), other.1).hint(hint);
        self.push(diagnostic);
    }

    /// Notes that a name means nothing, with the nearest known one.
    fn unknown<'n>(&mut self, rule: Rule, what: &str, name: (&str, At), known: impl Iterator<Item = &'n str> + Clone) {
        let hint = match self.suggest(name.0, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => match some_of(known) {
                Some(names) => format!("the lab has {names}"),
                None => format!("the lab defines no {what} yet"),
            },
        };
        self.note(rule, name.1, format!("there is no {what} called `{}`", name.0), hint);
    }

    /// The first things of a list, and a finding where there are more: what is compared pair by pair is bounded.
    fn at_most<'l, T>(&mut self, list: &'l [T], max: usize, what: &str, place: impl Fn(&T) -> At) -> &'l [T] {
        let Some(surplus) = list.get(max) else { return list };
        self.note(Rule::TooBig, place(surplus), format!("a lab has at most {max} {what}"), "make several labs of it");
        &list[..max]
    }

    fn suggest<'n>(&mut self, name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
        self.suggestions = self.suggestions.checked_sub(1)?;
        nearest(name, known)
    }

    /// Whether nothing is written for a key, and not something that could not be read, which was said already.
    fn is_written_empty(&self, key: At) -> bool {
        let text = &self.manifest.files[key.file as usize].source.text;
        let value = text.get(key.end as usize..).unwrap_or_default().trim_start_matches(['"', '\'', ':', ' ']);
        if let Some(items) = value.strip_prefix('[') {
            return items.trim_start().starts_with(']');
        }
        let written = value.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let first = written.clone().next().unwrap_or_default();
        let next = written.skip(1).find(|line| !line.is_empty()).unwrap_or_default();
        matches!(first, "~" | "null") || (first.is_empty() && !next.starts_with(['-', '[']))
    }

    fn origin(&self, at: At) -> Origin {
        let file = &self.manifest.files[at.file as usize];
        Origin { file: file.relative.clone(), line: file.source.line_column(at.start as usize).0 }
    }
}

/// A few known names, for a hint; `None` where there are none.
fn some_of<'n>(known: impl Iterator<Item = &'n str>) -> Option<String> {
    const SHOWN: usize = 6;
    let mut names: Vec<&str> = known.take(SHOWN + 1).collect();
    let more = names.len() > SHOWN;
    names.truncate(SHOWN);
    let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let tail = if more { ", …" } else { "" };
    (!list.is_empty()).then(|| format!("{}{tail}", list.join(", ")))
}

/// A written value, or else the next.
fn pick<T: Copy>(choices: &[Option<&Spanned<T>>]) -> Option<T> {
    choices.iter().flatten().next().map(|spanned| spanned.value)
}
