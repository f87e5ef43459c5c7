use burn::rl::Environment;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An environment whose state can be saved, so that a training can resume in the middle of an episode.
///
/// The state must contain everything that decides what the environment does next. Examples are its position, the
/// number of steps in the episode, and its random number generator. A generator that is seeded with
/// [`rl::draw_seed`](super::draw_seed) at each use need not be included.
///
/// # Example
///
/// ```
/// use burn::rl::{Environment, StepResult};
/// use burn_backup_restore::rl::ResumableEnvironment;
///
/// /// A walk along a line.
/// struct Walk {
///     at: i64,
/// }
///
/// impl Environment for Walk {
///     type State = i64;
///     type Action = i64;
///     const MAX_STEPS: usize = 100;
///
///     fn state(&self) -> i64 {
///         self.at
///     }
///
///     fn step(&mut self, action: i64) -> StepResult<i64> {
///         self.at += action;
///         let is_there = self.at == 5;
///         StepResult {
///             next_state: self.at,
///             reward: f64::from(u8::from(is_there)),
///             done: is_there,
///             truncated: false,
///         }
///     }
///
///     fn reset(&mut self) {
///         self.at = 0;
///     }
/// }
///
/// impl ResumableEnvironment for Walk {
///     type Saved = i64;
///
///     fn save(&self) -> i64 {
///         self.at
///     }
///
///     fn load(&mut self, saved: i64) {
///         self.at = saved;
///     }
/// }
/// ```
pub trait ResumableEnvironment: Environment {
    /// The state in a serializable form.
    type Saved: Serialize + DeserializeOwned + 'static;

    /// Returns the state.
    fn save(&self) -> Self::Saved;

    /// Restores a state that [`save`](Self::save) returned, in this process or an earlier one.
    fn load(&mut self, saved: Self::Saved);
}

/// How the environments of a training resume: [`FromSavedState`] or [`FromEpisodeStart`]. This trait is sealed.
pub trait EnvironmentBackup<E>: sealed::Backup<E> {}

/// The environments are resumable: a training resumes exactly, in the middle of an episode.
#[derive(Debug, Clone, Copy)]
pub struct FromSavedState;

/// The environments can't be saved: a training resumes with new episodes, and everything else is restored.
#[derive(Debug, Clone, Copy)]
pub struct FromEpisodeStart;

impl<E: ResumableEnvironment> EnvironmentBackup<E> for FromSavedState {}
impl<E: Environment> EnvironmentBackup<E> for FromEpisodeStart {}

pub(super) mod sealed {
    use super::{
        DeserializeOwned, Environment, FromEpisodeStart, FromSavedState, ResumableEnvironment,
        Serialize,
    };

    pub trait Backup<E>: 'static {
        /// The saved form of an environment.
        type Saved: Serialize + DeserializeOwned + 'static;

        /// Whether a resumed training is exact.
        const IS_EXACT: bool;

        fn save(environment: &E) -> Self::Saved;

        fn load(environment: &mut E, saved: Self::Saved);
    }

    impl<E: ResumableEnvironment> Backup<E> for FromSavedState {
        type Saved = E::Saved;
        const IS_EXACT: bool = true;

        fn save(environment: &E) -> E::Saved {
            environment.save()
        }

        fn load(environment: &mut E, saved: E::Saved) {
            environment.load(saved);
        }
    }

    impl<E: Environment> Backup<E> for FromEpisodeStart {
        type Saved = ();
        const IS_EXACT: bool = false;

        fn save(_environment: &E) {}

        fn load(_environment: &mut E, (): ()) {}
    }
}
