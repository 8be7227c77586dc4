//! Disks and images, as files: paths come in, qcow2 files come out, complete and under their final name or not at all.
//! Called by `apply` on the controller.
//!
//! ```text
//! qemu-img ─▶ the first bytes of a disk, in memory ─┐
//! image    ─▶ copied, sparse or shared              ├─▶ .disk-0.qcow2.new ─▶ synced ─▶ linked as disk-0.qcow2
//! ```
//!
//! A file that has the final name is never written, replaced or deleted; `link(2)` refuses to, on every file system,
//! network ones too, where `renameat2` does not. One alone gives its name to a copy: a disk whose host was lost, once it has
//! another name (`renew`). Whoever finds a disk there that is the wanted one is done, so every call
//! may be repeated after a crash. What a crash leaves is one `.new` file per disk, which the next try replaces.
//!
//! Folders are opened step by step and then used through their descriptor: a symbolic link on the way counts only if
//! root or the caller made it, so who may write in a folder of the storage cannot send us elsewhere.
//!
//! A disk's own header is read to tell disks apart and is never followed: what a guest can write proves nothing.

mod aside;
mod error;
mod fetch;
mod flatten;
mod folder;
mod head;
mod images;
mod make;
mod meter;
mod publish;
mod qcow2;
mod renew;
mod seed;
mod snapshots;
mod sound;
mod store;

pub use aside::{delete, give_up, restore, set_aside};
pub use error::DiskError;
pub use fetch::{Source, fetch};
pub use flatten::{copy_whole, flatten};
pub use head::{Foreign, Head, head_of};
pub use images::Images;
pub use make::{clone_full, copy_exactly, create_empty, derive};
pub use meter::{Copied, Tell};
pub use publish::{Published, digest, publish, sha256};
pub use qcow2::{Image, flaw, inspect, is_unwritten, open_disk};
pub use renew::renew;
pub use seed::seed_image;
pub use snapshots::{Snapshot, snapshots};
pub use sound::check_disk;
pub use store::{Disks, OnStorage, Stamp, Standing};

/// Looks at shared storage that are under way at the same time: most of each is waiting for the file server.
pub const LOOKS_AT_ONCE: usize = 8;

/// Whom new files and folders belong to: the account that runs the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}
