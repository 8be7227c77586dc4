//! This machine as an execution host: made ready, looked at, swept and taken down, and tried out with real guests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Ended, of_known_lab, open, program};
use crate::control;
use crate::control::exam::{self, Onlooker, Which};
use crate::control::host_labs::HostLabs;
use crate::exit::Exit;
use crate::host::RUN_ROOT;
use crate::host::machine::check::Verdict;
use crate::host::machine::setup::{self, Wanted};
use crate::host::process;
use crate::host::run::sweep as host_sweep;
use crate::report::page::{self, page};
use crate::report::table::Format;
use crate::report::{Failure, Ui};

/// Makes what the groups of these labs need.
pub fn set_up(folders: &[PathBuf], site: Option<&Path>, ui: &Ui) -> Ended {
    refuse_without_root()?;
    let labs = read(folders, site)?;
    for place in labs.settle()? {
        ui.say(&format!("  disks and runs are kept in {}: guests cannot enter the lab's folder", place.display()));
    }
    let groups = labs.all_groups();
    let done = setup::setup(&Wanted::new(&groups, &labs.site))?;
    tell(ui, &done, "nothing to do: all of it stands already");
    Ok(Exit::Done)
}

/// Takes it away again, but for what other labs use.
pub fn take_down(folders: &[PathBuf], site: Option<&Path>, ui: &Ui) -> Ended {
    refuse_without_root()?;
    let labs = read(folders, site)?;
    labs.refuse_while_needed(jiff::Timestamp::now())?;
    let groups = labs.groups();
    let done = setup::teardown_beside(&Wanted::new(&groups, &labs.site), &labs.others)
        .map_err(|errors| Failure::of_all(Exit::Failed, "cannot take down this host", &errors))?;
    tell(ui, &done, "nothing to do: none of it is there");
    Ok(Exit::Done)
}

/// Removes what dead runs left.
pub fn sweep(ui: &Ui) -> Ended {
    refuse_without_root()?;
    let swept = host_sweep::sweep(Path::new(RUN_ROOT));
    tell(ui, &swept.removed, "nothing to do: no dead run left anything");
    let failure = || Failure::of_all(Exit::Failed, "cannot sweep this host", &swept.errors);
    if swept.errors.is_empty() { Ok(Exit::Done) } else { Err(failure()) }
}

/// The page that says whether guests can run here.
pub fn check(folders: &[PathBuf], output: Format, site: Option<&Path>, ui: &Ui) -> Ended {
    let labs = read(folders, site)?;
    let lines = control::check::lines(&labs.groups(), &labs.site, &program()?);
    ui.data(&page(&lines, output));
    let is_red = lines.iter().any(|line| line.verdict == Verdict::Failed);
    Ok(if is_red { Exit::NotReady } else { Exit::Done })
}

/// How guests are tried out.
pub struct Trial {
    /// On these execution hosts, in jobs; on this machine without.
    pub which: Option<Which>,
    /// How long each may take.
    pub timeout: Duration,
    pub output: Format,
}

/// The same page, then a trial with real guests, who are told of as they come.
pub fn try_exam<L: Onlooker>(
    lab: &Path,
    trial: &Trial,
    onlooker: &dyn Fn() -> Result<L, Failure>,
    site: Option<&Path>,
    ui: &Ui,
) -> Ended {
    refuse_without_root()?;
    let Trial { which, timeout, output } = trial;
    let context = open(site, lab)?;
    let desired = context.desired()?;
    // A site that was made before `state init` made its folders may have none yet.
    context.make_storage()?;
    let onlooker = onlooker()?;
    let (is_green, page) = match which {
        Some(which) => {
            let (hosts, lines) = exam::lines_of_hosts(&context, &desired, which, *timeout, &onlooker)?;
            page::of_hosts(&hosts, lines, &desired.lab, *output)
        }
        None => {
            let lines = exam::lines_of_this_host(&context, &desired, *timeout, &onlooker)?;
            page::of_host(&lines, &desired.lab, *output)
        }
    };
    ui.data(&page);
    Ok(if is_green { Exit::Done } else { Exit::NotReady })
}

fn read(folders: &[PathBuf], site: Option<&Path>) -> Result<HostLabs, Failure> {
    let labs = folders.iter().map(|folder| of_known_lab(site, folder)).collect::<Result<_, _>>()?;
    Ok(HostLabs::read(labs)?)
}

fn tell(ui: &Ui, done: &[String], nothing: &str) {
    for line in done {
        ui.say(&format!("  {line}"));
    }
    if done.is_empty() {
        ui.say(&format!("  {nothing}"));
    }
}

fn refuse_without_root() -> Result<(), Failure> {
    if process::is_root() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "bridges, filters and DHCP servers take root; nothing was changed")
        .hint("run it again with `sudo`"))
}
