//! `verify`: reads generations completely, and compares their bytes with the hashes.

use anyhow::Result;
use burn_backup_remote::{MirrorError, Transfer};
use burn_backup_store::{
    Damage, GenerationId, Observation, OpenGeneration, OpenOptions, PartEntry, PartReader, Store,
    StoreError,
};
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::output::{Bar, Output, Page, Report, TextStyle, bytes, count};
use crate::place::Place;
use crate::source::{Directory, Found, MAX_LISTINGS, Mirrored, Source};

/// Reads generations completely, and checks each byte against the hashes
///
/// A training that uses the place is not disturbed. A generation that it prunes meanwhile is reported as gone, not as
/// damaged. Generations in a mirror are copied to a temporary directory (see TMPDIR), one at a time.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory or the URL of a mirror
    pub place: Place,

    /// The generation's number; by default all generations
    pub number: Option<u64>,
}

/// What was verified.
#[derive(Debug, Default, Serialize)]
struct Verification {
    place: String,
    whole: usize,
    damaged: usize,
    /// Generations that can't be read. They may be whole.
    unreadable: usize,
    gone: usize,
    bytes_read: u64,
    generations: Vec<Verified>,
}

#[derive(Debug, Serialize)]
struct Verified {
    number: u64,
    /// `whole`, `damaged`, `unreadable` or `gone`.
    status: &'static str,
    bytes: u64,
    damage: Vec<Flaw>,
}

/// A damaged file, or a damaged block in it.
#[derive(Debug, Serialize)]
struct Flaw {
    file: Option<String>,
    /// The offset of the damaged block in the file, in bytes.
    offset: Option<u64>,
    /// The length of that block.
    bytes: Option<u64>,
    message: String,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let mut source = Source::open(&args.place)?;
    let mut verification = Verification {
        place: args.place.to_string(),
        ..Verification::default()
    };
    for _ in 0..MAX_LISTINGS {
        let ids = match args.number {
            Some(number) => vec![existing(&source, number)?],
            None => source.ids()?,
        };
        if ids.is_empty() {
            return Err(refuse(
                Exit::NoBackup,
                format!(
                    "there is no generation in '{}': nothing was verified",
                    args.place
                ),
            ));
        }
        let mut bar = output.bar("verifying", total(&source, &ids)?);
        for id in ids {
            let verified = match &source {
                Source::Directory(directory) => in_directory(directory, id, &mut bar)?,
                Source::Mirror(mirror) => in_mirror(mirror, id, &mut bar)?,
            };
            verification.add(verified);
        }
        // If all were pruned, there are new ones: list again.
        if args.number.is_some() || verification.gone < verification.generations.len() {
            break;
        }
        source.refresh()?;
    }
    output.print(&verification)?;
    Ok(match (verification.damaged, verification.unreadable) {
        (0, 0) => Exit::Good,
        (0, _) => Exit::Failed,
        _ => Exit::Damage,
    })
}

fn existing(source: &Source, number: u64) -> Result<GenerationId> {
    let id = GenerationId::new(number);
    match source.ids()?.contains(&id) {
        true => Ok(id),
        false => Err(refuse(
            Exit::NoBackup,
            format!(
                "generation {number} does not exist. `burn-backup list` shows the existing ones"
            ),
        )),
    }
}

/// The number of bytes to read.
fn total(source: &Source, ids: &[GenerationId]) -> Result<u64> {
    let mut total = 0;
    for id in ids {
        if let Found::Manifest(manifest) = source.manifest(*id)? {
            total += manifest.bytes();
        }
    }
    Ok(total)
}

fn in_directory(directory: &Directory, id: GenerationId, bar: &mut Bar) -> Result<Verified> {
    let number = id.number();
    let verified = directory.observer.open(id).and_then(|found| match found {
        Observation::Manifest(generation) => {
            let damage = flaws(&generation, bar)?;
            Ok(Verified::new(number, generation.manifest().bytes(), damage))
        }
        Observation::Damaged(damage) => Ok(Verified::new(number, 0, vec![Flaw::of(&damage, None)])),
        _ => Ok(Verified::gone(number)),
    });
    match verified {
        // Other generations may be readable, so the error does not end the command.
        Err(error @ StoreError::Io { .. }) => Ok(Verified::unreadable(number, &error)),
        verified => Ok(verified?),
    }
}

/// The damage in the parts of a generation.
fn flaws(generation: &OpenGeneration, bar: &mut Bar) -> Result<Vec<Flaw>, StoreError> {
    let mut flaws = Vec::new();
    for part in generation.parts() {
        if let Err(damage) = verify_part(part, bar)? {
            flaws.push(Flaw::of(&damage, Some(part.entry())));
        }
    }
    Ok(flaws)
}

/// Verifies a part. Damage is reported only if a second read finds it too, because an error of the network may pass.
fn verify_part(part: &PartReader, bar: &mut Bar) -> Result<Result<(), Damage>, StoreError> {
    match part.verify(&mut |read| bar.add(read)) {
        Ok(Ok(())) => Ok(Ok(())),
        _ => part.verify(&mut |_| {}),
    }
}

/// Verifies a generation in a mirror by copying it, because the copy checks each block as it arrives.
fn in_mirror(mirror: &Mirrored, id: GenerationId, bar: &mut Bar) -> Result<Verified> {
    let number = id.number();
    let copy = tempfile::Builder::new().prefix("burn-backup-").tempdir()?;
    let mut store = Store::open(copy.path().join("copy"), OpenOptions::default())?;
    let mut done = 0;
    let on_transfer = &mut |transfer: Transfer| {
        bar.add(transfer.done - done);
        done = transfer.done;
    };
    match mirror
        .connection
        .copy(&mirror.training, id, &mut store, on_transfer)
    {
        Ok(()) => Ok(Verified::new(number, done, Vec::new())),
        Err(MirrorError::Pruned { .. }) => Ok(Verified::gone(number)),
        Err(error) if error.is_damage() => {
            Ok(Verified::new(number, done, vec![Flaw::in_mirror(&error)]))
        }
        Err(error) => Err(error.into()),
    }
}

impl Verified {
    fn new(number: u64, bytes: u64, damage: Vec<Flaw>) -> Self {
        let status = match damage.is_empty() {
            true => "whole",
            false => "damaged",
        };
        Self {
            number,
            status,
            bytes,
            damage,
        }
    }

    fn unreadable(number: u64, error: &StoreError) -> Self {
        let cause = std::error::Error::source(error);
        let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        let flaw = Flaw {
            file: None,
            offset: None,
            bytes: None,
            message: format!("{error}{cause}"),
        };
        Self {
            number,
            status: "unreadable",
            bytes: 0,
            damage: vec![flaw],
        }
    }

    fn gone(number: u64) -> Self {
        Self {
            number,
            status: "gone",
            bytes: 0,
            damage: Vec::new(),
        }
    }
}

impl Flaw {
    fn of(damage: &Damage, part: Option<&PartEntry>) -> Self {
        let (file, offset, length) = match damage {
            Damage::BlockHash {
                file,
                offset,
                bytes,
                ..
            } => (Some(file), Some(*offset), Some(*bytes)),
            Damage::PartHash { file, .. } => (Some(file), Some(0), part.map(|part| part.bytes)),
            Damage::PartMissing { file, .. } | Damage::PartLength { file, .. } => {
                (Some(file), None, None)
            }
            _ => (None, None, None),
        };
        Self {
            file: Some(file.map_or_else(|| "manifest.json".to_owned(), Clone::clone)),
            offset,
            bytes: length,
            message: match part {
                Some(part) => in_words(damage, part),
                None => damage.to_string(),
            },
        }
    }

    fn in_mirror(error: &MirrorError) -> Self {
        let (file, offset, length) = match error {
            MirrorError::Damaged { object, reason, .. } => match reason {
                burn_backup_remote::Damage::Hash { offset, bytes, .. } => {
                    (Some(object.clone()), Some(*offset), Some(*bytes))
                }
                _ => (Some(object.clone()), None, None),
            },
            _ => (None, None, None),
        };
        Self {
            file,
            offset,
            bytes: length,
            message: error.to_string(),
        }
    }
}

/// The damage of a part, with its offset in the file.
pub fn in_words(damage: &Damage, part: &PartEntry) -> String {
    match damage {
        Damage::PartHash { .. } => {
            format!("{damage} in the {} bytes from byte 0 on", part.bytes)
        }
        _ => damage.to_string(),
    }
}

impl Verification {
    fn add(&mut self, verified: Verified) {
        match verified.status {
            "whole" => self.whole += 1,
            "damaged" => self.damaged += 1,
            "unreadable" => self.unreadable += 1,
            _ => self.gone += 1,
        }
        self.bytes_read += verified.bytes;
        self.generations.push(verified);
    }
}

impl Report for Verification {
    fn show(&self, page: &mut Page) {
        for verified in &self.generations {
            let number = verified.number;
            match verified.status {
                "whole" => page.line(format!(
                    "generation {number}: {} ({})",
                    TextStyle::Good.paint("whole"),
                    bytes(verified.bytes)
                )),
                status @ ("damaged" | "unreadable") => {
                    page.line(format!(
                        "generation {number}: {}",
                        TextStyle::Bad.paint(status)
                    ));
                    for flaw in &verified.damage {
                        page.line(format!("  {}", flaw.message));
                    }
                }
                _ => page.line(format!(
                    "generation {number}: gone, it was pruned meanwhile"
                )),
            }
        }
        if self.damaged > 0 {
            page.gap();
            page.line(format!(
                "{} of {} damaged. The next start of the training moves a damaged generation to quarantine, and resumes from \
                 the newest whole one.",
                self.damaged,
                count(self.generations.len(), "generation")
            ));
        }
    }
}
