//! Which file systems are known to be this machine's own. A state may be on no other: SQLite's write-ahead log
//! needs locks and shared memory that no other machine can be part of, so what is not known is not tried.

use std::path::Path;

/// File systems of this machine, by `statfs(2)` magic number.
const LOCAL: [i64; 23] = [
    0xef53,      // ext2, ext3, ext4
    0xef51,      // ext2 of old
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0xf2f5_2010, // F2FS
    0x3153_464a, // JFS
    0x5265_4973, // ReiserFS
    0x3434,      // NILFS2
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0x6175_6673, // aufs
    0xf15f,      // eCryptfs
    0x2405_1905, // UBIFS
    0x4244,      // HFS
    0x482b,      // HFS+
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
    0x5346_544e, // NTFS
    0x7366_746e, // NTFS of the newer driver
    0x0001_1954, // UFS
];

/// Names for the others, as far as they are known.
const OTHERS: [(i64, &str); 19] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x0bd0_0bd0, "Lustre"),
    (0x00c3_6400, "Ceph"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x2003_0528, "OrangeFS"),
    (0xaad7_aaea, "PanFS"),
    (0x786f_4256, "a folder of VirtualBox's host"),
    (0xbacb_acbc, "a folder of VMware's host"),
];

/// What holds `path`, where that is not a file system known to be this machine's own.
pub(crate) fn foreign_file_system(path: &Path) -> nix::Result<Option<String>> {
    Ok(foreign(nix::sys::statfs::statfs(path)?.filesystem_type().0))
}

fn foreign(magic: i64) -> Option<String> {
    // Where the number is 32 bits wide, those above the middle come as negative ones.
    let magic = magic & 0xffff_ffff;
    if LOCAL.contains(&magic) {
        return None;
    }
    let name = OTHERS.iter().find(|(number, _)| *number == magic).map(|(_, name)| (*name).to_owned());
    Some(name.unwrap_or_else(|| format!("a file system of the unknown kind {magic:#x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_as_local_is_named_and_refused() {
        for magic in [0xef53, 0x0102_1994, 0x794c_7630, 0x9123_683e_u32.cast_signed().into()] {
            assert_eq!(foreign(magic), None, "{magic:#x}");
        }
        for (magic, name) in [
            (0xfe53_4d42, "SMB"),
            (i64::from(0xff53_4d42_u32.cast_signed()), "CIFS"),
            (0x0102_1997, "9p"),
            (0x6573_5546, "FUSE"),
            (0x4750_4653, "GPFS"),
            (0x1983_0326, "BeeGFS"),
            (0x1234, "a file system of the unknown kind 0x1234"),
        ] {
            assert_eq!(foreign(magic).as_deref(), Some(name));
        }
        // What is on no disk at all is not this machine's own either.
        let proc = foreign_file_system(Path::new("/proc")).unwrap();
        assert_eq!(proc.as_deref(), Some("a file system of the unknown kind 0x9fa0"));
    }
}
