//! Directories of every released format version, as they were written then.

use std::path::Path;

use burn_backup_store::testing::{Image, MemoryFilesystem, Node};

use crate::support::{DIR, assert_is, has_parts, open_on, save};

/// A fixture, on a disk in memory.
fn fixture(name: &str) -> MemoryFilesystem {
    fn read(dir: &Path, place: &Path, image: &mut Image) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let (path, place) = entry
                .map(|entry| (entry.path(), place.join(entry.file_name())))
                .unwrap();
            if path.is_dir() {
                read(&path, &place, image);
            } else {
                image.insert(place, Node::File(std::fs::read(path).unwrap()));
            }
        }
    }
    let mut image = Image::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    read(&fixtures.join(name), Path::new(""), &mut image);
    MemoryFilesystem::holding(&image)
}

#[test]
fn format_1_is_read_byte_for_byte_and_written_on() {
    let disk = fixture("format-1");
    let store = open_on(disk.clone()).unwrap();
    assert_eq!(store.identity().format, 1);
    assert_eq!(store.identity().run_id, "6c8524dbe1f62c14");
    assert_eq!(store.identity().run_seed, 7);
    let mut newest = store.newest().unwrap().unwrap();
    let manifest = newest.manifest();
    assert_eq!(manifest.writer, "burn-backup-store 0.1.0");
    assert_eq!(manifest.generation.number(), 2);
    assert_eq!(manifest.state["number"], 2);
    // They were written before there was a part to link.
    assert!(has_parts(&mut newest, &["model", "optimizer"]));

    // Generation 3 is in its quarantine.
    let committed = save(&store, 4).unwrap();
    assert_eq!(committed.id().number(), 4);
    drop(store);
    let store = open_on(disk.clone()).unwrap();
    assert_is(store.newest().unwrap(), 4);
    store.remove().unwrap();
    assert!(!disk.image().contains_key(Path::new(DIR)));
}
