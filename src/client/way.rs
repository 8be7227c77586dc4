//! Which way a command goes: on the state itself, or where a daemon serves the site and who asks is not root, by its socket.

use std::path::{Path, PathBuf};

use super::{Client, OfLab, of_known_lab};
use crate::control::Context;
use crate::daemon::SOCKET;
use crate::exit::Exit;
use crate::host::process;
use crate::model::id::{LabName, UserName};
use crate::model::lab::Desired;
use crate::report::Failure;

/// Who does what is asked of a lab.
pub enum Way {
    /// This process, on the state itself.
    Here(Box<(Context, Desired)>),
    Daemon(OfLab),
}

impl Way {
    pub fn to(site: Option<&Path>, lab: &Path) -> Result<Self, Failure> {
        let Some(socket) = served_by(site) else {
            return Ok(Self::Here(Box::new(of_known_lab(site, lab)?)));
        };
        let folder = lab.file_name().and_then(|name| name.to_str());
        let named = folder.map(LabName::new).transpose();
        let named = named.map_err(|error| Failure::from_error(Exit::Usage, &error))?;
        Ok(Self::Daemon(OfLab::new(Client::new(socket), named)?))
    }
}

/// Whether whoever types this is that user: of others the daemon tells nothing.
pub fn is_own(user: &UserName) -> bool {
    Some(user.as_str()) == process::account().as_deref()
}

/// Where the daemon of this machine listens, for somebody who is not root and means no other site.
fn served_by(site: Option<&Path>) -> Option<PathBuf> {
    let socket = socket();
    (!process::is_root() && site.is_none() && socket.exists()).then_some(socket)
}

/// That daemon.
pub fn daemon(site: Option<&Path>) -> Option<Client> {
    served_by(site).map(Client::new)
}

fn socket() -> PathBuf {
    std::env::var_os("LABWRIGHT_SOCKET").map_or_else(|| SOCKET.into(), PathBuf::from)
}

/// Who may not do it on the state itself is told what would let them.
pub fn or_by_daemon(site: Option<&Path>, failure: Failure) -> Failure {
    let is_lack_of_rights = matches!(failure.exit, Exit::Failed | Exit::Refused);
    if process::is_root() || served_by(site).is_some() || !is_lack_of_rights {
        return failure;
    }
    let (socket, is_there) = (socket().display().to_string(), socket().exists());
    let way = match is_there {
        true => format!("without `--site`, the daemon at {socket} does it for you"),
        false => {
            format!("no daemon serves {socket}, which would do it for you: an admin starts `labwright serve`")
        }
    };
    let hint = failure.hint.as_ref().map_or_else(|| way.clone(), |hint| format!("{hint}\nhint: {way}"));
    failure.hint(hint)
}
