use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_store::{OpenOptions, Store, StoreError};

#[cfg(unix)]
use crate::support::names;
use crate::support::{Scratch, assert_is, save};

#[test]
fn an_empty_path_is_an_error() {
    let error = Store::open("", OpenOptions::default()).err().unwrap();
    assert!(matches!(error, StoreError::EmptyPath), "{error}");
}

#[test]
fn a_path_that_is_a_file_is_an_error_and_the_file_stays() {
    let scratch = Scratch::new();
    fs::write(scratch.root(), b"mine").unwrap();
    for path in [scratch.root(), scratch.root().join("below")] {
        let error = Store::open(&path, OpenOptions::default()).err().unwrap();
        assert!(
            error
                .to_string()
                .contains(&*scratch.root().to_string_lossy()),
            "{error}"
        );
    }
    assert_eq!(fs::read(scratch.root()).unwrap(), b"mine");
}

#[test]
fn a_directory_in_use_is_refused_with_the_name_of_the_process() {
    let scratch = Scratch::new().with_generations(1);
    let first = scratch.open();
    let error = Store::open(scratch.root(), OpenOptions::default())
        .err()
        .unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let process = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");

    drop(first);
    assert_is(scratch.open().newest().unwrap(), 1);
}

#[test]
fn removal_takes_everything_of_ours_and_the_directory() {
    let scratch = Scratch::new().with_generations(3);
    fs::remove_file(scratch.generation(3).join("model.bpk")).unwrap();
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 2);
    store.remove().unwrap();
    assert!(!scratch.root().exists());
    assert!(scratch.open().newest().unwrap().is_none());
}

#[test]
fn a_foreign_file_in_the_quarantine_does_not_block_a_new_training() {
    let scratch = Scratch::new().with_generations(2);
    fs::remove_file(scratch.generation(2).join("model.bpk")).unwrap();
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    let theirs = scratch.quarantined(2).join("notes.txt");
    fs::write(&theirs, b"theirs").unwrap();
    store.remove().unwrap();
    assert_eq!(fs::read(&theirs).unwrap(), b"theirs");

    let store = scratch.open();
    assert!(store.newest().unwrap().is_none(), "nothing of ours is left");
    let _ = save(&store, 3).unwrap();
    assert_is(store.newest().unwrap(), 3);
}

#[test]
fn a_directory_inside_a_generation_is_not_ours_whatever_its_name() {
    let scratch = Scratch::new().with_generations(2);
    let theirs: Vec<_> = [1, 2]
        .map(|number| scratch.generation(number).join("00000009/model.bpk"))
        .into();
    for file in &theirs {
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(file, b"theirs").unwrap();
    }
    let store = scratch.open();
    let committed = save(&store, 3).unwrap();
    store.prune(&committed, 1).unwrap();
    store.remove().unwrap();
    for file in &theirs {
        assert_eq!(fs::read(file).unwrap(), b"theirs", "{}", file.display());
    }
}

#[test]
fn a_non_file_in_the_quarantine_does_not_block_a_new_training() {
    let scratch = Scratch::new().with_generations(2);
    let part = scratch.generation(2).join("model.bpk");
    fs::remove_file(&part).unwrap();
    fs::create_dir(&part).unwrap();
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    store.remove().unwrap();
    assert!(scratch.quarantined(2).join("model.bpk").exists());
    assert!(scratch.open().newest().unwrap().is_none());
}

#[test]
fn other_peoples_files_stay_where_they_are() {
    let scratch = Scratch::new().with_generations(3);
    let theirs = [
        scratch.root().join("notes.txt"),
        scratch.root().join(".staging-plans"),
        scratch.root().join("generations/notes.txt"),
        scratch.generation(1).join("notes.txt"),
        scratch.generation(3).join("notes.txt"),
    ];
    for file in &theirs {
        fs::write(file, b"theirs").unwrap();
    }
    let store = scratch.open();
    let committed = save(&store, 4).unwrap();
    store.prune(&committed, 1).unwrap();
    assert_is(store.newest().unwrap(), 4);
    store.remove().unwrap();
    for file in &theirs {
        assert_eq!(fs::read(file).unwrap(), b"theirs", "{}", file.display());
    }
    let store = scratch.open();
    assert!(store.newest().unwrap().is_none(), "nothing of ours is left");
    let _ = save(&store, 5).unwrap();
    assert_is(store.newest().unwrap(), 5);
}

#[cfg(unix)]
#[test]
fn links_are_not_followed_out_of_the_directory() {
    use std::os::unix::fs::symlink;

    let scratch = Scratch::new().with_generations(1);
    let outside = scratch.root().with_file_name("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("model.bpk"), b"theirs").unwrap();
    symlink(&outside, scratch.root().join(".staging-a-0123456789abcdef")).unwrap();
    symlink(&outside, scratch.root().join("generations/00000009")).unwrap();

    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    store.remove().unwrap();
    assert_eq!(fs::read(outside.join("model.bpk")).unwrap(), b"theirs");
}

#[cfg(unix)]
#[test]
fn a_part_that_is_a_link_is_damage_and_its_target_stays() {
    use std::os::unix::fs::symlink;

    let scratch = Scratch::new().with_generations(2);
    let part = scratch.generation(2).join("model.bpk");
    let outside = scratch.root().with_file_name("outside.bpk");
    let contents = fs::read(&part).unwrap();
    fs::rename(&part, &outside).unwrap();
    symlink(&outside, &part).unwrap();
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    let reason = fs::read_to_string(scratch.quarantined(2).join("reason.txt")).unwrap();
    assert_eq!(reason.trim_end(), "model.bpk is missing");
    let committed = save(&store, 3).unwrap();
    store.prune(&committed, 1).unwrap();
    store.remove().unwrap();
    assert_eq!(fs::read(&outside).unwrap(), contents);
}

#[cfg(unix)]
#[test]
fn a_quarantine_that_is_a_link_is_refused_and_nothing_is_moved_through_it() {
    let scratch = Scratch::new().with_generations(2);
    fs::remove_file(scratch.generation(2).join("model.bpk")).unwrap();
    let outside = scratch.root().with_file_name("outside");
    fs::create_dir(&outside).unwrap();
    let link = scratch.root().join("quarantine");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let error = scratch.open().newest().unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert!(scratch.generation(2).exists());
    assert!(names(&outside).is_empty());

    scratch.open().remove().unwrap();
    assert!(outside.exists() && fs::symlink_metadata(&link).is_ok());
}

#[test]
fn a_directory_removed_between_check_and_lock_is_created_again() {
    let scratch = Scratch::new().with_generations(1);
    let root = scratch.root();
    let filesystem = FaultyFilesystem::new({
        let root = root.clone();
        let is_first = AtomicBool::new(true);
        move |operation, _| {
            if operation == Operation::Lock && is_first.swap(false, Ordering::Relaxed) {
                // Another training has finished.
                fs::remove_dir_all(&root).unwrap();
            }
            Ok(())
        }
    });
    let options = OpenOptions::default().filesystem(Arc::new(filesystem));
    let store = Store::open(&root, options).unwrap();
    assert!(store.newest().unwrap().is_none());
    let _ = save(&store, 2).unwrap();
    assert_is(store.newest().unwrap(), 2);
}

#[test]
fn a_directory_where_our_names_are_taken_is_refused_and_nothing_is_lost() {
    for name in ["lock", "generations"] {
        let scratch = Scratch::new();
        fs::create_dir(scratch.root()).unwrap();
        let theirs = scratch.root().join(name);
        fs::write(&theirs, b"theirs").unwrap();
        let error = Store::open(scratch.root(), OpenOptions::default())
            .err()
            .unwrap();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert_eq!(fs::read(&theirs).unwrap(), b"theirs");

        #[cfg(unix)]
        {
            let outside = scratch.root().with_file_name("outside");
            fs::rename(&theirs, &outside).unwrap();
            std::os::unix::fs::symlink(&outside, &theirs).unwrap();
            let error = Store::open(scratch.root(), OpenOptions::default())
                .err()
                .unwrap();
            assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
            assert_eq!(fs::read(&outside).unwrap(), b"theirs");
        }
    }
}

#[test]
fn a_lock_file_left_by_a_killed_process_does_not_block() {
    let scratch = Scratch::new().with_generations(1);
    // A whole line, and what a kill or a power cut can leave of it.
    for left in ["process 1 (gone) since 2020", "proc", "", "\0\0\0\0"] {
        fs::write(scratch.root().join("lock"), left).unwrap();
        assert_is(scratch.open().newest().unwrap(), 1);
    }
}

#[cfg(unix)]
#[test]
fn the_backup_directory_itself_may_be_a_link() {
    let scratch = Scratch::new();
    let elsewhere = scratch.root().with_file_name("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, scratch.root()).unwrap();
    let _ = save(&scratch.open(), 1).unwrap();
    assert_is(scratch.open().newest().unwrap(), 1);
    scratch.open().remove().unwrap();
    assert!(scratch.open().newest().unwrap().is_none());
    assert_eq!(
        names(&elsewhere),
        ["burn-backup.json", "generations", "lock"]
    );
}
