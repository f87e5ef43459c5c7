use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_store::{OpenOptions, Store, StoreError};

use crate::support::{Scratch, assert_is, names, save};

const NO_FAULT: usize = usize::MAX / 2;

/// Opens the directory so that once the count of calls is set to 0, the call number `fails` fails.
fn open_failing(scratch: &Scratch, kind: io::ErrorKind, fails: usize) -> (Store, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(NO_FAULT));
    let counted = calls.clone();
    let filesystem = FaultyFilesystem::new(move |_, _| {
        if counted.fetch_add(1, Ordering::Relaxed) == fails {
            return Err(kind.into());
        }
        Ok(())
    });
    let options = OpenOptions::default().filesystem(Arc::new(filesystem));
    let store = Store::open(scratch.root(), options).unwrap();
    (store, calls)
}

#[test]
fn whichever_call_of_a_save_fails_the_last_generation_stays_and_the_next_save_succeeds() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let mut failed = 0;
        for fails in 0.. {
            let scratch = Scratch::new().with_generations(1);
            let (store, calls) = open_failing(&scratch, kind, fails);
            calls.store(0, Ordering::Relaxed);
            let saved = save(&store, 2);
            let is_past_the_end = calls.swap(NO_FAULT, Ordering::Relaxed) <= fails;

            let newest = store.newest().unwrap();
            match saved {
                Ok(_) => assert_is(newest, 2),
                // The rename was done: only its durability is in doubt.
                Err(_) if scratch.generation(2).exists() => assert_is(newest, 2),
                Err(_) => assert_is(newest, 1),
            }
            let committed = save(&store, 3).unwrap();
            store.prune(&committed, 1).unwrap();
            assert_is(store.newest().unwrap(), 3);
            drop(store);
            assert_is(scratch.open().newest().unwrap(), 3);
            assert_eq!(
                names(scratch.root()),
                ["burn-backup.json", "generations", "lock"]
            );

            if is_past_the_end {
                break;
            }
            failed += 1;
        }
        assert!(failed > 15, "only {failed} calls were failed");
    }
}

#[test]
fn whichever_call_of_a_removal_fails_the_newest_is_whole_or_nothing_is_left() {
    for fails in 0.. {
        let scratch = Scratch::new().with_generations(2);
        let (store, calls) = open_failing(&scratch, io::ErrorKind::Other, fails);
        calls.store(0, Ordering::Relaxed);
        let removed = store.remove();
        let is_past_the_end = calls.load(Ordering::Relaxed) <= fails;
        if is_past_the_end {
            removed.unwrap();
            assert!(!scratch.root().exists());
            return;
        }
        if let Some(newest) = scratch.open().newest().unwrap() {
            assert_is(Some(newest), 2);
        }
    }
}

/// Runs `process` on directories made by `prepare`, each time ended at a later call (that call and
/// all after it fail, those that clean up included), until it runs to its end. After each, `check`
/// looks at what the next process finds.
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
            let committed = save(&store, 3)?;
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
fn a_file_whose_sync_failed_is_thrown_away_with_its_generation() {
    let scratch = Scratch::new().with_generations(1);
    let filesystem = FaultyFilesystem::new(|operation, path| {
        if operation == Operation::SyncFile && path.ends_with("optimizer.bpk") {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    });
    let options = OpenOptions::default().filesystem(Arc::new(filesystem));
    let store = Store::open(scratch.root(), options).unwrap();
    let error = save(&store, 2).unwrap_err();
    assert!(
        matches!(&error, StoreError::Io { operation: "sync", path, .. } if path.ends_with("optimizer.bpk")),
        "{error}"
    );
    assert_eq!(names(scratch.root().join("generations")), ["00000001"]);
    assert_eq!(
        names(scratch.root()),
        ["burn-backup.json", "generations", "lock"]
    );
}

#[test]
fn a_part_that_cannot_be_read_is_an_error_and_no_damage() {
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
