//! Writes and reads records in the burnpack format, one tensor after the other. `burn-pack` itself only uses a file
//! that it opens, or one buffer as large as the record.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use burn::store::RecordError;
use burn::tensor::{Bytes, DType};
use burn_backup_store::{Buffer, Chunking};
use burn_pack::{
    Error as PackError, HEADER_SIZE, Header, MAX_CBOR_RECURSION_DEPTH, MAX_METADATA_SIZE,
    MAX_TENSOR_COUNT, MAX_TENSOR_SIZE, Reader, Scalar, TENSOR_ALIGNMENT, Tensor,
    aligned_data_section_start,
};
use serde::{Deserialize, Serialize};

use super::{DeviceRead, host_memory};

/// The size of one read of a tensor that is still on its device or in a file.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// The contents of a record. The tensors' bytes may still be on their device.
#[derive(Default)]
pub(crate) struct Container {
    pub tensors: Vec<Tensor>,
    pub scalars: BTreeMap<String, Scalar>,
    pub metadata: BTreeMap<String, String>,
}

/// A piece of a container's bytes.
pub(crate) struct Chunk {
    pub bytes: Bytes,
    /// The tensor that the bytes belong to.
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

/// The layout of a container.
struct Plan {
    /// Everything before the data.
    prefix: Vec<u8>,
    /// The offset of each tensor from the start of the data.
    starts: Vec<usize>,
    /// The length of the metadata in the prefix.
    metadata_len: usize,
}

/// The metadata of a burnpack file, as `burn-pack` reads and writes it.
#[derive(Default, Serialize, Deserialize)]
struct Metadata {
    tensors: BTreeMap<String, Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    scalars: BTreeMap<String, Scalar>,
    /// The offset of the data in the file.
    #[serde(skip)]
    data_start: usize,
    /// The offset of the end of the metadata in the file.
    #[serde(skip)]
    end: usize,
}

#[derive(Serialize, Deserialize)]
struct Descriptor {
    dtype: DType,
    shape: Vec<u64>,
    /// Start and end, from the start of the data.
    data_offsets: (u64, u64),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    param_id: Option<u64>,
}

impl From<Vec<Tensor>> for Container {
    fn from(tensors: Vec<Tensor>) -> Self {
        Self {
            tensors,
            ..Self::default()
        }
    }
}

/// A property of a container that burn-pack's readers reject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExceededLimit {
    pub what: String,
    pub found: u64,
    pub limit: u64,
}

impl Container {
    /// Finds a property that `burn-pack` can write but refuses to read.
    pub(crate) fn exceeded_limit(&self) -> Result<Option<ExceededLimit>, RecordError> {
        let exceeds = |what: String, found: usize, limit: usize| {
            (found > limit).then_some(ExceededLimit {
                what,
                found: found as u64,
                limit: limit as u64,
            })
        };
        let count = self.tensors.len();
        if let Some(exceeded_limit) =
            exceeds("the number of tensors".to_owned(), count, MAX_TENSOR_COUNT)
        {
            return Ok(Some(exceeded_limit));
        }
        let largest = self.tensors.iter().max_by_key(|tensor| tensor.byte_len());
        let too_large = largest.and_then(|tensor| {
            let what = format!("the size of '{}' in bytes", tensor.name);
            exceeds(what, tensor.byte_len(), MAX_TENSOR_SIZE)
        });
        if too_large.is_some() {
            return Ok(too_large);
        }
        if self.metadata_bound() <= MAX_METADATA_SIZE as usize {
            return Ok(None);
        }
        let what = "the size of the tensors' names and shapes in bytes".to_owned();
        let encoded = self.plan()?.metadata_len;
        Ok(exceeds(what, encoded, MAX_METADATA_SIZE as usize))
    }

    /// An upper bound of the length of the metadata. Encoding the metadata takes long, and it is seldom near the
    /// limit.
    fn metadata_bound(&self) -> usize {
        /// More than an entry takes in addition to its name and shape.
        const ENTRY: usize = 512;
        let tensors = self.tensors.iter();
        let tensors = tensors.map(|tensor| ENTRY + tensor.name.len() + 9 * tensor.shape.num_dims());
        let scalars = self.scalars.keys().map(|name| ENTRY + name.len());
        let metadata = self.metadata.iter();
        let metadata = metadata.map(|(id, path)| ENTRY + id.len() + path.len());
        tensors.chain(scalars).chain(metadata).sum()
    }

    /// Reads all tensors that are still on a device.
    pub(crate) fn into_memory(self) -> Result<Self, RecordError> {
        let read = |tensor: Tensor| {
            let (name, dtype, shape, id, bytes) = tensor.into_parts()?;
            DeviceRead::Now.look_at(&bytes)?;
            Ok::<_, RecordError>(Tensor::new(name, dtype, shape, id, bytes))
        };
        let tensors = self.tensors.into_iter().map(read);
        Ok(Self {
            tensors: tensors.collect::<Result<_, _>>()?,
            ..self
        })
    }

    /// Passes the bytes of the file to `sink`, from start to end. Tensors are read lazily, and each is freed when
    /// `sink` has dropped its chunks.
    pub(crate) fn stream<E>(
        self,
        failed: impl Fn(RecordError) -> E,
        mut sink: impl FnMut(Chunk) -> Result<(), E>,
    ) -> Result<(), E> {
        let Plan { prefix, starts, .. } = self.plan().map_err(&failed)?;
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
                let read = DeviceRead::Now.look_at(&bytes);
                read.map_err(|error| failed(error.into()))?;
                let tensor = Some((name.clone(), dtype));
                sink(Chunk { bytes, tensor })?;
            }
        }
        Ok(())
    }

    fn plan(&self) -> Result<Plan, RecordError> {
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
                .insert(tensor.name.clone(), descriptor)
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
            metadata: self.metadata.clone(),
            scalars: self.scalars.clone(),
            ..Metadata::default()
        };
        let mut encoded = Vec::new();
        ciborium::into_writer(&metadata, &mut encoded)
            .map_err(|error| RecordError::Io(error.to_string()))?;
        let len = u32::try_from(encoded.len())
            .map_err(|_| RecordError::Io("the record has too many tensors".to_owned()))?;
        let mut prefix = Header::new(len).into_bytes().to_vec();
        prefix.append(&mut encoded);
        prefix.resize(aligned_data_section_start(len as usize), 0);
        Ok(Plan {
            prefix,
            starts,
            metadata_len: len as usize,
        })
    }
}

/// Reads the parts of this kind into one buffer per tensor, so that no tensor needs a copy. A part is of this kind if
/// its name is this one, or ends with a hyphen and this name.
pub(crate) struct PerTensor(pub &'static str);

impl PerTensor {
    fn is_of_kind(&self, part: &str) -> bool {
        part.strip_suffix(self.0)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('-'))
    }
}

impl Chunking for PerTensor {
    fn next_lengths(&self, part: &str, read: usize, last: &[u8]) -> Vec<usize> {
        let lengths = match read {
            _ if !self.is_of_kind(part) => None,
            0 => Some(vec![HEADER_SIZE]),
            1 => Header::from_bytes(last)
                .ok()
                .filter(|header| header.metadata_size <= MAX_METADATA_SIZE)
                .map(|header| vec![header.metadata_size as usize]),
            2 => Metadata::decode(last)
                .ok()
                .and_then(|metadata| metadata.lengths()),
            _ => None,
        };
        lengths.unwrap_or_default()
    }
}

impl Metadata {
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let decoded =
            ciborium::de::from_reader_with_recursion_limit(bytes, MAX_CBOR_RECURSION_DEPTH);
        let mut metadata: Self = decoded.map_err(|error| RecordError::Io(error.to_string()))?;
        // burn-pack refuses to read this, and its own error says why.
        if bytes.len() > MAX_METADATA_SIZE as usize || metadata.tensors.len() > MAX_TENSOR_COUNT {
            return Err(RecordError::Io(
                "the record exceeds burn-pack's limits".to_owned(),
            ));
        }
        metadata.data_start = aligned_data_section_start(bytes.len());
        metadata.end = HEADER_SIZE + bytes.len();
        Ok(metadata)
    }

    /// The offset of a tensor in the file, and its length.
    fn place(&self, descriptor: &Descriptor) -> Option<(usize, usize)> {
        let (start, end) = descriptor.data_offsets;
        let len = usize::try_from(end.checked_sub(start)?).ok()?;
        if len > MAX_TENSOR_SIZE {
            return None;
        }
        let start = self.data_start.checked_add(usize::try_from(start).ok()?)?;
        Some((start, len))
    }

    /// The lengths of the tensors and of the gaps between them, starting at the end of the metadata.
    fn lengths(&self) -> Option<Vec<usize>> {
        let descriptors = self.tensors.values();
        let mut places: Vec<_> = descriptors.map(|d| self.place(d)).collect::<Option<_>>()?;
        places.sort_unstable();
        let mut at = self.end;
        let mut lengths = Vec::new();
        for (start, len) in places {
            let gap = start.checked_sub(at)?;
            lengths.extend([gap, len].into_iter().filter(|len| *len > 0));
            at = start.checked_add(len)?;
        }
        Some(lengths)
    }
}

impl Container {
    /// The contents of a record. The tensors share the bytes of the record.
    pub(crate) fn from_bytes(bytes: Bytes) -> Result<Self, RecordError> {
        let reader = Reader::from_bytes(bytes)?;
        Ok(Self {
            scalars: reader.scalars().clone(),
            metadata: reader.metadata().clone(),
            tensors: reader.into_tensors()?,
        })
    }

    /// The contents of a record that was read in the pieces of [`PerTensor`].
    pub(crate) fn of_pieces(pieces: Vec<Buffer>) -> Result<Self, RecordError> {
        let metadata = pieces.get(1).and_then(|bytes| Metadata::decode(bytes).ok());
        let lengths = metadata.as_ref().and_then(Metadata::lengths);
        let is_cut = |lengths: &Vec<usize>| {
            lengths
                .iter()
                .copied()
                .eq(pieces.iter().skip(2).map(|piece| piece.len()))
        };
        match metadata {
            Some(metadata) if lengths.as_ref().is_some_and(is_cut) => metadata.assemble(pieces),
            // `from_bytes` returns an error that says what is wrong.
            _ => Self::from_bytes(host_memory::bytes(Buffer::concat(pieces))),
        }
    }
}

/// Fills a buffer from a file, starting at this offset.
pub(crate) type ReadAt = Arc<dyn Fn(u64, &mut [u8]) -> Result<(), RecordError> + Send + Sync>;

impl Container {
    /// The contents of a record in a file. Tensors are read lazily.
    pub(crate) fn deferred(read: ReadAt) -> Result<Self, RecordError> {
        let mut header = [0; HEADER_SIZE];
        read(0, &mut header)?;
        let header = Header::from_bytes(&header)?;
        if header.metadata_size > MAX_METADATA_SIZE {
            return Err(RecordError::Io(
                "the metadata of the record is too long".to_owned(),
            ));
        }
        let mut metadata = vec![0; header.metadata_size as usize];
        read(HEADER_SIZE as u64, &mut metadata)?;
        let metadata = Metadata::decode(&metadata)?;
        let tensor = |(name, descriptor): (&String, &Descriptor)| {
            let (start, len) = metadata.place(descriptor).ok_or_else(|| {
                RecordError::Io(format!(
                    "the record has an invalid offset for the tensor '{name}'"
                ))
            })?;
            let read = read.clone();
            let read = move || {
                let mut bytes = vec![0; len];
                let read = read(start as u64, &mut bytes);
                read.map_err(|error| PackError::IoError(error.to_string()))?;
                Ok(Bytes::from_bytes_vec(bytes))
            };
            let shape = descriptor.shape.iter().map(|size| *size as usize);
            let (dtype, id) = (descriptor.dtype, descriptor.param_id);
            let shape = shape.collect::<Vec<_>>();
            Ok(Tensor::deferred(name.clone(), dtype, shape, id, len, read))
        };
        let tensors = metadata.tensors.iter().map(tensor);
        Ok(Self {
            tensors: tensors.collect::<Result<_, RecordError>>()?,
            scalars: metadata.scalars,
            metadata: metadata.metadata,
        })
    }
}

impl Metadata {
    fn assemble(self, pieces: Vec<Buffer>) -> Result<Container, RecordError> {
        let mut at = 0;
        let mut by_start = HashMap::new();
        for piece in pieces {
            let len = piece.len();
            by_start.insert(at, piece);
            at += len;
        }
        let tensors = self.tensors.iter().map(|(name, descriptor)| {
            let Descriptor { dtype, shape, .. } = descriptor;
            let (start, len) = self.place(descriptor).unwrap_or_default();
            let bytes = match len {
                0 => Buffer::from(Vec::new()),
                _ => by_start.remove(&start).unwrap_or_else(|| Vec::new().into()),
            };
            let shape: Vec<_> = shape.iter().map(|size| *size as usize).collect();
            let elements = shape
                .iter()
                .try_fold(1_usize, |all, size| all.checked_mul(*size));
            let expected = elements.and_then(|elements| elements.checked_mul(dtype.size()));
            if expected != Some(bytes.len()) && !matches!(dtype, DType::QFloat(_)) {
                return Err(RecordError::Io(format!(
                    "the tensor '{name}' of shape {shape:?} has {} bytes",
                    bytes.len()
                )));
            }
            let bytes = host_memory::bytes(bytes);
            Ok(Tensor::new(
                name.clone(),
                *dtype,
                shape,
                descriptor.param_id,
                bytes,
            ))
        });
        Ok(Container {
            tensors: tensors.collect::<Result<_, _>>()?,
            scalars: self.scalars,
            metadata: self.metadata,
        })
    }
}

/// The bytes of a tensor: one piece if they are in memory, otherwise windows that are read one by one.
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
    use std::collections::VecDeque;

    use burn_pack::Writer;

    use super::*;

    fn buffers(pieces: Vec<Vec<u8>>) -> Vec<Buffer> {
        pieces.into_iter().map(Buffer::from).collect()
    }

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

    /// A tensor of this many bytes that can't be read.
    fn claimed(name: &str, bytes: usize) -> Tensor {
        let unread = || Err(burn_pack::Error::ValidationError("unread".to_owned()));
        Tensor::deferred(name.to_owned(), DType::U8, vec![bytes], None, bytes, unread)
    }

    #[test]
    fn records_that_burn_pack_would_refuse_exceed_a_limit() {
        let exceeded_limit =
            |tensors: Vec<Tensor>| Container::from(tensors).exceeded_limit().unwrap();
        let of = |what: &str, found: usize, limit: usize| {
            Some(ExceededLimit {
                what: what.to_owned(),
                found: found as u64,
                limit: limit as u64,
            })
        };
        let size = "the size of 'large' in bytes";
        assert_eq!(
            exceeded_limit(vec![claimed("large", MAX_TENSOR_SIZE)]),
            None
        );
        assert_eq!(
            exceeded_limit(vec![
                claimed("small", 1),
                claimed("large", MAX_TENSOR_SIZE + 1)
            ]),
            of(size, MAX_TENSOR_SIZE + 1, MAX_TENSOR_SIZE)
        );

        let many = |count: usize| (0..count).map(|at| claimed(&at.to_string(), 1)).collect();
        assert_eq!(exceeded_limit(many(MAX_TENSOR_COUNT)), None);
        assert_eq!(
            exceeded_limit(many(MAX_TENSOR_COUNT + 1)),
            of(
                "the number of tensors",
                MAX_TENSOR_COUNT + 1,
                MAX_TENSOR_COUNT
            )
        );

        let name = "x".repeat(MAX_METADATA_SIZE as usize);
        let found = exceeded_limit(vec![claimed(&name, 1)]).unwrap();
        assert!(found.what.contains("names"), "{}", found.what);
        assert!(found.found > found.limit);
    }

    #[test]
    fn nothing_above_burn_packs_limits_is_decoded() {
        let header = Header::new(MAX_METADATA_SIZE + 1).into_bytes();
        let chunking = PerTensor("model");
        assert_eq!(
            chunking.next_lengths("model", 1, &header),
            Vec::<usize>::new()
        );

        let descriptor = |end| Descriptor {
            dtype: DType::U8,
            shape: vec![end],
            data_offsets: (0, end),
            param_id: None,
        };
        let with = |tensors| Metadata {
            tensors,
            ..Metadata::default()
        };
        let encoded = |metadata: &Metadata| {
            let mut bytes = Vec::new();
            ciborium::into_writer(metadata, &mut bytes).unwrap();
            bytes
        };
        let lengths = |end| {
            let metadata = with(BTreeMap::from([("large".to_owned(), descriptor(end))]));
            chunking.next_lengths("model", 2, &encoded(&metadata))
        };
        let largest = MAX_TENSOR_SIZE as u64;
        assert_eq!(lengths(largest).last(), Some(&MAX_TENSOR_SIZE));
        assert_eq!(lengths(largest + 1), Vec::<usize>::new());

        let many = (0..=MAX_TENSOR_COUNT).map(|at| (at.to_string(), descriptor(1)));
        assert!(Metadata::decode(&encoded(&with(many.collect()))).is_err());
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

    /// The pieces that a store would read.
    fn cut(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        let mut lengths: VecDeque<usize> = VecDeque::new();
        let mut left = bytes;
        while !left.is_empty() {
            if lengths.is_empty() {
                let last = pieces.last().map(Vec::as_slice).unwrap_or_default();
                lengths = PerTensor("optimizer")
                    .next_lengths("optimizer", pieces.len(), last)
                    .into();
            }
            let len = lengths.pop_front().filter(|len| *len > 0);
            let (piece, rest) = left.split_at(len.unwrap_or(left.len()).min(left.len()));
            pieces.push(piece.to_vec());
            left = rest;
        }
        pieces
    }

    fn many() -> Container {
        Container {
            tensors: vec![
                tensor("7.b", DType::F32, [3, 5]),
                tensor("7.a", DType::F64, [1, 1]),
                tensor("8.empty", DType::F16, [0, 4]),
                tensor("9.large", DType::BF16, [1024, 512]),
                tensor("9.round", DType::U8, [2, 256]),
            ],
            scalars: [("7.step".to_owned(), Scalar::from(5_u64))].into(),
            metadata: [("7".to_owned(), "layer".to_owned())].into(),
        }
    }

    #[test]
    fn a_record_is_cut_at_its_tensors_and_joined_again() {
        let bytes = streamed(many());
        let pieces = cut(&bytes);
        let tensors = pieces.iter().filter(|piece| piece.len() == 1024 * 512 * 2);
        assert_eq!(tensors.count(), 1, "a tensor has its own buffer");
        assert_eq!(pieces.concat(), bytes);

        let contents = |container: Container| {
            let tensors = container.tensors.into_iter().map(|tensor| {
                let (name, dtype, shape, id, bytes) = tensor.into_parts().unwrap();
                (name, (dtype, shape.to_vec(), id, bytes.to_vec()))
            });
            let tensors: BTreeMap<_, _> = tensors.collect();
            (tensors, container.scalars, container.metadata)
        };
        let read = contents(Container::of_pieces(buffers(pieces)).unwrap());
        assert!(read == contents(many()));
        // A record in one buffer can be read too.
        assert!(contents(Container::of_pieces(buffers(vec![bytes])).unwrap()) == read);
    }

    #[test]
    fn other_parts_are_not_cut() {
        let chunking = PerTensor("optimizer");
        assert!(chunking.next_lengths("model", 0, &[]).is_empty());
        assert_eq!(chunking.next_lengths("optimizer", 0, &[]), [HEADER_SIZE]);
    }

    #[test]
    fn a_record_with_any_byte_changed_or_missing_is_cut_somehow_and_read_or_refused() {
        let container = Container {
            tensors: vec![
                tensor("7.a", DType::F32, [3, 5]),
                tensor("7.b", DType::F64, [1, 1]),
            ],
            ..many()
        };
        let bytes = streamed(container);
        for at in 0..bytes.len() {
            for value in [0, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let pieces = cut(&changed);
                assert_eq!(pieces.concat(), changed);
                let _ = Container::of_pieces(buffers(pieces));
            }
            let pieces = cut(&bytes[..at]);
            assert_eq!(pieces.concat(), &bytes[..at]);
            assert!(
                Container::of_pieces(buffers(pieces)).is_err() || at > bytes.len() - 8,
                "{at}"
            );
        }
    }
}
