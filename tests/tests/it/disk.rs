//! Disks that really are full or read-only, and files that can't grow.
#![cfg(unix)]

use std::path::Path;
use std::process::Command;

use burn_backup_tests::{Backend, Training, report};
use test_fork::test;

use crate::process::{Said, command_line, run, run_well, shell, trainee};
use crate::support::uninterrupted;

/// A disk of half a megabyte, at `$0`.
const MOUNT: &str = "mount -t tmpfs -o size=512k,mode=700 tmpfs \"$0\" || exit 1; ";

/// Runs `script` on its own disk. `$0` is the path of the disk, and `"$@"` is a training in it with a backup
/// after each batch. Returns what each of the `N` processes printed at its end. Returns `None`, with a
/// message, where mounts are not allowed.
fn on_a_small_disk<const N: usize>(test: &str, script: &str) -> Option<[Said; N]> {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let mut reasons = Vec::new();
    // The mount ends with its namespace. Users other than root may get a namespace in which they are root.
    for namespace in [&["--mount"][..], &["--map-root-user", "--mount"]] {
        let unshare = |script: &str| {
            Command::new("unshare")
                .args(namespace)
                .args(["sh", "-c", &format!("{MOUNT}{script}")])
                .arg(scratch.path())
                .args(command_line(&trainee(Backend::Flex, &dir, 1, &[])))
                .output()
        };
        match unshare("true") {
            Ok(probe) if probe.status.success() => {
                let output = unshare(script).unwrap();
                let said = Said::parse_each(&String::from_utf8(output.stdout).unwrap());
                return Some(said.try_into().unwrap());
            }
            Ok(probe) => reasons.push(String::from_utf8_lossy(&probe.stderr).trim().to_owned()),
            Err(error) => reasons.push(format!("unshare: {error}")),
        }
    }
    report(&format!(
        "skipped {test}: no disk can be mounted here ({})",
        reasons.join("; ")
    ));
    None
}

#[track_caller]
fn assert_exact(said: &Said) {
    let expected = uninterrupted(&Training::new(Backend::Flex));
    assert_eq!(said.error, "");
    assert!(said.weights == format!("{:?}", expected.weights));
}

#[test]
fn while_the_disk_is_full_backups_fail_and_afterwards_they_succeed() {
    let script = "\"$@\" keep-all@0 fill@5 free@10";
    let Some([said]) = on_a_small_disk("a disk that is full for a while", script) else {
        return;
    };
    assert_exact(&said);
    // The backup of batch 4 may still be in flight, and that of batch 9 may be in time. No prune makes room.
    assert!((4..=6).contains(&said.failed), "{said:?}");
    assert_eq!(said.committed + said.failed, 19);
}

#[test]
fn on_a_full_disk_a_backup_is_restored_and_trained_to_its_end() {
    let script = "\"$@\" stop@8; \"$@\" fill@0";
    let Some([_, said]) = on_a_small_disk("a restore on a full disk", script) else {
        return;
    };
    assert_exact(&said);
    assert!(said.restored >= 6, "{}", said.restored);
    assert_eq!(said.committed, 0);
    assert!(said.failed > 0);
}

#[test]
fn on_a_full_disk_without_a_backup_a_training_is_refused() {
    let script = "\"$@\" fill@0; rm \"$0/ballast\"; \"$@\"";
    let Some([refused, next]) = on_a_small_disk("a first start on a full disk", script) else {
        return;
    };
    for part in ["cannot", "No space left", "check free space"] {
        assert!(refused.error.contains(part), "{}", refused.error);
    }
    assert_exact(&next);
}

#[test]
fn on_a_read_only_disk_a_training_is_refused_and_the_backup_stays() {
    let script = "\"$@\" abort@8; mount -o remount,bind,ro \"$0\"; \"$@\"; \
                  mount -o remount,bind,rw \"$0\"; \"$@\"";
    let Some([refused, next]) = on_a_small_disk("a read-only disk", script) else {
        return;
    };
    for part in ["cannot", "Read-only file system", "can be read and written"] {
        assert!(refused.error.contains(part), "{}", refused.error);
    }
    assert_eq!(refused.restored, 0);
    assert_exact(&next);
    assert!(next.restored >= 6, "{}", next.restored);
}

/// A training with the instructions `told`, in a process that can't write files of more than a kilobyte.
fn limited(dir: &Path, told: &[&str]) -> Command {
    // Without the trap, the signal would end the process. The unit of the limit is half a kilobyte or a whole
    // one.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    shell(script, &command_line(&trainee(Backend::Flex, dir, 1, told)))
}

#[test]
fn while_files_cannot_grow_backups_fail_and_the_last_good_one_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let said = run_well(&mut limited(&dir, &[]));
    assert_exact(&said);
    assert_eq!((said.committed, said.failed), (0, 19));

    run(&mut trainee(Backend::Flex, &dir, 1, &["abort@8"]));
    run(&mut limited(&dir, &["abort@4"]));
    let said = run_well(&mut trainee(Backend::Flex, &dir, 1, &[]));
    assert_exact(&said);
    assert!((6..=7).contains(&said.restored), "{}", said.restored);
}
