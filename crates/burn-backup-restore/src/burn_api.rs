//! All use of Burn's less stable APIs. An update to the next Burn release should need changes only in this file and
//! its directory.

pub(crate) mod burnpack;
mod event_store;
#[cfg(test)]
pub(crate) mod fake_device;
pub(crate) mod host_memory;
mod pack;
mod records;
mod unpack;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::data::dataloader::split::split_dataloader;
use burn::data::dataloader::{
    BatchDataLoader, DataLoader, DataLoaderIterator, MultiThreadDataLoader, Progress,
};
use burn::optim::OptimizerRecord;
use burn::store::RecordError;
use burn::tensor::{Bytes, DType, Device, Distribution, Tensor};
use burn::train::train::WorkerFailure;
use burn::train::{
    EventProcessorTraining as _, Interrupter, LearnerEvent, LearnerModel,
    SupervisedTrainingEventProcessor, TrainingError,
};
use burn_backend::{Backend as _, Device as _};
use burn_dispatch::Dispatch;
use burn_pack::Scalar;
use xxhash_rust::xxh3::xxh3_64;

use crate::burn_api::burnpack::Container;

pub(crate) use event_store::event_store;
pub(crate) use pack::optimizer_record;
pub(crate) use records::{DeviceRead, RecordReader, Unpacker, paths};

/// The scalar that Burn adds to the state of each parameter.
const RANK: &str = "__rank";

/// The version of Burn whose records and loops this crate follows.
pub(crate) const BURN_VERSION: &str = "0.22";

/// The position of a trained batch among the items of its epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Items {
    pub processed: usize,
    pub total: usize,
}

impl From<&Progress> for Items {
    fn from(progress: &Progress) -> Self {
        Self {
            processed: progress.items_processed,
            total: progress.items_total,
        }
    }
}

impl Items {
    /// Whether all items of the epoch are processed, by Burn's own count.
    pub(crate) fn are_all(self) -> bool {
        self.processed == self.total
    }
}

/// The event for the start of a split of an epoch.
pub(crate) fn split_begins<T>(epoch_number: usize, total_items: usize) -> LearnerEvent<T> {
    LearnerEvent::StartSplit {
        epoch_number,
        total_items,
    }
}

/// The event for the end of a split of an epoch.
pub(crate) fn split_ends<T>(epoch: usize) -> LearnerEvent<T> {
    LearnerEvent::EndSplit(epoch)
}

/// Waits until Burn has processed all earlier events, and records its errors in `interrupter`.
///
/// Burn's own `flush` waits forever if the answering thread dies, because the request stays in the queue. This
/// function only sends events, which panics once that thread is gone. The thread takes the first event only after it
/// has processed all earlier events. The queue has room for the second event only after the first one is taken.
pub(crate) fn drain<M: LearnerModel>(
    processor: &mut SupervisedTrainingEventProcessor<M>,
    interrupter: &Interrupter,
) {
    for _ in 0..2 {
        // Burn ignores this event for the validation.
        let sent = processor.process_valid(LearnerEvent::EndEpoch(0));
        interrupter.fail_on_error(sent);
    }
}

/// How many times Burn calls each metric logger for an event.
pub(crate) fn logger_calls<T>(event: &LearnerEvent<T>) -> u64 {
    match event {
        LearnerEvent::ProcessedItem(_) => 1,
        // Once with the values of the metrics, once with the summary.
        LearnerEvent::EndSplit(_) => 2,
        _ => 0,
    }
}

/// The progress of a loader, in the form of Burn's own loaders.
pub(crate) fn progress_of(items: Items) -> Progress {
    Progress::new(items.processed, items.total, Some("items".to_owned()))
}

/// Adds the progress of another loader.
pub(crate) fn add_progress(sum: &mut Progress, progress: &Progress) {
    sum.items_processed += progress.items_processed;
    sum.items_total += progress.items_total;
}

/// The total progress of `loaders` loaders with this same progress.
pub(crate) fn times(progress: Progress, loaders: usize) -> Progress {
    Progress {
        items_processed: progress.items_processed * loaders,
        items_total: progress.items_total * loaders,
        ..progress
    }
}

/// A loader for each of several devices.
pub(crate) fn split<O>(
    loader: Arc<dyn DataLoader<O>>,
    devices: &[Device],
) -> Vec<Arc<dyn DataLoader<O>>> {
    split_dataloader(loader, devices)
}

/// Whether the device belongs to another process. Only Burn's debug output shows it.
pub(crate) fn is_remote(device: &Device) -> bool {
    format!("{device:?}").contains("Remote(")
}

/// Whether the device uses Burn's fusion. The name of its backend shows it.
pub(crate) fn has_fusion(device: &Device) -> bool {
    Dispatch::name(device.as_dispatch()).contains("fusion<")
}

/// Whether the device computes asynchronously. Devices of CubeCL do, and with fusion others too. CubeCL reads a
/// tensor's bytes lazily.
pub(crate) fn computes_later(device: &Device) -> bool {
    has_fusion(device) || Dispatch::name(device.as_dispatch()).contains("cubecl<")
}

/// The device onto which Burn loads an optimizer's state, if it computes asynchronously. Each step moves the states of
/// the parameters that it changes to the parameters' device.
pub(crate) fn asynchronous_loading_device() -> Option<Device> {
    // Without such a device, this panics, and so does Burn's loading.
    let device = || Some(Device::default()).filter(computes_later);
    catch_unwind(device).ok().flatten()
}

/// The device's name, without whether it computes gradients.
pub(crate) fn device_name(device: &Device) -> String {
    let name = format!("{:?}", device.clone().inner());
    let name = name
        .strip_prefix("Device<")
        .and_then(|name| name.strip_suffix('>'));
    name.unwrap_or("a device").to_owned()
}

/// The number of devices of this kind, if known.
pub(crate) fn devices_like(device: &Device) -> Option<usize> {
    if is_remote(device) {
        return None;
    }
    let count = || Dispatch::device_count(device.as_dispatch().to_id().type_id);
    // This may call a driver, which can panic.
    catch_unwind(AssertUnwindSafe(count)).ok()
}

/// Draws a number from the generator of `device`. `None` if the device can't draw.
pub(crate) fn draw_seed(device: &Device) -> Option<u64> {
    let device = device.clone().inner();
    let draw = || {
        // 16 numbers, because a number of half precision has only 11 random bits.
        let numbers = Tensor::<1>::random([16], Distribution::Uniform(0.0, 1.0), &device);
        xxh3_64(numbers.into_data().as_bytes())
    };
    catch_unwind(AssertUnwindSafe(draw)).ok()
}

/// The kind of a loader, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoaderKind {
    /// Burn's loader without workers.
    Single,
    /// Burn's loader with workers.
    Workers,
    /// Another loader, which may contain one of Burn's.
    Other,
}

/// Recognises Burn's loaders. A trait object hides its type, but not its size, which does not depend on the types of
/// items and batches.
pub(crate) fn loader_kind<O>(loader: &dyn DataLoader<O>) -> LoaderKind {
    fn layout<T>() -> (usize, usize) {
        (size_of::<T>(), align_of::<T>())
    }
    let found = (size_of_val(loader), align_of_val(loader));
    if found == layout::<MultiThreadDataLoader<(), ()>>() {
        LoaderKind::Workers
    } else if found == layout::<BatchDataLoader<(), ()>>() {
        LoaderKind::Single
    } else {
        LoaderKind::Other
    }
}

/// Burn's error for the failed device with this index.
pub(crate) fn device_failed(index: usize, message: String) -> TrainingError {
    workers_failed(vec![(index, message)])
}

/// Burn's error for the failed devices with these indices.
pub(crate) fn workers_failed(failures: Vec<(usize, String)>) -> TrainingError {
    let failures = failures
        .into_iter()
        .map(|(device_id, message)| WorkerFailure { device_id, message });
    TrainingError::Workers(failures.collect())
}

/// The progress of a loader's iterator.
pub(crate) fn items<O>(iterator: &dyn DataLoaderIterator<O>) -> Items {
    Items::from(&iterator.progress())
}

/// An entry of an optimizer's or scheduler's record, without a tensor's contents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Entry {
    Scalar(Scalar),
    Tensor(DType),
}

/// The entries of an optimizer's or scheduler's record.
pub(crate) struct RecordEntries<'c> {
    entries: BTreeMap<&'c str, Entry>,
    /// The path of each parameter, by its id.
    paths: &'c BTreeMap<String, String>,
}

impl<'c> RecordEntries<'c> {
    pub(crate) fn of(container: &'c Container) -> Self {
        let scalars = container.scalars.iter();
        let scalars = scalars.map(|(name, value)| (name.as_str(), Entry::Scalar(*value)));
        let tensors = container.tensors.iter();
        let tensors = tensors.map(|tensor| (tensor.name.as_str(), Entry::Tensor(tensor.dtype)));
        Self {
            entries: scalars.chain(tensors).collect(),
            paths: &container.metadata,
        }
    }

    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries that `other` lacks, or has with another value.
    pub(crate) fn lost_in(&self, other: &RecordEntries<'_>) -> Vec<String> {
        self.entries
            .iter()
            .filter(|(name, entry)| match (entry, other.entries.get(*name)) {
                (Entry::Tensor(_), Some(Entry::Tensor(_))) => false,
                (entry, kept) => kept != Some(entry),
            })
            .map(|(name, _)| self.describe(name))
            .collect()
    }

    /// The first tensor that has another type in `other`: its name and both types.
    pub(crate) fn converted_in(&self, other: &RecordEntries<'_>) -> Option<(String, DType, DType)> {
        self.entries
            .iter()
            .find_map(|(name, entry)| match (entry, other.entries.get(name)) {
                (Entry::Tensor(saved), Some(Entry::Tensor(kept))) if saved != kept => {
                    Some((self.describe(name), *saved, *kept))
                }
                _ => None,
            })
    }

    /// `conv1.weight: moment.moment_1` for `123456.moment.moment_1`.
    fn describe(&self, name: &str) -> String {
        match name.split_once('.') {
            Some((id, field)) => match self.paths.get(id) {
                Some(path) => format!("{path}: {field}"),
                None => name.to_owned(),
            },
            None => name.to_owned(),
        }
    }
}

/// An optimizer record with the names, types and ranks of `container`, but tensors of one element.
///
/// Loading a record silently drops entries that the optimizer does not know. Loading this small record shows which
/// entries it keeps, without the whole state.
pub(crate) fn optimizer_probe(container: &Container) -> Result<OptimizerRecord, RecordError> {
    let tensors = container.tensors.iter().map(|tensor| {
        let one = vec![1; tensor.shape.num_dims()];
        let zero = Bytes::from_bytes_vec(vec![0; tensor.dtype.size()]);
        let name = tensor.name.clone();
        burn_pack::Tensor::new(name, tensor.dtype, one, tensor.param_id, zero)
    });
    optimizer_record(Container {
        tensors: tensors.collect(),
        scalars: container.scalars.clone(),
        metadata: container.metadata.clone(),
    })
}

#[cfg(test)]
mod tests {
    use burn_pack::{Tensor, Writer};

    use super::*;

    fn record(dtype: DType, step: i64) -> Container {
        let moment = Bytes::from_bytes_vec(vec![0; dtype.size()]);
        let moment = Tensor::new("7.moment".to_owned(), dtype, vec![1], Some(7), moment);
        let writer = Writer::new(vec![moment])
            .with_scalar("7.step", Scalar::from(step))
            .with_metadata("7", "linear.weight");
        Container::from_bytes(writer.into_bytes().unwrap()).unwrap()
    }

    #[test]
    fn entries_that_another_record_lacks_or_changes_are_lost() {
        let (saved, stepped) = (record(DType::F32, 5), record(DType::F32, 6));
        let saved = RecordEntries::of(&saved);
        assert!(saved.lost_in(&saved).is_empty());
        assert_eq!(
            saved.lost_in(&RecordEntries::of(&stepped)),
            ["linear.weight: step"]
        );
        let nothing = Container::default();
        let nothing = RecordEntries::of(&nothing);
        assert_eq!(saved.lost_in(&nothing).len(), 2);
        assert!(nothing.lost_in(&saved).is_empty());
    }

    #[test]
    fn a_tensor_of_another_type_is_converted() {
        let (saved, loaded) = (record(DType::F64, 5), record(DType::F32, 5));
        let (saved, loaded) = (RecordEntries::of(&saved), RecordEntries::of(&loaded));
        assert_eq!(saved.converted_in(&saved), None);
        assert!(saved.lost_in(&loaded).is_empty());
        assert_eq!(
            saved.converted_in(&loaded),
            Some(("linear.weight: moment".to_owned(), DType::F64, DType::F32))
        );
    }
}
