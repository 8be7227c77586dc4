//! `labwright init`: a lab that runs, to begin from: its vms boot and answer.

mod template;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::Answer;
use crate::exit::Exit;
use crate::model::id::LabName;

/// Write a new lab to begin from: manifest, roster, editor settings, a check for continuous integration, and a small
/// template that boots.
///
/// The template is a Debian kernel with busybox, some 16 MB, made on this machine: that takes Debian's packages and, the
/// first time, the network. With `--image` the lab derives from an image of your own instead, and nothing is fetched.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to write to; made if it does not exist.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Name of the lab; the folder's name if not given.
    #[arg(long)]
    name: Option<String>,
    /// A qcow2 image with an installed system, for the template. It stays where it is.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

const LAB: &str = include_str!("init/lab.yaml");
const ROSTER: &str = include_str!("init/students.csv");
const IGNORE: &str = include_str!("init/gitignore");
const LEFT_OUT: &str = include_str!("init/labwrightignore");
const WORKFLOW: &str = include_str!("init/validate.yml");

/// The image that is made where none is given, relative to the lab's folder.
const SMALL_IMAGE: &str = "images/tiny.qcow2";

/// Writes the lab; `progress` is told what takes long.
pub fn run(arguments: &InitArgs, progress: &dyn Fn(&str)) -> Answer {
    let refused = |exit, err| Answer { exit, out: String::new(), err };
    let name = match lab_name(arguments) {
        Ok(name) => name,
        Err(err) => return refused(Exit::Usage, err),
    };
    let folder = &arguments.folder;
    let image = match arguments.image.as_deref().map(own_image).transpose() {
        Ok(image) => image,
        Err(err) => return refused(Exit::Usage, err),
    };
    let files = files(&name, image.as_deref());
    let begun = image.is_none() && is_begun(folder);
    if !begun {
        if let Some((existing, _)) = files.iter().find(|(path, _)| folder.join(path).exists()) {
            let err = format!(
                "error: {} exists already, and nothing is overwritten\nhint: name another folder, or move the file away\n",
                folder.join(existing).display()
            );
            return refused(Exit::Refused, err);
        }
        for (path, text) in &files {
            let path = folder.join(path);
            if let Err(error) = write(&path, text) {
                return refused(
                    Exit::Failed,
                    format!("error: cannot write {}\n  caused by: {error}\n", path.display()),
                );
            }
        }
    }
    let shown = folder.display();
    let wrote = if begun { String::new() } else { format!("wrote the lab {name} to {shown}\n") };
    if image.is_none() {
        let made = folder.join(SMALL_IMAGE);
        progress(&format!(
            "making {}: a Debian kernel and busybox, some 16 MB; fetching the kernel takes a minute the first time",
            made.display()
        ));
        if let Err(error) = template::make(&made, &folder.join(".labwright/template")) {
            let err = format!(
                "error: the lab is written, its template could not be made\n  caused by: {}\n\
                 hint: mend that and run `labwright init {shown}` again; or put an image of your own in its place and name \
                 it in {shown}/lab.yaml\n",
                error.to_string().replace('\n', "\n  ")
            );
            return Answer { exit: Exit::Failed, out: wrote, err };
        }
    }
    Answer::done(format!(
        "{wrote}next, as root on a machine that may run guests:\n  \
         labwright host setup --lab {shown}\n  labwright plan {shown}\n  labwright apply {shown} --wait\n\
         then edit {shown}/lab.yaml and {shown}/students.csv, and plan and apply again\n"
    ))
}

/// What a new lab consists of, by paths below its folder.
fn files(name: &LabName, image: Option<&str>) -> Vec<(&'static str, String)> {
    // In quotes, so that a name like `2027` stays one.
    let lab = LAB.replace("{name}", &format!("\"{name}\""));
    let (description, memory) = match image {
        Some(_) => ("What all vms of the course are made from", "1G"),
        None => ("A Linux kernel and busybox, to try things with; put the course's own image in its place", "128M"),
    };
    let image = image.unwrap_or(SMALL_IMAGE);
    let image = if image.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
        image.to_owned()
    } else {
        format!("\"{}\"", image.replace('\\', "\\\\").replace('"', "\\\""))
    };
    vec![
        ("lab.yaml", lab.replace("{description}", description).replace("{image}", &image).replace("{memory}", memory)),
        ("students.csv", ROSTER.to_owned()),
        (".gitignore", IGNORE.to_owned()),
        (".labwrightignore", LEFT_OUT.to_owned()),
        (".github/workflows/validate.yml", WORKFLOW.to_owned()),
        (".schema/lab.schema.json", super::schema::text(super::schema::SchemaKind::Lab)),
    ]
}

/// Whether a lab of ours stands here whose template could not be made the last time.
fn is_begun(folder: &Path) -> bool {
    let lab = std::fs::read_to_string(folder.join("lab.yaml")).unwrap_or_default();
    lab.contains(SMALL_IMAGE) && !folder.join(SMALL_IMAGE).exists()
}

/// The absolute path of an image that a template can have.
fn own_image(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("error: the image {shown} cannot be read\n  caused by: {error}\n");
    let mut header = [0; 4];
    let absolute = path.canonicalize().map_err(cannot)?;
    std::fs::File::open(&absolute).and_then(|mut file| file.read_exact(&mut header)).map_err(cannot)?;
    if header != *b"QFI\xfb" {
        return Err(format!(
            "error: {shown} is not a qcow2 image\nhint: convert it: `qemu-img convert -O qcow2 {shown} base.qcow2`\n"
        ));
    }
    absolute
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("error: the path {shown} is not UTF-8\nhint: rename it\n"))
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
        let image = root.path().join("own image.qcow2");
        let mut made = std::process::Command::new("qemu-img");
        made.args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("1M");
        assert!(made.status().unwrap().success());
        let init = |name: &str, image: &Path| {
            let arguments = InitArgs { folder: root.path().join(name), name: None, image: Some(image.to_owned()) };
            run(&arguments, &|_| {}).exit
        };
        for name in ["my-lab", "2027"] {
            assert_eq!(init(name, &image), Exit::Done);
            let checked = check(&[root.path().join(name)], false).unwrap();
            assert_eq!(checked.diagnostics.list, Vec::new());
            assert_eq!(init(name, &image), Exit::Refused);
        }
        assert_eq!(init("my lab", &image), Exit::Usage);
        std::fs::write(&image, "not qcow2").unwrap();
        assert_eq!(init("other", &image), Exit::Usage);
        assert!(!root.path().join("other").exists());
    }
}
