//! How fast backups reach the disk, compared with writing as many bytes from memory to one file.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use burn::train::Learner;

use crate::bench::{Bench, Repetitions};
use crate::goals::Goals;
use crate::model::Stack;
use crate::raw_disk::RawDisk;
use crate::row::{Goal, Row};
use crate::spread::Spread;
use crate::state::State;
use crate::{burns, ours};

/// The name of the measurement.
pub const NAME: &str = "persist";

/// The speeds of a backup and of the raw disk right after it, in megabytes per second.
struct Pair {
    ours: f64,
    limit: f64,
    bytes: u64,
}

/// Measures the speed on all states.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    bench
        .states()
        .iter()
        .map(|state| measure_state(bench, state))
        .collect()
}

fn measure_state(bench: &Bench, state: &State) -> Result<Row> {
    bench.announce(NAME, state);
    let learner = state.learner();
    let repetitions = bench.repetitions();
    let (mut pairs, mut burns) = (Vec::new(), Vec::new());
    for _ in 0..repetitions.rounds {
        let dir = bench.scratch()?;
        pairs.extend(backups_and_raw(state, &learner, dir.path(), repetitions)?);
        burns.extend(checkpoints(state, &learner, dir.path(), repetitions)?);
    }

    let bytes = pairs.first().map_or(0, |pair| pair.bytes);
    let ratios = pairs.iter().map(|pair| pair.ours / pair.limit);
    let row = Row::new(NAME, state.name, "speed", "MB/s")
        .ours(Spread::of(pairs.iter().map(|pair| pair.ours))?)
        .burns(Spread::of(
            burns.iter().map(|time| megabytes_per_second(bytes, *time)),
        )?)
        .limit(Spread::of(pairs.iter().map(|pair| pair.limit))?)
        .ratio("limit", Spread::of(ratios)?)
        .goal(Goal::RatioAtLeast(Goals::of(state).persist));
    Ok(row)
}

fn backups_and_raw(
    state: &State,
    learner: &Learner<Stack>,
    dir: &Path,
    repetitions: Repetitions,
) -> Result<impl Iterator<Item = Pair>> {
    let raw_dir = dir.to_owned();
    let mut disk = None;
    let pairs = ours::backups(state, learner, dir, repetitions.batches(), move |backup| {
        let disk = disk.get_or_insert_with(|| RawDisk::new(&raw_dir, backup.bytes));
        Ok(Pair {
            ours: megabytes_per_second(backup.bytes, backup.persist),
            limit: megabytes_per_second(disk.size(), disk.write()?),
            bytes: backup.bytes,
        })
    })?;
    Ok(pairs.into_iter().skip(1))
}

fn checkpoints(
    state: &State,
    learner: &Learner<Stack>,
    dir: &Path,
    repetitions: Repetitions,
) -> Result<impl Iterator<Item = Duration>> {
    let times = burns::checkpoints(state, learner, dir, repetitions.batches(), |checkpoint| {
        Ok(checkpoint.persist)
    })?;
    Ok(times.into_iter().skip(1))
}

fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_megabyte_is_a_million_bytes() {
        let speed = megabytes_per_second(3_000_000, Duration::from_millis(500));
        assert_eq!(speed, 6.0);
    }
}
