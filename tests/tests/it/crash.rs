//! Real processes that really abort.

use std::path::Path;
use std::process::{Command, ExitStatus};

use burn_backup_tests::{Backend, Training};

use crate::support::undisturbed;

/// Trains with a backup every `frequency` batches (or each epoch, if 0), and aborts in the `at`-th
/// batch or call of what `abort_in` names.
fn train(
    backend: Backend,
    scratch: &Path,
    frequency: usize,
    abort_in: &str,
    at: usize,
) -> ExitStatus {
    Command::new(env!("CARGO_BIN_EXE_trainee"))
        .arg(format!("{backend:?}"))
        .arg(scratch.join("backup"))
        .arg(frequency.to_string())
        .arg(abort_in)
        .arg(at.to_string())
        .arg(scratch.join("out"))
        .status()
        .unwrap()
}

#[track_caller]
fn assert_aborted(status: ExitStatus) {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;

        const SIGABRT: i32 = 6;
        assert_eq!(status.signal(), Some(SIGABRT));
    }
    assert!(!status.success());
}

/// Trains to the end, compares with `expected`, and gives the number of batches that were trained
/// before.
#[track_caller]
fn assert_ends_as(expected: &str, backend: Backend, scratch: &Path, frequency: usize) -> usize {
    assert!(train(backend, scratch, frequency, "nothing", 0).success());
    let out = std::fs::read_to_string(scratch.join("out")).unwrap();
    let (before, legacy) = out.split_once('\n').unwrap();
    let before = before.parse().unwrap();
    // A training that was complete already is returned, without a checkpoint of the user's.
    let (weights, records) = legacy.split_once('\n').unwrap();
    let is_as_expected = match (before, records) {
        (18, "") => expected.starts_with(weights),
        _ => legacy == expected,
    };
    assert!(is_as_expected);
    assert!(!scratch.join("backup").exists());
    before
}

#[test]
fn aborted_at_any_batch_the_next_process_ends_as_if_undisturbed() {
    for &backend in Backend::ALL {
        let expected = undisturbed(&Training::new(backend)).legacy();
        for frequency in [0, 1, 4] {
            for at in 1..=18 {
                let scratch = tempfile::tempdir().unwrap();
                assert_aborted(train(backend, scratch.path(), frequency, "train", at));
                let before = assert_ends_as(&expected, backend, scratch.path(), frequency);
                if frequency == 1 {
                    // The backup after the batch before was awaited by the one after the last.
                    assert!(before >= at.saturating_sub(2), "{before} of {at}");
                }
            }
        }
    }
}

#[test]
fn aborted_at_any_validation_batch_the_next_process_ends_as_if_undisturbed() {
    let backend = Backend::Flex;
    let expected = undisturbed(&Training::new(backend)).legacy();
    for frequency in [0, 4] {
        for at in 1..=18 {
            let scratch = tempfile::tempdir().unwrap();
            assert_aborted(train(backend, scratch.path(), frequency, "valid", at));
            assert_ends_as(&expected, backend, scratch.path(), frequency);
        }
    }
}

#[test]
fn aborted_in_any_call_to_the_filesystem_the_next_process_ends_as_if_undisturbed() {
    let backend = Backend::Flex;
    let expected = undisturbed(&Training::new(backend)).legacy();
    let mut before = Vec::new();
    for at in 1.. {
        let scratch = tempfile::tempdir().unwrap();
        // Opening, saves and prunes after each epoch, and the deletion at the end.
        if train(backend, scratch.path(), 0, "files", at).success() {
            break;
        }
        before.push(assert_ends_as(&expected, backend, scratch.path(), 0));
    }
    assert!(
        before.len() > 100,
        "only {} calls were aborted in",
        before.len()
    );
    for reached in [0, 6, 12, 18] {
        assert!(before.contains(&reached), "some are restored at {reached}");
    }
}

#[test]
fn aborted_again_and_again_the_last_process_ends_as_if_undisturbed() {
    let backend = Backend::Flex;
    let expected = undisturbed(&Training::new(backend)).legacy();
    let scratch = tempfile::tempdir().unwrap();
    // Each process gets one backup further at least: the one of its second batch is awaited by
    // the one of its third.
    let mut processes = 0;
    while !train(backend, scratch.path(), 1, "train", 4).success() {
        processes += 1;
        assert!(processes < 18, "no process gets further");
    }
    assert!(processes > 1);
    let out = std::fs::read_to_string(scratch.path().join("out")).unwrap();
    assert!(out.ends_with(&expected));
}
