//! Retention, going back to an older backup, and exported models.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burn::module::Module as _;
use burn::store::ModuleRecord;
use burn_backup_restore::{
    BackupAndRestore, BackupError, BackupHandle, Change, Direction, Keep, Mirror, ObjectStore,
    Outcome, SaveFreq, StoreError, Which,
};
use burn_backup_store::testing::{Failure, FaultyFilesystem};
use burn_backup_tests::{
    Backend, Halt, Hooks, Loop, LoopHalt, Record, Run, Spread, Training, Tuning, model_records,
    report,
};
use log::Level;
use object_store::memory::InMemory;
use serde_json::Value as Json;
use test_fork::test;

use crate::log_lines;
use crate::support::{contents, generations, saved_model, uninterrupted};

/// Six epochs of three batches.
fn training() -> Training {
    Training {
        epochs: 6,
        items: 12,
        // Burn's own metric logger, which identifies an epoch by its number after a restart.
        summary: true,
        ..Training::new(Backend::Flex)
    }
}

/// Three epochs of three batches.
fn short_training() -> Training {
    Training {
        epochs: 3,
        ..training()
    }
}

fn backup(dir: &Path) -> BackupAndRestore {
    Training::backup(dir).delete_checkpoint(false)
}

fn lowest_loss(epochs: usize) -> Keep {
    Keep::best("Loss", Direction::Lowest, epochs)
}

fn best() -> Which {
    Which::best("Loss", Direction::Lowest)
}

fn numbers(dir: &Path) -> Vec<u64> {
    let names = generations(dir).into_iter();
    names.map(|name| name.parse().unwrap()).collect()
}

fn member<'j>(object: &'j Json, name: &str) -> &'j Json {
    object.get(name).unwrap()
}

/// The state document of a generation.
fn state(dir: &Path, number: u64) -> Json {
    let manifest = dir.join(format!("generations/{number:08}/manifest.json"));
    let manifest: Json = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    member(&manifest, "state").clone()
}

/// The epoch that a generation closes.
fn closes(dir: &Path, number: u64) -> Option<u64> {
    let state = state(dir, number);
    let position = member(&state, "position");
    let is_end = member(position, "step_in_epoch") == 0 && member(&state, "phase") == "train";
    is_end.then(|| member(position, "epoch").as_u64().unwrap() - 1)
}

/// The validation loss of each epoch, from the newest backup.
fn losses(dir: &Path) -> BTreeMap<u64, f64> {
    let state = state(dir, *numbers(dir).last().unwrap());
    let history = member(&state, "history").as_array().unwrap();
    let loss = history
        .iter()
        .find(|series| series["metric"] == "Loss" && series["split"] == "valid");
    let values = member(loss.unwrap(), "values").as_object().unwrap();
    let values = values.iter().map(|(epoch, value)| {
        let value: f64 = value.as_str().unwrap().parse().unwrap();
        (epoch.parse().unwrap(), value)
    });
    values.collect()
}

/// The epochs with the best losses.
fn best_epochs(losses: &BTreeMap<u64, f64>, count: usize) -> BTreeSet<u64> {
    let mut ranked: Vec<_> = losses.iter().collect();
    ranked.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    ranked
        .into_iter()
        .take(count)
        .map(|(epoch, _)| *epoch)
        .collect()
}

/// The kept models, by the epoch that each generation closes.
fn kept(dir: &Path) -> BTreeMap<Option<u64>, Record> {
    let model = |number| (closes(dir, number), saved_model(dir, number as usize));
    let kept: BTreeMap<_, _> = numbers(dir).into_iter().map(model).collect();
    assert_eq!(kept.len(), numbers(dir).len(), "one of each epoch");
    kept
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let path = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn interrupted_in_every_epoch_the_kept_backups_are_those_of_the_uninterrupted_training() {
    let training = training();
    let keep = || Keep::last(1).and(lowest_loss(2)).and(Keep::every_epochs(4));
    let scratch = tempfile::tempdir().unwrap();
    let run = training.run(backup(scratch.path()).keep(keep()), Halt::Never);
    assert!(run.error.is_none(), "{:?}", run.error);
    let losses = losses(scratch.path());
    assert_eq!(losses.len(), 6, "{losses:?}");
    let mut expected = best_epochs(&losses, 2);
    expected.extend([4, 6]);
    let kept_uninterrupted = kept(scratch.path());
    let epochs: BTreeSet<_> = kept_uninterrupted
        .keys()
        .map(|epoch| epoch.unwrap())
        .collect();
    assert_eq!(epochs, expected, "{losses:?}");

    for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1), SaveFreq::Steps(2)] {
        for halt in [
            Halt::Stop(2),
            Halt::Stop(3),
            Halt::StopInValidation(5),
            Halt::Fail(5),
        ] {
            let scratch = tempfile::tempdir().unwrap();
            for starts in 1.. {
                let backup = backup(scratch.path()).save_freq(frequency).keep(keep());
                let handle = backup.handle();
                training.run(backup, halt);
                if handle.outcome() == Some(Outcome::Finished) {
                    assert!(starts > 1, "it was interrupted");
                    break;
                }
                assert!(starts < 30, "{frequency:?}, {halt:?}");
            }
            assert!(
                kept(scratch.path()) == kept_uninterrupted,
                "{frequency:?}, {halt:?}: {:?}",
                kept(scratch.path()).keys()
            );
        }
    }
}

#[test]
fn the_best_epochs_are_kept_on_several_devices_and_under_ddp_too() {
    for spread in [Spread::Main(2), Spread::Ddp(2)] {
        let training = Training {
            epochs: 4,
            items: 12,
            summary: true,
            ..Training::spread(spread)
        };
        let scratch = tempfile::tempdir().unwrap();
        let backup = backup(scratch.path()).save_freq(1).keep(lowest_loss(2));
        let run = training.run(backup, Halt::Never);
        assert!(run.error.is_none(), "{:?}", run.error);
        let mut expected = best_epochs(&losses(scratch.path()), 2);
        expected.insert(4);
        let epochs: BTreeSet<_> = kept(scratch.path())
            .into_keys()
            .map(|epoch| epoch.unwrap())
            .collect();
        assert_eq!(epochs, expected, "{spread:?}");
    }
}

#[test]
fn kept_backups_are_deleted_at_the_end_unless_they_are_to_stay() {
    let training = short_training();
    for (deletes, batches) in [(true, 1), (false, 1), (true, 100), (false, 100)] {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("backup");
        let backup = Training::backup(&dir)
            .save_freq(batches)
            .keep(Keep::every_epochs(1))
            .delete_checkpoint(deletes);
        let seen = Arc::new(Mutex::new(0));
        let counted = (seen.clone(), dir.clone());
        let run = training.run_with_learner(
            Halt::Never,
            move |training, hooks| {
                let (seen, dir) = counted;
                training.learner(hooks.on_train(move |batch| {
                    if batch == 9 {
                        *seen.lock().unwrap() = generations(&dir).len();
                    }
                }))
            },
            |builder| burn_backup_restore::BackupExt::backup_and_restore(builder, backup),
        );
        assert!(run.error.is_none());
        // The backup of the first epoch is committed by then, and perhaps that of the second.
        assert!(*seen.lock().unwrap() >= 1);
        assert_eq!(dir.exists(), !deletes);
        if !deletes {
            let epochs: Vec<_> = kept(&dir).into_keys().collect();
            assert_eq!(epochs, [Some(1), Some(2), Some(3)]);
        }
    }
}

#[test]
fn one_backup_is_kept_of_each_stretch_of_time() {
    let training = short_training();
    for (interval, expected) in [
        (Duration::from_nanos(1), 10),
        (Duration::from_secs(3600), 2),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = backup(scratch.path())
            .save_freq(1)
            .keep(Keep::every(interval));
        assert!(training.run(backup, Halt::Never).error.is_none());
        // At least the first and the newest backup are kept.
        assert_eq!(numbers(scratch.path()).len(), expected);
        assert_eq!(numbers(scratch.path()).first(), Some(&1));
    }
}

#[test]
fn a_metric_that_never_comes_is_reported_once_and_rules_that_keep_nothing_are_refused() {
    log_lines::listen();
    let scratch = tempfile::tempdir().unwrap();
    let keep = Keep::best("Los", Direction::Lowest, 2);
    let run = short_training().run(backup(scratch.path()).keep(keep), Halt::Never);
    assert!(run.error.is_none());
    assert_eq!(numbers(scratch.path()), [3]);
    let said: Vec<_> = log_lines::logged(Level::Warn)
        .into_iter()
        .filter(|line| line.contains("Keep::best(\"Los\""))
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");

    for keep in [Keep::last(0), lowest_loss(0), Keep::every_epochs(0)] {
        let scratch = tempfile::tempdir().unwrap();
        let run = short_training().run(backup(scratch.path()).keep(keep), Halt::Never);
        let error = run.backup_error();
        assert!(error.needs_a_change(), "{error}");
        assert!(contents(scratch.path()).is_empty());
    }
}

/// Leaves the backups of three epochs, all of which are kept. Returns the whole run.
fn prepared(dir: &Path) -> Run {
    let backup = backup(dir).keep(Keep::last(usize::MAX).and(lowest_loss(1)));
    let run = short_training().run(backup, Halt::Never);
    assert_eq!(numbers(dir), [1, 2, 3]);
    run
}

/// Goes back, and continues with other random numbers, so that the difference shows.
fn reseeded(dir: &Path, which: Which) -> BackupAndRestore {
    backup(dir)
        .restore_from(which)
        .seed(6)
        .allow(Change::Seed)
        .save_freq(1)
        .keep(Keep::last(usize::MAX))
}

fn from_step(handle: &BackupHandle) -> Option<u64> {
    handle.restored_from().map(|at| at.global_step)
}

fn aside(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("aside")).into_iter().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn each_kind_of_request_goes_back_to_its_backup_and_moves_the_newer_ones_aside() {
    let from = tempfile::tempdir().unwrap();
    let run = prepared(from.path());
    let best_epoch = *best_epochs(&losses(from.path()), 1).first().unwrap();
    for (which, epoch) in [
        (Which::Epoch(1), 1),
        (Which::Epoch(2), 2),
        (Which::Generation(2), 2),
        (best(), best_epoch),
        (Which::Newest, 3),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        copy(from.path(), scratch.path());
        let backup = backup(scratch.path())
            .restore_from(which.clone())
            .keep_last(9);
        let handle = backup.handle();
        let again = short_training().run(backup, Halt::Never);
        assert!(again.error.is_none(), "{which}: {:?}", again.error);
        assert_eq!(from_step(&handle), Some(3 * epoch), "{which}");
        // The training goes the same way again.
        assert!(again.weights == run.weights, "{which}");
        let moved: Vec<_> = (epoch + 1..=3)
            .map(|number| format!("{number:08}"))
            .collect();
        assert_eq!(aside(scratch.path()), moved, "{which}");
        let expected: Vec<_> = (1..=epoch).chain(4..4 + 3 - epoch).collect();
        assert_eq!(numbers(scratch.path()), expected, "{which}");
        for number in epoch + 1..=3 {
            let moved = scratch.path().join(format!("aside/{number:08}/model.bpk"));
            let original = from
                .path()
                .join(format!("generations/{number:08}/model.bpk"));
            assert!(fs::read(moved).unwrap() == fs::read(original).unwrap());
        }
    }
}

#[test]
fn going_back_is_announced_in_the_log() {
    log_lines::listen();
    let scratch = tempfile::tempdir().unwrap();
    prepared(scratch.path());
    short_training().run(reseeded(scratch.path(), Which::Epoch(1)), Halt::Stop(1));
    let lines = log_lines::logged(Level::Info);
    let said = lines
        .iter()
        .find(|line| line.contains("goes back to backup 00000001"));
    let said = said.unwrap();
    assert!(
        said.contains("2 newer backups, 00000002 to 00000003, were moved"),
        "{said}"
    );
    assert!(said.contains("the backup at the end of epoch 1"), "{said}");
}

#[test]
fn a_missing_backup_is_refused_with_the_existing_ones_and_nothing_is_changed() {
    let scratch = tempfile::tempdir().unwrap();
    prepared(scratch.path());
    let before = contents(scratch.path());
    for (which, named) in [
        (Which::Epoch(7), "00000003 (end of epoch 3), 00000002"),
        (Which::Generation(12), "00000001 (end of epoch 1)"),
        (
            Which::best("Lost", Direction::Lowest),
            "(end of epoch 2, no Lost, but Loss)",
        ),
    ] {
        let run = short_training().run(reseeded(scratch.path(), which), Halt::Never);
        let error = run.backup_error();
        assert!(matches!(error, BackupError::NoSuchBackup { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(run.losses.is_empty());
        assert!(contents(scratch.path()) == before);
    }
    // A damaged backup is no reason to give up the newer ones.
    fs::write(scratch.path().join("generations/00000002/model.bpk"), "").unwrap();
    let before = contents(scratch.path());
    let run = short_training().run(reseeded(scratch.path(), Which::Epoch(2)), Halt::Never);
    let error = run.backup_error();
    let is_damage = matches!(
        error,
        BackupError::Store(StoreError::GenerationDamaged { .. })
    );
    assert!(is_damage, "{error}");
    assert!(contents(scratch.path()) == before);
    // Neither is a backup of another model.
    let other = Training {
        hidden: 9,
        ..short_training()
    };
    let run = other.run(reseeded(scratch.path(), Which::Epoch(1)), Halt::Never);
    let error = run.backup_error();
    assert!(
        matches!(error, BackupError::ModelMismatch { .. }),
        "{error}"
    );
    assert!(contents(scratch.path()) == before);

    let empty = tempfile::tempdir().unwrap();
    let run = short_training().run(reseeded(empty.path(), Which::Epoch(1)), Halt::Never);
    let error = run.backup_error().to_string();
    assert!(error.contains("there are none"), "{error}");
}

#[test]
fn a_fork_that_is_interrupted_at_any_batch_ends_as_if_uninterrupted() {
    let training = short_training();
    let from = tempfile::tempdir().unwrap();
    let run = prepared(from.path());
    for which in [Which::Epoch(1), Which::Generation(1), best()] {
        let scratch = tempfile::tempdir().unwrap();
        copy(from.path(), scratch.path());
        let backup = reseeded(scratch.path(), which.clone());
        let handle = backup.handle();
        let fork = training.run(backup, Halt::Never);
        assert!(fork.error.is_none(), "{which}: {:?}", fork.error);
        let begins = from_step(&handle).unwrap();
        let moved = aside(scratch.path());
        if begins < 9 {
            assert!(fork.weights != run.weights, "{which}");
        }
        for batch in 1..=(9 - begins as usize) {
            for halt in [Halt::Stop(batch), Halt::Fail(batch)] {
                let scratch = tempfile::tempdir().unwrap();
                copy(from.path(), scratch.path());
                training.run(reseeded(scratch.path(), which.clone()), halt);
                assert_eq!(aside(scratch.path()), moved);
                let backup = reseeded(scratch.path(), which.clone());
                let handle = backup.handle();
                let again = training.run(backup, Halt::Never);
                assert!(again.weights == fork.weights, "{which}, {halt:?}");
                assert_eq!(aside(scratch.path()), moved, "it does not fork again");
                let lost = matches!(halt, Halt::Fail(_)) as u64;
                let trained = begins + batch as u64 - lost;
                assert_eq!(from_step(&handle), Some(trained), "{which}, {halt:?}");
            }
        }
    }
}

#[test]
fn a_start_without_a_request_ends_the_last_one_and_another_request_goes_back_again() {
    let training = short_training();
    let scratch = tempfile::tempdir().unwrap();
    prepared(scratch.path());
    let start = |which: Which, halt| {
        let backup = reseeded(scratch.path(), which);
        let handle = backup.handle();
        training.run(backup, halt);
        (from_step(&handle), aside(scratch.path()).len())
    };
    // Goes back to the end of epoch 2, then continues. Each start trains one batch: backups 4 and 5.
    assert_eq!(start(Which::Epoch(2), Halt::Stop(1)), (Some(6), 1));
    assert_eq!(start(Which::Epoch(2), Halt::Stop(1)), (Some(7), 1));
    // Another request goes back to the end of epoch 1: backup 6.
    assert_eq!(start(Which::Epoch(1), Halt::Stop(1)), (Some(3), 4));
    // Without a request, the training continues: backup 7.
    assert_eq!(start(Which::Newest, Halt::Stop(1)), (Some(4), 4));
    // The same request goes back once more.
    assert_eq!(start(Which::Epoch(1), Halt::Stop(1)), (Some(3), 6));
    assert_eq!(numbers(scratch.path()), [1, 8]);
    let forks = state(scratch.path(), 8)["forks"].clone();
    assert_eq!(
        forks,
        serde_json::json!([{ "request": "epoch:1", "from": 1, "last": 7 }])
    );
}

/// Runs the training. The filesystem call `at` fails with `failure`. Also returns the number of calls.
fn run_failing(
    training: &Training,
    backup: BackupAndRestore,
    failure: Failure,
    at: usize,
) -> (Run, usize) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, fails) = (calls.clone(), failure.at(at));
    let filesystem = FaultyFilesystem::new(move |operation, _| {
        fails(counted.fetch_add(1, Ordering::Relaxed) + 1, operation)
    });
    let backup = backup.filesystem(Arc::new(filesystem));
    let run = training.run(backup, Halt::Never);
    (run, calls.load(Ordering::Relaxed))
}

#[test]
fn whichever_call_of_a_fork_fails_no_backup_is_lost_and_the_next_start_is_the_same_fork() {
    let training = Training {
        epochs: 2,
        items: 8,
        ..Training::new(Backend::Flex)
    };
    let from = tempfile::tempdir().unwrap();
    let all = backup(from.path())
        .save_freq(1)
        .keep(Keep::last(usize::MAX));
    training.run(all, Halt::Never);
    assert_eq!(numbers(from.path()), [1, 2, 3, 4, 5]);
    let fork = |dir: &Path| reseeded(dir, Which::Generation(3)).save_freq(SaveFreq::Epoch);
    let scratch = tempfile::tempdir().unwrap();
    copy(from.path(), scratch.path());
    let expected = training.run(fork(scratch.path()), Halt::Never);
    assert!(expected.error.is_none(), "{:?}", expected.error);
    assert_eq!(aside(scratch.path()), ["00000004", "00000005"]);
    for failure in Failure::ALL {
        for at in 1.. {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path();
            copy(from.path(), dir);
            let (run, calls) = run_failing(&training, fork(dir), failure, at);
            if run.losses.is_empty() {
                let error = run.backup_error();
                assert!(matches!(error, BackupError::Store(_)), "{error}");
            } else {
                assert!(run.weights == expected.weights, "{failure:?} at {at}");
            }
            let in_place: BTreeSet<_> = generations(dir).into_iter().collect();
            let moved: BTreeSet<_> = aside(dir).into_iter().collect();
            for number in 1..=5 {
                let name = format!("{number:08}");
                let places =
                    usize::from(in_place.contains(&name)) + usize::from(moved.contains(&name));
                assert_eq!(places, 1, "{number}: {failure:?} at {at}");
            }
            let again = training.run(fork(dir), Halt::Never);
            assert!(
                again.error.is_none(),
                "{failure:?} at {at}: {:?}",
                again.error
            );
            assert!(again.weights == expected.weights, "{failure:?} at {at}");
            assert_eq!(aside(dir), ["00000004", "00000005"], "{failure:?} at {at}");
            if calls < at {
                report(&format!("forks, {failure:?}: failed at {calls} calls"));
                assert!(calls > 60, "{calls}");
                break;
            }
        }
    }
}

#[test]
fn whichever_call_fails_what_a_policy_keeps_stays_whole() {
    let training = short_training();
    let keep = || Keep::last(1).and(lowest_loss(1)).and(Keep::every_epochs(2));
    let scratch = tempfile::tempdir().unwrap();
    let expected = training.run(backup(scratch.path()).keep(keep()), Halt::Never);
    let kept_uninterrupted = kept(scratch.path());
    for failure in [Failure::Device, Failure::Full, Failure::ShortWriteThenFull] {
        for at in 1.. {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path();
            let (run, calls) = run_failing(&training, backup(dir).keep(keep()), failure, at);
            if !run.losses.is_empty() {
                assert!(run.weights == expected.weights);
                // At most one backup and one prune have failed.
                let found = kept(dir);
                let lost = kept_uninterrupted
                    .iter()
                    .filter(|(epoch, model)| found.get(epoch).is_none_or(|found| found != *model));
                assert!(lost.count() <= 1, "{failure:?} at {at}: {:?}", found.keys());
            }
            if calls < at {
                report(&format!("policies, {failure:?}: failed at {calls} calls"));
                assert!(calls > 60, "{calls}");
                break;
            }
        }
    }
}

/// Loads a file as plain Burn does, into another model of the same kind.
fn loaded(training: &Training, file: &Path) -> Record {
    let other = Training {
        weights_seed: 99,
        ..training.clone()
    };
    let record = ModuleRecord::load(file).unwrap();
    let model = other.model(Hooks::default()).load_record(record);
    model_records(&model)
}

#[test]
fn plain_burn_reads_the_exported_model_of_each_backup() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, files) = (
        scratch.path().join("backup"),
        scratch.path().join("new/files"),
    );
    let training = short_training();
    prepared(&dir);
    let handle = BackupAndRestore::new(&dir).handle();
    let best_epoch = *best_epochs(&losses(&dir), 1).first().unwrap();
    for (which, number) in [
        (Which::Newest, 3),
        (Which::Epoch(1), 1),
        (Which::Generation(2), 2),
        (best(), best_epoch),
    ] {
        let file = files.join("model.bpk");
        let exported = handle.export(&which, &file).unwrap();
        assert_eq!(exported.number(), number, "{which}");
        let saved = saved_model(&dir, number as usize);
        assert!(loaded(&training, &file) == saved, "{which}");
    }
    // No other file is left, and nothing is written for a missing backup.
    assert_eq!(fs::read_dir(&files).unwrap().count(), 1);
    let before = contents(&files);
    let error = handle.export(&Which::Epoch(9), files.join("model.bpk"));
    assert!(matches!(error, Err(BackupError::NoSuchBackup { .. })));
    let error = handle.export_state(&Which::Newest, "critic", files.join("model.bpk"));
    assert!(matches!(error, Err(BackupError::AmbiguousModel { .. })));
    fs::write(dir.join("generations/00000002/model.bpk"), "damaged").unwrap();
    let error = handle.export(&Which::Epoch(2), files.join("model.bpk"));
    let is_damage = matches!(
        error,
        Err(BackupError::Store(StoreError::GenerationDamaged { .. }))
    );
    assert!(is_damage, "{error:?}");
    let error = handle.export(&Which::Epoch(1), files.join("model.bpk/below"));
    assert!(
        matches!(error, Err(BackupError::Export { .. })),
        "{error:?}"
    );
    assert!(contents(&files) == before);
}

#[test]
fn a_model_in_two_parts_is_exported_as_one() {
    let training = Training {
        tuning: Some(Tuning::DEFAULT),
        ..short_training()
    };
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let run = training.run(backup(&dir).keep_last(9), Halt::Never);
    assert!(run.error.is_none());
    assert!(dir.join("generations/00000002/frozen.bpk").exists());
    let file = scratch.path().join("model.bpk");
    let handle = BackupAndRestore::new(&dir).handle();
    handle.export(&Which::Generation(2), &file).unwrap();
    assert!(loaded(&training, &file) == saved_model(&dir, 2));
}

#[test]
fn a_model_is_exported_while_the_training_runs() {
    let training = short_training();
    let expected = uninterrupted(&training);
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let backup = Training::backup(&dir).save_freq(1).keep(lowest_loss(1));
    let (handle, file) = (backup.handle(), scratch.path().join("best.bpk"));
    let exports = Arc::new(AtomicUsize::new(0));
    let (to, counted) = (file.clone(), exports.clone());
    let run = training.run_with_learner(
        Halt::Never,
        move |training, hooks| {
            training.learner(hooks.on_train(move |batch| {
                // The backup of the first epoch is committed by then.
                if batch > 5 {
                    handle.export(&best(), &to).unwrap();
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }))
        },
        |builder| burn_backup_restore::BackupExt::backup_and_restore(builder, backup),
    );
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(run.weights == expected.weights);
    assert_eq!(exports.load(Ordering::Relaxed), 4);
    assert!(!loaded(&training, &file).is_empty());
    assert!(!dir.exists());
}

#[test]
fn a_loop_by_hand_keeps_its_best_epochs_and_goes_back_to_one() {
    let program = Loop::new(Backend::Flex);
    let from = tempfile::tempdir().unwrap();
    let start = |dir: &Path| BackupAndRestore::new(dir).delete_checkpoint(false);
    let keep = || Keep::last(1).and(lowest_loss(1)).and(Keep::every_epochs(1));
    for frequency in [SaveFreq::Epoch, SaveFreq::Steps(1)] {
        let scratch = tempfile::tempdir().unwrap();
        let backup = start(scratch.path())
            .save_freq(frequency)
            .keep(lowest_loss(1));
        program.run(backup, LoopHalt::Stop(9));
        let backup = start(scratch.path())
            .save_freq(frequency)
            .keep(lowest_loss(1));
        let run = program.run(backup, LoopHalt::Never);
        assert_eq!(run.outcome, Some(Outcome::Finished), "{:?}", run.error);
        let losses = losses(scratch.path());
        let mut expected = best_epochs(&losses, 1);
        expected.insert(3);
        let epochs = numbers(scratch.path()).into_iter();
        let epochs: BTreeSet<_> = epochs
            .filter_map(|number| closes(scratch.path(), number))
            .collect();
        assert_eq!(epochs, expected, "{losses:?}");
    }

    let run = program.run(start(from.path()).keep(keep()), LoopHalt::Never);
    assert_eq!(run.outcome, Some(Outcome::Finished), "{:?}", run.error);
    let best_epoch = *best_epochs(&losses(from.path()), 1).first().unwrap();
    for (which, epoch) in [
        (Which::Epoch(1), 1),
        (best(), best_epoch),
        (Which::Generation(4), 2),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        copy(from.path(), scratch.path());
        let again = || {
            start(scratch.path())
                .keep(keep())
                .restore_from(which.clone())
        };
        let backup = again();
        let handle = backup.handle();
        let stopped = program.run(backup, LoopHalt::Stop(1));
        assert!(stopped.error.is_none(), "{which}: {:?}", stopped.error);
        assert_eq!(from_step(&handle), Some(7 * epoch), "{which}");
        let ended = program.run(again(), LoopHalt::Never);
        assert_eq!(ended.outcome, Some(Outcome::Finished), "{:?}", ended.error);
        let counters =
            |run: &burn_backup_tests::LoopRun| run.state.as_ref().unwrap().counters.0.clone();
        assert_eq!(counters(&ended), counters(&run), "{which}");
        assert_eq!(aside(scratch.path()).len() as u64, 3 - epoch, "{which}");
    }
    // With several models, the program must name one.
    let handle = start(from.path()).handle();
    let file = from.path().join("average.bpk");
    let error = handle
        .export(&Which::Newest, &file)
        .unwrap_err()
        .to_string();
    assert!(error.contains("'average', 'trainee'"), "{error}");
    handle
        .export_state(&Which::Newest, "average", &file)
        .unwrap();
    assert!(ModuleRecord::load(&file).is_ok());
}

/// Adds the mirror in `store`, which outlives the machines.
fn mirrored(backup: BackupAndRestore, store: &Arc<dyn ObjectStore>) -> BackupAndRestore {
    // A failed process blocks the mirror for a short time only.
    let mirror = Mirror::with_store(store.clone(), "run");
    backup.mirror(mirror.lease_ttl(Duration::from_millis(200)))
}

#[test]
fn the_mirror_keeps_what_the_policy_keeps_and_another_machine_goes_back_to_it() {
    let training = short_training();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let keep = || Keep::last(1).and(Keep::every_epochs(1)).and(lowest_loss(1));
    let first = tempfile::tempdir().unwrap();
    let backup_of = |dir: &Path| mirrored(backup(dir).keep(keep()), &store);
    // Each backup is in the mirror before the next one comes, so none is left out.
    for (epochs, halt) in [(1, Halt::Never), (2, Halt::Never), (3, Halt::Stop(1))] {
        let part = Training {
            epochs,
            ..training.clone()
        };
        let run = part.run(backup_of(first.path()), halt);
        assert!(run.error.is_none(), "{:?}", run.error);
    }
    let here: Vec<_> = numbers(first.path())
        .into_iter()
        .map(|number| closes(first.path(), number))
        .collect();
    assert_eq!(
        here,
        [Some(1), Some(2), None],
        "and the newest, inside epoch 3"
    );

    for (which, step) in [(Which::Epoch(1), 3), (Which::Generation(2), 6)] {
        let machine = tempfile::tempdir().unwrap();
        let fork = || mirrored(reseeded(machine.path(), which.clone()).keep(keep()), &store);
        let backup = fork();
        let handle = backup.handle();
        let run = training.run(backup, Halt::Stop(2));
        assert!(run.error.is_none(), "{which}: {:?}", run.error);
        assert_eq!(from_step(&handle), Some(step), "{which}");
        assert!(handle.mirror_stats().unwrap().stopped.is_none(), "{which}");
        // That machine is lost as well, and the next one continues the fork.
        let machine = tempfile::tempdir().unwrap();
        let backup = mirrored(reseeded(machine.path(), which.clone()).keep(keep()), &store);
        let handle = backup.handle();
        let run = training.run(backup, Halt::Stop(1));
        assert!(run.error.is_none(), "{which}: {:?}", run.error);
        assert_eq!(from_step(&handle), Some(step + 2), "{which}");
    }
    // A missing backup is refused, and the error lists the existing ones.
    let machine = tempfile::tempdir().unwrap();
    let backup = mirrored(reseeded(machine.path(), Which::Epoch(9)), &store);
    let run = training.run(backup, Halt::Never);
    let error = run.backup_error().to_string();
    assert!(error.contains("(end of epoch 1)"), "{error}");
}
