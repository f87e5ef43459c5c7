//! Values that are computed once, also if the training is interrupted after it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Session;
use crate::error::BackupError;
use crate::parts::{State, decode, encode};
use crate::session::NoMetrics;

impl<S: State> Session<S> {
    /// Computes a value after [`trained`](Self::trained), unless it was computed in this epoch before: for a
    /// validation that takes long. The value is saved at once, in the background. A restart gives it again,
    /// without computing it, until the epoch ends.
    ///
    /// `compute` is given the session, for [`batches`](Self::batches) to validate with. What the loop changes in
    /// the state because of the value, it does afterwards, and after the last value of the epoch: a restart does
    /// that again.
    ///
    /// # Errors
    ///
    /// When the value can't be written as CBOR, or the one in the backup is of another type.
    pub fn once<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &str,
        state: &S,
        compute: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, BackupError> {
        self.try_once(name, state, |session| Ok(compute(session)))
    }

    /// The same for what may fail. An error is not kept.
    ///
    /// # Errors
    ///
    /// As [`once`](Self::once), and when `compute` fails.
    pub fn try_once<T: Serialize + DeserializeOwned, E: From<BackupError>>(
        &mut self,
        name: &str,
        state: &S,
        compute: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(known) = self.core.progress.state.results.get(name) {
            let value = decode(known).map_err(|error| error.of_state(name));
            return Ok(value?);
        }
        let value = compute(self)?;
        let bytes = encode(&value).map_err(|error| error.of_state(name))?;
        let results = &mut self.core.progress.state.results;
        results.insert(name.to_owned(), bytes);
        // In the middle of a step, or while gradients are accumulated, it is lost with the step.
        let can_save = !self.loaders.has_pending() && !self.core.window.is_between();
        if can_save {
            self.loaders.may_not_ask_again();
            self.loaders.commit(&mut self.core.progress.state);
            if self.is_validating {
                self.core.hold(state);
            }
            if self.core.cadence.trigger().at_end() {
                self.core.save(state, &mut NoMetrics);
            }
        }
        Ok(value)
    }
}
