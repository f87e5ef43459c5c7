use std::collections::BTreeSet;

use burn::module::Module;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{SharedState, Trainee, TraineeOptimizer, TraineeScheduler, Value, Weights};
use crate::error::BackupError;
use crate::part;
use crate::resume::LoadPart;
use crate::save::SavePart;

/// The state of a training, which a backup saves: a [`Trainee`](crate::Trainee), a module's
/// [`Weights`](crate::Weights), a [`Value`](crate::Value), or several of them.
///
/// A tuple of states is a state; its parts are named `0`, `1` and so on. [`impl_state!`](crate::impl_state) makes a
/// struct of states a state; its parts have the names of its fields. The backup stores these names, and a restart
/// with different names is refused.
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::optim::ModuleOptimizer;
/// use burn_backup_restore::{Trainee, Value, Weights, impl_state};
/// # use burn::nn::Linear;
/// # type Generator = Linear;
/// # type Critic = Linear;
///
/// struct Gan {
///     generator: Trainee<Generator>,
///     critic: Trainee<Critic>,
///     average: Weights<Generator>,
///     best_loss: Value<f64>,
/// }
///
/// impl_state!(Gan { generator, critic, average, best_loss });
/// ```
pub trait State {
    /// Adds each part with its name, always in the same order.
    fn parts<'a>(&'a self, parts: &mut Parts<'a>);

    /// Adds each part for loading, with the same names and in the same order as [`parts`](Self::parts).
    fn parts_mut<'a>(&'a mut self, parts: &mut PartsMut<'a>);
}

/// The parts of a [`State`].
pub struct Parts<'a> {
    prefix: String,
    found: Vec<(String, &'a dyn SavePart)>,
}

/// The parts of a [`State`], for loading.
pub struct PartsMut<'a> {
    prefix: String,
    found: Vec<(String, &'a mut dyn LoadPart)>,
}

impl<'a> Parts<'a> {
    /// Adds a state. The `name` consists of lower-case letters, digits and underscores.
    pub fn add(&mut self, name: &str, state: &'a (impl State + ?Sized)) {
        let prefix = nested(&self.prefix, name);
        let outer = std::mem::replace(&mut self.prefix, prefix);
        state.parts(self);
        self.prefix = outer;
    }

    fn push(&mut self, part: &'a dyn SavePart) {
        self.found.push((self.prefix.clone(), part));
    }
}

impl<'a> PartsMut<'a> {
    /// Adds a state. The `name` consists of lower-case letters, digits and underscores.
    pub fn add(&mut self, name: &str, state: &'a mut (impl State + ?Sized)) {
        let prefix = nested(&self.prefix, name);
        let outer = std::mem::replace(&mut self.prefix, prefix);
        state.parts_mut(self);
        self.prefix = outer;
    }

    fn push(&mut self, part: &'a mut dyn LoadPart) {
        self.found.push((self.prefix.clone(), part));
    }
}

fn nested(prefix: &str, name: &str) -> String {
    match prefix {
        "" => name.to_owned(),
        prefix => format!("{prefix}-{name}"),
    }
}

/// The parts of the state called `name`, with their names.
pub(crate) fn parts_of<'a, S: State + ?Sized>(
    name: &str,
    state: &'a S,
) -> Vec<(String, &'a dyn SavePart)> {
    let mut parts = Parts {
        prefix: name.to_owned(),
        found: Vec::new(),
    };
    state.parts(&mut parts);
    parts.found
}

/// The parts of the state called `name`, with their names, for loading.
pub(crate) fn parts_of_mut<'a, S: State + ?Sized>(
    name: &str,
    state: &'a mut S,
) -> Vec<(String, &'a mut dyn LoadPart)> {
    let mut parts = PartsMut {
        prefix: name.to_owned(),
        found: Vec::new(),
    };
    state.parts_mut(&mut parts);
    parts.found
}

/// Checks that the names are valid in a backup, and that each one is used once.
pub(crate) fn check_names<'n>(names: impl Iterator<Item = &'n str>) -> Result<(), BackupError> {
    let mut seen = BTreeSet::new();
    for name in names {
        let is_allowed = name.is_empty() || name.split('-').all(part::is_state_name);
        if !is_allowed || !seen.insert(name) {
            return Err(BackupError::StateName {
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}

/// A part that is also a state.
pub(crate) trait StatePart: LoadPart {}

/// Implements `State` for a part: a state that consists of only that part.
macro_rules! state_of_one_part {
    ($([$($generics:tt)*] $state:ty),* $(,)?) => {$(
        impl<$($generics)*> StatePart for $state {}

        impl<$($generics)*> State for $state {
            fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
                parts.push(self);
            }

            fn parts_mut<'a>(&'a mut self, parts: &mut PartsMut<'a>) {
                parts.push(self);
            }
        }

        impl<$($generics)*> State for SharedState<$state> {
            fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
                parts.push(self);
            }

            fn parts_mut<'a>(&'a mut self, parts: &mut PartsMut<'a>) {
                parts.push(self);
            }
        }
    )*};
}

state_of_one_part!(
    [M: Module + 'static, O: TraineeOptimizer, S: TraineeScheduler] Trainee<M, O, S>,
    [M: Module + 'static] Weights<M>,
    [T: Serialize + DeserializeOwned + 'static] Value<T>,
);

impl<S: State> State for Option<S> {
    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        if let Some(state) = self {
            state.parts(parts);
        }
    }

    fn parts_mut<'a>(&'a mut self, parts: &mut PartsMut<'a>) {
        if let Some(state) = self {
            state.parts_mut(parts);
        }
    }
}

impl<S: State> State for Vec<S> {
    fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
        for (index, state) in self.iter().enumerate() {
            parts.add(&index.to_string(), state);
        }
    }

    fn parts_mut<'a>(&'a mut self, parts: &mut PartsMut<'a>) {
        for (index, state) in self.iter_mut().enumerate() {
            parts.add(&index.to_string(), state);
        }
    }
}

macro_rules! state_of_tuple {
    ($($state:ident $index:tt),*) => {
        impl<$($state: State),*> State for ($($state,)*) {
            fn parts<'a>(&'a self, parts: &mut Parts<'a>) {
                $(parts.add(stringify!($index), &self.$index);)*
            }

            fn parts_mut<'a>(&'a mut self, parts: &mut PartsMut<'a>) {
                $(parts.add(stringify!($index), &mut self.$index);)*
            }
        }
    };
}

state_of_tuple!(A 0, B 1);
state_of_tuple!(A 0, B 1, C 2);
state_of_tuple!(A 0, B 1, C 2, D 3);
state_of_tuple!(A 0, B 1, C 2, D 3, E 4);
state_of_tuple!(A 0, B 1, C 2, D 3, E 4, F 5);

/// Implements [`State`](crate::State) for a struct. The listed fields, which are states, are saved under their names.
///
/// # Example
///
/// ```
/// use burn_backup_restore::{Value, impl_state};
///
/// struct Progress {
///     images: Value<u64>,
///     best_loss: Value<f64>,
/// }
///
/// impl_state!(Progress { images, best_loss });
/// ```
#[macro_export]
macro_rules! impl_state {
    ($state:ty { $($field:ident),+ $(,)? }) => {
        impl $crate::State for $state {
            fn parts<'a>(&'a self, parts: &mut $crate::Parts<'a>) {
                $(parts.add(stringify!($field), &self.$field);)+
            }

            fn parts_mut<'a>(&'a mut self, parts: &mut $crate::PartsMut<'a>) {
                $(parts.add(stringify!($field), &mut self.$field);)+
            }
        }
    };
}
