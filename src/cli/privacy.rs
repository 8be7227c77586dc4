//! `labwright privacy`: what the site has about one person, and their being forgotten.

use std::path::{Path, PathBuf};

use super::{Ended, LabOption};
use crate::client::upkeep;
use crate::control::privacy;
use crate::exit::Exit;
use crate::model::id::UserName;
use crate::report::Ui;

/// Show one person what the site has about them, or forget them
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write all that the site has about a person into a file that only you can read
    #[command(
        after_help = "Their vms, disks, runs, sessions, permissions, what they asked for by command, and what they did or had done
to them; nobody else is in it. The disks themselves are not.

Example: labwright privacy export doraz -o doraz.json"
    )]
    Export {
        user: UserName,
        /// The file, which must not be there yet; `USER-labwright.json` unless named.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Forget a person who has left all labs
    #[command(
        after_help = "Refused while a lab has them, a vm of theirs runs, a session of theirs is not over, or their disks are kept.
What was done stays in the history and the audit, by somebody without a name.

Example: labwright privacy erase doraz"
    )]
    Erase {
        user: UserName,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        lab: LabOption,
    },
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &Ui) -> Ended {
    match command {
        Command::Export { user, output, lab } => {
            let file = output.clone().unwrap_or_else(|| format!("{user}-labwright.json").into());
            privacy::export(&upkeep::context(site, &lab.lab)?, user, &file)?;
            ui.say(&format!("what the site has about {user} is in {}", file.display()));
        }
        Command::Erase { user, yes, lab } => upkeep::erase(&upkeep::context(site, &lab.lab)?, user, *yes, ui)?,
    }
    Ok(Exit::Done)
}
