//! The command line: clap types, one file per command, no logic. `main` maps what a command returns to output and exit
//! code; nothing else in the program prints.

use std::process::ExitCode;

use clap::Parser;

use crate::exit::Exit;

/// Turns a git folder of YAML into a running computer lab.
#[derive(Debug, Parser)]
#[command(name = "labwright", version, after_help = crate::exit::HELP)]
pub struct Arguments {}

/// Runs the program and says how it ended.
pub fn main() -> ExitCode {
    let _arguments = Arguments::parse();
    Exit::Done.into()
}
