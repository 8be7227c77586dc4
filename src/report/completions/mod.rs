//! Completion scripts of shells: made from the clap types, so that they cannot lag behind; names of vms and templates are asked for
//! when they are completed.

use clap_complete::Shell;

pub fn script(shell: Shell, command: &mut clap::Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "labwright", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + include_str!("names.bash"),
        Shell::Fish => script + include_str!("names.fish"),
        Shell::Zsh => zsh(&script),
        _ => script,
    }
}

/// Operands that are vms or templates, by what their fields are called here, have their names for completions.
const ZSH_OPERANDS: [&str; 5] = ["':vm -- ", "'*::vms -- ", "':template -- ", "':address -- ", "'*::name -- "];

/// In a file of a folder of `fpath`, the script is a function's body: what it calls has to stand before its end.
fn zsh(script: &str) -> String {
    let with_names = |line: &str| match ZSH_OPERANDS.iter().any(|operand| line.starts_with(operand)) {
        true => line.replacen(":_default'", ":_labwright_names'", 1),
        false => line.to_owned(),
    };
    let lines: String = script.lines().map(|line| with_names(line) + "\n").collect();
    match lines.split_once("\n_labwright() {") {
        Some((head, rest)) => format!("{head}\n{}\n_labwright() {{{rest}", include_str!("names.zsh")),
        None => lines,
    }
}
