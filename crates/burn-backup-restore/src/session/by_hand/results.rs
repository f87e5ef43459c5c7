//! Values that are computed only once, even if the training is interrupted afterwards.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Session;
use crate::error::BackupError;
use crate::parts::{State, decode, encode};
use crate::session::NoMetrics;

impl<S: State> Session<S> {
    /// Computes a value after [`trained`](Self::trained), unless it was already computed in this epoch. Use it for a
    /// long validation. The value is saved immediately, in the background. Until the epoch ends, a restart returns
    /// the saved value without computing it.
    ///
    /// `compute` gets the session, so that it can validate with [`batches`](Self::batches). If the loop changes the
    /// state because of the value, it must do so after the last call of `once` in the epoch. A restart makes these
    /// changes again.
    ///
    /// # Errors
    ///
    /// If the value can't be written as CBOR, or if the value in the backup has another type.
    pub fn once<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &str,
        state: &S,
        compute: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, BackupError> {
        self.try_once(name, state, |session| Ok(compute(session)))
    }

    /// Like [`once`](Self::once), for a computation that may fail. An error is not saved.
    ///
    /// # Errors
    ///
    /// The errors of [`once`](Self::once), and those of `compute`.
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
        // A value computed in the middle of a step, or while gradients are accumulated, is lost with the
        // step.
        let can_save = !self.loaders.has_pending() && !self.core.window.is_mid_step();
        if can_save {
            self.loaders.expect_no_further_request();
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
