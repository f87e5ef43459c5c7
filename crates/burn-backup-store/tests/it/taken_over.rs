//! The directory is removed or moved while its training runs, and another training may begin at its
//! path. The other training's backups are never touched, and this training continues if it can.
//!
//! Windows does not let a directory be moved while a file in it is open.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn_backup_store::testing::{FaultyFilesystem, report};
use burn_backup_store::{GenerationId, OpenOptions, Store, StoreError};

use crate::support::{
    Scratch, assert_is, collect_warnings, in_a_process, names, save, tree, warnings,
};

/// What happens to the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Removed,
    Moved,
}

const LOSSES: [Loss; 2] = [Loss::Removed, Loss::Moved];

impl Scratch {
    /// The path of the directory after a move.
    fn away(&self) -> PathBuf {
        self.root().with_file_name("backup.old")
    }

    fn lose(&self, loss: Loss) {
        match loss {
            Loss::Removed => fs::remove_dir_all(self.root()).unwrap(),
            Loss::Moved => fs::rename(self.root(), self.away()).unwrap(),
        }
    }
}

/// Another training with at least as many generations as the first one.
fn other_training(scratch: &Scratch) -> Store {
    let store = scratch.open();
    for number in 101..=104 {
        let _ = save(&store, number).unwrap();
    }
    store
}

#[track_caller]
fn assert_taken_over<T>(outcome: Result<T, StoreError>, by: &str) {
    let error = outcome.err().unwrap();
    assert!(matches!(error, StoreError::TakenOver { .. }), "{error}");
    assert!(error.to_string().contains(by), "{error}");
    assert!(
        !error.to_string().contains("are unchanged"),
        "a false statement: {error}"
    );
}

#[test]
fn a_missing_directory_is_created_again_and_reported_once() {
    collect_warnings();
    for loss in LOSSES {
        let scratch = Scratch::new();
        let store = scratch.open();
        let identity = store.identity().clone();
        for number in 1..=3 {
            let committed = save(&store, number).unwrap();
            store.prune(&committed, 1).unwrap();
        }
        scratch.lose(loss);
        for number in 4..=15 {
            let committed = save(&store, number).unwrap();
            // Numbers continue, so that a later generation is always newer.
            assert_eq!(committed.id(), GenerationId::new(number), "{loss:?}");
            store.prune(&committed, 1).unwrap();
            assert_is(store.newest().unwrap(), number);
        }
        let text = warnings(&scratch.root());
        assert_eq!(text.len(), 1, "{text:?}");
        assert!(text[0].contains("created again"), "{text:?}");
        drop(store);
        let store = scratch.open();
        assert_eq!(store.identity(), &identity);
        assert_is(store.newest().unwrap(), 15);
        assert_eq!(names(scratch.root().join("generations")), ["00000015"]);
    }
}

#[test]
fn another_trainings_backup_at_the_path_is_left_alone() {
    for loss in LOSSES {
        let scratch = Scratch::new();
        let store = scratch.open();
        let _ = save(&store, 1).unwrap();
        let committed = save(&store, 2).unwrap();
        let mut staging = store.stage().unwrap();
        scratch.lose(loss);
        let other = other_training(&scratch);
        let theirs = tree(scratch.root());

        let by = format!("run id {}", other.identity().run_id);
        assert_taken_over(staging.part("model").map(drop), &by);
        assert_taken_over(staging.commit(1).map(drop), &by);
        for _ in 1..=3 {
            assert_taken_over(store.stage().map(drop), &by);
            assert_taken_over(store.prune(&committed, 1), &by);
            assert_taken_over(store.newest(), &by);
        }
        // The result is the same if the other training does not run.
        drop(other);
        assert_taken_over(save(&store, 3), &by);
        assert_taken_over(store.remove(), &by);
        assert_eq!(tree(scratch.root()), theirs, "{loss:?}");
        assert_is(scratch.open().newest().unwrap(), 104);
    }
}

#[test]
fn a_process_that_began_at_the_path_without_a_backup_yet_is_left_alone() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let _ = save(&store, 1).unwrap();
    scratch.lose(Loss::Removed);
    let other = scratch.open();
    assert_taken_over(save(&store, 2), &other.identity().run_id);
    let _ = save(&other, 101).unwrap();
    drop(store);
    assert_is(other.newest().unwrap(), 101);
}

#[test]
fn another_process_of_the_same_training_is_left_alone() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let _ = save(&store, 1).unwrap();
    scratch.lose(Loss::Moved);
    // A copy of the directory, from which the training was started again.
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([scratch.away(), scratch.root()])
        .status();
    assert!(copied.unwrap().success());
    let other = scratch.open();
    assert_is(other.newest().unwrap(), 1);
    let process = format!("process {}", std::process::id());
    assert_taken_over(store.stage().map(drop), &process);
    let _ = save(&other, 101).unwrap();
    drop(other);
    let theirs = tree(scratch.root());
    assert_taken_over(store.stage().map(drop), "the same training");
    assert_taken_over(store.remove(), "the same training");
    assert_eq!(tree(scratch.root()), theirs);
}

#[test]
fn a_directory_that_comes_back_is_used_again() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let _ = save(&store, 1).unwrap();
    scratch.lose(Loss::Moved);
    let other = other_training(&scratch);
    assert!(store.stage().is_err());
    other.remove().unwrap();
    fs::rename(scratch.away(), scratch.root()).unwrap();
    let committed = save(&store, 2).unwrap();
    assert_eq!(committed.id(), GenerationId::new(2));
    store.prune(&committed, 2).unwrap();
    assert_eq!(
        names(scratch.root().join("generations")),
        ["00000001", "00000002"]
    );
    assert_is(store.newest().unwrap(), 2);
}

#[test]
fn without_its_lock_file_the_directory_is_locked_again() {
    let scratch = Scratch::new().with_generations(2);
    let store = scratch.open();
    for number in 3..=5 {
        fs::remove_file(scratch.root().join("lock")).unwrap();
        let committed = save(&store, number).unwrap();
        assert_eq!(committed.id(), GenerationId::new(number));
        store.prune(&committed, 2).unwrap();
        let second = Store::open(scratch.root(), OpenOptions::default());
        assert!(matches!(second, Err(StoreError::InUse { .. })));
    }
    assert_is(store.newest().unwrap(), 5);
    fs::remove_file(scratch.root().join("lock")).unwrap();
    store.remove().unwrap();
    assert!(!scratch.root().exists());
}

#[test]
fn a_backup_whose_directory_is_gone_needs_no_deletion() {
    for loss in LOSSES {
        let scratch = Scratch::new();
        let store = scratch.open();
        let _ = save(&store, 1).unwrap();
        scratch.lose(loss);
        store.remove().unwrap();
        assert!(!scratch.root().exists());
        assert_eq!(scratch.away().exists(), loss == Loss::Moved);
    }
}

#[test]
fn with_the_directory_gone_the_errors_say_so_and_nothing_else() {
    for loss in LOSSES {
        let scratch = Scratch::new();
        let store = scratch.open();
        let committed = save(&store, 1).unwrap();
        let mut staging = store.stage().unwrap();
        scratch.lose(loss);
        let errors = [
            staging.part("model").map(drop).unwrap_err(),
            staging.commit(1).unwrap_err(),
            store.prune(&committed, 1).unwrap_err(),
            store.newest().unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, StoreError::Gone { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("the next backup creates the directory again"));
            assert!(!text.contains("are unchanged"), "{text}");
        }
    }
}

#[test]
fn every_backup_fails_until_the_directory_can_be_created_again() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let _ = save(&store, 1).unwrap();
    scratch.lose(Loss::Removed);
    // A foreign file is in the place.
    fs::write(scratch.root(), b"theirs").unwrap();
    for _ in 1..=2 {
        let error = store.stage().map(drop).unwrap_err();
        assert!(matches!(error, StoreError::TakenOver { .. }), "{error}");
    }
    assert_eq!(fs::read(scratch.root()).unwrap(), b"theirs");
    fs::remove_file(scratch.root()).unwrap();
    let _ = save(&store, 2).unwrap();
    assert_is(store.newest().unwrap(), 2);
}

#[test]
fn a_relative_path_means_the_same_directory_wherever_the_process_goes() {
    let scratch = Scratch::new();
    let home = scratch.root().with_file_name("home");
    fs::create_dir(&home).unwrap();
    let name = "taken_over::a_relative_path_means_the_same_directory_wherever_the_process_goes";
    in_a_process(name, ":", &home, || {
        let store = Store::open("backup", OpenOptions::default()).unwrap();
        let _ = save(&store, 1).unwrap();
        fs::create_dir("elsewhere").unwrap();
        std::env::set_current_dir("elsewhere").unwrap();
        let other = Store::open("backup", OpenOptions::default()).unwrap();
        let _ = save(&other, 101).unwrap();
        let theirs = tree("../elsewhere/backup");
        let committed = save(&store, 2).unwrap();
        store.prune(&committed, 1).unwrap();
        assert_is(store.newest().unwrap(), 2);
        assert_eq!(tree("../elsewhere/backup"), theirs);
        store.remove().unwrap();
        assert_eq!(tree("../elsewhere/backup"), theirs);
        assert!(!fs::exists("../backup").unwrap());
    });
}

#[test]
fn paths_with_dots_are_created_like_any_other() {
    let scratch = Scratch::new();
    for path in [
        "a/new/.",
        "b/new/",
        "c/./new",
        "d/new/..",
        "e/new/../other",
        "f/new/./.",
    ] {
        let path = scratch.root().join(path);
        let store = Store::open(&path, OpenOptions::default()).unwrap();
        let _ = save(&store, 1).unwrap();
        assert_is(store.newest().unwrap(), 1);
        assert!(store.path().is_absolute());
        drop(store);
        assert!(path.join("generations/00000001").exists());
    }
}

#[test]
fn only_generations_of_this_training_are_pruned_or_deleted() {
    let other = Scratch::new().with_generations(3);
    let scratch = Scratch::new();
    let store = scratch.open();
    for number in 1..=3 {
        let _ = save(&store, number).unwrap();
    }
    let strange = scratch.generation(9);
    fs::rename(other.generation(3), &strange).unwrap();
    // Its manifest has another number, as after a move by hand. Its run id shows that it is
    // foreign.
    reseal_number(&strange.join("manifest.json"), 9);
    let theirs = tree(&strange);
    let committed = save(&store, 10).unwrap();
    store.prune(&committed, 2).unwrap();
    assert_eq!(
        names(scratch.root().join("generations")),
        ["00000003", "00000009", "00000010"]
    );
    assert_eq!(tree(&strange), theirs);
    let error = store.remove().unwrap_err();
    assert!(matches!(error, StoreError::AnotherRun { .. }), "{error}");
    assert_eq!(tree(&strange), theirs);
    assert_is(scratch.open().newest().unwrap(), 10);
}

fn reseal_number(manifest: &std::path::Path, number: u64) {
    let text = fs::read_to_string(manifest).unwrap();
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).unwrap();
    document.remove("checksum");
    document.insert("generation".to_owned(), number.into());
    fs::write(
        manifest,
        burn_backup_store::testing::seal(&document).unwrap(),
    )
    .unwrap();
}

/// Shows only the differences.
#[track_caller]
fn assert_same(after: &BTreeMap<PathBuf, u64>, before: &BTreeMap<PathBuf, u64>, text: &str) {
    let differs = |(path, hash): &(&PathBuf, &u64), other: &BTreeMap<PathBuf, u64>| {
        other.get(*path) != Some(*hash)
    };
    let new: Vec<_> = after
        .iter()
        .filter(|entry| differs(entry, before))
        .collect();
    let gone: Vec<_> = before
        .iter()
        .filter(|entry| differs(entry, after))
        .collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "{text}: new {new:?}, gone {gone:?}"
    );
}

/// The action of a training when its directory disappears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Save,
    Prune,
    Restore,
    Remove,
}

const ALL: [Doing; 4] = [Doing::Save, Doing::Prune, Doing::Restore, Doing::Remove];

/// Calls `happens` in the call number `at` of an action. Returns the result, the number of calls,
/// and the store if it still exists.
fn in_a_call(
    scratch: &Scratch,
    doing: Doing,
    at: usize,
    happens: impl FnOnce() + Send + 'static,
) -> (Result<(), StoreError>, usize, Option<Store>) {
    // Two whole generations, and a damaged one for the restore to move away.
    let store = scratch.open();
    for number in 1..=3 {
        let _ = save(&store, number).unwrap();
    }
    drop(store);
    let calls = Arc::new(AtomicUsize::new(usize::MAX / 2));
    let counted = calls.clone();
    let happens = Mutex::new(Some(happens));
    let filesystem = FaultyFilesystem::new(move |_, _| {
        if counted.fetch_add(1, Ordering::Relaxed) == at
            && let Some(happens) = happens.lock().unwrap().take()
        {
            happens();
        }
        Ok(())
    });
    let store = scratch.open_through(filesystem);
    let committed = save(&store, 4).unwrap();
    if doing == Doing::Restore {
        fs::write(scratch.generation(4).join("model.bpk"), b"damaged").unwrap();
    }
    calls.store(0, Ordering::Relaxed);
    let (outcome, store) = match doing {
        Doing::Save => (save(&store, 5).map(drop), Some(store)),
        Doing::Prune => (store.prune(&committed, 1).map(drop), Some(store)),
        Doing::Restore => (store.newest().map(drop), Some(store)),
        Doing::Remove => (store.remove(), None),
    };
    (
        outcome,
        calls.swap(usize::MAX / 2, Ordering::Relaxed),
        store,
    )
}

#[test]
fn whichever_call_another_training_begins_in_its_backups_stay_untouched() {
    for loss in LOSSES {
        for doing in ALL {
            let mut refused = 0;
            for at in 0.. {
                let scratch = Scratch::new();
                let theirs = Arc::new(Mutex::new(None));
                let root = scratch.root();
                let away = scratch.away();
                let (outcome, calls, store) = in_a_call(&scratch, doing, at, {
                    let theirs = theirs.clone();
                    move || {
                        match loss {
                            Loss::Removed => fs::remove_dir_all(&root).unwrap(),
                            Loss::Moved => fs::rename(&root, &away).unwrap(),
                        }
                        let store = Store::open(&root, OpenOptions::default()).unwrap();
                        for number in 101..=105 {
                            let _ = save(&store, number).unwrap();
                        }
                        *theirs.lock().unwrap() = Some((tree(&root), store));
                    }
                });
                if calls <= at {
                    report(&format!("taken over, {loss:?}, {doing:?}: in {at} calls"));
                    assert!(at > 8);
                    break;
                }
                let (before, other) = theirs.lock().unwrap().take().unwrap();
                let text = format!("{loss:?}, {doing:?}, in call {at}: {outcome:?}");
                assert_same(&tree(scratch.root()), &before, &text);
                match outcome {
                    Ok(()) => {}
                    Err(StoreError::TakenOver { .. }) => refused += 1,
                    Err(error) => panic!("{text}: {error}"),
                }
                if let Some(store) = store {
                    assert_taken_over(save(&store, 6), "run id");
                    assert_taken_over(store.remove(), "run id");
                }
                assert_same(&tree(scratch.root()), &before, &text);
                let committed = save(&other, 106).unwrap();
                other.prune(&committed, 1).unwrap();
                drop(other);
                assert_is(scratch.open().newest().unwrap(), 106);
            }
            assert!(refused > 0, "{loss:?}, {doing:?}");
        }
    }
}

#[test]
fn whichever_call_the_directory_vanishes_in_the_next_save_recreates_it() {
    for loss in LOSSES {
        for doing in ALL {
            for at in 0.. {
                let scratch = Scratch::new();
                let (root, away) = (scratch.root(), scratch.away());
                let (outcome, calls, store) = in_a_call(&scratch, doing, at, move || match loss {
                    // At the end of a removal it is already gone.
                    Loss::Removed => drop(fs::remove_dir_all(root)),
                    Loss::Moved => drop(fs::rename(root, away)),
                });
                if calls <= at {
                    break;
                }
                let text = format!("{loss:?}, {doing:?}, in call {at}: {outcome:?}");
                match outcome {
                    Ok(()) | Err(StoreError::Gone { .. }) => {}
                    Err(error) => panic!("{text}: {error}"),
                }
                if let Some(store) = store {
                    for number in 6..=7 {
                        let committed = save(&store, number).unwrap();
                        store.prune(&committed, 1).unwrap();
                        assert_is(store.newest().unwrap(), number);
                    }
                }
                if scratch.away().exists() && doing != Doing::Remove {
                    let away = Store::open(scratch.away(), OpenOptions::default()).unwrap();
                    assert!(away.newest().unwrap().is_some(), "{text}");
                }
            }
        }
    }
}
