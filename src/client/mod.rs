//! A person of this machine who asks something of a site: on the state itself where they may, and otherwise by the socket of the
//! daemon, with the same values and failures for an answer. In: what somebody wants. Out: what was done, told to them. It decides
//! nothing; of the world it touches the socket, and the files of a lab that is sent.
//!
//! ```text
//! caller   who asks, and the site and the lab that are meant
//! way      here, or by the daemon
//! here     a plan is shown, asked about and carried out on the state itself
//! asks     what people ask for, whichever way
//! aside    disks that were set aside, whichever way
//! guests   what they ask of guests that run, whichever way
//! sessions the times of an exam or a class
//! looks    what they look at, whichever way
//! http     one request to the daemon, one answer
//! of_lab   a lab as the daemon shows it
//! own_lab  a lab whose owner plans and applies it by the daemon
//! whole    a lab that is planned, applied or taken down, whichever way
//! labs     all labs of a site, one after the other
//! hosts    this machine as an execution host
//! upkeep   what is deleted, and who is forgotten
//! state    the site's memory: made, copied, read, put back
//! watch    what is looked at again and again
//! ```

mod aside;
pub mod asks;
mod caller;
mod guests;
pub mod here;
pub mod hosts;
mod http;
pub mod labs;
pub mod looks;
mod of_lab;
pub mod own_lab;
mod sessions;
pub mod state;
pub mod upkeep;
pub mod watch;
pub mod way;
pub mod whole;

pub use caller::{of_known_lab, of_site, of_site_file, open, program};
pub use here::Manner;
pub use http::{Client, ClientError};
pub use of_lab::OfLab;
pub use way::Way;

use crate::exit::Exit;
use crate::report::Failure;

/// How a command ended.
pub type Ended = Result<Exit, Failure>;
