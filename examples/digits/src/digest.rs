//! A short hash of everything that a training trains and saves.

use std::collections::BTreeMap;
use std::fmt::Debug;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::ModuleOptimizer;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_pack::Reader;
use xxhash_rust::xxh3::Xxh3;

/// The digest of a model alone.
pub fn of<M: Module>(model: &M) -> String {
    let mut digest = Digest::default();
    model.visit(&mut digest);
    digest.finish()
}

/// An XXH3 hash of models, optimizers and values. Two trainings have the same digest if and only if all of
/// these are the same, bit by bit (except for hash collisions).
#[derive(Default)]
pub struct Digest {
    path: Vec<String>,
    hash: Xxh3,
}

impl Digest {
    /// Adds the parameters and running statistics of a model: their paths, shapes and bytes.
    #[must_use]
    pub fn model<M: Module>(mut self, name: &str, model: &M) -> Self {
        self.path.push(name.to_owned());
        // Running statistics hold back their newest update until `valid` applies it.
        model.valid().visit(&mut self);
        self.path.pop();
        self
    }

    /// Adds the state of an optimizer.
    ///
    /// # Errors
    ///
    /// When Burn can't write it as a record.
    pub fn optimizer(mut self, name: &str, optimizer: &ModuleOptimizer) -> anyhow::Result<Self> {
        let reader = Reader::from_bytes(optimizer.to_record().into_bytes()?)?;
        let paths = reader.metadata().clone();
        // The ids of the parameters differ in each process; their paths are the same.
        let path = |name: &str| match name.split_once('.') {
            Some((id, field)) => match paths.get(id) {
                Some(path) => format!("{path}: {field}"),
                None => name.to_owned(),
            },
            None => name.to_owned(),
        };
        let mut entries: BTreeMap<_, _> = reader
            .scalars()
            .iter()
            .map(|(name, value)| (path(name), format!("{value:?}").into_bytes()))
            .collect();
        for tensor in reader.into_tensors()? {
            let (name, dtype, shape, _, bytes) = tensor.into_parts()?;
            let mut entry = format!("{dtype:?}{shape:?}").into_bytes();
            entry.extend_from_slice(&bytes);
            entries.insert(path(&name), entry);
        }
        self.hash.update(name.as_bytes());
        for (path, entry) in entries {
            self.hash.update(path.as_bytes());
            self.hash.update(&entry);
        }
        Ok(self)
    }

    /// Adds a value, as `Debug` writes it.
    #[must_use]
    pub fn value(mut self, name: &str, value: &impl Debug) -> Self {
        self.hash.update(format!("{name}{value:?}").as_bytes());
        self
    }

    /// The digest.
    pub fn finish(self) -> String {
        format!("{:032x}", self.hash.digest128())
    }

    fn add(&mut self, data: TensorData) {
        self.hash.update(self.path.join(".").as_bytes());
        self.hash
            .update(format!("{:?}{:?}", data.shape(), data.dtype()).as_bytes());
        self.hash.update(data.as_bytes());
    }
}

impl ModuleVisitor for Digest {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add(param.val().into_data());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.add(param.val().into_data());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.add(param.val().into_data());
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}
