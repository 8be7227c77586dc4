//! What a starter has put below a run's answers, such as a picture of the screen.

use std::path::Path;

use super::{ANSWERS, RunFileError};
use crate::files::{self, Folder};

/// An answer that is a file; `None` where there is none. Its name and the folder are the service account's: neither leads
/// elsewhere.
pub fn answer(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, RunFileError> {
    let Some(folder) = Folder::open(folder)? else { return Ok(None) };
    let Some(answers) = folder.sub(ANSWERS)? else { return Ok(None) };
    Ok(answers.read(name, files::BYTES_MAX)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A report, whose writer is the guests' account, names the file.
    #[test]
    fn an_answer_is_a_plain_file_among_the_answers() {
        let root = tempfile::tempdir().unwrap();
        let (folder, secret) = (root.path().join("k3f9-1"), root.path().join("secret"));
        std::fs::create_dir_all(folder.join(ANSWERS)).unwrap();
        std::fs::write(&secret, "root's").unwrap();
        std::fs::write(folder.join(ANSWERS).join("7.png"), "picture").unwrap();
        symlink(&secret, folder.join(ANSWERS).join("8.png")).unwrap();
        assert_eq!(answer(&folder, "7.png").unwrap().unwrap(), b"picture");
        for name in ["8.png", "../../secret", "../report.jsonl", secret.to_str().unwrap(), "", "9.png"] {
            assert!(!matches!(answer(&folder, name), Ok(Some(_))), "{name}");
        }
        std::fs::remove_dir_all(folder.join(ANSWERS)).unwrap();
        symlink(root.path(), folder.join(ANSWERS)).unwrap();
        assert!(!matches!(answer(&folder, "secret"), Ok(Some(_))));
    }
}
