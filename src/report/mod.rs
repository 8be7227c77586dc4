//! Values in, text out: plans, outcomes, diagnostics and tables as a person or a program reads them. It reads every
//! stage's values and changes none; with `main` it is the only place that prints.

pub mod apply;
pub mod aside;
mod command;
pub mod completions;
pub mod console;
pub mod diagnostics;
pub mod diagnostics_ci;
pub mod diagnostics_json;
mod edits;
mod escape;
pub mod explain;
mod failure;
mod failure_of_host;
pub mod findings;
pub mod freeze;
pub mod full_vm;
mod grounds;
mod listings;
pub mod log;
pub mod manual;
pub mod notes;
pub mod page;
pub mod paint;
pub mod permissions;
mod plain_words;
pub mod plan;
pub mod privacy;
pub mod progress;
mod reasons;
mod remarks;
pub mod requests;
pub mod screens;
pub mod shortfall;
pub mod status;
mod steps;
pub mod stream;
pub mod table;
pub mod terminal;
pub mod times;
pub mod typed;
mod ui;
mod values;

pub use command::command;
pub use escape::{escaped, one_line};
pub use ui::{Colour, Failure, Ui, broken, pipes, usage};
