//! Strategies that decide by metrics, and displays of metrics, resume after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use burn::train::checkpoint::{
    Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
    ComposedCheckpointingStrategy, KeepLastNCheckpoints, MetricCheckpointingStrategy,
};
use burn::train::metric::store::{Aggregate, Direction, EventStoreClient, Split};
use burn::train::metric::{LearningRateMetric, LossMetric};
use burn::train::{
    EarlyStoppingStrategy, MetricEarlyStoppingStrategy, StoppingCondition, SupervisedTraining,
};
use burn_backup_restore::{BackupAndRestore, BackupExt as _, SaveFreq};
use burn_backup_tests::{Backend, Halt, Net, Run, Training};
use test_fork::test;

use crate::log_lines;

/// Six epochs of three batches. Its artifacts, and so Burn's own metric logs, are deleted after each run.
fn training() -> Training {
    Training {
        epochs: 6,
        items: 12,
        summary: true,
        ..Training::new(Backend::Flex)
    }
}

/// Halts a training by each of `halts` in turn, and lets it end.
fn run_in_turn(
    training: &Training,
    halts: &[Halt],
    mut backup: impl FnMut(BackupAndRestore) -> BackupAndRestore,
    mut configure: impl FnMut(SupervisedTraining<Net>) -> SupervisedTraining<Net>,
) -> Vec<Run> {
    let scratch = tempfile::tempdir().unwrap();
    let runs = halts.iter().chain([&Halt::Never]).map(|halt| {
        let backup = backup(Training::backup(scratch.path().join("backup")));
        let run = training.run_with(*halt, |builder| {
            configure(builder).backup_and_restore(backup)
        });
        let is_error = matches!(halt, Halt::Fail(_));
        assert_eq!(run.error.is_some(), is_error, "{halt:?}: {:?}", run.error);
        run
    });
    runs.collect()
}

/// Halts at each batch, alone and after other halts.
fn all_halts(batches: usize) -> Vec<Vec<Halt>> {
    use Halt::{Fail, Stop, StopInValidation};

    let each = (1..=batches).flat_map(|batch| {
        [
            vec![Stop(batch)],
            vec![Fail(batch)],
            vec![StopInValidation(batch)],
        ]
    });
    let several = [
        vec![Stop(4), Stop(1), StopInValidation(1)],
        vec![StopInValidation(3), Fail(5), Stop(2)],
        vec![Stop(1), Stop(1), Stop(1), Stop(1), Stop(1)],
    ];
    each.chain(several).collect()
}

/// Records the loss values that it gets, and never stops.
#[derive(Clone)]
struct Listener {
    split: Split,
    received: Arc<Mutex<BTreeMap<usize, String>>>,
}

impl EarlyStoppingStrategy for Listener {
    fn should_stop(&mut self, epoch: usize, store: &EventStoreClient) -> bool {
        let value = store.find_metric("Loss", epoch, Aggregate::Mean, &self.split);
        let value = value.map_or("nothing".to_owned(), |value| value.to_string());
        let mut received = self.received.lock().unwrap();
        let before = received.insert(epoch, value.clone());
        assert!(before.is_none_or(|before| before == value), "epoch {epoch}");
        false
    }
}

/// The values that early stopping gets for each epoch in the last of several processes.
fn received(
    training: &Training,
    split: &Split,
    halts: &[Halt],
    backup: impl FnMut(BackupAndRestore) -> BackupAndRestore,
) -> BTreeMap<usize, String> {
    let mut last = Arc::default();
    run_in_turn(training, halts, backup, |builder| {
        last = Arc::default();
        builder.early_stopping(Listener {
            split: split.clone(),
            received: Arc::clone(&last),
        })
    });
    let received = last.lock().unwrap();
    received.clone()
}

#[test]
fn early_stopping_gets_the_same_values_for_all_epochs() {
    let training = training();
    let backup = |backup: BackupAndRestore| backup.save_freq(SaveFreq::Steps(1));
    let expected = received(&training, &Split::Valid, &[], backup);
    assert_eq!(expected.len(), 6);
    assert!(
        expected.values().all(|value| value != "nothing"),
        "{expected:?}"
    );
    for halts in all_halts(17) {
        let received = received(&training, &Split::Valid, &halts, backup);
        assert_eq!(received, expected, "{halts:?}");
    }
}

#[test]
fn early_stopping_gets_training_metrics_too_in_epochs_of_several_processes() {
    let training = training();
    let logs = tempfile::tempdir().unwrap();
    for frequency in [SaveFreq::Steps(1), SaveFreq::Epoch] {
        let backup =
            |backup: BackupAndRestore| backup.save_freq(frequency).metric_logs(logs.path());
        let expected = received(&training, &Split::Train, &[], backup);
        assert!(
            expected.values().all(|value| value != "nothing"),
            "{expected:?}"
        );
        for halts in all_halts(17) {
            let received = received(&training, &Split::Train, &halts, backup);
            assert_eq!(received, expected, "{halts:?}");
        }
    }
}

#[test]
fn early_stopping_ends_the_training_at_the_same_epoch_after_a_restart() {
    let training = training();
    // The learning rate falls, so the first epoch is the best.
    let stop = |builder: SupervisedTraining<Net>| {
        builder.early_stopping(MetricEarlyStoppingStrategy::new(
            &LearningRateMetric::new(),
            Aggregate::Mean,
            Direction::Highest,
            Split::Train,
            StoppingCondition::NoImprovementSince { n_epochs: 2 },
        ))
    };
    let logs = tempfile::tempdir().unwrap();
    let backup = |backup: BackupAndRestore| backup.metric_logs(logs.path());
    let uninterrupted = run_in_turn(&training, &[], backup, stop).remove(0);
    let batches = uninterrupted.losses.len();
    assert!(
        (6..18).contains(&batches),
        "{batches} batches, so the comparison shows nothing"
    );
    for halts in all_halts(batches) {
        let runs = run_in_turn(&training, &halts, backup, stop);
        let last = runs.last().unwrap();
        assert!(last.weights == uninterrupted.weights, "{halts:?}");
        assert!(last.records == uninterrupted.records, "{halts:?}");
    }
}

/// Checkpointers that record what they are asked to do.
#[derive(Clone, Default)]
struct Acts(Arc<Mutex<Vec<String>>>);

impl Acts {
    fn note(&self, act: String) {
        self.0.lock().unwrap().push(act);
    }
}

impl<R: Checkpoint> Checkpointer<R> for Acts {
    fn save(&self, epoch: usize, _record: R) -> Result<(), CheckpointerError> {
        self.note(format!("save {epoch}"));
        Ok(())
    }

    fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
        self.note(format!("delete {epoch}"));
        Ok(())
    }

    fn restore(&self, epoch: usize) -> Result<R, CheckpointerError> {
        Err(CheckpointerError::Unknown(format!("epoch {epoch}")))
    }
}

/// Keeps the best two by the loss, and the last two.
fn best_and_last() -> ComposedCheckpointingStrategy {
    let loss = |direction| {
        MetricCheckpointingStrategy::new(
            &LossMetric::new(),
            Aggregate::Mean,
            direction,
            Split::Valid,
        )
    };
    ComposedCheckpointingStrategy::builder()
        .add(KeepLastNCheckpoints::new(2))
        .add(loss(Direction::Lowest))
        .add(loss(Direction::Highest))
        .build()
}

#[test]
fn the_same_checkpoints_are_kept_after_a_restart() {
    let training = training();
    let acts_after = |halts: &[Halt]| {
        let acts = Acts::default();
        let (model, nobody) = (acts.clone(), Acts::default());
        run_in_turn(
            &training,
            halts,
            |backup| {
                backup
                    .save_freq(SaveFreq::Steps(2))
                    .checkpointing_strategy(best_and_last())
            },
            |builder| {
                builder.with_custom_checkpointers(model.clone(), nobody.clone(), nobody.clone())
            },
        );
        acts.0.lock().unwrap().clone()
    };
    let expected = acts_after(&[]);
    let is_kept_for_long = |act: &String| act == "delete 1" || act == "delete 3";
    assert!(expected.iter().any(is_kept_for_long), "{expected:?}");
    for halts in all_halts(17) {
        // After an error, acts from before it are repeated.
        let is_certain = !halts.iter().any(|halt| matches!(halt, Halt::Fail(_)));
        let acts = acts_after(&halts);
        if is_certain {
            assert_eq!(acts, expected, "{halts:?}");
        } else {
            let once: Vec<_> = acts.into_iter().fold(Vec::new(), |mut once, act| {
                if !once.contains(&act) {
                    once.push(act);
                }
                once
            });
            assert_eq!(once, expected, "{halts:?}");
        }
    }
}

/// Records the best epoch so far at each decision.
struct Best(Arc<Mutex<BTreeMap<usize, Option<usize>>>>);

impl CheckpointingStrategy for Best {
    fn checkpointing(
        &mut self,
        epoch: usize,
        store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        let best = store.find_epoch("Loss", Aggregate::Mean, Direction::Lowest, &Split::Valid);
        self.0.lock().unwrap().insert(epoch, best);
        Vec::new()
    }
}

#[test]
fn decisions_of_the_past_are_repeated_without_later_values() {
    let training = training();
    let best_of = |halts: &[Halt]| {
        let mut last = Arc::default();
        run_in_turn(
            &training,
            halts,
            |backup| {
                last = Arc::default();
                backup.checkpointing_strategy(Best(Arc::clone(&last)))
            },
            |builder| builder,
        );
        let best = last.lock().unwrap();
        best.clone()
    };
    let expected = best_of(&[]);
    let different: BTreeSet<_> = expected.values().collect();
    assert!(different.len() > 2, "the best changes: {expected:?}");
    for halts in all_halts(17) {
        assert_eq!(best_of(&halts), expected, "{halts:?}");
    }
}

#[test]
fn the_dashboard_shows_the_last_backup_and_what_failed() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let backup = || {
        let backup = Training::backup(scratch.path().join("backup"));
        backup.save_freq(SaveFreq::Steps(2)).dashboard(true)
    };
    let of_backups = |run: &Run| -> Vec<String> {
        let calls = run.calls.iter();
        let calls = calls.filter(|call| call.ends_with("| N/A"));
        calls.cloned().collect()
    };
    let run = training.run(backup(), Halt::Stop(9));
    assert!(run.calls.contains(&"register_metric Backup".to_owned()));
    let shown = of_backups(&run);
    assert!(shown[0].starts_with("update_train none yet"), "{shown:?}");
    // The second backup waited for the first one.
    let committed = |shown: &String| {
        let positions = ["epoch 1, batch 2, saved at ", "epoch 1, batch 4, saved at "];
        positions.iter().any(|at| shown.contains(at)) && shown.ends_with("Z | N/A")
    };
    assert!(shown.iter().any(committed), "{shown:?}");

    let run = training.run(backup(), Halt::Never);
    let shown = of_backups(&run);
    let restored = "none yet; restored from epoch 2, batch 3";
    assert!(shown[0].contains(restored), "{shown:?}");
    let is_of_a_batch = |shown: &String| shown.starts_with("update_train ");
    assert!(shown.iter().all(is_of_a_batch), "on one line: {shown:?}");

    let poisoned = Training {
        poisoned: Some((3, 18)),
        ..Training::new(Backend::Flex)
    };
    let shown = of_backups(&poisoned.run(backup(), Halt::Never));
    let last = shown.last().unwrap();
    assert!(last.contains("FAILED: the backup is refused"), "{last}");
}

#[test]
fn the_dashboard_can_do_without() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let backup = Training::backup(scratch.path()).dashboard(false);
    let run = training.run(backup, Halt::Never);
    assert!(!run.calls.contains(&"register_metric Backup".to_owned()));
    assert!(run.calls.iter().all(|call| !call.ends_with("| N/A")));
}

#[test]
fn the_progress_continues_from_the_restored_batch() {
    let training = Training::new(Backend::Flex);
    let scratch = tempfile::tempdir().unwrap();
    let backup = || Training::backup(scratch.path());
    training.run(backup(), Halt::Stop(9));
    let run = training.run(backup(), Halt::Never);
    let mut progress = run
        .calls
        .iter()
        .filter(|call| call.starts_with("update_split"));
    assert_eq!(
        progress.next().unwrap(),
        "update_split 16",
        "four batches of four"
    );
    assert!(
        run.calls[0].starts_with("start 3 2 ")
            || run.calls.iter().any(|call| call.starts_with("start 3 2 "))
    );
}

#[test]
fn a_checkpointing_strategy_that_is_never_used_is_reported() {
    log_lines::listen();
    for checkpoints in [true, false] {
        let scratch = tempfile::tempdir().unwrap();
        let training = Training {
            checkpoints,
            ..training()
        };
        let backup = Training::backup(scratch.path().join("backup"));
        let run = training.run(
            backup.checkpointing_strategy(KeepLastNCheckpoints::new(1)),
            Halt::Never,
        );
        assert!(run.error.is_none());
        let warnings = log_lines::logged(log::Level::Warn);
        let is_told = warnings.iter().any(|line| line.contains("is never used"));
        assert_eq!(is_told, !checkpoints, "{warnings:?}");
    }
}
