//! ext2, ext3 and ext4, also one whose journal has still to be carried out.

use ext4_view::{Ext4, FileType, Metadata, Path};

use super::part::Part;
use super::walk::{FileSystem, Found, Kind, Look};

pub(super) struct Ext(Ext4);

impl Ext {
    pub(super) fn open(part: Part) -> Result<Self, String> {
        Ext4::load(Box::new(part)).map(Self).map_err(|error| error.to_string())
    }
}

impl FileSystem for Ext {
    fn list(&self, folder: &[u8], each: &mut dyn FnMut(&[u8], &Look<'_>) -> bool) -> Result<(), String> {
        let text = |error: ext4_view::Ext4Error| error.to_string();
        for entry in self.0.read_dir(absolute(folder)?.as_path()).map_err(text)? {
            let entry = entry.map_err(text)?;
            let look = || entry.metadata().map(|metadata| found(&metadata)).map_err(text);
            if !each(entry.file_name().as_ref(), &look) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, file: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
        let text = |error: ext4_view::Ext4Error| error.to_string();
        let mut file = self.0.open(absolute(file)?.as_path()).map_err(text)?;
        let mut content = vec![0; bytes_max];
        let mut length = 0;
        while length < bytes_max {
            match file.read_bytes(&mut content[length..]).map_err(text)? {
                0 => break,
                more => length += more,
            }
        }
        content.truncate(length);
        Ok(content)
    }
}

fn absolute(path: &[u8]) -> Result<ext4_view::PathBuf, String> {
    let root = Path::new("/");
    if path.is_empty() { Ok(root.join("")) } else { Ok(root.join(path)) }
}

fn found(metadata: &Metadata) -> Found {
    let kind = match metadata.file_type() {
        FileType::Regular => Kind::File,
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Link,
        FileType::BlockDevice | FileType::CharacterDevice | FileType::Fifo | FileType::Socket => Kind::Special,
    };
    Found { kind, bytes: metadata.len(), modified: Some(metadata.modified().seconds()) }
}
