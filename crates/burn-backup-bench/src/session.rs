//! The time that a session adds to each step of a manual loop if no backup is due. Compares a loop with `next` and
//! `stepped` with the same loop without them.
//!
//! Nothing is trained: the batches are numbers, and a step adds them up. One network has only matrices. The other has
//! running statistics, which are checked at each step.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn_backup_restore::{BackupAndRestore, SaveFreq, Trainee};

use crate::bench::Bench;
use crate::row::{Goal, Row};
use crate::spread::Spread;

/// The name of the measurement.
pub const NAME: &str = "session";

const MAX_MICROSECONDS: f64 = 5.0;
const LAYERS: usize = 10;
const WIDTH: usize = 64;

#[derive(Module, Debug)]
struct Network {
    layers: Vec<Linear>,
    norms: Vec<BatchNorm>,
}

/// Measures both networks.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let device = Device::flex().autodiff();
    let layers = || {
        let layer = |_| LinearConfig::new(WIDTH, WIDTH).init(&device);
        (0..LAYERS).map(layer).collect()
    };
    let plain = Network {
        layers: layers(),
        norms: Vec::new(),
    };
    let norm = |_| BatchNormConfig::new(WIDTH).init(&device);
    let normalised = Network {
        layers: layers(),
        norms: (0..LAYERS).map(norm).collect(),
    };
    let plain = measure_steps(bench, "ten layers", plain, &device)?;
    // Here, most of the time is spent in the model's own traversal.
    let normalised = measure_steps(bench, "ten layers, ten batch norms", normalised, &device)?;
    Ok(vec![
        plain.goal(Goal::OursAtMost(MAX_MICROSECONDS)),
        normalised,
    ])
}

fn measure_steps(
    bench: &Bench,
    state: &'static str,
    model: Network,
    device: &Device,
) -> Result<Row> {
    bench.log(NAME, state);
    let (steps, rounds) = match bench.is_quick() {
        true => (1_000_u64, 2),
        false => (100_000, 10),
    };
    let mut trainee = Trainee {
        model,
        optim: AdamConfig::new().init(),
        lr: 1e-3,
    };
    let scratch = bench.scratch()?;
    let backup = BackupAndRestore::new(scratch.path()).save_freq(SaveFreq::Never);
    let mut session = backup.resume(&mut trainee, device)?;
    let mut samples = Vec::new();
    for round in 0..=rounds {
        let started = Instant::now();
        let mut sum = 0;
        for batch in 0..steps {
            sum += black_box(batch);
        }
        black_box(sum);
        let without = started.elapsed();

        let mut batches = session.batches_of(0..steps)?;
        let started = Instant::now();
        let mut sum = 0;
        while let Some(batch) = session.next(&mut batches, &trainee)? {
            sum += black_box(batch);
            session.stepped(&trainee);
        }
        black_box(sum);
        let with = started.elapsed();
        // Each round is an epoch.
        black_box(session.epoch_done(&trainee));
        if round > 0 {
            let added = with.saturating_sub(without);
            samples.push(1e6 * added.as_secs_f64() / steps as f64);
        }
    }
    session.finish(&trainee)?;
    Ok(Row::new(NAME, state, "added to a step", "us").ours(Spread::of(samples)?))
}
