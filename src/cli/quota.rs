//! `labwright quota`: what people may use at once, and what they use.

use std::path::Path;

use super::remote::{self, Way};
use super::{Ended, LabOption};
use crate::client::OfLab;
use crate::control::quota::{Quota, quotas};
use crate::exit::Exit;
use crate::model::id::UserName;
use crate::report::table::{Format, render};
use crate::report::{Failure, Ui};

/// Show what users may have at once, what they have, and what one more vm would cost
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Disks that were made or copied in full count with their size, others with what is written on them; disks
that were set aside count against no limit.

Examples:
  labwright quota               # your own; root sees everybody's
  labwright quota doraz"
)]
pub(super) struct Arguments {
    /// The user.
    user: Option<UserName>,

    #[command(flatten)]
    lab: LabOption,

    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let user = arguments.user.as_ref();
    let shown = match Way::to(site, &arguments.lab)? {
        Way::Daemon(lab) => own(&lab, user)?,
        Way::Here(lab) => {
            let (context, desired) = *lab;
            quotas(&context.view(&desired)?, user)?
        }
    };
    ui.data(&render(&shown, arguments.output));
    Ok(Exit::Done)
}

fn own(lab: &OfLab, user: Option<&UserName>) -> Result<Vec<Quota>, Failure> {
    match user {
        Some(user) if !remote::is_own(user) => {
            let what = format!("what {user} may use is for {user} and for root to ask; nothing was done");
            Err(Failure::new(Exit::Refused, what))
        }
        _ => Ok(lab.quota()?),
    }
}
