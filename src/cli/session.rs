//! `labwright session`: an exam or a class while it is on: who takes part, and each one's time.

use std::path::Path;

use jiff::Timestamp;

use super::{Ended, LabOption, Listed, shown};
use crate::control::ControlError;
use crate::control::session::{Doing, Wanted, Whose, verify};
use crate::manifest::Duration;
use crate::model::accommodation::Accommodation;
use crate::model::id::{SessionName, UserGroupName, UserName};
use crate::report::table::render;
use crate::report::{Ui, record, times};

/// Exams and classes: who takes part, and whose time is moved
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the lab's sessions
    List(Listed),
    /// Show who takes part in a session, and how each one's time stands
    #[command(after_help = "Example: labwright session show final doraz    # what became of one of them")]
    Show {
        #[command(flatten)]
        of: Looked,
        /// Only this one, and all that happened to their time and their machine.
        user: Option<UserName>,
    },
    /// Show how the machines of a session stand; exit code 5 as long as not all are ready that should be
    #[command(after_help = "Example: labwright session status final --watch")]
    Status {
        #[command(flatten)]
        of: Looked,
        /// Look again every 2 seconds, until Ctrl-C.
        #[arg(long, short)]
        watch: bool,
    },
    /// Check whether a session will find what it needs; exit code 5 if not
    Check(Looked),
    /// Show who submitted what, after their own ends, and who nothing
    #[command(after_help = "Example: labwright session submissions final -o csv > marks.csv")]
    Submissions {
        #[command(flatten)]
        of: Looked,
    },
    /// Show what happened in an exam
    #[command(after_help = "In JSON people and vms are ids alone, and each row has its hash.

Example: labwright session record final -o json > final.json")]
    Record {
        #[command(flatten)]
        of: Looked,
    },
    /// Check that nobody rewrote the record of an exam
    #[command(after_help = "The hash is that of the last row on the day when somebody wrote it down.

Examples:
  labwright session verify final
  labwright session verify final --head 2f1c...")]
    Verify {
        /// The session.
        session: SessionName,
        /// A row of the record must have this hash.
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        #[command(flatten)]
        lab: LabOption,
    },
    /// Give people more time, counted from each one's own end
    #[command(after_help = "Running guests are told within two seconds and go on; nobody is restarted.

Example: labwright session extend final --user doraz 15m --why \"network cable\"")]
    Extend(Amount),
    /// Take time away again, counted from each one's own end
    #[command(after_help = "Example: labwright session subtract final --user doraz 15m")]
    Subtract(Amount),
    /// Let people's time end at a moment
    #[command(after_help = "Example: labwright session set final --group late 12:45")]
    Set {
        #[command(flatten)]
        act: Act,
        /// A time of today, such as `12:45`, or a date and a time.
        #[arg(value_parser = times::read)]
        time: Timestamp,
    },
    /// End people's time now
    #[command(after_help = "Example: labwright session end-now final --user doraz --why \"handed in\"")]
    EndNow(Act),
    /// Let people's clocks stand still, until `resume`
    #[command(after_help = "The time of the pause is added to each one's end.

Example: labwright session pause final --all --since 10:40 --why \"fire alarm\"")]
    Pause {
        #[command(flatten)]
        act: Act,
        /// It began earlier: a time of today, such as `10:40`, or a date and a time.
        #[arg(long, value_name = "TIME", value_parser = times::read)]
        since: Option<Timestamp>,
    },
    /// Let the clocks go on
    #[command(after_help = "Example: labwright session resume final --group room2")]
    Resume(Act),
    /// Give people what they need of a session's time, known before it
    #[command(after_help = "It counts from each one's own end, and no listing, plan or history says who has it.

Example: labwright session accommodate final --user doraz --factor 1.25 --start 2027-01-12T10:30")]
    Accommodate {
        #[command(flatten)]
        act: Act,
        #[command(flatten)]
        need: Need,
    },
    /// Take back the last act on a session's times
    #[command(after_help = "Example: labwright session undo final")]
    Undo {
        /// The session.
        session: SessionName,
        /// Do not ask, however many it touches.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        lab: LabOption,
    },
}

/// What is looked at.
#[derive(Debug, clap::Args)]
pub(super) struct Looked {
    /// The session.
    session: SessionName,
    #[command(flatten)]
    listed: Listed,
}

/// How much time, and whose.
#[derive(Debug, clap::Args)]
pub(super) struct Amount {
    #[command(flatten)]
    act: Act,
    /// How much, such as `15m`.
    #[arg(value_parser = Duration::read)]
    time: Duration,
}

/// What somebody needs.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Need {
    /// How long their time is, as a factor: `1.25` is a quarter more.
    #[arg(long, value_parser = Accommodation::read_factor)]
    factor: Option<u32>,
    /// How many minutes more they have.
    #[arg(long, value_parser = Accommodation::read_minutes)]
    minutes: Option<u32>,
    /// When they start: a time of today, such as `10:30`, or a date and a time.
    #[arg(long, value_name = "TIME", value_parser = times::read)]
    start: Option<Timestamp>,
}

/// Of which session, and whose time.
#[derive(Debug, clap::Args)]
pub(super) struct Act {
    /// The session.
    session: SessionName,
    /// Only these, with commas between.
    #[arg(long, value_name = "USER", value_delimiter = ',', conflicts_with_all = ["group", "all"])]
    user: Vec<UserName>,
    /// Only the members of a user group.
    #[arg(long, value_name = "GROUP", conflicts_with = "all")]
    group: Option<UserGroupName>,
    /// Everybody who takes part.
    #[arg(long)]
    all: bool,
    /// Why, for the record.
    #[arg(long, value_name = "WORDS")]
    why: Option<String>,
    /// Do not ask, however many it touches.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    lab: LabOption,
}

impl Act {
    fn whose(&self) -> Option<Whose> {
        match &self.group {
            _ if self.all => Some(Whose::All),
            Some(group) => Some(Whose::Group(group.clone())),
            None => (!self.user.is_empty()).then(|| Whose::Users(self.user.clone())),
        }
    }

    fn run(&self, doing: Doing, site: Option<&Path>, ui: &Ui) -> Ended {
        let (why, is_agreed) = (self.why.clone(), self.yes);
        self.lab.way(site)?.told_times(&self.session, Wanted { whose: self.whose(), doing, why, is_agreed }, ui)
    }
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &Ui) -> Ended {
    let seconds = |amount: &Amount| i64::try_from(amount.time.0).unwrap_or(i64::MAX);
    match command {
        Command::List(listed) => shown(ui, &render(&listed.lab.way(site)?.sessions()?, listed.output)),
        Command::Show { of: Looked { session, listed }, user: None } => {
            shown(ui, &render(&listed.lab.way(site)?.sitters(session)?, listed.output))
        }
        Command::Submissions { of: Looked { session, listed } } => {
            shown(ui, &render(&listed.lab.way(site)?.submissions(session)?, listed.output))
        }
        Command::Record { of: Looked { session, listed } } => {
            shown(ui, &record::text(listed.lab.way(site)?.session_record(session)?, listed.output))
        }
        Command::Verify { session, head, lab } => {
            let recorded = lab.way(site)?.session_record(session)?;
            let verified = verify(&recorded, head.as_deref()).map_err(ControlError::from)?;
            shown(ui, &record::verified(session, &verified))
        }
        Command::Show { of: Looked { session, listed }, user: Some(user) } => {
            shown(ui, &render(&listed.lab.way(site)?.story(session, user)?, listed.output))
        }
        Command::Status { of: Looked { session, listed }, watch } => {
            listed.lab.way(site)?.watch_session(session, listed.output, *watch, ui)
        }
        Command::Check(Looked { session, listed }) => listed.lab.way(site)?.check_session(session, listed.output, ui),
        Command::Extend(amount) => amount.act.run(Doing::Extend { seconds: seconds(amount) }, site, ui),
        Command::Subtract(amount) => amount.act.run(Doing::Extend { seconds: -seconds(amount) }, site, ui),
        Command::Set { act, time } => act.run(Doing::EndAt { at: *time }, site, ui),
        Command::EndNow(act) => act.run(Doing::EndNow, site, ui),
        Command::Pause { act, since } => act.run(Doing::Pause { since: *since }, site, ui),
        Command::Resume(act) => act.run(Doing::Resume, site, ui),
        Command::Accommodate { act, need: Need { factor, minutes, start } } => {
            let of = Accommodation { factor_permille: *factor, minutes: *minutes, start: *start };
            act.run(Doing::Accommodate { of }, site, ui)
        }
        Command::Undo { session, yes, lab } => {
            let doing = Doing::Undo { claim: None };
            let wanted = Wanted { whose: None, doing, why: None, is_agreed: *yes };
            lab.way(site)?.told_times(session, wanted, ui)
        }
    }
}
