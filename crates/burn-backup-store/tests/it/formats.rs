//! Directories in every released format version, as that version wrote them.

use std::path::Path;

use burn_backup_store::testing::{Image, MemoryFilesystem, Node};

use crate::support::{DIR, assert_is, contents, has_parts, open_on, save};

/// A fixture on a disk in memory.
pub fn fixture(name: &str) -> MemoryFilesystem {
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
fn format_1_is_read_byte_for_byte_and_continued() {
    let disk = fixture("format-1");
    let store = open_on(disk.clone()).unwrap();
    assert_eq!(store.identity().format, 1);
    assert_eq!(store.identity().run_id, "6c8524dbe1f62c14");
    assert_eq!(store.identity().run_seed, 7);
    let mut newest = store.newest().unwrap().unwrap();
    let manifest = newest.manifest();
    assert_eq!(manifest.writer, "burn-backup-store 0.1.0");
    assert_eq!(manifest.generation.number(), 2);
    assert_eq!(manifest.state::<serde_json::Value>().unwrap()["number"], 2);
    // They were written before there was a part to link.
    assert!(has_parts(&mut newest, &["model", "optimizer"]));

    // Generation 3 is in the quarantine.
    let committed = save(&store, 4).unwrap();
    assert_eq!(committed.id().number(), 4);
    drop(store);
    let store = open_on(disk.clone()).unwrap();
    assert_is(store.newest().unwrap(), 4);
    store.remove().unwrap();
    assert!(!disk.image().contains_key(Path::new(DIR)));
}

/// The part "model" in the fixture of format 2, which has more than one block.
fn blocks(number: u64) -> Vec<u8> {
    let line = format!("model of {number}; ").into_bytes();
    let mut bytes = line.repeat(8 * 1024 * 1024 / line.len() + 10);
    // All blocks differ, and the last one is short.
    bytes.extend_from_slice(b"the end");
    bytes
}

#[test]
fn format_2_is_read_byte_for_byte_and_continued() {
    let disk = fixture("format-2");
    let store = open_on(disk.clone()).unwrap();
    assert_eq!(store.identity().format, 2);
    assert_eq!(store.identity().run_seed, 7);
    let mut newest = store.newest().unwrap().unwrap();
    let manifest = newest.manifest();
    assert_eq!(manifest.format, 2);
    assert_eq!(manifest.state::<serde_json::Value>().unwrap()["number"], 2);
    let [model, optimizer] = manifest.parts.as_slice() else {
        panic!("{:?}", manifest.parts);
    };
    assert_eq!((model.blocks.len(), optimizer.blocks.len()), (2, 0));
    assert!(newest.take_part("model").unwrap() == blocks(2));
    assert_eq!(
        newest.take_part("optimizer").unwrap(),
        contents("optimizer", 2)
    );

    let committed = save(&store, 3).unwrap();
    store.prune(&committed, 1).unwrap();
    drop(store);
    let store = open_on(disk.clone()).unwrap();
    assert_is(store.newest().unwrap(), 3);
    store.remove().unwrap();
    assert!(!disk.image().contains_key(Path::new(DIR)));
}

#[test]
fn damage_in_a_part_of_format_2_is_located_to_its_block() {
    let disk = fixture("format-2");
    let mut image = disk.image();
    let part = Path::new(DIR).join("generations/00000002/model.bpk");
    let Some(Node::File(bytes)) = image.get_mut(&part) else {
        panic!("no {}", part.display());
    };
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    let disk = MemoryFilesystem::holding(&image);
    let store = open_on(disk.clone()).unwrap();
    let newest = store.newest().unwrap().unwrap();
    assert_eq!(
        newest.manifest().state::<serde_json::Value>().unwrap()["number"],
        1
    );
    let reason = Path::new(DIR).join("quarantine/00000002/reason.txt");
    let Some(Node::File(reason)) = disk.image().remove(&reason) else {
        panic!("no reason");
    };
    let reason = String::from_utf8(reason).unwrap();
    let expected = format!(
        "model.bpk does not match its hash in the {} bytes from byte 8388608 on",
        blocks(2).len() - 8_388_608
    );
    assert!(reason.contains(&expected), "{reason}");
}
