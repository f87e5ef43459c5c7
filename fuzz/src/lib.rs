//! The checks of the fuzz targets. Every test run also checks the corpus
//! (`crates/burn-backup-store/tests/it/corpus.rs`).

use std::path::Path;
use std::sync::{Arc, LazyLock};

use burn_backup_store::testing::{Image, MemoryFilesystem, Node, below, edit, seal};
use burn_backup_store::{Generation, OpenOptions, Store, StoreError};
use serde_json::json;

const DIR: &str = "backup";

/// The highest number of edits in an input.
const EDITS: usize = 12;

/// Uses any bytes as a manifest or as `burn-backup.json`: raw, or sealed if they are a JSON object.
/// There is always an answer, and no other generation is lost.
pub fn manifest(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let (is_sealed, is_manifest) = (choice & 1 == 0, choice & 2 == 0);
    let bytes = match serde_json::from_slice(data) {
        Ok(document) if is_sealed => seal(&document).expect("it is a JSON object"),
        _ => data.to_vec(),
    };
    let path = match is_manifest {
        true => format!("{DIR}/generations/00000003/manifest.json"),
        false => format!("{DIR}/burn-backup.json"),
    };
    let mut image = THREE_GENERATIONS.clone();
    image.insert(path.into(), Node::File(bytes));
    let disk = MemoryFilesystem::holding(&image);

    match open(&disk).and_then(|store| store.newest()) {
        Ok(newest) => {
            let newest = newest.expect("two generations are whole");
            match newest.id().number() {
                // The generation matches its manifest, which may contain anything.
                3 if is_manifest => {}
                number => {
                    assert_eq!(number, if is_manifest { 2 } else { 3 });
                    assert_eq!(number_of_whole(newest), Some(number));
                }
            }
        }
        // The document claims this.
        Err(
            StoreError::NewerFormat { .. }
            | StoreError::AnotherRun { .. }
            | StoreError::AnotherSeed { .. },
        ) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Edits a backup directory as the input decides. Its newest generation is exactly what was saved,
/// or there is an error. The directory can still be saved into and removed.
pub fn open_directory(data: &[u8]) {
    let mut image = THREE_GENERATIONS.clone();
    let (pairs, _) = data.as_chunks();
    let mut numbers = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
    let mut edits = 0;
    while numbers.len() > 0 && edits < EDITS {
        edit(&mut image, &mut numbers);
        edits += 1;
    }
    let untouched = (1..=3).rev().find(|number| {
        let dir = Path::new(DIR).join(format!("generations/{number:08}"));
        below(&THREE_GENERATIONS, &dir) == below(&image, &dir)
    });

    let disk = MemoryFilesystem::holding(&image);
    let store = match open(&disk).and_then(|store| store.newest().map(|newest| (store, newest))) {
        Ok((store, Some(newest))) => {
            let number = number_of_whole(newest).expect("it is what was saved");
            assert!(Some(number) >= untouched);
            store
        }
        Ok((store, None)) => {
            assert_eq!(untouched, None);
            store
        }
        Err(StoreError::NoneLeft { .. }) => {
            assert_eq!(untouched, None);
            return;
        }
        Err(_) => return,
    };
    save(&store, 99).expect("there is nothing in the way");
    let newest = store
        .newest()
        .expect("it can be read")
        .expect("it is there");
    assert_eq!(number_of_whole(newest), Some(99));
    store.remove().expect("there is nothing in the way");
    let after = open(&disk).and_then(|store| store.newest());
    let left: Vec<_> = disk.image().into_keys().collect();
    assert!(matches!(after, Ok(None)), "{after:?} is found in {left:?}");
}

static THREE_GENERATIONS: LazyLock<Image> = LazyLock::new(|| {
    let disk = MemoryFilesystem::default();
    let store = open(&disk).expect("the disk is empty");
    for number in 1..=3 {
        save(&store, number).expect("nothing fails in memory");
    }
    drop(store);
    disk.image()
});

fn open(disk: &MemoryFilesystem) -> Result<Store, StoreError> {
    let options = OpenOptions::default().filesystem(Arc::new(disk.clone()));
    Store::open(DIR, options)
}

/// Saves a generation whose parts contain its number.
fn save(store: &Store, number: u64) -> Result<(), StoreError> {
    let mut staging = store.stage()?;
    for name in ["model", "optimizer"] {
        let mut part = staging.part(name)?;
        part.append(contents(name, number))?;
        part.finish()?;
    }
    let committed = staging.commit(json!({ "number": number }))?;
    store.prune(&committed, 3).map(drop)
}

fn contents(name: &str, number: u64) -> Vec<u8> {
    format!("{name} of {number}").into_bytes()
}

/// The number of a saved generation, if it is exactly what was saved.
fn number_of_whole(mut generation: Generation) -> Option<u64> {
    let number = generation.manifest().state::<serde_json::Value>().unwrap()["number"].as_u64()?;
    ["model", "optimizer"]
        .iter()
        .all(|name| generation.take_part(name) == Some(contents(name, number)))
        .then_some(number)
}
