//! Damage is found, and its place is reported.

use std::fs;

use burn_backup_store::PartEntry;

use crate::backups::{contents, flip, open, training};
use crate::program::Scratch;

#[test]
fn damage_in_a_small_part_shows_file_and_offset() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    flip(&scratch.join("backup/generations/00000001/model.bpk"), 300);
    let ran = scratch.run("verify backup").ends_with(3);
    let ran = ran.prints(&[
        "generation 2: whole",
        "generation 1: damaged",
        "model.bpk",
        "from byte 0 on",
    ]);
    drop(ran);
    let json = scratch.run("verify backup --json").ends_with(3).json();
    let flaw = &json["generations"][1]["damage"][0];
    assert_eq!(flaw["file"], "model.bpk");
    assert_eq!(flaw["offset"], 0);
    assert_eq!(
        (json["whole"].as_u64(), json["damaged"].as_u64()),
        (Some(1), Some(1))
    );
    scratch.run("verify backup 2").good();
    scratch.run("verify backup 1").ends_with(3);
}

#[test]
fn damage_in_a_large_part_shows_the_block() {
    let scratch = Scratch::new();
    let store = open(&scratch.join("backup"));
    let mut staging = store.stage().unwrap();
    let mut part = staging.part("model").unwrap();
    part.append(vec![7; 2 * PartEntry::BLOCK_BYTES as usize + 10])
        .unwrap();
    part.finish().unwrap();
    let _ = staging.commit(1).unwrap();
    drop(store);
    flip(
        &scratch.join("backup/generations/00000001/model.bpk"),
        PartEntry::BLOCK_BYTES as usize + 5,
    );
    let json = scratch.run("verify backup --json").ends_with(3).json();
    let flaw = &json["generations"][0]["damage"][0];
    assert_eq!(flaw["offset"], PartEntry::BLOCK_BYTES);
    assert_eq!(flaw["bytes"], PartEntry::BLOCK_BYTES);
    scratch
        .run("verify backup")
        .ends_with(3)
        .prints(&["model.bpk", "from byte 8388608 on"]);
}

#[test]
fn a_part_that_is_cut_or_missing_is_damage() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let part = scratch.join("backup/generations/00000002/optimizer.bpk");
    let bytes = fs::read(&part).unwrap();
    fs::write(&part, &bytes[..bytes.len() - 1]).unwrap();
    fs::remove_file(scratch.join("backup/generations/00000001/scheduler.bpk")).unwrap();
    let ran = scratch.run("verify backup").ends_with(3);
    drop(ran.prints(&["optimizer.bpk has", "scheduler.bpk is missing"]));
}

#[test]
fn nothing_is_taken_from_a_damaged_generation() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    flip(&scratch.join("backup/generations/00000002/model.bpk"), 300);
    let before = contents(&scratch.path());
    let url = scratch.mirror("mirror");
    for command in [
        "export backup --to out",
        "export backup --to out --format safetensors",
        "prune backup --keep 1 --yes",
        "prune backup --keep 1 --dry-run",
    ] {
        scratch
            .run(command)
            .ends_with(3)
            .says(&["damaged", "model.bpk"]);
    }
    fs::remove_dir(scratch.join("mirror")).unwrap();
    let mut after = contents(&scratch.path());
    after.remove(&scratch.join("backup/lock"));
    let mut before = before;
    before.remove(&scratch.join("backup/lock"));
    assert!(after == before, "something was changed");

    // All undamaged generations can be read.
    scratch.mirror("mirror");
    scratch
        .run(&format!("push backup --to {url}"))
        .ends_with(3)
        .says(&["generation 2 is damaged", "left out"]);
    let there = scratch.run(&format!("list {url} --json")).good().json();
    assert_eq!(there["trainings"][0]["generations"][0]["number"], 1);
    scratch.run("export backup --to out --generation 1").good();
}

#[test]
fn a_damaged_manifest_is_shown_beside_the_others() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    flip(
        &scratch.join("backup/generations/00000002/manifest.json"),
        40,
    );
    scratch
        .run("list backup")
        .ends_with(3)
        .prints(&["damaged: manifest.json does not match", "manifest whole"]);
    scratch.run("show backup").ends_with(3).says(&[
        "generation 2 is damaged",
        "The previous one is generation 1",
    ]);
    scratch.run("show backup 1").good();
    scratch
        .run("prune backup --keep 1 --yes")
        .ends_with(3)
        .says(&["nothing was changed"]);
}

#[test]
fn an_invalid_record_is_reported() {
    let scratch = Scratch::new();
    let store = open(&scratch.join("backup"));
    let mut staging = store.stage().unwrap();
    for name in ["model", "optimizer"] {
        let mut part = staging.part(name).unwrap();
        part.append(b"no record at all".to_vec()).unwrap();
        part.finish().unwrap();
    }
    let _ = staging.commit(1).unwrap();
    drop(store);
    scratch
        .run("show backup")
        .good()
        .says(&["'optimizer.bpk' can't be read as a record"]);
    scratch
        .run("export backup --to out")
        .ends_with(1)
        .says(&["'model.bpk' can't be read as a record"]);
    assert!(!scratch.join("out").exists());
}

#[test]
fn damage_in_a_mirror_is_found() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let url = scratch.mirror("mirror");
    scratch.run(&format!("push backup --to {url}")).good();
    let run = fs::read_dir(scratch.join("mirror"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let part = fs::read_dir(run.join("parts"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    flip(&part, 12);
    let name = part.file_name().unwrap().to_string_lossy().into_owned();
    scratch
        .run(&format!("verify {url}"))
        .ends_with(3)
        .prints(&[&name]);
    scratch
        .run(&format!("export {url} --to out"))
        .ends_with(3)
        .says(&[&name]);
    scratch
        .run(&format!("pull copy --from {url}"))
        .ends_with(3)
        .says(&["left out"]);
}
