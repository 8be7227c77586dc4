//! What people ask for, whichever way: vms are started and stopped, derived, given up; rights are given and taken back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Ended, Manner, OfLab, Way, here, looks};
use crate::control::edit;
use crate::control::own::{self, Lab};
use crate::control::{self, Context, ControlError, cd, permissions, pick, template};
use crate::daemon::messages::{self, Acted, Derive, Edit, Grant, Install, Publish};
use crate::exit::Exit;
use crate::model::address::{Address, AddressPattern};
use crate::model::id::{TemplateName, VmName};
use crate::model::lab::{Desired, Permission};
use crate::plan::{Ask, Wish};
use crate::report::{Failure, Ui, progress, screens, templates};
use crate::state::Recorded;

/// What is asked of which vms.
#[derive(Debug, Clone, Copy)]
pub struct Power<'a> {
    /// Names of vms or families; `*` stands for anything.
    pub vms: &'a [String],
    pub wish: Wish,
    /// Start them isolated or not at all.
    pub isolated: bool,
    /// Guards that are meant.
    pub allow: &'a [AddressPattern],
}

impl Way {
    pub fn power(&self, power: &Power<'_>, manner: &Manner, ui: &mut Ui) -> Ended {
        match self {
            Self::Daemon(..) if !power.allow.is_empty() || manner.is_of_root() => {
                let what = "the daemon takes no `--allow`, `--json` and `--parallelism`; nothing was done";
                Err(Failure::new(Exit::Usage, what).hint("`labwright get mappings` shows what runs, once it does"))
            }
            Self::Daemon(lab) => power_by_daemon(lab, power, manner, ui),
            Self::Here(lab) => power_here(lab, power, manner, ui),
        }
    }

    /// New disks. Somebody who could answer is asked whether a restart may be enough, which costs nobody anything.
    pub fn reimage(&self, power: &Power<'_>, manner: &Manner, ui: &mut Ui) -> Ended {
        let asks = !manner.is_agreed && !manner.is_json && ui.can_ask();
        let never = if asks { self.never_restarted(power.vms)? } else { Vec::new() };
        if never.is_empty() || ui.confirm(&progress::restart_first(&never)) != Some(true) {
            return self.power(power, manner, ui);
        }
        let vms: Vec<String> = never.iter().map(ToString::to_string).collect();
        let restart = Power { vms: &vms, wish: Wish::Restart, ..*power };
        let ended = self.power(&restart, &Manner { is_agreed: true, ..*manner }, ui)?;
        ui.say("no disk was touched; should that not help, the same command gives new ones");
        Ok(ended)
    }

    /// Starts a vm with a CD in its drive, from which its empty disk is installed.
    pub fn install(&self, vm: &str, cdrom: &Path, isolated: bool, ui: &mut Ui) -> Ended {
        let ended = match self {
            Self::Here(lab) => install_here(lab, vm, &cd::anywhere(cdrom).map_err(ControlError::from)?, isolated, ui)?,
            Self::Daemon(lab) => {
                for vm in looks::picked(lab, &[vm.to_owned()])? {
                    let cdrom = Some(real(cdrom));
                    let power = messages::Power { wanted: Wish::Start, isolated, by_name: true, cdrom };
                    tell(&lab.power(&vm, &power)?, ui);
                }
                Exit::Done
            }
        };
        if let Ok(vm) = vm.strip_prefix("vm/").unwrap_or(vm).parse() {
            ui.say(&templates::next(&vm, None));
        }
        Ok(ended)
    }

    /// The same with a vm that is made for it, as its template's owner's.
    pub fn install_template(&self, template: &TemplateName, cdrom: &Path, isolated: bool, ui: &mut Ui) -> Ended {
        let (vm, ended) = match self {
            Self::Here(lab) => {
                let cdrom = cd::anywhere(cdrom).map_err(ControlError::from)?;
                let vm = template::claim(&lab.0, &lab.1, template, isolated)?;
                let ended = install_here(lab, vm.as_str(), &cdrom, isolated, ui)?;
                (vm, ended)
            }
            Self::Daemon(lab) => {
                let acted = lab.install(template, &Install { cdrom: real(cdrom), isolated })?;
                let exit = tell(&acted, ui);
                (acted.vm, exit)
            }
        };
        ui.say(&templates::next(&vm, Some(template)));
        Ok(ended)
    }

    /// Makes the disks of a vm that is off a template's next version.
    pub fn publish(&self, template: &TemplateName, vm: &str, note: Option<&str>, ui: &Ui) -> Ended {
        let note = note.map(str::to_owned);
        let made = match self {
            Self::Here(lab) => {
                let wanted = template::Wanted { vm: vm.to_owned(), template: template.clone(), note };
                template::publish(&lab.0, &lab.1, &wanted)?
            }
            Self::Daemon(lab) => lab.publish(template, &Publish { vm: looks::picked_one(lab, vm)?, note })?,
        };
        ui.say(&templates::published(template, &made));
        Ok(Exit::Done)
    }

    /// Gives vms new disks of their template's latest version: all that are behind, or those of them that are named.
    pub fn update(
        &self,
        template: &TemplateName,
        vms: &[String],
        allow: &[AddressPattern],
        manner: &Manner,
        ui: &mut Ui,
    ) -> Ended {
        let lab = match self {
            Self::Daemon(lab) => return update_by_daemon(lab, template, vms, allow, manner, ui),
            Self::Here(lab) => lab,
        };
        let view = lab.0.view(&lab.1)?;
        let asks = template::updates(&view.desired, &view.recorded, template, vms)?;
        if asks.is_empty() {
            ui.say(&templates::none_behind(template));
            return Ok(Exit::Done);
        }
        asked_here(lab, &asks, allow, manner, &format!("template update {template}"), ui)
    }

    pub fn derive(&self, wanted: &Derive, allow: &[AddressPattern], ui: &mut Ui) -> Ended {
        let (context, desired) = match self {
            Self::Daemon(..) if !allow.is_empty() => {
                return Err(Failure::new(Exit::Usage, "the daemon takes no `--allow`; nothing was done"));
            }
            Self::Daemon(lab) => return Ok(tell(&lab.derive(wanted)?, ui)),
            Self::Here(lab) => &**lab,
        };
        let wanted = wanted.clone().wanted(&context.caller.name);
        let wanted = wanted.map_err(|error| Failure::from_error(Exit::Usage, &error))?;
        let name = own::derive(context, Lab::OfManifest(desired), &wanted)?;
        ui.say(&format!("vm {name} is claimed; `labwright vm start {name}` starts it once its disk is made"));
        let made = part(context, desired, &name, allow.to_vec(), ui);
        if made.is_err() {
            own::withdraw(context, Lab::OfManifest(desired), &name)?;
        }
        made
    }

    /// Memory from their next start on of vms of somebody's own, each by its name.
    pub fn set_memory(&self, vms: &[String], memory_mib: u32, ui: &mut Ui) -> Result<(), Failure> {
        let no_name = |error| Failure::from_error(Exit::Usage, &error).within("`--memory` is for vms by name");
        let vms: Vec<VmName> = vms.iter().map(VmName::new).collect::<Result<_, _>>().map_err(no_name)?;
        let edit = Edit { memory_mib: Some(memory_mib), ..Edit::default() };
        vms.iter().try_for_each(|vm| self.edit(vm, &edit, ui).map(drop))
    }

    /// What is to be otherwise about a vm of somebody's own.
    pub fn edit(&self, vm: &VmName, edit: &Edit, ui: &mut Ui) -> Ended {
        let edit = &Edit { cdrom: edit.cdrom.as_deref().map(real), ..edit.clone() };
        let (context, desired) = match self {
            Self::Daemon(lab) => return Ok(tell(&lab.edit(vm, edit)?, ui)),
            Self::Here(lab) => &**lab,
        };
        let name = edit::edit(context, Lab::OfManifest(desired), vm, &edit.clone().into())?;
        part(context, desired, &name, Vec::new(), ui)
    }

    pub fn delete(&self, vm: &VmName, ui: &mut Ui) -> Ended {
        let (context, desired) = match self {
            Self::Daemon(lab) => return Ok(tell(&lab.delete(vm)?, ui)),
            Self::Here(lab) => &**lab,
        };
        if !own::give_up(context, Lab::OfManifest(desired), vm)? {
            ui.say(&format!("vm {vm} was never made; nobody claims it any more"));
            return Ok(Exit::Done);
        }
        part(context, desired, vm, vec![Address::vm(vm).into()], ui)
    }
}

impl Way {
    /// Lets somebody do something, beside what the manifest allows.
    pub fn grant(&self, permission: &Permission) -> Result<(), Failure> {
        match self {
            Self::Daemon(lab) => lab.grant(&message(permission))?,
            Self::Here(lab) => permissions::grant(&lab.0, &lab.1, permission)?,
        }
        Ok(())
    }

    /// Takes back what was allowed by command.
    pub fn revoke(&self, permission: &Permission) -> Result<(), Failure> {
        match self {
            Self::Daemon(lab) => lab.revoke(&message(permission))?,
            Self::Here(lab) => drop(permissions::revoke(&lab.0, &lab.1, permission)?),
        }
        Ok(())
    }
}

fn install_here(lab: &(Context, Desired), vm: &str, cdrom: &Path, isolated: bool, ui: &mut Ui) -> Ended {
    let view = lab.0.view(&lab.1)?;
    let mut asks = control::plan::asks(&view.desired, &view.recorded, &[vm.to_owned()], Wish::Start)?;
    for (vm, ask) in &mut asks {
        template::refuse_installed(&view.desired, vm).map_err(ControlError::from)?;
        if isolated {
            control::power::refuse_unless_isolated(&view.desired, vm)?;
        }
        ask.cdrom = Some(cdrom.to_owned());
    }
    asked_here(lab, &asks, &[], &Manner::asking(true), &format!("vm install {vm}"), ui)
}

/// Where a file is, for a daemon that works elsewhere. What cannot be found, the daemon says.
fn real(file: &Path) -> PathBuf {
    file.canonicalize().or_else(|_| std::path::absolute(file)).unwrap_or_else(|_| file.to_owned())
}

/// One request for each vm that stands on an older version, of those that who asks may know of.
fn update_by_daemon(
    lab: &OfLab,
    template: &TemplateName,
    words: &[String],
    allow: &[AddressPattern],
    manner: &Manner,
    ui: &Ui,
) -> Ended {
    if !allow.is_empty() || manner.is_of_root() {
        let what = "the daemon takes no `--allow`, `--json` and `--parallelism`; nothing was done";
        return Err(Failure::new(Exit::Usage, what));
    }
    let older = lab.versions(template)?.into_iter().filter(|version| !version.is_latest);
    let mut behind: Vec<VmName> = older.flat_map(|version| version.vms).collect();
    if !words.is_empty() {
        let meant = looks::picked(lab, words)?;
        behind.retain(|vm| meant.contains(vm));
    }
    if behind.is_empty() {
        ui.say(&templates::none_behind(template));
        return Ok(Exit::Done);
    }
    if !manner.is_agreed {
        ui.say(&templates::updates(template, &behind));
        ui.confirmed("Give them new disks? Those of now are set aside.", "changed")?;
    }
    for vm in &behind {
        let by_name = pick::is_named(words, vm);
        let power = messages::Power { wanted: Wish::Reimage, isolated: false, by_name, cdrom: None };
        tell(&lab.power(vm, &power)?, ui);
    }
    Ok(Exit::Done)
}

/// One request for each vm that is meant; the first that is refused ends it.
fn power_by_daemon(lab: &OfLab, power: &Power<'_>, manner: &Manner, ui: &Ui) -> Ended {
    let Power { vms, wish, isolated, allow: _ } = *power;
    let meant = looks::picked(lab, vms)?;
    for vm in &meant {
        let power = messages::Power { wanted: wish, isolated, by_name: pick::is_named(vms, vm), cdrom: None };
        tell(&lab.power(vm, &power)?, ui);
    }
    if let Some(timeout) = manner.wait {
        meant.iter().try_for_each(|vm| lab.wait_for(vm, timeout, ui))?;
        meant.iter().filter(|_| wish != Wish::Stop).try_for_each(|vm| tell_screen(lab, vm, ui))?;
    }
    Ok(Exit::Done)
}

fn power_here(lab: &(Context, Desired), power: &Power<'_>, manner: &Manner, ui: &mut Ui) -> Ended {
    let Power { vms, wish, isolated, allow } = *power;
    let view = lab.0.view(&lab.1)?;
    let asks = control::plan::asks(&view.desired, &view.recorded, vms, wish)?;
    if isolated {
        asks.keys().try_for_each(|vm| control::power::refuse_unless_isolated(&view.desired, vm))?;
    }
    asked_here(lab, &asks, allow, manner, &format!("vm {} {}", wish.verb(), vms.join(" ")), ui)
}

/// The claims are those of the moment of its decision: some may have ended since vms were picked.
fn asked_here(
    (context, desired): &(Context, Desired),
    asks: &BTreeMap<VmName, Ask>,
    allow: &[AddressPattern],
    manner: &Manner,
    doing: &str,
    ui: &mut Ui,
) -> Ended {
    let make = |recorded: &Recorded| control::plan::power(context, desired, recorded, allow, asks);
    here::carry_out(context, desired, &make, manner, doing, ui)
}

/// The part of the plan that is about this vm. Whoever names a vm means it, so nobody is asked; its disks are never deleted.
fn part(context: &Context, desired: &Desired, name: &VmName, allow: Vec<AddressPattern>, ui: &mut Ui) -> Ended {
    let scope = own::part(name, allow);
    let make = |recorded: &Recorded| scope.plan(context, desired, recorded);
    here::carry_out(context, desired, &make, &Manner::asking(true), &format!("apply --target vm/{name}"), ui)
}

/// How to get at one that has come up.
fn tell_screen(lab: &OfLab, vm: &VmName, ui: &Ui) -> Result<(), Failure> {
    if let Some(screen) = lab.vm(vm)?.screen {
        ui.data(&screens::in_words(&screen));
    }
    Ok(())
}

/// What was done, in the words that root reads.
fn tell(acted: &Acted, ui: &Ui) -> Exit {
    ui.data(&acted.plan);
    ui.data(&acted.outcome);
    Exit::Done
}

fn message(permission: &Permission) -> Grant {
    let Permission { to, on, allow, force_isolated } = permission.clone();
    Grant { to, on, allow, force_isolated }
}
