//! A model's fingerprint: the names, shapes and dtypes of its parameters.

use std::collections::HashMap;
use std::fmt;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Device, Int, Shape, Tensor};
use burn_pack::Tensor as RecordTensor;
use serde::{Deserialize, Serialize, Serializer};

/// One parameter, as its record describes it. It is serialized as a list of its fields, which is short. It is also
/// deserialized from the object that earlier versions wrote.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ParamSpec {
    pub path: String,
    pub shape: Vec<usize>,
    pub dtype: String,
}

impl Serialize for ParamSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.path, &self.shape, &self.dtype).serialize(serializer)
    }
}

impl fmt::Display for ParamSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.shape, self.dtype)
    }
}

/// A parameter that differs between a backup and the program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParamDifference {
    /// The parameter's path in the model, such as `conv1.weight`.
    pub path: String,
    /// Shape and dtype in the backup; `None` if the backup has no such parameter.
    pub backup: Option<String>,
    /// Shape and dtype in the program; `None` if the program has no such parameter.
    pub program: Option<String>,
}

impl fmt::Display for ParamDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |spec: &Option<String>| spec.clone().unwrap_or_else(|| "absent".to_owned());
        let (backup, program) = (side(&self.backup), side(&self.program));
        write!(
            f,
            "'{}' is {backup} in the backup and {program} in the program",
            self.path
        )
    }
}

/// The parameters that these record tensors belong to.
pub(crate) fn of_tensors(tensors: &[RecordTensor]) -> Vec<ParamSpec> {
    let specs = tensors.iter().map(|tensor| ParamSpec {
        path: tensor.name.clone(),
        shape: tensor.shape.to_vec(),
        dtype: dtype_name(tensor.dtype),
    });
    specs.collect()
}

/// The parameters that differ between the `recorded` model and the program's `model`, in the program's order.
/// A lazy parameter stays uninitialized if it agrees with the record.
pub(crate) fn differences<M: Module>(recorded: &[ParamSpec], model: &M) -> Vec<ParamDifference> {
    let recorded_by_path: HashMap<_, _> = recorded
        .iter()
        .map(|spec| (spec.path.as_str(), spec))
        .collect();
    let mut collector = Collector {
        recorded: &recorded_by_path,
        path: Vec::new(),
        params: Vec::new(),
    };
    model.visit(&mut collector);
    differences_between(recorded, &collector.params)
}

/// The parameters that differ between the `recorded` and the `expected` ones, in the program's order.
pub(crate) fn differences_between(
    recorded: &[ParamSpec],
    expected: &[ParamSpec],
) -> Vec<ParamDifference> {
    let recorded_by_path: HashMap<_, _> = recorded
        .iter()
        .map(|spec| (spec.path.as_str(), spec))
        .collect();
    let changed = expected.iter().filter_map(|program| {
        let backup = recorded_by_path.get(program.path.as_str());
        (backup != Some(&program)).then(|| ParamDifference {
            path: program.path.clone(),
            backup: backup.map(|spec| spec.to_string()),
            program: Some(program.to_string()),
        })
    });
    let in_program: HashMap<_, _> = expected.iter().map(|s| (s.path.as_str(), s)).collect();
    let gone = recorded
        .iter()
        .filter(|spec| !in_program.contains_key(spec.path.as_str()))
        .map(|spec| ParamDifference {
            path: spec.path.clone(),
            backup: Some(spec.to_string()),
            program: None,
        });
    changed.chain(gone).collect()
}

struct Collector<'a> {
    recorded: &'a HashMap<&'a str, &'a ParamSpec>,
    path: Vec<String>,
    params: Vec<ParamSpec>,
}

/// The properties of a parameter that are known without initialising it.
struct ParamInfo {
    shape: Shape,
    is_initialized: bool,
    device: Device,
}

impl Collector<'_> {
    fn add(
        &mut self,
        outline: impl FnOnce() -> ParamInfo,
        saved: impl FnOnce() -> DType,
        default_dtype: impl FnOnce(&Device) -> DType,
    ) {
        let path = self.path.join(".");
        let recorded = self.recorded.get(path.as_str());
        let ParamInfo {
            shape,
            is_initialized,
            device,
        } = outline();
        let default = default_dtype(&device);
        let agrees = |dtype: DType| recorded.is_some_and(|r| r.dtype == dtype_name(dtype));
        // Only an initialised parameter knows its type for sure.
        let dtype = if is_initialized || !agrees(default) {
            saved()
        } else {
            default
        };
        self.params.push(ParamSpec {
            path,
            shape: shape.to_vec(),
            dtype: dtype_name(dtype),
        });
    }
}

/// The three kinds of parameters differ in type only.
macro_rules! visit_kind {
    ($method:ident, $kind:ty, $setting:ident) => {
        fn $method<const D: usize>(&mut self, param: &Param<Tensor<D, $kind>>) {
            self.add(
                || ParamInfo {
                    shape: param.lazy_shape(),
                    is_initialized: param.is_initialized(),
                    device: param.lazy_device(),
                },
                || param.transform_for_save().val().dtype(),
                |device| device.settings().$setting.into(),
            );
        }
    };
}

impl ModuleVisitor for Collector<'_> {
    visit_kind!(visit_float, burn::tensor::Float, float_dtype);
    visit_kind!(visit_int, Int, int_dtype);
    visit_kind!(visit_bool, Bool, bool_dtype);

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

fn dtype_name(dtype: DType) -> String {
    match dtype {
        DType::QFloat(scheme) => format!("{scheme:?}"),
        dtype => dtype.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_written_as_a_list_and_read_as_earlier_versions_wrote_it_too() {
        let spec = ParamSpec {
            path: "layer.weight".to_owned(),
            shape: vec![3, 5],
            dtype: "f32".to_owned(),
        };
        let list = r#"["layer.weight",[3,5],"f32"]"#;
        assert_eq!(serde_json::to_string(&spec).unwrap(), list);
        let object = r#"{"path":"layer.weight","shape":[3,5],"dtype":"f32"}"#;
        for text in [list, object] {
            assert_eq!(serde_json::from_str::<ParamSpec>(text).unwrap(), spec);
        }
    }
}
