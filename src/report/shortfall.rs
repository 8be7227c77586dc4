//! Where an apply falls short of what was asked for, though nothing failed: not begun, held back, not done, not ready.

use std::collections::BTreeSet;

use super::{Failure, command};
use crate::apply::{Goal, Readiness, WaitEnd};
use crate::control::{Context, ControlError};
use crate::exit::Exit;
use crate::plan::{Answer, Plan};

/// Most changes that are named where one line is about many.
const NAMES_MAX: usize = 5;

/// What an apply that went well has left as it was: refused, or asked for by name and not done.
pub fn left_undone(plan: &Plan) -> Option<Failure> {
    refused(plan).or_else(|| undone(plan))
}

/// What was held back while all else was done.
fn refused(plan: &Plan) -> Option<Failure> {
    if plan.refusals.is_empty() {
        return None;
    }
    let names: Vec<String> = plan.refusals.iter().map(|refusal| refusal.address.to_string()).collect();
    let more = if names.len() > NAMES_MAX { ", …" } else { "" };
    let what =
        format!("{}{more} refused, as said above, and left as it was", names[..names.len().min(NAMES_MAX)].join(", "));
    Some(Failure::new(Exit::Refused, what).hint("all else was done; each refusal says how to go on all the same"))
}

/// What was asked of a vm by name and is not done is an error, whatever the reason.
fn undone(plan: &Plan) -> Option<Failure> {
    let undone = plan.answers.iter().filter_map(|(vm, answer)| match answer {
        Answer::NotDone(why) => Some(format!("{vm}: {why}")),
        Answer::Planned | Answer::Already(_) => None,
    });
    let undone: Vec<String> = undone.collect();
    let first = undone.first()?;
    if undone.len() == 1 {
        return Some(Failure::new(Exit::NotReady, format!("not done: {first}")));
    }
    let mut failure = Failure::new(Exit::NotReady, format!("not done for {} vms", undone.len()));
    failure.causes = undone;
    Some(failure)
}

/// Why guests that were waited for are not where they should be; none where all are.
pub fn not_ready(readiness: &Readiness, end: WaitEnd, goal: Goal) -> Option<Failure> {
    if end == WaitEnd::Settled && readiness.ended.is_empty() && readiness.gone.is_empty() {
        return None;
    }
    let (reached, wanted) = (readiness.reached(goal), readiness.wanted);
    let so_far = format!("{reached} of {wanted} {} {}", if wanted == 1 { "vm is" } else { "vms are" }, goal.word());
    let failure = match end {
        WaitEnd::Interrupted => {
            Failure::new(Exit::NotReady, format!("you ended the wait; {so_far}, and nothing was taken back"))
        }
        WaitEnd::TimedOut => {
            Failure::new(Exit::NotReady, format!("{so_far} after all the time that `--timeout` gives"))
        }
        WaitEnd::Settled => Failure::new(Exit::NotReady, so_far),
    };
    Some(failure.hint("`labwright status` shows where the others are; `labwright apply --wait` goes on waiting"))
}

/// Why nothing was begun. What a machine lacks is told with the commands that mend it, as they can be typed here.
pub fn not_begun(context: &Context, error: ControlError) -> Failure {
    let ControlError::NotReady { lacking } = &error else { return error.into() };
    let mends: BTreeSet<&str> = lacking.iter().filter_map(|line| line.mend.as_deref()).collect();
    let setup = command(context, "host setup");
    let mends: Vec<String> =
        mends.into_iter().map(|mend| mend.replace("`labwright host setup`", &format!("`{setup}`"))).collect();
    Failure::from(error).hint(mends.join("\nhint: "))
}
