//! A whole lab that is planned, applied or taken down, whichever way.

use std::path::Path;

use super::own_lab::OwnLab;
use super::{Ended, Manner, here, of_known_lab, open, way};
use crate::control::plan::{self, Scope};
use crate::exit::Exit;
use crate::manifest::is_manifest;
use crate::model::lab::Desired;
use crate::plan::Plan;
use crate::report::{self, Failure, Ui};
use crate::state::Recorded;

/// A lab, and the part of its plan that is meant.
pub struct Whole<'a> {
    pub site: Option<&'a Path>,
    /// The lab's folder, or a plan that was kept.
    pub place: &'a Path,
    pub scope: Scope,
}

/// What is told of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub is_json: bool,
    /// Every field, user, group and permission.
    pub is_verbose: bool,
    /// Changes are no failure, and end with an exit code of their own.
    pub has_exit_for_changes: bool,
    /// Where this exact plan is kept.
    pub kept_in: Option<&'a Path>,
}

impl Whole<'_> {
    /// What would change.
    pub fn plan(&self, shown: Shown<'_>, ui: &Ui) -> Ended {
        if let Some(client) = way::daemon(self.site) {
            if shown.kept_in.is_some() {
                return Err(Failure::new(Exit::Usage, "the daemon keeps no plans in files; nothing was done")
                    .hint("without `-o`, `labwright apply` shows the plan and asks"));
            }
            let plan = OwnLab::read(client, self.place, self.scope.clone(), ui)?.plan(ui)?;
            return Ok(shown.show(&plan, ui));
        }
        let context = open(self.site, self.place)?;
        let (desired, plan) = self.scope.fresh(&context, shown.kept_in.is_some())?;
        let exit = shown.show(&plan, ui);
        if let Some(file) = shown.kept_in {
            plan::save(file, &self.scope.keep(&context, desired, plan)?)?;
            let file = file.display();
            ui.say(&format!("the plan is in {file}: `labwright apply {file}` carries it out"));
        }
        Ok(exit)
    }

    pub fn apply(&self, manner: &Manner, ui: &mut Ui) -> Ended {
        if self.is_of_kept_plan() {
            return self.apply_kept(manner, ui);
        }
        if let Some(client) = way::daemon(self.site) {
            return OwnLab::read(client, self.place, self.scope.clone(), ui)?.carry_out("apply", manner, ui);
        }
        let context = open(self.site, self.place)?;
        let desired = context.desired()?;
        let make = |recorded: &Recorded| self.scope.plan(&context, &desired, recorded);
        here::carry_out(&context, &desired, &make, manner, "apply", ui)
    }

    fn is_of_kept_plan(&self) -> bool {
        let name = self.place.file_name().and_then(|name| name.to_str());
        self.place.is_file() && !name.is_some_and(is_manifest)
    }

    /// Carries out a kept plan, or refuses if another one would be made today.
    fn apply_kept(&self, manner: &Manner, ui: &mut Ui) -> Ended {
        if !self.scope.is_everything() {
            return Err(Failure::new(
                Exit::Usage,
                "a kept plan has its own `--target`, `--allow` and `--refresh-only`",
            )
            .hint("give them to `labwright plan -o FILE`"));
        }
        let saved = plan::read(self.place)?;
        let context = open(self.site, &saved.folder)?;
        let desired = context.desired()?;
        let make = |recorded: &Recorded| plan::again(&context, self.place, &saved, &desired, recorded);
        here::carry_out(&context, &saved.desired, &make, manner, "apply", ui)
    }

    /// The plan of a lab that wants nothing.
    pub fn destroy(&self, manner: &Manner, ui: &mut Ui) -> Ended {
        if let Some(client) = way::daemon(self.site) {
            return OwnLab::known(client, self.place, self.scope.clone())?.carry_out("destroy", manner, ui);
        }
        let (context, Desired { lab, .. }) = of_known_lab(self.site, self.place)?;
        let desired = Desired::nothing(lab);
        let make = |recorded: &Recorded| self.scope.plan(&context, &desired, recorded);
        here::carry_out(&context, &desired, &make, manner, "destroy", ui)
    }
}

impl Shown<'_> {
    /// The plan, and what it means for whoever asked.
    fn show(&self, plan: &Plan, ui: &Ui) -> Exit {
        let text = || report::paint::plan(&report::plan::text(plan, self.is_verbose));
        ui.data(&if self.is_json { report::plan::stream(plan) } else { text() });
        match (!plan.refusals.is_empty(), plan.is_empty()) {
            (true, _) => Exit::Refused,
            (false, false) if self.has_exit_for_changes => Exit::Changes,
            _ => Exit::Done,
        }
    }
}
