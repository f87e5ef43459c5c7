//! Network and layered file systems: directories that can't be synced, generations that can't be
//! renamed, and reads that fail once.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_backup_store::testing::{Fault, FaultyFilesystem, Operation};
use burn_backup_store::{OpenOptions, Store, StoreError};

use crate::support::{Scratch, assert_is, collect_warnings, names, save, warnings};

#[test]
fn a_file_system_that_cannot_sync_directories_is_used_and_reported_once() {
    collect_warnings();
    for kind in [ErrorKind::InvalidInput, ErrorKind::Unsupported] {
        let scratch = Scratch::new();
        // If it exists, nothing outside of the test's own directory is synced.
        fs::create_dir(scratch.root()).unwrap();
        let open = || {
            scratch.open_through(FaultyFilesystem::new(move |operation, _| match operation {
                Operation::SyncDir => Err(kind.into()),
                _ => Ok(()),
            }))
        };
        let store = open();
        for number in 1..=4 {
            let committed = save(&store, number).unwrap();
            store.prune(&committed, 2).unwrap();
        }
        fs::write(scratch.generation(4).join("model.bpk"), b"damaged").unwrap();
        assert_is(store.newest().unwrap(), 3);
        let text = warnings(scratch.root().parent().unwrap());
        let about_syncs: Vec<_> = text
            .iter()
            .filter(|text| text.contains("can't sync"))
            .collect();
        assert_eq!(about_syncs.len(), 1, "{text:?}");
        assert!(about_syncs[0].contains("a power cut may undo"), "{text:?}");
        drop(store);
        open().remove().unwrap();
        assert!(!scratch.root().exists());
    }
}

#[test]
fn a_directory_whose_sync_really_fails_is_an_error() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    drop(store);
    let is_armed = Arc::new(AtomicUsize::new(0));
    let armed = is_armed.clone();
    let store = scratch.open_through(FaultyFilesystem::new(move |operation, _| {
        match operation == Operation::SyncDir && armed.load(Ordering::Relaxed) > 0 {
            true => Err(io::Error::other("the device fails").into()),
            false => Ok(()),
        }
    }));
    is_armed.store(1, Ordering::Relaxed);
    let error = store.newest().unwrap_err();
    assert!(
        error.to_string().contains("may not survive a power cut"),
        "{error}"
    );
    assert!(save(&store, 2).is_err());
    is_armed.store(0, Ordering::Relaxed);
    assert_is(store.newest().unwrap(), 1);
}

/// A directory whose generations up to `in_image` came with an image and can't be renamed.
fn layered(scratch: &Scratch, in_image: u64) -> Store {
    scratch.open_through(FaultyFilesystem::new(move |operation, path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name
            .strip_prefix(".staging-removed-generations+")
            .and_then(|rest| rest.split('-').next())
            .or((path.parent().is_some_and(|dir| dir.ends_with("quarantine"))).then_some(&name))
            .and_then(|number| number.parse::<u64>().ok());
        let is_whole_dir = name.starts_with(".staging-removed-generations-");
        let is_lower = is_whole_dir || number.is_some_and(|number| number <= in_image);
        match operation == Operation::Rename && is_lower {
            true => Err(ErrorKind::CrossesDevices.into()),
            false => Ok(()),
        }
    }))
}

#[test]
fn a_backup_that_came_with_an_image_is_restored_and_removed_in_its_place() {
    collect_warnings();
    let scratch = Scratch::new().with_generations(3);
    let store = layered(&scratch, 3);
    assert_is(store.newest().unwrap(), 3);
    for number in 4..=6 {
        let committed = save(&store, number).unwrap();
        store.prune(&committed, 1).unwrap();
        let left = names(scratch.root().join("generations"));
        assert_eq!(left, [format!("{number:08}")]);
    }
    let text = warnings(&scratch.root());
    assert_eq!(text.len(), 1, "{text:?}");
    assert!(text[0].contains("image"), "{text:?}");
    drop(store);
    assert_is(layered(&scratch, 3).newest().unwrap(), 6);
    layered(&scratch, 3).remove().unwrap();
    assert!(!scratch.root().exists());
}

#[test]
fn a_damaged_generation_that_came_with_an_image_is_skipped() {
    let scratch = Scratch::new().with_generations(3);
    fs::write(scratch.generation(3).join("model.bpk"), b"damaged").unwrap();
    let store = layered(&scratch, 3);
    assert_is(store.newest().unwrap(), 2);
    assert!(scratch.generation(3).exists());
    let committed = save(&store, 4).unwrap();
    store.prune(&committed, 1).unwrap();
    assert_eq!(names(scratch.root().join("generations")), ["00000004"]);
    assert_is(store.newest().unwrap(), 4);
}

#[test]
fn ended_at_any_call_of_a_removal_in_place_the_newest_is_whole_or_everything_is_damaged() {
    for ends in 0.. {
        let scratch = Scratch::new().with_generations(3);
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let store = scratch.open_through(FaultyFilesystem::new(move |operation, path: &Path| {
            if counted.fetch_add(1, Ordering::Relaxed) >= ends + 1_000_000 {
                return Err(io::Error::other("the process has ended").into());
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_lower = name.starts_with(".staging-removed-generations");
            match operation == Operation::Rename && is_lower {
                true => Err(Fault::from(ErrorKind::CrossesDevices)),
                false => Ok(()),
            }
        }));
        calls.store(1_000_000, Ordering::Relaxed);
        let removed = store.remove();
        if calls.load(Ordering::Relaxed) <= ends + 1_000_000 {
            removed.unwrap();
            assert!(!scratch.root().exists());
            assert!(ends > 30, "{ends}");
            break;
        }
        match scratch.open().newest() {
            // An older generation never comes back.
            Ok(Some(newest)) => assert_is(Some(newest), 3),
            Ok(None) | Err(StoreError::NoneLeft { .. }) => {}
            Err(error) => panic!("ended at {ends}: {error}"),
        }
    }
}

#[test]
fn a_read_that_fails_once_is_retried() {
    for name in ["model.bpk", "manifest.json", "burn-backup.json"] {
        for call in [Operation::Read, Operation::OpenFile] {
            let scratch = Scratch::new().with_generations(2);
            let identity = scratch.open().identity().clone();
            let failures = Arc::new(AtomicUsize::new(0));
            let failed = failures.clone();
            let store = scratch.open_through(FaultyFilesystem::new(move |operation, path| {
                let is_first = || failed.fetch_add(1, Ordering::Relaxed) == 0;
                match operation == call && path.ends_with(name) && is_first() {
                    true => Err(io::Error::other("stale").into()),
                    false => Ok(()),
                }
            }));
            assert_is(store.newest().unwrap(), 2);
            assert_eq!(store.identity(), &identity);
            assert!(failures.load(Ordering::Relaxed) > 1, "{name}");
            assert!(!scratch.root().join("quarantine").exists());
        }
    }
}

#[test]
fn bytes_that_are_wrong_once_are_read_again_before_they_count_as_damage() {
    for name in [
        "00000002/model.bpk",
        "00000002/manifest.json",
        "burn-backup.json",
    ] {
        let scratch = Scratch::new().with_generations(2);
        let identity = scratch.open().identity().clone();
        let file = match name {
            "burn-backup.json" => scratch.root().join(name),
            _ => scratch.root().join("generations").join(name),
        };
        let whole = fs::read(&file).unwrap();
        let mut wrong = whole.clone();
        wrong[17] ^= 1;
        let answers = Mutex::new(vec![whole.clone(), wrong]);
        let filesystem = FaultyFilesystem::new(move |operation, path| {
            if operation == Operation::OpenFile
                && path.ends_with(name)
                && let Some(answer) = answers.lock().unwrap().pop()
            {
                fs::write(path, answer).unwrap();
            }
            Ok(())
        });
        let options = OpenOptions::default().filesystem(Arc::new(filesystem));
        let store = Store::open(scratch.root(), options).unwrap();
        assert_is(store.newest().unwrap(), 2);
        assert_eq!(store.identity(), &identity);
        assert!(!scratch.root().join("quarantine").exists(), "{name}");
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
}
