//! A standard error that can't be written to: trainings continue as if it could.

use std::fs::{self, File};
use std::process::{Command, Output, Stdio};

use burn_backup_tests::{Backend, Training};
use test_fork::test;

use crate::process::{Said, run_well, trainee};
use crate::support::uninterrupted;

const BACKEND: Backend = Backend::Flex;

/// Runs the process once with each kind of standard error that can't be written to.
fn run_each(command: impl Fn() -> Command) -> Vec<(&'static str, Output)> {
    let mut broken = vec![("a pipe without a reader", pipe_without_a_reader())];
    if cfg!(target_os = "linux") {
        let full = File::options().write(true).open("/dev/full").unwrap();
        broken.push(("a full device", full.into()));
    }
    let outputs = broken.into_iter().map(|(kind, stderr)| {
        let output = command().stderr(stderr).output().unwrap();
        (kind, output)
    });
    outputs.collect()
}

fn pipe_without_a_reader() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn said(output: &Output) -> Said {
    Said::parse(&String::from_utf8_lossy(&output.stdout))
}

#[test]
fn a_training_is_restored_where_the_standard_error_is_broken() {
    let expected = uninterrupted(&Training::new(BACKEND));
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let stopped = run_well(&mut trainee(BACKEND, &dir, 4, &["stop@7"]));
    assert_eq!(stopped.stopped_at, Some(7));

    let resumed = run_each(|| trainee(BACKEND, &dir, 4, &["keep@0"]));
    for (kind, output) in &resumed {
        let said = said(output);
        assert!(output.status.success(), "{kind}: {}", output.status);
        assert_eq!(said.error, "", "{kind}");
        assert!(said.weights == format!("{:?}", expected.weights), "{kind}");
    }
    assert_eq!(said(&resumed[0].1).restored, 7);
}

#[test]
fn a_preempted_process_exits_with_its_code_where_the_standard_error_is_broken() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let told = ["signals@0", "exit@42", "term@1"];
    let outputs = run_each(|| trainee(BACKEND, &dir, 4, &told));
    for (kind, output) in outputs {
        assert_eq!(output.status.code(), Some(42), "{kind}");
    }
}

#[test]
fn a_refused_training_returns_its_error_where_the_standard_error_is_broken() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("generations"), b"theirs").unwrap();
    for (kind, output) in run_each(|| trainee(BACKEND, &dir, 4, &[])) {
        assert!(output.status.success(), "{kind}: {}", output.status);
        let error = said(&output).error;
        assert!(
            error.contains("was not made by this crate"),
            "{kind}: {error}"
        );
    }
}

#[test]
fn a_line_that_is_never_used_is_dropped_where_the_standard_error_is_broken() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    for (kind, output) in run_each(|| trainee(BACKEND, &dir, 4, &["replaced@0"])) {
        assert!(output.status.success(), "{kind}: {}", output.status);
        assert!(
            !said(&output).weights.is_empty(),
            "{kind}: it trains without backups"
        );
    }
}
