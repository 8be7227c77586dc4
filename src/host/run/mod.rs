//! What a host does for one run, as root: its starter calls all of this, and nothing of it outlives the run.
//!
//! ```text
//! tap        the guest's network interface, alive as long as its file descriptor
//! port       that interface as a port of the bridge
//! gateway    under which Ethernet addresses a guest's gateway and servers answer
//! probe      a port of ours on a bridge, to ask who is there
//! frames     the frames that we send and read ourselves (pure)
//! filter     which frames pass, and the table that holds it as long as the starter lives
//! qemu       the argument list (pure)
//! qmp        qemu's monitor
//! screen     who looks at the guest's screen
//! bounds     memory, processors and threads of a guest, by cgroup
//! confine    drops rights, ties qemu's life to the starter's
//! sealed     a process of ours without any rights, which reads what strangers send
//! run_folder /run/labwright/<run>/
//! accel      whether guests boot under KVM here
//! sweep      removes what dead runs have left
//! ```

pub mod accel;
pub mod bounds;
pub mod confine;
pub mod filter;
pub(super) mod frames;
pub mod gateway;
pub mod port;
pub mod probe;
pub mod qemu;
pub mod qmp;
pub mod run_folder;
pub mod screen;
pub mod sealed;
pub mod sweep;
pub mod tap;
