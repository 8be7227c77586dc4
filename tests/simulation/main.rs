//! The reconciler's promises, in a simulated world where everything breaks: see `terms`.

#[expect(dead_code, reason = "the plans of tests/core look at more of a lab than the simulation needs")]
mod lab;
mod terms;
#[expect(dead_code, reason = "the plans of tests/core do by name what the simulation does by chance")]
mod world;
