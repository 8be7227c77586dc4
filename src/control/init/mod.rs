//! A lab that runs, to begin from: its vms boot and answer.

mod template;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::Code;
use crate::disks::{Head, head_of};
use crate::manifest::schema;
use crate::model::id::LabName;

pub use template::{SMALL_IMAGE, make as make_template};

const LAB: &str = include_str!("lab.yaml");
const ROSTER: &str = include_str!("students.csv");
const IGNORE: &str = include_str!("gitignore");
const LEFT_OUT: &str = include_str!("labwrightignore");
const WORKFLOW: &str = include_str!("validate.yml");

/// Why there is no new lab. Nothing was written, but for `Write` and `Template`.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("the image {image} cannot be read")]
    Image { image: PathBuf, source: std::io::Error },
    #[error("{image} is neither a qcow2 image nor a raw disk")]
    NoImage { image: PathBuf },
    #[error("the path {path} is not UTF-8")]
    NotText { path: PathBuf },
    #[error("{file} exists already, and nothing is overwritten")]
    Exists { file: PathBuf },
    #[error("cannot write {file}")]
    Write { file: PathBuf, source: std::io::Error },
    #[error("the lab is written, its template could not be made")]
    Template { folder: PathBuf, source: template::TemplateError },
}

impl InitError {
    pub fn code(&self) -> Code {
        match self {
            Self::Image { .. } | Self::NoImage { .. } | Self::NotText { .. } => Code::Usage,
            Self::Exists { .. } => Code::Refused,
            Self::Write { .. } | Self::Template { .. } => Code::Failed,
        }
    }
}

/// Writes the lab's files; `image` is what its template derives from, and where there is none, `make_template` has to follow.
/// False: all but the template stands already, from an earlier time when that could not be made.
pub fn write(folder: &Path, name: &LabName, image: Option<&Path>) -> Result<bool, InitError> {
    if folder.to_str().is_none() {
        return Err(InitError::NotText { path: folder.to_owned() });
    }
    let image = image.map(own_image).transpose()?;
    if image.is_none() && is_begun(folder) {
        return Ok(false);
    }
    let files = files(name, image.as_deref());
    let paths = || files.iter().map(|(path, _)| folder.join(path));
    if let Some(file) = paths().find(|path| path.exists()) {
        return Err(InitError::Exists { file });
    }
    for (file, (_, text)) in paths().zip(&files) {
        write_new(&file, text).map_err(|source| InitError::Write { file, source })?;
    }
    Ok(true)
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
        (".schema/lab.schema.json", schema::text(&schema::lab())),
    ]
}

/// Whether a lab of ours stands here whose template could not be made the last time.
fn is_begun(folder: &Path) -> bool {
    let lab = std::fs::read_to_string(folder.join("lab.yaml")).unwrap_or_default();
    lab.contains(SMALL_IMAGE) && !folder.join(SMALL_IMAGE).exists()
}

/// The absolute path of an image that a template can have.
fn own_image(path: &Path) -> Result<String, InitError> {
    let unread = |source| InitError::Image { image: path.to_owned(), source };
    let absolute = path.canonicalize().map_err(unread)?;
    let file = std::fs::File::open(&absolute).map_err(unread)?;
    let is_image = matches!(head_of(&file, &absolute), Ok(Head::Qcow2 | Head::Raw { .. }));
    if !file.metadata().map_err(unread)?.is_file() || !is_image {
        return Err(InitError::NoImage { image: path.to_owned() });
    }
    absolute.to_str().map(str::to_owned).ok_or_else(|| InitError::NotText { path: path.to_owned() })
}

/// Never over a file that came in the meantime.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::File::create_new(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::validate::check;

    #[test]
    fn a_new_lab_is_sound_and_nothing_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("own image.qcow2");
        let mut made = std::process::Command::new("qemu-img");
        made.args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("1M");
        assert!(made.status().unwrap().success());
        let init = |name: &str| write(&root.path().join(name), &LabName::new(name).unwrap(), Some(&image));
        for name in ["my-lab", "2027"] {
            assert!(init(name).unwrap());
            let checked = check(&[root.path().join(name)], false).unwrap();
            assert_eq!(checked.diagnostics.list, Vec::new());
            assert!(matches!(init(name), Err(InitError::Exists { .. })));
        }
        std::fs::write(&image, "not qcow2").unwrap();
        assert!(matches!(init("other"), Err(InitError::NoImage { .. })));
        assert!(!root.path().join("other").exists());
    }
}
