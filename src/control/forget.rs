//! A host that is lost is given up, lab by lab. No manifest is read: a lab whose folder is gone can lose a host like any other.

use std::collections::BTreeMap;

use super::{Context, ControlError};
use crate::model::lab::Desired;
use crate::plan::{LostHost, Plan, give_up_only};
use crate::state::Recorded;

/// The labs of the site that have something to give up, or to refuse, each with a context of its own; only that of the
/// context's folder where `only_here`. A host that nobody knows is an error: it must not look like one on which all is well.
pub fn labs(context: &Context, lost: &LostHost, only_here: bool) -> Result<Vec<(Context, Desired)>, ControlError> {
    let mut labs = context.known_store()?.labs()?;
    labs.retain(|(_, folder)| !only_here || *folder == context.lab_folder);
    let mut concerned = Vec::new();
    for (lab, folder) in labs {
        let (context, desired) = (context.with_lab(folder), Desired::nothing(lab));
        let plan = plan(&context, &desired, &context.recorded(&desired.lab)?, lost)?;
        if !plan.is_empty() || !plan.refusals.is_empty() {
            concerned.push((context, desired));
        }
    }
    if concerned.is_empty() {
        refuse_unknown(context, &lost.name)?;
    }
    Ok(concerned)
}

/// What gives up the runs of one lab on this host, and nothing else.
pub fn plan(context: &Context, desired: &Desired, recorded: &Recorded, lost: &LostHost) -> Result<Plan, ControlError> {
    let plan = context.plan_without(Some(lost), desired, recorded, &[], &BTreeMap::new())?;
    Ok(give_up_only(plan))
}

fn refuse_unknown(context: &Context, host: &str) -> Result<(), ControlError> {
    // A batch system that does not answer knows no host better than we do.
    let hosts = context.scheduler().capacity().unwrap_or_default();
    let hosts: Vec<String> = hosts.into_iter().map(|host| host.name).collect();
    let is_meant = |known: &String| known == host || known.split('.').next() == Some(host);
    if hosts.is_empty() || hosts.iter().any(is_meant) {
        return Ok(());
    }
    Err(ControlError::NoHost { host: host.to_owned(), hosts })
}
