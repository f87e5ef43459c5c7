//! Compares the output of each command, as text and as JSON, with the golden files. `BLESS=1` updates them.

use std::fs;
use std::path::Path;

use burn_backup_store::GenerationId;

use crate::backups::{fixture, flip, open, training};
use crate::normal::normal;
use crate::program::Scratch;

/// Runs commands one after the other: as text on one backup, and as JSON on another. `MIRROR` becomes a mirror's URL.
#[track_caller]
fn golden(name: &str, backup: fn() -> Scratch, commands: &[&str]) {
    let mut found = String::new();
    for json in ["", " --json"] {
        let scratch = backup();
        let url = scratch.mirror("mirror");
        for command in commands {
            let ran = scratch.run(&format!("{}{json}", command.replace("MIRROR", &url)));
            found.push_str(&normal(&ran.text(), &scratch.path()));
            found.push('\n');
        }
    }
    compare(name, &found);
}

#[track_caller]
fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differing = || {
        let lines = found.lines().zip(expected.lines());
        let mut lines = lines
            .enumerate()
            .filter(|(_, (found, expected))| found != expected);
        lines
            .next()
            .map(|(at, (found, expected))| format!("line {}:\n- {expected}\n+ {found}", at + 1))
    };
    assert!(
        found == expected,
        "{} differs. BLESS=1 cargo test -p burn-backup-cli updates it.\n{}",
        path.display(),
        differing().unwrap_or_else(|| format!("another length:\n{found}")),
    );
}

fn with_training() -> Scratch {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    scratch
}

/// A backup with a quarantine, in format 1.
fn with_old_store() -> Scratch {
    let scratch = Scratch::new();
    fixture(
        "crates/burn-backup-store/tests/fixtures/format-1/backup",
        &scratch.join("backup"),
    );
    scratch
}

/// A backup that went back to its first generation.
fn with_set_aside() -> Scratch {
    let scratch = with_training();
    let store = open(&scratch.join("backup"));
    store.set_aside_newer(GenerationId::new(1)).unwrap();
    scratch
}

fn with_damaged_manifest() -> Scratch {
    let scratch = with_old_store();
    flip(
        &scratch.join("backup/generations/00000002/manifest.json"),
        30,
    );
    fs::create_dir(scratch.join("backup/.staging-00000004-0123456789abcdef")).unwrap();
    scratch
}

fn with_damaged_parts() -> Scratch {
    let scratch = with_training();
    flip(&scratch.join("backup/generations/00000002/model.bpk"), 300);
    fs::remove_file(scratch.join("backup/generations/00000001/optimizer.bpk")).unwrap();
    scratch
}

/// Backups with named states, in both formats.
fn with_named_states() -> Scratch {
    let scratch = Scratch::new();
    for format in ["format-1", "format-2"] {
        fixture(
            &format!("tests/fixtures/{format}/by-hand/backup"),
            &scratch.join(format),
        );
    }
    scratch
}

fn with_logs() -> Scratch {
    let scratch = Scratch::new();
    fixture(
        "tests/fixtures/format-2/by-hand/backup",
        &scratch.join("backup"),
    );
    fixture(
        "tests/fixtures/format-2/with-metrics/logs",
        &scratch.join("logs"),
    );
    scratch
}

fn with_quarantine() -> Scratch {
    let scratch = with_training();
    let (place, quarantine) = (
        scratch.join("backup/generations/00000001"),
        scratch.join("backup/quarantine"),
    );
    fs::create_dir(&quarantine).unwrap();
    fs::rename(place, quarantine.join("00000001-2")).unwrap();
    fs::write(quarantine.join("00000001-2/reason.txt"), "it was cold\n").unwrap();
    scratch
}

fn with_old_training() -> Scratch {
    let scratch = Scratch::new();
    fixture(
        "tests/fixtures/format-1/with-metrics/backup",
        &scratch.join("backup"),
    );
    scratch
}

#[test]
fn list() {
    golden("list", with_training, &["list backup"]);
}

#[test]
fn list_with_damage_and_quarantine() {
    golden("list-damaged", with_damaged_manifest, &["list backup"]);
}

#[test]
fn show() {
    golden(
        "show",
        with_training,
        &["show backup", "show backup 1", "show backup 7"],
    );
}

#[test]
fn show_states_with_names() {
    golden(
        "show-named",
        with_named_states,
        &["show format-1", "show format-2"],
    );
}

#[test]
fn show_foreign_records() {
    golden("show-foreign", with_old_store, &["show backup"]);
}

#[test]
fn diff() {
    golden(
        "diff",
        with_training,
        &["show backup --diff 1 2", "show backup --diff 2 1 --all"],
    );
}

#[test]
fn verify() {
    golden(
        "verify",
        with_training,
        &["verify backup", "verify backup 1"],
    );
}

#[test]
fn verify_damage() {
    golden("verify-damaged", with_damaged_parts, &["verify backup"]);
}

#[test]
fn history() {
    let commands = [
        "history backup",
        "history backup --metric Loss",
        "history backup --metric Los",
    ];
    golden("history", with_training, &commands);
}

#[test]
fn history_with_logs() {
    golden(
        "history-logs",
        with_logs,
        &["history backup", "history backup --logs logs"],
    );
}

#[test]
fn export() {
    let commands = [
        "export backup --to all --all",
        "export backup --to all",
        "export backup --to all --force",
        "export backup --to tensors --format safetensors --generation 1",
    ];
    golden("export", with_training, &commands);
}

#[test]
fn prune() {
    let commands = [
        "prune backup --keep 1 --dry-run",
        "prune backup --keep 1",
        "prune backup --keep 1 --yes",
        "prune backup --keep 1 --yes",
    ];
    golden("prune", with_training, &commands);
}

#[test]
fn discard() {
    let commands = [
        "discard backup --dry-run",
        "discard backup",
        "discard backup --yes",
    ];
    golden("discard", with_training, &commands);
}

#[test]
fn unquarantine() {
    let commands = [
        "unquarantine backup 1 --dry-run",
        "unquarantine backup 9",
        "unquarantine backup 1",
        "verify backup 1",
    ];
    golden("unquarantine", with_quarantine, &commands);
}

#[test]
fn migrate() {
    let commands = [
        "migrate backup --dry-run",
        "migrate backup",
        "migrate backup",
        "list backup",
    ];
    golden("migrate", with_old_training, &commands);
}

#[test]
fn mirror() {
    let commands = [
        "pull copy --from MIRROR",
        "push backup --to MIRROR --dry-run",
        "push backup --to MIRROR",
        "push backup --to MIRROR",
        "list MIRROR",
        "list backup --mirror MIRROR",
        "show MIRROR",
        "verify MIRROR",
        "pull copy --from MIRROR --dry-run",
        "pull copy --from MIRROR",
        "pull copy --from MIRROR",
        "discard backup --mirror MIRROR --dry-run",
        "discard backup --mirror MIRROR --yes",
        "list MIRROR",
        "push copy --to MIRROR",
    ];
    golden("mirror", with_training, &commands);
}

#[test]
fn help() {
    let scratch = Scratch::new();
    let mut found = String::new();
    for command in [
        "",
        "list",
        "show",
        "verify",
        "history",
        "export",
        "prune",
        "discard",
        "unquarantine",
        "pull",
        "push",
        "migrate",
        "doctor",
    ] {
        let ran = scratch.run(&format!("{command} --help"));
        found.push_str(&ran.good().text());
        found.push('\n');
    }
    compare("help", &normal(&found, &scratch.path()));
}

#[test]
fn generations_set_aside_are_listed_and_discarded() {
    golden(
        "list-set-aside",
        with_set_aside,
        &[
            "list backup",
            "verify backup",
            "discard backup --dry-run",
            "discard backup --yes",
        ],
    );
}
