//! What a pass found where, in memory that the next pass of its size uses again: at the larger
//! views these are megabytes, and fresh pages would cost more than the pooling and the head.

use super::op::Shared;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use tract_onnx::prelude::Tensor;

/// Features of one pass, `[height, width, channels]`.
pub struct Features {
    tensor: Tensor,
    home: Arc<Shared>,
}

impl Features {
    pub(super) fn new(tensor: Tensor, home: Arc<Shared>) -> Self {
        Self { tensor, home }
    }
}

impl Deref for Features {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // Made by this room, in memory and of this type.
        self.tensor.try_as_plain_ram().and_then(|t| t.as_slice()).unwrap_or_default()
    }
}

impl Drop for Features {
    fn drop(&mut self) {
        self.home.give_features(std::mem::take(&mut self.tensor));
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.tensor)
    }
}

impl PartialEq for Features {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
