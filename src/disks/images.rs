//! Where images may come from. People who own a lab name its images, and write in the folders where these are: what they name is
//! opened there and nowhere else, whatever links they make meanwhile.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::DiskError;
use super::qcow2::{open_image, open_regular};

/// Where images may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Images {
    /// Wherever root names one.
    #[default]
    Anywhere,
    /// Below these folders, with no link on the way from there.
    Below(Vec<PathBuf>),
}

impl Images {
    /// Opens an image to read it.
    pub fn open(&self, path: &Path) -> Result<File, DiskError> {
        match self {
            Self::Anywhere => open_image(path),
            Self::Below(roots) => {
                let inside = roots.iter().find_map(|root| Some((root, path.strip_prefix(root).ok()?)));
                let (root, relative) = inside.ok_or_else(|| DiskError::io("open", path, Errno::EXDEV))?;
                open_regular(path, || open_below(root, relative))
            }
        }
    }
}

fn open_below(root: &Path, relative: &Path) -> std::io::Result<File> {
    let root = File::open(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(File::from(openat2(&root, relative, how)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("roots/lan/sub")).unwrap();
        std::fs::create_dir_all(path("other")).unwrap();
        std::fs::write(path("other/secret"), "other").unwrap();
        std::fs::write(path("roots/lan/sub/own"), "own").unwrap();
        let link = |from: &str, to: &str| std::os::unix::fs::symlink(path(to), path(from)).unwrap();
        link("roots/lan/file", "other/secret");
        link("roots/lan/folder", "other");
        link("roots/lan/own", "roots/lan/sub/own");
        // Where an admin says that the root itself is a link, it counts.
        link("root", "roots/lan");
        let images = Images::Below(vec![path("root")]);
        let opens = |name: &str| images.open(&path(name)).is_ok();
        assert!(opens("root/sub/own"));
        for name in
            ["root/file", "root/folder/secret", "root/own", "root/sub/../../../other/secret", "root/sub", "root"]
        {
            assert!(!opens(name), "{name}");
        }
        assert!(!opens("roots/lan/sub/own"), "as it is written, it is below no root");
        assert!(Images::Anywhere.open(&path("root/file")).is_ok());
        let missing = images.open(&path("root/none"));
        assert!(matches!(missing, Err(DiskError::Missing { .. })), "{missing:?}");
    }
}
