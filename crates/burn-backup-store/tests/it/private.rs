//! What is written is the user's alone, and nothing that somebody puts in its way leads out of the
//! directory.
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
fn what_is_written_is_private_whatever_the_umask() {
    let scratch = Scratch::new();
    let home = scratch.root().with_file_name("home");
    fs::create_dir(&home).unwrap();
    let name = "private::what_is_written_is_private_whatever_the_umask";
    in_a_process(name, "umask 000", &home, || {
        // Theirs stays as it is.
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
        let mut looked_at = 0;
        for path in tree("theirs").into_keys().filter(|path| *path != damaged) {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{}", path.display());
            looked_at += 1;
        }
        assert!(looked_at > 20, "{looked_at}");
        drop(staging);
    });
}

/// A filesystem on which somebody does something once, right before a call: after the store has
/// looked.
fn meddled_with(
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
fn a_link_that_comes_to_the_lock_after_the_look_truncates_nothing() {
    for is_hard in [false, true] {
        let scratch = Scratch::new().with_generations(1);
        let victim = victim(&scratch);
        let filesystem = meddled_with(Operation::Lock, "lock", {
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
        // A file of two names can be locked. It is not written to.
        assert_eq!(opened.is_ok(), is_hard);
        if let Err(error) = opened.map(drop) {
            assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        }
        assert_eq!(fs::read(&victim).unwrap(), b"of value");
    }
}

#[test]
fn a_link_or_a_pipe_that_comes_to_a_file_after_the_look_is_not_read() {
    let pipe = |path: &Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    };
    for is_pipe in [false, true] {
        for name in ["model.bpk", "manifest.json"] {
            let scratch = Scratch::new().with_generations(2);
            let store = scratch.open_through(meddled_with(
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
            // At the second look it is no file.
            match name {
                "model.bpk" => assert_is(store.newest().unwrap(), 1),
                _ => assert!(store.newest().is_ok()),
            }
        }
    }
}

#[test]
fn a_link_that_comes_to_what_is_to_be_linked_is_not_taken_over() {
    let scratch = Scratch::new().with_generations(1);
    let victim = victim(&scratch);
    let from = scratch.generation(1).join("frozen.bpk");
    let store = scratch.open_through(meddled_with(Operation::Link, "frozen.bpk", move |_| {
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
