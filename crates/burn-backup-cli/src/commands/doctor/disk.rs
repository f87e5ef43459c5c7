//! Checks the permissions, the file system and the free space.

use std::path::Path;

use super::Check;
#[cfg(unix)]
use crate::output::bytes;

/// There should be room for this many generations besides the existing ones. A save needs room for one.
#[cfg(unix)]
const COMFORTABLE: u64 = 2;

/// Whether other users may change the directory.
#[cfg(unix)]
pub fn permissions(dir: &Path) -> Option<Check> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = dir.metadata().ok()?.permissions().mode();
    let shown = format!("mode {:04o}", mode & 0o7777);
    let (is_open, is_sticky) = (mode & 0o002 != 0, mode & 0o1000 != 0);
    Some(match is_open && !is_sticky {
        true => Check::warn(
            "permissions",
            format!("{shown}: all users may remove its contents"),
            "give the backup a directory that only you may write to (chmod o-w)",
        ),
        false => Check::ok(
            "permissions",
            format!("{shown}; the files of a backup in it are private to its user"),
        ),
    })
}

#[cfg(not(unix))]
pub fn permissions(_: &Path) -> Option<Check> {
    None
}

/// The kind of file system.
#[cfg(target_os = "linux")]
pub fn kind(dir: &Path) -> Option<Check> {
    const NAME: &str = "file system";
    let found = rustix::fs::statfs(dir).ok()?;
    // The type of this field depends on the platform.
    let magic = u64::try_from(found.f_type).ok()? & 0xffff_ffff;
    Some(match magic {
        0x0102_1994 | 0x8584_58f6 => Check::warn(
            NAME,
            "it is in memory (tmpfs)",
            "backups are lost with the machine: use a disk, or a mirror",
        ),
        0x794c_7630 => Check::warn(
            NAME,
            "it belongs to a container (overlay)",
            "backups are lost when the container is removed: mount a volume, or use a mirror",
        ),
        0x6969 => Check::warn(
            NAME,
            "it is on a server (NFS)",
            "locks and syncs are only as reliable as the server: mount it without 'nolock', and don't use 'async' on the server",
        ),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Check::warn(
            NAME,
            "it is on a server (SMB)",
            "locks and syncs are only as reliable as the server: use a disk, and a mirror that outlives it",
        ),
        0x6573_5546 => Check::warn(
            NAME,
            "a program provides it (FUSE)",
            "locks and syncs are only as reliable as that program: object stores that are mounted as directories often have \
             neither; use a disk, and a mirror",
        ),
        0x0102_1997 => Check::warn(
            NAME,
            "it belongs to another machine (9p)",
            "locks and syncs are only as reliable as that machine",
        ),
        0xef53 => Check::ok(NAME, "ext4"),
        0x5846_5342 => Check::ok(NAME, "XFS"),
        0x9123_683e => Check::ok(NAME, "Btrfs"),
        0x2fc1_2fc1 => Check::ok(NAME, "ZFS"),
        0x0bd0_0bd0 => Check::ok(NAME, "Lustre"),
        other => Check::ok(NAME, format!("type {other:#x}")),
    })
}

#[cfg(not(target_os = "linux"))]
pub fn kind(_: &Path) -> Option<Check> {
    None
}

/// The number of bytes that this user may still write; `None` if it is unknown.
#[cfg(unix)]
pub fn free(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
pub fn free(_: &Path) -> Option<u64> {
    None
}

/// Whether there is room for generations of this size.
#[cfg(unix)]
pub fn space(dir: &Path, generation: Option<u64>) -> Option<Check> {
    const NAME: &str = "free space";
    let free = free(dir)?;
    let shown = bytes(free);
    let advice = "a save needs room for one more generation: free some space, or use a larger disk";
    let check = match generation.filter(|size| *size > 0) {
        None => Check::ok(
            NAME,
            format!("{shown}; with --bytes it is shown for how many generations that is enough"),
        ),
        Some(size) => {
            let times = free / size;
            let message = format!("{shown}, enough for {times} generations of {}", bytes(size));
            match times {
                0 => Check::fail(NAME, message, advice),
                times if times < COMFORTABLE => Check::warn(NAME, message, advice),
                _ => Check::ok(NAME, message),
            }
        }
    };
    Some(check.with_value(free))
}

#[cfg(not(unix))]
pub fn space(_: &Path, _: Option<u64>) -> Option<Check> {
    None
}
