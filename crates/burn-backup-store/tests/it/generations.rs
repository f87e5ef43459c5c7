use burn_backup_store::{GenerationId, OpenOptions, Store, StoreError};

use crate::support::{Scratch, assert_is, names, save};

#[test]
fn a_new_directory_is_created_with_its_parents_and_is_empty() {
    let scratch = Scratch::new();
    let deep = scratch.root().join("a/b/c");
    let store = Store::open(&deep, OpenOptions::default()).unwrap();
    assert!(store.newest().unwrap().is_none());
    assert_eq!(names(&deep), ["burn-backup.json", "generations", "lock"]);
}

#[test]
fn a_committed_generation_reads_back_as_it_was_written() {
    let scratch = Scratch::new();
    let committed = save(&scratch.open(), 1).unwrap();
    let newest = scratch.open().newest().unwrap();
    assert_eq!(newest.as_ref().map(|g| g.id()), Some(committed.id()));
    assert_eq!(
        newest.as_ref().map(|g| g.manifest().bytes()),
        Some(committed.bytes())
    );
    assert_is(newest, 1);
    assert_eq!(
        names(scratch.generation(1)),
        ["frozen.bpk", "manifest.json", "model.bpk", "optimizer.bpk"]
    );
}

#[test]
fn the_newest_of_several_generations_is_found() {
    let scratch = Scratch::new().with_generations(3);
    assert_is(scratch.open().newest().unwrap(), 3);
}

#[test]
fn an_uncommitted_generation_leaves_nothing_behind() {
    let scratch = Scratch::new().with_generations(1);
    let store = scratch.open();
    let mut staging = store.stage().unwrap();
    let mut part = staging.part("model").unwrap();
    part.append(b"half").unwrap();
    drop(part);
    drop(staging);
    assert_eq!(
        names(scratch.root()),
        ["burn-backup.json", "generations", "lock"]
    );
    assert_is(store.newest().unwrap(), 1);
}

#[test]
fn an_unfinished_part_does_not_belong_to_the_generation() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mut staging = store.stage().unwrap();
    let mut part = staging.part("model").unwrap();
    part.append(b"half").unwrap();
    drop(part);
    let _ = staging.commit(()).unwrap();
    assert_eq!(store.newest().unwrap().unwrap().take_part("model"), None);
}

#[test]
fn leftover_staging_directories_are_swept_at_the_next_open() {
    let scratch = Scratch::new().with_generations(1);
    let left = scratch.root().join(".staging-00000002-0123456789abcdef");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("model.bpk"), b"half").unwrap();
    assert_is(scratch.open().newest().unwrap(), 1);
    assert!(!left.exists());
}

#[test]
fn a_crash_between_commit_and_prune_leaves_two_and_the_newer_is_used() {
    // The training keeps one generation, and the process ended before its prune.
    let scratch = Scratch::new().with_generations(2);
    assert_eq!(
        names(scratch.root().join("generations")),
        ["00000001", "00000002"]
    );
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 2);

    let committed = save(&store, 3).unwrap();
    let pruned = store.prune(&committed, 1).unwrap();
    assert_eq!(pruned, [GenerationId::new(1), GenerationId::new(2)]);
    assert_eq!(names(scratch.root().join("generations")), ["00000003"]);
    assert_is(store.newest().unwrap(), 3);
}

#[test]
fn numbers_are_not_reused_after_a_quarantine() {
    let scratch = Scratch::new().with_generations(2);
    std::fs::remove_file(scratch.generation(2).join("model.bpk")).unwrap();
    let store = scratch.open();
    assert_is(store.newest().unwrap(), 1);
    assert_eq!(save(&store, 3).unwrap().id(), GenerationId::new(3));
}

#[test]
fn part_names_are_unique_file_names() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let mut staging = store.stage().unwrap();
    staging.part("model").unwrap().finish().unwrap();
    for name in ["model", "", "../model", "Model", "a/b"] {
        let error = staging.part(name).err().unwrap();
        assert!(
            matches!(error, StoreError::PartName { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn the_run_seed_stays_and_can_be_set() {
    let scratch = Scratch::new();
    let seeded = |seed| Store::open(scratch.root(), OpenOptions::default().run_seed(seed));
    let drawn = scratch.open().identity().clone();
    assert_eq!(scratch.open().identity(), &drawn);
    // Nothing was committed, so the program may still choose.
    assert_eq!(seeded(Some(7)).unwrap().identity().run_seed, 7);
    assert_eq!(seeded(None).unwrap().identity().run_seed, 7);

    let _ = save(&scratch.open(), 1).unwrap();
    let error = seeded(Some(8)).err().unwrap();
    assert!(
        matches!(
            error,
            StoreError::SeedMismatch {
                stored: 7,
                asked: 8,
                ..
            }
        ),
        "{error}"
    );
    assert_is(seeded(Some(7)).unwrap().newest().unwrap(), 1);
}
