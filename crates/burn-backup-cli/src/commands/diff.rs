//! `show --diff`: shows which tensors of the models changed between two generations, and by how much.

mod elements;

use std::collections::BTreeSet;

use anyhow::Result;
use burn_backup_store::OpenGeneration;
use serde::Serialize;

use super::show::Args;
use crate::exit::Exit;
use crate::model::ModelParts;
use crate::output::{Bar, Output, Page, Report, count, number};
use crate::record::{Entry, Record};
use crate::source::Source;
use elements::{Comparison, Values};

/// The size of one read.
const WINDOW: u64 = 4 * 1024 * 1024;

/// The differences between two generations.
#[derive(Debug, Serialize)]
struct Difference {
    from: u64,
    to: u64,
    unchanged: usize,
    changed: usize,
    only_in_from: usize,
    only_in_to: usize,
    tensors: Vec<Row>,
    #[serde(skip)]
    shows_all: bool,
}

/// A tensor of at least one of the generations.
#[derive(Debug, Serialize)]
struct Row {
    state: String,
    path: String,
    /// `changed`, `unchanged`, `reshaped`, `only_in_from` or `only_in_to`.
    status: &'static str,
    from: Option<Side>,
    to: Option<Side>,
    /// The norm of the difference, over the elements that are finite in both generations.
    l2_norm: Option<f64>,
    largest_change: Option<f64>,
    changed_elements: Option<u64>,
}

/// The tensor in one of the two generations.
#[derive(Debug, Serialize)]
struct Side {
    shape: Vec<u64>,
    dtype: String,
    nan: Option<u64>,
    infinite: Option<u64>,
}

pub fn run(args: &Args, from: u64, to: u64, output: &Output) -> Result<Exit> {
    let mut source = Source::open(&args.place)?;
    let mut local = |number| source.pick_local(Some(number), output);
    let (from, to) = (local(from)?, local(to)?);
    let mut tensors = Vec::new();
    let mut bar = output.bar("comparing", from.manifest().bytes());
    for state in states(&from, &to) {
        let sides = [&from, &to].map(|generation| record(generation, &state));
        let [before, after] = sides;
        let pair = Pair {
            from: &from,
            to: &to,
            before: before?,
            after: after?,
        };
        tensors.extend(pair.rows(&state, &mut bar)?);
    }
    drop(bar);
    let count = |status| tensors.iter().filter(|row| row.status == status).count();
    let difference = Difference {
        from: from.id().number(),
        to: to.id().number(),
        unchanged: count("unchanged"),
        changed: count("changed") + count("reshaped"),
        only_in_from: count("only_in_from"),
        only_in_to: count("only_in_to"),
        tensors: match args.all {
            true => tensors,
            false => tensors
                .into_iter()
                .filter(|row| row.status != "unchanged")
                .collect(),
        },
        shows_all: args.all,
    };
    output.print(&difference)?;
    Ok(Exit::Good)
}

/// The names of the states that have a model.
fn states(from: &OpenGeneration, to: &OpenGeneration) -> BTreeSet<String> {
    let models = [from, to].into_iter().flat_map(models);
    models.map(|model| model.state).collect()
}

fn models(generation: &OpenGeneration) -> Vec<ModelParts> {
    ModelParts::of(
        generation
            .manifest()
            .parts
            .iter()
            .map(|part| part.name.as_str()),
    )
}

/// The model of a state; empty if there is none.
fn record(generation: &OpenGeneration, state: &str) -> Result<Record> {
    let models = models(generation);
    let model = models.iter().find(|model| model.state == state);
    model.map_or_else(|| Ok(Record::default()), |model| model.record(generation))
}

/// A model in two generations.
struct Pair<'g> {
    from: &'g OpenGeneration,
    to: &'g OpenGeneration,
    before: Record,
    after: Record,
}

impl Pair<'_> {
    fn rows(&self, state: &str, bar: &mut Bar) -> Result<Vec<Row>> {
        let paths: BTreeSet<_> = self
            .before
            .tensors
            .keys()
            .chain(self.after.tensors.keys())
            .collect();
        let row = |path: &&String| {
            let row = match (
                self.before.tensors.get(*path),
                self.after.tensors.get(*path),
            ) {
                (Some(before), Some(after)) => self.compare(before, after)?,
                (Some(before), None) => Row::new("only_in_from", Some(side(before)), None),
                (None, after) => Row::new("only_in_to", None, after.map(side)),
            };
            bar.add(
                self.before
                    .tensors
                    .get(*path)
                    .map_or(0, |entry| entry.bytes),
            );
            Ok(Row {
                state: state.to_owned(),
                path: (*path).clone(),
                ..row
            })
        };
        paths.iter().map(row).collect()
    }

    fn compare(&self, before: &Entry, after: &Entry) -> Result<Row> {
        let sides = (Some(side(before)), Some(side(after)));
        if (before.dtype, &before.shape, before.bytes) != (after.dtype, &after.shape, after.bytes) {
            return Ok(Row::new("reshaped", sides.0, sides.1));
        }
        let (old, new) = (before.part_of(self.from)?, after.part_of(self.to)?);
        // The part is linked, or was written again without a change.
        if old.entry().xxh3_128 == new.entry().xxh3_128 && before.offset == after.offset {
            return Ok(Row::new("unchanged", sides.0, sides.1));
        }
        let mut comparison = Comparison::default();
        let mut done = 0;
        while done < before.bytes {
            let length = usize::try_from(WINDOW.min(before.bytes - done))?;
            let (mut old_bytes, mut new_bytes) = (vec![0; length], vec![0; length]);
            old.read(before.offset + done, &mut old_bytes)?;
            new.read(after.offset + done, &mut new_bytes)?;
            comparison.add(before.dtype, &old_bytes, &new_bytes);
            done += length as u64;
        }
        let mut row = Row::new("unchanged", sides.0, sides.1);
        if comparison.is_changed {
            row.status = "changed";
            row.measure(&comparison);
        }
        Ok(row)
    }
}

fn side(entry: &Entry) -> Side {
    Side {
        shape: entry.shape.clone(),
        dtype: entry.dtype.name().to_owned(),
        nan: None,
        infinite: None,
    }
}

impl Row {
    fn new(status: &'static str, from: Option<Side>, to: Option<Side>) -> Self {
        Self {
            state: String::new(),
            path: String::new(),
            status,
            from,
            to,
            l2_norm: None,
            largest_change: None,
            changed_elements: None,
        }
    }

    /// Adds the size of the change, if the elements are numbers.
    fn measure(&mut self, comparison: &Comparison) {
        let Some(values) = &comparison.values else {
            return;
        };
        let Values {
            squares,
            largest,
            changed,
            before,
            after,
        } = values;
        self.l2_norm = Some(squares.sqrt());
        self.largest_change = Some(*largest);
        self.changed_elements = Some(*changed);
        for (side, kinds) in [(&mut self.from, before), (&mut self.to, after)] {
            if let Some(side) = side {
                (side.nan, side.infinite) = (Some(kinds.nan), Some(kinds.infinite));
            }
        }
    }

    fn columns(&self) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let kinds = |kind: fn(&Side) -> Option<u64>| {
            let of = |side: &Option<Side>| side.as_ref().and_then(kind);
            match (of(&self.from), of(&self.to)) {
                (Some(0), Some(0)) | (None, _) | (_, None) => "-".to_owned(),
                (Some(from), Some(to)) => format!("{from} -> {to}"),
            }
        };
        let form = |side: &Side| format!("{:?} {}", side.shape, side.dtype);
        let status = match (self.status, &self.from, &self.to) {
            ("reshaped", Some(from), Some(to)) => format!("{} -> {}", form(from), form(to)),
            ("only_in_from", Some(side), _) => format!("gone: {}", form(side)),
            ("only_in_to", _, Some(side)) => format!("new: {}", form(side)),
            (status, ..) => status.to_owned(),
        };
        let path = match self.state.as_str() {
            "" => self.path.clone(),
            state => format!("{state}: {}", self.path),
        };
        vec![
            path,
            number(self.l2_norm),
            number(self.largest_change),
            self.changed_elements
                .map_or_else(|| "-".to_owned(), |changed| changed.to_string()),
            kinds(|side| side.nan),
            kinds(|side| side.infinite),
            status,
        ]
    }
}

impl Report for Difference {
    fn show(&self, page: &mut Page) {
        page.line(format!(
            "From generation {} to generation {}: {} changed, {} unchanged, {} gone, {} new.",
            self.from,
            self.to,
            count(self.changed, "tensor"),
            self.unchanged,
            self.only_in_from,
            self.only_in_to
        ));
        if !self.tensors.is_empty() {
            page.gap();
            let titles = [
                "path",
                ">L2 norm",
                ">largest",
                ">elements",
                ">NaN",
                ">infinite",
                "state",
            ];
            page.table(&titles, self.tensors.iter().map(Row::columns).collect());
        }
        if self.unchanged > 0 && !self.shows_all {
            page.gap();
            page.line("--all also lists the unchanged tensors.");
        }
    }
}
