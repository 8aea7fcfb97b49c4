//! A region at one input size: the size of every tensor, and its place in the arena.

use super::graph::{Op, Region};

/// Every tensor ends with this many bytes that kernels may read and no one interprets:
/// the product reads whole units of the inner dimension (16 at most).
pub const SLACK: usize = 64;

/// Why a region cannot run at a size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("`{tensor}`: an input of {height}x{width} is smaller than the window")]
    TooSmall { tensor: String, height: usize, width: usize },
    #[error("`{tensor}`: the two sides of the addition are {a:?} and {b:?}")]
    Mismatch { tensor: String, a: [usize; 2], b: [usize; 2] },
    #[error("{0} bytes of activations are more than the limit of {1}")]
    TooLarge(usize, usize),
}

/// Most bytes of activations: 1 GiB.
const MOST_BYTES: usize = 1 << 30;

/// Sizes and places for one input size. Cheap; one per view size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `[h, w]` of every tensor.
    pub sizes: Vec<[usize; 2]>,
    /// Where every tensor starts in the arena.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub arena_len: usize,
    /// Multiply-accumulates of one pass.
    pub macs: u64,
}

impl Plan {
    /// Plans for float inputs of the given `[h, w]`.
    pub fn new(region: &Region, inputs: &[[usize; 2]]) -> Result<Plan, PlanError> {
        let mut sizes = vec![[0; 2]; region.tensors.len()];
        let mut macs = 0;
        for op in &region.ops {
            let Some(out) = op.writes() else { continue };
            sizes[out] = output_size(op, &sizes, inputs).map_err(|size| PlanError::TooSmall {
                tensor: region.tensors[out].name.clone(),
                height: size[0],
                width: size[1],
            })?;
            if let Op::Add { a, b, .. } = *op
                && sizes[a] != sizes[b]
            {
                let tensor = region.tensors[out].name.clone();
                return Err(PlanError::Mismatch { tensor, a: sizes[a], b: sizes[b] });
            }
            macs += (sizes[out][0] * sizes[out][1] * op.macs_per_pixel()) as u64;
        }
        let (offsets, arena_len) = place(region, &sizes);
        if arena_len > MOST_BYTES {
            return Err(PlanError::TooLarge(arena_len, MOST_BYTES));
        }
        Ok(Plan { sizes, offsets, arena_len, macs })
    }

    /// The bytes of a tensor in the arena, slack included.
    pub fn range(&self, region: &Region, tensor: usize) -> std::ops::Range<usize> {
        let start = self.offsets[tensor];
        start..start + len(region, &self.sizes, tensor)
    }
}

fn len(region: &Region, sizes: &[[usize; 2]], tensor: usize) -> usize {
    let [h, w] = sizes[tensor];
    (h * w * region.tensors[tensor].channels + SLACK).next_multiple_of(64)
}

/// The output size of an operator, or the size that does not fit it.
fn output_size(
    op: &Op,
    sizes: &[[usize; 2]],
    inputs: &[[usize; 2]],
) -> Result<[usize; 2], [usize; 2]> {
    match *op {
        Op::Quantize { input, .. } => Ok(inputs[input]),
        Op::Conv { x, window, .. }
        | Op::Depthwise { x, window, .. }
        | Op::Separable { x, window, .. }
        | Op::MaxPool { x, window, .. } => window.output(sizes[x]).ok_or(sizes[x]),
        Op::Pad { x, pads, .. } => {
            Ok([sizes[x][0] + pads[0] + pads[2], sizes[x][1] + pads[1] + pads[3]])
        }
        Op::Add { a, .. } => Ok(sizes[a]),
        Op::Rescale { x, .. } | Op::Clip { x, .. } | Op::Dequantize { x, .. } => Ok(sizes[x]),
    }
}

/// Greedy placement by size (Pisarchyk and Lee 2020, arXiv:2001.03288): largest tensor
/// first, each into the lowest gap among those alive at the same time.
fn place(region: &Region, sizes: &[[usize; 2]]) -> (Vec<usize>, usize) {
    let n = region.tensors.len();
    let mut alive = vec![(usize::MAX, 0); n];
    for (i, op) in region.ops.iter().enumerate() {
        for t in op.reads().into_iter().chain(op.writes()) {
            alive[t] = (alive[t].0.min(i), alive[t].1.max(i));
        }
    }
    let mut order: Vec<usize> = (0..n).filter(|&t| alive[t].0 != usize::MAX).collect();
    order.sort_by_key(|&t| std::cmp::Reverse(len(region, sizes, t)));
    let mut offsets = vec![0; n];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for t in order {
        let size = len(region, sizes, t);
        let mut at = 0;
        // `placed` is kept by offset, so the first gap that is wide enough is the lowest.
        for &other in &placed {
            let meets = alive[t].0 <= alive[other].1 && alive[other].0 <= alive[t].1;
            if meets && offsets[other] < at + size {
                at = at.max(offsets[other] + len(region, sizes, other));
            }
        }
        offsets[t] = at;
        total = total.max(at + size);
        let position = placed.partition_point(|&o| offsets[o] <= at);
        placed.insert(position, t);
    }
    (offsets, total)
}
