//! The tensors of a model, in the form in which Burn records them. They are read lazily.

use std::collections::HashSet;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, DType, Int, Shape, Tensor, TensorData};
use burn_pack::Tensor as RecordTensor;

use crate::burn_api::DeviceRead;

/// The model's tensors, in the order of a traversal. Each keeps the model's memory alive until it
/// is read. `read` says how tensors are read from their device.
pub(crate) fn tensors<M: Module>(model: &M, read: DeviceRead) -> Vec<RecordTensor> {
    let mut collector = Collector {
        read,
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    collector.tensors
}

/// The names, shapes and types of the model's tensors. Lazy parameters are not initialised, and the
/// contents of the tensors can't be read.
pub(crate) fn outline<M: Module>(model: &M) -> Vec<RecordTensor> {
    let mut outline = OutlineCollector::default();
    model.visit(&mut outline);
    outline.tensors
}

/// Initialises the parameters that are still lazy, in the order of a traversal.
pub(crate) fn initialize<M: Module>(model: &M) {
    struct Initialize;

    impl ModuleVisitor for Initialize {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            drop(param.val());
        }

        fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
            drop(param.val());
        }

        fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
            drop(param.val());
        }
    }

    model.visit(&mut Initialize);
}

/// The paths of the parameters without a gradient: frozen parameters, parameters that are not
/// floats, and running statistics. Running statistics change without a gradient.
pub(crate) fn without_gradient<M: Module>(model: &M) -> HashSet<String> {
    let mut finder = WithoutGradient::default();
    model.visit(&mut finder);
    finder.paths
}

struct Collector {
    read: DeviceRead,
    path: Vec<String>,
    tensors: Vec<RecordTensor>,
}

impl Collector {
    fn add(
        &mut self,
        id: ParamId,
        (shape, dtype): (Shape, DType),
        data: impl Fn() -> TensorData + Send + Sync + 'static,
    ) {
        let (name, id) = (self.path.join("."), Some(id.val()));
        let tensor = match dtype {
            // Only the data tell the length of a quantized tensor, so Burn reads them at once.
            DType::QFloat(_) => {
                let bytes = data().into_parts().0.shared();
                RecordTensor::new(name, dtype, shape, id, bytes)
            }
            _ => {
                let (len, read) = (shape.num_elements() * dtype.size(), self.read);
                RecordTensor::deferred(name, dtype, shape, id, len, move || {
                    let bytes = data().into_parts().0;
                    read.look_at(&bytes).map(|()| bytes)
                })
            }
        };
        self.tensors.push(tensor);
    }
}

/// The three kinds of parameters differ in type only.
macro_rules! collect_kind {
    ($method:ident, $kind:ty) => {
        fn $method<const D: usize>(&mut self, param: &Param<Tensor<D, $kind>>) {
            // Save the form that is loaded: a layer may store its weights transposed.
            let tensor = param.transform_for_save().val();
            let form = (tensor.shape(), tensor.dtype());
            self.add(param.id, form, move || tensor.to_data());
        }
    };
}

impl ModuleVisitor for Collector {
    collect_kind!(visit_float, burn::tensor::Float);
    collect_kind!(visit_int, Int);
    collect_kind!(visit_bool, Bool);

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

#[derive(Default)]
struct OutlineCollector {
    path: Vec<String>,
    tensors: Vec<RecordTensor>,
}

/// The three kinds of parameters differ in type only.
macro_rules! outline_kind {
    ($method:ident, $kind:ty, $setting:ident) => {
        fn $method<const D: usize>(&mut self, param: &Param<Tensor<D, $kind>>) {
            let dtype = match param.is_initialized() {
                true => param.val().dtype(),
                false => param.lazy_device().settings().$setting.into(),
            };
            let (name, shape) = (self.path.join("."), param.lazy_shape());
            let len = shape.num_elements().saturating_mul(dtype.size());
            let unread = || Err(burn_pack::Error::ValidationError("an outline".to_owned()));
            let id = Some(param.id.val());
            let tensor = RecordTensor::deferred(name, dtype, shape, id, len, unread);
            self.tensors.push(tensor);
        }
    };
}

impl ModuleVisitor for OutlineCollector {
    outline_kind!(visit_float, burn::tensor::Float, float_dtype);
    outline_kind!(visit_int, Int, int_dtype);
    outline_kind!(visit_bool, Bool, bool_dtype);

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

#[derive(Default)]
struct WithoutGradient {
    path: Vec<String>,
    paths: HashSet<String>,
}

impl ModuleVisitor for WithoutGradient {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.val().is_require_grad() {
            self.paths.insert(self.path.join("."));
        }
    }

    fn visit_int<const D: usize>(&mut self, _param: &Param<Tensor<D, Int>>) {
        self.paths.insert(self.path.join("."));
    }

    fn visit_bool<const D: usize>(&mut self, _param: &Param<Tensor<D, Bool>>) {
        self.paths.insert(self.path.join("."));
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}
