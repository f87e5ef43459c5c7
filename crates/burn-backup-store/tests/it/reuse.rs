//! On Linux, the next generation overwrites the files of a pruned one, unless that could be noticed.
#![cfg(target_os = "linux")]

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use burn_backup_store::testing::{FaultyFilesystem, Operation};
use burn_backup_store::{Filesystem as _, RealFilesystem, Store};
use serde_json::json;

use crate::support::{FROZEN, Scratch, assert_is, contents, inode, names, save};

/// Saves the generation `number` and prunes the others.
fn save_and_prune(store: &Store, number: u64) {
    let committed = save(store, number).unwrap();
    store.prune(&committed, 1).unwrap();
}

/// The directory with the files to be overwritten.
fn spare(scratch: &Scratch) -> Option<PathBuf> {
    let names = names(scratch.root()).into_iter();
    let mut spares = names.filter(|name| name.starts_with(".staging-removed-generations+"));
    let spare = spares.next().map(|name| scratch.root().join(name));
    assert_eq!(spares.next(), None);
    spare
}

#[test]
fn files_of_pruned_generations_are_overwritten_in_turn() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let model = |number| inode(scratch.generation(number).join("model.bpk"));
    save_and_prune(&store, 1);
    let first = model(1);
    save_and_prune(&store, 2);
    let second = model(2);
    assert_ne!(first, second);
    for number in 3..=6 {
        save_and_prune(&store, number);
        let expected = if number % 2 == 1 { first } else { second };
        assert_eq!(model(number), expected);
        let manifest = inode(scratch.generation(number).join("manifest.json"));
        assert_eq!(manifest.1, 1);
        assert_is(store.newest().unwrap(), number);
        // The directory contains only its own files, and the linked part is still the same file.
        assert_eq!(
            names(scratch.generation(number)),
            ["frozen.bpk", "manifest.json", "model.bpk", "optimizer.bpk"]
        );
    }
    drop(store);
    assert_is(scratch.open().newest().unwrap(), 6);
}

#[test]
fn while_the_newest_is_read_the_files_of_another_one_are_overwritten() {
    let scratch = Scratch::new();
    let store = Arc::new(scratch.open());
    let model = |number| inode(scratch.generation(number).join("model.bpk"));
    let mut read = None;
    let mut models = Vec::new();
    for number in 1..=6 {
        let committed = save(&store, number).unwrap();
        let before = read.replace(store.pin(committed.id()).unwrap().unwrap());
        store.prune(&committed, 1).unwrap();
        drop(before);
        models.push(model(number));
    }
    assert_eq!(models[..3], models[3..]);
    assert_is(store.newest().unwrap(), 6);
}

#[test]
fn shorter_longer_and_other_parts_are_whole_after_overwriting() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let lengths = [100_usize, 0, 5_000_000, 17, 20_000_000, 100];
    for (number, len) in (1..).zip(lengths) {
        let bytes: Vec<u8> = (0..len).map(|at| (at / 3 + number) as u8).collect();
        let mut staging = store.stage().unwrap();
        for name in ["model", if number % 2 == 0 { "even" } else { "odd" }] {
            let mut part = staging.part(name).unwrap();
            part.append(bytes.clone()).unwrap();
            part.finish().unwrap();
        }
        let committed = staging.commit(json!({})).unwrap();
        store.prune(&committed, 1).unwrap();
        let mut newest = store.newest().unwrap().unwrap();
        assert_eq!(newest.manifest().generation.number(), number as u64);
        assert!(newest.take_part("model").unwrap() == bytes, "{len}");
        assert_eq!(names(scratch.generation(number as u64)).len(), 3);
    }
}

#[test]
fn a_copy_made_of_hard_links_keeps_its_contents() {
    let scratch = Scratch::new();
    let store = scratch.open();
    save_and_prune(&store, 1);
    let copy = scratch.root().with_file_name("copy.bpk");
    std::fs::hard_link(scratch.generation(1).join("model.bpk"), &copy).unwrap();
    for number in 2..=5 {
        save_and_prune(&store, number);
        assert_is(store.newest().unwrap(), number);
        assert_eq!(std::fs::read(&copy).unwrap(), contents("model", 1));
    }
}

#[test]
fn an_open_file_keeps_its_contents_for_its_reader() {
    let scratch = Scratch::new();
    let store = scratch.open();
    save_and_prune(&store, 1);
    let mut open = std::fs::File::open(scratch.generation(1).join("model.bpk")).unwrap();
    for number in 2..=5 {
        save_and_prune(&store, number);
        assert_is(store.newest().unwrap(), number);
    }
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert_eq!(read, contents("model", 1));
}

#[test]
fn a_file_is_reused_only_if_it_has_one_name_and_is_not_open() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("file");
    std::fs::write(&path, b"contents").unwrap();
    let is_given = || RealFilesystem.reuse_file(&path).unwrap().is_some();
    assert!(RealFilesystem.reuses_files());
    assert!(is_given());
    let readers = [
        std::fs::File::open(&path).unwrap(),
        std::fs::File::options().write(true).open(&path).unwrap(),
    ];
    for reader in readers {
        assert!(!is_given());
        drop(reader);
    }
    assert!(is_given());
    let link = temporary.path().join("link");
    std::fs::hard_link(&path, &link).unwrap();
    assert!(!is_given());
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(RealFilesystem.reuse_file(&link).is_err());
    assert!(RealFilesystem.reuse_file(temporary.path()).is_err());
    assert!(is_given());
    assert_eq!(std::fs::read(&path).unwrap(), b"contents");
}

#[test]
fn spare_files_are_removed_with_the_store() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    save_and_prune(&store, 2);
    assert!(spare(&scratch).is_some());
    drop(store);
    assert_eq!(spare(&scratch), None);
    // The next store removes them if this one was killed.
    for left in LEFT {
        leave(&scratch, left);
        drop(scratch.open());
        assert_eq!(
            names(scratch.root()),
            ["burn-backup.json", "generations", "lock"]
        );
    }
    // A removal of the whole backup also removes them.
    leave(&scratch, LEFT[0]);
    let store = scratch.open();
    save_and_prune(&store, 3);
    store.remove().unwrap();
    assert!(!scratch.root().exists());
}

/// The leftovers of a process that was killed between two saves, and during one.
const LEFT: [&str; 2] = [
    ".staging-removed-generations+00000001-0123456789abcdef",
    ".staging-00000003-0123456789abcdef",
];

/// Creates a leftover directory of that name with a part in it.
fn leave(scratch: &Scratch, name: &str) -> PathBuf {
    let left = scratch.root().join(name);
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("model.bpk"), vec![7; 100_000]).unwrap();
    left
}

#[test]
fn the_first_backup_overwrites_the_leftovers_of_a_killed_process() {
    for left in LEFT {
        let scratch = Scratch::new().with_generations(2);
        let kept = inode(leave(&scratch, left).join("model.bpk"));
        let more = leave(&scratch, ".staging-00000004-0123456789abcdef");
        std::fs::write(more.join("notes.txt"), b"theirs").unwrap();
        let store = scratch.open();
        save_and_prune(&store, 3);
        assert_eq!(inode(scratch.generation(3).join("model.bpk")), kept);
        assert_is(store.newest().unwrap(), 3);
        drop(store);
        // Foreign files stay in place, and nothing is overwritten there.
        assert_eq!(names(more), ["notes.txt"]);
    }
}

#[test]
fn nothing_is_overwritten_through_a_link() {
    let scratch = Scratch::new().with_generations(2);
    let elsewhere = scratch.root().with_file_name("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("model.bpk"), b"theirs").unwrap();
    for left in LEFT {
        std::os::unix::fs::symlink(&elsewhere, scratch.root().join(left)).unwrap();
    }
    let store = scratch.open();
    save_and_prune(&store, 3);
    save_and_prune(&store, 4);
    assert_is(store.newest().unwrap(), 4);
    let theirs = std::fs::read(elsewhere.join("model.bpk")).unwrap();
    assert_eq!(theirs, b"theirs");
}

#[test]
fn other_peoples_files_in_a_pruned_generation_return_and_no_spare_is_kept() {
    let scratch = Scratch::new().with_generations(1);
    let theirs = scratch.generation(1).join("notes.txt");
    std::fs::write(&theirs, b"theirs").unwrap();
    let store = scratch.open();
    save_and_prune(&store, 2);
    assert_eq!(spare(&scratch), None);
    assert_eq!(std::fs::read(&theirs).unwrap(), b"theirs");
    save_and_prune(&store, 3);
    assert_is(store.newest().unwrap(), 3);
}

#[test]
fn foreign_files_among_the_spare_ones_do_not_enter_the_generation() {
    let scratch = Scratch::new();
    let store = scratch.open();
    save_and_prune(&store, 1);
    save_and_prune(&store, 2);
    let kept = spare(&scratch).unwrap();
    std::fs::remove_file(kept.join("model.bpk")).unwrap();
    std::os::unix::fs::symlink("/nowhere", kept.join("model.bpk")).unwrap();
    std::fs::write(kept.join("notes.txt"), b"theirs").unwrap();
    save_and_prune(&store, 3);
    assert_is(store.newest().unwrap(), 3);
    assert!(!scratch.generation(3).join("notes.txt").exists());
}

#[test]
fn if_no_file_can_be_overwritten_new_ones_are_created() {
    for failing in [Operation::ReuseFile, Operation::Truncate] {
        let scratch = Scratch::new();
        let store = scratch.open_through(FaultyFilesystem::new(move |operation, _| {
            match operation == failing {
                true => Err(std::io::Error::other("not here").into()),
                false => Ok(()),
            }
        }));
        save_and_prune(&store, 1);
        save_and_prune(&store, 2);
        let third = save(&store, 3);
        assert_eq!(
            third.is_ok(),
            failing == Operation::ReuseFile,
            "{failing:?}"
        );
        assert_is(store.newest().unwrap(), if third.is_ok() { 3 } else { 2 });
        // The failed generation is gone, and the next one starts from the beginning.
        save_and_prune(&store, 4);
        assert_is(store.newest().unwrap(), 4);
        assert_eq!(contents(FROZEN, 0), contents(FROZEN, 4));
    }
}
