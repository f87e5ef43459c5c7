//! Real processes that abort.

use std::path::Path;
use std::process::ExitStatus;

use burn_backup_tests::{Backend, Run, Training, report};
use test_fork::test;

use crate::process::{run, run_well, trainee};
use crate::support::uninterrupted;

/// Runs a training in its own process, with the instruction `told`.
fn train(backend: Backend, dir: &Path, frequency: usize, told: &str) -> ExitStatus {
    run(&mut trainee(backend, dir, frequency, &[told])).0
}

#[track_caller]
pub fn assert_aborted(status: ExitStatus) {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;

        const SIGABRT: i32 = 6;
        assert_eq!(status.signal(), Some(SIGABRT));
    }
    assert!(!status.success());
}

/// Trains to the end and compares the result with `expected`. Returns the number of batches that were trained
/// before.
#[track_caller]
fn assert_ends_as(expected: &Run, backend: Backend, dir: &Path, frequency: usize) -> usize {
    let said = run_well(&mut trainee(backend, dir, frequency, &[]));
    assert_eq!(said.error, "");
    assert!(said.weights == format!("{:?}", expected.weights));
    // A training that was already complete is returned, and the user's checkpointers get no record.
    let is_complete = said.restored == 18 && said.records.is_empty();
    assert!(is_complete || said.records == format!("{:?}", expected.records));
    assert!(!dir.exists());
    said.restored
}

#[test]
fn aborted_at_any_batch_the_next_process_ends_as_if_uninterrupted() {
    for &backend in Backend::ALL {
        let expected = uninterrupted(&Training::new(backend));
        for frequency in [0, 1, 4] {
            for at in 1..=18_usize {
                let scratch = tempfile::tempdir().unwrap();
                let dir = scratch.path().join("backup");
                assert_aborted(train(backend, &dir, frequency, &format!("abort@{at}")));
                let before = assert_ends_as(&expected, backend, &dir, frequency);
                if frequency == 1 {
                    // The backup of batch `at - 1` waited for the backup of batch `at - 2`.
                    assert!(before >= at.saturating_sub(2), "{before} of {at}");
                }
            }
        }
    }
}

#[test]
fn aborted_at_any_validation_batch_the_next_process_ends_as_if_uninterrupted() {
    let backend = Backend::Flex;
    let expected = uninterrupted(&Training::new(backend));
    for frequency in [0, 4] {
        for at in 1..=18_usize {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path().join("backup");
            assert_aborted(train(
                backend,
                &dir,
                frequency,
                &format!("abort-in-validation@{at}"),
            ));
            assert_ends_as(&expected, backend, &dir, frequency);
        }
    }
}

#[test]
fn aborted_in_any_call_to_the_filesystem_the_next_process_ends_as_if_uninterrupted() {
    let backend = Backend::Flex;
    let expected = uninterrupted(&Training::new(backend));
    let mut before = Vec::new();
    for at in 1.. {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        // Calls in opening, in saves and prunes after each epoch, and in the deletion at the end.
        if train(backend, &dir, 0, &format!("abort-in-call@{at}")).success() {
            break;
        }
        before.push(assert_ends_as(&expected, backend, &dir, 0));
    }
    assert!(
        before.len() > 100,
        "only {} calls were aborted in",
        before.len()
    );
    report(&format!(
        "aborts: in {} calls to the filesystem",
        before.len()
    ));
    for reached in [0, 6, 12, 18] {
        assert!(
            before.contains(&reached),
            "some trainings are restored at {reached}"
        );
    }
}

#[test]
fn aborted_again_and_again_the_last_process_ends_as_if_uninterrupted() {
    let backend = Backend::Flex;
    let expected = uninterrupted(&Training::new(backend));
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    // Each process completes at least one more backup: the backup of its third batch waits for that of its
    // second.
    let mut processes = 0;
    let last = loop {
        let (status, said) = run(&mut trainee(backend, &dir, 1, &["abort@4"]));
        if status.success() {
            break said;
        }
        assert_aborted(status);
        processes += 1;
        assert!(processes < 18, "no process gets further");
    };
    assert!(processes > 1);
    assert!(last.weights == format!("{:?}", expected.weights));
    assert!(last.records == format!("{:?}", expected.records));
}
