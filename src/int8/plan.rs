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
    Mismatch { tensor: String, a: [usize; 3], b: [usize; 3] },
    #[error("`{tensor}`: the operator expects {expected} channels and gets {got}")]
    Channels { tensor: String, expected: usize, got: usize },
    #[error("{0} bytes of activations are more than the limit of {1}")]
    TooLarge(usize, usize),
}

/// Most bytes of activations: 1 GiB.
const MOST_BYTES: usize = 1 << 30;

/// Sizes and places for one input size. Cheap; one per view size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `[h, w, c]` of every tensor.
    pub sizes: Vec<[usize; 3]>,
    /// Where every tensor starts in the arena.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub arena_len: usize,
    /// Multiply-accumulates of one pass.
    pub macs: u64,
}

impl Plan {
    /// Plans for float inputs of the given `[h, w, c]`.
    pub fn new(region: &Region, inputs: &[[usize; 3]]) -> Result<Plan, PlanError> {
        let mut sizes = vec![[0; 3]; region.tensors.len()];
        let mut macs = 0;
        for op in &region.ops {
            let Some(out) = op.writes() else { continue };
            let tensor = || region.tensors[out].name.clone();
            let read = match (op, op.reads().first()) {
                (Op::Quantize { input, .. }, _) => inputs[*input],
                (_, Some(&x)) => sizes[x],
                (_, None) => continue,
            };
            if let Some(expected) = op.channels_in().filter(|&c| c != read[2]) {
                return Err(PlanError::Channels { tensor: tensor(), expected, got: read[2] });
            }
            if let Op::Add { a, b, .. } = *op
                && sizes[a] != sizes[b]
            {
                return Err(PlanError::Mismatch { tensor: tensor(), a: sizes[a], b: sizes[b] });
            }
            let [height, width, c] = read;
            let [h, w] = output_size(op, [height, width]).ok_or_else(|| PlanError::TooSmall {
                tensor: tensor(),
                height,
                width,
            })?;
            sizes[out] = [h, w, op.channels_out().unwrap_or(c)];
            macs += (h * w * op.macs_per_pixel()) as u64;
        }
        let (offsets, arena_len) = place(region, &sizes);
        if arena_len > MOST_BYTES {
            return Err(PlanError::TooLarge(arena_len, MOST_BYTES));
        }
        Ok(Plan { sizes, offsets, arena_len, macs })
    }

    /// The bytes of a tensor in the arena, slack included.
    pub fn range(&self, tensor: usize) -> std::ops::Range<usize> {
        let start = self.offsets[tensor];
        start..start + len(&self.sizes, tensor)
    }
}

fn len(sizes: &[[usize; 3]], tensor: usize) -> usize {
    let [h, w, c] = sizes[tensor];
    (h * w * c + SLACK).next_multiple_of(64)
}

/// `[h, w]` of the output, or None where the window does not fit once.
fn output_size(op: &Op, [h, w]: [usize; 2]) -> Option<[usize; 2]> {
    match *op {
        Op::Conv { window, .. }
        | Op::Depthwise { window, .. }
        | Op::Separable { window, .. }
        | Op::MaxPool { window, .. } => window.output([h, w]),
        Op::Pad { pads, .. } => Some([h + pads[0] + pads[2], w + pads[1] + pads[3]]),
        _ => Some([h, w]),
    }
}

/// Greedy placement by size (Pisarchyk and Lee 2020, arXiv:2001.03288): largest tensor
/// first, each into the lowest gap among those alive at the same time.
fn place(region: &Region, sizes: &[[usize; 3]]) -> (Vec<usize>, usize) {
    let n = region.tensors.len();
    let mut alive = vec![(usize::MAX, 0); n];
    for (i, op) in region.ops.iter().enumerate() {
        for t in op.reads().into_iter().chain(op.writes()) {
            alive[t] = (alive[t].0.min(i), alive[t].1.max(i));
        }
    }
    let mut order: Vec<usize> = (0..n).filter(|&t| alive[t].0 != usize::MAX).collect();
    order.sort_by_key(|&t| std::cmp::Reverse(len(sizes, t)));
    let mut offsets = vec![0; n];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for t in order {
        let size = len(sizes, t);
        let mut at = 0;
        // `placed` is kept by offset, so the first gap that is wide enough is the lowest.
        for &other in &placed {
            let meets = alive[t].0 <= alive[other].1 && alive[other].0 <= alive[t].1;
            if meets && offsets[other] < at + size {
                at = at.max(offsets[other] + len(sizes, other));
            }
        }
        offsets[t] = at;
        total = total.max(at + size);
        let position = placed.partition_point(|&o| offsets[o] <= at);
        placed.insert(position, t);
    }
    (offsets, total)
}
