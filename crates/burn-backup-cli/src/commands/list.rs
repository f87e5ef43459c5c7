//! `list`: lists the generations of a place.

mod directory;
mod mirror;

use anyhow::Result;

use crate::exit::Exit;
use crate::output::Output;
use crate::place::Place;

/// Lists the generations in a place, newest first
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory or the URL of a mirror
    pub place: Place,

    /// With a directory: also shows which generations this mirror has
    #[arg(long, value_name = "URL")]
    pub mirror: Option<Place>,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    match &args.place {
        Place::Directory(path) => directory::list(path, args.mirror.as_ref(), output),
        Place::Mirror(url) => mirror::list(url, output),
    }
}
