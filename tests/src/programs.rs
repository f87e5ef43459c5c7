//! Programs with the structure of Burn's own examples, and of others that people write. Each is written as
//! its user would write it. Its [`Variant`] says how much of this crate it uses.
//!
//! They are small: an epoch has 10 to 32 batches, and their data is generated.

mod batch_count;
mod custom_renderer;
mod custom_strategy;
mod folds;
mod guide;
mod mnist;
mod points;
mod simple_regression;
mod text_classification;
mod text_generation;
mod two_phases;

use std::path::PathBuf;

pub use batch_count::abort_in;

use crate::records::Record;

/// How much of this crate a program uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    Without,
    /// The one line, with nothing else changed.
    Line,
    /// Everything that the README and the guide ask for to restore exactly.
    Checklist,
}

/// How a program is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds all that the program writes.
    pub dir: PathBuf,
    /// How much of this crate it uses.
    pub variant: Variant,
    /// Workers of each loader, in place of the program's own number.
    pub workers: Option<usize>,
}

impl Options {
    fn artifacts(&self) -> PathBuf {
        self.dir.join("artifacts")
    }

    fn backup(&self) -> PathBuf {
        self.dir.join("backup")
    }

    fn workers(&self, own: usize) -> usize {
        self.workers.unwrap_or(own)
    }
}

/// The result of a program.
#[derive(Debug)]
pub struct Trained {
    /// Parameters and running statistics of its final model, or of all its models.
    pub model: Record,
    /// The settings of the program that took effect.
    pub facts: Vec<String>,
}

impl From<Record> for Trained {
    fn from(model: Record) -> Self {
        Self {
            model,
            facts: Vec::new(),
        }
    }
}

/// A program, and how it can be interrupted.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Runs it.
    pub train: fn(&Options) -> Trained,
    /// In which training batch to abort the first process, and in which to abort the second, each
    /// counted from 1 in its process. Both are inside an epoch, wherever the second one resumes.
    pub aborts: [usize; 2],
}

impl Program {
    /// A program with three epochs of 16 batches.
    const fn new(name: &'static str, train: fn(&Options) -> Trained) -> Self {
        Self {
            name,
            train,
            aborts: [13, 28],
        }
    }

    const fn aborting(self, aborts: [usize; 2]) -> Self {
        Self { aborts, ..self }
    }
}

/// All programs.
pub const PROGRAMS: [Program; 10] = [
    Program::new("guide", guide::train),
    Program::new("simple_regression", simple_regression::train),
    Program::new("mnist", mnist::train),
    Program::new("text_classification", text_classification::train).aborting([13, 70]),
    Program::new(
        "text_classification_single",
        text_classification::train_on_one_device,
    )
    .aborting([13, 70]),
    Program::new("text_generation", text_generation::train),
    Program::new("custom_renderer", custom_renderer::train),
    Program::new("custom_strategy", custom_strategy::train),
    // The second abort is in the second phase.
    Program::new("two_phases", two_phases::train).aborting([13, 35]),
    // The second abort is in the second fold.
    Program::new("folds", folds::train).aborting([13, 20]),
];
