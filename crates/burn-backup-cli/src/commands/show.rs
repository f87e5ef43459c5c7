//! `show`: shows one generation, and the training's state in it.

mod records;

use std::time::SystemTime;

use anyhow::Result;
use burn_backup_store::Manifest;
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{Output, Page, Report, ago, bytes, count, moment, seconds};
use crate::place::Place;
use crate::source::Source;
use crate::training::{Cadence, Param, Position, Run, Training};
use records::OptimizerState;

/// Shows a generation: the training's position, model, optimizer and metrics
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A backup directory or the URL of a mirror
    pub place: Place,

    /// The generation's number; by default the newest one
    #[arg(conflicts_with = "diff")]
    pub number: Option<u64>,

    /// Compares the models of two generations instead
    #[arg(long, num_args = 2, value_names = ["N", "M"])]
    pub diff: Vec<u64>,

    /// With --diff: also lists unchanged tensors
    #[arg(long, requires = "diff")]
    pub all: bool,
}

/// A generation.
#[derive(Debug, Serialize)]
struct Generation {
    place: String,
    number: u64,
    format: u32,
    run_id: String,
    run_seed: u64,
    created: Option<Timestamp>,
    writer: String,
    burn: Option<String>,
    position: Option<Position>,
    phase: Option<String>,
    early_stopped: Option<bool>,
    learning_rate: Option<f64>,
    optimizer_steps: Option<u64>,
    accumulation: Option<u64>,
    label: Option<String>,
    reseed_steps: Option<bool>,
    /// The seed that the random numbers of the next steps are derived from.
    step_seed: u64,
    cadence: Option<Cadence>,
    runs: Vec<Run>,
    metrics: Vec<Metric>,
    states: Vec<State>,
    /// `None` for a mirror, from which optimizers are not read.
    optimizers: Option<Vec<OptimizerState>>,
    parts: Vec<Part>,
    bytes: u64,
}

/// The last value of a metric.
#[derive(Debug, Serialize)]
struct Metric {
    metric: String,
    split: String,
    epoch: u64,
    /// `null` if it is not finite.
    value: Option<f64>,
}

/// The model of a state.
#[derive(Debug, Serialize)]
struct State {
    /// Empty if it is the training's only state.
    name: String,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Serialize)]
struct Parameter {
    #[serde(flatten)]
    param: Param,
    bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Part {
    name: String,
    file: String,
    bytes: u64,
    xxh3_128: String,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit> {
    let mut source = Source::open(&args.place)?;
    let (manifest, optimizers) = match &source {
        Source::Directory(_) => {
            let local = source.pick_local(args.number, output)?;
            let optimizers = records::optimizers(&local, output);
            (local.manifest().clone(), Some(optimizers))
        }
        Source::Mirror(_) => (source.pick(args.number)?, None),
    };
    output.print(&Generation::of(&args.place, &manifest, optimizers))?;
    Ok(Exit::Good)
}

impl Generation {
    fn of(place: &Place, manifest: &Manifest, optimizers: Option<Vec<OptimizerState>>) -> Self {
        let training = Training::of(manifest);
        let states = training.models().into_iter().map(|(name, model)| State {
            name: name.to_owned(),
            parameters: model
                .iter()
                .map(|param| Parameter {
                    param: param.clone(),
                    bytes: param.bytes(),
                })
                .collect(),
        });
        let metrics = training.history().iter().filter_map(|series| {
            let (epoch, value) = series.values.last_key_value()?;
            Some(Metric {
                metric: series.metric.clone(),
                split: series.split.clone(),
                epoch: *epoch,
                value: Some(value.0).filter(|value| value.is_finite()),
            })
        });
        let parts = manifest.parts.iter().map(|part| Part {
            name: part.name.clone(),
            file: part.file.clone(),
            bytes: part.bytes,
            xxh3_128: part.xxh3_128.to_string(),
        });
        Self {
            place: place.to_string(),
            number: manifest.generation.number(),
            format: manifest.format,
            run_id: manifest.run_id.clone(),
            run_seed: manifest.run_seed,
            created: Timestamp::try_from(manifest.created).ok(),
            writer: manifest.writer.clone(),
            position: training.position,
            early_stopped: training.early_stopped,
            learning_rate: training.learning_rate,
            optimizer_steps: training.optimizer_steps,
            accumulation: training
                .configuration
                .as_ref()
                .and_then(|of| of.accumulation),
            label: training
                .configuration
                .as_ref()
                .and_then(|of| of.label.clone()),
            reseed_steps: training.reseed_steps,
            step_seed: training.run_seed.unwrap_or(manifest.run_seed),
            cadence: training.cadence.clone(),
            runs: training.runs().to_vec(),
            metrics: metrics.collect(),
            states: states.collect(),
            optimizers,
            parts: parts.collect(),
            bytes: manifest.bytes(),
            burn: training.burn,
            phase: training.phase,
        }
    }
}

impl Report for Generation {
    fn show(&self, page: &mut Page) {
        page.field("generation", format!("{} in {}", self.number, self.place));
        page.field_if("position", self.position);
        page.field_if("phase", self.phase.as_ref());
        if self.early_stopped == Some(true) {
            page.field("stopped early", "yes");
        }
        if let Some(created) = self.created.map(SystemTime::from) {
            page.field(
                "committed",
                format!("{} ({})", moment(created), ago(created)),
            );
        }
        page.field("writer", format!("{}, format {}", self.writer, self.format));
        page.field_if("Burn", self.burn.as_ref());
        page.field("run", &self.run_id);
        page.field("run seed", self.run_seed);
        if self.step_seed != self.run_seed {
            page.field("step seed", self.step_seed);
        }
        if self.reseed_steps == Some(false) {
            page.field("steps", "are not seeded");
        }
        page.field_if("label", self.label.as_ref());
        let run = self.runs.last();
        page.field_if("backups", run.and_then(|run| run.frequency.as_ref()));
        page.field_if("learning rate", self.learning_rate);
        page.field_if(
            "optimizer steps",
            self.optimizer_steps.filter(|steps| *steps > 0),
        );
        page.field_if(
            "accumulation",
            self.accumulation.filter(|batches| *batches > 1),
        );
        if let Some(cadence) = &self.cadence {
            self.show_cadence(cadence, page);
        }
        if !self.metrics.is_empty() {
            page.heading("Metrics");
            let row = |metric: &Metric| {
                let value = metric
                    .value
                    .map_or_else(|| "NaN".to_owned(), |value| value.to_string());
                vec![
                    metric.metric.clone(),
                    metric.split.clone(),
                    metric.epoch.to_string(),
                    value,
                ]
            };
            let titles = ["metric", "split", ">epoch", ">value"];
            page.table(&titles, self.metrics.iter().map(row).collect());
        }
        for state in &self.states {
            state.show(page);
        }
        for optimizer in self.optimizers.iter().flatten() {
            optimizer.show(page);
        }
        if self.optimizers.is_none() {
            page.heading("Optimizer");
            page.line("It is not read from a mirror. `burn-backup pull` copies the generation to a directory.");
        }
        page.heading(format!("Parts, {}", bytes(self.bytes)));
        let row = |part: &Part| vec![part.file.clone(), bytes(part.bytes), part.xxh3_128.clone()];
        page.table(
            &["file", ">size", "hash"],
            self.parts.iter().map(row).collect(),
        );
    }
}

impl Generation {
    fn show_cadence(&self, cadence: &Cadence, page: &mut Page) {
        page.field_if("trained for", cadence.uptime.map(seconds));
        page.field_if("interruptions", cadence.interruptions);
        page.field_if("backup cost", cadence.backup_cost.map(seconds));
        if cadence.is_stopped == Some(true) {
            page.field("made at", "an orderly stop");
        }
    }
}

impl State {
    fn show(&self, page: &mut Page) {
        let known: Option<u64> = self
            .parameters
            .iter()
            .map(|parameter| parameter.bytes)
            .sum();
        let size = known
            .map(|known| format!(", {}", bytes(known)))
            .unwrap_or_default();
        let name = match self.name.as_str() {
            "" => "Model".to_owned(),
            name => format!("Model of '{name}'"),
        };
        page.heading(format!(
            "{name}: {}{size}",
            count(self.parameters.len(), "parameter")
        ));
        let row = |parameter: &Parameter| {
            let shape: Vec<_> = parameter.param.shape.iter().map(u64::to_string).collect();
            vec![
                parameter.param.path.clone(),
                format!("[{}]", shape.join(", ")),
                parameter.param.dtype.clone(),
                parameter.bytes.map_or_else(|| "-".to_owned(), bytes),
            ]
        };
        let rows = self.parameters.iter().map(row).collect();
        page.table(&["path", "shape", "type", ">size"], rows);
    }
}
