//! Weights in the order in which the kernels read them. Packed once, at load; shared by
//! every plan.

use super::aligned::{Aligned, Shelf};
use super::{ACT_OFFSET, Clamp, Isa};

/// Something about a layer's numbers that the kernels cannot take.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PackError {
    /// The accumulator could leave 32 bits, or its product with the multiplier could.
    #[error(
        "output channel {channel} can overflow (weights sum to {reach}, multiplier {multiplier})"
    )]
    Overflow { channel: usize, reach: i64, multiplier: f32 },
    #[error("output channel {channel} has the multiplier {multiplier}")]
    Multiplier { channel: usize, multiplier: f32 },
}

/// The micro-kernel's tile: how many columns of the product it makes at a time, and how
/// many steps of the inner dimension one of its instructions takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panel {
    pub columns: usize,
    pub k_unit: usize,
}

impl Panel {
    pub fn of(isa: Isa) -> Self {
        let (columns, k_unit) = match isa {
            Isa::Scalar => (1, 1),
            Isa::Avx2 => (8, 4),
            Isa::AvxVnni => (16, 4),
            Isa::Avx512Vnni => (32, 4),
            Isa::Neon => (4, 16),
            Isa::NeonDot => (16, 4),
            Isa::NeonI8mm => (16, 8),
        };
        Self { columns, k_unit }
    }
}

/// Bytes past the last panel that a kernel reads: it loads weights a step ahead.
fn read_ahead(isa: Isa) -> usize {
    match isa {
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => 32,
        _ => 0,
    }
}

/// In which slot of its panel a column lies, chosen so that the kernel's packing of 32-bit
/// results to bytes leaves them in natural order.
fn slot(isa: Isa, column: usize, narrow: bool) -> usize {
    match isa {
        // packs_epi32(z0, z1) interleaves four results of each within a 128-bit lane
        Isa::Avx512Vnni if !narrow => column / 8 * 4 + column % 4 + column / 4 % 2 * 16,
        // packs_epi32(y0, y1), likewise
        Isa::AvxVnni => column / 8 * 4 + column % 4 + column / 4 % 2 * 8,
        // hadd_epi32(y0, y1) takes two neighbours of each per 128-bit lane
        Isa::Avx2 => column / 4 * 2 + column % 2 + column / 2 % 2 * 4,
        _ => column,
    }
}

/// The weights `[k, n]` of a matrix product, in panels of columns.
///
/// Panel by panel; within one, unit by unit of `k`; within one, slot by slot; within one,
/// the `k_unit` weights. What pads runs and columns is zero. AVX-512 ends with a
/// panel of half the width when the rest fits into it.
#[derive(Debug)]
pub struct PackedGemm {
    pub isa: Isa,
    pub n: usize,
    /// The inner dimension is `runs` stretches of `run` values that lie together: one for
    /// a pointwise convolution, one per kernel row for a window that is read in place.
    pub runs: usize,
    pub run: usize,
    /// `run` rounded up, in units.
    pub run_units: usize,
    pub data: Aligned<i8>,
    /// Per slot of every panel; the input's zero point is folded in.
    pub bias: Vec<i32>,
    /// Per slot: input scale · weight scale / output scale.
    pub multiplier: Vec<f32>,
    pub clamp: Clamp,
    /// A weight of −128: NEON's pairwise 16-bit sums could overflow.
    pub has_min: bool,
}

/// What every convolution brings besides its weights.
#[derive(Clone, Debug)]
pub struct Requant<'a> {
    /// Zero point of the input, 0..=255.
    pub input_zero: i32,
    /// Per output channel, in units of input scale · weight scale.
    pub bias: &'a [i32],
    pub multiplier: &'a [f32],
    pub clamp: Clamp,
}

impl Requant<'_> {
    /// Folds the input's zero point into the bias of channel `c` and checks its range.
    fn fold(&self, c: usize, weights: &[i8]) -> Result<i32, PackError> {
        let (mut sum, mut reach) = (0i64, 0i64);
        // Every weight of a model passes here: in 32 bits for as long as they hold.
        for part in weights.chunks(1 << 16) {
            sum += i64::from(part.iter().map(|&w| i32::from(w)).sum::<i32>());
            reach += 255 * i64::from(part.iter().map(|&w| i32::from(w).abs()).sum::<i32>());
        }
        let multiplier = self.multiplier[c];
        if !(multiplier.is_finite() && multiplier > 0.0) {
            return Err(PackError::Multiplier { channel: c, multiplier });
        }
        let exact = self.bias[c] as i64 - (self.input_zero - ACT_OFFSET) as i64 * sum;
        // A dead channel has tiny weights, hence a tiny scale and a bias at the end of 32
        // bits. Cutting the bias to what leaves room for the sum changes nothing then.
        let room = (i32::MAX as i64 - reach).max(0);
        let bias = exact.clamp(-room, room);
        let lost = (exact - bias).abs() as f64 * multiplier as f64;
        if reach > i32::MAX as i64 / 2
            || lost > 0.25
            || (reach + bias.abs()) as f64 * multiplier as f64 >= 1e9
        {
            return Err(PackError::Overflow { channel: c, reach, multiplier });
        }
        Ok(bias as i32)
    }
}

impl PackedGemm {
    /// `weights` is `[n, runs, run]`: the weights of one output channel lie together.
    pub fn new(
        isa: Isa,
        shelf: &mut Shelf,
        weights: &[i8],
        n: usize,
        [runs, run]: [usize; 2],
        q: &Requant,
    ) -> Result<Self, PackError> {
        assert_eq!(weights.len(), n * runs * run);
        let Panel { columns, k_unit } = Panel::of(isa);
        let run_units = run.div_ceil(k_unit);
        let (k, k_units) = (runs * run, runs * run_units);
        let full = n / columns;
        let rest = n % columns;
        let narrow = isa == Isa::Avx512Vnni && rest > 0 && rest <= columns / 2;
        let last = if narrow { columns / 2 } else { columns };
        let slots = full * columns + if rest > 0 { last } else { 0 };
        let mut data = shelf.take(slots * k_units * k_unit + read_ahead(isa));
        let mut bias = vec![0; slots];
        let mut multiplier = vec![1.0; slots];
        let bytes = data.as_mut_slice();
        for c in 0..n {
            let (panel, column) = (c / columns, c % columns);
            let is_narrow = narrow && panel == full;
            let width = if is_narrow { last } else { columns };
            let s = slot(isa, column, is_narrow);
            let row = &weights[c * k..(c + 1) * k];
            let base = panel * columns * k_units * k_unit + s * k_unit;
            let stride = width * k_unit;
            for (r, run) in row.chunks(run).enumerate() {
                let column = &mut bytes[base + r * run_units * stride..];
                match k_unit {
                    1 => spread::<1>(run, column, stride),
                    4 => spread::<4>(run, column, stride),
                    8 => spread::<8>(run, column, stride),
                    16 => spread::<16>(run, column, stride),
                    _ => unreachable!("a unit of {k_unit}"),
                }
            }
            bias[panel * columns + s] = q.fold(c, row)?;
            multiplier[panel * columns + s] = q.multiplier[c];
        }
        let has_min = weights.contains(&i8::MIN);
        Ok(Self { isa, n, runs, run, run_units, data, bias, multiplier, clamp: q.clamp, has_min })
    }

    /// Bytes of a run that the kernels read: `run` rounded up to whole units.
    pub fn run_bytes(&self) -> usize {
        self.run_units * Panel::of(self.isa).k_unit
    }

    /// The inner dimension in units, all runs together.
    pub fn k_units(&self) -> usize {
        self.runs * self.run_units
    }

    /// Multiply-accumulates for each output pixel.
    pub fn macs(&self) -> usize {
        self.n * self.runs * self.run
    }
}

/// Lays the units of a run `stride` bytes apart.
fn spread<const K_UNIT: usize>(run: &[i8], column: &mut [i8], stride: usize) {
    let (units, rest) = run.as_chunks::<K_UNIT>();
    for (unit, place) in units.iter().zip(column.chunks_mut(stride)) {
        place[..K_UNIT].copy_from_slice(unit);
    }
    if !rest.is_empty() {
        column[units.len() * stride..][..rest.len()].copy_from_slice(rest);
    }
}

/// Channels that a depthwise kernel handles at a time.
pub fn depthwise_block(isa: Isa) -> usize {
    match isa {
        Isa::Scalar => 1,
        Isa::Avx2 | Isa::AvxVnni | Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => 16,
        Isa::Avx512Vnni => 64,
    }
}

/// Taps that a depthwise kernel takes in one step.
pub fn depthwise_group(isa: Isa) -> usize {
    match isa {
        Isa::Scalar | Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => 1,
        Isa::Avx2 | Isa::AvxVnni => 2,
        Isa::Avx512Vnni => 4,
    }
}

/// The weights of a depthwise convolution, `[taps, channels]`, in blocks of channels.
///
/// Block by block; within one, group by group of taps; then in the order of the kernel's
/// registers (see `depthwise_slot`). Missing taps and channels are zero.
#[derive(Debug)]
pub struct PackedDepthwise {
    pub isa: Isa,
    pub channels: usize,
    pub taps: usize,
    /// `taps` rounded up, in groups.
    pub groups: usize,
    pub data: Aligned<i8>,
    /// Per slot of every block.
    pub bias: Vec<i32>,
    pub multiplier: Vec<f32>,
    pub clamp: Clamp,
    pub has_min: bool,
}

/// Taps of a group that are in use. The nine of a 3×3 kernel go row by row, three to a
/// group of four, so that neighbouring pixels can share what was unpacked.
pub fn depthwise_used(isa: Isa, taps: usize) -> usize {
    match (depthwise_group(isa), taps) {
        (4, 9) => 3,
        (group, _) => group,
    }
}

/// In which 32-bit slot of its block a channel is accumulated. Unpacking four taps'
/// bytes twice leaves the channels of a 128-bit lane in four registers; packing them
/// back restores the order.
fn depthwise_slot(isa: Isa, channel: usize) -> usize {
    match isa {
        Isa::Avx512Vnni => channel % 16 / 4 * 16 + channel / 16 * 4 + channel % 4,
        Isa::Avx2 | Isa::AvxVnni => channel / 4 % 2 * 8 + channel / 8 * 4 + channel % 4,
        _ => channel,
    }
}

impl PackedDepthwise {
    /// `weights` is `[taps, channels]`.
    pub fn new(
        isa: Isa,
        shelf: &mut Shelf,
        weights: &[i8],
        taps: usize,
        channels: usize,
        q: &Requant,
    ) -> Result<Self, PackError> {
        assert_eq!(weights.len(), taps * channels);
        let (block, group) = (depthwise_block(isa), depthwise_group(isa));
        let used = depthwise_used(isa, taps);
        let groups = taps.div_ceil(used);
        let slots = channels.div_ceil(block) * block;
        let mut data = shelf.take(slots * groups * group);
        let mut bias = vec![0; slots];
        let mut multiplier = vec![1.0; slots];
        let bytes = data.as_mut_slice();
        for c in 0..channels {
            let s = depthwise_slot(isa, c % block);
            let base = c / block * block;
            for t in 0..taps {
                let at = base * groups * group + (t / used * block + s) * group + t % used;
                bytes[at] = weights[t * channels + c];
            }
            let own: Vec<i8> = (0..taps).map(|t| weights[t * channels + c]).collect();
            bias[base + s] = q.fold(c, &own)?;
            multiplier[base + s] = q.multiplier[c];
        }
        let has_min = weights.contains(&i8::MIN);
        Ok(Self { isa, channels, taps, groups, data, bias, multiplier, clamp: q.clamp, has_min })
    }
}
