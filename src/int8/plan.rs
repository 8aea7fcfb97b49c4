//! A region at one input size: the size of every tensor, and its place in the arena.

use super::graph::{Op, Region};
use super::run::scratch_len;

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
    #[error("`{tensor}`: {bytes} bytes for a thread to work in, the limit is {most}")]
    Scratch { tensor: String, bytes: usize, most: usize },
}

/// Most bytes of activations: 1 GiB.
const MOST_BYTES: usize = 1 << 30;

/// Most bytes that one thread works in besides; an image of 4096 pixels a side takes 2 MiB in
/// Xception.
const MOST_SCRATCH_BYTES: usize = 64 << 20;

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
    /// Values that it looks at besides.
    pub touched: u64,
}

impl Plan {
    /// Plans for float inputs of the given `[h, w, c]`.
    pub fn new(region: &Region, inputs: &[[usize; 3]]) -> Result<Plan, PlanError> {
        let mut sizes = vec![[0; 3]; region.tensors.len()];
        let (mut macs, mut touched) = (0u64, 0u64);
        for op in &region.ops {
            let Some(out) = op.writes() else { continue };
            let tensor = || region.tensors[out].name.clone();
            let read = match (op, &op.reads()[..]) {
                (Op::Quantize { input, .. }, _) => inputs[*input],
                (_, &[x]) => sizes[x],
                (_, &[a, b]) => {
                    let (a, b) = (sizes[a], sizes[b]);
                    let mismatch = || PlanError::Mismatch { tensor: tensor(), a, b };
                    together(a, b).ok_or_else(mismatch)?
                }
                _ => continue,
            };
            let channels = |expected, got| match expected == got {
                true => Ok(()),
                false => Err(PlanError::Channels { tensor: tensor(), expected, got }),
            };
            channels(op.channels_in().unwrap_or(read[2]), read[2])?;
            if let Op::Separable { depthwise, pointwise, .. } = op {
                channels(pointwise.run, depthwise.channels)?;
            }
            let [height, width, c] = read;
            let [h, w] = output_size(op, [height, width]).ok_or_else(|| PlanError::TooSmall {
                tensor: tensor(),
                height,
                width,
            })?;
            sizes[out] = [h, w, op.channels_out().unwrap_or(c)];
            let values = sizes[out].iter().fold(1, |n: usize, &side| n.saturating_mul(side));
            if values > MOST_BYTES {
                return Err(PlanError::TooLarge(values, MOST_BYTES));
            }
            let bytes = scratch_len(op, read, sizes[out]);
            if bytes > MOST_SCRATCH_BYTES {
                let most = MOST_SCRATCH_BYTES;
                return Err(PlanError::Scratch { tensor: tensor(), bytes, most });
            }
            macs = macs.saturating_add((h * w) as u64 * op.macs_per_pixel() as u64);
            touched = touched.saturating_add(values as u64 * op.touches() as u64);
        }
        let (offsets, arena_len) = place(region, &sizes);
        if arena_len > MOST_BYTES {
            return Err(PlanError::TooLarge(arena_len, MOST_BYTES));
        }
        Ok(Plan { sizes, offsets, arena_len, macs, touched })
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

/// `[h, w, c]` of two tensors' sum, or None where they do not fit.
fn together(a: [usize; 3], b: [usize; 3]) -> Option<[usize; 3]> {
    let mut sum = a;
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum = match (a, b) {
            (1, n) | (n, 1) => n,
            (a, b) if a == b => a,
            _ => return None,
        };
    }
    Some(sum)
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
        let mut at = 0usize;
        // `placed` is kept by offset, so the first gap that is wide enough is the lowest.
        for &other in &placed {
            let meets = alive[t].0 <= alive[other].1 && alive[other].0 <= alive[t].1;
            if meets && offsets[other] < at.saturating_add(size) {
                at = at.max(offsets[other].saturating_add(len(sizes, other)));
            }
        }
        offsets[t] = at;
        total = total.max(at.saturating_add(size));
        let position = placed.partition_point(|&o| offsets[o] <= at);
        placed.insert(position, t);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::aligned::Shelf;
    use crate::int8::graph::{Layout, Pads, TensorInfo, Window};
    use crate::int8::pack::{PackedDepthwise, Requant};
    use crate::int8::{Clamp, Isa, Quant};

    /// One operator after another, each on what the one before it wrote.
    fn planned(ops: Vec<Op>, size: [usize; 3]) -> Result<Plan, PlanError> {
        let info = TensorInfo { name: "t".into(), quant: Quant { scale: 1.0, zero_point: 0 } };
        let region = Region {
            isa: Isa::Scalar,
            tensors: vec![info; ops.len() + 1],
            ops: std::iter::once(Op::Quantize { input: 0, out: 0 }).chain(ops).collect(),
            inputs: vec![Layout::Nhwc],
            outputs: vec![],
        };
        Plan::new(&region, &[size])
    }

    fn window(kernel: [usize; 2], dilation: [usize; 2]) -> Window {
        Window { kernel, stride: [1, 1], dilation, pads: Pads::SameUpper }
    }

    #[test]
    fn a_ring_of_many_long_lines_is_refused() {
        let channels = 10_000;
        let (bias, multiplier) = (vec![0; channels], vec![1e-3; channels]);
        let clamp = Clamp::new(0, 0, 255);
        let q = Requant { input_zero: 0, bias: &bias, multiplier: &multiplier, clamp };
        let weights = vec![1; 64 * channels];
        let depthwise = |kernel, dilation| {
            let shelf = &mut Shelf::default();
            let weights = PackedDepthwise::new(Isa::Scalar, shelf, &weights, 64, channels, &q);
            let (weights, window) = (weights.unwrap(), window(kernel, dilation));
            planned(
                vec![Op::Depthwise { x: 0, rescale: None, out: 1, window, weights }],
                [1, 100, channels],
            )
        };
        assert!(depthwise([8, 8], [1, 1]).is_ok());
        // 4033 lines and one more of 100 pixels, 10,048 bytes each.
        let error = depthwise([64, 1], [64, 1]).unwrap_err();
        let (tensor, most) = ("t".to_string(), MOST_SCRATCH_BYTES);
        assert_eq!(error, PlanError::Scratch { tensor, bytes: 4034 * 100 * 10_048, most });
    }

    #[test]
    fn a_padded_line_is_refused_where_it_is_long() {
        let pool = |channels| {
            let window = window([1, 64], [1, 64]);
            planned(vec![Op::MaxPool { x: 0, out: 1, window }], [1, 8, channels])
        };
        assert!(pool(10_000).is_ok());
        assert!(matches!(pool(20_000), Err(PlanError::Scratch { .. })));
    }

    #[test]
    fn tensors_that_overflow_are_refused() {
        for size in [[1 << 15, 1 << 15, 2], [usize::MAX, 2, 2], [1 << 31, 1 << 31, 4]] {
            let error = planned(vec![], size).unwrap_err();
            assert!(matches!(error, PlanError::TooLarge(..)), "{error}");
        }
        let grown = vec![Op::Pad { x: 0, out: 1, pads: [4096; 4] }];
        assert!(matches!(planned(grown, [1 << 13, 1 << 13, 8]), Err(PlanError::TooLarge(..))));
    }

    #[test]
    fn what_a_pool_looks_at_counts() {
        let pool = Op::MaxPool { x: 0, out: 1, window: window([3, 5], [1, 1]) };
        let plan = planned(vec![pool], [4, 6, 2]).unwrap();
        assert_eq!((plan.macs, plan.touched), (0, 48 + 15 * 48));
    }

    #[test]
    fn sums_have_the_larger_of_each_side() {
        assert_eq!(together([4, 5, 6], [4, 5, 6]), Some([4, 5, 6]));
        assert_eq!(together([4, 1, 6], [1, 5, 1]), Some([4, 5, 6]));
        assert_eq!(together([4, 5, 6], [4, 5, 3]), None);
    }
}
