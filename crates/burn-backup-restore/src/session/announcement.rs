//! The messages at the start of a training: one line about its backups, and warnings about anything that prevents an
//! exact restart.

use burn::tensor::Device;

use crate::burn_api::{self, LoaderKind};
use crate::handle::BackupHandle;
use crate::messages::warn;
use crate::save_freq::SaveFreq;
use crate::settings::BackupAndRestore;

const LOG: &str = "burn_backup::restore";

/// The line about a training that starts or resumes on these `devices` (see [`devices`]).
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

/// Logs why the order of a validation loader may differ each time.
pub(crate) fn log_validation_order(loader: LoaderKind) {
    if loader == LoaderKind::Workers {
        log::info!(target: LOG, "{VALIDATION_WORKERS}");
    }
}

/// Warns if backups at the ends of epochs are to be kept but none are taken there.
pub(crate) fn warn_of_kept_epochs(settings: &BackupAndRestore) {
    if settings.frequency == SaveFreq::Never && settings.keep.first_end(1).is_some() {
        warn(&settings.handle, NO_ENDS_OF_EPOCHS);
    }
}

/// The warning for `SaveFreq::Never`.
const NO_ENDS_OF_EPOCHS: &str = "keep(..) has rules for the ends of epochs, but SaveFreq::Never takes no backups \
     there: these rules keep nothing; use another save_freq";

/// Warns if a restart can't reproduce the order of a training loader.
pub(crate) fn warn_of_workers(handle: &BackupHandle, loader: LoaderKind, is_restored: bool) {
    match loader {
        // The first start has already printed it.
        LoaderKind::Workers if is_restored => log::warn!(target: LOG, "{WORKERS}"),
        LoaderKind::Workers => warn(handle, WORKERS),
        _ => log::info!(target: LOG, "{CONDITION}"),
    }
}

/// Warns that each backup blocks the training, if that can't be avoided.
pub(crate) fn warn_of_holding(handle: &BackupHandle) {
    warn(handle, HOLDING);
}

/// The warning for several GPUs, and for remote ones.
const HOLDING: &str = "each backup blocks the training while the state is read from its devices, because Burn can't \
     read from several GPUs, or from remote ones, while a training runs; BackupHandle::stats() shows for how long, \
     and save_freq(SaveFreq::auto(0.01)) limits it";

/// The note for loaders about which nothing is known.
const CONDITION: &str = "a resumed training is exact if its datasets and batchers depend only on the index of an \
     item; Burn's SamplerDataset, or augmentation with a random generator of its own, needs \
     burn_backup_restore::data::SamplerDataset, data::draw_seed, or FastForward::Replay";

/// The warning for Burn's loader with workers.
const WORKERS: &str = "not exact after a restart: the training uses Burn's data loader with workers. Several workers \
     give their batches in a different order each time; a single worker draws random numbers while the training also \
     draws. Import burn_backup_restore::data::DataLoaderBuilder instead of \
     burn::data::dataloader::DataLoaderBuilder: it has the same methods";

/// The note for the same loader in the validation.
const VALIDATION_WORKERS: &str = "the validation loader is Burn's with workers: the last digits of the metrics may \
     differ each time";

/// How often backups are taken, as text.
pub(crate) fn frequency(frequency: SaveFreq) -> String {
    match frequency {
        SaveFreq::Epoch => "after each epoch".to_owned(),
        SaveFreq::Steps(1) => "after each batch".to_owned(),
        SaveFreq::Steps(steps) => format!("every {steps} batches"),
        SaveFreq::Every(interval) => format!("every {interval:?}"),
        SaveFreq::Auto { max_overhead } => {
            let percent = (max_overhead * 1e5).round() / 1e3;
            format!("at a cost of at most {percent} % of the time")
        }
        SaveFreq::Continuous => "continuously".to_owned(),
        SaveFreq::Never => "when the training is stopped".to_owned(),
    }
}

fn mirrored(handle: &BackupHandle) -> String {
    match handle.mirror() {
        Some(mirror) => format!(" and {mirror}"),
        None => String::new(),
    }
}

/// The devices of the training, as text.
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
