//! `labwright explain`: why something is as it is, from its line in the manifest to its latest run.

use std::path::Path;

use super::{Ended, LabOption, shown};
use crate::control::pick;
use crate::model::address::Address;
use crate::report::Ui;
use crate::report::explain::{Form, text};

/// Say why something is as it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  labwright explain alice-gsr
  labwright explain session/final -o json
  labwright explain template/gsr --lab exam")]
pub(super) struct Arguments {
    /// A kind and a name, like `template/gsr`; a name alone is a vm's.
    #[arg(value_parser = pick::address)]
    address: Address,

    #[command(flatten)]
    lab: LabOption,

    /// How it is told.
    #[arg(long, short, value_enum, default_value_t)]
    output: Form,
}

pub(super) fn run(arguments: &Arguments, site: Option<&Path>, ui: &Ui) -> Ended {
    let (context, desired) = arguments.lab.known(site)?;
    let explanation = context.view(&desired)?.explain(&arguments.address)?;
    shown(ui, &text(&explanation, arguments.output))
}
