//! Reads the optimizers' records.

use burn_backup_store::OpenGeneration;
use serde::Serialize;

use crate::model::state_of;
use crate::output::{Output, Page, bytes, count};
use crate::record::Record;

/// An optimizer's record.
#[derive(Debug, Serialize)]
pub struct OptimizerState {
    /// Empty if it is the training's only state.
    state: String,
    tensors: usize,
    bytes: u64,
    scalars: usize,
    /// The number of parameters that it has tensors for.
    parameters: usize,
}

/// The optimizers of all states. A record that can't be read is skipped with a warning.
pub fn optimizers(generation: &OpenGeneration, output: &Output) -> Vec<OptimizerState> {
    let parts = generation.parts().iter();
    let of_states =
        parts.filter_map(|part| Some((state_of(&part.entry().name, "optimizer")?, part)));
    let read = of_states.filter_map(|(state, part)| match Record::read(part) {
        Ok(record) => Some(OptimizerState::of(state, &record)),
        Err(error) => {
            output.warn(format!(
                "{error:#}: `burn-backup verify` tells whether it is damaged"
            ));
            None
        }
    });
    read.collect()
}

impl OptimizerState {
    fn of(state: &str, record: &Record) -> Self {
        let names = record.tensors.keys();
        // `<parameter>.<what>`
        let mut parameters: Vec<_> = names
            .map(|name| name.split_once('.').map_or(name.as_str(), |(id, _)| id))
            .collect();
        parameters.dedup();
        Self {
            state: state.to_owned(),
            tensors: record.tensors.len(),
            bytes: record.bytes(),
            scalars: record.scalars.len(),
            parameters: parameters.len(),
        }
    }

    pub fn show(&self, page: &mut Page) {
        page.heading(match self.state.as_str() {
            "" => "Optimizer".to_owned(),
            state => format!("Optimizer of '{state}'"),
        });
        page.line(format!(
            "{} for {}, {}; {}",
            count(self.tensors, "tensor"),
            count(self.parameters, "parameter"),
            bytes(self.bytes),
            count(self.scalars, "scalar"),
        ));
    }
}
