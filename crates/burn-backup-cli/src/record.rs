//! Reads Burn's records in the burnpack format lazily from the parts of a generation.
//!
//! `burn-pack` itself reads from a path, which a training may prune meanwhile, or from memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use burn_backup_store::{OpenGeneration, PartReader};
use burn_pack::{
    Bytes, DType, Error as PackError, HEADER_SIZE, Header, MAX_CBOR_RECURSION_DEPTH,
    MAX_METADATA_SIZE, MAX_TENSOR_COUNT, MAX_TENSOR_SIZE, Scalar, Tensor,
    aligned_data_section_start,
};
use serde::Deserialize;

/// The contents of a record, without the tensors' bytes.
#[derive(Debug, Default)]
pub struct Record {
    /// By name.
    pub tensors: BTreeMap<String, Entry>,
    pub scalars: BTreeMap<String, Scalar>,
    pub metadata: BTreeMap<String, String>,
}

/// A tensor of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The part that contains it.
    pub part: String,
    pub dtype: DType,
    pub shape: Vec<u64>,
    pub param_id: Option<u64>,
    /// Its offset in the part, in bytes.
    pub offset: u64,
    pub bytes: u64,
}

/// The metadata of a burnpack file, as `burn-pack` reads and writes it.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    tensors: BTreeMap<String, Descriptor>,
    #[serde(default)]
    scalars: BTreeMap<String, Scalar>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Descriptor {
    dtype: DType,
    shape: Vec<u64>,
    /// Relative to the start of the data section.
    data_offsets: (u64, u64),
    #[serde(default)]
    param_id: Option<u64>,
}

impl Record {
    /// Reads a part as a record.
    pub fn read(part: &PartReader) -> Result<Self> {
        let file = &part.entry().file;
        read(part).with_context(|| format!("'{file}' can't be read as a record of Burn's"))
    }

    /// Merges two records.
    pub fn merge(mut self, other: Self) -> Result<Self> {
        for (name, entry) in other.tensors {
            let (part, name) = (entry.part.clone(), name);
            if let Some(twice) = self.tensors.insert(name.clone(), entry) {
                bail!("the tensor '{name}' is in '{}' and in '{part}'", twice.part);
            }
        }
        self.scalars.extend(other.scalars);
        self.metadata.extend(other.metadata);
        Ok(self)
    }

    /// The length of all tensors, in bytes.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.bytes).sum()
    }
}

fn read(part: &PartReader) -> Result<Record> {
    let mut header = [0; HEADER_SIZE];
    part.read(0, &mut header)?;
    let header = Header::from_bytes(&header)?;
    ensure!(
        header.version <= burn_pack::FORMAT_VERSION,
        "the record has a newer format than this program supports"
    );
    ensure!(
        header.metadata_size <= MAX_METADATA_SIZE,
        "the record's metadata is too long"
    );
    let length = header.metadata_size as usize;
    let mut encoded = vec![0; length];
    part.read(HEADER_SIZE as u64, &mut encoded)?;
    let metadata: Metadata = ciborium::de::from_reader_with_recursion_limit(
        encoded.as_slice(),
        MAX_CBOR_RECURSION_DEPTH,
    )
    .context("the record's metadata can't be read")?;
    ensure!(
        metadata.tensors.len() <= MAX_TENSOR_COUNT,
        "the record has too many tensors"
    );
    let data = aligned_data_section_start(length) as u64;
    let entry = |(name, descriptor): (String, Descriptor)| {
        let entry = located(part, data, descriptor);
        let entry = entry.with_context(|| {
            format!("the tensor '{name}' has an invalid offset, length or shape")
        })?;
        Ok((name, entry))
    };
    Ok(Record {
        tensors: metadata
            .tensors
            .into_iter()
            .map(entry)
            .collect::<Result<_>>()?,
        scalars: metadata.scalars,
        metadata: metadata.metadata,
    })
}

fn located(part: &PartReader, data: u64, descriptor: Descriptor) -> Option<Entry> {
    let Descriptor {
        dtype,
        shape,
        data_offsets: (start, end),
        param_id,
    } = descriptor;
    let bytes = end.checked_sub(start)?;
    let offset = data.checked_add(start)?;
    let is_inside = offset.checked_add(bytes)? <= part.entry().bytes;
    // Only burn-pack knows the length of a quantized tensor.
    let is_known = !matches!(dtype, DType::QFloat(_));
    let elements = shape
        .iter()
        .try_fold(1_u64, |product, size| product.checked_mul(*size))?;
    let is_of_its_shape = !is_known || elements.checked_mul(dtype.size() as u64)? == bytes;
    let is_possible = is_inside && is_of_its_shape && bytes <= MAX_TENSOR_SIZE as u64;
    is_possible.then(|| Entry {
        part: part.entry().name.clone(),
        dtype,
        shape,
        param_id,
        offset,
        bytes,
    })
}

impl Entry {
    /// Reads the whole tensor.
    pub fn read(&self, generation: &OpenGeneration) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.bytes)?];
        self.part_of(generation)?.read(self.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The part that contains it.
    pub fn part_of<'g>(&self, generation: &'g OpenGeneration) -> Result<&'g PartReader> {
        let part = generation.part(&self.part);
        part.with_context(|| format!("the part '{}' is missing", self.part))
    }

    /// The tensor for burn-pack, which reads it lazily.
    pub fn deferred<G>(&self, name: &str, generation: &Arc<G>) -> Result<Tensor>
    where
        G: std::ops::Deref<Target = OpenGeneration> + Send + Sync + 'static,
    {
        let (entry, generation) = (self.clone(), generation.clone());
        let shape = self.shape.iter().map(|size| usize::try_from(*size));
        let shape = shape.collect::<Result<Vec<_>, _>>()?;
        let read = move || {
            let bytes = entry.read(&generation);
            let bytes = bytes.map_err(|error| PackError::IoError(format!("{error:#}")))?;
            Ok(Bytes::from_bytes_vec(bytes))
        };
        let length = usize::try_from(self.bytes)?;
        Ok(Tensor::deferred(
            name.to_owned(),
            self.dtype,
            shape,
            self.param_id,
            length,
            read,
        ))
    }
}
