//! The other end of the daemon's socket, for commands of people who are not root. In: what somebody wants of a lab. Out: what the
//! daemon answers, as the values and failures that root would get. It decides nothing, and touches nothing but the socket and the
//! files of a lab that is sent.
//!
//! ```text
//! http     one request, one answer
//! of_lab   a lab as the daemon shows it
//! own_lab  a lab whose owner plans and applies it
//! ```

mod http;
mod of_lab;
pub mod own_lab;

pub use http::{Client, ClientError};
pub use of_lab::OfLab;
