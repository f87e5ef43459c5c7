//! Concurrent work, and its replacement if the system provides no threads.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use burn_backup_store::testing::{FaultyFilesystem, Operation, Threads, report};
use burn_backup_store::{Store, StoreError};
use serde_json::json;

use crate::support::{Scratch, assert_is, names, save};

const MIB: usize = 1024 * 1024;

fn large(number: usize) -> Vec<u8> {
    (0..9 * MIB + number)
        .map(|at| (at / 3 + number) as u8)
        .collect()
}

/// Saves a small part and two large ones, some of whose chunks are gathered.
fn save_large(store: &Store, number: usize) -> Result<(), StoreError> {
    let mut staging = store.stage()?;
    for name in ["model", "optimizer"] {
        let mut part = staging.part(name)?;
        let bytes = large(number);
        let (first, rest) = bytes.split_at(5 * MIB);
        let (small, rest) = rest.split_at(1000);
        for chunk in [first, small, rest] {
            part.append(chunk.to_vec())?;
        }
        part.finish()?;
    }
    let mut part = staging.part("state")?;
    part.append(vec![7; 100])?;
    part.finish()?;
    let committed = staging.commit(json!({ "number": number }))?;
    store.prune(&committed, 1).map(drop)
}

fn assert_large(store: &Store, number: usize) {
    let mut newest = store.newest().unwrap().unwrap();
    assert_eq!(
        newest.manifest().state::<serde_json::Value>().unwrap()["number"],
        number
    );
    for name in ["model", "optimizer"] {
        assert!(newest.take_part(name).unwrap() == large(number), "{name}");
    }
    assert_eq!(newest.take_part("state").unwrap(), vec![7; 100]);
}

#[test]
fn without_a_thread_everything_is_saved_and_restored() {
    let scratch = Scratch::new();
    let threads = Threads::refused(|_| true);
    let store = scratch.open();
    save_large(&store, 1).unwrap();
    assert_large(&store, 1);
    drop(store);
    let store = scratch.open();
    assert_large(&store, 1);
    save_large(&store, 2).unwrap();
    assert_large(&store, 2);
    assert!(threads.asked() > 20, "{}", threads.asked());
    assert!(!scratch.root().join("quarantine").exists());
}

#[test]
fn whichever_thread_is_refused_everything_is_saved_and_restored() {
    for refused in 0.. {
        let scratch = Scratch::new();
        let threads = Threads::refused(move |number| number == refused);
        let store = scratch.open();
        save_large(&store, 1).unwrap();
        assert_large(&store, 1);
        assert_eq!(names(scratch.root().join("generations")), ["00000001"]);
        if threads.asked() <= refused {
            report(&format!("threads: {refused} refused, each once"));
            assert!(refused > 10);
            break;
        }
    }
}

#[test]
fn without_a_thread_damage_is_still_damage() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    let mut staging = store.stage().unwrap();
    let mut part = staging.part("model").unwrap();
    part.append(large(2)).unwrap();
    part.finish().unwrap();
    let _ = staging.commit(json!({ "number": 2 })).unwrap();
    let file = scratch.generation(2).join("model.bpk");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[7 * MIB] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let _without = Threads::refused(|_| true);
    assert_is(store.newest().unwrap(), 1);
    assert!(scratch.quarantined(2).exists());
}

/// The threads of all syncs, as seen by a rule.
fn threads_of_syncs(process: impl FnOnce(&Store)) -> BTreeMap<String, HashSet<ThreadId>> {
    let scratch = Scratch::new().with_generations(1);
    let seen: Arc<Mutex<BTreeMap<String, HashSet<ThreadId>>>> = Arc::default();
    let record = seen.clone();
    let store = scratch.open_through(FaultyFilesystem::new(move |operation, path| {
        if matches!(operation, Operation::SyncFile | Operation::SyncDir) {
            let dir = path.parent().unwrap().display().to_string();
            let thread = std::thread::current().id();
            record
                .lock()
                .unwrap()
                .entry(dir)
                .or_default()
                .insert(thread);
        }
        Ok(())
    }));
    seen.lock().unwrap().clear();
    process(&store);
    seen.lock().unwrap().clone()
}

#[test]
fn syncs_of_one_step_run_at_once_under_a_filesystem_that_injects_faults_too() {
    let seen = threads_of_syncs(|store| drop(save(store, 2).unwrap()));
    let most = seen.values().map(HashSet::len).max().unwrap();
    // Two new parts and the manifest, without the linked part.
    assert!(most >= 3, "{seen:?}");
    let seen = threads_of_syncs(|store| drop(store.newest().unwrap()));
    let most = seen.values().map(HashSet::len).max().unwrap();
    assert!(most >= 4, "{seen:?}");
}

#[test]
fn whichever_of_the_concurrent_syncs_fails_the_save_fails_with_its_error() {
    for name in [
        "model.bpk",
        "optimizer.bpk",
        "manifest.json",
        ".staging-00000002",
        "generations",
        "backup",
    ] {
        let scratch = Scratch::new().with_generations(1);
        let is_armed = Arc::new(Mutex::new(false));
        let armed = is_armed.clone();
        let store = scratch.open_through(FaultyFilesystem::new(move |operation, path| {
            let is_sync = matches!(operation, Operation::SyncFile | Operation::SyncDir);
            let is_it = path
                .file_name()
                .is_some_and(|found| found.to_string_lossy().starts_with(name));
            match is_sync && is_it && *armed.lock().unwrap() {
                true => Err(io::Error::other("the device fails").into()),
                false => Ok(()),
            }
        }));
        *is_armed.lock().unwrap() = true;
        let error = save(&store, 2).unwrap_err();
        let StoreError::Io {
            operation, path, ..
        } = &error
        else {
            panic!("{error}");
        };
        let found = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(*operation == "sync" && found.starts_with(name), "{error}");
        *is_armed.lock().unwrap() = false;
        let is_in_place = scratch.generation(2).exists();
        assert_eq!(
            is_in_place,
            matches!(name, "generations" | "backup"),
            "{name}"
        );
        let newest = if is_in_place { 2 } else { 1 };
        assert_is(store.newest().unwrap(), newest);
        let _ = save(&store, 3).unwrap();
        assert_is(store.newest().unwrap(), 3);
    }
}
