//! `labwright session`: an exam or a class while it is on: who takes part, and each one's time.

use std::path::Path;

use jiff::Timestamp;

use super::{Ended, LabOption, Listed, shown};
use crate::client::Way;
use crate::control::session::{Answer, Doing, Wanted, Whose};
use crate::exit::Exit;
use crate::manifest::Duration;
use crate::model::accommodation::Accommodation;
use crate::model::id::{SessionName, UserGroupName, UserName};
use crate::report::table::render;
use crate::report::{Ui, session as words, times};

/// Exams and classes: who takes part, and whose time is moved
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the lab's sessions
    #[command(after_help = "Example: labwright session list")]
    List {
        #[command(flatten)]
        listed: Listed,
    },
    /// Show who takes part in a session, and how each one's time stands
    #[command(after_help = "Example: labwright session show final")]
    Show {
        /// The session.
        session: SessionName,
        #[command(flatten)]
        listed: Listed,
    },
    /// Give people more time, counted from each one's own end
    #[command(after_help = "Running guests are told within two seconds and go on; nobody is restarted.

Examples:
  labwright session extend final --user doraz 15m --why \"network cable\"
  labwright session extend final --all 5m --yes")]
    Extend {
        #[command(flatten)]
        act: Act,
        /// How much more, such as `15m`.
        #[arg(value_parser = Duration::read)]
        time: Duration,
    },
    /// Take time away again, counted from each one's own end
    #[command(after_help = "Example: labwright session subtract final --user doraz 15m")]
    Subtract {
        #[command(flatten)]
        act: Act,
        /// How much less, such as `15m`.
        #[arg(value_parser = Duration::read)]
        time: Duration,
    },
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
    EndNow {
        #[command(flatten)]
        act: Act,
    },
    /// Let people's clocks stand still, until `resume`
    #[command(after_help = "The time of the pause is added to each one's end.

Examples:
  labwright session pause final --group room2
  labwright session pause final --all --since 10:40 --why \"fire alarm\"")]
    Pause {
        #[command(flatten)]
        act: Act,
        /// It began earlier: a time of today, such as `10:40`, or a date and a time.
        #[arg(long, value_name = "TIME", value_parser = times::read)]
        since: Option<Timestamp>,
    },
    /// Let the clocks go on
    #[command(after_help = "Example: labwright session resume final --group room2")]
    Resume {
        #[command(flatten)]
        act: Act,
    },
    /// Give people what they need of a session's time, known before it
    #[command(after_help = "It counts from each one's own end, and no listing, plan or history says who has it.

Examples:
  labwright session accommodate final --user doraz --factor 1.25
  labwright session accommodate final --user doraz --start 2027-01-12T10:30 --minutes 15")]
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

impl Need {
    fn of(&self) -> Accommodation {
        Accommodation { factor_permille: self.factor, minutes: self.minutes, start: self.start }
    }
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
        move_times(&self.session, Wanted { whose: self.whose(), doing, why, is_agreed }, &self.lab.way(site)?, ui)
    }
}

fn move_times(session: &SessionName, mut wanted: Wanted, way: &Way, ui: &Ui) -> Ended {
    let done = match way.move_times(session, &wanted)? {
        Answer::Done(done) => done,
        Answer::Asks(question) => {
            ui.confirmed(&words::question(session, &wanted, &question), "changed")?;
            wanted.is_agreed = true;
            match way.move_times(session, &wanted)? {
                Answer::Done(done) => done,
                Answer::Asks(_) => return Ok(Exit::Refused),
            }
        }
    };
    shown(ui, &words::done(session, &wanted, &done))
}

pub(super) fn run(command: &Command, site: Option<&Path>, ui: &Ui) -> Ended {
    let seconds = |time: &Duration| i64::try_from(time.0).unwrap_or(i64::MAX);
    match command {
        Command::List { listed } => shown(ui, &render(&listed.lab.way(site)?.sessions()?, listed.output)),
        Command::Show { session, listed } => {
            shown(ui, &render(&listed.lab.way(site)?.sitters(session)?, listed.output))
        }
        Command::Extend { act, time } => act.run(Doing::Extend { seconds: seconds(time) }, site, ui),
        Command::Subtract { act, time } => act.run(Doing::Extend { seconds: -seconds(time) }, site, ui),
        Command::Set { act, time } => act.run(Doing::EndAt { at: *time }, site, ui),
        Command::EndNow { act } => act.run(Doing::EndNow, site, ui),
        Command::Pause { act, since } => act.run(Doing::Pause { since: *since }, site, ui),
        Command::Resume { act } => act.run(Doing::Resume, site, ui),
        Command::Accommodate { act, need } => act.run(Doing::Accommodate { of: need.of() }, site, ui),
        Command::Undo { session, yes, lab } => {
            let doing = Doing::Undo { claim: None };
            let wanted = Wanted { whose: None, doing, why: None, is_agreed: *yes };
            move_times(session, wanted, &lab.way(site)?, ui)
        }
    }
}
