use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use burn_pack::Tensor;

use super::state::StatePart;
use crate::change::Change;
use crate::configuration::Schedule;
use crate::error::BackupError;
use crate::resume::{Expected, LoadPart, Loaded, SavedPart};
use crate::save::{Misfit, RunningStates, SavePart, SharedPart};

/// A part of the state that is shared between the training and the backup. Clones share the same part.
///
/// Burn's builder owns the learner while it trains, and the model's `step` has only a reference to the model. To
/// count or average values there, use a `SharedState`. Give one clone to the model or a metric, and another one to
/// [`BackupAndRestore::state`](crate::BackupAndRestore::state).
///
/// # Example
///
/// ```
/// use burn_backup_restore::{BackupAndRestore, SharedState, Value};
///
/// let images = SharedState::new(Value(0_u64));
/// let backup = BackupAndRestore::new("backup").state("images", images.clone());
/// // In the model's `step`:
/// **images.lock() += 64;
/// assert_eq!(**images.lock(), 64);
/// ```
pub struct SharedState<P>(Arc<Mutex<P>>);

/// Gives access to the state until it is dropped.
pub struct StateGuard<'s, P>(MutexGuard<'s, P>);

impl<P> SharedState<P> {
    /// Shares a [`Value`](crate::Value), a module's [`Weights`](crate::Weights) or a
    /// [`Trainee`](crate::Trainee).
    pub fn new(part: P) -> Self {
        Self(Arc::new(Mutex::new(part)))
    }

    /// Locks the state. Hold the lock only briefly, because a due backup waits for it.
    pub fn lock(&self) -> StateGuard<'_, P> {
        // After a panic in the program, only the program can judge whether its state is complete.
        StateGuard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<P> Clone for SharedState<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: fmt::Debug> fmt::Debug for SharedState<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedState").field(&self.0).finish()
    }
}

impl<P> Deref for StateGuard<'_, P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.0
    }
}

impl<P> DerefMut for StateGuard<'_, P> {
    fn deref_mut(&mut self) -> &mut P {
        &mut self.0
    }
}

impl<P: StatePart> SavePart for SharedState<P> {
    fn snapshot(&self, running_states: RunningStates) -> Box<dyn SharedPart> {
        self.lock().snapshot(running_states)
    }

    fn initialize(&self) {
        self.lock().initialize();
    }

    fn devices(&self) -> Vec<Device> {
        self.lock().devices()
    }

    fn running_states(&self) -> RunningStates {
        self.lock().running_states()
    }

    fn settle_running_states(&self) {
        self.lock().settle_running_states();
    }

    fn model(&self) -> Option<Vec<Tensor>> {
        self.lock().model()
    }

    fn outline(&self) -> Option<Vec<Tensor>> {
        self.lock().outline()
    }

    fn early_misfit(&self) -> Option<Misfit> {
        self.lock().early_misfit()
    }

    fn schedule(&self) -> Option<Schedule> {
        self.lock().schedule()
    }
}

impl<P: StatePart> LoadPart for SharedState<P> {
    fn check(
        &self,
        saved: &SavedPart,
        expected: &Expected<'_>,
    ) -> Result<Vec<Change>, BackupError> {
        self.lock().check(saved, expected)
    }

    fn load(
        &mut self,
        saved: SavedPart,
        changed: &mut Vec<Change>,
        expected: &Expected<'_>,
    ) -> Result<Loaded, BackupError> {
        self.lock().load(saved, changed, expected)
    }

    fn load_weights(&mut self, saved: SavedPart, backup_dir: &Path) -> Result<(), BackupError> {
        self.lock().load_weights(saved, backup_dir)
    }
}
