//! The batches of the trainings. The loader also runs the callbacks of measurements on the training
//! thread between the steps.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Tensor};

/// The number of batches in each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochLengths {
    /// The first epoch, which may serve as the warm-up.
    pub first: usize,
    /// Each later epoch.
    pub later: usize,
}

impl EpochLengths {
    /// All epochs have `batches` batches.
    pub fn all(batches: usize) -> Self {
        Self {
            first: batches,
            later: batches,
        }
    }
}

/// A pause of the training thread: all batches so far are trained, and the loader is asked for the
/// next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// The number of batches trained in all epochs.
    pub trained: usize,
    /// Whether the epoch has no more batches.
    pub ends_epoch: bool,
}

type OnPause = Box<dyn FnMut(Pause) + Send>;

/// A loader of batches of one row.
#[derive(Clone)]
pub struct Feed {
    width: usize,
    lengths: EpochLengths,
    device: Device,
    /// Burn copies loaders to the device, and the copies share this state.
    course: Arc<FeedState>,
}

#[derive(Default)]
struct FeedState {
    epochs: AtomicUsize,
    batches: AtomicUsize,
    on_pause: Mutex<Option<OnPause>>,
}

impl Feed {
    /// A loader of rows with `width` features.
    pub fn new(width: usize, lengths: EpochLengths, device: Device) -> Self {
        Self {
            width,
            lengths,
            device,
            course: Arc::default(),
        }
    }

    /// Calls `on_pause` on the training thread before each batch and at the end of each epoch.
    pub fn on_pause(self, on_pause: impl FnMut(Pause) + Send + 'static) -> Self {
        *self.course.on_pause() = Some(Box::new(on_pause));
        self
    }

    /// Records the time at which the batches of each epoch are trained.
    pub fn note_epoch_ends(self) -> (Self, Receiver<Instant>) {
        let (sender, epoch_ends) = channel();
        let device = self.device.clone();
        let feed = self.on_pause(move |pause| {
            if pause.ends_epoch {
                // A GPU may still compute earlier steps. If one of them fails, the training fails
                // too.
                let _ = device.sync();
                // The receiver may be gone if no one needs the times.
                let _ = sender.send(Instant::now());
            }
        });
        (feed, epoch_ends)
    }

    /// A loader of one such row per epoch, for validations.
    pub fn single_row(&self) -> Self {
        Self::new(self.width, EpochLengths::all(1), self.device.clone())
    }
}

impl FeedState {
    fn on_pause(&self) -> MutexGuard<'_, Option<OnPause>> {
        self.on_pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DataLoader<Tensor<2>> for Feed {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Tensor<2>> + 'a> {
        let is_first = self.course.epochs.fetch_add(1, Ordering::Relaxed) == 0;
        let total = if is_first {
            self.lengths.first
        } else {
            self.lengths.later
        };
        Box::new(Epoch {
            feed: self,
            handed_out: 0,
            total,
        })
    }

    fn num_items(&self) -> usize {
        self.lengths.later
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Tensor<2>>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Tensor<2>>> {
        let lengths = EpochLengths::all(end.saturating_sub(start));
        Arc::new(Self::new(self.width, lengths, self.device.clone()))
    }
}

struct Epoch<'a> {
    feed: &'a Feed,
    handed_out: usize,
    total: usize,
}

impl Iterator for Epoch<'_> {
    type Item = Result<Tensor<2>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Feed {
            width,
            device,
            course,
            ..
        } = self.feed;
        let ends_epoch = self.handed_out == self.total;
        if let Some(on_pause) = course.on_pause().as_mut() {
            on_pause(Pause {
                trained: course.batches.load(Ordering::Relaxed),
                ends_epoch,
            });
        }
        if ends_epoch {
            return None;
        }
        self.handed_out += 1;
        course.batches.fetch_add(1, Ordering::Relaxed);
        Some(Ok(Tensor::ones([1, *width], device)))
    }
}

impl DataLoaderIterator<Tensor<2>> for Epoch<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.handed_out, self.total, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_the_count_and_pause_before_each_batch_and_epoch_end() {
        let (sender, pauses) = channel();
        let lengths = EpochLengths { first: 1, later: 2 };
        let feed = Feed::new(3, lengths, Device::flex())
            .on_pause(move |pause| sender.send(pause).unwrap());
        assert_eq!(feed.iter().count(), 1);
        assert_eq!(feed.to_device(&Device::flex()).iter().count(), 2);

        let pauses: Vec<_> = pauses
            .try_iter()
            .map(|pause| (pause.trained, pause.ends_epoch))
            .collect();
        assert_eq!(
            pauses,
            [(0, false), (1, true), (1, false), (2, false), (3, true)]
        );
    }
}
