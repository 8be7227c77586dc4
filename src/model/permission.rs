//! Who may do what with which thing, as a manifest writes it and a grant by command gives it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{InvalidName, TemplateName, UserGroupName, UserName, VmGroupName, VmName};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Permission {
    pub to: Subject,
    pub on: Object,
    pub allow: BTreeSet<Right>,
    #[serde(default)]
    pub force_isolated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// One user.
    User(UserName),
    /// All members of a user group.
    Group(UserGroupName),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// One vm.
    Vm(VmName),
    /// One template.
    Template(TemplateName),
    /// All vms of a vm group.
    VmGroup(VmGroupName),
}

/// As people type it: a login name, or `group/NAME`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "{user}"),
            Self::Group(group) => write!(f, "group/{group}"),
        }
    }
}

impl FromStr for Subject {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.strip_prefix("group/").or_else(|| text.strip_prefix("user-group/")) {
            Some(group) => UserGroupName::new(group).map(Self::Group),
            None => UserName::new(text.strip_prefix("user/").unwrap_or(text)).map(Self::User),
        }
    }
}

/// As people type it: `vm/NAME`, `template/NAME` or `vm-group/NAME`.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm(vm) => write!(f, "vm/{vm}"),
            Self::Template(template) => write!(f, "template/{template}"),
            Self::VmGroup(group) => write!(f, "vm-group/{group}"),
        }
    }
}

/// Why a text is no thing that permissions are about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidObject {
    #[error("write `vm/NAME`, `template/NAME` or `vm-group/NAME`")]
    Kind,
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl FromStr for Object {
    type Err = InvalidObject;
    fn from_str(text: &str) -> Result<Self, InvalidObject> {
        Ok(match text.split_once('/') {
            Some(("vm", name)) => Self::Vm(VmName::new(name)?),
            Some(("template", name)) => Self::Template(TemplateName::new(name)?),
            Some(("vm-group", name)) => Self::VmGroup(VmGroupName::new(name)?),
            _ => return Err(InvalidObject::Kind),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Start, stop and restart; its screen.
    Run,
    /// Memory, processors, cd, name; reimage, snapshot, delete.
    Modify,
    /// Covers clone.
    Derive,
    /// The screen, without control.
    View,
}

impl Right {
    pub const ALL: [Self; 4] = [Self::Run, Self::Modify, Self::Derive, Self::View];
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Run => "run",
            Self::Modify => "modify",
            Self::Derive => "derive",
            Self::View => "view",
        })
    }
}
