//! The example as a process, crashed or uninterrupted.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};

const SIGABRT: i32 = 6;

fn cartpole(dir: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cartpole"))
        .current_dir(dir)
        .args(["--steps", "800"])
        .args(options)
        .output()
        .unwrap()
}

/// The last line.
#[track_caller]
fn digest(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    let last = printed.lines().last().unwrap();
    last.strip_prefix("digest of the weights: ")
        .unwrap()
        .to_owned()
}

#[test]
fn crashed_and_run_again_it_ends_with_the_uninterrupted_digest() {
    let scratch = tempfile::tempdir().unwrap();
    let expected = digest(&cartpole(scratch.path(), &[]));
    // Before the training begins, at its first step, and twice in the training.
    for crashes in [&["300"][..], &["501"], &["620", "621", "790"]] {
        let scratch = tempfile::tempdir().unwrap();
        for step in crashes {
            let output = cartpole(scratch.path(), &["--save-freq", "7", "--crash-at", step]);
            assert_eq!(output.status.signal(), Some(SIGABRT), "{step}: {output:?}");
        }
        let output = cartpole(scratch.path(), &["--save-freq", "7"]);
        assert_eq!(digest(&output), expected, "{crashes:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("restored from backup"), "{said}");
        assert!(!scratch.path().join("cartpole-backup").exists());
    }
}

#[test]
fn it_trains_with_burns_own_loop_as_well() {
    let scratch = tempfile::tempdir().unwrap();
    let output = cartpole(scratch.path(), &["--no-backup"]);
    assert!(!digest(&output).is_empty());
    assert!(!scratch.path().join("cartpole-backup").exists());
}
