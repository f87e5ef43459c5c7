//! What a training's user is told at its start: one line on the backups, and what keeps the training from
//! being exact.

use burn::tensor::Device;

use crate::burn_api::{self, LoaderKind};
use crate::handle::BackupHandle;
use crate::save_freq::SaveFreq;
use crate::say::warn;
use crate::settings::BackupAndRestore;

const LOG: &str = "burn_backup::restore";

/// The line on a training that begins, or is resumed, on these `devices` (see [`devices`]).
pub(crate) fn line(settings: &BackupAndRestore, devices: &str) -> String {
    format!(
        "backups in '{}'{}, {}, {}; {}; {}",
        settings.backup_dir.display(),
        mirrored(&settings.handle),
        frequency(settings.frequency),
        settings.keep,
        devices,
        settings.handle.beginning(),
    )
}

/// Says of a validation loader what makes its order another one each time.
pub(crate) fn say_of_validation(loader: LoaderKind) {
    if loader == LoaderKind::Workers {
        log::info!(target: LOG, "{VALIDATION_WORKERS}");
    }
}

/// Warns of a policy for the ends of epochs, where no backup is taken.
pub(crate) fn warn_of_kept_epochs(settings: &BackupAndRestore) {
    if settings.frequency == SaveFreq::Never && settings.keep.first_end(1).is_some() {
        warn(&settings.handle, NO_ENDS_OF_EPOCHS);
    }
}

/// Said of `SaveFreq::Never`.
const NO_ENDS_OF_EPOCHS: &str = "keep(..) has rules for the ends of epochs, where SaveFreq::Never takes no backups: \
     they keep none; give another save_freq";

/// Warns of a training loader whose order no restart can make again.
pub(crate) fn warn_of_workers(handle: &BackupHandle, loader: LoaderKind, is_restored: bool) {
    match loader {
        // Said once where the user looks.
        LoaderKind::Workers if is_restored => log::warn!(target: LOG, "{WORKERS}"),
        LoaderKind::Workers => warn(handle, WORKERS),
        _ => log::info!(target: LOG, "{CONDITION}"),
    }
}

/// Says that backups hold the training, where it can't be otherwise.
pub(crate) fn warn_of_holding(handle: &BackupHandle) {
    warn(handle, HOLDING);
}

/// Said of several GPUs, and of remote ones.
const HOLDING: &str = "each backup holds the training while the state is read from its devices, because Burn can't read \
     from several GPUs, or from remote ones, beside a training; BackupHandle::stats() tells how long, and \
     save_freq(SaveFreq::auto(0.01)) bounds it";

/// Said where it can't be known.
const CONDITION: &str = "a resumed training is exact if what its datasets and batchers give follows from the \
     index of an item: Burn's SamplerDataset, or augmentation with a generator of its own, need \
     burn_backup_restore::data::SamplerDataset, data::draw_seed, or FastForward::Replay";

/// Said of Burn's loader with workers.
const WORKERS: &str = "not exact after a restart: the training loader is Burn's with workers; several give their \
     batches in another order each time, and one draws its random numbers beside the training's; import \
     burn_backup_restore::data::DataLoaderBuilder instead of burn::data::dataloader::DataLoaderBuilder, it has \
     the same methods";

/// Said of the same loader in the validation.
const VALIDATION_WORKERS: &str = "the validation loader is Burn's with workers: the last digits of what is \
     measured may differ each time";

/// How often backups are taken, in words.
pub(crate) fn frequency(frequency: SaveFreq) -> String {
    match frequency {
        SaveFreq::Epoch => "after each epoch".to_owned(),
        SaveFreq::Steps(1) => "after each batch".to_owned(),
        SaveFreq::Steps(steps) => format!("every {steps} batches"),
        SaveFreq::Every(interval) => format!("every {interval:?}"),
        SaveFreq::Auto { max_overhead } => {
            format!(
                "as often as {} % of the time pays for",
                max_overhead * 100.0
            )
        }
        SaveFreq::Continuous => "one after the other".to_owned(),
        SaveFreq::Never => "when the training is stopped".to_owned(),
    }
}

fn mirrored(handle: &BackupHandle) -> String {
    match handle.mirror() {
        Some(mirror) => format!(" and {mirror}"),
        None => String::new(),
    }
}

/// Which devices train.
pub(crate) fn devices(devices: &[Device]) -> String {
    let names: Vec<_> = devices.iter().map(burn_api::device_name).collect();
    match names.as_slice() {
        [only] => format!("trains on {only}"),
        several => format!(
            "trains on {} devices: {}",
            several.len(),
            several.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_line_names_directory_frequency_generations_and_devices() {
        let on_flex = devices(&[Device::flex().autodiff()]);
        let backup = BackupAndRestore::new("/backups/a").save_freq(3);
        assert_eq!(
            line(&backup, &on_flex),
            "backups in '/backups/a', every 3 batches, the newest is kept; trains on Flex(Cpu); a new training"
        );
        let backup = BackupAndRestore::new("/backups/a")
            .save_freq(Duration::from_secs(90))
            .keep_last(2);
        backup.handle().began("restored from a test".to_owned());
        assert_eq!(
            line(&backup, &on_flex),
            "backups in '/backups/a', every 90s, the newest 2 are kept; trains on Flex(Cpu); restored from a test"
        );
    }
}
