//! Bringing the loaders to where they were: as many iterators as the undisturbed training had asked
//! for, and the trained batches skipped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::train::TrainingError;

use crate::burn_api::{self, Items};
use crate::error::BackupError;
use crate::state::{DataProgress, Phase, TrainingState};

const LOG: &str = "burn_backup::fast_forward";

/// Where a training is taken up.
#[derive(Debug, Clone)]
pub(crate) struct Resumption {
    state: TrainingState,
    backup_dir: PathBuf,
    /// Whether the data is split among the devices as it was when the backup was made.
    is_same_split: bool,
}

impl Resumption {
    /// Checks that a training, whose data is `split` among so many devices, can be taken up at
    /// `state` (see [`Execution::split`](crate::loops::Execution::split)). Among another number of
    /// devices each sees other items: that works at an epoch's start.
    pub(crate) fn new(
        state: &TrainingState,
        split: Option<usize>,
        train_items: usize,
        backup_dir: &Path,
    ) -> Result<Self, TrainingError> {
        let resumption = Self {
            state: state.clone(),
            backup_dir: backup_dir.to_path_buf(),
            is_same_split: state.split == split,
        };
        if resumption.is_same_split {
            return Ok(resumption);
        }
        let devices = |split: Option<usize>| split.unwrap_or(1);
        if state.position.step_in_epoch > 0 && state.phase == Phase::Train {
            let error = BackupError::DevicesMismatch {
                path: backup_dir.to_path_buf(),
                position: state.position,
                recorded: devices(state.split),
                found: devices(split),
            };
            return Err(BackupError::into_training_error(Arc::new(error)));
        }
        let recorded = state.items_total();
        if recorded > 0 && train_items > 0 && recorded != train_items {
            let what = "the number of items in an epoch";
            return Err(mismatch(backup_dir, what, recorded, train_items));
        }
        log::warn!(
            target: LOG,
            "the training goes on with its data split among {} devices, and among {} before: the \
             next epochs have their batches in another order than the undisturbed training",
            devices(split), devices(state.split),
        );
        Ok(resumption)
    }
}

/// What a loader has left of the epoch in progress.
pub(crate) enum Rest<'l, O> {
    /// The epoch has not begun: its iterator is still to be asked for.
    WholeEpoch,
    /// What comes after the batches that were `skipped`, if anything.
    Batches {
        rest: Batches<'l, O>,
        skipped: usize,
    },
    /// Only the validation is left.
    Validation,
}

/// The batches of one epoch that are still to be trained.
pub(crate) struct Batches<'l, O> {
    /// Fetched already, to see whether there is one.
    peeked: Option<Option<O>>,
    iterator: Box<dyn DataLoaderIterator<O> + 'l>,
}

impl<'l, O> Batches<'l, O> {
    /// All of them.
    pub(crate) fn of(loader: &'l Arc<dyn DataLoader<O>>) -> Self {
        Self {
            peeked: None,
            iterator: loader.iter(),
        }
    }

    /// The next batch; `seed` is called before it is fetched.
    pub(crate) fn next(&mut self, seed: impl FnOnce()) -> Option<Result<O, DatasetError>> {
        match self.peeked.take() {
            Some(peeked) => peeked.map(Ok),
            None => {
                seed();
                self.iterator.next()
            }
        }
    }

    /// Whether a batch is left, of those that were looked at.
    pub(crate) fn has_more(&self) -> bool {
        !matches!(self.peeked, Some(None))
    }

    /// How far the epoch is, as the loader tells it.
    pub(crate) fn progress(&self) -> Progress {
        self.iterator.progress()
    }

    /// How far the epoch is, in items.
    pub(crate) fn items(&self) -> Items {
        burn_api::items(self.iterator.as_ref())
    }
}

/// Brings the training loader of the device with the index `device` to where the training was, and
/// checks on the way that it yields what it did when the backup was made. `seed` is called before
/// the first batch that is still to be trained is fetched.
pub(crate) fn train_loader<'l, O>(
    loader: &'l Arc<dyn DataLoader<O>>,
    resumption: &Resumption,
    device: usize,
    seed: impl FnOnce(),
) -> Result<Rest<'l, O>, TrainingError> {
    let state = &resumption.state;
    let check = Check {
        state,
        recorded: state.recorded(device).filter(|_| resumption.is_same_split),
        is_only_loader: state.split.is_none(),
        backup_dir: &resumption.backup_dir,
    };
    let done = state.epochs_done();
    let is_between_epochs = state.position.step_in_epoch == 0;
    for epoch in 1..=done {
        let mut iterator = loader.iter();
        // Between epochs, the batch size shows in the epoch before.
        if is_between_epochs && epoch == done && state.position.global_step > 0 {
            if device == 0 {
                say_what_is_loaded(iterator.as_ref(), 0);
            }
            check.first_batch(iterator.as_mut())?;
        }
    }
    if is_between_epochs {
        return Ok(Rest::WholeEpoch);
    }

    let mut iterator = loader.iter();
    if device == 0 {
        let batches = match state.phase {
            Phase::Train => state.position.step_in_epoch,
            Phase::Validate => 0,
        };
        say_what_is_loaded(iterator.as_ref(), batches);
    }
    let (batch_items, first) = check.first_batch(iterator.as_mut())?;
    if state.phase == Phase::Validate {
        return Ok(Rest::Validation);
    }
    let others = state.position.step_in_epoch.saturating_sub(1);
    let skipped = first + check.skip(iterator.as_mut(), others, first)?;
    check.items(
        "the number of items in the batches trained so far",
        |recorded| recorded.items_processed,
        burn_api::items(iterator.as_ref()),
        batch_items,
    )?;
    seed();
    let next = iterator.next().transpose()?;
    let rest = Batches {
        peeked: Some(next),
        iterator,
    };
    Ok(Rest::Batches { rest, skipped })
}

/// Brings the validation loader to the position in `state`.
pub(crate) fn valid_loader<O>(loader: &Arc<dyn DataLoader<O>>, state: &TrainingState) {
    for _ in 0..state.epochs_done() {
        drop(loader.iter());
    }
}

/// How many batches are left, if the iterator knows. Then it is asked to go to any of them by itself.
fn batches_left<O>(iterator: &dyn DataLoaderIterator<O>) -> Option<usize> {
    let (least, most) = iterator.size_hint();
    most.filter(|most| *most == least)
}

/// A loader that can be asked to skip, and has not skipped what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error(
    "the training loader said that it had {left} batches left, and was to skip {batches} of them; what it has \
     left now is not what remains: its `nth` may have passed over an error of the dataset; the backup was not \
     touched: have `nth` and `size_hint` count what `next` gives, or leave `size_hint` as it is by default"
)]
struct Miscount {
    left: usize,
    batches: usize,
}

/// Says what it costs to skip `batches` of a loader that knows no other way than to load them, and on what
/// condition such a loader is exact.
fn say_what_is_loaded<O>(iterator: &dyn DataLoaderIterator<O>, batches: usize) {
    if batches_left(iterator).is_some() {
        return;
    }
    if batches > 0 {
        log::info!(
            target: LOG,
            "{batches} trained batches of this epoch are loaded only to be skipped",
        );
    }
    log::info!(
        target: LOG,
        "if the training loader is Burn's own with several workers, its batches come in another order each \
         time, and what follows is not what it would have been without the interruption: \
         ResumableDataLoaderBuilder makes loaders that skip at once, and whose order is always the same",
    );
}

struct Check<'a> {
    state: &'a TrainingState,
    /// What the loader said when the backup was made, if that can be compared.
    recorded: Option<&'a DataProgress>,
    /// Of several loaders, some may have fewer batches in an epoch.
    is_only_loader: bool,
    backup_dir: &'a Path,
}

impl Check<'_> {
    /// Skips the first batch of an epoch, and gives the items in a whole batch, and how many batches
    /// were skipped.
    fn first_batch<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
    ) -> Result<(usize, usize), TrainingError> {
        let skipped = self.skip(iterator, 1, 0)?;
        let items = burn_api::items(iterator);
        let recorded = self
            .recorded
            .map_or(0, |recorded| recorded.first_batch_items);
        let batch_items = recorded.max(items.processed);
        self.items(
            "the number of items in the first batch of an epoch",
            |recorded| recorded.first_batch_items,
            items,
            batch_items,
        )?;
        Ok((batch_items, skipped))
    }

    /// Skips so many batches, after those that were `skipped`; says how many there were.
    fn skip<O>(
        &self,
        iterator: &mut dyn DataLoaderIterator<O>,
        batches: usize,
        skipped: usize,
    ) -> Result<usize, TrainingError> {
        let Some(last) = batches.checked_sub(1) else {
            return Ok(0);
        };
        if let Some(left) = batches_left(iterator) {
            let there = left.min(batches);
            if iterator.nth(last).transpose()?.is_some() != (there == batches)
                || batches_left(iterator) != Some(left - there)
            {
                // What is passed over is thrown away, errors too, by an `nth` that loads it.
                let miscount = Miscount { left, batches };
                return Err(DatasetError::new(miscount).into());
            }
            return match there == batches {
                true => Ok(batches),
                false => self.at_end(iterator, left, skipped),
            };
        }
        for there in 0..batches {
            if iterator.next().transpose()?.is_none() {
                return self.at_end(iterator, there, skipped);
            }
        }
        Ok(batches)
    }

    /// There were no more than these batches after those that were `skipped`.
    fn at_end<O>(
        &self,
        iterator: &dyn DataLoaderIterator<O>,
        batches: usize,
        skipped: usize,
    ) -> Result<usize, TrainingError> {
        let Some(recorded) = self.recorded.filter(|_| self.is_only_loader) else {
            return Ok(batches);
        };
        let total = burn_api::items(iterator).total;
        self.equal(
            "the number of items in an epoch",
            recorded.items_total,
            total,
        )?;
        let trained = self.state.position.step_in_epoch;
        Err(mismatch(
            self.backup_dir,
            "the number of batches in an epoch, at least,",
            trained,
            skipped + batches,
        ))
    }

    fn items(
        &self,
        what: &'static str,
        recorded: impl FnOnce(&DataProgress) -> usize,
        found: Items,
        batch_items: usize,
    ) -> Result<(), TrainingError> {
        let Some(progress) = self.recorded else {
            return Ok(());
        };
        let recorded = recorded(progress);
        let total = progress.items_total;
        self.equal("the number of items in an epoch", total, found.total)?;
        if is_reordered(total, batch_items, recorded, found.processed) {
            log::warn!(
                target: LOG,
                "the training loader yields its batches in another order than before the \
                 interruption, as Burn's does with workers: what is skipped is not exactly what \
                 was trained; ResumableDataLoaderBuilder makes loaders whose order is always the same",
            );
            return Ok(());
        }
        self.equal(what, recorded, found.processed)
    }

    fn equal(
        &self,
        what: &'static str,
        recorded: usize,
        found: usize,
    ) -> Result<(), TrainingError> {
        if recorded == found {
            return Ok(());
        }
        Err(mismatch(self.backup_dir, what, recorded, found))
    }
}

fn mismatch(backup_dir: &Path, what: &'static str, recorded: usize, found: usize) -> TrainingError {
    BackupError::into_training_error(Arc::new(BackupError::DataMismatch {
        path: backup_dir.to_path_buf(),
        what,
        recorded,
        found,
    }))
}

/// Whether `found` items instead of those `recorded`, after the same number of batches, come from
/// nothing but the epoch's one short batch standing elsewhere.
fn is_reordered(total: usize, batch_items: usize, recorded: usize, found: usize) -> bool {
    match total.checked_rem(batch_items) {
        Some(short) if short > 0 => recorded.abs_diff(found) == batch_items - short,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn::data::dataloader::DataLoaderBuilder;
    use burn::data::dataloader::batcher::Batcher;
    use burn::data::dataset::Dataset;
    use burn::tensor::Device;

    use super::*;
    use crate::ResumableDataLoaderBuilder;
    use crate::data_loader::WINDOW_PER_THREAD;
    use crate::position::Position;

    thread_local! {
        /// What this thread has logged.
        static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    struct Logger;

    impl log::Log for Logger {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target() == LOG
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                let line = format!("{}: {}", record.level(), record.args());
                LOGGED.with_borrow_mut(|logged| logged.push(line));
            }
        }

        fn flush(&self) {}
    }

    fn logged() -> Vec<String> {
        LOGGED.take()
    }

    fn log_lines() {
        // The second time, it is there already.
        let _ = log::set_logger(&Logger);
        log::set_max_level(log::LevelFilter::Info);
        logged();
    }

    /// The numbers from 0 on; counts how many were loaded.
    struct Counting {
        items: usize,
        loaded: Arc<AtomicUsize>,
    }

    impl Dataset<usize> for Counting {
        fn get(&self, index: usize) -> Result<usize, DatasetError> {
            self.loaded.fetch_add(1, Ordering::SeqCst);
            Ok(index)
        }

        fn len(&self) -> usize {
            self.items
        }
    }

    struct Listing;

    impl Batcher<usize, Vec<usize>> for Listing {
        fn batch(&self, items: Vec<usize>, _device: &Device) -> Vec<usize> {
            items
        }
    }

    type Batch = Vec<usize>;

    fn ours(workers: usize, data: Counting) -> Arc<dyn DataLoader<Batch>> {
        ResumableDataLoaderBuilder::new(Listing)
            .set_device(Device::flex())
            .batch_size(8)
            .shuffle(6)
            .num_workers(workers)
            .build(data)
    }

    fn burns(workers: usize, data: Counting) -> Arc<dyn DataLoader<Batch>> {
        DataLoaderBuilder::new(Listing)
            .set_device(Device::flex())
            .batch_size(8)
            .shuffle(6)
            .num_workers(workers)
            .build(data)
    }

    /// Where a training is after so many epochs and batches, of epochs of so many items.
    fn resumption(epochs: usize, batches: usize, items_total: usize) -> Resumption {
        let mut state = TrainingState::fresh(1, true, burn_api::BURN_VERSION);
        let epoch = items_total.div_ceil(8);
        state.position = Position {
            epoch: 1 + epochs,
            step_in_epoch: batches,
            global_step: (epochs * epoch + batches) as u64,
        };
        state.data = DataProgress {
            items_total,
            first_batch_items: 8.min(items_total),
            items_processed: (batches * 8).min(items_total),
        };
        Resumption::new(&state, None, items_total, Path::new("backup")).unwrap()
    }

    /// The batches that are left, as many as asked for.
    fn rest(
        loader: &Arc<dyn DataLoader<Batch>>,
        resumption: &Resumption,
        most: usize,
    ) -> Vec<Batch> {
        let Rest::Batches { mut rest, skipped } =
            train_loader(loader, resumption, 0, || ()).unwrap()
        else {
            return Vec::new();
        };
        assert_eq!(skipped, resumption.state.position.step_in_epoch);
        let batches = std::iter::from_fn(|| rest.next(|| ()).map(Result::unwrap));
        batches.take(most).collect()
    }

    #[test]
    fn taken_up_anywhere_among_millions_of_items_a_constant_number_is_loaded() {
        const ITEMS: usize = 2_000_003;
        let batches = ITEMS.div_ceil(8);
        for workers in [0, 3] {
            for (epochs, trained) in [
                (0, 1),
                (0, 2),
                (1, 1000),
                (2, 100_000),
                (100_000, batches - 1),
                (100_000, batches),
            ] {
                let loaded = Arc::new(AtomicUsize::new(0));
                let data = Counting {
                    items: ITEMS,
                    loaded: loaded.clone(),
                };
                let loader = ours(workers, data);
                let resumption = resumption(epochs, trained, ITEMS);
                let next = rest(&loader, &resumption, 1);
                assert_eq!(next.is_empty(), trained == batches);
                drop(loader);
                // The first batch, the last one trained, and the one after it; after each, what
                // workers make ahead.
                let most = 3 * (1 + (WINDOW_PER_THREAD + 1) * workers) * 8;
                let loaded = loaded.load(Ordering::SeqCst);
                assert!(loaded <= most, "{loaded} at {epochs}, {trained}");
            }
        }
    }

    #[test]
    fn what_is_left_is_what_comes_after_the_trained_batches() {
        let data = || Counting {
            items: 50,
            loaded: Arc::default(),
        };
        for workers in [0, 1, 2] {
            // With more of Burn's own there is no order.
            for make in [|workers: usize, data| burns(workers.min(1), data), ours] {
                let loader = make(workers, data());
                let epochs: [Vec<_>; 3] =
                    [(); 3].map(|()| loader.iter().map(Result::unwrap).collect());
                for (done, epoch) in epochs.iter().enumerate() {
                    for trained in 1..=7 {
                        let loader = make(workers, data());
                        let rest = rest(&loader, &resumption(done, trained, 50), 7);
                        assert_eq!(rest, epoch[trained..]);
                    }
                }
            }
        }
    }

    #[test]
    fn other_data_is_refused_of_a_loader_that_skips_at_once() {
        let refused = |items, epochs, trained| {
            let data = Counting {
                items,
                loaded: Arc::default(),
            };
            let loader = ours(1, data);
            let mut resumption = resumption(epochs, trained, 50);
            // The split of the data does not tell; the loader does.
            resumption.state.position.global_step += 1;
            let refused = train_loader(&loader, &resumption, 0, || ());
            refused.err().unwrap().to_string()
        };
        for trained in [1, 3, 7] {
            for items in [10, 49, 51, 100] {
                let says = format!("the number of items in an epoch was 50, and is {items} now");
                for (epochs, trained) in [(2, trained), (2, 0)] {
                    let message = refused(items, epochs, trained);
                    assert!(message.contains(&says), "{message}");
                }
            }
        }
    }

    #[test]
    fn it_is_said_what_is_loaded_only_to_be_skipped() {
        log_lines();
        let data = || Counting {
            items: 50,
            loaded: Arc::default(),
        };
        let inside = resumption(1, 3, 50);
        rest(&ours(2, data()), &inside, 1);
        rest(&ours(2, data()), &resumption(1, 0, 50), 1);
        assert_eq!(logged(), [""; 0]);
        rest(&burns(0, data()), &inside, 1);
        let lines = logged();
        let [loaded, condition] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert!(loaded.starts_with("INFO: 3 trained batches"), "{loaded}");
        assert!(loaded.contains("loaded only to be skipped"), "{loaded}");
        for says in [
            "INFO: ",
            "Burn's own with several workers",
            "ResumableDataLoaderBuilder",
        ] {
            assert!(condition.contains(says), "{condition}");
        }
        rest(&burns(0, data()), &resumption(1, 0, 50), 1);
        assert_eq!(logged(), [condition.as_str()], "between epochs");
    }

    /// Says how many batches are left, and skips as iterators do by default: errors are passed over.
    struct Careless {
        left: usize,
        broken: usize,
        /// Whether it goes on after an error as if nothing had been.
        goes_on: bool,
    }

    impl Iterator for Careless {
        type Item = Result<Batch, DatasetError>;

        fn next(&mut self) -> Option<Self::Item> {
            if self.left == self.broken {
                self.broken = usize::MAX;
                self.left = if self.goes_on { self.left } else { 0 };
                return Some(Err(DatasetError::new(std::io::Error::other("broken"))));
            }
            self.left = self.left.checked_sub(1)?;
            Some(Ok(Vec::new()))
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            (self.left, Some(self.left))
        }
    }

    impl DataLoaderIterator<Batch> for Careless {
        fn progress(&self) -> Progress {
            Progress::new(0, 0, None)
        }
    }

    #[test]
    fn an_error_that_was_passed_over_is_noticed() {
        let state = TrainingState::fresh(1, true, burn_api::BURN_VERSION);
        let check = Check {
            state: &state,
            recorded: None,
            is_only_loader: true,
            backup_dir: Path::new("backup"),
        };
        let skip = |broken, goes_on| {
            let mut iterator = Careless {
                left: 9,
                broken,
                goes_on,
            };
            check.skip(&mut iterator, 5, 0)
        };
        assert_eq!(skip(usize::MAX, true).unwrap(), 5);
        for goes_on in [true, false] {
            // The last one that is skipped is looked at; those before it are not.
            let error = skip(5, goes_on).unwrap_err().to_string();
            assert!(error.contains("broken"), "{error}");
            for broken in 6..=9 {
                let error = skip(broken, goes_on).unwrap_err().to_string();
                assert!(error.contains("may have passed over an error"), "{error}");
            }
        }
    }

    #[test]
    fn only_a_short_batch_that_stands_elsewhere_makes_another_order() {
        // The epoch, a whole batch, what was recorded, and what is found.
        let table = [
            // Batches of 4, 4, 4, 4, 4 and 2 items.
            (22, 4, 12, 12, false),
            (22, 4, 12, 10, true),
            (22, 4, 10, 12, true),
            (22, 4, 4, 2, true),
            (22, 4, 12, 9, false),
            (22, 4, 12, 15, false),
            (22, 4, 12, 16, false),
            // Another batch size.
            (22, 5, 4, 5, false),
            // No short batch, and a loader that doesn't tell.
            (24, 4, 12, 8, false),
            (0, 0, 0, 0, false),
        ];
        for (total, batch, recorded, found, expected) in table {
            let is_reordered = is_reordered(total, batch, recorded, found);
            assert_eq!(
                is_reordered, expected,
                "{total}, {batch}, {recorded}, {found}"
            );
        }
    }
}
