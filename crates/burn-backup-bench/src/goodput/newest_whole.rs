//! Finds the epoch to resume from after a crash, which Burn leaves to its user.

use std::path::Path;

use anyhow::{Context as _, Result};
use burn_pack::Reader;

use crate::burns;

/// The newest epoch whose checkpoint files in `dir` all exist and are whole.
///
/// Three threads write the three files, so a killed process may have written only some of them.
pub fn newest_whole(dir: &Path) -> Result<Option<usize>> {
    if !dir.exists() {
        return Ok(None);
    }
    let cannot_list = || format!("cannot list {dir:?}");
    let mut newest = None;
    for entry in std::fs::read_dir(dir).with_context(cannot_list)? {
        let name = entry.with_context(cannot_list)?.file_name();
        let epoch = name.to_str().and_then(burns::epoch_of_model_file);
        newest = newest.max(epoch.filter(|epoch| is_whole(dir, *epoch)));
    }
    Ok(newest)
}

/// The reader compares the length of the file with its header.
fn is_whole(dir: &Path, epoch: usize) -> bool {
    burns::checkpoint_files(dir, epoch)
        .iter()
        .all(|file| Reader::from_file_exact(file).is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::burns::Always;
    use crate::feed::EpochLengths;
    use crate::state::SCATTERED;
    use crate::training;
    use burn::train::checkpoint::CheckpointingAction;

    /// The checkpoints of a training of `epochs` epochs.
    fn checkpoints(dir: &Path, epochs: usize) {
        let feed = SCATTERED.feed(EpochLengths::all(1));
        let training = training::supervised(dir, feed, epochs);
        let save = Always(vec![CheckpointingAction::Save]);
        let training = burns::with_checkpoints(training, dir, save);
        training::run(training, SCATTERED.fresh_learner()).unwrap();
    }

    #[test]
    fn a_truncated_or_incomplete_checkpoint_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(newest_whole(&dir.join("missing")).unwrap(), None);
        assert_eq!(newest_whole(dir).unwrap(), None);

        checkpoints(dir, 11);
        assert_eq!(newest_whole(dir).unwrap(), Some(11));

        let [_, optimizer, _] = burns::checkpoint_files(dir, 11);
        let length = fs::metadata(&optimizer).unwrap().len();
        let file = File::options().write(true).open(&optimizer).unwrap();
        file.set_len(length - 1).unwrap();
        assert_eq!(newest_whole(dir).unwrap(), Some(10));

        let [_, _, scheduler] = burns::checkpoint_files(dir, 10);
        fs::remove_file(scheduler).unwrap();
        assert_eq!(newest_whole(dir).unwrap(), Some(9));
        // Damaged files stay unchanged.
        assert!(optimizer.exists());
    }
}
