//! The embedded scheduler: jobs are processes of this machine, and there is no daemon. A submission comes in, and a
//! detached *dispatcher* (`labwright local-dispatch`) goes out, one per array: it waits for its turn, then for a slot and
//! the memory, starts one task after the other, and ends with the last start. It never knows what a task does.
//!
//! All bookkeeping is done by the kernel: whoever holds something holds a lock on a byte of the file `held`, through an
//! open file description that nobody but the holder has. So after `kill -9` of anything the books are right at once, and
//! no pid is ever taken for a sign of life.
//!
//! ```text
//! <folder>/
//!   mutex             locked for a moment by whoever changes or reads the books as a whole
//!   turn              locked by the one dispatcher whose tasks are next
//!   counter           number of the last job
//!   held              always empty; its bytes are what is locked (see `held`)
//!   jobs/<job>/
//!     job.json        the submission and the site's size
//!     killed.<task>   this task is not to start, or was told to stop
//!     task.<task>     pid and start time of a started task, to signal it
//! <log folder>/
//!   <job>.log         what a dispatcher had to complain of
//!   <job>.<task>.log  what a task printed
//! ```
//!
//! ```text
//!            submit locks the pending bytes and hands them to the dispatcher
//! pending ─────▶ running ─────▶ (gone)
//!    │   dispatcher locks     the task's last process ended
//!    │   running byte, slot
//!    │   and memory, then frees the pending byte
//!    └─▶ (gone)   killed before its start, or its dispatcher died: whoever wants the task submits it again
//! ```
//!
//! A job's folder goes with the next `submit` or `list` after its last byte was freed. A task inherits one descriptor,
//! which is its slot: a task that starts long-lived processes marks it close-on-exec first.

mod dispatch;
mod held;
mod jobs;
mod queue;

pub use dispatch::{become_task, dispatch};
pub use queue::Local;
