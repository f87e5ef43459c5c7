//! `export`: writes models as files for plain Burn, or for programs in other languages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use burn_backup_store::OpenGeneration;
use clap::ValueEnum;
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::export::{burnpack, safetensors};
use crate::model::{ModelParts, state_of};
use crate::output::{Output, Page, Report, bytes};
use crate::place::Place;
use crate::record::Record;
use crate::source::{Local, Source, verify};

/// Writes the models of a generation to files that plain Burn, or other programs, can read
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory or the URL of a mirror
    pub place: Place,

    /// The generation's number; by default the newest one
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,

    /// The directory for the files, created if it is missing
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,

    /// The format of the files
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Also exports the optimizers and the learning rate schedulers
    #[arg(long)]
    pub all: bool,

    /// Overwrites existing files
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Burn's format: `ModuleRecord::load` reads it
    #[default]
    Burnpack,
    /// Hugging Face's format, for Python and others
    Safetensors,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Burnpack => burn_pack::EXTENSION,
            Self::Safetensors => "safetensors",
        }
    }
}

/// What was exported.
#[derive(Debug, Serialize)]
struct Export {
    generation: u64,
    files: Vec<Exported>,
}

#[derive(Debug, Serialize)]
struct Exported {
    path: PathBuf,
    state: String,
    /// `model`, `optimizer` or `scheduler`.
    record: &'static str,
    tensors: usize,
    bytes: u64,
}

/// A file to write.
struct PlannedFile {
    state: String,
    kind: &'static str,
    /// The parts that it consists of.
    parts: Vec<String>,
    path: PathBuf,
    record: Record,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let mut source = Source::open(&args.place)?;
    let generation = Arc::new(source.pick_local(args.generation, output)?);
    let planned = plan(&generation, args)?;
    for file in &planned {
        refuse_overwriting(&file.path, args.force)?;
        if args.format == Format::Safetensors {
            safetensors::check(&file.record)?;
        }
    }
    // Only verified bytes are exported.
    verify(&generation, output)?;
    let mut files = Vec::new();
    for file in planned {
        files.push(file.write(&generation, args)?);
    }
    output.print(&Export {
        generation: generation.id().number(),
        files,
    })?;
    Ok(Exit::Good)
}

fn plan(generation: &Local, args: &Args) -> Result<Vec<PlannedFile>> {
    let names: Vec<_> = generation
        .manifest()
        .parts
        .iter()
        .map(|part| part.name.as_str())
        .collect();
    let path = |stem: &str| args.to.join(format!("{stem}.{}", args.format.extension()));
    let mut planned = Vec::new();
    for model in ModelParts::of(names.iter().copied()) {
        planned.push(PlannedFile {
            record: model.record(generation)?,
            path: path(&model.file_stem()),
            kind: "model",
            state: model.state,
            parts: model.parts,
        });
    }
    if planned.is_empty() {
        return Err(refuse(
            Exit::Failed,
            format!(
                "generation {} has no model: its parts are {}",
                generation.id().number(),
                names.join(", ")
            ),
        ));
    }
    for kind in ["optimizer", "scheduler"].into_iter().filter(|_| args.all) {
        for (state, name) in names
            .iter()
            .filter_map(|name| Some((state_of(name, kind)?, *name)))
        {
            planned.push(PlannedFile {
                record: record(generation, name)?,
                path: path(name),
                kind,
                state: state.to_owned(),
                parts: vec![name.to_owned()],
            });
        }
    }
    Ok(planned)
}

fn record(generation: &OpenGeneration, part: &str) -> Result<Record> {
    generation
        .part(part)
        .map_or_else(|| Ok(Record::default()), Record::read)
}

/// Refuses an existing file before anything is written.
fn refuse_overwriting(path: &Path, is_forced: bool) -> Result<()> {
    match !is_forced && path.symlink_metadata().is_ok() {
        true => Err(refuse(
            Exit::Failed,
            format!(
                "'{}' already exists, and nothing was written: choose another --to, or overwrite it with --force",
                path.display()
            ),
        )),
        false => Ok(()),
    }
}

impl PlannedFile {
    fn write(self, generation: &Arc<Local>, args: &Args) -> Result<Exported> {
        let tensors = self.record.tensors.len();
        match (args.format, self.parts.as_slice()) {
            // A single part is already a burnpack file.
            (Format::Burnpack, [part]) => burnpack::copy(generation, part, &self.path, args.force)?,
            (Format::Burnpack, _) => {
                burnpack::write(generation, &self.record, &self.path, args.force)?
            }
            (Format::Safetensors, _) => {
                safetensors::write(generation, &self.record, &self.path, args.force)?;
            }
        }
        Ok(Exported {
            bytes: self.path.metadata()?.len(),
            path: self.path,
            state: self.state,
            record: self.kind,
            tensors,
        })
    }
}

impl Report for Export {
    fn show(&self, page: &mut Page) {
        page.line(format!("From generation {}:", self.generation));
        let row = |file: &Exported| {
            vec![
                file.path.display().to_string(),
                file.tensors.to_string(),
                bytes(file.bytes),
            ]
        };
        page.table(
            &["file", ">tensors", ">size"],
            self.files.iter().map(row).collect(),
        );
    }
}
