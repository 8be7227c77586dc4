//! `labwright init`: a lab that validates and plans, to begin from.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Answer;
use crate::exit::Exit;
use crate::id::LabName;

/// Write a new lab to begin from: manifest, roster, editor settings, and a check for continuous integration.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to write to; made if it does not exist.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Name of the lab; the folder's name if not given.
    #[arg(long)]
    name: Option<String>,
}

const LAB: &str = include_str!("init/lab.yaml");
const ROSTER: &str = include_str!("init/students.csv");
const IGNORE: &str = include_str!("init/gitignore");
const WORKFLOW: &str = include_str!("init/validate.yml");

pub fn run(arguments: &InitArgs) -> Answer {
    let name = match lab_name(arguments) {
        Ok(name) => name,
        Err(err) => return Answer { exit: Exit::Usage, out: String::new(), err },
    };
    let folder = &arguments.folder;
    let schema = super::schema::text(super::schema::SchemaKind::Lab);
    // In quotes, so that a name like `2027` stays one.
    let files: [(&str, String); 5] = [
        ("lab.yaml", LAB.replace("{name}", &format!("\"{name}\""))),
        ("students.csv", ROSTER.to_owned()),
        (".gitignore", IGNORE.to_owned()),
        (".github/workflows/validate.yml", WORKFLOW.to_owned()),
        (".schema/lab.schema.json", schema),
    ];
    if let Some((existing, _)) = files.iter().find(|(path, _)| folder.join(path).exists()) {
        let err = format!(
            "error: {} exists already, and nothing is overwritten\nhint: name another folder, or move the file away\n",
            folder.join(existing).display()
        );
        return Answer { exit: Exit::Refused, out: String::new(), err };
    }
    for (path, text) in &files {
        let path = folder.join(path);
        if let Err(error) = write(&path, text) {
            let err = format!("error: cannot write {}\n  caused by: {error}\n", path.display());
            return Answer { exit: Exit::Failed, out: String::new(), err };
        }
    }
    let shown = folder.display();
    let out = format!(
        "wrote the lab {name} to {shown}\nnext: edit {shown}/lab.yaml, then `labwright validate {shown}` and `labwright plan {shown}`\n"
    );
    Answer::done(out)
}

/// The name that is given, or the folder's.
fn lab_name(arguments: &InitArgs) -> Result<LabName, String> {
    let absolute = std::path::absolute(&arguments.folder).unwrap_or_else(|_| arguments.folder.clone());
    let folder = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
    let text = arguments.name.clone().or(folder).unwrap_or_default();
    LabName::new(&*text).map_err(|error| format!("error: {error}\nhint: give the lab a name with `--name my-lab`\n"))
}

/// Never over a file that came in the meantime.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::File::create_new(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::validate::check;

    #[test]
    fn a_new_lab_is_sound_and_nothing_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        for name in ["my-lab", "2027"] {
            let arguments = InitArgs { folder: root.path().join(name), name: None };
            assert_eq!(run(&arguments).exit, Exit::Done);
            let checked = check(std::slice::from_ref(&arguments.folder), false).unwrap();
            assert_eq!(checked.diagnostics.list, Vec::new());
            assert_eq!(run(&arguments).exit, Exit::Refused);
        }
        let arguments = InitArgs { folder: root.path().join("my lab"), name: None };
        assert_eq!(run(&arguments).exit, Exit::Usage);
    }
}
