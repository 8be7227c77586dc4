//! What people ask of guests that run, whichever way: by the daemon one request for each that is meant, and the first that is
//! refused ends it.

use std::path::Path;

use super::{Ended, OfLab, Way, looks};
use crate::control::request::{Guest, Guests, RequestError, picture_files};
use crate::control::{Context, ControlError};
use crate::daemon::messages::GuestAsk;
use crate::disks::Snapshot;
use crate::exit::Exit;
use crate::model::address::Address;
use crate::model::id::VmName;
use crate::model::lab::Desired;
use crate::report::{Failure, Ui, console, requests};

impl Way {
    /// Asks the same of all that are named.
    pub fn ask(&self, words: &[String], ask: &GuestAsk, ui: &Ui) -> Ended {
        let kind = ask.clone().into();
        match self {
            Self::Daemon(lab) => {
                for vm in looks::picked(lab, words)? {
                    lab.ask(&vm, ask)?;
                    ui.say(&requests::done(&vm, &kind));
                }
            }
            Self::Here(lab) => {
                let guests = Guests::named(&lab.0, &lab.1.lab, words)?;
                guests.ask(&kind, &mut |vm| ui.say(&requests::done(vm, &kind)))?;
            }
        }
        Ok(Exit::Done)
    }

    /// Pictures of screens into a file, or a folder where several are meant.
    pub fn pictures(&self, words: &[String], place: &Path, ui: &Ui) -> Ended {
        let told = &mut |vm: &VmName, file: &Path| ui.say(&requests::pictured(vm, file));
        match self {
            Self::Daemon(lab) => pictures_of_daemon(lab, words, place, told)?,
            Self::Here(lab) => Guests::named(&lab.0, &lab.1.lab, words)?.pictures(place, told)?,
        }
        Ok(Exit::Done)
    }

    /// Joins the terminal with a guest's serial line.
    pub fn console(&self, vm: &str) -> Ended {
        let Self::Here(lab) = self else { return Err(no_console(vm)) };
        let guest = Guest::named(&lab.0, &lab.1.lab, vm)?;
        lab.0.audit(Some(&lab.1.lab), vec![Address::vm(&guest.name)])?;
        console::join(&guest.name, &guest.serial_line()?)?;
        Ok(Exit::Done)
    }

    /// Files out of disks are collected here, into a folder of who asks.
    pub fn here_to_collect(self, words: &[String]) -> Result<(Context, Desired), Failure> {
        match self {
            Self::Here(lab) => Ok(*lab),
            Self::Daemon(_) => {
                let what = "the daemon collects no files: they are written into a folder of yours; nothing was done";
                let line = format!("sudo labwright vm collect {} -o FOLDER --lab FOLDER-OF-THE-LAB", words.join(" "));
                Err(Failure::new(Exit::Refused, what).hint(format!("root does: `{line}`")))
            }
        }
    }

    pub fn snapshots(&self, vm: &str) -> Result<Vec<Snapshot>, Failure> {
        match self {
            Self::Daemon(lab) => {
                let vms: Vec<VmName> = looks::picked(lab, &[vm.to_owned()])?.into_iter().collect();
                // Whose each of several vms' would be, nothing in the list says.
                let [vm] = &vms[..] else {
                    let what = format!("`{vm}` means {} vms; `vm snapshots` lists those of one", vms.len());
                    return Err(Failure::new(Exit::Usage, what));
                };
                Ok(lab.snapshots(vm)?.into_iter().map(Snapshot::from).collect())
            }
            Self::Here(lab) => {
                let guest = Guest::named(&lab.0, &lab.1.lab, vm)?;
                Ok(guest.snapshots().map_err(ControlError::from)?)
            }
        }
    }
}

/// What only root can reach, on the host that runs the guest.
fn no_console(vm: &str) -> Failure {
    let what =
        "the daemon carries no serial lines: they are for root, on the host that runs the guest; nothing was done";
    let way = format!(
        "`labwright vm show {vm}` tells what opens its screen, `labwright vm screen {vm} -o FILE` takes a picture"
    );
    Failure::new(Exit::Refused, what).hint(way)
}

fn pictures_of_daemon(
    lab: &OfLab,
    words: &[String],
    place: &Path,
    told: &mut dyn FnMut(&VmName, &Path),
) -> Result<(), Failure> {
    let vms = looks::picked(lab, words)?;
    for (vm, file) in picture_files(vms.iter(), place)? {
        let picture = lab.screen(vm)?;
        let unwritten = |source| ControlError::from(RequestError::Picture { file: file.clone(), source });
        std::fs::write(&file, picture).map_err(unwritten)?;
        told(vm, &file);
    }
    Ok(())
}
