//! Loads everything that was loaded before once more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::data::dataloader::DataLoader;
use burn::train::TrainingError;

use super::batches::Batches;
use super::plan::Resumption;
use crate::messages::announce;
use crate::state::Phase;

/// How often progress is printed.
const TELL: Duration = Duration::from_secs(5);

/// Loads everything that training and validation have loaded up to `resumption`, in the same order. Returns the
/// remaining batches of the current epoch. The result is empty if the epoch has not begun, or if only its validation
/// is left.
///
/// `seed_step` seeds the device with this index for the batch after this many steps. `seed_validation` seeds it for
/// the validation after this many steps.
pub(crate) fn replay<'l, O, V>(
    loaders: &'l [Arc<dyn DataLoader<O>>],
    valid: &Arc<dyn DataLoader<V>>,
    resumption: &Resumption,
    seed_step: impl Fn(usize, u64) -> Result<(), TrainingError>,
    seed_validation: impl Fn(u64),
) -> Result<Vec<Batches<'l, O>>, TrainingError> {
    let state = &resumption.state;
    let done = state.epochs_done();
    let mut told = Instant::now();
    let mut step = 0;
    let mut rounds = |batches: &mut [Batches<'_, O>], most: usize| {
        for _ in 0..most {
            let mut has_any = false;
            for (device, batches) in batches.iter_mut().enumerate() {
                seed_step(device, step)?;
                has_any |= batches.iterator.next().transpose()?.is_some();
            }
            if !has_any {
                break;
            }
            step += 1;
        }
        Ok::<u64, TrainingError>(step)
    };
    for epoch in 1..=done {
        let mut batches: Vec<_> = loaders.iter().map(Batches::of).collect();
        let trained = rounds(&mut batches, usize::MAX)?;
        seed_validation(trained);
        for batch in valid.iter() {
            batch?;
        }
        if told.elapsed() > TELL || epoch == done {
            told = Instant::now();
            announce(&format!(
                "fast-forward: {epoch} of {done} past epochs are loaded again"
            ));
        }
    }
    if state.phase == Phase::Train && state.position.step_in_epoch == 0 {
        // The code that begins the epoch requests its iterators.
        return Ok(Vec::new());
    }
    let mut batches: Vec<_> = loaders.iter().map(Batches::of).collect();
    if state.phase == Phase::Validate {
        rounds(&mut batches, usize::MAX)?;
        return Ok(Vec::new());
    }
    let step = rounds(&mut batches, state.position.step_in_epoch)?;
    for (device, batches) in batches.iter_mut().enumerate() {
        seed_step(device, step)?;
        batches.look_ahead(|| ())?;
    }
    Ok(batches)
}
