//! `labwright completions`: made from the clap types, so that it cannot lag behind; names of vms are asked for when they are
//! completed.

use clap_complete::Shell;

use super::Ended;
use crate::exit::Exit;
use crate::report::Ui;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "bash and fish complete the names of vms, too.

Example: labwright completions bash > /etc/bash_completion.d/labwright")]
pub(super) struct Arguments {
    shell: Shell,
}

/// After clap's own words, those that `labwright get vms -o name` prints. It reads the state alone, in a few milliseconds.
const BASH_NAMES: &str = r#"
_labwright_with_names() {
    _labwright "$@"
    local word=${COMP_WORDS[COMP_CWORD]} kind=
    case " ${COMP_WORDS[*]:1:COMP_CWORD-1} " in
        *" vm "[a-z]*" "* | *" explain "* | *" restore "* | *" get vm "* | *" get vms "* | *" get mappings "* | *" get disks "*) kind=vms ;;
    esac
    if [[ -n $kind && $word != -* ]]; then
        COMPREPLY+=($(compgen -W "$(labwright get "$kind" -o name 2>/dev/null)" -- "$word"))
    fi
}
complete -F _labwright_with_names -o nosort -o bashdefault -o default labwright
"#;

const FISH_NAMES: &str = r#"
complete -c labwright -n "__fish_seen_subcommand_from vm explain restore; or begin; __fish_seen_subcommand_from get; and __fish_seen_subcommand_from vm vms mappings disks; end" -f -a "(labwright get vms -o name 2>/dev/null)"
"#;

pub(super) fn run(arguments: &Arguments, command: &mut clap::Command, ui: &Ui) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "labwright", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    match arguments.shell {
        Shell::Bash => script.push_str(BASH_NAMES),
        Shell::Fish => script.push_str(FISH_NAMES),
        _ => {}
    }
    ui.data(&script);
    Ok(Exit::Done)
}
