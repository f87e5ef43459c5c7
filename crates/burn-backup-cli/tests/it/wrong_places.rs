//! Directories without a backup, or with one that can't be read.

use std::fs;

use crate::backups::{contents, training};
use crate::program::Scratch;

/// All commands that need a backup in a directory.
const COMMANDS: [&str; 9] = [
    "list PLACE",
    "show PLACE",
    "verify PLACE",
    "history PLACE",
    "export PLACE --to out",
    "prune PLACE --keep 1 --yes",
    "discard PLACE --yes",
    "unquarantine PLACE 1",
    "migrate PLACE",
];

/// Runs all of them, and checks that each ends with this code, prints this, and changes nothing.
#[track_caller]
fn all_end_with(scratch: &Scratch, code: i32, texts: &[&str]) {
    let before = contents(&scratch.path());
    for command in COMMANDS {
        let command = command.replace("PLACE", "place");
        for option in ["", " --json"] {
            let ran = scratch
                .run(&format!("{command}{option}"))
                .ends_with(code)
                .says(texts);
            assert_eq!(ran.out, "", "{}", ran.text());
        }
    }
    assert!(contents(&scratch.path()) == before, "something was changed");
}

#[test]
fn a_missing_directory_has_no_backup() {
    all_end_with(
        &Scratch::new(),
        4,
        &["there is no backup in", "place", "no such directory"],
    );
}

#[test]
fn an_empty_directory_has_no_backup() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("place")).unwrap();
    all_end_with(&scratch, 4, &["the directory is empty"]);
}

#[test]
fn a_foreign_directory_has_no_backup() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.join("place/generations")).unwrap();
    fs::write(scratch.join("place/notes.txt"), "mine").unwrap();
    all_end_with(&scratch, 4, &["contains something else"]);
}

#[test]
fn a_file_has_no_backup() {
    let scratch = Scratch::new();
    fs::write(scratch.join("place"), "mine").unwrap();
    all_end_with(&scratch, 4, &["is not a directory"]);
}

#[test]
fn a_newer_format_is_refused() {
    let scratch = Scratch::new();
    let place = scratch.join("place");
    training(&place);
    let path = place.join("burn-backup.json");
    let identity = fs::read_to_string(&path)
        .unwrap()
        .replace("\"format\": 2", "\"format\": 3");
    fs::write(path, sealed(&identity)).unwrap();
    all_end_with(&scratch, 6, &["format version 3", "update"]);
}

#[test]
fn a_newer_manifest_is_refused() {
    let scratch = Scratch::new();
    training(&scratch.join("place"));
    let path = scratch.join("place/generations/00000002/manifest.json");
    let manifest = fs::read_to_string(&path)
        .unwrap()
        .replace("\"format\": 2", "\"format\": 3");
    fs::write(path, sealed(&manifest)).unwrap();
    for command in [
        "list place",
        "show place",
        "verify place",
        "prune place --keep 1 --yes",
        "migrate place",
    ] {
        scratch
            .run(command)
            .ends_with(6)
            .says(&["format version 3"]);
    }
    scratch.run("show place 1").good();
}

/// The document with a valid checksum.
fn sealed(document: &str) -> String {
    let (contents, _) = document.rsplit_once(",\n  \"checksum\"").unwrap();
    let checksum = format!("{}", burn_backup_store::Hash::of(contents.as_bytes()));
    format!("{contents},\n  \"checksum\": \"{checksum}\"\n}}\n")
}

#[test]
fn a_directory_without_generations_is_reported() {
    let scratch = Scratch::new();
    training(&scratch.join("place"));
    // The state that a killed deletion leaves.
    let generations = scratch.join("place/generations");
    fs::rename(
        &generations,
        scratch.join("place/.staging-removed-generations-0123456789abcdef"),
    )
    .unwrap();
    scratch
        .run("list place")
        .ends_with(4)
        .prints(&["There is no generation", "interrupted"]);
    for command in [
        "show place",
        "verify place",
        "history place",
        "export place --to out",
        "migrate place",
    ] {
        scratch.run(command).ends_with(4).says(&["no generation"]);
    }
    scratch.run("discard place --yes").good();
    assert!(!scratch.join("place").exists());
}

#[test]
fn a_lost_identity_is_reported_and_harmless() {
    let scratch = Scratch::new();
    training(&scratch.join("place"));
    fs::remove_file(scratch.join("place/burn-backup.json")).unwrap();
    scratch
        .run("list place")
        .good()
        .prints(&["burn-backup.json is missing or damaged"]);
    scratch.run("verify place").good();
    scratch.run("prune place --keep 1 --yes").good();
    assert!(scratch.join("place/burn-backup.json").exists());
}

#[test]
fn another_trainings_generation_is_recognized() {
    let scratch = Scratch::new();
    for name in ["place", "other"] {
        training(&scratch.join(name));
    }
    let moved = "generations/00000003";
    fs::rename(
        scratch.join("other/generations/00000002"),
        scratch.join("place").join(moved),
    )
    .unwrap();
    let listed = scratch.run("list place --json");
    assert_eq!(
        listed.json()["generations"][0]["status"],
        "damaged",
        "its number differs from its directory"
    );
    fs::remove_dir_all(scratch.join("place").join(moved)).unwrap();
    fs::remove_dir_all(scratch.join("place/generations/00000001")).unwrap();
    fs::rename(
        scratch.join("other/generations/00000001"),
        scratch.join("place/generations/00000001"),
    )
    .unwrap();
    scratch
        .run("list place")
        .good()
        .prints(&["of another training"]);
    let planned = scratch.run("prune place --keep 1 --dry-run --json").good();
    assert_eq!(planned.json()["removed"].as_array().unwrap().len(), 0);
    scratch
        .run("discard place --yes")
        .ends_with(1)
        .says(&["another training"]);
}

#[test]
fn a_mirror_is_refused_where_a_directory_is_needed() {
    let scratch = Scratch::new();
    let url = scratch.mirror("mirror");
    for command in [
        "prune URL --keep 1",
        "unquarantine URL 1",
        "migrate URL",
        "doctor URL",
        "pull URL --from URL",
        "push URL --to URL",
    ] {
        scratch
            .run(&command.replace("URL", &url))
            .ends_with(2)
            .says(&["is a mirror"]);
    }
    for command in [
        "list URL",
        "show URL",
        "verify URL",
        "history URL",
        "export URL --to out",
        "discard URL --yes",
    ] {
        scratch
            .run(&command.replace("URL", &url))
            .ends_with(4)
            .says(&["there is no backup in"]);
        scratch
            .run(&command.replace("URL", "file:///nowhere/at/all"))
            .ends_with(4)
            .says(&["is missing"]);
        scratch
            .run(&command.replace("URL", "ftp://somewhere"))
            .ends_with(2)
            .says(&["scheme is unknown"]);
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let scratch = Scratch::new();
    for command in [
        "",
        "lst x",
        "list",
        "prune x",
        "prune x --keep 0",
        "show x --diff 1",
        "show x --all",
        "discard x --mirror y",
    ] {
        scratch.run(command).ends_with(2);
    }
    scratch.run("--version").good();
}
