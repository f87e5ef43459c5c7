//! The export formats for records.

pub mod burnpack;
pub mod safetensors;
