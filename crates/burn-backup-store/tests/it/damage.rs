use std::fs;
use std::path::Path;

use burn_backup_store::StoreError;

use crate::support::{Scratch, assert_is, names};

/// Damages the newest of two generations, and expects the one before and the reason.
#[track_caller]
fn assert_falls_back(what: &str, damage: impl FnOnce(&Path), reason: &str) {
    let scratch = Scratch::new().with_generations(2);
    damage(&scratch.generation(2));
    assert_is(scratch.open().newest().unwrap(), 1);
    assert!(!scratch.generation(2).exists(), "{what}");
    let written = fs::read_to_string(scratch.quarantined(2).join("reason.txt")).unwrap();
    assert_eq!(written.trim_end(), reason, "{what}");
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_part_is_quarantined_with_the_reason_and_the_one_before_is_used() {
    assert_falls_back(
        "a changed byte",
        |dir| edit(&dir.join("model.bpk"), |bytes| bytes[17] ^= 1),
        "model.bpk does not match its hash",
    );
    assert_falls_back(
        "a truncation",
        |dir| edit(&dir.join("optimizer.bpk"), |bytes| bytes.truncate(10)),
        "optimizer.bpk has 10 bytes instead of 1600",
    );
    assert_falls_back(
        "an empty file",
        |dir| edit(&dir.join("model.bpk"), Vec::clear),
        "model.bpk has 0 bytes instead of 1200",
    );
    assert_falls_back(
        "an appended byte",
        |dir| edit(&dir.join("model.bpk"), |bytes| bytes.push(0)),
        "model.bpk has 1201 bytes instead of 1200",
    );
    assert_falls_back(
        "a missing part",
        |dir| fs::remove_file(dir.join("model.bpk")).unwrap(),
        "model.bpk is missing",
    );
    assert_falls_back(
        "a directory in place of a part",
        |dir| {
            fs::remove_file(dir.join("model.bpk")).unwrap();
            fs::create_dir(dir.join("model.bpk")).unwrap();
        },
        "model.bpk is missing",
    );
    assert_falls_back(
        "another generation's part",
        |dir| {
            let other = dir.with_file_name("00000001").join("model.bpk");
            fs::copy(other, dir.join("model.bpk")).unwrap();
        },
        "model.bpk does not match its hash",
    );
}

#[test]
fn a_damaged_manifest_is_quarantined_with_the_reason_and_the_one_before_is_used() {
    assert_falls_back(
        "a changed byte",
        |dir| edit(&dir.join("manifest.json"), |bytes| bytes[20] ^= 1),
        "manifest.json does not match the checksum at its end",
    );
    assert_falls_back(
        "an empty file",
        |dir| edit(&dir.join("manifest.json"), Vec::clear),
        "manifest.json does not match the checksum at its end",
    );
    assert_falls_back(
        "no manifest",
        |dir| fs::remove_file(dir.join("manifest.json")).unwrap(),
        "manifest.json is missing",
    );
    assert_falls_back(
        "another generation's manifest",
        |dir| {
            let other = dir.with_file_name("00000001").join("manifest.json");
            fs::copy(other, dir.join("manifest.json")).unwrap();
        },
        "manifest.json is that of generation 00000001",
    );
}

#[test]
fn another_trainings_generation_is_refused_and_stays() {
    let other = Scratch::new().with_generations(2);
    let scratch = Scratch::new().with_generations(1);
    fs::rename(other.generation(2), scratch.generation(2)).unwrap();
    let error = scratch.open().newest().err().unwrap();
    assert!(matches!(error, StoreError::AnotherRun { .. }), "{error}");
    assert!(scratch.generation(2).join("manifest.json").exists());
    fs::remove_dir_all(scratch.generation(2)).unwrap();
    assert_is(scratch.open().newest().unwrap(), 1);
}

#[test]
fn with_no_whole_generation_left_every_start_says_so() {
    let scratch = Scratch::new().with_generations(2);
    for number in [1, 2] {
        edit(&scratch.generation(number).join("model.bpk"), |bytes| {
            bytes[0] ^= 1
        });
    }
    for start in 1..=2 {
        let error = scratch.open().newest().err().unwrap();
        assert!(
            matches!(error, StoreError::NoneLeft { .. }),
            "start {start}: {error}"
        );
        assert!(
            error.to_string().contains("delete the backup directory"),
            "{error}"
        );
    }
    assert_eq!(
        names(scratch.root().join("quarantine")),
        ["00000001", "00000002"]
    );
}

#[test]
fn a_generation_of_a_newer_format_is_refused_and_stays() {
    let scratch = Scratch::new().with_generations(2);
    let manifest = scratch.generation(2).join("manifest.json");
    reseal(&manifest, "\"format\": 1", "\"format\": 9");
    let error = scratch.open().newest().err().unwrap();
    assert!(
        matches!(
            error,
            StoreError::NewerFormat {
                found: 9,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(manifest.exists());
    assert!(!scratch.root().join("quarantine").exists());
}

#[test]
fn a_lost_identity_is_made_again_from_the_newest_manifest() {
    let scratch = Scratch::new().with_generations(2);
    let identity = scratch.open().identity().clone();
    fs::remove_file(scratch.root().join("burn-backup.json")).unwrap();
    assert_eq!(scratch.open().identity(), &identity);
    assert_is(scratch.open().newest().unwrap(), 2);
}

#[test]
fn a_damaged_identity_is_quarantined_and_made_again() {
    let scratch = Scratch::new().with_generations(2);
    let identity = scratch.open().identity().clone();
    edit(&scratch.root().join("burn-backup.json"), |bytes| {
        bytes[12] ^= 1
    });
    assert_eq!(scratch.open().identity(), &identity);
    assert_is(scratch.open().newest().unwrap(), 2);
    assert_eq!(
        names(scratch.root().join("quarantine/burn-backup.json")),
        ["burn-backup.json", "reason.txt"]
    );
}

/// Changes a sealed document and seals it again, as another version of this crate would.
fn reseal(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    let (sealed, _) = text.split_once(",\n  \"checksum\"").unwrap();
    let changed = sealed.replacen(from, to, 1);
    assert_ne!(changed, sealed);
    let checksum = xxhash_rust::xxh3::xxh3_128(changed.as_bytes());
    fs::write(
        path,
        format!("{changed},\n  \"checksum\": \"{checksum:032x}\"\n}}\n"),
    )
    .unwrap();
}
