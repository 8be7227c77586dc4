//! What a plan writes into the books for its own sake: an effect that is done by being recorded. In: one entry. Out: rows.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};

use super::write::{execute, to_json, want_back};
use super::{audit, chain, claims, roster};
use crate::model::accommodation::Unshown;
use crate::model::address::{Address, Kind};
use crate::model::claim::{
    AccommodatedBy, AccommodationClaim, ClaimBody, ClaimId, ClaimedPower, PowerClaim, TimeChange, TimeClaim,
};
use crate::model::id::{Mac, SessionName, TemplateName, UserName, VmName};
use crate::model::lab::Vm;

/// The names in its JSON are those of plans that were kept before entries had a type of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Entry {
    /// A user, group, template, permission or session; `None` forgets it.
    #[serde(rename = "record_object")]
    Object { address: Address, body: Option<String> },
    /// A vm, which holds its address.
    #[serde(rename = "record_vm")]
    Vm { name: VmName, vm: Box<Vm>, ip: Ipv4Addr, mac: Mac, version: Option<u32> },
    /// Forgets a vm and frees its address; its disks must have been set aside before.
    ForgetVm { name: VmName },
    /// A vm's new name; disks, address and run stay.
    RenameVm { from: VmName, to: VmName },
    /// The new name of a template's published versions.
    RenameTemplate { from: TemplateName, to: TemplateName },
    /// Somebody wants disks back that were set aside, and where: until they are there, nothing else is done about them.
    WantBack { vm: VmName, moves: Vec<(PathBuf, PathBuf)> },
    /// An image was touched and holds the same bytes.
    #[serde(rename = "record_image")]
    Image { template: TemplateName, version: u32, slot: u32, bytes: u64, mtime_ns: i64 },
    /// Somebody asked for a vm's power by command; from run `generation` on, that is what is wanted of it.
    ClaimPower {
        vm: VmName,
        wanted: ClaimedPower,
        generation: u64,
        by: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// What was asked for of a vm's power, if anything, counts no more.
    EndPowerClaim { vm: VmName, why: String },
    /// A vm that somebody made by command is wanted no more.
    EndClaim { vm: VmName, id: ClaimId, why: String },
    /// What a session's file says that people need, in place of what it said before. Whom it is about stands in no plan.
    Accommodate {
        session: SessionName,
        people: usize,
        by: String,
        #[serde(skip)]
        of: Unshown,
    },
    /// Somebody's guest was first seen to run in a session that gives everybody the whole time.
    BeginTime { vm: VmName, user: UserName, session: SessionName, at: jiff::Timestamp },
}

impl Entry {
    /// For the journal and for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Object { .. } => "record",
            Self::Vm { .. } => "record the vm",
            Self::ForgetVm { .. } => "forget the vm",
            Self::Image { .. } => "record the image",
            Self::WantBack { .. } => "record what comes back",
            Self::RenameVm { .. } | Self::RenameTemplate { .. } => "record the new name",
            Self::ClaimPower { wanted: ClaimedPower::Running, .. } => "claim that it runs",
            Self::ClaimPower { wanted: ClaimedPower::Stopped, .. } => "claim that it stands still",
            Self::EndPowerClaim { .. } | Self::EndClaim { .. } => "end the claim",
            Self::Accommodate { .. } => "record accommodations",
            Self::BeginTime { .. } => "record when it began",
        }
    }

    /// The vm that it is about.
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Self::Vm { name: vm, .. }
            | Self::ForgetVm { name: vm }
            | Self::RenameVm { to: vm, .. }
            | Self::WantBack { vm, .. }
            | Self::ClaimPower { vm, .. }
            | Self::EndPowerClaim { vm, .. }
            | Self::EndClaim { vm, .. }
            | Self::BeginTime { vm, .. } => Some(vm),
            Self::Accommodate { .. } | Self::Object { .. } | Self::RenameTemplate { .. } | Self::Image { .. } => None,
        }
    }

    /// Whether people asked for it: the history tells of it, although nothing outside changes with it.
    pub fn is_claim(&self) -> bool {
        matches!(self, Self::ClaimPower { .. } | Self::EndPowerClaim { .. } | Self::EndClaim { .. })
    }

    pub(super) fn write(&self, transaction: &Transaction<'_>, lab: &str, now: &str) -> rusqlite::Result<()> {
        let execute = |sql, parameters: &[&dyn rusqlite::ToSql]| execute(transaction, sql, parameters);
        match self {
            Self::Object { address, body: Some(body) } => {
                if address.kind == Kind::Session {
                    chain::keep(transaction, lab, &address.name, body)?;
                }
                execute(
                    "INSERT OR REPLACE INTO objects (lab, kind, name, body) VALUES (?1, ?2, ?3, ?4)",
                    params![lab, address.kind.as_str(), address.name, body],
                )
            }
            Self::Object { address, body: None } => {
                if address.kind == Kind::User {
                    roster::forget(transaction, lab, &address.name)?;
                }
                execute(
                    "DELETE FROM objects WHERE lab = ?1 AND kind = ?2 AND name = ?3",
                    params![lab, address.kind.as_str(), address.name],
                )
            }
            Self::Vm { name, vm, ip, mac, version } => {
                execute(
                    "INSERT INTO vms (lab, name, ip, mac, generation, version, body) VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6)
                     ON CONFLICT (lab, name) DO UPDATE SET ip = ?3, mac = ?4, version = ?5, body = ?6",
                    params![lab, name.as_str(), ip.to_string(), mac.to_string(), version, to_json(vm)],
                )?;
                audit::owned(transaction, lab, name.as_str(), vm.owner.as_str())?;
                // Disks that waited for it are its own now.
                execute(
                    "UPDATE disks SET owner = NULL WHERE lab = ?1 AND vm = ?2 AND aside IS NULL AND owner IS NOT NULL",
                    params![lab, name.as_str()],
                )
            }
            Self::ForgetVm { name } => {
                execute("DELETE FROM vms WHERE lab = ?1 AND name = ?2", params![lab, name.as_str()])
            }
            Self::RenameVm { from, to } => {
                for sql in [
                    "UPDATE vms SET name = ?3 WHERE lab = ?1 AND name = ?2",
                    "UPDATE disks SET vm = ?3 WHERE lab = ?1 AND vm = ?2",
                    "UPDATE runs SET vm = ?3 WHERE lab = ?1 AND vm = ?2",
                ] {
                    execute(sql, params![lab, from.as_str(), to.as_str()])?;
                }
                audit::rename(transaction, lab, from.as_str(), to.as_str())?;
                chain::rename(transaction, lab, from.as_str(), to.as_str())?;
                claims::rename(transaction, lab, from.as_str(), to.as_str(), now)
            }
            Self::RenameTemplate { from, to } => execute(
                "UPDATE versions SET template = ?3 WHERE lab = ?1 AND template = ?2",
                params![lab, from.as_str(), to.as_str()],
            ),
            Self::WantBack { vm: _, moves } => moves.iter().try_for_each(|(path, to)| want_back(transaction, path, to)),
            Self::Image { template, version, slot, bytes, mtime_ns } => execute(
                "UPDATE versions SET disks = json_set(disks, '$[' || ?4 || '].source_bytes', ?5, '$[' || ?4 || '].source_mtime_ns', ?6)
                 WHERE lab = ?1 AND template = ?2 AND version = ?3",
                params![lab, template.as_str(), version, slot, bytes, mtime_ns],
            ),
            Self::ClaimPower { vm, wanted, generation, by, key } => {
                let (version, wanted, generation) = (ClaimBody::VERSION, *wanted, *generation);
                let body = ClaimBody::Power(PowerClaim { version, wanted, generation, key: key.clone() });
                claims::put(transaction, lab, (vm.as_str(), &body, by), now)
            }
            Self::EndPowerClaim { vm, why } => claims::end_power(transaction, lab, vm.as_str(), why, now),
            Self::EndClaim { vm: _, id, why } => claims::end(transaction, lab, *id, why, now),
            Self::Accommodate { session, people: _, by, of } => {
                let (session, people) = (session.clone(), of.0.clone());
                let version = ClaimBody::VERSION;
                let body = AccommodationClaim { version, session, by: AccommodatedBy::File, people };
                claims::put(transaction, lab, (body.session.as_str(), &ClaimBody::Accommodation(body.clone()), by), now)
            }
            Self::BeginTime { vm: _, user, session, at } => {
                let change = TimeChange::Begin { at: *at };
                let body = TimeClaim::new(session.clone(), Some(user.clone()), change, None);
                claims::put(transaction, lab, (session.as_str(), &ClaimBody::Time(body), "labwright"), now)
            }
        }
    }
}
