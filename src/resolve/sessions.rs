//! Sessions: windows over vms. Two that want the same vms at the same time contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::networks::VmGroups;
use super::{Families, Resolver};
use crate::manifest::{Accommodations, At, SessionDecl, Spanned};
use crate::model::accommodation::AccommodationFile;
use crate::model::id::{FamilyName, SessionName, UserName, VmName};
use crate::model::lab::{AddedTime, AtEnd, Desired, Late, PowerState, Session, SessionKind};
use crate::model::rules::Rule;
use crate::model::session::{grace_seconds, offline_grace_seconds, warn_before_seconds};

/// Most sessions of a lab: a class that meets daily for a year has fewer.
const SESSIONS_MAX: usize = 500;
/// As little time as a guest may have to write what was saved.
const GRACE_SECONDS_MIN: u64 = 60;
/// Most vms of all sessions together.
const TAKING_PART_MAX: usize = 1_000_000;

impl Resolver<'_> {
    pub(super) fn sessions(&mut self, families: &Families, groups: &VmGroups, desired: &mut Desired) {
        let manifest = self.manifest;
        let sessions = self.at_most(&manifest.sessions.0, SESSIONS_MAX, "sessions", |entry| entry.key.at);
        let mut taking_part = 0;
        for (name, decl) in sessions.iter().filter_map(|entry| Some((&entry.key, entry.value.as_ref()?))) {
            let Some(end) = self.end(name, decl) else { continue };
            let vms = self.session_vms(name, decl, families, desired);
            taking_part += vms.len();
            if taking_part > TAKING_PART_MAX {
                let message =
                    format!("the lab's sessions are about more than {TAKING_PART_MAX} vms, each counted each time");
                self.note(Rule::TooBig, name.at, message, "make several labs of it");
                break;
            }
            let owners: BTreeSet<UserName> = vms.iter().map(|vm| desired.vms[vm].owner.clone()).collect();
            let mut extra: BTreeMap<UserName, u32> = BTreeMap::new();
            for owner in &owners {
                let percent = desired.users.get(owner).map_or(0, |user| user.extra_time_percent);
                if percent > 0 {
                    extra.insert(owner.clone(), percent);
                }
            }
            for (user, percent) in decl.extra_time.iter() {
                if owners.contains(&user.value) {
                    extra.insert(user.value.clone(), percent.value.0);
                } else if !vms.is_empty() && !self.vms_missing {
                    self.useless_extra_time(user, &owners);
                }
            }
            self.useless_egress(decl, &vms, desired);
            let egress = self.egress(decl, &vms, desired, groups);
            let session = Session {
                vms,
                start: decl.start.value.0,
                end,
                late: decl.late.as_ref().map_or(Late::UntilEnd, |late| late.value),
                latest_end: decl.latest_end.as_ref().map(|latest| latest.value.0),
                kind: kind_of(decl),
                boot_before_seconds: self.boot_before(decl),
                only_guards: only_guards(decl),
                extra_time_percent: extra,
                egress: egress.into_iter().collect(),
                at_end: decl.at_end.as_ref().map_or(AtEnd::Stop, |at_end| at_end.value),
                collect: decl.collect.iter().map(|pattern| pattern.value.clone()).collect(),
                grace_seconds: self.grace(decl),
                offline_grace_seconds: decl
                    .offline_grace
                    .as_ref()
                    .map_or_else(offline_grace_seconds, |grace| grace.value.0),
                warn_before_seconds: warn_before(decl),
                keep_seconds: decl.keep.as_ref().map(|keep| keep.0),
                added: AddedTime::default(),
            };
            let file = self.accommodations(name, &session, &owners);
            desired.accommodations.insert(name.value.clone(), file);
            self.of_exams_alone(decl);
            self.exam_names(name, decl, &session, families);
            self.collects_nothing(decl, &session, desired);
            self.overlaps(name, &session, desired);
            desired.sessions.insert(name.value.clone(), session);
        }
    }

    /// When it is over for whoever needs no more time than others; `None` after a finding.
    fn end(&mut self, name: &Spanned<SessionName>, decl: &SessionDecl) -> Option<Timestamp> {
        let start = decl.start.value.0;
        let (end, at) = match (&decl.end, &decl.duration) {
            (Some(end), Some(duration)) => {
                let message = "a session has an `end` or a `duration`, not both";
                self.note_both(
                    Rule::ConflictingKeys,
                    (duration.at, message),
                    (end.at, "its end"),
                    "remove one of the two",
                );
                return None;
            }
            (Some(end), None) => (end.value.0, end.at),
            (None, Some(duration)) => {
                let length = SignedDuration::from_secs(i64::try_from(duration.0).unwrap_or(i64::MAX));
                (start.checked_add(length).unwrap_or(start), duration.at)
            }
            (None, None) => {
                // What was written could not be read, which was said already.
                if decl.key("end").or(decl.key("duration")).is_none() {
                    let message = "a session needs a key `end` or `duration`";
                    self.note(Rule::MissingKey, name.at, message, "add a line `end: …`, or `duration: 3h`");
                }
                return None;
            }
        };
        if end <= start {
            let message = format!("the session `{}` ends before it starts", name.value);
            let hint = "check both times and their zones";
            self.note_both(Rule::SessionOrder, (at, &message), (decl.start.at, "the start"), hint);
            return None;
        }
        self.latest_end(decl, end, at).then_some(end)
    }

    /// Whether its latest end is as its other times let it be.
    fn latest_end(&mut self, decl: &SessionDecl, end: Timestamp, at: At) -> bool {
        match (&decl.latest_end, &decl.late) {
            (Some(latest), _) if latest.value.0 < end => {
                let message = "the latest end of the session comes before its end";
                let hint = "write a time that is as late as whoever starts last may work";
                self.note_both(Rule::SessionOrder, (latest.at, message), (at, "the end"), hint);
                false
            }
            (None, Some(late)) if late.value == Late::FullTime && decl.key("latest_end").is_none() => {
                let message = "with `late: full_time` nobody knows when the last one is ready";
                let hint = "add `latest_end:`, after which nobody works, however late they started";
                self.note(Rule::MissingKey, late.at, message, hint);
                false
            }
            _ => true,
        }
    }

    /// A guest that is powered off at once has not written what was saved last.
    fn grace(&mut self, decl: &SessionDecl) -> u64 {
        let Some(grace) = &decl.grace else { return grace_seconds() };
        if grace.value.0 < GRACE_SECONDS_MIN {
            let message = "a guest needs longer than this to write what was saved last";
            self.note(Rule::BadValue, grace.at, message, format!("write `{GRACE_SECONDS_MIN}s` or more"));
        }
        grace.value.0
    }

    /// Guests of a class are stopped at their ends, or not.
    fn of_exams_alone(&mut self, decl: &SessionDecl) {
        if kind_of(decl) == SessionKind::Exam {
            return;
        }
        for key in ["grace", "offline_grace", "warn_before"] {
            if let Some(at) = decl.key(key) {
                let message = format!("`{key}` is about what an exam's guests do at their ends, and this is a class");
                self.note(Rule::BadValue, at, message, "write `kind: exam`, or take it out");
            }
        }
    }

    /// What people need by its file; of a session that names none, nobody needs anything.
    fn accommodations(
        &mut self,
        name: &Spanned<SessionName>,
        session: &Session,
        owners: &BTreeSet<UserName>,
    ) -> AccommodationFile {
        let lines = match self.manifest.accommodations.get(&name.value) {
            Some(Accommodations::Unread { why }) => return AccommodationFile::Unread { why: why.clone() },
            Some(Accommodations::Lines(lines)) => lines.as_slice(),
            None => &[],
        };
        for (user, of) in lines {
            if !owners.contains(&user.value) && !session.vms.is_empty() && !self.vms_missing {
                let message = format!("somebody here has no vm in session `{}`, so this can never matter", name.value);
                self.note(Rule::UselessExtraTime, user.at, message, "is the name mistyped, or missing in the roster?");
            }
            if of.start.is_some_and(|start| start < session.start) {
                let message = format!("an own start lies before that of session `{}`", name.value);
                let hint = "nobody starts before their session does: let that one start earlier";
                self.note(Rule::Accommodations, user.at, message, hint);
            }
        }
        AccommodationFile::Read(lines.iter().map(|(user, of)| (user.value.clone(), *of)).collect())
    }

    /// The key has another name by now.
    fn boot_before(&mut self, decl: &SessionDecl) -> u64 {
        let Some(old) = &decl.open_before else { return decl.boot_before.as_ref().map_or(0, |before| before.0) };
        match &decl.boot_before {
            Some(new) => {
                let message = "`open_before` is the old name of `boot_before`, and both are written";
                self.note_both(Rule::BadValue, (old.at, message), (new.at, "the other one"), "remove `open_before`");
            }
            None if !only_guards(decl) => {
                let message = "`open_before` is called `boot_before` by now";
                self.note(Rule::OldKey, old.at, message, "write `boot_before`");
            }
            None => {
                let message = "`open_before` guards the vms from then on, and boots none";
                self.note(Rule::OldKey, old.at, message, "write `boot_before`, which boots them at that time, too");
            }
        }
        old.0
    }

    /// A name without the exam's would be the same one in the next exam, with the disks of this one.
    fn exam_names(&mut self, name: &Spanned<SessionName>, decl: &SessionDecl, session: &Session, families: &Families) {
        if !session.is_exam() {
            return;
        }
        let without = |vm: &&VmName| !vm.as_str().contains(name.as_str());
        for written in &decl.vms {
            let own = families.get(&written.value).map(|vms| vms.iter().collect::<Vec<_>>());
            let own = own.unwrap_or_else(|| session.vms.get(written.as_str()).into_iter().collect());
            let Some(vm) = own.into_iter().find(without) else { continue };
            let message = format!("`{vm}` is in the exam `{}`, whose name is not in its name", name.value);
            let hint = format!("leave `name` out, or write one such as `\"{{user}}-{}\"`", name.value);
            self.note(Rule::ExamName, written.at, message, hint);
        }
    }

    fn session_vms(
        &mut self,
        name: &Spanned<SessionName>,
        decl: &SessionDecl,
        families: &Families,
        desired: &Desired,
    ) -> BTreeSet<VmName> {
        if decl.vms.is_empty() && decl.key("vms").is_none() {
            let hint = match families.keys().next() {
                Some(family) => format!("add `vms: [{family}]`"),
                None => "add `vms:` with families or vms".to_owned(),
            };
            let message = format!("the session `{}` is about no vm", name.value);
            self.note(Rule::EmptySession, name.at, message, hint);
        }
        let mut vms = BTreeSet::new();
        for written in &decl.vms {
            if let Some(family) = families.get(&written.value) {
                vms.extend(family.iter().cloned());
            } else if let Some((vm, _)) = desired.vms.get_key_value(written.as_str()) {
                vms.insert(vm.clone());
            } else {
                if self.vms_missing {
                    continue;
                }
                let known: Vec<&str> =
                    families.keys().map(FamilyName::as_str).chain(desired.vms.keys().map(VmName::as_str)).collect();
                self.unknown(Rule::UnknownVm, "vm or family", (written.as_str(), written.at), known.iter().copied());
                continue;
            }
            self.stopped_in_session(written, families, desired);
        }
        vms
    }

    fn stopped_in_session(&mut self, written: &Spanned<FamilyName>, families: &Families, desired: &Desired) {
        let first = families.get(&written.value).and_then(|vms| vms.first().cloned());
        let Some(vm) = first.as_ref().and_then(|vm| desired.vms.get(vm)) else { return };
        if vm.state == PowerState::Stopped {
            let message = format!("`{}` is kept stopped by `state: stopped`, also during this session", written.value);
            self.note(
                Rule::StoppedInSession,
                written.at,
                message,
                "write `state: on_demand`, so that it can be started for the session",
            );
        }
    }

    fn useless_extra_time(&mut self, user: &Spanned<UserName>, owners: &BTreeSet<UserName>) {
        let hint = match self.suggest(user.as_str(), owners.iter().map(|owner| owner.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add the user to the group of the session's vms, or remove the line".to_owned(),
        };
        let message = format!("`{}` owns no vm of this session, so the extra time can never matter", user.value);
        self.note(Rule::UselessExtraTime, user.at, message, hint);
    }

    fn useless_egress(&mut self, decl: &SessionDecl, vms: &BTreeSet<VmName>, desired: &Desired) {
        let Some(first) = decl.egress.first() else { return };
        if !vms.is_empty() && !vms.iter().any(|vm| desired.vms[vm].isolated) {
            let message = "no vm of this session is isolated, so all of them may reach everything anyway";
            self.note(
                Rule::UselessEgress,
                first.to().at,
                message,
                "write `isolated: true` for the vms, or remove `egress`",
            );
        }
    }

    /// `at_end: collect` alone does not say which files.
    fn collects_nothing(&mut self, decl: &SessionDecl, session: &Session, desired: &Desired) {
        let Some(at_end) = decl.at_end.as_ref().filter(|at_end| at_end.value == AtEnd::Collect) else { return };
        let without = session.vms.iter().find(|vm| session.collected(&desired.vms[*vm]).is_empty());
        if let Some(vm) = without {
            let message = format!("nothing says which files of `{vm}` are collected");
            self.note(Rule::CollectsNothing, at_end.at, message, "add `collect: [\"home/*/answer*\"]` to the session");
        }
    }

    /// The window in which a session holds its vms: from booting to the last one's extra time.
    fn overlaps(&mut self, name: &Spanned<SessionName>, session: &Session, desired: &Desired) {
        let (opens, closes) = session.window();
        for (other_name, other) in &desired.sessions {
            let Some(vm) = session.vms.intersection(&other.vms).next() else { continue };
            let at = self.manifest.sessions.iter().find(|(key, _)| key.value == *other_name).map(|(key, _)| key.at);
            if session.is_exam() || other.is_exam() {
                let exam = if session.is_exam() { name.as_str() } else { other_name.as_str() };
                let message = format!("`{vm}` is in `{}` and in `{other_name}`, and `{exam}` is an exam", name.value);
                let hint = "give the exam a family of its own under `vms:`, without a `name`";
                let there = (at.unwrap_or(name.at), "the other session");
                self.note_both(Rule::ExamShares, (name.at, &message), there, hint);
                continue;
            }
            let (other_opens, other_closes) = other.window();
            if closes <= other_opens || other_closes <= opens {
                continue;
            }
            let message = format!("`{}` and `{other_name}` overlap, and both are about `{vm}`", name.value);
            let hint = "move one of them; booting ahead (`boot_before`) and extra time count too";
            self.note_both(
                Rule::SessionsOverlap,
                (name.at, &message),
                (at.unwrap_or(name.at), "the other session"),
                hint,
            );
        }
    }
}

fn kind_of(decl: &SessionDecl) -> SessionKind {
    decl.kind.as_ref().map_or(SessionKind::Class, |kind| kind.value)
}

impl Resolver<'_> {
    /// What the vms of a family are called after that is in an exam and says nothing of names: the exam; and itself, too, where
    /// the exam has several.
    pub(super) fn named_after_exam(&self, family: &FamilyName) -> Option<String> {
        let decls = self.manifest.sessions.iter();
        let (name, decl) = decls.into_iter().find(|(_, decl)| {
            kind_of(decl) == SessionKind::Exam && decl.vms.iter().any(|written| written.value == *family)
        })?;
        Some(if decl.vms.len() > 1 { format!("{}-{family}", name.value) } else { name.to_string() })
    }
}

/// Longest first, each once.
fn warn_before(decl: &SessionDecl) -> Vec<u64> {
    if decl.key("warn_before").is_none() {
        return warn_before_seconds();
    }
    let seconds: BTreeSet<u64> = decl.warn_before.iter().map(|before| before.value.0).collect();
    seconds.into_iter().rev().collect()
}

/// By the old key, vms of a class boot when somebody starts them; those of an exam boot in any case.
fn only_guards(decl: &SessionDecl) -> bool {
    decl.open_before.is_some() && decl.boot_before.is_none() && kind_of(decl) == SessionKind::Class
}
