//! One store adopts a generation of another store.

use std::path::Path;
use std::sync::Arc;

use burn_backup_store::testing::{
    Failure, FaultyFilesystem, MemoryFilesystem, Node, Operation, report,
};
use burn_backup_store::{GenerationId, OpenOptions, PartEntry, Pinned, Store, StoreError};

use crate::formats::fixture;
use crate::support::{DIR, Scratch, assert_is, has_parts, names, open_on, save};

/// The newest generation of `store`, pinned.
fn pinned(store: &Arc<Store>, number: u64) -> Pinned {
    store.pin(GenerationId::new(number)).unwrap().unwrap()
}

/// Makes `store` adopt a generation whose parts were modified by `change`.
fn adopt(
    store: &mut Store,
    from: &Pinned,
    change: impl Fn(&PartEntry, &mut Vec<u8>),
) -> Result<(), StoreError> {
    let manifest = from.manifest();
    store.become_run(&manifest.run_id, manifest.run_seed)?;
    let mut adoption = store.adopt(from.sealed())?;
    for entry in &manifest.parts {
        let mut bytes = vec![0; entry.bytes as usize];
        from.part(entry)?.read(0, &mut bytes)?;
        change(entry, &mut bytes);
        let mut part = adoption.part(entry)?;
        // The chunks differ from the chunks on either side.
        for chunk in bytes.chunks(3_000_001) {
            part.append(chunk.to_vec())?;
        }
        part.finish()?;
    }
    adoption.commit().map(drop)
}

#[test]
fn an_empty_store_adopts_every_byte_and_continues_the_numbers() {
    for format in ["format-1", "format-2"] {
        let source = Arc::new(open_on(fixture(format)).unwrap());
        let from = pinned(&source, 2);
        let disk = MemoryFilesystem::default();
        let mut store = open_on(disk.clone()).unwrap();
        adopt(&mut store, &from, |_, _| {}).unwrap();
        assert_eq!(store.identity().run_id, source.identity().run_id);
        drop(store);

        let store = open_on(disk.clone()).unwrap();
        assert_eq!(store.identity().run_seed, 7);
        let newest = store.newest().unwrap().unwrap();
        assert_eq!(newest.id().number(), 2);
        let manifest = Path::new(DIR).join("generations/00000002/manifest.json");
        let Some(Node::File(bytes)) = disk.image().remove(&manifest) else {
            panic!("there is no manifest");
        };
        assert!(bytes == from.sealed());
        store.count_from(GenerationId::new(7));
        assert_eq!(save(&store, 8).unwrap().id().number(), 8);
    }
}

#[test]
fn parts_that_differ_from_the_manifest_are_not_adopted() {
    let source = Scratch::new().with_generations(2);
    let source = Arc::new(source.open());
    let from = pinned(&source, 2);
    let target = Scratch::new();
    let mut store = target.open();
    let mut tried = 0;
    for damaged in &from.manifest().parts {
        let last = damaged.bytes as usize - 1;
        for at in [0, last / 2, last] {
            for change in [
                (|bytes, at| bytes[at] ^= 1) as fn(&mut Vec<u8>, usize),
                |bytes, at| bytes.truncate(at),
                |bytes, at| bytes.insert(at, 0),
            ] {
                let error = adopt(&mut store, &from, |entry, bytes| {
                    if entry.name == damaged.name {
                        change(bytes, at);
                    }
                });
                let error = error.unwrap_err();
                let is_damaged = matches!(&error, StoreError::Damaged { .. });
                assert!(is_damaged, "{error}");
                assert!(error.to_string().contains(&damaged.file), "{error}");
                assert!(store.newest().unwrap().is_none());
                tried += 1;
            }
        }
    }
    let sealed = from.sealed();
    for at in (0..sealed.len()).step_by(7) {
        let mut changed = sealed.to_vec();
        changed[at] ^= 1;
        let error = store.adopt(&changed).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        tried += 1;
    }
    report(&format!("adoptions: {tried} of damaged generations"));
    // The refused attempts left nothing behind.
    adopt(&mut store, &from, |_, _| {}).unwrap();
    assert_is(store.newest().unwrap(), 2);
    drop(store);
    assert_eq!(
        names(target.root()),
        ["burn-backup.json", "generations", "lock"]
    );
}

#[test]
fn a_missing_part_is_damage() {
    let scratch = Scratch::new().with_generations(1);
    let source = Arc::new(scratch.open());
    let from = pinned(&source, 1);
    let target = Scratch::new();
    let mut store = target.open();
    let manifest = from.manifest();
    store
        .become_run(&manifest.run_id, manifest.run_seed)
        .unwrap();
    let error = store.adopt(from.sealed()).unwrap().commit().err().unwrap();
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn another_training_or_a_used_number_is_refused() {
    let scratch = Scratch::new().with_generations(1);
    let source = Arc::new(scratch.open());
    let from = pinned(&source, 1);
    let target = Scratch::new().with_generations(1);
    let mut store = target.open();
    let (run, seed) = (&from.manifest().run_id, from.manifest().run_seed);
    let error = store.become_run(run, seed).unwrap_err();
    assert!(matches!(error, StoreError::AnotherRun { .. }), "{error}");
    let error = store.adopt(from.sealed()).err().unwrap();
    assert!(matches!(error, StoreError::AnotherRun { .. }), "{error}");
    let error = source.adopt(from.sealed()).err().unwrap();
    assert!(matches!(error, StoreError::NumberTaken { .. }), "{error}");
    assert_is(store.newest().unwrap(), 1);
}

#[test]
fn after_any_failed_call_it_is_whole_or_absent_and_a_retry_succeeds() {
    let scratch = Scratch::new().with_generations(2);
    let source = Arc::new(scratch.open());
    let from = pinned(&source, 2);
    for failure in Failure::ALL {
        for at in 1.. {
            let target = Scratch::new();
            let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let counted = calls.clone();
            let fails = failure.at(at);
            let filesystem = FaultyFilesystem::new(move |operation: Operation, _: &Path| {
                let call = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                fails(call, operation)
            });
            let options = OpenOptions::default().filesystem(Arc::new(filesystem));
            let Ok(mut store) = Store::open(target.root(), options) else {
                continue;
            };
            let adopted = adopt(&mut store, &from, |_, _| {});
            drop(store);
            let mut store = target.open();
            let newest = store.newest().unwrap();
            match (&adopted, newest) {
                (_, Some(mut newest)) => {
                    assert_eq!(newest.id().number(), 2);
                    assert!(has_parts(&mut newest, &["model", "optimizer", "frozen"]));
                }
                (Err(_), None) => {
                    adopt(&mut store, &from, |_, _| {}).unwrap();
                    assert_is(store.newest().unwrap(), 2);
                }
                (Ok(()), None) => panic!("{failure:?} at {at}: it is gone"),
            }
            if calls.load(std::sync::atomic::Ordering::Relaxed) < at {
                report(&format!("adoptions, {failure:?}: failed at {at} calls"));
                break;
            }
        }
    }
}
