//! A rollback to an older generation moves the newer ones aside, and loses none.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_backup_store::testing::{Failure, FaultyFilesystem, MemoryFilesystem, Operation, report};
use burn_backup_store::{
    Chunking, Filesystem, GenerationId, Observation, Observer, OpenOptions, Store, StoreError,
};

use crate::support::{DIR, Scratch, assert_is, names, open_on, save};

/// Reads each part into one buffer.
struct Whole;

impl Chunking for Whole {
    fn next_lengths(&self, _part: &str, _read: usize, _last: &[u8]) -> Vec<usize> {
        Vec::new()
    }
}

fn id(number: u64) -> GenerationId {
    GenerationId::new(number)
}

fn ids(numbers: &[u64]) -> Vec<GenerationId> {
    numbers.iter().copied().map(id).collect()
}

/// The generations in place and those set aside. Every byte of them is verified.
fn found(fs: Arc<dyn Filesystem>, root: &Path) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let observer = Observer::on(root, fs).unwrap();
    let verified = |observation| match observation {
        Observation::Manifest(generation) => {
            for part in generation.parts() {
                part.verify(&mut |_| {}).unwrap().unwrap();
            }
            generation.id().number()
        }
        other => panic!("{other:?}"),
    };
    let in_place = observer.generations().unwrap().into_iter();
    let in_place = in_place.map(|id| verified(observer.open(id).unwrap()));
    let aside = observer.set_aside().unwrap();
    let aside = aside
        .iter()
        .map(|aside| verified(observer.open_aside(aside).unwrap()));
    (in_place.collect(), aside.collect())
}

fn found_at(scratch: &Scratch) -> (BTreeSet<u64>, BTreeSet<u64>) {
    found(Arc::new(burn_backup_store::RealFilesystem), &scratch.root())
}

fn set(numbers: &[u64]) -> BTreeSet<u64> {
    numbers.iter().copied().collect()
}

#[test]
fn newer_generations_are_set_aside_and_their_numbers_not_reused() {
    let scratch = Scratch::new().with_generations(5);
    let store = scratch.open();
    let manifests = store.manifests().unwrap();
    let numbers: Vec<_> = manifests
        .iter()
        .map(|manifest| manifest.generation)
        .collect();
    assert_eq!(numbers, ids(&[5, 4, 3, 2, 1]));
    assert_is(Some(store.generation(id(3), &Whole, &|_| {}).unwrap()), 3);
    assert_eq!(store.set_aside_newer(id(3)).unwrap(), ids(&[4, 5]));
    assert_eq!(found_at(&scratch), (set(&[1, 2, 3]), set(&[4, 5])));
    assert_is(store.newest().unwrap(), 3);
    assert_eq!(store.set_aside_newer(id(3)).unwrap(), []);

    let committed = save(&store, 6).unwrap();
    assert_eq!(committed.id(), id(6));
    store.prune(&committed, 1).unwrap();
    drop(store);
    // Another process does not reuse the numbers either, even after a prune.
    assert_eq!(found_at(&scratch), (set(&[6]), set(&[4, 5])));
    std::fs::remove_dir_all(scratch.generation(6)).unwrap();
    let store = scratch.open();
    assert_eq!(store.greatest(), id(5));
    assert_eq!(save(&store, 7).unwrap().id(), id(6));

    // A generation that was set aside and put back by hand is set aside again, beside the first
    // copy.
    drop(store);
    let aside = scratch.root().join("aside");
    std::fs::rename(aside.join("00000005"), scratch.generation(5)).unwrap();
    let store = scratch.open();
    assert_eq!(store.set_aside_newer(id(4)).unwrap(), ids(&[5, 6]));
    assert_eq!(names(&aside), ["00000004", "00000005", "00000006"]);
}

#[test]
fn a_removal_takes_generations_set_aside_and_nothing_else() {
    let scratch = Scratch::new().with_generations(3);
    let store = scratch.open();
    store.set_aside_newer(id(1)).unwrap();
    assert!(store.has_backup().unwrap());
    store.remove().unwrap();
    assert!(!scratch.root().exists());

    let scratch = Scratch::new().with_generations(3);
    let store = scratch.open();
    store.set_aside_newer(id(1)).unwrap();
    let theirs = scratch.root().join("aside/notes");
    std::fs::write(&theirs, "theirs").unwrap();
    store.remove().unwrap();
    assert_eq!(names(scratch.root()), ["aside"]);
    assert_eq!(std::fs::read(&theirs).unwrap(), b"theirs");
}

#[test]
fn a_requested_damaged_generation_stays_in_place() {
    let scratch = Scratch::new().with_generations(2);
    std::fs::write(scratch.generation(1).join("model.bpk"), "damaged").unwrap();
    let store = scratch.open();
    for missing in [1, 7] {
        let error = store.generation(id(missing), &Whole, &|_| {}).unwrap_err();
        assert!(
            matches!(error, StoreError::GenerationDamaged { .. }),
            "{error}"
        );
    }
    assert!(scratch.generation(1).exists() && scratch.generation(2).exists());
}

#[test]
fn a_foreign_file_at_the_destination_is_refused() {
    let scratch = Scratch::new().with_generations(2);
    std::fs::write(scratch.root().join("aside"), "theirs").unwrap();
    let store = scratch.open();
    let error = store.set_aside_newer(id(1)).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert_is(store.newest().unwrap(), 2);
    store.remove().unwrap();
    assert_eq!(names(scratch.root()), ["aside"]);
}

#[test]
fn after_any_failed_call_each_generation_is_in_one_place_and_a_retry_finishes() {
    for failure in Failure::ALL {
        for at in 1.. {
            let scratch = Scratch::new().with_generations(4);
            let calls = Arc::new(AtomicUsize::new(0));
            let (counted, fails) = (calls.clone(), failure.at(at));
            let filesystem = FaultyFilesystem::new(move |operation: Operation, _| {
                match counted.load(Ordering::Relaxed) {
                    0 => Ok(()),
                    call => {
                        counted.store(call + 1, Ordering::Relaxed);
                        fails(call, operation)
                    }
                }
            });
            let store = scratch.open_through(filesystem);
            calls.store(1, Ordering::Relaxed);
            let moved = store.set_aside_newer(id(1));
            let made = calls.swap(0, Ordering::Relaxed) - 1;
            let (in_place, aside) = found_at(&scratch);
            assert!(in_place.is_disjoint(&aside));
            let all: BTreeSet<_> = in_place.union(&aside).copied().collect();
            assert_eq!(all, set(&[1, 2, 3, 4]), "{failure:?} at {at}");
            // The newest generation moves last.
            assert!(in_place.contains(&4) || aside == set(&[2, 3, 4]));
            match moved {
                Ok(_) => assert_eq!(in_place, set(&[1])),
                Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
            }

            store.set_aside_newer(id(1)).unwrap();
            assert_eq!(found_at(&scratch), (set(&[1]), set(&[2, 3, 4])));
            assert_eq!(save(&store, 5).unwrap().id(), id(5));
            drop(store);
            assert_is(scratch.open().newest().unwrap(), 5);
            if made < at {
                report(&format!("set aside, {failure:?}: failed at {made} calls"));
                assert!(made > 15, "{made}");
                break;
            }
        }
    }
}

#[test]
fn a_power_cut_loses_no_generation_and_the_newest_moves_last() {
    let disk = MemoryFilesystem::default();
    let store = open_on(disk.clone()).unwrap();
    for number in 1..=4 {
        let _ = save(&store, number).unwrap();
    }
    drop(store);
    let store = open_on(disk.clone()).unwrap();
    let before = disk.changes();
    store.set_aside_newer(id(1)).unwrap();
    let after = disk.changes();
    let committed = save(&store, 5).unwrap();
    store.prune(&committed, 2).unwrap();
    let end = disk.changes();
    drop(store);
    let mut images = 0;
    for changes in before..=end {
        for image in disk.power_cuts(changes, 64) {
            images += 1;
            let disk = MemoryFilesystem::holding(&image);
            let (in_place, aside) = found(Arc::new(disk.clone()), Path::new(DIR));
            assert!(in_place.is_disjoint(&aside), "{in_place:?}, {aside:?}");
            assert!(in_place.contains(&1), "{in_place:?}");
            let all: BTreeSet<_> = in_place.union(&aside).copied().collect();
            assert!(all.is_superset(&set(&[2, 3, 4])), "{in_place:?}, {aside:?}");
            assert!(in_place.contains(&4) || aside.is_superset(&set(&[2, 3, 4])));
            if changes >= after {
                assert_eq!(aside, set(&[2, 3, 4]), "it is durable");
            }
            // The next process finishes the move.
            let store = open_on(disk.clone()).unwrap();
            let newest = store.newest().unwrap().unwrap().id();
            if newest != id(5) {
                store.set_aside_newer(id(1)).unwrap();
                let (in_place, aside) = found(Arc::new(disk), Path::new(DIR));
                assert_eq!((in_place, aside), (set(&[1]), set(&[2, 3, 4])));
            }
            assert!(save(&store, 6).unwrap().id() > id(4));
        }
    }
    report(&format!("set aside: {images} disks after a power cut"));
    assert!(images > 100, "{images}");
}

#[test]
fn a_prune_with_a_decision_keeps_its_selection_if_any_call_fails() {
    let keeps = |generations: &[GenerationId]| -> BTreeSet<GenerationId> {
        generations
            .iter()
            .copied()
            .filter(|id| id.number() == 2)
            .collect()
    };
    for failure in Failure::ALL {
        for at in 1.. {
            let scratch = Scratch::new().with_generations(4);
            let calls = Arc::new(AtomicUsize::new(0));
            let (counted, fails) = (calls.clone(), failure.at(at));
            let filesystem = FaultyFilesystem::new(move |operation: Operation, _| {
                match counted.load(Ordering::Relaxed) {
                    0 => Ok(()),
                    call => {
                        counted.store(call + 1, Ordering::Relaxed);
                        fails(call, operation)
                    }
                }
            });
            let store = scratch.open_through(filesystem);
            let committed = save(&store, 5).unwrap();
            calls.store(1, Ordering::Relaxed);
            let pruned = store.prune_with(&committed, &keeps);
            let made = calls.swap(0, Ordering::Relaxed) - 1;
            if let Ok(pruned) = &pruned {
                assert_eq!(pruned, &ids(&[1, 3, 4]), "{failure:?} at {at}");
            }
            let (in_place, _) = found_at(&scratch);
            assert!(in_place.is_superset(&set(&[2, 5])), "{in_place:?}");
            let committed = save(&store, 6).unwrap();
            store.prune_with(&committed, &keeps).unwrap();
            assert_eq!(found_at(&scratch).0, set(&[2, 6]), "{failure:?} at {at}");
            drop(store);
            let store = Store::open(scratch.root(), OpenOptions::default()).unwrap();
            assert_is(Some(store.generation(id(2), &Whole, &|_| {}).unwrap()), 2);
            if made < at {
                report(&format!(
                    "prunes with a decision, {failure:?}: failed at {made} calls"
                ));
                assert!(made > 15, "{made}");
                break;
            }
        }
    }
}

#[test]
fn an_error_says_where_every_generation_is() {
    let scratch = Scratch::new().with_generations(2);
    let filesystem = FaultyFilesystem::new(|operation, path: &Path| {
        let is_aside = path.components().any(|name| name.as_os_str() == "aside");
        match operation == Operation::SyncDir && is_aside {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    });
    let store = scratch.open_through(filesystem);
    let text = store.set_aside_newer(id(1)).unwrap_err().to_string();
    assert!(
        text.contains("in its place or in the directory 'aside'"),
        "{text}"
    );
}
