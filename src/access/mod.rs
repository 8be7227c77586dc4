//! Who may do what with which thing of a lab, and because of which line. In: the lab as it is wanted, the claims on it, who asks.
//! Out: a decision with its reason. Pure.
//!
//! The rules are the paper's (sections III and V.A), made exact:
//!
//! ```text
//! admin        root, the site's admins and the lab's owners: everything
//! owner        run, modify and view what is theirs; derive unless it is derived itself
//! permission   run, modify, derive, view: to a user or a group, on a vm, a template, or all of a vm group
//!              of a template it is about the template alone, not about the vms that were made from it
//! grant        the same, given by command: by an admin, or by the owner of a vm for as long as they own it
//! view         of others: in an open session, else with a grant of the vm's owner
//! exam         a vm of an exam is not there for its owner before their start and after their end, and nobody's to share; who
//!              sits an exam sees the vms of it that are theirs, and nothing else
//! isolation    forced where any permission on the vm, its vm group or its template says so to its owner or to who asks; and
//!              where it was forced when the vm was made
//! ```

mod changes;
mod isolation;
mod person;
mod rights;

pub use changes::{RightsChange, Whom, changes};
pub use isolation::{Forced, Forcing};
pub use person::{Person, Roles};
pub use rights::{Because, Decision, Effective, Exams, Given, Refused, World};
