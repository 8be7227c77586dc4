//! The pure core: plans as golden text, and the streams that programs read, both of labs in the simulation's world.

mod access;
mod asks;
mod claims;
#[expect(dead_code, reason = "people ask a daemon in the simulation alone")]
#[path = "../simulation/daemon.rs"]
mod daemon;
#[path = "../simulation/dice.rs"]
mod dice;
mod flaws;
mod imports;
#[path = "../simulation/lab.rs"]
#[expect(dead_code, reason = "the simulation looks closer at how an apply ended than the plans need")]
mod lab;
mod late;
mod lost_hosts;
mod neighbours;
mod parts;
mod plans;
mod reimage;
mod retries;
mod rights;
mod seeds;
mod sessions;
mod streams;
mod upkeep;
#[path = "../simulation/world/mod.rs"]
#[expect(dead_code, reason = "the simulation does more to the world than the plans need")]
mod world;
