//! The [safetensors](https://huggingface.co/docs/safetensors) format: the length of the header, the header as JSON, and
//! the tensors' bytes.
//!
//! The crate `safetensors` only writes tensors that are all in memory. Therefore this module creates the header itself,
//! and reads one tensor at a time. The crate checks the header before anything is written.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use burn_backup_store::OpenGeneration;
use burn_pack::{DType, Scalar};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Serialize;
use serde_json::Value;

use crate::atomic_write;
use crate::exit::{Exit, refuse};
use crate::record::{Entry, Record};

const METADATA: &str = "__metadata__";

/// The size of the header's length field, in bytes.
const LENGTH: usize = 8;

/// The header is padded to a multiple of this length.
const ALIGNMENT: usize = 8;

/// A tensor's entry in the header.
#[derive(Serialize)]
struct Info {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Refuses a record with a tensor that the format has no type for.
pub fn check(record: &Record) -> Result<()> {
    record
        .tensors
        .iter()
        .try_for_each(|(name, entry)| dtype(name, entry).map(drop))
}

/// Writes a record. Its scalars and its metadata become the metadata of the file.
pub fn write(
    generation: &OpenGeneration,
    record: &Record,
    path: &Path,
    is_forced: bool,
) -> Result<()> {
    let order = ordered(record);
    let header = header(record, &order)?;
    atomic_write::write(path, is_forced, |file| {
        let mut put = |bytes: &[u8]| {
            let written = file.write_all(bytes);
            written
                .with_context(|| format!("cannot write '{}': check the free space", path.display()))
        };
        put(&header)?;
        for (_, entry) in &order {
            put(&converted(entry, entry.read(generation)?))?;
        }
        Ok(())
    })
}

/// The tensors with the largest elements first, so that each is aligned. The crate uses the same order.
fn ordered(record: &Record) -> Vec<(&String, &Entry)> {
    let mut order: Vec<_> = record.tensors.iter().collect();
    order.sort_by(|(a_name, a), (b_name, b)| {
        b.dtype
            .size()
            .cmp(&a.dtype.size())
            .then_with(|| a_name.cmp(b_name))
    });
    order
}

fn header(record: &Record, order: &[(&String, &Entry)]) -> Result<Vec<u8>> {
    let mut members: BTreeMap<&str, Value> = BTreeMap::new();
    let scalars = record
        .scalars
        .iter()
        .map(|(name, value)| (name.clone(), text(*value)));
    let texts = record
        .metadata
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    let metadata: BTreeMap<String, String> = texts.chain(scalars).collect();
    if !metadata.is_empty() {
        members.insert(METADATA, serde_json::to_value(metadata)?);
    }
    let mut start = 0;
    for (name, entry) in order {
        let end = start + converted_bytes(entry);
        let info = Info {
            dtype: dtype(name, entry)?,
            shape: entry.shape.clone(),
            data_offsets: (start, end),
        };
        members.insert(name, serde_json::to_value(info)?);
        start = end;
    }
    let mut json = serde_json::to_vec(&members)?;
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    let read = serde_json::from_slice::<Metadata>(header.get(LENGTH..).unwrap_or_default());
    read.context("safetensors can't read the header")?;
    Ok(header)
}

fn text(value: Scalar) -> String {
    match value {
        Scalar::Int(value) => value.to_string(),
        Scalar::UInt(value) => value.to_string(),
        Scalar::Float(value) => value.to_string(),
        Scalar::Bool(value) => value.to_string(),
    }
}

fn dtype(name: &str, entry: &Entry) -> Result<Dtype> {
    Ok(match entry.dtype {
        DType::F64 => Dtype::F64,
        DType::F32 | DType::Flex32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool(_) => Dtype::BOOL,
        DType::QFloat(_) => {
            return Err(refuse(
                Exit::Failed,
                format!(
                    "the tensor '{name}' is quantized, and safetensors has no type for that; nothing was written: use --format burnpack"
                ),
            ));
        }
    })
}

/// The tensor's size in the file.
fn converted_bytes(entry: &Entry) -> u64 {
    match entry.dtype {
        DType::Bool(_) => entry.bytes / (entry.dtype.size().max(1) as u64),
        _ => entry.bytes,
    }
}

/// The tensor's bytes in the file. Booleans are one byte each.
fn converted(entry: &Entry, bytes: Vec<u8>) -> Vec<u8> {
    match entry.dtype {
        DType::Bool(_) => {
            let elements = bytes.chunks_exact(entry.dtype.size().max(1));
            elements
                .map(|element| u8::from(element.iter().any(|byte| *byte != 0)))
                .collect()
        }
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(dtype: DType, shape: &[u64], bytes: u64) -> Entry {
        Entry {
            part: "model".to_owned(),
            dtype,
            shape: shape.to_vec(),
            param_id: None,
            offset: 0,
            bytes,
        }
    }

    fn record(tensors: &[(&str, Entry)]) -> Record {
        let tensors = tensors
            .iter()
            .map(|(name, entry)| ((*name).to_owned(), entry.clone()));
        Record {
            tensors: tensors.collect(),
            ..Record::default()
        }
    }

    #[test]
    fn the_crate_reads_the_header() {
        let mut record = record(&[
            ("a", entry(DType::U8, &[3], 3)),
            ("b", entry(DType::F64, &[2, 1], 16)),
            ("c", entry(DType::BF16, &[], 2)),
        ]);
        record.scalars.insert("1.step".to_owned(), Scalar::UInt(7));
        let header = header(&record, &ordered(&record)).unwrap();
        assert_eq!(header.len() % ALIGNMENT, 0);
        let metadata: Metadata = serde_json::from_slice(&header[LENGTH..]).unwrap();
        assert_eq!(metadata.info("b").unwrap().data_offsets, (0, 16));
        assert_eq!(metadata.info("c").unwrap().data_offsets, (16, 18));
        assert_eq!(metadata.info("a").unwrap().data_offsets, (18, 21));
        assert_eq!(metadata.metadata().as_ref().unwrap()["1.step"], "7");
    }

    #[test]
    fn booleans_have_one_byte() {
        use burn_pack::DType::Bool;
        let dtype: DType = serde_json::from_str(r#"{"Bool":"U32"}"#).unwrap();
        assert!(matches!(dtype, Bool(_)));
        let entry = entry(dtype, &[2], 8);
        assert_eq!(converted_bytes(&entry), 2);
        assert_eq!(converted(&entry, vec![0, 0, 0, 0, 0, 1, 0, 0]), [0, 1]);
    }
}
