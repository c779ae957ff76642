//! Where the library lives: is it there, what kind of file system is it on, did it change under a look.
//!
//! Must never take an absence for an empty library: an unmounted mount point shows an empty directory.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::statfs;

use super::LibraryError;

/// The file system a library is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// `ext4`, `cifs`, ...; the magic number in hex where the kind is unknown.
    pub fs_name: String,
    /// True where changes made elsewhere raise no kernel event here.
    pub network: bool,
    /// `statfs`'s f_type.
    pub fs_type: i64,
}

impl MountInfo {
    /// Whether the kernel's SMB client serves it, under either of its names.
    pub(super) fn is_smb(&self) -> bool {
        matches!(self.fs_name.as_str(), "smb2" | "cifs")
    }
}

/// Asks the kernel for the file system of `path`. May block as long as the mount does.
pub fn mount_info(path: &Path) -> Result<MountInfo, LibraryError> {
    let stat = statfs(path).map_err(|errno| LibraryError::from_io(path, io::Error::from(errno)))?;
    Ok(describe(stat.filesystem_type().0))
}

/// Numbers are Linux's (`include/uapi/linux/magic.h`). FUSE counts as network: what serves it cannot be told from here
/// (sshfs, rclone, NTFS on a disk), and a needless poll costs less than a book never seen.
fn describe(fs_type: i64) -> MountInfo {
    // On 32-bit machines the kernel's number arrives sign-extended.
    let (name, network) = match fs_type & 0xFFFF_FFFF {
        0xFE53_4D42 => ("smb2", true),
        0xFF53_4D42 => ("cifs", true),
        0x517B => ("smbfs", true),
        0x6969 => ("nfs", true),
        0x6573_5546 => ("fuse", true),
        0x0102_1997 => ("9p", true),
        0x00C3_6400 => ("ceph", true),
        0x5346_414F => ("afs", true),
        0x786F_4256 => ("vboxsf", true),
        0xEF53 => ("ext4", false),
        0x9123_683E => ("btrfs", false),
        0x5846_5342 => ("xfs", false),
        0x0102_1994 => ("tmpfs", false),
        0x794C_7630 => ("overlay", false),
        0x2FC1_2FC1 => ("zfs", false),
        0xCA45_1A4E => ("bcachefs", false),
        0xF2F5_2010 => ("f2fs", false),
        0x4D44 => ("vfat", false),
        0x2011_BAB0 => ("exfat", false),
        0x5346_544E | 0x7366_746E => ("ntfs", false),
        0x9660 => ("iso9660", false),
        0x7371_7368 => ("squashfs", false),
        unknown => {
            // An unknown file system is polled: the safe side.
            return MountInfo { fs_name: format!("0x{unknown:x}"), network: true, fs_type };
        }
    };
    MountInfo { fs_name: name.to_owned(), network, fs_type }
}

/// The root directory as it was at the start of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    device: u64,
    inode: u64,
}

impl Root {
    /// The root must be a directory with something in it.
    pub(super) fn open(path: &Path) -> Result<Root, LibraryError> {
        let stat = stat_directory(path)?;
        let mut entries = fs::read_dir(path).map_err(|source| LibraryError::from_io(path, source))?;
        match entries.next() {
            None => Err(LibraryError::Empty { path: path.to_owned() }),
            Some(Err(source)) => Err(LibraryError::from_io(path, source)),
            Some(Ok(_)) => Ok(Root { device: stat.dev(), inode: stat.ino() }),
        }
    }

    /// The root must still be the same directory: a mount that came or went meanwhile spoils the look.
    pub(super) fn check_unchanged(&self, path: &Path) -> Result<(), LibraryError> {
        let stat = stat_directory(path)?;
        if (Root { device: stat.dev(), inode: stat.ino() }) != *self {
            let reason = "another file system was mounted or unmounted there".to_owned();
            return Err(LibraryError::ChangedUnderLook { path: path.to_owned(), reason });
        }
        Ok(())
    }
}

fn stat_directory(path: &Path) -> Result<Metadata, LibraryError> {
    let stat = fs::metadata(path).map_err(|source| LibraryError::from_io(path, source))?;
    if stat.is_dir() { Ok(stat) } else { Err(LibraryError::NotADirectory { path: path.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_file_systems_are_told_apart() {
        assert!(!describe(0xEF53).network);
        assert!(!describe(0x0102_1994).network);
        assert!(describe(0xFE53_4D42).network);
        assert!(describe(0x6969).network);
        assert!(describe(0x6573_5546).network);
        assert!(describe(0xFE53_4D42_u32 as i32 as i64).network, "sign-extended");
        assert_eq!(describe(0x1234).fs_name, "0x1234");
        assert!(describe(0x1234).network);
    }

    #[test]
    fn a_root_must_be_there_and_have_something_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(matches!(Root::open(&path.join("absent")), Err(LibraryError::Missing { .. })));
        assert!(matches!(Root::open(path), Err(LibraryError::Empty { .. })));
        fs::write(path.join("a.txt"), "a").unwrap();
        assert!(matches!(Root::open(&path.join("a.txt")), Err(LibraryError::NotADirectory { .. })));
        let root = Root::open(path).unwrap();
        root.check_unchanged(path).unwrap();
        assert!(!mount_info(path).unwrap().fs_name.is_empty());
    }

    #[test]
    fn a_swapped_root_spoils_the_look() {
        let folder = tempfile::tempdir().unwrap();
        let (library, other) = (folder.path().join("library"), folder.path().join("other"));
        for directory in [&library, &other] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("a.txt"), "a").unwrap();
        }
        let root = Root::open(&library).unwrap();
        fs::rename(&library, folder.path().join("away")).unwrap();
        fs::rename(&other, &library).unwrap();
        assert!(matches!(root.check_unchanged(&library), Err(LibraryError::ChangedUnderLook { .. })));
    }
}
