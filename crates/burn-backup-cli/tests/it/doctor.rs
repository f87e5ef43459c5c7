//! `doctor` runs all checks, and leaves nothing behind.

use std::fs;

use crate::backups::{contents, open, training};
use crate::program::Scratch;

#[test]
fn a_healthy_directory_passes_and_stays_unchanged() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let store = open(&scratch.join("backup"));
    let before = contents(&scratch.path());
    let json = scratch.run("doctor backup --json").good().json();
    assert!(contents(&scratch.path()) == before, "something was left");
    let status = |name: &str| {
        let checks = json["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("{name} is not in {json}"))["status"]
            .clone()
    };
    for name in [
        "directory",
        "create",
        "rename",
        "sync",
        "hard links",
        "locks",
        "overwriting",
        "free space",
        "write speed",
        "read speed",
    ] {
        assert_eq!(status(name), "ok", "{name}");
    }
    scratch
        .run("doctor backup")
        .good()
        .prints(&["ok    locks", "enough for"]);
    drop(store);
}

#[test]
fn a_missing_directory_is_not_created() {
    let scratch = Scratch::new();
    scratch
        .run("doctor not/there/yet")
        .good()
        .prints(&["is checked instead"]);
    assert!(contents(&scratch.path()).is_empty());
}

#[test]
fn too_little_space_is_a_failure() {
    let scratch = Scratch::new();
    let json = scratch
        .run("doctor . --bytes 1000000000000000000 --json")
        .ends_with(1)
        .json();
    let checks = json["checks"].as_array().unwrap();
    let space = checks
        .iter()
        .find(|check| check["name"] == "free space")
        .unwrap();
    assert_eq!(space["status"], "fail");
    assert!(space["advice"].as_str().unwrap().contains("larger disk"));
}

#[test]
#[cfg(unix)]
fn a_world_writable_directory_gives_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;

    let scratch = Scratch::new();
    let open = scratch.join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    scratch
        .run("doctor open")
        .good()
        .prints(&["warn  permissions"]);
}
