//! The formats that records are exported in.

pub mod burnpack;
pub mod safetensors;
