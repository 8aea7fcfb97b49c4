//! A quantized region of a network as the executor sees it.

use super::elementwise::{Rescale, Term};
use super::pack::{PackedDepthwise, PackedGemm};
use super::{Act, Clamp, Isa, Quant};

/// Index into [`Region::tensors`].
pub type TensorId = usize;

/// What is known of a tensor before the input's shape is.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// The ONNX tensor that it stands for.
    pub name: String,
    pub quant: Quant,
}

/// A sliding window: rows first, as in ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    pub pads: Pads,
}

/// Padding of a window: as given, or (TensorFlow's "same") such that the output has
/// `ceil(size / stride)` rows and columns, the odd pixel at the end or at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pads {
    /// Top, left, bottom, right.
    Fixed([usize; 4]),
    SameUpper,
    SameLower,
}

impl Window {
    /// 1×1, stride 1, no padding.
    pub const POINT: Window =
        Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: Pads::Fixed([0; 4]) };

    /// Top, left, bottom, right, for an input of `[h, w]`.
    pub fn pads(&self, size: [usize; 2]) -> [usize; 4] {
        let same = |axis: usize| {
            let out = size[axis].div_ceil(self.stride[axis]).max(1);
            ((out - 1) * self.stride[axis] + self.reach(axis)).saturating_sub(size[axis])
        };
        let [v, h] = [same(0), same(1)];
        match self.pads {
            Pads::Fixed(pads) => pads,
            Pads::SameUpper => [v / 2, h / 2, v - v / 2, h - h / 2],
            Pads::SameLower => [v - v / 2, h - h / 2, v / 2, h / 2],
        }
    }

    /// Rows (0) or columns (1) from the first tap to the last, both counted.
    pub fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// Output size for an input size, or None where the window does not fit once.
    pub fn output(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let pads = self.pads(size);
        let mut out = [0; 2];
        for axis in 0..2 {
            let padded = size[axis] + pads[axis] + pads[axis + 2];
            out[axis] = padded.checked_sub(self.reach(axis))? / self.stride[axis] + 1;
        }
        Some(out)
    }

    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// How a float tensor at the border of a region lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[1, c, h, w]`, as ONNX has it.
    Nchw,
    /// `[1, h, w, c]`, as the region has it.
    Nhwc,
}

/// One operator. Inputs come before outputs; all tensors are of batch 1.
#[derive(Debug)]
pub enum Op {
    /// Region input `input`, float, becomes a tensor.
    Quantize {
        input: usize,
        out: TensorId,
    },
    /// Any convolution that is not depthwise: one product per group.
    Conv {
        x: TensorId,
        out: TensorId,
        window: Window,
        groups: Vec<PackedGemm>,
    },
    /// `rescale`: what the input goes through on its way.
    Depthwise {
        x: TensorId,
        rescale: Option<Rescale>,
        out: TensorId,
        window: Window,
        weights: PackedDepthwise,
    },
    /// Depthwise, then pointwise, tile by tile: the tensor between them never exists whole.
    Separable {
        x: TensorId,
        rescale: Option<Rescale>,
        out: TensorId,
        window: Window,
        depthwise: PackedDepthwise,
        pointwise: PackedGemm,
    },
    /// Of one shape; or a side of the one is 1 and serves all of the other's.
    Add {
        a: TensorId,
        b: TensorId,
        out: TensorId,
        terms: [Term; 2],
        clamp: Clamp,
    },
    Rescale {
        x: TensorId,
        out: TensorId,
        by: Rescale,
    },
    /// ReLU or Clip that keeps scale and zero point.
    Clip {
        x: TensorId,
        out: TensorId,
        low: Act,
        high: Act,
    },
    MaxPool {
        x: TensorId,
        out: TensorId,
        window: Window,
    },
    /// Explicit zero padding: top, left, bottom, right.
    Pad {
        x: TensorId,
        out: TensorId,
        pads: [usize; 4],
    },
    /// A tensor becomes region output `output`, float.
    Dequantize {
        x: TensorId,
        output: usize,
    },
}

impl Op {
    /// Tensors read.
    pub fn reads(&self) -> Vec<TensorId> {
        match *self {
            Op::Quantize { .. } => vec![],
            Op::Add { a, b, .. } => vec![a, b],
            Op::Conv { x, .. }
            | Op::Depthwise { x, .. }
            | Op::Separable { x, .. }
            | Op::Rescale { x, .. }
            | Op::Clip { x, .. }
            | Op::MaxPool { x, .. }
            | Op::Pad { x, .. }
            | Op::Dequantize { x, .. } => vec![x],
        }
    }

    /// Tensor written.
    pub fn writes(&self) -> Option<TensorId> {
        match *self {
            Op::Quantize { out, .. }
            | Op::Conv { out, .. }
            | Op::Depthwise { out, .. }
            | Op::Separable { out, .. }
            | Op::Add { out, .. }
            | Op::Rescale { out, .. }
            | Op::Clip { out, .. }
            | Op::MaxPool { out, .. }
            | Op::Pad { out, .. } => Some(out),
            Op::Dequantize { .. } => None,
        }
    }

    /// Channels that the operator needs of what it reads; None: any number.
    pub fn channels_in(&self) -> Option<usize> {
        match self {
            Op::Conv { window, groups, .. } => {
                Some(groups.iter().map(|g| g.run / window.kernel[1]).sum())
            }
            Op::Depthwise { weights, .. } | Op::Separable { depthwise: weights, .. } => {
                Some(weights.channels)
            }
            _ => None,
        }
    }

    /// Channels of what it writes, where they are not those of what it reads.
    pub fn channels_out(&self) -> Option<usize> {
        match self {
            Op::Conv { groups, .. } => Some(groups.iter().map(|g| g.n).sum()),
            Op::Separable { pointwise, .. } => Some(pointwise.n),
            _ => None,
        }
    }

    /// Bytes of packed weights, with their biases and multipliers.
    pub fn weight_bytes(&self) -> usize {
        let gemm = |g: &PackedGemm| g.data.as_slice().len() + 8 * g.bias.len();
        let depthwise = |d: &PackedDepthwise| d.data.as_slice().len() + 8 * d.bias.len();
        match self {
            Op::Conv { groups, .. } => groups.iter().map(gemm).sum(),
            Op::Depthwise { weights, .. } => depthwise(weights),
            Op::Separable { depthwise: d, pointwise, .. } => depthwise(d) + gemm(pointwise),
            _ => 0,
        }
    }

    /// Values that are looked at for each one that is written, besides products.
    pub fn touches(&self) -> usize {
        match self {
            Op::MaxPool { window, .. } => window.taps(),
            _ => 1,
        }
    }

    /// Multiply-accumulates for each output pixel.
    pub fn macs_per_pixel(&self) -> usize {
        match self {
            Op::Conv { groups, .. } => groups.iter().map(PackedGemm::macs).sum(),
            Op::Depthwise { weights, .. } => weights.channels * weights.taps,
            Op::Separable { depthwise, pointwise, .. } => {
                depthwise.channels * depthwise.taps + pointwise.macs()
            }
            _ => 0,
        }
    }
}

/// A quantized part of a network with float tensors at its borders. Immutable; shared by
/// the plans of all sizes.
#[derive(Debug)]
pub struct Region {
    pub isa: Isa,
    pub tensors: Vec<TensorInfo>,
    /// In an order in which each tensor is written before it is read.
    pub ops: Vec<Op>,
    /// Layout of each float input.
    pub inputs: Vec<Layout>,
    /// Layout and tensor of each float output.
    pub outputs: Vec<(Layout, TensorId)>,
}
