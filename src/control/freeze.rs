//! That nothing more shall be done to a lab, or to any lab of the site, and the end of that. It takes no lock, so that
//! nothing can hold it up.

use std::collections::BTreeSet;

use super::{Context, ControlError};
use crate::model::address::{Address, Kind};
use crate::model::id::LabName;
use crate::state::{FreezeScope, Frozen, Intent, Outcome, StateError, Store};

/// What becomes of a wish to freeze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freeze {
    Done,
    /// Somebody froze it before, and nothing new was said.
    Already(Frozen),
}

/// Freezes a lab, or with it every lab of the site; an earlier freeze stands unless there is another reason now.
pub fn freeze(context: &Context, lab: &LabName, scope: FreezeScope, why: Option<&str>) -> Result<Freeze, ControlError> {
    let mut store = context.store()?;
    let before = store.recorded(lab)?.frozen.filter(|frozen| frozen.scope == scope);
    if let (Some(before), None) = (before, why) {
        return Ok(Freeze::Already(before));
    }
    let frozen = Frozen {
        who: context.caller.name.clone(),
        since: jiff::Timestamp::now(),
        why: why.unwrap_or("no reason given").to_owned(),
        scope,
    };
    store.freeze(only(lab, scope), Some(&frozen))?;
    note(context, &mut store, lab, scope, "freeze")?;
    Ok(Freeze::Done)
}

/// Ends a freeze; the other one, of the site or of this lab, may hold on, and is answered.
pub fn thaw(context: &Context, lab: &LabName, scope: FreezeScope) -> Result<Option<Frozen>, ControlError> {
    let mut store = context.known_store()?;
    store.freeze(only(lab, scope), None)?;
    note(context, &mut store, lab, scope, "thaw")?;
    Ok(store.recorded(lab)?.frozen)
}

fn only(lab: &LabName, scope: FreezeScope) -> Option<&LabName> {
    (scope == FreezeScope::Lab).then_some(lab)
}

/// In the history of each lab that it is about.
fn note(
    context: &Context,
    store: &mut Store,
    lab: &LabName,
    scope: FreezeScope,
    effect: &'static str,
) -> Result<(), StateError> {
    let mut labs = BTreeSet::from([lab.clone()]);
    if scope == FreezeScope::Site {
        labs.extend(store.labs()?.into_iter().map(|(lab, _)| lab));
    }
    let info = context.apply_info("");
    labs.iter().try_for_each(|lab| {
        let intent = Intent { address: Address::new(Kind::Lab, lab), effect };
        store.note(lab, &info, &[(intent, Outcome::Done)], jiff::Timestamp::now())
    })
}
