//! Records in the burnpack format, made one tensor after the other. `burn-pack` itself writes to a
//! file that it opens, or into one buffer as large as the record; backups need neither.

use std::collections::BTreeMap;

use burn::store::RecordError;
use burn::tensor::{Bytes, DType};
use burn_pack::{Header, Scalar, TENSOR_ALIGNMENT, Tensor, aligned_data_section_start};
use serde::Serialize;

/// How much of a tensor that is still on its device, or in a file, is read at a time.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// What goes into a record. The tensors' bytes may still be on their device.
#[derive(Default)]
pub(crate) struct Container {
    pub tensors: Vec<Tensor>,
    pub scalars: BTreeMap<String, Scalar>,
    pub metadata: BTreeMap<String, String>,
}

/// Some of a container's bytes.
pub(crate) struct Chunk {
    pub bytes: Bytes,
    /// The tensor whose bytes these are.
    pub tensor: Option<(String, DType)>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Chunk {
    fn between_tensors(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Bytes::from_bytes_vec(bytes),
            tensor: None,
        }
    }
}

/// The metadata of a burnpack file, as `burn-pack` reads it.
#[derive(Serialize)]
struct Metadata<'a> {
    tensors: BTreeMap<&'a str, Descriptor>,
    #[serde(skip_serializing_if = "is_empty")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_empty")]
    scalars: &'a BTreeMap<String, Scalar>,
}

#[derive(Serialize)]
struct Descriptor {
    dtype: DType,
    shape: Vec<u64>,
    /// From the start of the data.
    data_offsets: (u64, u64),
    #[serde(skip_serializing_if = "Option::is_none")]
    param_id: Option<u64>,
}

fn is_empty<V>(map: &&BTreeMap<String, V>) -> bool {
    map.is_empty()
}

impl From<Vec<Tensor>> for Container {
    fn from(tensors: Vec<Tensor>) -> Self {
        Self {
            tensors,
            ..Self::default()
        }
    }
}

impl Container {
    /// Gives `sink` the bytes of the file, from its start to its end. Each tensor is read when its
    /// turn comes, and gone when `sink` has dropped its chunks.
    pub(crate) fn stream<E>(
        self,
        failed: impl Fn(RecordError) -> E,
        mut sink: impl FnMut(Chunk) -> Result<(), E>,
    ) -> Result<(), E> {
        let (prefix, starts) = self.plan().map_err(&failed)?;
        sink(Chunk::between_tensors(prefix))?;
        let mut at = 0;
        for (tensor, start) in self.tensors.into_iter().zip(starts) {
            if start > at {
                sink(Chunk::between_tensors(vec![0; start - at]))?;
            }
            at = start + tensor.byte_len();
            let (name, dtype) = (tensor.name.clone(), tensor.dtype);
            let bytes = tensor.into_bytes().map_err(|error| failed(error.into()))?;
            for bytes in windows(bytes) {
                let tensor = Some((name.clone(), dtype));
                sink(Chunk { bytes, tensor })?;
            }
        }
        Ok(())
    }

    /// Everything before the data, and where in the data each tensor starts.
    fn plan(&self) -> Result<(Vec<u8>, Vec<usize>), RecordError> {
        let mut descriptors = BTreeMap::new();
        let mut starts = Vec::with_capacity(self.tensors.len());
        let mut end = 0_usize;
        for tensor in &self.tensors {
            let start = end.next_multiple_of(TENSOR_ALIGNMENT as usize);
            end = start + tensor.byte_len();
            starts.push(start);
            let descriptor = Descriptor {
                dtype: tensor.dtype,
                shape: tensor.shape.iter().map(|size| *size as u64).collect(),
                data_offsets: (start as u64, end as u64),
                param_id: tensor.param_id,
            };
            if descriptors
                .insert(tensor.name.as_str(), descriptor)
                .is_some()
            {
                return Err(RecordError::Io(format!(
                    "two tensors have the name '{}'",
                    tensor.name
                )));
            }
        }
        let metadata = Metadata {
            tensors: descriptors,
            metadata: &self.metadata,
            scalars: &self.scalars,
        };
        let mut encoded = Vec::new();
        ciborium::into_writer(&metadata, &mut encoded)
            .map_err(|error| RecordError::Io(error.to_string()))?;
        let len = u32::try_from(encoded.len())
            .map_err(|_| RecordError::Io("the record has too many tensors".to_owned()))?;
        let mut prefix = Header::new(len).into_bytes().to_vec();
        prefix.append(&mut encoded);
        prefix.resize(aligned_data_section_start(len as usize), 0);
        Ok((prefix, starts))
    }
}

/// The bytes of a tensor: in one piece if they are in memory, or in windows that are read one by one.
fn windows(bytes: Bytes) -> Vec<Bytes> {
    let len = bytes.len();
    let windows: Option<Vec<_>> = (0..len)
        .step_by(WINDOW_BYTES)
        .map(|start| bytes.view(start, len.min(start + WINDOW_BYTES)).ok())
        .collect();
    windows.unwrap_or_else(|| vec![bytes])
}

#[cfg(test)]
mod tests {
    use burn_pack::Writer;

    use super::*;

    fn tensor(name: &str, dtype: DType, shape: [usize; 2]) -> Tensor {
        let len = shape[0] * shape[1] * dtype.size();
        let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let id = (name.len() > 2).then_some(7);
        Tensor::deferred(name.to_owned(), dtype, shape.to_vec(), id, len, move || {
            Ok(Bytes::from_bytes_vec(bytes.clone()))
        })
    }

    fn streamed(container: Container) -> Vec<u8> {
        let mut bytes = Vec::new();
        let streamed = container.stream(
            |error| error,
            |chunk| {
                bytes.extend_from_slice(chunk.as_ref());
                Ok(())
            },
        );
        streamed.unwrap();
        bytes
    }

    #[test]
    fn a_record_has_the_bytes_that_burn_pack_gives_it() {
        let tensors = || {
            vec![
                tensor("layer.weight", DType::F32, [3, 5]),
                tensor("b", DType::F64, [1, 1]),
                tensor("empty", DType::F16, [0, 4]),
                tensor("large", DType::BF16, [1024, 512]),
                tensor("id", DType::I64, [2, 2]),
            ]
        };
        let theirs = Writer::new(tensors()).into_bytes().unwrap();
        assert_eq!(streamed(tensors().into()), &theirs[..]);

        let nothing = Writer::new(Vec::new()).into_bytes().unwrap();
        assert_eq!(streamed(Container::default()), &nothing[..]);

        let (step, path) = (Scalar::from(5_u64), "layer.weight".to_owned());
        let theirs = Writer::new(tensors())
            .with_scalar("7.step", step)
            .with_metadata("7", &path)
            .into_bytes();
        let container = Container {
            tensors: tensors(),
            scalars: [("7.step".to_owned(), step)].into(),
            metadata: [("7".to_owned(), path)].into(),
        };
        assert_eq!(streamed(container), &theirs.unwrap()[..]);
    }

    #[test]
    fn a_tensor_that_is_not_in_memory_is_read_window_by_window() {
        let len = 2 * WINDOW_BYTES + 3;
        let bytes: Vec<u8> = (0..len).map(|at| (at / 1000) as u8).collect();
        let windows = windows(Bytes::from_bytes_vec(bytes.clone()).shared());
        let lengths: Vec<_> = windows.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [WINDOW_BYTES, WINDOW_BYTES, 3]);
        let joined: Vec<u8> = windows.iter().flat_map(|window| window.to_vec()).collect();
        assert!(joined == bytes);
    }

    #[test]
    fn two_tensors_of_one_name_are_an_error() {
        let twice = vec![
            tensor("a", DType::F32, [1, 1]),
            tensor("a", DType::F32, [1, 1]),
        ];
        let outcome = Container::from(twice).stream(|error| error, |_| Ok(()));
        assert!(outcome.unwrap_err().to_string().contains("'a'"));
    }
}
