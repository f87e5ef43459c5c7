//! What a person reads on the standard error when a training begins.

use std::path::{Path, PathBuf};
use std::process::Output;

use burn_backup_tests::Backend;
use test_fork::test;

use crate::process::trainee;

fn start(dir: &Path, told: &[&str]) -> String {
    let Output { status, stderr, .. } = trainee(Backend::Flex, dir, 4, told).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{status}: {said}");
    said
}

/// The only line that begins with `begins`.
#[track_caller]
fn only_line<'s>(said: &'s str, begins: &str) -> &'s str {
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with(begins))
        .collect();
    let [line] = lines[..] else {
        panic!("{} lines that begin with {begins:?}: {said}", lines.len());
    };
    line
}

fn backup_dir(scratch: &tempfile::TempDir) -> PathBuf {
    scratch.path().join("backup")
}

const WARNING: &str = "warning: not exact after a restart";

#[test]
fn one_line_says_where_how_often_and_on_what_a_training_begins_and_another_where_it_resumes() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = backup_dir(&scratch);
    let begins = format!("backups in '{}', every 4 batches, ", dir.display());
    let first = start(&dir, &["stop@7"]);
    let line = only_line(&first, &begins);
    assert!(
        line.contains(", the newest is kept; trains on Flex(Cpu)"),
        "{line}"
    );
    assert!(line.ends_with("; a new training"), "{line}");

    let second = start(&dir, &["keep-all@0"]);
    let line = only_line(&second, &begins);
    assert!(
        line.contains(", all are kept; trains on Flex(Cpu)"),
        "{line}"
    );
    let (_, restored) = line.split_once("; restored from backup ").unwrap();
    let at = " at epoch 2, batch 1 (batch 7 of the training), ";
    assert!(restored.contains(at), "{line}");
    assert!(!line.contains("a new training"), "{line}");
}

#[test]
fn a_training_without_anything_inexact_is_not_warned_of() {
    for told in [&[][..], &["ours@0"], &["ours@0", "workers@2"]] {
        let scratch = tempfile::tempdir().unwrap();
        let said = start(&backup_dir(&scratch), told);
        assert!(!said.contains("not exact"), "{told:?}: {said}");
    }
}

#[test]
fn burns_loader_with_workers_is_warned_of_with_the_import_at_the_first_start_only() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = backup_dir(&scratch);
    let first = start(&dir, &["workers@2", "stop@7"]);
    let line = only_line(&first, WARNING);
    let import = "Import burn_backup_restore::data::DataLoaderBuilder";
    assert!(line.contains(import), "{line}");
    for told in [&["workers@2", "stop@2"][..], &["workers@2"]] {
        let said = start(&dir, told);
        assert!(said.contains("; restored from backup "), "{said}");
        assert!(!said.contains("not exact"), "{said}");
    }
}

#[test]
fn burns_sampler_in_our_loader_is_warned_of_with_what_to_use_instead() {
    for told in [&["burns-sampler@0"][..], &["burns-sampler@0", "workers@2"]] {
        let scratch = tempfile::tempdir().unwrap();
        let said = start(&backup_dir(&scratch), told);
        let line = only_line(&said, WARNING);
        let instead = "use burn_backup_restore::data::SamplerDataset";
        assert!(line.contains(instead), "{told:?}: {line}");
    }
}
