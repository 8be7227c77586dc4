//! What is looked at again and again, until Ctrl-C.

use std::path::Path;
use std::time::Duration;

use super::{Ended, of_known_lab};
use crate::control::{Context, pick};
use crate::exit::Exit;
use crate::model::lab::Desired;
use crate::report::table::Format;
use crate::report::{Failure, Ui, command, status as words};

/// How long a look stands.
const PERIOD: Duration = Duration::from_secs(2);

/// Looks on, and shows each look: a terminal is drawn anew, a program gets the next line.
pub(super) fn on(look: impl Fn() -> Result<String, Failure>, show: impl Fn(&str), ui: &Ui) -> ! {
    loop {
        std::thread::sleep(PERIOD);
        match look() {
            Ok(text) => show(&text),
            // What does not answer now may answer the next time.
            Err(failure) => ui.say_rendered(&failure.render()),
        }
    }
}

/// How the lab stands, of these vms or of all; `is_watched`: and how it goes on, in JSON a line for each look.
pub fn status(site: Option<&Path>, folder: &Path, vms: &[String], format: Format, is_watched: bool, ui: &Ui) -> Ended {
    let (context, desired) = of_known_lab(site, folder)?;
    let look = || look(&context, &desired, vms, format, is_watched);
    ui.data(&look()?);
    match (is_watched, format) {
        (false, _) => Ok(Exit::Done),
        (true, Format::Json) => on(look, |line| ui.data(line), ui),
        (true, _) => on(look, |text| ui.redraw(text), ui),
    }
}

fn look(
    context: &Context,
    desired: &Desired,
    vms: &[String],
    format: Format,
    is_watched: bool,
) -> Result<String, Failure> {
    let view = context.view(desired)?;
    let picked = (!vms.is_empty()).then(|| pick::recorded_vms(&desired.lab, vms, &view.recorded)).transpose()?;
    let (status, apply) = (view.status(picked.as_ref())?, command(context, "apply"));
    let text = if is_watched { words::text_of_look } else { words::text };
    Ok(text(&status, format, &apply))
}
