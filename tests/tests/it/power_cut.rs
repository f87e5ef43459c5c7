//! A training whose power is cut at any change to the disk, on every kind of disk that leaves.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use burn_backup_restore::BackupAndRestore;
use burn_backup_store::testing::{Image, MemoryFilesystem, report};
use burn_backup_tests::{Backend, Halt, Training};

use crate::support::undisturbed;

const DIR: &str = "backup";

/// How many images of one power cut are trained on, at the most.
const IMAGES_PER_CUT: usize = 64;

fn backup(disk: &MemoryFilesystem) -> BackupAndRestore {
    Training::backup(DIR)
        .save_freq(1)
        .filesystem(Arc::new(disk.clone()))
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

#[test]
fn whenever_the_power_is_cut_the_next_run_ends_as_if_undisturbed() {
    let training = Training {
        epochs: 1,
        items: 12,
        ..Training::new(Backend::Flex)
    };
    let expected = undisturbed(&training);
    let disk = MemoryFilesystem::default();
    training.run(backup(&disk), Halt::Never);

    let mut seen = HashSet::new();
    let mut restored_at = HashSet::new();
    for cut in 0..=disk.changes() {
        for image in disk.power_cuts(cut, IMAGES_PER_CUT) {
            if !seen.insert(image.clone()) {
                continue;
            }
            let backup = backup(&MemoryFilesystem::holding(&image));
            let handle = backup.handle();
            let run = training.run(backup, Halt::Never);
            assert!(run.error.is_none(), "after {cut} changes: {:?}", run.error);
            assert!(run.weights == expected.weights, "after {cut} changes");
            let restored = handle.restored_from().map(|at| at.global_step);
            // One backup after each of the three batches, and one after the validation.
            let promised = newest(&image).map(|generation| generation.min(3));
            assert_eq!(restored, promised, "after {cut} changes");
            restored_at.insert(restored);
        }
    }
    report(&format!(
        "power cuts in a training: {} images, each trained to its end",
        seen.len()
    ));
    assert!(seen.len() > 300, "{}", seen.len());
    assert_eq!(restored_at.len(), 4, "{restored_at:?}");
}
