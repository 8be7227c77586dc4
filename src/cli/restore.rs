//! `labwright restore`: disks that were set aside come back, and those of now go aside in their place. Journalled like an
//! apply: after a kill at any moment each disk is recorded where it is or where it was going, and the same command goes on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::aside::{among, disks_word, none_aside, refuse_frozen};
use super::context::of_known_lab;
use super::{Ended, LabOption, vm};
use crate::control::Context;
use crate::disks::{self, DiskError};
use crate::exit::Exit;
use crate::model::address::Address;
use crate::model::id::{LabName, VmName};
use crate::model::lab::Desired;
use crate::observe::Observed;
use crate::plan::life;
use crate::report::{Failure, Ui};
use crate::state::{
    ApplyId, AsideDisk, AsideSet, Change, Intent, JournalId, Outcome, Recorded, RecordedDisk, RecordedVm, StateError,
    Store,
};

/// Put disks back that were set aside
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The disks that a vm has now are set aside in their place, so both stay within reach. The vm must
be off. Where it is not recorded, its disks wait for it, and the apply that makes it takes them.

Examples:
  labwright get aside
  labwright restore bob-gsr --set 17 && labwright apply
  labwright restore exam --set 2027-01-12     # every vm of the family that has such disks"
)]
pub(super) struct Arguments {
    /// Vms or families that have disks set aside; `*` stands for anything.
    #[arg(value_name = vm::NAMES, required = true)]
    vms: Vec<String>,
    /// Which set, by its name in `get aside` or by the beginning of its date in UTC; needed where there are several.
    #[arg(long, value_name = "SET")]
    set: Option<String>,
    /// Set disks aside again that were put back and whose vm is not recorded.
    #[arg(long, conflicts_with = "set")]
    undo: bool,
    /// Do not ask, where several vms are meant.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    lab: LabOption,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, &arguments.lab.lab)?;
    let mut store = context.known_store()?;
    let _lock = context.lock(format!("restore {}", arguments.vms.join(" ")))?;
    let recorded = store.recorded(&desired.lab)?;
    refuse_frozen(&recorded)?;
    let names = if arguments.undo {
        among(recorded.waiting.keys(), &arguments.vms, &desired, &recorded)?
    } else {
        among(recorded.aside.keys(), &arguments.vms, &desired, &recorded)?
    };
    let observed = context.observe(&desired, &recorded)?;
    let restore = Restore { context: &context, desired: &desired, observed: &observed, arguments };
    // None moves unless all can.
    each(&names, "cannot be restored; nothing was changed", |name| restore.swap(&recorded, name).map(drop))?;
    ask(&names, arguments, ui)?;
    each(&names, "were not restored", |name| {
        let recorded = store.recorded(&desired.lab)?;
        let address = Address::vm(name);
        let mut journal = Journal { store: &mut store, desired: &desired, address: &address };
        restore.swap(&recorded, name)?.carry_out(&mut journal, &context, recorded.serial, ui)
    })?;
    ui.say("next: `labwright apply` takes it from here");
    Ok(Exit::Done)
}

/// One vm that is named is meant; of several a person may not have thought of all.
fn ask(names: &BTreeSet<VmName>, arguments: &Arguments, ui: &Ui) -> Result<(), Failure> {
    if arguments.yes || names.len() == 1 {
        return Ok(());
    }
    let all = names.iter().map(VmName::as_str).collect::<Vec<_>>().join(", ");
    ui.say(&format!("{} vms: {all}", names.len()));
    let question = if arguments.undo { "Set their disks aside again?" } else { "Put their disks back?" };
    match ui.confirm(question) {
        Some(true) => Ok(()),
        _ => Err(Failure::new(Exit::Refused, "not confirmed; nothing was changed")
            .hint("add `--yes` where no person looks on")),
    }
}

/// What is the same for all vms that are named.
struct Restore<'a> {
    context: &'a Context,
    desired: &'a Desired,
    observed: &'a Observed,
    arguments: &'a Arguments,
}

impl Restore<'_> {
    /// What is to be done for one vm, if it can be done.
    fn swap<'n>(&self, recorded: &Recorded, name: &'n VmName) -> Result<Swap<'n>, Failure> {
        let Self { context, desired, observed, arguments } = *self;
        let vm = recorded.vms.get(name);
        let set = if arguments.undo { None } else { Some(chosen(recorded, name, arguments.set.as_deref())?) };
        if let (Some(set), Some(vm)) = (set, vm) {
            refuse_stranger(set, vm)?;
        }
        refuse_running(context, recorded, observed, name)?;
        let swap = Swap::new(context, &desired.lab, recorded, name, set)?;
        if swap.back.is_empty() && swap.away.is_empty() {
            return Err(Failure::new(Exit::Failed, format!("no disk waits for vm `{name}`; nothing was changed")));
        }
        Ok(swap)
    }
}

/// The set that is meant: one that is on its way already, the one that was named, or the only one.
fn chosen<'a>(recorded: &'a Recorded, name: &VmName, wanted: Option<&str>) -> Result<&'a AsideSet, Failure> {
    let sets = recorded.aside.get(name).map(Vec::as_slice).unwrap_or_default();
    let is_meant = |set: &&AsideSet| wanted.is_none_or(|wanted| set.name == wanted || set.since.starts_with(wanted));
    let meant: Vec<&AsideSet> = sets.iter().filter(is_meant).collect();
    if let Some(returning) = sets.iter().find(|set| set.is_returning()) {
        if is_meant(&returning) {
            return Ok(returning);
        }
        return Err(Failure::new(
            Exit::Refused,
            format!("{} is on its way back and must be put back first", returning.words()),
        )
        .hint(format!("`labwright restore vm/{name}` goes on with it")));
    }
    match &meant[..] {
        [set] => Ok(set),
        [] if sets.is_empty() => Err(none_aside(name.as_str())),
        [] => {
            let wanted = wanted.unwrap_or_default();
            let text = format!("no set of vm `{name}` is called `{wanted}` or of that date; nothing was changed");
            Err(Failure::new(Exit::Refused, text).hint(format!("it has {}", words(sets.iter()))))
        }
        several => {
            let text = format!("{} sets of disks of vm `{name}` are set aside; nothing was changed", several.len());
            let last = &several[several.len() - 1].name;
            Err(Failure::new(Exit::Refused, text)
                .hint(format!("say which, such as `--set {last}`: {}", words(several.iter().copied()))))
        }
    }
}

/// Sets, as a list in words.
fn words<'a>(sets: impl Iterator<Item = &'a AsideSet>) -> String {
    sets.map(AsideSet::words).collect::<Vec<_>>().join(", ")
}

fn refuse_stranger(set: &AsideSet, vm: &RecordedVm) -> Result<(), Failure> {
    if set.may_belong_to(vm.vm.owner.as_str()) {
        return Ok(());
    }
    let was = set.owner.as_deref().unwrap_or_default();
    let text = format!("{} was {was}'s, and the vm is {}'s; nothing was changed", set.words(), vm.vm.owner);
    Err(Failure::new(Exit::Refused, text).hint(format!("give the vm back to {was} in the manifest first")))
}

/// Disks change hands under no guest, known or not.
fn refuse_running(context: &Context, recorded: &Recorded, observed: &Observed, name: &VmName) -> Result<(), Failure> {
    let refused = |text: String, hint: String| Err(Failure::new(Exit::Refused, text).hint(hint));
    if recorded.vms.get(name).is_some_and(|vm| !life(vm, observed, &context.site).is_off()) {
        return refused(
            format!("vm `{name}` is not off; nothing was changed"),
            format!("`labwright vm stop {name} --yes` first"),
        );
    }
    match observed.unknown_tasks.iter().find_map(|task| observed.tasks.get(task)) {
        Some(task) => refused(
            format!("job {} is of a run that no record knows, and may use these disks; nothing was changed", task.id),
            "`labwright plan` says what to do about it".into(),
        ),
        None => Ok(()),
    }
}

/// What goes away and what comes back.
struct Swap<'a> {
    name: &'a VmName,
    away: Vec<(PathBuf, PathBuf)>,
    lost: Vec<PathBuf>,
    back: Vec<(PathBuf, PathBuf)>,
    /// The vm with the version that the disks of then are of.
    vm: Option<Change>,
}

impl<'a> Swap<'a> {
    fn new(
        context: &Context,
        lab: &LabName,
        recorded: &Recorded,
        name: &'a VmName,
        set: Option<&AsideSet>,
    ) -> Result<Self, Failure> {
        let known = recorded.vms.get(name);
        if known.is_some() && set.is_none() {
            let text = format!("vm `{name}` is recorded, and its disks are in use; nothing was changed");
            return Err(Failure::new(Exit::Refused, text).hint("`--undo` is for disks that wait for a vm"));
        }
        let waiting = recorded.waiting.get(name).map(|waiting| &waiting.disks);
        let present: &[RecordedDisk] = known.map(|vm| &vm.disks).or(waiting).map_or(&[], Vec::as_slice);
        let folder = context.site.storage.aside.join(lab.as_str()).join(name.as_str());
        let moves = present.iter().map(|disk| away(disk, &folder, recorded.serial));
        // A disk of now that is nowhere holds nothing that could be lost.
        let (away, lost): (Vec<_>, Vec<_>) = moves.partition(|(from, to)| from.exists() || to.exists());
        let gone = |disk: &&AsideDisk| !disk.path.exists() && !disk.to.as_ref().is_some_and(|to| to.exists());
        let disks: &[AsideDisk] = set.map_or(&[], |set| &set.disks);
        if let Some(disk) = disks.iter().find(gone) {
            return Err(Failure::new(
                Exit::Failed,
                format!("{} is not there; nothing was changed", disk.path.display()),
            )
            .hint("is the storage mounted?"));
        }
        let vm = known.map(|known| Change::PutVm {
            name: name.clone(),
            vm: Box::new(known.vm.clone()),
            ip: known.ip,
            mac: known.mac,
            version: recorded.version_below(&disks.iter().map(as_recorded).collect::<Vec<_>>()),
        });
        let back = disks.iter().map(|disk| (disk.path.clone(), back(disk, recorded, name))).collect();
        Ok(Self { name, away, lost: lost.into_iter().map(|(from, _)| from).collect(), back, vm })
    }

    fn carry_out(self, journal: &mut Journal<'_>, context: &Context, serial: u64, ui: &Ui) -> Result<(), Failure> {
        let owner = context.owner()?;
        let Self { name, away, lost, back, vm } = self;
        let word = if back.is_empty() { "set aside again" } else { "put back" };
        let apply =
            journal.begin(context, serial, &format!("vm/{name}: {} {word}", disks_word(back.len().max(away.len()))))?;
        let mut meant: Vec<Change> =
            away.iter().map(|(path, to)| Change::Asiding { path: path.clone(), to: to.clone() }).collect();
        meant.extend(back.iter().map(|(path, to)| Change::Returning { path: path.clone(), to: to.clone() }));
        let lines = journal.intend(apply, &meant)?;
        let done = |(path, aside): &(PathBuf, PathBuf)| Change::Aside { path: path.clone(), aside: aside.clone() };
        let gone = lost.into_iter().map(|path| Change::DropDisk { path });
        journal.after(apply, lines[0], disks::restore(&away, owner), away.iter().map(done).chain(gone).collect())?;
        let done = |(path, to): &(PathBuf, PathBuf)| Change::Returned { path: path.clone(), to: to.clone() };
        let returned = back.iter().map(done).chain(vm).collect();
        journal.after(apply, lines[1], disks::restore(&back, owner), returned)?;
        journal.end(apply)?;
        for (_, aside) in &away {
            ui.say(&format!("{} has what the vm had until now", aside.display()));
        }
        for (_, place) in &back {
            ui.say(&format!("{} is back in its place", place.display()));
        }
        Ok(())
    }
}

/// Where a disk of now goes; a move that was cut short goes on to where it was going.
fn away(disk: &RecordedDisk, lab: &Path, serial: u64) -> (PathBuf, PathBuf) {
    let file = disk.path.file_name().unwrap_or_default();
    let to = disk.moving_to.clone().unwrap_or_else(|| lab.join(serial.to_string()).join(file));
    (disk.path.clone(), to)
}

/// Where a disk of then goes: where it was, unless another vm has that place by now.
fn back(disk: &AsideDisk, recorded: &Recorded, name: &VmName) -> PathBuf {
    if let Some(to) = &disk.to {
        return to.clone();
    }
    let others = recorded.vms.iter().filter(|(other, _)| *other != name).flat_map(|(_, vm)| &vm.disks);
    let waiting = recorded.waiting.iter().filter(|(other, _)| *other != name).flat_map(|(_, waiting)| &waiting.disks);
    let taken: Vec<&Path> = others.chain(waiting).map(|disk| disk.path.as_path()).collect();
    let (folder, file) = (disk.was.parent().unwrap_or(Path::new("/")), disk.was.file_name().unwrap_or_default());
    let numbered = (2..).map(|number: u32| {
        let mut numbered = folder.as_os_str().to_owned();
        numbered.push(format!(".{number}"));
        PathBuf::from(numbered).join(file)
    });
    let mut places = std::iter::once(disk.was.clone()).chain(numbered);
    places.find(|place| !taken.contains(&place.as_path())).expect("one of endlessly many is free")
}

fn as_recorded(disk: &AsideDisk) -> RecordedDisk {
    let AsideDisk { slot, path, base, .. } = disk.clone();
    RecordedDisk { slot, path, base, made: true, moving_to: None, image: None }
}

/// The restore in the history, beside the applies.
struct Journal<'a> {
    store: &'a mut Store,
    desired: &'a Desired,
    address: &'a Address,
}

impl Journal<'_> {
    fn begin(&mut self, context: &Context, serial: u64, summary: &str) -> Result<ApplyId, StateError> {
        self.store.begin(&self.desired.lab, serial, &context.apply_info(summary), jiff::Timestamp::now())
    }

    /// Writes down both moves before the first.
    fn intend(&mut self, apply: ApplyId, changes: &[Change]) -> Result<[JournalId; 2], StateError> {
        let intents = ["set the disks aside", "put the disks back"];
        let intents = intents.map(|effect| Intent { address: self.address.clone(), effect });
        let lines = self.store.intend(&self.desired.lab, apply, &intents, changes, jiff::Timestamp::now())?;
        Ok(lines.try_into().expect("a line for each intent"))
    }

    /// Records what a move came to, before the next one begins.
    fn after(
        &mut self,
        apply: ApplyId,
        line: JournalId,
        moved: Result<(), DiskError>,
        changes: Vec<Change>,
    ) -> Result<(), Failure> {
        let (outcome, changes) = match &moved {
            Ok(()) => (Outcome::Done, changes),
            Err(error) => (Outcome::Failed { detail: error.to_string() }, Vec::new()),
        };
        self.store.settle(&self.desired.lab, apply, &[(line, outcome)], &changes, jiff::Timestamp::now())?;
        moved.map_err(|error| {
            Failure::from_error(Exit::Failed, &error)
                .hint(format!("no disk is lost: `labwright restore {}` goes on where this ended", self.address))
        })
    }

    fn end(&mut self, apply: ApplyId) -> Result<(), StateError> {
        self.store.end(apply, "2 done, 0 failed, 0 skipped", jiff::Timestamp::now())
    }
}

/// Does the same for several vms, one after the other; one for which it fails keeps nobody else from it.
fn each(
    vms: &BTreeSet<VmName>,
    failing: &str,
    mut act: impl FnMut(&VmName) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut failures: Vec<(&VmName, Failure)> =
        vms.iter().filter_map(|vm| act(vm).err().map(|failure| (vm, failure))).collect();
    match failures.len() {
        0 => Ok(()),
        1 if vms.len() == 1 => Err(failures.remove(0).1),
        number => {
            let mut failure = Failure::new(failures[0].1.exit, format!("{number} of {} vms {failing}", vms.len()));
            failure.causes = failures.iter().map(|(vm, failure)| format!("{vm}: {}", in_one_line(failure))).collect();
            Err(failure)
        }
    }
}

fn in_one_line(failure: &Failure) -> String {
    let mut words = failure.message.clone();
    failure.causes.iter().for_each(|cause| words.extend([": ", cause]));
    failure.hint.iter().for_each(|hint| words.extend(["; ", hint]));
    words
}
