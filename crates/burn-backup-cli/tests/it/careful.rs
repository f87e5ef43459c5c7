//! Commands that delete ask first, and have a dry run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::backups::{contents, fixture, open, save, training};
use crate::program::Scratch;

/// More generations than one prune removes.
fn with_four() -> Scratch {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let store = open(&scratch.join("backup"));
    for number in [3, 4] {
        let _ = save(&store, number);
    }
    drop(store);
    fs::create_dir(scratch.join("backup/.staging-00000009-0123456789abcdef")).unwrap();
    fs::write(scratch.join("backup/notes.txt"), "the user's").unwrap();
    scratch
}

fn unchanged(scratch: &Scratch, before: &BTreeMap<PathBuf, Option<Vec<u8>>>) {
    assert!(
        contents(&scratch.path()) == *before,
        "something was changed"
    );
}

fn numbers(json: &Value) -> Vec<u64> {
    let all = json.as_array().unwrap().iter();
    all.map(|one| one["number"].as_u64().unwrap()).collect()
}

#[test]
fn a_dry_run_changes_nothing_and_shows_the_plan() {
    let scratch = with_four();
    let quarantine = scratch.join("backup/quarantine");
    fs::create_dir(&quarantine).unwrap();
    fs::rename(
        scratch.join("backup/generations/00000001"),
        quarantine.join("00000001"),
    )
    .unwrap();
    fixture(
        "tests/fixtures/format-1/with-metrics/backup",
        &scratch.join("old"),
    );
    let url = scratch.mirror("mirror");
    let before = contents(&scratch.path());
    for command in [
        "prune backup --keep 2".to_owned(),
        "discard backup".to_owned(),
        format!("discard backup --mirror {url}"),
        "unquarantine backup 1".to_owned(),
        "migrate old".to_owned(),
        format!("push backup --to {url}"),
    ] {
        scratch.run(&format!("{command} --dry-run")).good();
        unchanged(&scratch, &before);
    }
    let planned = scratch.run("prune backup --keep 2 --dry-run --json").json();
    let done = scratch
        .run("prune backup --keep 2 --yes --json")
        .good()
        .json();
    assert_eq!(numbers(&planned["removed"]), [2]);
    assert_eq!(numbers(&done["removed"]), [2]);
    let listed = scratch.run("list backup --json").json();
    assert_eq!(numbers(&listed["generations"]), [4, 3]);
}

#[test]
fn nothing_is_deleted_without_a_terminal_and_without_yes() {
    let scratch = with_four();
    let url = scratch.mirror("mirror");
    scratch.run(&format!("push backup --to {url}")).good();
    let before = contents(&scratch.path());
    for command in [
        "prune backup --keep 1".to_owned(),
        "discard backup".to_owned(),
        format!("discard {url}"),
    ] {
        scratch
            .run(&command)
            .ends_with(1)
            .says(&["--yes", "nothing was changed"]);
        let mut after = contents(&scratch.path());
        // The lock names the last process, and the sweep removes interrupted saves.
        for path in ["backup/lock", "backup/.staging-00000009-0123456789abcdef"] {
            if let Some(there) = before.get(&scratch.join(path)) {
                after.insert(scratch.join(path), there.clone());
            }
        }
        unchanged_except(&before, &after);
    }
}

#[track_caller]
fn unchanged_except(
    before: &BTreeMap<PathBuf, Option<Vec<u8>>>,
    after: &BTreeMap<PathBuf, Option<Vec<u8>>>,
) {
    let names = |all: &BTreeMap<PathBuf, Option<Vec<u8>>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after));
    assert!(before == after, "something was changed");
}

#[test]
fn a_prune_keeps_the_requested_number() {
    for keep in 1..=5 {
        let scratch = with_four();
        scratch
            .run(&format!("prune backup --keep {keep} --yes"))
            .good();
        let listed = scratch.run("list backup --json").good().json();
        let expected: Vec<u64> = (1..=4).rev().take(keep).collect();
        assert_eq!(numbers(&listed["generations"]), expected);
        // Commands that remove something also sweep.
        assert_eq!(
            listed["leftovers"].as_array().unwrap().len(),
            usize::from(keep >= 4),
            "{listed}"
        );
        scratch.run("verify backup").good();
        assert_eq!(
            fs::read(scratch.join("backup/notes.txt")).unwrap(),
            b"the user's"
        );
    }
}

#[test]
fn a_discard_keeps_the_users_files() {
    let scratch = with_four();
    scratch.run("discard backup --yes").good();
    let left = contents(&scratch.join("backup"));
    assert_eq!(
        left.keys().collect::<Vec<_>>(),
        [&scratch.join("backup/notes.txt")]
    );
    scratch.run("list backup").ends_with(4);
}

#[test]
fn a_migration_keeps_parts_and_state() {
    let scratch = Scratch::new();
    for name in ["complete", "interrupted", "with-metrics", "by-hand"] {
        let dir = format!("old-{name}");
        fixture(
            &format!("tests/fixtures/format-1/{name}/backup"),
            &scratch.join(&dir),
        );
        let migrated = scratch.run(&format!("migrate {dir} --json")).good().json();
        let (from, to) = (
            migrated["from"].as_u64().unwrap(),
            migrated["to"].as_u64().unwrap(),
        );
        assert_eq!(
            (
                migrated["from_format"].as_u64(),
                migrated["to_format"].as_u64()
            ),
            (Some(1), Some(2))
        );
        assert_eq!(to, from + 1);
        let generation = |number: u64| scratch.join(format!("{dir}/generations/{number:08}"));
        let state = |number: u64| {
            let manifest = fs::read_to_string(generation(number).join("manifest.json")).unwrap();
            let state = manifest
                .lines()
                .find(|line| line.starts_with("  \"state\""))
                .map(str::to_owned);
            state.unwrap_or_else(|| {
                manifest
                    .split_once("\"state\"")
                    .unwrap()
                    .1
                    .split_once("\"checksum\"")
                    .unwrap()
                    .0
                    .to_owned()
            })
        };
        assert_eq!(state(from), state(to), "{name}");
        for entry in fs::read_dir(generation(from)).unwrap() {
            let file = entry.unwrap().file_name();
            if file != "manifest.json" {
                let read = |number| fs::read(generation(number).join(&file)).unwrap();
                assert!(read(from) == read(to), "{name}: {file:?}");
            }
        }
        scratch.run(&format!("verify {dir}")).good();
        scratch
            .run(&format!("migrate {dir}"))
            .good()
            .prints(&["nothing to do"]);
    }
}

#[test]
fn a_damaged_generation_stays_in_quarantine() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    crate::backups::flip(&scratch.join("backup/generations/00000002/frozen.bpk"), 260);
    let store = open(&scratch.join("backup"));
    // Generation 1 has the same file.
    assert!(store.newest().is_err());
    drop(store);
    for option in ["", " --dry-run"] {
        scratch
            .run(&format!("unquarantine backup 2{option}"))
            .ends_with(3)
            .says(&["damaged", "frozen.bpk"]);
    }
    assert!(
        scratch
            .join("backup/quarantine/00000002/reason.txt")
            .exists()
    );
    scratch
        .run("unquarantine backup 7")
        .ends_with(4)
        .says(&["00000001, 00000002"]);
}

#[test]
fn a_repaired_generation_returns_from_quarantine() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let part = scratch.join("backup/generations/00000002/model.bpk");
    crate::backups::flip(&part, 290);
    let store = open(&scratch.join("backup"));
    assert_eq!(store.newest().unwrap().unwrap().id().number(), 1);
    drop(store);
    crate::backups::flip(&scratch.join("backup/quarantine/00000002/model.bpk"), 290);
    scratch.run("unquarantine backup 00000002").good();
    let store = open(&scratch.join("backup"));
    assert_eq!(store.newest().unwrap().unwrap().id().number(), 2);
}
