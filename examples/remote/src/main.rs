//! Trains on the devices of another process, with the backups on this side. Kill either process, start it
//! again, and compare the last line with that of an uninterrupted run.

mod arguments;
mod crash;
mod data;
mod digest;
mod model;
mod serve;
mod train;

use clap::Parser as _;

use arguments::{Arguments, Command};

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::Train(arguments) => train::train(&arguments),
    }
}
