//! Random edits of a training's whole backup directory: the restored state is exact, or the start is refused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use burn_backup_restore::{BackupAndRestore, BackupHandle};
use burn_backup_store::testing::{Image, MemoryFilesystem, Node, below, edit_each, seal};
use burn_backup_tests::{Backend, Halt, Run, Training, report};
use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::{TestCaseError, TestRunner};
use serde_json::{Value, json};
use test_fork::test;

use crate::support::uninterrupted;

/// The path from the root of the in-memory disk.
const DIR: &str = "backup";
const CASES: u32 = 400;

fn backup(disk: &MemoryFilesystem) -> BackupAndRestore {
    Training::backup(Path::new("/").join(DIR))
        .keep_last(3)
        .save_freq(2)
        .filesystem(Arc::new(disk.clone()))
}

/// Backups after 4, 6 and 8 batches.
fn three_backups(training: &Training) -> Image {
    let disk = MemoryFilesystem::default();
    training.run(backup(&disk), Halt::Fail(9));
    disk.image()
}

/// How many batches were trained before the newest backup that the edits left unchanged.
fn newest_untouched(before: &Image, after: &Image) -> Option<u64> {
    [(4, 8), (3, 6), (2, 4)]
        .into_iter()
        .find_map(|(generation, batches)| {
            let dir = Path::new(DIR).join(format!("generations/{generation:08}"));
            (below(before, &dir) == below(after, &dir)).then_some(batches)
        })
}

/// Trains with the backups on `disk`. A refusal is an error of ours, before the first batch.
fn train_on(training: &Training, disk: &MemoryFilesystem) -> Result<(Run, BackupHandle), String> {
    let backup = backup(disk);
    let handle = backup.handle();
    let run = catch_unwind(AssertUnwindSafe(|| training.run(backup, Halt::Never)))
        .map_err(|_| "it panicked".to_owned())?;
    if run.error.is_some() {
        run.backup_error();
        if !run.losses.is_empty() {
            return Err("it was refused in its middle".to_owned());
        }
    }
    Ok((run, handle))
}

fn check(
    training: &Training,
    expected: &Run,
    before: &Image,
    after: &Image,
) -> Result<bool, String> {
    let (run, handle) = train_on(training, &MemoryFilesystem::holding(after))?;
    if run.error.is_some() {
        return Ok(false);
    }
    if run.weights != expected.weights || run.records != expected.records {
        return Err("it ended otherwise".to_owned());
    }
    let restored = handle.restored_from().map(|at| at.global_step);
    let untouched = newest_untouched(before, after);
    if restored < untouched {
        return Err(format!(
            "{restored:?} was restored, but {untouched:?} is whole"
        ));
    }
    Ok(restored.is_some())
}

#[test]
fn after_random_edits_of_the_backup_a_training_is_exact_or_refused() {
    let training = Training {
        epochs: 2,
        ..Training::new(Backend::Flex)
    };
    let expected = uninterrupted(&training);
    let before = three_backups(&training);
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let restored = std::cell::Cell::new(0);
    let drawn = proptest::collection::vec(proptest::collection::vec(any::<u16>(), 10), 1..6);
    let checked = TestRunner::new(config).run(&drawn, |drawn| {
        let mut after = before.clone();
        let done = edit_each(&mut after, &drawn);
        let is_restored = check(&training, &expected, &before, &after)
            .map_err(|what| TestCaseError::fail(format!("{what}, after {done:?}")))?;
        restored.set(restored.get() + usize::from(is_restored));
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
    let restored = restored.get();
    report(&format!(
        "random edits: {restored} of {CASES} trainings were restored, the others refused or begun \
         anew"
    ));
    assert!(restored > CASES as usize / 2, "{restored}");
}

/// Every document that differs from `document` in one value, at any depth, with a description.
fn one_value_changed(document: &Value) -> Vec<(String, Value)> {
    let others = [
        Value::Null,
        json!(0),
        json!(1),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!("nonsense"),
        json!([]),
        json!({}),
    ];
    let mut changed: Vec<_> = others
        .into_iter()
        .map(|other| (format!(" = {other}"), other))
        .collect();
    let below = |name: String, value: &Value, place: &dyn Fn(Value) -> Value| {
        let inner = one_value_changed(value).into_iter();
        inner
            .map(|(what, value)| (format!(".{name}{what}"), place(value)))
            .collect::<Vec<_>>()
    };
    match document {
        Value::Object(members) => {
            for (name, value) in members {
                changed.extend(below(name.clone(), value, &|value| {
                    let mut members = members.clone();
                    members.insert(name.clone(), value);
                    Value::Object(members)
                }));
            }
        }
        Value::Array(items) => {
            // All items are alike, so the first one is enough.
            if let Some(first) = items.first() {
                changed.extend(below("0".to_owned(), first, &|value| {
                    let rest = items.iter().skip(1).cloned();
                    std::iter::once(value).chain(rest).collect()
                }));
            }
        }
        _ => {}
    }
    changed
}

#[test]
fn whatever_a_whole_manifest_says_there_is_an_answer() {
    let training = Training {
        epochs: 2,
        ..Training::new(Backend::Flex)
    };
    let image = three_backups(&training);
    let path = Path::new(DIR).join("generations/00000004/manifest.json");
    let Some(Node::File(manifest)) = image.get(&path) else {
        panic!("it is there");
    };
    let mut manifest: Value = serde_json::from_slice(manifest).unwrap();
    manifest.as_object_mut().unwrap().remove("checksum");
    let (mut refused, mut trained) = (0, 0);
    for (what, changed) in one_value_changed(&manifest) {
        let Value::Object(changed) = changed else {
            continue;
        };
        let mut image = image.clone();
        image.insert(path.clone(), Node::File(seal(&changed).unwrap()));
        match train_on(&training, &MemoryFilesystem::holding(&image)) {
            Ok((run, _)) if run.error.is_some() => refused += 1,
            Ok(_) => trained += 1,
            Err(wrong) => panic!("{wrong}, with{what}"),
        }
    }
    report(&format!(
        "manifests with one value changed and sealed again: {refused} refused, {trained} trained to \
         their end"
    ));
    assert!(refused > 100, "{refused}");
}
