//! `labwright host check --exam`: the usual page, then a trial with real guests, here or in jobs on the site's hosts, and what
//! both come to.

use std::path::Path;
use std::time::Duration;

use super::Ended;
use crate::client::open;
use crate::control::exam::{self, Which};
use crate::exit::Exit;
use crate::jobs::Looker;
use crate::report::Ui;
use crate::report::page::{self, page};
use crate::report::table::Format;

/// What a person wants to know of a lab on the day before its exam.
pub(super) struct Wanted<'a> {
    pub(super) lab: &'a Path,
    /// Which of the site's hosts; this one where none is named.
    pub(super) which: Option<Which>,
    pub(super) timeout: Duration,
    pub(super) output: Format,
}

pub(super) fn run(wanted: &Wanted<'_>, site: Option<&Path>, ui: &Ui) -> Ended {
    let Wanted { lab, which, timeout, output } = wanted;
    let context = open(site, lab)?;
    let desired = context.desired()?;
    // A site that was made before `state init` made its folders may have none yet.
    context.make_storage()?;
    let onlooker = Looker::new(ui)?;
    let (page, (is_green, word)) = match which {
        Some(which) => {
            let (hosts, mut lines) = exam::lines_of_hosts(&context, &desired, which, *timeout, &onlooker)?;
            let verdict = page::of_hosts(&hosts, &lines, &desired.lab);
            lines.retain(|line| *output != Format::Table || line.is_news());
            (page(&lines, *output), verdict)
        }
        None => {
            let lines = exam::lines_of_this_host(&context, &desired, *timeout, &onlooker)?;
            (page(&lines, *output), page::of_host(&lines, &desired.lab))
        }
    };
    ui.data(&page);
    if *output == Format::Table {
        ui.data(&format!("{word}\n"));
    }
    Ok(if is_green { Exit::Done } else { Exit::NotReady })
}
