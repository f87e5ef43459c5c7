//! Observations and actions, as Burn's traits want them.

use burn::rl::{Batchable, SliceAccess};
use burn::tensor::{Device, Int, Tensor};
use burn_backup_restore::rl::ReplayItem;

/// One observation, or one action, in each row.
#[derive(Debug, Clone)]
pub struct Rows(pub Tensor<2>);

impl Batchable for Rows {
    fn batch(rows: Vec<Self>) -> Self {
        Self(Tensor::cat(rows.into_iter().map(|row| row.0).collect(), 0))
    }

    fn unbatch(self) -> Vec<Self> {
        self.0.split(1, 0).into_iter().map(Self).collect()
    }
}

impl SliceAccess for Rows {
    fn zeros_like(sample: &Self, capacity: usize, device: &Device) -> Self {
        Self(SliceAccess::zeros_like(&sample.0, capacity, device))
    }

    fn select(self, dim: usize, indices: Tensor<1, Int>) -> Self {
        Self(self.0.select(dim, indices))
    }

    fn slice_assign_inplace(&mut self, index: usize, value: Self) {
        self.0.slice_assign_inplace(index, value.0);
    }
}

impl ReplayItem for Rows {
    type Tensors = Tensor<2>;

    fn into_tensors(self) -> Tensor<2> {
        self.0
    }

    fn from_tensors(tensors: Tensor<2>) -> Self {
        Self(tensors)
    }
}
