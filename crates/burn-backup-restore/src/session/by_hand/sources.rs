//! The sources of batches.

use std::ops::RangeInclusive;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;

use super::batches::{Batches, Role, Source};
use super::{Session, of_training};
use crate::burn_api::{self, LoaderKind};
use crate::change::Change;
use crate::data_loader;
use crate::error::BackupError;
use crate::messages::warn;
use crate::parts::State;
use crate::resume::{self, Plan, Rest};
use crate::session::announcement;
use crate::session::progress::announce_entered_epoch;
use crate::state::{LoaderProgress, Phase};

impl<S: State> Session<S> {
    /// The remaining batches of `loader` in the current epoch. Batches that are already trained are skipped.
    ///
    /// Call it in each epoch, for the same loaders in the same order. After [`trained`](Self::trained), it gives all
    /// batches, for the validation. [`next`](Self::next) then neither counts them as steps nor seeds a device.
    ///
    /// A loader that is created again in each epoch always has the order of a new loader. Pass its `loader.iter()` to
    /// [`batches_of`](Self::batches_of) instead.
    ///
    /// # Errors
    ///
    /// If the loader fails, or does not give the same data as when the backup was made.
    pub fn batches<'l, O: 'static>(
        &mut self,
        loader: &'l Arc<dyn DataLoader<O>>,
    ) -> Result<Batches<'l, O>, BackupError> {
        let opened = self.loaders.open(loader);
        let kind = burn_api::loader_kind(loader.as_ref());
        let slot = opened.slot;
        let rolls_back = self.core.rolls_back();
        if rolls_back && !self.is_validating && kind != LoaderKind::Other {
            return Err(BackupError::UnrepeatableLoader {
                loader: "Burn's data loader",
            });
        }
        let is_ahead = opened.to_go_back > 0 && kind == LoaderKind::Other;
        let has_way_back = !is_ahead || data_loader::roll_back(opened.to_go_back, || loader.iter());
        if !has_way_back && !self.is_validating {
            return Err(BackupError::UnrepeatableLoader {
                loader: "this loader",
            });
        }
        if self.is_validating {
            announcement::log_validation_order(kind);
            for _ in 0..opened.to_ask {
                drop(loader.iter());
            }
            let rest = resume::Batches::of(loader);
            return Ok(Batches {
                role: Role::Validation { slot },
                source: Source::Loader { rest, kind },
                most_in_epoch: None,
            });
        }
        if kind == LoaderKind::Workers && !std::mem::replace(&mut self.has_warned_of_workers, true)
        {
            let is_restored = self.core.progress.is_restored();
            announcement::warn_of_workers(self.drop_notice.handle(), kind, is_restored);
        }
        if opened.is_found_rebuilt {
            warn(
                self.drop_notice.handle(),
                "not exact after a restart at the end of the first epoch: the training loader is created anew in \
                 each epoch; pass loader.iter() to Session::batches_of",
            );
        }
        let rest = resume::train_loader(loader, &self.plan(opened.to_ask, opened.progress));
        let rest = rest.map_err(of_training)?;
        self.core
            .progress
            .warn_of_sampler(data_loader::take_finding(), "");
        let rest = match rest {
            Rest::WholeEpoch => Some(resume::Batches::of(loader)),
            Rest::Batches { rest, .. } => Some(rest),
            Rest::Validation => None,
            Rest::EnteredEpoch { rest, at, change } => {
                self.loaders.enter(slot, at);
                announce_entered_epoch(at, change);
                Some(rest)
            }
            Rest::RestartEpoch(change) => {
                self.restart_epoch(change)?;
                Some(resume::Batches::of(loader))
            }
        };
        let source = rest.map(|rest| Source::Loader { rest, kind });
        self.seed_before_batch();
        Ok(self.of_epoch(slot, source))
    }

    /// The remaining batches of an iterator in the current epoch. Batches that are already trained are fetched one by
    /// one and dropped.
    ///
    /// Call it in each epoch. When the program runs again, the iterator must give the same batches again.
    ///
    /// # Errors
    ///
    /// If the iterator has fewer batches than were trained.
    pub fn batches_of<'l, O>(
        &mut self,
        batches: impl IntoIterator<Item = O, IntoIter: 'l>,
    ) -> Result<Batches<'l, O>, BackupError> {
        let (slot, trained) = self.loaders.open_iterator();
        let mut batches = batches.into_iter();
        if self.is_validating {
            return Ok(Batches {
                role: Role::Validation { slot },
                source: Source::Iterator(Box::new(batches)),
                most_in_epoch: None,
            });
        }
        if self.core.progress.state.phase == Phase::Validate {
            return Ok(self.of_epoch(slot, None));
        }
        self.skip(&mut batches, trained)?;
        self.seed_before_batch();
        Ok(self.of_epoch(slot, Some(Source::Iterator(Box::new(batches)))))
    }

    /// Batches that continue from one epoch to the next, or of a loop without epochs. A restart fetches all batches
    /// that were given so far, one by one, and drops them.
    ///
    /// Call it once, before the loop. [`Batches::take`] sets the number of batches per epoch. If an epoch draws random
    /// values before its first batch, they must be part of the state.
    ///
    /// # Errors
    ///
    /// If the iterator has fewer batches than were trained.
    pub fn stream<'l, O>(
        &mut self,
        batches: impl IntoIterator<Item = O, IntoIter: 'l>,
    ) -> Result<Batches<'l, O>, BackupError> {
        let (place, trained) = self.loaders.open_stream();
        let mut batches = batches.into_iter();
        self.skip(&mut batches, trained)?;
        self.seed_after_skipping();
        Ok(Batches {
            role: self.stream_at(place),
            source: Source::Iterator(Box::new(batches)),
            most_in_epoch: None,
        })
    }

    /// The numbers of the remaining steps out of `num_steps`, counted from 1. Use it for a loop without a loader.
    ///
    /// # Errors
    ///
    /// If the training has already made more than `num_steps` steps.
    pub fn steps(&mut self, num_steps: u64) -> Result<Batches<'static, u64>, BackupError> {
        let (place, trained) = self.loaders.open_stream();
        self.num_steps.push((place, num_steps));
        if trained > num_steps {
            return Err(BackupError::TooFewSteps {
                steps: trained,
                num_steps,
            });
        }
        self.seed_after_skipping();
        let left = match self.was_left_early() {
            true => RangeInclusive::new(1, 0),
            false => trained + 1..=num_steps,
        };
        Ok(Batches {
            role: self.stream_at(place),
            source: Source::Iterator(Box::new(left)),
            most_in_epoch: None,
        })
    }

    /// Where a loader continues from which `to_ask` more iterators must be requested.
    fn plan(&self, to_ask: u64, progress: LoaderProgress) -> Plan {
        let core = &self.core.progress;
        let has_trained = progress.data.items_total > 0;
        Plan {
            iterators: usize::try_from(to_ask).unwrap_or(usize::MAX),
            batches: usize::try_from(progress.batches).unwrap_or(usize::MAX),
            phase: core.state.phase,
            has_trained,
            recorded: has_trained.then_some(progress.data),
            is_only_loader: true,
            is_first: true,
            backup_dir: core.backup_dir.clone(),
            changes: core.changes.clone(),
        }
    }

    fn stream_at(&self, place: usize) -> Role {
        Role::Stream {
            place,
            rollbacks: self.rollbacks,
        }
    }

    fn of_epoch<'l, O>(&self, slot: usize, source: Option<Source<'l, O>>) -> Batches<'l, O> {
        Batches {
            role: Role::Epoch {
                slot,
                epoch: self.epoch_count,
            },
            source: source.unwrap_or(Source::Over),
            most_in_epoch: None,
        }
    }

    /// Restarts the epoch because batches or data were changed on purpose.
    fn restart_epoch(&mut self, change: Change) -> Result<(), BackupError> {
        if self.loaders.has_several_open() {
            return Err(BackupError::SeveralLoaders { change });
        }
        self.core.progress.restarts_epoch(change);
        self.loaders.restart_epoch();
        Ok(())
    }

    fn skip<O>(
        &self,
        batches: &mut impl Iterator<Item = O>,
        trained: u64,
    ) -> Result<(), BackupError> {
        for found in 0..trained {
            if batches.next().is_none() {
                return Err(BackupError::DataMismatch {
                    path: self.core.progress.backup_dir.clone(),
                    what: "the number of batches that an iterator gives (at least)",
                    recorded: usize::try_from(trained).unwrap_or(usize::MAX),
                    found: usize::try_from(found).unwrap_or(usize::MAX),
                    change: Change::Data,
                });
            }
        }
        Ok(())
    }

    /// The skipped batches may have drawn random numbers, and the loop may request no batches of an epoch.
    fn seed_after_skipping(&self) {
        match self.core.progress.state.position.step_in_epoch {
            0 => self.seed_before_epoch(),
            _ => self.seed_before_batch(),
        }
    }
}
