//! The manual: a page for each command, made from the clap types, so that none can lag behind.

use std::io::Write;
use std::path::Path;

use clap_mangen::Man;

use super::Failure;
use crate::exit::{self, Exit};

/// What is the same on each page.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("LABWRIGHT_SITE", "The site's settings, where --site is not given."),
    ("LABWRIGHT_LAB", "The lab's folder, where none is given."),
    ("LABWRIGHT_LOG", "What the program does, for its developers: error, info or debug."),
    ("NO_COLOR, CLICOLOR_FORCE", "No colours; or colours also where no terminal is."),
    ("TZ", "The time zone in which times are shown."),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/labwright/site.yaml", "Settings of the installation, where neither --site nor LABWRIGHT_SITE names others."),
    ("*.yaml", "All of them in the lab's folder are its manifest."),
    (".labwright/", "Where a lab without a site keeps state, disks and runs."),
    ("/run/labwright/", "What running guests hold on their host."),
];

/// Writes the pages of `command` and all below it to a folder, which is made where there is none.
pub fn write(command: clap::Command, folder: &Path) -> std::io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    std::fs::create_dir_all(folder)?;
    write_pages(&command, None, folder)
}

/// The help of a command: `labwright help vm start` is `labwright vm start --help`.
pub fn help(mut command: clap::Command, words: &[String]) -> Result<String, Failure> {
    command.build();
    let mut shown = &mut command;
    for word in words {
        let unknown = || {
            Failure::new(Exit::Usage, format!("there is no command `labwright {}`", words.join(" ")))
                .hint("`labwright help` lists all")
        };
        shown = shown.find_subcommand_mut(word).ok_or_else(unknown)?;
    }
    Ok(shown.render_long_help().ansi().to_string())
}

/// The page of a command, and those of all below it.
fn write_pages(command: &clap::Command, parent: Option<&str>, folder: &Path) -> std::io::Result<()> {
    let man = Man::new(command.clone());
    let file = man.get_filename();
    let name = file.trim_end_matches(".1");
    let below: Vec<&clap::Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    let related =
        parent.map(str::to_owned).into_iter().chain(below.iter().map(|sub| format!("{name}-{}", sub.get_name())));
    let mut page = Vec::new();
    write_page(&man, command, !below.is_empty(), &related.collect::<Vec<_>>(), &mut page)?;
    std::fs::write(folder.join(&file), page)?;
    below.into_iter().try_for_each(|sub| write_pages(sub, Some(name), folder))
}

fn write_page(
    man: &Man,
    command: &clap::Command,
    has_commands: bool,
    related: &[String],
    page: &mut Vec<u8>,
) -> std::io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if has_commands {
        man.render_subcommands_section(page)?;
    }
    notes(command, page)?;
    section(page, "EXIT STATUS", exit::CODES)?;
    section(page, "ENVIRONMENT", ENVIRONMENT)?;
    section(page, "FILES", FILES)?;
    if !related.is_empty() {
        let pages: Vec<String> = related.iter().map(|page| format!("{}(1)", escaped(page))).collect();
        writeln!(page, ".SH \"SEE ALSO\"\n{}", pages.join(", "))?;
    }
    Ok(())
}

/// What the command's help ends with: words as text, examples line by line as they are typed.
fn notes(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let Some(text) = command.get_after_long_help().or_else(|| command.get_after_help()) else { return Ok(()) };
    let text = text.to_string();
    let (words, examples): (Vec<&str>, Vec<&str>) =
        text.split("\n\n").partition(|part| !part.starts_with("Example") && !part.starts_with("  "));
    let words: Vec<&str> = words.into_iter().filter(|part| !part.starts_with("Exit codes:")).collect();
    if !words.is_empty() {
        writeln!(page, ".SH NOTES")?;
        words.iter().try_for_each(|part| writeln!(page, ".PP\n{}", escaped(part)))?;
    }
    if !examples.is_empty() {
        writeln!(page, ".SH EXAMPLES\n.nf")?;
        for part in examples {
            let lines = part.trim_start_matches("Examples:\n").trim_start_matches("Example: ");
            lines.lines().try_for_each(|line| writeln!(page, "{}", escaped(line)))?;
        }
        writeln!(page, ".fi")?;
    }
    Ok(())
}

fn section(page: &mut Vec<u8>, heading: &str, entries: &[(&str, &str)]) -> std::io::Result<()> {
    writeln!(page, ".SH \"{heading}\"")?;
    entries.iter().try_for_each(|(term, words)| writeln!(page, ".TP\n\\fB{}\\fR\n{}", escaped(term), escaped(words)))
}

/// Text that troff takes as it stands.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<String> = text
        .lines()
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() })
        .collect();
    lines.join("\n")
}
