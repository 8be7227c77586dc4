//! What a lab has besides vms and disks, as it was last applied. In: the JSON text of a row. Out: a value, or an error: what
//! cannot be read is never taken for missing, since guards hang on it. A row that a newer labwright wrote may have fields
//! that this one does not know; they are ignored, and kept when the row is written anew.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::address::Kind;
use crate::model::lab::{Permission, Session, Template, User, UserGroup, VmGroup};

/// A user, group, vm group, template, permission or session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Thing {
    UserGroup(UserGroup),
    User(User),
    VmGroup(VmGroup),
    Template(Template),
    Permission(Permission),
    Session(Session),
}

impl Thing {
    /// `None` of a kind that has no such rows.
    pub fn read(kind: Kind, body: &str) -> Option<serde_json::Result<Self>> {
        Some(match kind {
            Kind::UserGroup => serde_json::from_str(body).map(Self::UserGroup),
            Kind::User => serde_json::from_str(body).map(Self::User),
            Kind::VmGroup => serde_json::from_str(body).map(Self::VmGroup),
            Kind::Template => serde_json::from_str(body).map(Self::Template),
            Kind::Permission => serde_json::from_str(body).map(Self::Permission),
            Kind::Session => serde_json::from_str(body).map(Self::Session),
            Kind::Vm | Kind::Job | Kind::Lab | Kind::Site => return None,
        })
    }

    pub fn body(&self) -> String {
        serde_json::to_string(self).expect("what is desired has only string keys")
    }
}

/// A thing as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedThing {
    pub body: String,
    pub thing: Thing,
}

impl RecordedThing {
    /// The row of this thing as it is wanted now, with what the recorded one has and we do not know.
    pub fn body_of(&self, wanted: &Thing) -> String {
        let fields = |body: &str| serde_json::from_str::<Map<String, Value>>(body);
        match (fields(&self.body), fields(&self.thing.body()), fields(&wanted.body())) {
            (Ok(mut recorded), Ok(known), Ok(wanted)) => {
                // What we know and is not wanted any more goes; some of it is written only where there is any.
                recorded.retain(|name, _| !known.contains_key(name));
                recorded.extend(wanted);
                Value::Object(recorded).to_string()
            }
            _ => wanted.body(),
        }
    }
}
