//! Parts that are linked to the previous generation instead of written again.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_backup_store::testing::{
    Fault, FaultyFilesystem, MemoryFilesystem, Node, Operation, report,
};
use burn_backup_store::{Filesystem as _, GenerationId, StoreError};
use serde_json::Value;

use crate::support::{
    FROZEN, PARTS, Scratch, assert_is, contents, digest, frozen_bytes, link_or_write, names, save,
    write,
};

const FILE: &str = "frozen.bpk";

/// Whether the generations `number` and `other` share the part [`FROZEN`].
#[cfg(unix)]
fn share(scratch: &Scratch, number: u64, other: u64) -> bool {
    use crate::support::inode;

    let file = |number| inode(scratch.generation(number).join(FILE)).0;
    file(number) == file(other)
}

/// The number of names of the file of a generation's part [`FROZEN`].
#[cfg(unix)]
fn names_of(scratch: &Scratch, number: u64) -> u64 {
    crate::support::inode(scratch.generation(number).join(FILE)).1
}

/// Asserts that the generation `number` is whole, and that this process and the next one find it.
#[track_caller]
fn assert_is_newest(scratch: &Scratch, number: u64) {
    assert_is(scratch.open().newest().unwrap(), number);
    assert!(!scratch.root().join("quarantine").exists());
    assert_eq!(
        names(scratch.root()),
        ["burn-backup.json", "generations", "lock"]
    );
}

#[test]
fn an_unchanged_part_is_linked_and_counts_as_bytes_and_as_linked() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let all: u64 = PARTS
        .iter()
        .map(|name| contents(name, 1).len() as u64)
        .sum();

    let first = save(&store, 1).unwrap();
    assert_eq!((first.bytes(), first.linked()), (all, 0));
    let second = save(&store, 2).unwrap();
    assert_eq!((second.bytes(), second.linked()), (all, frozen_bytes()));
    let third = save(&store, 3).unwrap();
    assert_eq!((third.bytes(), third.linked()), (all, frozen_bytes()));

    let newest = store.newest().unwrap();
    assert_eq!(newest.as_ref().unwrap().manifest().bytes(), all);
    assert_is(newest, 3);
    drop(store);
    assert_is_newest(&scratch, 3);
}

#[cfg(unix)]
#[test]
fn a_linked_part_is_one_file_with_a_name_in_each_generation_and_the_others_are_not() {
    use crate::support::inode;

    let scratch = Scratch::new().with_generations(1);
    assert_eq!(names_of(&scratch, 1), 1);
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    let _ = save(&store, 2).unwrap();
    assert!(share(&scratch, 1, 2));
    assert_eq!(names_of(&scratch, 2), 2);
    for file in ["model.bpk", "optimizer.bpk", "manifest.json"] {
        assert_eq!(inode(scratch.generation(2).join(file)).1, 1, "{file}");
    }
    let committed = save(&store, 3).unwrap();
    assert_eq!(names_of(&scratch, 3), 3);
    store.prune(&committed, 1).unwrap();
    // The files to be overwritten are removed with the store.
    drop(store);
    assert_eq!(names_of(&scratch, 3), 1);
}

#[test]
fn a_part_with_other_bytes_or_another_name_is_written() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    let same = contents(FROZEN, 1);
    let mut changed = same.clone();
    changed[17] ^= 1;
    let longer = [&same[..], b"x"].concat();

    let mut staging = store.stage().unwrap();
    for (name, bytes) in [
        (FROZEN, changed.clone()),
        (FROZEN, longer),
        (FROZEN, Vec::new()),
        ("renamed", same.clone()),
        ("model", same),
    ] {
        let is_linked = staging.link(name, &digest(&bytes)).unwrap();
        assert!(!is_linked, "{name} of {} bytes", bytes.len());
    }
    assert!(!link_or_write(&mut staging, FROZEN, changed.clone()).unwrap());
    let committed = staging.commit(Value::Null).unwrap();
    assert_eq!(committed.linked(), 0);
    assert_eq!(committed.bytes(), changed.len() as u64);
    let mut newest = store.newest().unwrap().unwrap();
    assert_eq!(newest.take_part(FROZEN), Some(changed));
    assert_eq!(
        fs::read(scratch.generation(1).join(FILE)).unwrap(),
        contents(FROZEN, 1)
    );
}

#[test]
fn in_the_first_generation_every_part_is_written() {
    let scratch = Scratch::new();
    let store = scratch.open();
    assert!(store.newest().unwrap().is_none());
    let mut staging = store.stage().unwrap();
    assert!(!link_or_write(&mut staging, FROZEN, contents(FROZEN, 1)).unwrap());
    // The same applies to empty bytes.
    assert!(!staging.link("empty", &digest(b"")).unwrap());
    assert_eq!(staging.commit(Value::Null).unwrap().linked(), 0);
}

#[test]
fn a_part_of_no_bytes_is_linked_too() {
    let scratch = Scratch::new();
    let store = scratch.open();
    for number in 1..=2 {
        let mut staging = store.stage().unwrap();
        let is_linked = link_or_write(&mut staging, "empty", Vec::new()).unwrap();
        assert_eq!(is_linked, number == 2);
        let _ = staging.commit(Value::Null).unwrap();
    }
    let mut newest = store.newest().unwrap().unwrap();
    assert_eq!(newest.take_part("empty"), Some(Vec::new()));
}

#[test]
fn after_a_reopening_nothing_is_linked_to_a_generation_that_was_not_read() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    assert_eq!(save(&store, 2).unwrap().linked(), 0);
    assert_eq!(save(&store, 3).unwrap().linked(), frozen_bytes());
    drop(store);
    assert_is_newest(&scratch, 3);
}

#[cfg(unix)]
#[test]
fn after_a_reopening_the_link_is_made_to_the_generation_that_was_found_whole() {
    let scratch = Scratch::new().with_generations(1);
    // Generation 2 has its own file.
    assert_eq!(save(&scratch.open(), 2).unwrap().linked(), 0);
    assert!(!share(&scratch, 1, 2));

    let store = scratch.open();
    assert_is(store.newest().unwrap(), 2);
    assert_eq!(save(&store, 3).unwrap().linked(), frozen_bytes());
    assert!(share(&scratch, 2, 3) && !share(&scratch, 1, 3));
    drop(store);

    for number in [2, 3] {
        fs::write(scratch.generation(number).join("model.bpk"), b"").unwrap();
    }
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    assert_eq!(save(&store, 4).unwrap().linked(), frozen_bytes());
    assert!(share(&scratch, 1, 4));
    assert_is(store.newest().unwrap(), 4);
}

/// Saves into a directory with one generation, on a filesystem whose links go through `rule`.
/// Expects that the part was written.
#[track_caller]
fn assert_is_written(
    what: &str,
    scratch: &Scratch,
    rule: impl Fn(&Path) -> Result<(), Fault> + Send + Sync + 'static,
) {
    let links = Arc::new(AtomicUsize::new(0));
    let counted = links.clone();
    let store = scratch.open_through(FaultyFilesystem::new(move |operation, path| {
        if operation != Operation::Link {
            return Ok(());
        }
        counted.fetch_add(1, Ordering::Relaxed);
        rule(path)
    }));
    assert_is(store.newest().unwrap(), 1);
    let committed = save(&store, 2).unwrap();
    assert_eq!(committed.linked(), 0, "{what}");
    assert_eq!(links.load(Ordering::Relaxed), 1, "{what}");
    assert_is(store.newest().unwrap(), 2);
    drop(store);
    assert_is_newest(scratch, 2);
    #[cfg(unix)]
    assert_eq!(names_of(scratch, 2), 1, "{what}");
}

#[test]
fn where_a_link_fails_the_part_is_written_and_the_commit_is_whole() {
    for kind in [
        ErrorKind::Unsupported,
        ErrorKind::PermissionDenied,
        ErrorKind::TooManyLinks,
        ErrorKind::CrossesDevices,
        ErrorKind::StorageFull,
        ErrorKind::Other,
    ] {
        let scratch = Scratch::new().with_generations(1);
        let fails = move |_: &Path| Err(kind.into());
        assert_is_written(&kind.to_string(), &scratch, fails);
    }
}

#[test]
fn a_link_that_was_made_though_the_call_failed_is_not_in_the_way() {
    let scratch = Scratch::new().with_generations(1);
    let from = scratch.generation(1).join(FILE);
    let answer_lost = move |to: &Path| {
        fs::hard_link(&from, to).unwrap();
        Err(ErrorKind::AlreadyExists.into())
    };
    assert_is_written("a lost answer", &scratch, answer_lost);
}

/// Something in the place of a file: its description, and a function that puts it there.
type Replacement = (&'static str, fn(&Path));

fn replacements() -> Vec<Replacement> {
    vec![
        ("nothing", |path| fs::remove_file(path).unwrap()),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a shorter file", |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, b"short").unwrap();
        }),
        ("a longer file", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes.push(0);
            fs::remove_file(path).unwrap();
            fs::write(path, bytes).unwrap();
        }),
        #[cfg(unix)]
        ("a symbolic link to the same bytes", |path| {
            let theirs = path.with_file_name("theirs");
            fs::rename(path, &theirs).unwrap();
            std::os::unix::fs::symlink(theirs, path).unwrap();
        }),
    ]
}

#[test]
fn a_file_that_was_replaced_since_it_was_read_is_written_and_not_linked() {
    for (what, replace) in replacements() {
        let scratch = Scratch::new().with_generations(1);
        let store = scratch.open();
        assert_is(store.newest().unwrap(), 1);
        replace(&scratch.generation(1).join(FILE));
        assert_eq!(save(&store, 2).unwrap().linked(), 0, "{what}");
        drop(store);
        assert_is_newest(&scratch, 2);
        let file = fs::symlink_metadata(scratch.generation(2).join(FILE)).unwrap();
        assert!(file.is_file(), "{what}");
    }
}

#[test]
fn a_file_that_is_replaced_at_the_moment_of_the_link_is_written_again() {
    for (what, replace) in replacements() {
        let scratch = Scratch::new().with_generations(1);
        let from = scratch.generation(1).join(FILE);
        assert_is_written(what, &scratch, move |_| {
            replace(&from);
            Ok(())
        });
    }
}

#[test]
fn a_link_that_cannot_be_inspected_is_written_again() {
    for fails in [Operation::Kind, Operation::OpenFile] {
        let scratch = Scratch::new().with_generations(1);
        let store = scratch.open_through(FaultyFilesystem::new(move |operation, path| {
            let is_staged = path.to_string_lossy().contains(".staging-");
            match operation == fails && is_staged && path.ends_with(FILE) {
                true => Err(io::Error::other("the device fails").into()),
                false => Ok(()),
            }
        }));
        assert_is(store.newest().unwrap(), 1);
        assert_eq!(save(&store, 2).unwrap().linked(), 0);
        drop(store);
        assert_is_newest(&scratch, 2);
    }
}

#[test]
fn pruning_the_generation_that_was_linked_to_leaves_the_new_one_whole() {
    let scratch = Scratch::new();
    let store = scratch.open();
    for number in 1..=5 {
        let committed = save(&store, number).unwrap();
        assert_eq!(committed.linked() > 0, number > 1);
        store.prune(&committed, 1).unwrap();
        let in_place = names(scratch.root().join("generations"));
        assert_eq!(in_place, [format!("{number:08}")]);
        assert_is(store.newest().unwrap(), number);
    }
    drop(store);
    assert_is_newest(&scratch, 5);
}

#[test]
fn damage_in_an_unshared_part_leaves_the_other_generation_readable() {
    let scratch = Scratch::new().with_generations(2);
    fs::write(scratch.generation(2).join("model.bpk"), b"").unwrap();
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    assert!(scratch.quarantined(2).join(FILE).exists());

    // The quarantined generation shares the file with one in place, and its removal does no harm.
    let committed = save(&store, 3).unwrap();
    assert_eq!(committed.linked(), frozen_bytes());
    assert_eq!(committed.id(), GenerationId::new(3));
    fs::remove_dir_all(scratch.root().join("quarantine")).unwrap();
    drop(store);
    assert_is_newest(&scratch, 3);
}

#[test]
fn nothing_is_linked_to_a_generation_that_went_to_quarantine() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let _ = save(&store, 1).unwrap();
    fs::write(scratch.generation(1).join("model.bpk"), b"").unwrap();
    let error = store.newest().err().unwrap();
    assert!(matches!(error, StoreError::NoneLeft { .. }), "{error}");
    assert_eq!(save(&store, 2).unwrap().linked(), 0);
    assert_is(store.newest().unwrap(), 2);
}

#[test]
fn linked_part_names_are_unique_file_names() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    let frozen = digest(&contents(FROZEN, 1));
    let mut staging = store.stage().unwrap();
    write(&mut staging, "model", b"written".to_vec()).unwrap();
    assert!(staging.link(FROZEN, &frozen).unwrap());
    for name in [FROZEN, "model", "", "../model", "Model", "a/b"] {
        let errors = [
            staging.link(name, &frozen).err().unwrap(),
            staging.part(name).err().unwrap(),
        ];
        for error in errors {
            assert!(
                matches!(&error, StoreError::PartName { name: named, .. } if named == name),
                "{name}: {error}"
            );
        }
    }
    // The refusals did no harm.
    let committed = staging.commit(Value::Null).unwrap();
    assert_eq!(committed.linked(), frozen_bytes());
    let mut newest = store.newest().unwrap().unwrap();
    assert_eq!(newest.manifest().parts.len(), 2);
    assert_eq!(newest.take_part("model"), Some(b"written".to_vec()));
    assert_eq!(newest.take_part(FROZEN), Some(contents(FROZEN, 1)));
}

#[test]
fn a_staged_link_that_is_dropped_leaves_the_generation_it_was_made_to_whole() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    let mut staging = store.stage().unwrap();
    assert!(link_or_write(&mut staging, FROZEN, contents(FROZEN, 1)).unwrap());
    #[cfg(unix)]
    assert_eq!(names_of(&scratch, 1), 2);
    drop(staging);
    #[cfg(unix)]
    assert_eq!(names_of(&scratch, 1), 1);
    assert_is(store.newest().unwrap(), 1);
    drop(store);
    assert_is_newest(&scratch, 1);
}

#[test]
fn a_kill_between_link_and_commit_costs_only_the_staged_name() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    let mut staging = store.stage().unwrap();
    assert!(link_or_write(&mut staging, FROZEN, contents(FROZEN, 1)).unwrap());
    // A killed process does not execute this.
    std::mem::forget(staging);
    drop(store);
    let staged = names(scratch.root());
    assert!(staged[0].starts_with(".staging-00000002"), "{staged:?}");
    assert_eq!(names(scratch.root().join(&staged[0])), [FILE]);

    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    assert_eq!(save(&store, 2).unwrap().linked(), frozen_bytes());
    #[cfg(unix)]
    assert_eq!(names_of(&scratch, 1), 2);
    drop(store);
    assert_is_newest(&scratch, 2);
}

#[test]
fn a_linked_part_is_neither_written_nor_synced_again() {
    let scratch = Scratch::new().with_generations(1);
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = calls.clone();
    let store = scratch.open_through(FaultyFilesystem::new(move |operation, path| {
        if path.ends_with(FILE) {
            recorded.lock().unwrap().push(operation);
        }
        Ok(())
    }));
    assert_is(store.newest().unwrap(), 1);
    calls.lock().unwrap().clear();
    let _ = save(&store, 2).unwrap();
    let calls = calls.lock().unwrap();
    assert!(calls.contains(&Operation::Link));
    for operation in [
        Operation::CreateFile,
        Operation::Write,
        Operation::SyncFile,
        Operation::Read,
        Operation::RemoveFile,
    ] {
        assert!(!calls.contains(&operation), "{calls:?}");
    }
}

#[test]
fn a_linked_name_is_uncertain_until_its_directory_is_synced_and_shares_its_contents() {
    let disk = MemoryFilesystem::default();
    let [old, new] = ["old", "new"].map(Path::new);
    let [first, second] = ["old/file", "new/file"].map(Path::new);
    for dir in [old, new] {
        disk.create_dir(dir).unwrap();
    }
    disk.sync_dir(Path::new("")).unwrap();
    let file = disk.create_file(first).unwrap();
    file.write_all_at(b"contents", 0).unwrap();
    disk.link(first, second).unwrap();
    // The existing names and the contents of the file, in every image.
    let found = || {
        let images = disk.power_cuts(disk.changes(), 1000);
        let contents = |path| images.iter().map(move |image| image.get(path).cloned());
        contents(first).zip(contents(second)).collect::<Vec<_>>()
    };
    let is_there = |of: &[(Option<Node>, Option<Node>)]| {
        let states = [(false, false), (false, true), (true, false), (true, true)];
        states.map(|state| {
            of.iter()
                .filter(|(a, b)| (a.is_some(), b.is_some()) == state)
                .count()
        })
    };
    let all = found();
    report(&format!("power cuts, a linked file: {} images", all.len()));
    // One, both, or none of the names exist. The file is empty, partly written, zeros, or complete.
    assert_eq!(is_there(&all), [1, 4, 4, 4]);
    for (first, second) in &all {
        if first.is_some() && second.is_some() {
            assert_eq!(first, second);
        }
    }

    file.sync().unwrap();
    assert_eq!(is_there(&found()), [1, 1, 1, 1]);
    disk.sync_dir(new).unwrap();
    assert_eq!(is_there(&found()), [0, 1, 0, 1]);
    disk.sync_dir(old).unwrap();
    assert_eq!(is_there(&found()), [0, 0, 0, 1]);

    disk.remove_file(first).unwrap();
    assert_eq!(is_there(&found()), [0, 1, 0, 1]);
    disk.sync_dir(old).unwrap();
    let whole = Some(Node::File(b"contents".to_vec()));
    assert_eq!(found(), [(None, whole)]);
}

#[test]
fn unsynced_bytes_are_uncertain_under_the_second_name_once_the_first_is_gone() {
    let disk = MemoryFilesystem::default();
    let [old, new] = ["old", "new"].map(Path::new);
    let [first, second] = ["old/file", "new/file"].map(Path::new);
    for dir in [old, new] {
        disk.create_dir(dir).unwrap();
    }
    disk.sync_dir(Path::new("")).unwrap();
    let file = disk.create_file(first).unwrap();
    file.write_all_at(b"contents", 0).unwrap();
    disk.link(first, second).unwrap();
    disk.remove_file(first).unwrap();
    disk.sync_dir(old).unwrap();
    let mut found: Vec<_> = disk
        .power_cuts(disk.changes(), 1000)
        .iter()
        .map(|image| match image.get(second) {
            Some(Node::File(contents)) => Some(contents.clone()),
            _ => None,
        })
        .collect();
    found.sort();
    let may_be: [&[u8]; 4] = [b"", &[0; 8], b"cont", b"contents"];
    let may_be = may_be.map(|contents| Some(contents.to_vec()));
    assert_eq!(found, [&[None], &may_be[..]].concat());
}
