use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, value_parser};

use crate::crash::BatchAt;

/// Trains a small network on handwritten digits, on the devices of another process.
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Computes for clients on this machine, until it is stopped.
    Serve(ServeArguments),
    /// Trains on a server's devices, with backups.
    Train(TrainArguments),
}

#[derive(Debug, Args)]
pub struct ServeArguments {
    /// The TCP port to listen on; 0 selects a free one.
    #[arg(long, default_value_t = 3000)]
    pub port: u16,

    /// How many devices the server has. All of them are this machine's CPU.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u8).range(1..))]
    pub devices: u8,
}

#[derive(Debug, Args)]
pub struct TrainArguments {
    /// Where the server listens.
    #[arg(long, default_value = "ws://127.0.0.1:3000")]
    pub server: String,

    /// On how many of the server's devices to train.
    // Either number divides the training images evenly: whenever one device has a batch, all do.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(1..=2))]
    pub devices: u8,

    /// With two devices: each optimizes a part of the parameters. Otherwise the first one optimizes
    /// all of them.
    #[arg(long)]
    pub sharded: bool,

    /// How many epochs to train.
    #[arg(long, default_value_t = 4)]
    pub epochs: usize,

    /// After how many batches to take a backup.
    #[arg(long, default_value_t = 5)]
    pub save_freq: usize,

    /// Where the backups are; deleted once the training has run to its end.
    #[arg(long, default_value = "remote-backup")]
    pub backup_dir: PathBuf,

    /// Where Burn logs the metrics.
    #[arg(long, default_value = "remote-artifacts")]
    pub artifact_dir: PathBuf,

    /// Aborts the process in the middle of this batch, as a crash would; both count from 1. There
    /// are 47 batches in an epoch on one device, and 24 on two, where one on each counts as one.
    #[arg(long, value_name = "EPOCH:BATCH", value_parser = BatchAt::from_str)]
    pub crash_at: Option<BatchAt>,
}
