use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Bytes, TensorReadError};
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{
    LossMetric, Metric, MetricMetadata, MetricName, Numeric, NumericEntry, SerializedEntry,
};
use burn::train::{MetricEarlyStoppingStrategy, StoppingCondition, SupervisedTraining};
use burn_backup_restore::{BackupAndRestore, SaveFreq};
use burn_backup_tests::{Halt, Net, Record, Run, Training, named};

pub fn uninterrupted(training: &Training) -> Run {
    let scratch = tempfile::tempdir().unwrap();
    let run = training.run(Training::backup(scratch.path().join("backup")), Halt::Never);
    assert!(run.error.is_none() && run.interrupted.is_none());
    run
}

/// Interrupts the training by each of `halts` in turn, then lets it end. Compares everything that it leaves
/// with the `uninterrupted` run.
#[track_caller]
pub fn assert_exact(
    training: &Training,
    uninterrupted: &Run,
    configure: impl Fn(BackupAndRestore) -> BackupAndRestore,
    halts: &[Halt],
) {
    assert_exact_in_turn(
        std::slice::from_ref(training),
        uninterrupted,
        configure,
        halts,
    );
}

/// The same with programs whose differences must not matter. Each run uses the next program.
#[track_caller]
pub fn assert_exact_in_turn(
    programs: &[Training],
    uninterrupted: &Run,
    configure: impl Fn(BackupAndRestore) -> BackupAndRestore,
    halts: &[Halt],
) {
    let mut programs = programs.iter().cycle();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let mut losses = BTreeMap::new();
    let mut trained = 0;
    let spread = programs.clone().next().unwrap().spread;
    // A round of one batch per device counts as one.
    let devices = spread.devices();
    let mut run_once = |halt, before: Option<&Halt>| {
        let training = programs.next().unwrap();
        let backup = configure(Training::backup(&dir));
        let handle = backup.handle();
        let run = training.run(backup, halt);
        let trained_before = handle.restored_from().map_or(0, |at| at.global_step);
        let lost = trained - trained_before;
        match before {
            // A stop loses only batches that no optimizer step has used.
            Some(Halt::Stop(_) | Halt::StopInValidation(_)) => {
                let unused = training.accumulation.unwrap_or(1) as u64 - 1;
                assert!(
                    lost <= unused,
                    "{lost} batches are lost to {before:?} in {halts:?}"
                );
            }
            Some(Halt::Fail(_)) => assert!(lost >= 1, "the batch of the error is lost"),
            // With a backup after each batch, it is possible that nothing is lost.
            Some(Halt::FailInValidation(_)) => {}
            _ => assert_eq!(trained, 0),
        }
        for (step, round) in (trained_before..).zip(rounds(&run, devices)) {
            // Batches that are trained again, because their work was lost, give the same losses.
            let first_time = losses.insert(step, round.clone());
            assert!(
                first_time.is_none_or(|first| first == round),
                "step {step} in {halts:?}, {spread:?}"
            );
        }
        trained = trained_before + (run.losses.len() / devices) as u64;
        run
    };

    let mut before = None;
    for halt in halts {
        let run = run_once(*halt, before);
        before = Some(halt);
        let is_error = matches!(halt, Halt::Fail(_) | Halt::FailInValidation(_));
        assert_eq!(run.error.is_some(), is_error, "{halt:?} in {halts:?}");
        assert_eq!(run.interrupted.is_none(), is_error, "{halt:?} in {halts:?}");
        assert!(dir.join("generations").exists(), "{halt:?} in {halts:?}");
    }
    let run = run_once(Halt::Never, before);
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.interrupted.is_none());
    assert!(
        run.weights == uninterrupted.weights,
        "weights after {halts:?}"
    );
    assert!(
        run.records == uninterrupted.records,
        "records after {halts:?}"
    );
    let logged = validation_metrics(&run);
    assert!(
        !logged.is_empty() && validation_metrics(uninterrupted).ends_with(&logged),
        "metrics of the validation after {halts:?}, {spread:?}"
    );
    assert!(
        batch_metrics(uninterrupted).ends_with(&batch_metrics(&run)),
        "metrics of the batches after {halts:?}"
    );
    let losses: Vec<_> = losses.into_values().collect();
    assert!(
        losses == rounds(uninterrupted, devices),
        "losses after {halts:?}"
    );
    assert!(!dir.exists(), "deleted after success");
}

/// The losses of each round, sorted: under DDP, the order of the devices is not fixed.
fn rounds(run: &Run, devices: usize) -> Vec<Vec<Vec<u8>>> {
    let rounds = run.losses.chunks(devices).map(|round| {
        let mut round = round.to_vec();
        round.sort();
        round
    });
    rounds.collect()
}

/// Ends the training at the first epoch whose validation loss is no better than before.
pub fn stop_early(builder: SupervisedTraining<Net>) -> SupervisedTraining<Net> {
    builder.early_stopping(MetricEarlyStoppingStrategy::new(
        &LossMetric::new(),
        Aggregate::Mean,
        Direction::Lowest,
        Split::Valid,
        StoppingCondition::NoImprovementSince { n_epochs: 1 },
    ))
}

/// The logged validation metrics. The last ones of the run are the last ones of the training.
fn validation_metrics(run: &Run) -> Vec<String> {
    let calls = run.calls.iter();
    calls
        .filter(|call| call.starts_with("update_valid"))
        .cloned()
        .collect()
}

/// The logged values of each training batch: accuracy, loss and learning rate. The value that is shown is the
/// epoch's mean so far, which restarts in each run.
fn batch_metrics(run: &Run) -> Vec<&str> {
    let calls = run.calls.iter();
    calls
        .filter(|call| call.starts_with("update_train"))
        .filter_map(|call| call.split_once(" | "))
        .map(|(_shown, logged)| logged)
        .filter(|logged| !logged.ends_with(",final"))
        .collect()
}

/// The names of the generations in a backup directory, sorted.
pub fn generations(backup_dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(backup_dir.join("generations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The contents of a part of a generation; empty if there is no such part.
pub fn part(backup_dir: &Path, generation: usize, name: &str) -> Record {
    let generation = backup_dir.join(format!("generations/{generation:08}"));
    match std::fs::read(generation.join(name).with_extension("bpk")) {
        Ok(bytes) => named(Bytes::from_bytes_vec(bytes)),
        Err(_) => Record::new(),
    }
}

/// The model in a generation, in whichever parts it is.
pub fn saved_model(backup_dir: &Path, generation: usize) -> Record {
    let mut model = part(backup_dir, generation, "model");
    for (name, tensor) in part(backup_dir, generation, "frozen") {
        assert!(model.insert(name, tensor).is_none(), "it is in one part");
    }
    model
}

/// The model after each number of `batches`, from trainings that are stopped there.
pub fn stopped_models(training: &Training, batches: RangeInclusive<usize>) -> Vec<Record> {
    let stopped = batches.map(|batch| {
        let scratch = tempfile::tempdir().unwrap();
        let backup = Training::backup(scratch.path()).save_freq(SaveFreq::Never);
        training.run(backup, Halt::Stop(batch)).weights
    });
    stopped.collect()
}

/// Every file below `dir` with its contents, except the lock file.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if !path.ends_with("lock") {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// The largest difference between the 32-bit numbers of two records.
pub fn difference(one: &Record, other: &Record) -> f32 {
    assert!(one.keys().eq(other.keys()));
    let mut worst = 0.0_f32;
    for (name, bytes) in one {
        let numbers = |bytes: &[u8]| -> Vec<f32> {
            // The numbers come after the type and the shape.
            let at = bytes.windows(2).position(|two| two == b"} ").unwrap() + 2;
            let numbers = bytes.get(at..).unwrap().chunks_exact(4);
            let numbers = numbers.map(|four| f32::from_le_bytes(four.try_into().unwrap()));
            numbers.collect()
        };
        for (one, other) in numbers(bytes).iter().zip(numbers(&other[name])) {
            worst = worst.max((one - other).abs());
        }
    }
    worst
}

/// A metric that has no value without a batch, like Burn's AUROC.
#[derive(Clone, Default)]
pub struct NeedsBatch {
    batches: usize,
}

impl Metric for NeedsBatch {
    type Input = ();

    fn name(&self) -> MetricName {
        Arc::new("NeedsBatch".to_owned())
    }

    fn update(
        &mut self,
        _item: &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.batches += 1;
        Ok(SerializedEntry::not_available(None))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        let batches = self.batches.to_string();
        Ok(SerializedEntry::new(batches.clone(), batches))
    }

    fn clear(&mut self) {
        self.batches = 0;
    }
}

impl Numeric for NeedsBatch {
    fn value(&self) -> Option<NumericEntry> {
        None
    }

    fn running_value(&self) -> Option<NumericEntry> {
        None
    }

    fn final_value(&self) -> NumericEntry {
        assert!(self.batches > 0, "asked for a value without a batch");
        NumericEntry::Final(self.batches as f64)
    }
}
