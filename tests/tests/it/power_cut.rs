//! A training whose power is cut at any change to the disk, resumed on every kind of disk that this leaves.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use burn_backup_restore::{BackupAndRestore, BackupHandle};
use burn_backup_store::Filesystem;
use burn_backup_store::testing::{FaultyFilesystem, Image, MemoryFilesystem, Operation};
use burn_backup_tests::{Backend, Halt, Training, report};
use test_fork::test;

use crate::support::uninterrupted;

/// The path from the root of the in-memory disk.
const DIR: &str = "backup";

/// How many images of one power cut are trained on at most.
const IMAGES_PER_CUT: usize = 64;

fn backup(disk: impl Filesystem) -> BackupAndRestore {
    Training::backup(Path::new("/").join(DIR))
        .save_freq(1)
        .filesystem(Arc::new(disk))
}

/// The newest generation in place.
fn newest(image: &Image) -> Option<u64> {
    let generations = Path::new(DIR).join("generations");
    let names = image
        .keys()
        .filter(|path| path.parent() == Some(&generations))
        .filter_map(|path| path.file_name()?.to_str());
    names.filter_map(|name| name.parse().ok()).max()
}

/// What the handle has promised while a training ran. After a number of changes to the disk, it is the number
/// of batches in the backup. It is `None` once the deletion has begun.
#[derive(Default)]
struct Promises {
    made: Vec<(usize, Option<u64>)>,
}

impl Promises {
    fn note(&mut self, changes: usize, promised: Option<u64>) {
        if self.made.last().is_none_or(|(_, last)| *last != promised) {
            self.made.push((changes, promised));
        }
    }

    fn at(&self, cut: usize) -> Option<u64> {
        let until = self.made.iter().take_while(|(changes, _)| *changes <= cut);
        until.last().and_then(|(_, promised)| *promised)
    }
}

/// Trains on an empty disk. The deletion at the end is included.
fn train(training: &Training) -> (MemoryFilesystem, Promises) {
    let disk = MemoryFilesystem::default();
    let promises = Arc::new(Mutex::new(Promises::default()));
    let handle = Arc::new(OnceLock::<BackupHandle>::new());
    let noted = {
        let (disk, promises, handle) = (disk.clone(), promises.clone(), handle.clone());
        let is_deleting = AtomicBool::new(false);
        FaultyFilesystem::over(disk.clone(), move |operation, path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if operation == Operation::Rename && name.starts_with(".staging-removed-generations-") {
                is_deleting.store(true, Ordering::Relaxed);
            }
            let last = handle.get().and_then(BackupHandle::last_backup);
            let promised = last.map(|at| at.global_step);
            let is_kept = !is_deleting.load(Ordering::Relaxed);
            let mut promises = promises.lock().unwrap();
            promises.note(disk.changes(), promised.filter(|_| is_kept));
            Ok(())
        })
    };
    let backup = backup(noted);
    handle.set(backup.handle()).ok();
    training.run(backup, Halt::Never);
    let promises = std::mem::take(&mut *promises.lock().unwrap());
    (disk, promises)
}

#[test]
fn whenever_the_power_is_cut_the_next_run_ends_as_if_uninterrupted() {
    let training = Training {
        epochs: 1,
        items: 12,
        ..Training::new(Backend::Flex)
    };
    let expected = uninterrupted(&training);
    let (disk, promises) = train(&training);
    assert_eq!(
        promises.made.len(),
        5,
        "three batches, and nothing before and after"
    );

    let mut seen = HashSet::new();
    for cut in 0..=disk.changes() {
        let promised = promises.at(cut);
        for image in disk.power_cuts(cut, IMAGES_PER_CUT) {
            if !seen.insert((promised, image.clone())) {
                continue;
            }
            let backup = backup(MemoryFilesystem::holding(&image));
            let handle = backup.handle();
            let run = training.run(backup, Halt::Never);
            assert!(run.error.is_none(), "after {cut} changes: {:?}", run.error);
            assert!(run.weights == expected.weights, "after {cut} changes");
            let restored = handle.restored_from().map(|at| at.global_step);
            assert!(restored >= promised, "after {cut} changes: {restored:?}");
            // The fourth generation is the one after the validation.
            let in_place = newest(&image).map(|generation| generation.min(3));
            assert_eq!(restored, in_place, "after {cut} changes");
        }
    }
    report(&format!(
        "power cuts in a training: {} images, each trained to its end",
        seen.len()
    ));
    assert!(seen.len() > 300, "{}", seen.len());
}
