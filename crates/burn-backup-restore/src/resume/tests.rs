use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::Dataset;
use burn::tensor::Device;

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;

use super::LOG;
use super::batches::{Rest, train_loader};
use super::check::{Check, is_reordered};
use super::plan::{Plan, Resumption};
use crate::ResumableDataLoaderBuilder;
use crate::burn_api::{self, LoaderKind};
use crate::change::Changes;
use crate::data_loader::WINDOW_PER_THREAD;
use crate::position::Position;
use crate::state::{DataProgress, TrainingState};

thread_local! {
    /// The lines that this thread has logged.
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
    // A second call fails because the logger is already set.
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::LevelFilter::Info);
    logged();
}

/// The numbers from 0 on. Counts how many were loaded.
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

/// The position of a training after `epochs` epochs of `items_total` items and `batches` batches.
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
        largest_batch: 8.min(items_total),
        ..DataProgress::default()
    };
    Resumption::new(
        &state,
        None,
        &Changes::default(),
        items_total,
        Path::new("backup"),
    )
    .unwrap()
}

/// The remaining batches, at most `most`.
fn rest(loader: &Arc<dyn DataLoader<Batch>>, resumption: &Resumption, most: usize) -> Vec<Batch> {
    let Rest::Batches { mut rest, skipped } = train_loader(loader, &resumption.loader(0)).unwrap()
    else {
        return Vec::new();
    };
    assert_eq!(skipped, resumption.state.position.step_in_epoch);
    let batches = std::iter::from_fn(|| rest.next(|| ()).map(Result::unwrap));
    batches.take(most).collect()
}

#[test]
fn resuming_anywhere_among_millions_of_items_loads_a_constant_number() {
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
            // The first batch, the last trained one, and the next one, each with the batches that workers
            // load ahead.
            let most = 3 * (1 + (WINDOW_PER_THREAD + 1) * workers) * 8;
            let loaded = loaded.load(Ordering::SeqCst);
            assert!(loaded <= most, "{loaded} at {epochs}, {trained}");
        }
    }
}

#[test]
fn the_rest_begins_after_the_trained_batches() {
    let data = || Counting {
        items: 50,
        loaded: Arc::default(),
    };
    for workers in [0, 1, 2] {
        // Burn's own loader has no fixed order with more workers.
        for make in [|workers: usize, data| burns(workers.min(1), data), ours] {
            let loader = make(workers, data());
            let epochs: [Vec<_>; 3] = [(); 3].map(|()| loader.iter().map(Result::unwrap).collect());
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
fn a_loader_that_skips_at_once_refuses_other_data() {
    let refused = |items, epochs, trained| {
        let data = Counting {
            items,
            loaded: Arc::default(),
        };
        let loader = ours(1, data);
        let mut resumption = resumption(epochs, trained, 50);
        // The split of the data does not reveal the change, but the loader does.
        resumption.state.position.global_step += 1;
        let refused = train_loader(&loader, &resumption.loader(0));
        refused.err().unwrap().to_string()
    };
    for trained in [1, 3, 7] {
        for items in [10, 49, 51, 100] {
            let text = format!("the number of items in an epoch was 50, and is {items} now");
            for (epochs, trained) in [(2, trained), (2, 0)] {
                let message = refused(items, epochs, trained);
                assert!(message.contains(&text), "{message}");
            }
        }
    }
}

#[test]
fn items_loaded_only_to_be_skipped_are_reported() {
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
    let [loaded] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert!(loaded.starts_with("INFO: 3 trained batches"), "{loaded}");
    assert!(loaded.contains("loaded only to be skipped"), "{loaded}");
    rest(&burns(0, data()), &resumption(1, 0, 50), 1);
    assert_eq!(logged(), [""; 0], "between epochs");
}

/// Reports how many batches are left, and skips like iterators by default: errors are passed over.
struct ErrorSkippingIterator {
    left: usize,
    broken: usize,
    /// Whether it continues after an error.
    continues: bool,
}

impl Iterator for ErrorSkippingIterator {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == self.broken {
            self.broken = usize::MAX;
            self.left = if self.continues { self.left } else { 0 };
            return Some(Err(DatasetError::new(std::io::Error::other("broken"))));
        }
        self.left = self.left.checked_sub(1)?;
        Some(Ok(Vec::new()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DataLoaderIterator<Batch> for ErrorSkippingIterator {
    fn progress(&self) -> Progress {
        Progress::new(0, 0, None)
    }
}

#[test]
fn a_skipped_error_is_noticed() {
    let plan = Plan {
        recorded: None,
        ..resumption(0, 0, 50).loader(0)
    };
    let check = Check {
        plan: &plan,
        loader: LoaderKind::Other,
    };
    let skip = |broken, continues| {
        let mut iterator = ErrorSkippingIterator {
            left: 9,
            broken,
            continues,
        };
        check.skip(&mut iterator, 5, 0)
    };
    assert_eq!(skip(usize::MAX, true).unwrap(), 5);
    for continues in [true, false] {
        // The last skipped batch is checked, and those before it are not.
        let error = skip(5, continues).unwrap_err().to_string();
        assert!(error.contains("broken"), "{error}");
        for broken in 6..=9 {
            let error = skip(broken, continues).unwrap_err().to_string();
            assert!(
                error.contains("passes over errors of the dataset"),
                "{error}"
            );
        }
    }
}

#[test]
fn only_a_misplaced_short_batch_means_another_order() {
    // The items of the epoch, of a full batch, the recorded number and the found number.
    let table = [
        // Batches of 4, 4, 4, 4, 4 and 2 items.
        (22, 4, 12, 12, false),
        (22, 4, 12, 10, true),
        (22, 4, 10, 12, true),
        (22, 4, 4, 2, true),
        (22, 4, 12, 9, false),
        (22, 4, 12, 15, false),
        (22, 4, 12, 16, false),
        // A different batch size.
        (22, 5, 4, 5, false),
        // No short batch, and a loader that reports no progress.
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
