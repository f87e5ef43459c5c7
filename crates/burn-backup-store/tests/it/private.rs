//! Written files are private, and nothing that another user puts in their way redirects the store
//! out of the directory.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_store::{Filesystem as _, OpenOptions, RealFilesystem, Store, StoreError};
use std::sync::Arc;

use crate::support::{Scratch, assert_is, in_a_process, names, save, tree};

#[test]
fn files_are_private_whatever_the_umask() {
    let scratch = Scratch::new();
    let home = scratch.root().with_file_name("home");
    fs::create_dir(&home).unwrap();
    let name = "private::files_are_private_whatever_the_umask";
    in_a_process(name, "umask 000", &home, || {
        // The other user's directory stays unchanged.
        fs::create_dir("theirs").unwrap();
        let root = Path::new("theirs/deep/backup");
        let store = Store::open(root, OpenOptions::default()).unwrap();
        for number in 1..=3 {
            let _ = save(&store, number).unwrap();
        }
        fs::write(root.join("generations/00000003/model.bpk"), b"damaged").unwrap();
        drop(store);
        fs::write(root.join("burn-backup.json"), b"damaged").unwrap();
        let damaged = root.join("quarantine/burn-backup.json/burn-backup.json");
        let store = Store::open(root, OpenOptions::default()).unwrap();
        assert_is(store.newest().unwrap(), 2);
        let staging = store.stage().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(Path::new("theirs")), 0o777);
        let mut examined = 0;
        for path in tree("theirs").into_keys().filter(|path| *path != damaged) {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{}", path.display());
            examined += 1;
        }
        assert!(examined > 20, "{examined}");
        drop(staging);
    });
}

/// A filesystem on which another user interferes once, right before a call and after the store's
/// check.
fn tampering_with(
    call: Operation,
    name: &'static str,
    meddle: impl FnOnce(&Path) + Send + 'static,
) -> FaultyFilesystem {
    let meddle = Mutex::new(Some(meddle));
    FaultyFilesystem::new(move |operation, path| {
        if operation == call && path.ends_with(name) {
            let meddle = meddle.lock().unwrap().take();
            meddle.into_iter().for_each(|meddle| meddle(path));
        }
        Ok(())
    })
}

fn victim(scratch: &Scratch) -> PathBuf {
    let victim = scratch.root().with_file_name("victim.txt");
    fs::write(&victim, b"of value").unwrap();
    victim
}

#[test]
fn a_link_put_at_the_lock_after_the_check_truncates_nothing() {
    for is_hard in [false, true] {
        let scratch = Scratch::new().with_generations(1);
        let victim = victim(&scratch);
        let filesystem = tampering_with(Operation::Lock, "lock", {
            let victim = victim.clone();
            move |lock| {
                fs::remove_file(lock).unwrap();
                match is_hard {
                    true => fs::hard_link(victim, lock).unwrap(),
                    false => symlink(victim, lock).unwrap(),
                }
            }
        });
        let options = OpenOptions::default().filesystem(Arc::new(filesystem));
        let opened = Store::open(scratch.root(), options);
        // A file with two names (a hard link) can be locked, but is not written.
        assert_eq!(opened.is_ok(), is_hard);
        if let Err(error) = opened.map(drop) {
            assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        }
        assert_eq!(fs::read(&victim).unwrap(), b"of value");
    }
}

#[test]
fn a_link_or_a_pipe_put_at_a_file_after_the_check_is_not_read() {
    let pipe = |path: &Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    };
    for is_pipe in [false, true] {
        for name in ["model.bpk", "manifest.json"] {
            let scratch = Scratch::new().with_generations(2);
            let store = scratch.open_through(tampering_with(
                Operation::OpenFile,
                match name {
                    "model.bpk" => "00000002/model.bpk",
                    _ => "00000002/manifest.json",
                },
                move |path| {
                    let away = path.with_file_name("away");
                    fs::rename(path, &away).unwrap();
                    match is_pipe {
                        true => pipe(path),
                        false => symlink(&away, path).unwrap(),
                    }
                },
            ));
            // At the second check it is not a file.
            match name {
                "model.bpk" => assert_is(store.newest().unwrap(), 1),
                _ => assert!(store.newest().is_ok()),
            }
        }
    }
}

#[test]
fn a_link_put_at_a_part_to_be_linked_is_not_adopted() {
    let scratch = Scratch::new().with_generations(1);
    let victim = victim(&scratch);
    let from = scratch.generation(1).join("frozen.bpk");
    let store = scratch.open_through(tampering_with(Operation::Link, "frozen.bpk", move |_| {
        fs::remove_file(&from).unwrap();
        symlink(&victim, &from).unwrap();
    }));
    assert_is(store.newest().unwrap(), 1);
    let committed = save(&store, 2).unwrap();
    assert_eq!(committed.linked(), 0);
    assert_is(store.newest().unwrap(), 2);
}

#[test]
fn syncing_follows_no_link_and_waits_for_no_pipe() {
    let scratch = Scratch::new();
    let victim = victim(&scratch);
    let link = victim.with_file_name("link");
    symlink(&victim, &link).unwrap();
    let pipe = victim.with_file_name("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [&link, &pipe] {
        assert!(RealFilesystem.sync_file(path).is_err());
        assert!(RealFilesystem.open_file(path).is_err());
        assert!(RealFilesystem.lock(path, "nobody").is_err());
    }
    assert!(RealFilesystem.sync_dir(&pipe).is_err());
    RealFilesystem.sync_file(&victim).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"of value");
    assert_eq!(
        names(victim.parent().unwrap()),
        ["link", "pipe", "victim.txt"]
    );
}
