use std::path::PathBuf;

use clap::Parser;

/// Trains an agent that balances a pole, with backups.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// How many steps to make in the environment.
    #[arg(long, default_value_t = 20_000)]
    pub steps: usize,

    /// After how many steps to take a backup; by default after each evaluation, every 2,000 steps.
    #[arg(long)]
    pub save_freq: Option<usize>,

    /// Where the backups are; deleted once the training has run to its end.
    #[arg(long, default_value = "cartpole-backup")]
    pub backup_dir: PathBuf,

    /// Where the metrics are logged.
    #[arg(long, default_value = "cartpole-artifacts")]
    pub artifact_dir: PathBuf,

    /// Trains with Burn's own loop, without backups.
    #[arg(long, conflicts_with_all = ["save_freq", "crash_at"])]
    pub no_backup: bool,

    /// Aborts the process in the middle of this step, as a crash would. They count from 1.
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u64).range(1..))]
    pub crash_at: Option<u64>,
}
