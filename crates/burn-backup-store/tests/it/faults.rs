use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn_backup_store::testing::{Failure, FaultyFilesystem, Operation, report};
use burn_backup_store::{OpenOptions, Store, StoreError};

use crate::support::{Scratch, assert_is, frozen_bytes, names, names_besides_spare, save};

/// The count before any relevant call.
const NOT_YET: usize = 0;

/// Opens the directory so that the call number `at` gets `failure`. Counting begins when the count
/// is set to 1.
fn open_failing(scratch: &Scratch, failure: Failure, at: usize) -> (Store, Arc<Calls>) {
    let calls = Arc::new(Calls::default());
    let counted = calls.clone();
    let fails = failure.at(at);
    let filesystem = FaultyFilesystem::new(move |operation, _| match counted.next() {
        NOT_YET => Ok(()),
        call => fails(call, operation),
    });
    let options = OpenOptions::default().filesystem(Arc::new(filesystem));
    let store = Store::open(scratch.root(), options).unwrap();
    (store, calls)
}

/// Counts calls while it is active.
#[derive(Default)]
struct Calls {
    next: AtomicUsize,
}

impl Calls {
    fn next(&self) -> usize {
        let count = |next| (next != NOT_YET).then_some(next + 1);
        let next = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        next.unwrap_or(NOT_YET)
    }

    fn start(&self) {
        self.next.store(1, Ordering::Relaxed);
    }

    /// Returns the number of calls.
    fn stop(&self) -> usize {
        self.next.swap(NOT_YET, Ordering::Relaxed) - 1
    }
}

#[test]
fn whichever_call_of_a_save_fails_the_last_generation_stays_and_the_next_save_succeeds() {
    for failure in Failure::ALL {
        let (mut linked, mut written) = (0, 0);
        for at in 1.. {
            let scratch = Scratch::new().with_generations(1);
            let (store, calls) = open_failing(&scratch, failure, at);
            // After a read, a part can be linked.
            assert_is(store.newest().unwrap(), 1);
            calls.start();
            let saved = save(&store, 2);
            let made = calls.stop();
            match &saved {
                Ok(committed) if committed.linked() > 0 => linked += 1,
                Ok(_) => written += 1,
                Err(_) => {}
            }

            let newest = store.newest().unwrap();
            match saved {
                Ok(_) => assert_is(newest, 2),
                // The rename was executed, and only its durability is uncertain.
                Err(_) if scratch.generation(2).exists() => assert_is(newest, 2),
                Err(_) => assert_is(newest, 1),
            }
            let committed = save(&store, 3).unwrap();
            assert_eq!(committed.linked(), frozen_bytes());
            store.prune(&committed, 1).unwrap();
            assert_is(store.newest().unwrap(), 3);
            drop(store);
            assert_is(scratch.open().newest().unwrap(), 3);
            assert_eq!(
                names(scratch.root()),
                ["burn-backup.json", "generations", "lock"]
            );

            if made < at {
                report(&format!("saves, {failure:?}: failed at {made} calls"));
                assert!(made > 15);
                assert!(linked > 0, "{failure:?}");
                // A failed link does no harm, because the part is then written.
                let is_harmless = matches!(failure, Failure::Device | Failure::Full);
                assert_eq!(written, if is_harmless { 3 } else { 0 }, "{failure:?}");
                break;
            }
        }
    }
}

#[test]
fn whichever_call_of_a_removal_fails_the_newest_is_whole_or_nothing_is_left() {
    for failure in Failure::ALL {
        for at in 1.. {
            let scratch = Scratch::new().with_generations(2);
            let (store, calls) = open_failing(&scratch, failure, at);
            calls.start();
            let removed = store.remove();
            let made = calls.stop();
            let was_taken_away = !scratch.root().join("generations").exists();
            if made < at {
                removed.unwrap();
                assert!(!scratch.root().exists());
                report(&format!("removals, {failure:?}: failed at {made} calls"));
                assert!(made > 15);
                break;
            }
            let newest = scratch.open().newest().unwrap();
            if was_taken_away {
                assert!(newest.is_none());
            } else {
                assert!(removed.is_err());
                assert_is(newest, 2);
            }
        }
    }
}

/// Opens the directory with a filesystem that fails where `fails` returns true.
fn open_faulty(
    scratch: &Scratch,
    kind: io::ErrorKind,
    fails: impl Fn(Operation, &Path) -> bool + Send + Sync + 'static,
) -> Store {
    let filesystem = FaultyFilesystem::new(move |operation, path| match fails(operation, path) {
        true => Err(kind.into()),
        false => Ok(()),
    });
    let options = OpenOptions::default().filesystem(Arc::new(filesystem));
    Store::open(scratch.root(), options).unwrap()
}

#[test]
fn a_damaged_generation_that_cannot_be_moved_is_skipped() {
    let scratch = Scratch::new().with_generations(2);
    std::fs::write(scratch.generation(2).join("model.bpk"), b"").unwrap();
    let full =
        |operation, path: &Path| operation == Operation::CreateDir && path.ends_with("quarantine");
    let store = open_faulty(&scratch, io::ErrorKind::StorageFull, full);
    assert_is(store.newest().unwrap(), 1);
    assert!(scratch.generation(2).exists());
    drop(store);

    std::fs::write(scratch.generation(1).join("model.bpk"), b"").unwrap();
    let store = open_faulty(&scratch, io::ErrorKind::StorageFull, full);
    let error = store.newest().err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    drop(store);
    let error = scratch.open().newest().err().unwrap();
    assert!(matches!(error, StoreError::NoneLeft { .. }), "{error}");
}

#[test]
fn a_damaged_identity_on_a_full_disk_does_not_prevent_a_restore() {
    let scratch = Scratch::new().with_generations(2);
    let identity = scratch.open().identity().clone();
    std::fs::write(scratch.root().join("burn-backup.json"), b"damaged").unwrap();
    let store = open_faulty(&scratch, io::ErrorKind::StorageFull, |operation, _| {
        matches!(operation, Operation::CreateDir | Operation::CreateFile)
    });
    assert_eq!(store.identity(), &identity);
    assert_is(store.newest().unwrap(), 2);
    drop(store);
    assert_eq!(scratch.open().identity(), &identity);
    assert_eq!(
        names(scratch.root().join("quarantine/burn-backup.json")),
        ["burn-backup.json", "reason.txt"]
    );
}

#[test]
fn failures_on_unneeded_files_do_not_prevent_a_restore() {
    let scratch = Scratch::new().with_generations(2);
    let left = scratch.root().join(".staging-00000003-0123456789abcdef");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("model.bpk"), b"half").unwrap();
    let store = open_faulty(&scratch, io::ErrorKind::Other, |operation, path| {
        let is_older = operation == Operation::List && path.ends_with("00000001");
        is_older || operation == Operation::RemoveFile
    });
    assert_is(store.newest().unwrap(), 2);
}

/// Runs `process` on directories made by `prepare`. Each time it ends at a later call: that call
/// and all later ones fail, including cleanup.
///
/// Stops when `process` completes. After each run, `check` examines what the next process finds.
fn end_at_every_call(
    prepare: impl Fn() -> Scratch,
    process: impl Fn(&Scratch, OpenOptions) -> Result<(), StoreError>,
    check: impl Fn(&Scratch),
) {
    for ends in 0.. {
        let scratch = prepare();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let filesystem = FaultyFilesystem::new(move |_, _| {
            if counted.fetch_add(1, Ordering::Relaxed) >= ends {
                return Err(io::Error::other("the process has ended").into());
            }
            Ok(())
        });
        let options = OpenOptions::default().filesystem(Arc::new(filesystem));
        let done = process(&scratch, options);
        check(&scratch);
        if calls.load(Ordering::Relaxed) <= ends {
            done.unwrap();
            assert!(ends > 5, "only {ends} calls were made");
            return;
        }
    }
}

#[test]
fn ended_at_any_call_of_the_first_save_the_next_process_finds_it_whole_or_not_at_all() {
    end_at_every_call(
        Scratch::new,
        |scratch, options| save(&Store::open(scratch.root(), options)?, 1).map(drop),
        |scratch| {
            let store = scratch.open();
            if let Some(newest) = store.newest().unwrap() {
                assert_is(Some(newest), 1);
            }
            let _ = save(&store, 2).unwrap();
            assert_is(store.newest().unwrap(), 2);
        },
    );
}

#[test]
fn ended_at_any_call_of_save_and_prune_the_next_process_finds_the_old_or_the_new() {
    end_at_every_call(
        || Scratch::new().with_generations(2),
        |scratch, options| {
            let store = Store::open(scratch.root(), options)?;
            assert_is(store.newest()?, 2);
            let committed = save(&store, 3)?;
            assert_eq!(committed.linked(), frozen_bytes());
            store.prune(&committed, 1).map(drop)
        },
        |scratch| {
            let store = scratch.open();
            let newest = store.newest().unwrap();
            let number = newest.as_ref().unwrap().id().number();
            assert!((2..=3).contains(&number));
            assert_is(newest, number);
            assert!(!scratch.root().join("quarantine").exists());
        },
    );
}

#[test]
fn ended_at_any_call_of_a_fallback_the_next_process_falls_back_too() {
    end_at_every_call(
        || {
            let scratch = Scratch::new().with_generations(2);
            std::fs::write(scratch.generation(2).join("model.bpk"), b"").unwrap();
            std::fs::remove_file(scratch.root().join("burn-backup.json")).unwrap();
            scratch
        },
        |scratch, options| {
            let store = Store::open(scratch.root(), options)?;
            store.newest().map(drop)
        },
        |scratch| assert_is(scratch.open().newest().unwrap(), 1),
    );
}

#[test]
fn ended_at_any_call_of_the_removal_the_next_process_finds_the_newest_or_nothing() {
    end_at_every_call(
        || {
            let scratch = Scratch::new().with_generations(3);
            std::fs::write(scratch.generation(3).join("model.bpk"), b"").unwrap();
            assert_is(scratch.open().newest().unwrap(), 2);
            scratch
        },
        |scratch, options| Store::open(scratch.root(), options)?.remove(),
        |scratch| {
            if let Some(newest) = scratch.open().newest().unwrap() {
                assert_is(Some(newest), 2);
            }
        },
    );
}

#[test]
fn a_file_whose_sync_failed_is_discarded_with_its_generation() {
    for name in ["model.bpk", "optimizer.bpk", "manifest.json"] {
        let scratch = Scratch::new().with_generations(1);
        let after = Arc::new(Mutex::new(None::<Vec<(Operation, bool)>>));
        let seen = after.clone();
        let filesystem = FaultyFilesystem::new(move |operation, path| {
            let mut seen = seen.lock().unwrap();
            match seen.as_mut() {
                Some(seen) => seen.push((operation, path.ends_with(name))),
                None if operation == Operation::SyncFile && path.ends_with(name) => {
                    *seen = Some(Vec::new());
                    return Err(io::ErrorKind::Other.into());
                }
                None => {}
            }
            Ok(())
        });
        let options = OpenOptions::default().filesystem(Arc::new(filesystem));
        let store = Store::open(scratch.root(), options).unwrap();
        let error = save(&store, 2).unwrap_err();
        assert!(
            matches!(&error, StoreError::Io { path, .. } if path.ends_with(name)),
            "{error}"
        );
        assert_eq!(names(scratch.root().join("generations")), ["00000001"]);
        assert_eq!(
            names(scratch.root()),
            ["burn-backup.json", "generations", "lock"]
        );
        let after = after.lock().unwrap().take().unwrap();
        assert!(after.contains(&(Operation::RemoveFile, true)));
        // Other files may be synced at the same time.
        for retried in [Operation::Write, Operation::SyncFile] {
            assert!(!after.contains(&(retried, true)), "{name}: {after:?}");
        }
        let is_renamed = |(operation, _): &_| *operation == Operation::Rename;
        assert!(!after.iter().any(is_renamed), "{name}: {after:?}");
    }
}

#[test]
fn a_part_that_cannot_be_read_is_an_error_and_not_damage() {
    let scratch = Scratch::new().with_generations(2);
    let filesystem = FaultyFilesystem::new(|operation, path| {
        if operation == Operation::Read && path.ends_with("00000002/model.bpk") {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    });
    let options = OpenOptions::default().filesystem(Arc::new(filesystem));
    let store = Store::open(scratch.root(), options).unwrap();
    let error = store.newest().err().unwrap();
    assert!(
        matches!(
            error,
            StoreError::Io {
                operation: "read",
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("move the backup's directory away"),
        "{error}"
    );
    drop(store);
    assert_is(scratch.open().newest().unwrap(), 2);
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    let scratch = Scratch::new();
    let filesystem = FaultyFilesystem::new(|operation, _| match operation {
        Operation::CreateFile | Operation::CreateDir | Operation::Lock => {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        _ => Ok(()),
    });
    let options = OpenOptions::default().filesystem(Arc::new(filesystem));
    let error = Store::open(scratch.root(), options).err().unwrap();
    assert!(
        matches!(
            error,
            StoreError::Io {
                operation: "create",
                ..
            }
        ),
        "{error}"
    );
}

/// Opens the directory so that the calls selected by `fails` fail while the switch is on.
fn open_with_switch(
    scratch: &Scratch,
    fails: impl Fn(Operation, &Path) -> bool + Send + Sync + 'static,
) -> (Store, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let is_on = switch.clone();
    let store = open_faulty(scratch, io::ErrorKind::Other, move |operation, path| {
        is_on.load(Ordering::Relaxed) && fails(operation, path)
    });
    (store, switch)
}

/// Whether a path is a directory that is being removed, or inside one.
fn is_being_removed(path: &Path) -> bool {
    path.iter()
        .any(|name| name.to_string_lossy().starts_with(".staging-removed"))
}

#[test]
fn a_failed_removal_is_retried_at_the_next_prune() {
    for failing in [
        Operation::RemoveFile,
        Operation::RemoveDir,
        Operation::List,
        Operation::Rename,
    ] {
        let scratch = Scratch::new().with_generations(3);
        let (store, switch) = open_with_switch(&scratch, move |operation, path| {
            operation == failing && is_being_removed(path)
        });
        let committed = save(&store, 4).unwrap();
        switch.store(true, Ordering::Relaxed);
        let error = store.prune(&committed, 1).unwrap_err();
        assert!(
            error.to_string().contains("after the next backup"),
            "{error}"
        );
        assert_is(store.newest().unwrap(), 4);
        // The call may still fail, but the error was already returned.
        let again = store.prune(&committed, 1);
        assert_eq!(again.is_err(), failing == Operation::Rename);
        switch.store(false, Ordering::Relaxed);
        let committed = save(&store, 5).unwrap();
        store.prune(&committed, 1).unwrap();
        assert_eq!(
            names_besides_spare(scratch.root()),
            ["burn-backup.json", "generations", "lock"],
            "{failing:?}"
        );
        assert_eq!(names(scratch.root().join("generations")), ["00000005"]);
        assert_is(store.newest().unwrap(), 5);
    }
}

#[test]
fn a_generation_that_cannot_be_removed_does_not_save_the_others() {
    for failing in [Operation::Rename, Operation::RemoveFile] {
        let scratch = Scratch::new().with_generations(4);
        let (store, switch) = open_with_switch(&scratch, move |operation, path| {
            let is_oldest = path.iter().any(|name| {
                name.to_string_lossy()
                    .starts_with(".staging-removed-generations+00000001")
            });
            operation == failing && is_oldest
        });
        let committed = save(&store, 5).unwrap();
        switch.store(true, Ordering::Relaxed);
        assert!(store.prune(&committed, 1).is_err());
        for number in 2..=4 {
            assert!(
                !scratch.generation(number).exists(),
                "{failing:?}: {number}"
            );
        }
        assert_is(store.newest().unwrap(), 5);
    }
}

#[test]
fn a_dropped_generation_that_could_not_be_removed_is_removed_at_the_next_prune() {
    let scratch = Scratch::new();
    let (store, switch) = open_with_switch(&scratch, |operation, path| {
        let is_staged = path.iter().any(|name| {
            let name = name.to_string_lossy();
            name.starts_with(".staging-0")
        });
        matches!(operation, Operation::RemoveFile | Operation::SyncFile) && is_staged
    });
    let _ = save(&store, 1).unwrap();
    switch.store(true, Ordering::Relaxed);
    for _ in 1..=3 {
        assert!(save(&store, 2).is_err());
    }
    assert_eq!(names(scratch.root()).len(), 6, "three are left");
    switch.store(false, Ordering::Relaxed);
    let committed = save(&store, 3).unwrap();
    store.prune(&committed, 1).unwrap();
    assert_eq!(
        names_besides_spare(scratch.root()),
        ["burn-backup.json", "generations", "lock"]
    );
}

/// Windows does not let the directory be removed while a file in it is open.
#[cfg(unix)]
#[test]
fn whichever_call_fails_while_the_directory_is_recreated_the_next_save_succeeds() {
    for failure in Failure::ALL {
        for at in 1.. {
            let scratch = Scratch::new().with_generations(2);
            let (store, calls) = open_failing(&scratch, failure, at);
            assert_is(store.newest().unwrap(), 2);
            std::fs::remove_dir_all(scratch.root()).unwrap();
            calls.start();
            let saved = save(&store, 3).map(drop);
            let made = calls.stop();
            let committed = save(&store, 4).unwrap();
            store.prune(&committed, 1).unwrap();
            assert!(committed.id().number() > 2, "numbers continue");
            assert_is(store.newest().unwrap(), 4);
            drop(store);
            assert_is(scratch.open().newest().unwrap(), 4);
            if made < at {
                saved.unwrap();
                report(&format!(
                    "directories created again, {failure:?}: failed at {made} calls"
                ));
                assert!(made > 40, "{made}");
                break;
            }
        }
    }
}

#[test]
fn the_sweep_continues_after_a_failed_removal() {
    let scratch = Scratch::new().with_generations(1);
    let left = |nonce: u64| {
        scratch
            .root()
            .join(format!(".staging-00000002-{nonce:016x}"))
    };
    for nonce in 1..=5 {
        std::fs::create_dir(left(nonce)).unwrap();
        for part in ["model.bpk", "optimizer.bpk"] {
            std::fs::write(left(nonce).join(part), b"half").unwrap();
        }
    }
    // The first removal in this directory fails, whichever the file.
    let (stuck_in, stuck) = (left(3), Mutex::new(None));
    let store = open_faulty(&scratch, io::ErrorKind::Other, move |operation, path| {
        let is_there = operation == Operation::RemoveFile && path.starts_with(&stuck_in);
        is_there && stuck.lock().unwrap().get_or_insert(path.to_path_buf()) == path
    });
    assert_is(store.newest().unwrap(), 1);
    // The files of one generation are kept to be overwritten.
    let mut kept = [1, 2, 4, 5]
        .map(left)
        .into_iter()
        .filter(|left| left.exists());
    assert!(kept.next().is_none_or(|left| names(left).len() == 2));
    assert_eq!(kept.next(), None);
    drop(store);
    assert_eq!(names(left(3)).len(), 1, "the rest of it is removed");
    // A training ends like this. All known generations can be removed here.
    scratch.open().remove().unwrap();
    assert!(!scratch.root().exists());
}

#[test]
fn a_damaged_generation_that_stays_in_its_place_does_not_count() {
    let scratch = Scratch::new().with_generations(3);
    std::fs::write(scratch.generation(3).join("model.bpk"), b"").unwrap();
    let store = open_faulty(&scratch, io::ErrorKind::StorageFull, |operation, path| {
        operation == Operation::CreateDir && path.ends_with("quarantine")
    });
    assert_is(store.newest().unwrap(), 2);
    let in_place = || names(scratch.root().join("generations"));
    let committed = save(&store, 4).unwrap();
    store.prune(&committed, 2).unwrap();
    assert_eq!(in_place(), ["00000002", "00000003", "00000004"]);
    // Once all kept generations are newer, the damaged one has no use.
    let committed = save(&store, 5).unwrap();
    store.prune(&committed, 2).unwrap();
    assert_eq!(in_place(), ["00000004", "00000005"]);
}

#[test]
fn a_generation_without_a_readable_manifest_does_not_count() {
    let scratch = Scratch::new().with_generations(3);
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 3);
    std::fs::write(scratch.generation(3).join("manifest.json"), b"damaged").unwrap();
    drop(store);
    // The program saves without a read.
    let store = scratch.open();
    let committed = save(&store, 4).unwrap();
    store.prune(&committed, 2).unwrap();
    assert_eq!(
        names(scratch.root().join("generations")),
        ["00000002", "00000003", "00000004"]
    );
}
