//! The pure core and the reconciler's promises: plans as golden text, and a simulated world that breaks.

mod lab;
mod lost_hosts;
mod plans;
mod simulation;
mod streams;
mod world;
