use burn::tensor::kind::Basic;
use burn::tensor::{Device, ExecutionError, Tensor, TensorData};

/// An observation or an action that a replay buffer can store and return in batches.
///
/// Burn's [`SliceAccess`](burn::rl::SliceAccess) is not enough, because it gives no access to a tensor's bytes.
/// Tensors, and tuples of two or three tensors, already implement this trait.
///
/// # Example
///
/// ```
/// use burn::tensor::Tensor;
/// use burn_backup_restore::rl::ReplayItem;
///
/// /// Observations, of shape `[batch, features]`.
/// struct Observation(Tensor<2>);
///
/// impl ReplayItem for Observation {
///     type Tensors = Tensor<2>;
///
///     fn into_tensors(self) -> Tensor<2> {
///         self.0
///     }
///
///     fn from_tensors(tensors: Tensor<2>) -> Self {
///         Self(tensors)
///     }
/// }
/// ```
pub trait ReplayItem: Sized {
    /// A tensor, or a tuple of tensors.
    type Tensors: ReplayTensors;

    /// Returns the tensors. The first dimension of each tensor counts the items.
    fn into_tensors(self) -> Self::Tensors;

    /// Makes a batch from tensors in the form that [`into_tensors`](Self::into_tensors) returns.
    fn from_tensors(tensors: Self::Tensors) -> Self;
}

impl<T: ReplayTensors> ReplayItem for T {
    type Tensors = T;

    fn into_tensors(self) -> T {
        self
    }

    fn from_tensors(tensors: T) -> T {
        tensors
    }
}

/// A tensor of any rank and kind, or a tuple of two or three of these. This trait is sealed.
pub trait ReplayTensors: sealed::Tensors {}

impl<const D: usize, K: Basic> ReplayTensors for Tensor<D, K> {}
impl<A: ReplayTensors, B: ReplayTensors> ReplayTensors for (A, B) {}
impl<A: ReplayTensors, B: ReplayTensors, C: ReplayTensors> ReplayTensors for (A, B, C) {}

pub(super) mod sealed {
    use super::{Basic, Device, ExecutionError, Tensor, TensorData};

    pub trait Tensors: Sized {
        /// Appends the data of each tensor to `to`.
        fn read(self, to: &mut Vec<TensorData>) -> Result<(), ExecutionError>;

        /// The tensors with this data; `None` if there are too few.
        fn write(from: &mut impl Iterator<Item = TensorData>, device: &Device) -> Option<Self>;
    }

    impl<const D: usize, K: Basic> Tensors for Tensor<D, K> {
        fn read(self, to: &mut Vec<TensorData>) -> Result<(), ExecutionError> {
            to.push(self.try_into_data()?);
            Ok(())
        }

        fn write(from: &mut impl Iterator<Item = TensorData>, device: &Device) -> Option<Self> {
            let data = from.next().filter(|data| data.rank() == D)?;
            let dtype = data.dtype();
            Some(Self::from_data(data, (device, dtype)))
        }
    }

    impl<A: Tensors, B: Tensors> Tensors for (A, B) {
        fn read(self, to: &mut Vec<TensorData>) -> Result<(), ExecutionError> {
            self.0.read(to)?;
            self.1.read(to)
        }

        fn write(from: &mut impl Iterator<Item = TensorData>, device: &Device) -> Option<Self> {
            Some((A::write(from, device)?, B::write(from, device)?))
        }
    }

    impl<A: Tensors, B: Tensors, C: Tensors> Tensors for (A, B, C) {
        fn read(self, to: &mut Vec<TensorData>) -> Result<(), ExecutionError> {
            self.0.read(to)?;
            self.1.read(to)?;
            self.2.read(to)
        }

        fn write(from: &mut impl Iterator<Item = TensorData>, device: &Device) -> Option<Self> {
            Some((
                A::write(from, device)?,
                B::write(from, device)?,
                C::write(from, device)?,
            ))
        }
    }
}
