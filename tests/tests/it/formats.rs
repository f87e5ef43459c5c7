//! Backups of every released format version, as they were written then: see `tests/fixtures`.

use std::fs;
use std::path::Path;

use burn_backup_restore::{BackupAndRestore, BackupError, Outcome, StoreError};
use burn_backup_tests::{Backend, BatchSource, Halt, Loop, LoopHalt, Training};
use test_fork::test;

use crate::support::contents;

/// All format versions that were ever written.
const FORMATS: [&str; 2] = ["format-1", "format-2"];

/// Copies a fixture's backup, because the test changes it.
fn copy(format: &str, fixture: &str, to: &Path) {
    copy_part(format, fixture, "backup", to);
}

fn copy_part(format: &str, fixture: &str, part: &str, to: &Path) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let from = fixtures.join(format).join(fixture).join(part);
    for (file, contents) in contents(&from) {
        let copy = to.join(file.strip_prefix(&from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, contents).unwrap();
    }
}

#[test]
fn an_interrupted_training_of_any_format_resumes() {
    let formats = FORMATS.iter();
    let all = formats.flat_map(|format| Backend::ALL.iter().map(move |backend| (format, *backend)));
    for (format, backend) in all {
        let scratch = tempfile::tempdir().unwrap();
        copy(format, "interrupted", scratch.path());
        let backup = Training::backup(scratch.path());
        let handle = backup.handle();
        let run = Training::new(backend).run(backup, Halt::Never);
        assert!(run.error.is_none(), "{:?}", run.error);
        let at = handle.restored_from().unwrap();
        assert_eq!((at.epoch, at.step_in_epoch, at.global_step), (2, 2, 8));
        assert_eq!((run.losses.len(), run.steps), (10, 18));
        assert!(!scratch.path().exists());
    }
}

#[test]
fn a_complete_training_of_any_format_is_returned_byte_for_byte() {
    for format in FORMATS {
        let scratch = tempfile::tempdir().unwrap();
        copy(format, "complete", scratch.path());
        let run = Training::new(Backend::Flex).run(Training::backup(scratch.path()), Halt::Never);
        assert!(run.error.is_none(), "{:?}", run.error);
        assert_eq!(run.losses.len(), 0);
        // The training is the same, whatever format it was written in.
        let expected = include_str!("../../fixtures/format-1/complete/weights.txt");
        assert!(format!("{:?}", run.weights) == expected.trim_end());
    }
}

#[test]
fn metric_logs_of_any_format_resume_where_they_were() {
    FORMATS.into_iter().for_each(metric_logs_resume);
}

fn metric_logs_resume(format: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, logs) = (scratch.path().join("backup"), scratch.path().join("logs"));
    copy(format, "with-metrics", &dir);
    copy_part(format, "with-metrics", "logs", &logs);
    let read = |epoch: usize| {
        fs::read_to_string(logs.join(format!("train/epoch-{epoch}/Loss.log"))).unwrap()
    };
    let (first, second) = (read(1), read(2));
    assert_eq!(
        second.lines().count(),
        3,
        "two batches, and the value of the epoch so far"
    );

    let backup = Training::backup(&dir).metric_logs(&logs);
    let run = Training::new(Backend::Flex).run(backup, Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(run.losses.len(), 10);
    assert_eq!(read(1), first);
    let log = read(2);
    let (batches, value) = log.trim_end().rsplit_once('\n').unwrap();
    let kept: Vec<_> = second.lines().take(2).collect();
    assert!(batches.lines().take(2).eq(kept));
    let losses = batches
        .lines()
        .map(|line| line.split_once(',').unwrap().0.parse().unwrap());
    let losses: Vec<f64> = losses.collect();
    assert_eq!(losses.len(), 6);
    let mean = losses.iter().sum::<f64>() / 6.0;
    assert_eq!(value, format!("{mean},final"));
}

#[test]
fn a_directory_of_a_future_format_is_refused_and_stays() {
    let scratch = tempfile::tempdir().unwrap();
    copy("format-2", "interrupted", scratch.path());
    let identity = r#"{"format": 3, "something": "new"}"#;
    let document = serde_json::from_str(identity).unwrap();
    let sealed = burn_backup_store::testing::seal(&document).unwrap();
    fs::write(scratch.path().join("burn-backup.json"), sealed).unwrap();
    let before = contents(scratch.path());
    let run = Training::new(Backend::Flex).run(Training::backup(scratch.path()), Halt::Never);
    let error = run.backup_error();
    assert!(
        matches!(
            error,
            BackupError::Store(StoreError::NewerFormat { found: 3, .. })
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("update burn-backup-restore"),
        "{error}"
    );
    assert!(contents(scratch.path()) == before);
}

#[test]
fn a_loop_by_hand_of_any_format_resumes_without_validating_again() {
    FORMATS.into_iter().for_each(loop_by_hand_resumes);
}

fn loop_by_hand_resumes(format: &str) {
    let scratch = tempfile::tempdir().unwrap();
    copy(format, "by-hand", scratch.path());
    let program = Loop {
        source: BatchSource::Two,
        ..Loop::new(Backend::Flex)
    };
    let backup = BackupAndRestore::new(scratch.path()).save_freq(3);
    let handle = backup.handle();
    let run = program.run(backup, LoopHalt::Never);
    assert_eq!(run.outcome, Some(Outcome::Finished), "{:?}", run.error);
    let position = handle.restored_from().unwrap();
    assert_eq!((position.epoch, position.step_in_epoch), (2, 7));
    assert_eq!(
        run.losses.keys().copied().collect::<Vec<_>>(),
        [14, 15, 16, 17, 18, 19, 20]
    );
    assert_eq!(run.validated, [3]);
    let counters = run.state.unwrap().counters;
    assert_eq!(
        counters.notes,
        ["validated 1", "validated 2", "validated 3"]
    );
    // Two batches make a step.
    assert_eq!(counters.batches, 2 * 21);
    assert!(!scratch.path().exists());
}
