//! Burn's artifact directory after restarts: checkpoints, metric logs and the summary.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use burn::train::{Interrupter, LearnerSummary};
use burn_backup_restore::BackupExt as _;
use burn_backup_tests::{Backend, Calls, Halt, Hooks, RecordingRenderer, Training};
use test_fork::test;

use crate::support::contents;

const EPOCHS: usize = 5;

/// Runs the training until it ends or is stopped in the batch `stop`. Burn writes into `artifacts`. Returns
/// the summary that the renderer gets.
fn run(scratch: &Path, stop: Option<usize>) -> String {
    let training = Training {
        epochs: EPOCHS,
        ..Training::new(Backend::Flex)
    };
    let _exclusive = Training::exclusive();
    let artifacts = scratch.join("artifacts");
    let interrupter = Interrupter::new();
    let stopped = interrupter.clone();
    let hooks = Hooks::default().on_train(move |batch| {
        if Some(batch) == stop {
            stopped.stop(Some("the test stops it"));
        }
    });
    let calls = Calls::default();
    let learner = training.learner(hooks);
    let backup = Training::backup(scratch.join("backup")).artifacts(&artifacts);
    let result = training
        .builder(&artifacts, interrupter, Halt::Never)
        .with_default_checkpointers()
        .renderer(Box::new(RecordingRenderer::new(calls.clone())))
        .backup_and_restore(backup)
        .launch(learner);
    assert!(result.error.is_none(), "{:?}", result.error);
    assert_eq!(result.interrupted.is_some(), stop.is_some());
    let end = calls.list().into_iter();
    let mut end = end.filter(|call| call.starts_with("on_train_end"));
    end.next().unwrap()
}

/// The paths of the files in the artifact directory, and the contents of its logs.
fn files(scratch: &Path) -> (BTreeSet<PathBuf>, Vec<(PathBuf, String)>) {
    let artifacts = scratch.join("artifacts");
    let files = contents(&artifacts);
    let name = |path: &Path| path.strip_prefix(&artifacts).unwrap().to_path_buf();
    let names = files.keys().map(|path| name(path)).collect();
    let logs = files
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|of| of == "log"))
        .map(|(path, text)| (name(path), String::from_utf8(text.clone()).unwrap()));
    (names, logs.collect())
}

/// The validation losses by epoch.
fn validation(scratch: &Path) -> Vec<(usize, f64)> {
    let summary = LearnerSummary::new(scratch.join("artifacts"), &["Loss"]).unwrap();
    let entries = summary.metrics.valid.iter().flat_map(|of| &of.entries);
    entries.map(|entry| (entry.step, entry.value)).collect()
}

#[test]
fn after_two_stops_burns_files_are_as_if_uninterrupted() {
    let whole = tempfile::tempdir().unwrap();
    let summary = run(whole.path(), None);
    let (names, logs) = files(whole.path());
    let checkpoints = names.iter().filter(|name| name.starts_with("checkpoint"));
    let checkpoints = checkpoints.count();
    assert!((6..=9).contains(&checkpoints), "some are kept: {names:?}");
    assert_eq!(logs.len(), EPOCHS * 2 * 3);

    for stops in [[8, 9], [6, 6], [14, 1], [20, 5]] {
        let scratch = tempfile::tempdir().unwrap();
        for stop in stops {
            run(scratch.path(), Some(stop));
        }
        assert_eq!(run(scratch.path(), None), summary, "{stops:?}");
        let found = files(scratch.path());
        assert_eq!(found.0, names, "{stops:?}");
        assert_eq!(found.1, logs, "{stops:?}");
        assert_eq!(validation(scratch.path()), validation(whole.path()));
    }
}

#[test]
fn where_the_program_wipes_the_directory_the_summary_still_has_all_epochs() {
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), None);
    let expected = validation(whole.path());
    assert_eq!(expected.len(), EPOCHS);
    for stop in [6, 8, 20] {
        let scratch = tempfile::tempdir().unwrap();
        run(scratch.path(), Some(stop));
        fs::remove_dir_all(scratch.path().join("artifacts")).unwrap();
        let shown = run(scratch.path(), None);
        assert!(
            shown.contains(&format!("Total Epochs: {EPOCHS}")),
            "{shown}"
        );
        assert_eq!(validation(scratch.path()), expected, "{stop}");
    }
}
