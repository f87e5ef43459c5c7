//! Backups of every released format version, as they were written then: see `tests/fixtures`.

use std::fs;
use std::path::Path;

use burn_backup_restore::{BackupError, Position, StoreError};
use burn_backup_tests::{Backend, Halt, Training};

use crate::support::contents;

/// A copy of a fixture, to be used up.
fn copy(fixture: &str, to: &Path) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let from = fixtures.join(fixture).join("backup");
    for (file, contents) in contents(&from) {
        let copy = to.join(file.strip_prefix(&from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, contents).unwrap();
    }
}

#[test]
fn an_interrupted_training_of_format_1_goes_on() {
    for &backend in Backend::ALL {
        let scratch = tempfile::tempdir().unwrap();
        copy("format-1/interrupted", scratch.path());
        let backup = Training::backup(scratch.path());
        let handle = backup.handle();
        let run = Training::new(backend).run(backup, Halt::Never);
        assert!(run.error.is_none(), "{:?}", run.error);
        let position = Position {
            epoch: 2,
            step_in_epoch: 2,
            global_step: 8,
        };
        assert_eq!(handle.restored_from(), Some(position));
        assert_eq!((run.losses.len(), run.steps), (10, 18));
        assert!(!scratch.path().exists());
    }
}

#[test]
fn a_complete_training_of_format_1_is_returned_byte_for_byte() {
    let scratch = tempfile::tempdir().unwrap();
    copy("format-1/complete", scratch.path());
    let run = Training::new(Backend::Flex).run(Training::backup(scratch.path()), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(run.losses.len(), 0);
    let expected = include_str!("../../fixtures/format-1/complete/weights.txt");
    assert!(format!("{:?}", run.weights) == expected.trim_end());
}

#[test]
fn a_directory_of_a_future_format_is_refused_and_stays() {
    let scratch = tempfile::tempdir().unwrap();
    copy("format-1/interrupted", scratch.path());
    let identity = r#"{"format": 2, "something": "new"}"#;
    let document = serde_json::from_str(identity).unwrap();
    let sealed = burn_backup_store::testing::seal(&document).unwrap();
    fs::write(scratch.path().join("burn-backup.json"), sealed).unwrap();
    let before = contents(scratch.path());
    let run = Training::new(Backend::Flex).run(Training::backup(scratch.path()), Halt::Never);
    let error = run.backup_error();
    assert!(
        matches!(
            error,
            BackupError::Store(StoreError::NewerFormat { found: 2, .. })
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("update burn-backup-restore"),
        "{error}"
    );
    assert!(contents(scratch.path()) == before);
}
