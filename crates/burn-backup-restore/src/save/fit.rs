//! Checks whether a learner can load the records read from it. Burn silently drops entries that an optimizer or a
//! scheduler has no place for. It also converts the optimizer's state to the default type of its default device.
//!
//! A restore checks this before it changes anything. A new training checks it too, because a backup that no restart
//! can load is useless. If the types in the model make a misfit likely, the check runs before the first step. It also
//! runs for each new kind of state, before the first backup of that state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, OptimizerRecord};
use burn::store::RecordError;
use burn::tensor::{Bytes, DType, Device, Tensor};

use crate::burn_api::burnpack::Container;
use crate::burn_api::{RecordEntries, Unpacker, optimizer_probe};
use crate::error::BackupError;
use crate::panics::panic_message;
use crate::part;

const LOG: &str = "burn_backup::restore";

/// A difference between the records read from a learner and what it loads from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// The optimizer does not load `lost` of its `total` entries.
    OptimizerLost {
        lost: usize,
        total: usize,
        first: String,
    },
    /// An entry of the optimizer's state changes its type.
    OptimizerConverted {
        entry: String,
        saved: &'static str,
        loaded: &'static str,
    },
    /// The scheduler does not load this entry.
    SchedulerLost { first: String },
}

/// An optimizer and a scheduler whose records are read.
pub(crate) trait Optimization {
    /// Reads the records.
    fn read(&mut self) -> Result<(Container, Bytes), RecordError>;

    /// Loads these records into a clone and returns the clone's records.
    fn keeps(
        &mut self,
        optimizer: OptimizerRecord,
        scheduler: Bytes,
    ) -> Result<(Container, Bytes), RecordError>;

    /// The unpacker for the optimizer's records.
    fn unpacker(&mut self) -> &mut Unpacker;

    /// Discards anything left over from a panic.
    fn reset(&mut self) {}
}

/// Loads the records into a clone and compares the result with them. The optimizer's tensors are replaced by tensors
/// of one element.
pub(crate) fn misfit(
    optimization: &mut impl Optimization,
    optimizer: &Container,
    scheduler: Bytes,
) -> Result<Option<Misfit>, RecordError> {
    let probe = optimizer_probe(optimizer)?;
    optimization.unpacker().expect(optimizer);
    let (kept_optimizer, kept_scheduler) = optimization.keeps(probe, scheduler.clone())?;

    let saved = RecordEntries::of(optimizer);
    let kept = RecordEntries::of(&kept_optimizer);
    let lost = saved.lost_in(&kept);
    if let Some(first) = lost.first() {
        return Ok(Some(Misfit::OptimizerLost {
            lost: lost.len(),
            total: saved.len(),
            first: first.clone(),
        }));
    }
    if let Some((entry, saved, loaded)) = saved.converted_in(&kept) {
        return Ok(Some(Misfit::OptimizerConverted {
            entry,
            saved: saved.name(),
            loaded: loaded.name(),
        }));
    }

    let saved = Container::from_bytes(scheduler)?;
    let kept = Container::from_bytes(kept_scheduler)?;
    let first = RecordEntries::of(&saved)
        .lost_in(&RecordEntries::of(&kept))
        .into_iter()
        .next();
    Ok(first.map(|first| Misfit::SchedulerLost { first }))
}

/// Remembers which states a restart can load.
#[derive(Default)]
pub(crate) struct Fit {
    /// The number of entries of the largest optimizer state that was checked.
    checked: Option<usize>,
    /// What is known about the optimizer's record.
    pub unpacker: Unpacker,
}

impl Fit {
    /// For a training whose restore has just checked an optimizer state with `entries` entries.
    pub(crate) fn checked(entries: usize) -> Self {
        Self {
            checked: Some(entries),
            unpacker: Unpacker::default(),
        }
    }

    /// Reads the records of the optimizer and the scheduler, and checks that a restart can load them. Skips the check
    /// if a state with at least as many entries was checked before. A parameter that is trained for the first time
    /// adds entries.
    ///
    /// # Errors
    ///
    /// The error of a misfit, or [`BackupError::Record`] if a record can't be read.
    pub(crate) fn read(
        &mut self,
        optimization: &mut impl Optimization,
        part: &str,
    ) -> Result<(Container, Bytes), BackupError> {
        let failed = part::failed(part);
        let (optimizer, scheduler) = optimization.read().map_err(&failed)?;
        let entries = optimizer.scalars.len() + optimizer.tensors.len();
        if self.checked.is_none_or(|checked| checked < entries) {
            let check = || misfit(optimization, &optimizer, scheduler.clone());
            match catch_unwind(AssertUnwindSafe(check)) {
                Ok(misfit) => {
                    if let Some(misfit) = misfit.map_err(&failed)? {
                        return Err(misfit.into_refusal());
                    }
                }
                // A restart can still use the backup when the default device is available.
                Err(panic) => {
                    let message = panic_message(panic.as_ref());
                    log::error!(
                        target: LOG,
                        "a restart would be refused: Burn panics when it loads the optimizer's state on its \
                         default device: {message}. If the program is built with several backends and the \
                         default one has no device here, set the environment variable BURN_DEVICE to the one \
                         to use. Backups are still taken",
                    );
                    optimization.reset();
                }
            }
            self.checked = Some(entries);
        }
        Ok((optimizer, scheduler))
    }

    /// A copy for another thread that reads.
    pub(crate) fn again(&self) -> Self {
        Self {
            checked: self.checked,
            unpacker: Unpacker::default(),
        }
    }

    /// Whether nothing has been checked yet.
    pub(crate) fn is_unknown(&self) -> bool {
        self.checked.is_none()
    }
}

impl Misfit {
    /// The error for a backup that no restart could use.
    pub(crate) fn into_refusal(self) -> BackupError {
        match self {
            Self::OptimizerLost { first, .. } | Self::SchedulerLost { first } => {
                BackupError::NotLoadable { entry: first }
            }
            Self::OptimizerConverted {
                entry,
                saved,
                loaded,
            } => BackupError::PrecisionLost {
                entry,
                saved,
                loaded,
            },
        }
    }

    /// The error for a restore.
    pub(crate) fn into_mismatch(self, backup_dir: &Path) -> BackupError {
        let path = backup_dir.to_path_buf();
        match self {
            Self::OptimizerLost { lost, total, first } => BackupError::OptimizerMismatch {
                path,
                lost,
                total,
                first,
            },
            Self::OptimizerConverted {
                entry,
                saved,
                loaded,
            } => BackupError::OptimizerConverted {
                path,
                entry,
                saved,
                loaded,
            },
            Self::SchedulerLost { first } => BackupError::SchedulerMismatch { path, first },
        }
    }
}

/// Looks for a misfit before the first step. A parameter whose type differs from the default device's makes a misfit
/// likely, depending on the optimizer. `step` lets a clone of the optimizer step with a gradient of zeros for one
/// parameter, and checks the result.
pub(crate) fn early_misfit<M: Module>(
    model: &M,
    mut step: impl FnMut(GradientsParams) -> Option<Misfit>,
) -> Option<Misfit> {
    // Without an adapter, the request for the default device may panic. So may an optimizer that does not
    // expect a gradient of zeros. The first backup is checked in any case.
    let ask = AssertUnwindSafe(|| {
        let default = Device::default().settings().float_dtype.into();
        let mut others = OfOtherType {
            default,
            zeros: Vec::new(),
        };
        model.visit(&mut others);
        let mut zeros = others.zeros.into_iter();
        zeros.find_map(|zeros| step(zeros()))
    });
    catch_unwind(ask).ok().flatten()
}

/// Creates a gradient of zeros.
type Zeros = Box<dyn FnOnce() -> GradientsParams>;

/// The trained parameters whose type differs from `default`.
struct OfOtherType {
    default: DType,
    zeros: Vec<Zeros>,
}

impl ModuleVisitor for OfOtherType {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // A parameter that is not initialized yet will get its device's type.
        if !param.is_initialized() {
            return;
        }
        let (id, tensor) = (param.id, param.val());
        if tensor.dtype() == self.default || !tensor.is_require_grad() {
            return;
        }
        self.zeros.push(Box::new(move || {
            let mut gradients = GradientsParams::new();
            gradients.register(id, tensor.inner().zeros_like());
            gradients
        }));
    }
}
