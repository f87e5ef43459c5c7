//! How long the batches of an epoch take, and how long a skip to one of them takes. Compares
//! `ResumableDataLoaderBuilder` with Burn's loader with as many workers.
//!
//! The batches are only loaded. Both loaders shuffle the items. The first epoch of each loader only
//! warms up, because it starts the threads.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use burn_backup_restore::ResumableDataLoaderBuilder;

use crate::bench::Bench;
use crate::row::{Goal, Row};
use crate::spread::Spread;

/// The name of the measurement.
pub const NAME: &str = "loading";

const SEED: u64 = 42;
const WORKERS: [usize; 4] = [1, 2, 4, 8];
/// The highest ratio to Burn's time: equally fast, within the noise of equal loads.
const MAX_OF_BURNS: f64 = 1.05;
const MAX_OF_SHORTEST_SKIP: f64 = 1.25;
/// The number of values in an item.
const WIDTH: usize = 16;
/// The number of workers with which skips are measured.
const SKIPPING_WORKERS: usize = 2;

/// The cost of loading an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// Almost no work.
    Nothing,
    /// This number of rounds of arithmetic, like decoding.
    Arithmetic(u32),
    /// Waiting without work, like a blocking read.
    Waiting(Duration),
    /// Waiting, with one item in this number taking twenty times as long.
    WaitingUnevenly(Duration, usize),
}

/// Items, and the way in which they are loaded.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    cost: Cost,
    items: usize,
    batch_size: usize,
}

type Item = [f32; WIDTH];

impl Dataset<Item> for Load {
    fn get(&self, index: usize) -> Result<Item, DatasetError> {
        let mut bits = index as u32 | 1;
        match self.cost {
            Cost::Nothing => {}
            Cost::Arithmetic(rounds) => {
                for _ in 0..rounds {
                    bits ^= bits << 13;
                    bits ^= bits >> 17;
                    bits ^= bits << 5;
                }
            }
            Cost::Waiting(time) => thread::sleep(time),
            Cost::WaitingUnevenly(time, one_in) => match index % one_in {
                0 => thread::sleep(20 * time),
                _ => thread::sleep(time),
            },
        }
        Ok([black_box(bits) as f32; WIDTH])
    }

    fn len(&self) -> usize {
        self.items
    }
}

/// Copies the items into one row, as for a tensor.
struct Rows;

impl Batcher<Item, Vec<f32>> for Rows {
    fn batch(&self, items: Vec<Item>, _device: &Device) -> Vec<f32> {
        items.concat()
    }
}

type Loader = Arc<dyn DataLoader<Vec<f32>>>;

impl Load {
    fn ours(self, workers: usize) -> Loader {
        ResumableDataLoaderBuilder::new(Rows)
            .set_device(Device::flex())
            .batch_size(self.batch_size)
            .shuffle(SEED)
            .num_workers(workers)
            .build(self)
    }

    fn burns(self, workers: usize) -> Loader {
        DataLoaderBuilder::new(Rows)
            .set_device(Device::flex())
            .batch_size(self.batch_size)
            .shuffle(SEED)
            .num_workers(workers)
            .build(self)
    }

    /// Loads all batches.
    fn epoch(self, loader: &Loader) -> Result<Duration> {
        let started = Instant::now();
        let mut numbers = 0;
        for batch in loader.iter() {
            numbers += black_box(batch?).len();
        }
        let took = started.elapsed();
        ensure!(numbers == self.items * WIDTH, "an epoch lacks items");
        Ok(took)
    }
}

/// Measures epochs and skips.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for load in loads(bench) {
        for workers in WORKERS {
            rows.push(measure_epochs(bench, load, workers)?);
        }
    }
    rows.extend(measure_skips(bench)?);
    Ok(rows)
}

fn loads(bench: &Bench) -> [Load; 4] {
    let share: usize = if bench.is_quick() { 20 } else { 1 };
    let load = |name, cost, items, batch_size| Load {
        name,
        cost,
        items: items / share,
        batch_size,
    };
    let read = Duration::from_micros(100);
    [
        load("cheap items", Cost::Nothing, 400_000, 32),
        load("arithmetic", Cost::Arithmetic(10_000), 20_000, 32),
        load("waiting", Cost::Waiting(read), 4_000, 8),
        load(
            "waiting unevenly",
            Cost::WaitingUnevenly(read, 100),
            4_000,
            8,
        ),
    ]
}

fn measure_epochs(bench: &Bench, load: Load, workers: usize) -> Result<Row> {
    let state = format!("{}, {}", load.name, in_words(workers));
    bench.log(NAME, &state);
    let (ours, burns) = (load.ours(workers), load.burns(workers));
    let rounds = if bench.is_quick() { 2 } else { 10 };
    let turn = |_| anyhow::Ok((load.epoch(&ours)?, load.epoch(&burns)?));
    let turns = (0..=rounds).map(turn).collect::<Result<Vec<_>>>()?;
    let row = row(state, "an epoch", turns.get(1..).context("no turn")?)?;
    Ok(row.goal(Goal::RatioAtMost(MAX_OF_BURNS)))
}

/// Measures the time from the request for an iterator to the batch, in the second epoch. Ours
/// mostly spends it on the shuffle of all items, whichever the batch.
fn measure_skips(bench: &Bench) -> Result<Vec<Row>> {
    let (items, skips, rounds) = if bench.is_quick() {
        (40_000, [10, 100, 1_000], 2)
    } else {
        (4_000_000, [10, 1_000, 100_000], 10)
    };
    let load = Load {
        name: "skip",
        cost: Cost::Nothing,
        items,
        batch_size: 32,
    };
    bench.log(NAME, "skips");
    let turn = |skip| {
        let (ours, burns) = (load.ours(SKIPPING_WORKERS), load.burns(SKIPPING_WORKERS));
        anyhow::Ok((time_skip(&ours, skip)?, time_skip(&burns, skip)?))
    };
    let mut turns = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        for (turns, skip) in turns.iter_mut().zip(skips) {
            let times = turn(skip)?;
            if round > 0 {
                turns.push(times);
            }
        }
    }
    let [shortest, ..] = &turns;
    let mut rows = Vec::new();
    for (turns, skip) in turns.iter().zip(skips) {
        let state = format!("of {items} items, to batch {skip}");
        let row = row(state, "a skip", turns)?;
        let over_shortest = turns
            .iter()
            .zip(shortest)
            .map(|(turn, shortest)| quotient(turn.0, shortest.0));
        rows.push(match skip {
            10 => row,
            _ => row
                .ratio("the skip to batch 10", Spread::of(over_shortest)?)
                .goal(Goal::RatioAtMost(MAX_OF_SHORTEST_SKIP)),
        });
    }
    Ok(rows)
}

fn time_skip(loader: &Loader, batches: usize) -> Result<Duration> {
    // This starts the threads.
    loader.iter().next().context("no batch")??;
    let started = Instant::now();
    loader.iter().nth(batches).context("no such batch")??;
    Ok(started.elapsed())
}

fn row(state: String, what: &'static str, turns: &[(Duration, Duration)]) -> Result<Row> {
    let ratios = turns.iter().map(|turn| quotient(turn.0, turn.1));
    Ok(Row::new(NAME, state, what, "ms")
        .ours(Spread::of_milliseconds(turns.iter().map(|turn| turn.0))?)
        .burns(Spread::of_milliseconds(turns.iter().map(|turn| turn.1))?)
        .ratio("Burn's", Spread::of(ratios)?))
}

fn quotient(time: Duration, over: Duration) -> f64 {
    time.as_secs_f64() / over.as_secs_f64()
}

fn in_words(workers: usize) -> String {
    match workers {
        1 => "1 worker".to_owned(),
        several => format!("{several} workers"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn both_load_all_items_of_each_kind() {
        let bench = Bench::new(Path::new("."), true);
        for load in loads(&bench) {
            for workers in WORKERS {
                load.epoch(&load.ours(workers)).unwrap();
                load.epoch(&load.burns(workers)).unwrap();
            }
        }
    }
}
