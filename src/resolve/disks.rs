//! Disks and the files they come from: what is written against what could be seen of the files.

use std::path::Path;

use super::Resolver;
use crate::manifest::{At, DiskDecl, ImageFacts, ImagePlace, Spanned};
use crate::model::lab::DiskSource;
use crate::model::rules::Rule;

/// Whose disks are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DisksOf {
    Template,
    Vm,
}

impl<'a> Resolver<'a> {
    pub(super) fn disks(&mut self, decls: &[Spanned<DiskDecl>], of: DisksOf) -> Vec<DiskSource> {
        const DISK_BYTES_MIN: u64 = 1 << 20;
        // Larger ones are slips of the unit; qemu refuses them only when the disk is made.
        const DISK_BYTES_MAX: u64 = 64 << 40;
        const DISKS_MAX: usize = 16;
        if let Some(surplus) = decls.get(DISKS_MAX) {
            let message = format!("a computer has at most {DISKS_MAX} disks");
            self.note(Rule::Hardware, surplus.at, message, "remove what is too much");
        }
        let mut disks = Vec::new();
        for disk in decls {
            match (&disk.image, &disk.size) {
                (Some(image), None) => disks.extend(self.image_disk(image, disk, of)),
                (None, Some(size)) => {
                    if let Some(sha256) = &disk.sha256 {
                        let message = "an empty disk has no checksum";
                        self.note(
                            Rule::ConflictingKeys,
                            sha256.at,
                            message,
                            "remove `sha256`, or write `image` instead of `size`",
                        );
                    }
                    if size.0 < DISK_BYTES_MIN {
                        let message = format!("a disk of {} is too small for anything", size.display());
                        self.note(Rule::Hardware, size.at, message, "write a size such as `5G`");
                    } else if size.0 > DISK_BYTES_MAX {
                        let message = format!("a disk of {} is larger than any", size.display());
                        self.note(Rule::Hardware, size.at, message, "write a size up to `64T`, such as `5G`");
                    }
                    disks.push(DiskSource::Empty { size_bytes: size.0 });
                }
                (Some(_), Some(size)) => {
                    let message = "a disk comes from an image or is new with a size, not both";
                    self.note(
                        Rule::ConflictingKeys,
                        size.at,
                        message,
                        "remove `size` or `image`; a disk from an image has the image's size",
                    );
                }
                // What was written could not be read, which was said already.
                (None, None) if disk.key("image").is_some() || disk.key("size").is_some() => {}
                (None, None) => {
                    let message = "a disk needs an image or a size";
                    self.note(
                        Rule::MissingKey,
                        disk.at,
                        message,
                        "write `{ image: images/NAME.qcow2 }`, or `{ size: 5G }` for an empty disk",
                    );
                }
            }
        }
        disks
    }

    fn image_disk(&mut self, image: &Spanned<ImagePlace>, disk: &DiskDecl, of: DisksOf) -> Option<DiskSource> {
        let sha256 = disk.sha256.as_ref().map(|sha256| sha256.value.0.clone());
        let url = match &image.value {
            ImagePlace::Web(url) => url.clone(),
            ImagePlace::File(_) => {
                let path = self.manifest.image(image)?;
                self.check_image(image, &path, disk);
                return Some(DiskSource::Image { path, sha256 });
            }
        };
        if of == DisksOf::Vm {
            let message = "an image from the web is fetched for a template, once for all vms";
            let hint = "write a template with it, and `derive: TEMPLATE` or `clone: TEMPLATE` here";
            self.note(Rule::ConflictingKeys, image.at, message, hint);
            return None;
        }
        let Some(sha256) = sha256 else {
            if disk.key("sha256").is_none() {
                let message = "an image from the web needs its `sha256`: what lies there can be another tomorrow";
                let hint = "write the checksum that its publisher states, `sha256: …`; or what `curl -L URL | sha256sum` prints";
                self.note(Rule::MissingKey, image.at, message, hint);
            }
            return None;
        };
        Some(DiskSource::Fetched { url, sha256 })
    }

    fn facts(&self, path: &Path) -> Option<&'a ImageFacts> {
        self.manifest.images.get(path)
    }

    /// Says what is wrong with a file that could not be looked into. True where it could.
    pub(super) fn image_exists(&mut self, at: At, shown: &str, path: &Path) -> bool {
        let full = path.display();
        let (rule, message, hint) = match self.facts(path) {
            Some(
                ImageFacts::Other { .. }
                | ImageFacts::Unusable { .. }
                | ImageFacts::Qcow2 { .. }
                | ImageFacts::Raw { .. },
            ) => return true,
            Some(ImageFacts::Missing) => (
                Rule::ImageMissing,
                format!("there is no file `{shown}`"),
                match shown.contains('\\') {
                    true => format!("folders are separated by `/`: write `{}`", shown.replace('\\', "/")),
                    false => format!("a path is relative to the file that names it; we looked for {full}"),
                },
            ),
            Some(ImageFacts::NotAFile) => (
                Rule::ImageMissing,
                format!("`{shown}` is not an ordinary file"),
                "write the path of the image itself".to_owned(),
            ),
            Some(ImageFacts::Unreadable { error }) => (
                Rule::ImageMissing,
                format!("`{shown}` cannot be read: {error}"),
                format!("make {full} readable for the account that runs labwright"),
            ),
            Some(ImageFacts::OutOfSight) => (
                Rule::ImageUnseen,
                format!("`{shown}` cannot be seen from here, so it is not checked"),
                format!("nothing is wrong if this machine only checks manifests; we looked for {full}"),
            ),
            None => return false,
        };
        self.note(rule, at, message, hint);
        false
    }

    fn check_image(&mut self, image: &Spanned<ImagePlace>, path: &Path, disk: &DiskDecl) {
        let shown = image.text();
        if !self.image_exists(image.at, shown, path) {
            return;
        }
        match self.facts(path) {
            Some(ImageFacts::Other { looks_like, remedy }) => {
                let guess = looks_like.as_ref().map(|what| format!("; it looks like {what}")).unwrap_or_default();
                let message = format!("`{shown}` is neither a qcow2 image nor a raw disk{guess}");
                self.note(Rule::ImageFormat, image.at, message, remedy.replace("{file}", shown));
            }
            Some(ImageFacts::Unusable { why }) => {
                let message = format!("`{shown}` is a qcow2 image that no vm can be made of: {why}");
                let hint = format!(
                    "copy or download it again, or make a whole one of it: `qemu-img convert -O qcow2 {shown} NAME.qcow2`"
                );
                self.note(Rule::ImageFormat, image.at, message, hint);
            }
            Some(ImageFacts::Qcow2 { backing_file: true, .. }) => {
                let message =
                    format!("`{shown}` is itself derived from another image, so its content can change under it");
                let hint = format!("make it stand alone: `qemu-img convert -O qcow2 {shown} NAME.qcow2`");
                self.note(Rule::ImageDerived, image.at, message, hint);
            }
            Some(ImageFacts::Qcow2 { sha256: Some(found), .. } | ImageFacts::Raw { sha256: Some(found), .. }) => {
                if let Some(wanted) = &disk.sha256
                    && wanted.value.0 != *found
                {
                    let message = format!("`{shown}` has another checksum than the one written here");
                    let hint = format!("if the file is the one you mean, write `sha256: {found}`; else copy it again");
                    self.note(Rule::ImageChecksum, wanted.at, message, hint);
                }
            }
            _ => {}
        }
    }
}
