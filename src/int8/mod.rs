//! Quantized operators and their kernels: what tract lacks to run an int8 network at the
//! speed of the machine. Knows nothing of the rest of the house; docs/int8.md explains
//! layout, packing, tiling and requantization for whoever adds a kernel.
//!
//! A quantized region of a network is a [`graph::Region`]: a list of operators over
//! tensors `[h, w, c]` (batch 1) of one byte per value. [`plan::Plan`] fixes the sizes for
//! one input size and lays every tensor out in one arena; [`run::run`] executes it.
//!
//! # Arithmetic
//! A tensor holds `real = scale · (q − zero_point)` with `q` in 0..=255. An accumulator is
//! requantized as
//!
//! `q = clamp(round_ties_even(f32(acc) · multiplier) + zero_point, low, high)`
//!
//! with every operation in IEEE single precision and nothing fused, so that every kernel
//! on every machine gives the same bits ([`requantize`] is the definition; each kernel has
//! its scalar twin). ONNX Runtime rounds the same way.

pub mod aligned;
pub mod depthwise;
mod depthwise_scalar;
pub mod elementwise;
pub mod gemm;
mod gemm_scalar;
pub mod graph;
pub mod isa;
mod lines;
pub mod pack;
pub mod plan;
pub mod run;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use isa::Isa;

/// How an activation byte is stored. `vpdpbusd` multiplies unsigned activations with signed
/// weights, `sdot` signed with signed: so each machine stores what its kernels read.
#[cfg(not(target_arch = "aarch64"))]
pub type Act = u8;
/// See the other architectures: here `q − 128`.
#[cfg(target_arch = "aarch64")]
pub type Act = i8;

/// `q − stored`: what to subtract from a 0..=255 value to store it as [`Act`].
pub const ACT_OFFSET: i32 = if cfg!(target_arch = "aarch64") { 128 } else { 0 };

/// The affine map of a tensor: `real = scale · (q − zero_point)`, `q` in 0..=255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quant {
    pub scale: f32,
    /// 0..=255 for activations (signed 8-bit tensors are shifted by 128 on import).
    pub zero_point: i32,
}

impl Quant {
    /// The stored byte that means 0.0.
    pub fn zero(&self) -> Act {
        store(self.zero_point)
    }

    /// `round(real / scale) + zero_point`, saturated: ONNX QuantizeLinear. NaN becomes the
    /// least.
    pub fn quantize(&self, real: f32) -> Act {
        let q = elementwise::round(real / self.scale) + self.zero_point;
        store(q.clamp(0, 255))
    }

    /// ONNX DequantizeLinear.
    pub fn dequantize(&self, stored: Act) -> f32 {
        (load(stored) - self.zero_point) as f32 * self.scale
    }
}

/// `q` in 0..=255 as it lies in memory.
#[inline(always)]
pub fn store(q: i32) -> Act {
    (q - ACT_OFFSET) as Act
}

/// The value 0..=255 of a stored byte.
#[inline(always)]
pub fn load(stored: Act) -> i32 {
    stored as i32 + ACT_OFFSET
}

/// Where an operator's output lands: in stored bytes, so kernels need no offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    pub zero_point: i32,
    /// A folded ReLU or Clip raises `low` or lowers `high`.
    pub low: i32,
    pub high: i32,
}

impl Clamp {
    /// `zero_point`, `low` and `high` in 0..=255.
    pub fn new(zero_point: i32, low: i32, high: i32) -> Self {
        Self { zero_point: zero_point - ACT_OFFSET, low: low - ACT_OFFSET, high: high - ACT_OFFSET }
    }
}

/// The definition of requantization (see the module). |acc · multiplier| must stay below
/// 2³¹, which [`pack`] checks once at load.
#[inline(always)]
pub fn requantize(acc: i32, multiplier: f32, clamp: Clamp) -> Act {
    let q = (acc as f32 * multiplier).round_ties_even() as i32;
    q.saturating_add(clamp.zero_point).clamp(clamp.low, clamp.high) as Act
}
