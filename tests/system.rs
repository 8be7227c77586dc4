//! Tests with real guests, on real bridges, filters and DHCP, each in network and mount namespaces of its own. They need
//! root and the Debian packages that `tests/run` installs; without them they fail, they are never skipped.

#[path = "system/again.rs"]
mod again;
#[path = "system/api.rs"]
mod api;
#[path = "system/attacks.rs"]
mod attacks;
#[path = "system/bounds.rs"]
mod bounds;
#[path = "system/break_glass.rs"]
mod break_glass;
#[path = "system/bridge.rs"]
mod bridge;
#[path = "system/burst.rs"]
mod burst;
#[path = "system/check.rs"]
mod check;
#[path = "system/clock.rs"]
mod clock;
#[path = "system/collect.rs"]
mod collect;
#[path = "system/dhcp.rs"]
mod dhcp;
#[path = "system/dnsmasq.rs"]
mod dnsmasq;
#[path = "system/errors.rs"]
mod errors;
#[path = "system/exam.rs"]
mod exam;
#[path = "system/examples.rs"]
mod examples;
#[path = "system/filter.rs"]
mod filter;
#[path = "system/keeper.rs"]
mod keeper;
#[path = "system/lab.rs"]
mod lab;
#[path = "system/life.rs"]
mod life;
#[path = "system/owners.rs"]
mod owners;
#[path = "system/readme.rs"]
mod readme;
#[path = "system/ready.rs"]
mod ready;
#[path = "system/rules.rs"]
mod rules;
#[path = "system/seed.rs"]
mod seed;
#[path = "system/serve.rs"]
mod serve;
#[path = "system/session.rs"]
mod session;
#[path = "system/sitting.rs"]
mod sitting;
#[path = "system/starter.rs"]
mod starter;
#[path = "system/teachers.rs"]
mod teachers;
#[path = "system/units.rs"]
mod units;
#[path = "system/vnc.rs"]
mod vnc;
#[path = "system/walkthrough.rs"]
mod walkthrough;
#[path = "system/wire.rs"]
mod wire;
#[path = "system/world.rs"]
mod world;
