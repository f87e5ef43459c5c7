//! Real processes that really abort.

use std::path::Path;
use std::process::{Command, ExitStatus};

use burn_backup_tests::{Backend, Training};

use crate::support::undisturbed;

fn train(backend: Backend, scratch: &Path, frequency: usize, abort_at: usize) -> ExitStatus {
    Command::new(env!("CARGO_BIN_EXE_trainee"))
        .arg(format!("{backend:?}"))
        .arg(scratch.join("backup"))
        .arg(frequency.to_string())
        .arg(abort_at.to_string())
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

#[test]
fn aborted_at_any_batch_the_next_process_ends_as_if_undisturbed() {
    for &backend in Backend::ALL {
        let expected = undisturbed(&Training::new(backend)).legacy();
        for frequency in [0, 1, 4] {
            for abort_at in 1..=18 {
                let scratch = tempfile::tempdir().unwrap();
                assert_aborted(train(backend, scratch.path(), frequency, abort_at));
                assert!(train(backend, scratch.path(), frequency, 0).success());
                let legacy = std::fs::read_to_string(scratch.path().join("out")).unwrap();
                assert!(
                    legacy == expected,
                    "every {frequency}, aborted in {abort_at}"
                );
                assert!(!scratch.path().join("backup").exists());
            }
        }
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
    while !train(backend, scratch.path(), 1, 4).success() {
        processes += 1;
        assert!(processes < 18, "no process gets further");
    }
    assert!(processes > 1);
    let legacy = std::fs::read_to_string(scratch.path().join("out")).unwrap();
    assert!(legacy == expected);
}
