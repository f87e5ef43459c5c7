//! A short hash of all the weights of a model.

use burn::backend::ExecutionError;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Tensor, TensorData};
use xxhash_rust::xxh3::Xxh3;

/// The XXH3 hash of all parameters: their paths, shapes and bytes. Two models have the same digest if and
/// only if they have the same weights (except for hash collisions).
pub fn of<M: Module>(model: &M) -> anyhow::Result<String> {
    let mut digest = Digest::default();
    model.visit(&mut digest);
    if let Some(error) = digest.error {
        anyhow::bail!("cannot read the weights from the device: {error}");
    }
    Ok(format!("{:032x}", digest.hash.digest128()))
}

#[derive(Default)]
struct Digest {
    path: Vec<String>,
    hash: Xxh3,
    /// The last failure to read, because the server may disappear at any time.
    error: Option<ExecutionError>,
}

impl Digest {
    fn add(&mut self, data: Result<TensorData, ExecutionError>) {
        let data = match data {
            Ok(data) => data,
            Err(error) => {
                self.error = Some(error);
                return;
            }
        };
        self.hash.update(self.path.join(".").as_bytes());
        self.hash
            .update(format!("{:?}{:?}", data.shape(), data.dtype()).as_bytes());
        self.hash.update(data.as_bytes());
    }
}

impl ModuleVisitor for Digest {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add(param.val().try_into_data());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.add(param.val().try_into_data());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.add(param.val().try_into_data());
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}
