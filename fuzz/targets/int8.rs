//! Networks of a few quantized operators: every instruction set of the machine gives the bits
//! of the scalar kernels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use salientd::int8::aligned::Shelf;
use salientd::int8::elementwise::{Rescale, Term};
use salientd::int8::graph::{Layout, Op, Pads, Region, TensorInfo, Window};
use salientd::int8::pack::{PackedDepthwise, PackedGemm, Requant};
use salientd::int8::plan::Plan;
use salientd::int8::run::{Workspace, run};
use salientd::int8::{Clamp, Isa, Quant, store};
use std::sync::atomic::AtomicBool;

/// Larger networks find nothing that these do not, later.
const MOST_STEPS: u8 = 4;

/// Numbers from the bytes of an input; zeros after its end.
struct Input<'a>(std::slice::Iter<'a, u8>);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }
}

#[derive(Debug)]
struct Network {
    size: [u8; 2],
    channels: u8,
    quant: Scale,
    steps: Vec<Step>,
    seed: u32,
    threads: u8,
    is_planar: bool,
}

#[derive(Clone, Copy, Debug)]
struct Scale {
    scale: u8,
    zero_point: u8,
}

#[derive(Clone, Copy, Debug)]
struct Slide {
    kernel: [u8; 2],
    stride: [u8; 2],
    dilation: [u8; 2],
    pads: Option<[u8; 4]>,
    is_upper: bool,
}

/// An operator after the one before; the range of its output where it has one.
#[derive(Clone, Copy, Debug)]
enum Step {
    Conv { slide: Slide, groups: u8, outputs: u8, ends: Ends },
    Depthwise { slide: Slide, before: Option<Ends>, ends: Ends },
    Separable { slide: Slide, before: Option<Ends>, outputs: u8, ends: [Ends; 2] },
    Add { ends: Ends },
    Rescale { ends: Ends },
    Clip { low: u8, high: u8 },
    MaxPool { slide: Slide },
    Pad { pads: [u8; 4] },
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    quant: Scale,
    low: u8,
    high: u8,
}

impl Scale {
    fn read(input: &mut Input) -> Self {
        Self { scale: input.byte(), zero_point: input.byte() }
    }

    fn quant(self) -> Quant {
        // From 2⁻⁸ to 2⁷, in sixteenths.
        let scale = (f32::from(self.scale) / 16.0 - 8.0).exp2();
        Quant { scale, zero_point: self.zero_point.into() }
    }
}

impl Ends {
    fn read(input: &mut Input) -> Self {
        Self { quant: Scale::read(input), low: input.byte(), high: input.byte() }
    }

    fn clamp(self) -> Clamp {
        let (low, high) = (self.low.min(self.high), self.low.max(self.high));
        Clamp::new(self.quant.zero_point.into(), low.into(), high.into())
    }

    fn rescale(self, from: Quant) -> Rescale {
        Rescale { term: Term::new(from, self.quant.quant().scale), clamp: self.clamp() }
    }
}

impl Slide {
    fn read(input: &mut Input) -> Self {
        Self {
            kernel: input.bytes(),
            stride: input.bytes(),
            dilation: input.bytes(),
            pads: input.flag().then(|| input.bytes()),
            is_upper: input.flag(),
        }
    }

    fn window(self) -> Window {
        let at_most = |most: usize, of: [u8; 2]| of.map(|n| 1 + usize::from(n) % most);
        let kernel = at_most(5, self.kernel);
        let pads = match self.pads {
            Some(pads) => Pads::Fixed(pads.map(|n| usize::from(n) % 8)),
            None if self.is_upper => Pads::SameUpper,
            None => Pads::SameLower,
        };
        let (stride, dilation) = (at_most(3, self.stride), at_most(2, self.dilation));
        Window { kernel, stride, dilation, pads }
    }
}

impl Step {
    fn read(input: &mut Input) -> Self {
        let before = |input: &mut Input| input.flag().then(|| Ends::read(input));
        match input.byte() % 8 {
            0 => Self::Conv {
                slide: Slide::read(input),
                groups: input.byte(),
                outputs: input.byte(),
                ends: Ends::read(input),
            },
            1 => Self::Depthwise {
                slide: Slide::read(input),
                before: before(input),
                ends: Ends::read(input),
            },
            2 => Self::Separable {
                slide: Slide::read(input),
                before: before(input),
                outputs: input.byte(),
                ends: [Ends::read(input), Ends::read(input)],
            },
            3 => Self::Add { ends: Ends::read(input) },
            4 => Self::Rescale { ends: Ends::read(input) },
            5 => Self::Clip { low: input.byte(), high: input.byte() },
            6 => Self::MaxPool { slide: Slide::read(input) },
            _ => Self::Pad { pads: input.bytes() },
        }
    }
}

/// Builds a region step by step. Weights are drawn from a seed, the same for every build.
struct Builder {
    isa: Isa,
    shelf: Shelf,
    seed: u32,
    channels: usize,
    tensors: Vec<TensorInfo>,
    ops: Vec<Op>,
}

impl Builder {
    fn tensor(&mut self, quant: Quant) -> usize {
        self.tensors.push(TensorInfo { name: String::new(), quant });
        self.tensors.len() - 1
    }

    /// xorshift32 (Marsaglia 2003, doi:10.18637/jss.v008.i14).
    fn weights(&mut self, n: usize) -> Vec<i8> {
        let next = |_| {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 17;
            self.seed ^= self.seed << 5;
            self.seed as i8
        };
        (0..n).map(next).collect()
    }

    /// None: the layer can overflow, which is refused when a model is loaded.
    fn gemm(&mut self, n: usize, run: [usize; 2], zero: i32, ends: Ends) -> Option<PackedGemm> {
        let weights = self.weights(n * run[0] * run[1]);
        let bias: Vec<i32> = self.weights(n).into_iter().map(|b| i32::from(b) << 6).collect();
        let multiplier = vec![ends.quant.quant().scale / 256.0; n];
        let q =
            Requant { input_zero: zero, bias: &bias, multiplier: &multiplier, clamp: ends.clamp() };
        PackedGemm::new(self.isa, &mut self.shelf, &weights, n, run, &q).ok()
    }

    fn depthwise(&mut self, taps: usize, zero: i32, ends: Ends) -> Option<PackedDepthwise> {
        let n = self.channels;
        let weights = self.weights(taps * n);
        let bias: Vec<i32> = self.weights(n).into_iter().map(i32::from).collect();
        let multiplier = vec![ends.quant.quant().scale / 256.0; n];
        let q =
            Requant { input_zero: zero, bias: &bias, multiplier: &multiplier, clamp: ends.clamp() };
        PackedDepthwise::new(self.isa, &mut self.shelf, &weights, taps, n, &q).ok()
    }

    /// Appends an operator on the tensor `x`; returns the tensor that it writes.
    fn step(&mut self, x: usize, step: Step) -> Option<usize> {
        let from = self.tensors[x].quant;
        let few = |n: u8| 1 + usize::from(n) % 40;
        let zero_after = |before: Option<Ends>| {
            before.map_or(from.zero_point, |ends| ends.quant.zero_point.into())
        };
        let rescale = |before: Option<Ends>| before.map(|ends| ends.rescale(from));
        let (quant, op): (Quant, Box<dyn FnOnce(usize) -> Op>) = match step {
            Step::Conv { slide, groups, outputs, ends } => {
                let window = slide.window();
                let groups = 1 + usize::from(groups) % 3;
                let groups = if self.channels.is_multiple_of(groups) { groups } else { 1 };
                let run = [window.kernel[0], window.kernel[1] * self.channels / groups];
                let gemm = |_| self.gemm(few(outputs), run, from.zero_point, ends);
                let packed: Option<Vec<_>> = (0..groups).map(gemm).collect();
                let packed = packed?;
                self.channels = groups * few(outputs);
                (
                    ends.quant.quant(),
                    Box::new(move |out| Op::Conv { x, out, window, groups: packed }),
                )
            }
            Step::Depthwise { slide, before, ends } => {
                let window = slide.window();
                let weights = self.depthwise(window.taps(), zero_after(before), ends)?;
                let rescale = rescale(before);
                let op = move |out| Op::Depthwise { x, rescale, out, window, weights };
                (ends.quant.quant(), Box::new(op))
            }
            Step::Separable { slide, before, outputs, ends: [between, ends] } => {
                let window = slide.window();
                let depthwise = self.depthwise(window.taps(), zero_after(before), between)?;
                let zero = between.quant.zero_point.into();
                let pointwise = self.gemm(few(outputs), [1, self.channels], zero, ends)?;
                let rescale = rescale(before);
                self.channels = few(outputs);
                let op = move |out| Op::Separable { x, rescale, out, window, depthwise, pointwise };
                (ends.quant.quant(), Box::new(op))
            }
            Step::Add { ends } => {
                let term = ends.rescale(from).term;
                let (terms, clamp) = ([term, term], ends.clamp());
                (ends.quant.quant(), Box::new(move |out| Op::Add { a: x, b: x, out, terms, clamp }))
            }
            Step::Rescale { ends } => {
                let by = ends.rescale(from);
                (ends.quant.quant(), Box::new(move |out| Op::Rescale { x, out, by }))
            }
            Step::Clip { low, high } => {
                let [low, high] = [low.min(high), low.max(high)].map(|q| store(q.into()));
                (from, Box::new(move |out| Op::Clip { x, out, low, high }))
            }
            Step::MaxPool { slide } => {
                let window = slide.window();
                (from, Box::new(move |out| Op::MaxPool { x, out, window }))
            }
            Step::Pad { pads } => {
                let pads = pads.map(|n| usize::from(n) % 4);
                (from, Box::new(move |out| Op::Pad { x, out, pads }))
            }
        };
        let out = self.tensor(quant);
        self.ops.push(op(out));
        Some(out)
    }
}

impl Network {
    fn read(input: &mut Input) -> Self {
        Self {
            size: input.bytes(),
            channels: input.byte(),
            quant: Scale::read(input),
            seed: u32::from_le_bytes(input.bytes()),
            threads: input.byte(),
            is_planar: input.flag(),
            steps: (0..input.byte() % (MOST_STEPS + 1)).map(|_| Step::read(input)).collect(),
        }
    }

    fn layout(&self) -> Layout {
        if self.is_planar { Layout::Nchw } else { Layout::Nhwc }
    }

    fn input_size(&self) -> [usize; 3] {
        let [h, w] = self.size.map(|side| 1 + usize::from(side) % 24);
        [h, w, 1 + usize::from(self.channels) % 80]
    }

    fn region(&self, isa: Isa) -> Option<Region> {
        let (seed, channels) = (self.seed | 1, self.input_size()[2]);
        let (tensors, ops) = (Vec::new(), Vec::new());
        let mut builder = Builder { isa, shelf: Shelf::default(), seed, channels, tensors, ops };
        let mut x = builder.tensor(self.quant.quant());
        builder.ops.push(Op::Quantize { input: 0, out: x });
        for &step in &self.steps {
            x = builder.step(x, step)?;
        }
        builder.ops.push(Op::Dequantize { x, output: 0 });
        let Builder { tensors, ops, .. } = builder;
        let (inputs, outputs) = (vec![self.layout()], vec![(self.layout(), x)]);
        Some(Region { isa, tensors, ops, inputs, outputs })
    }

    /// The output's bits; None: no such network, or a window that does not fit.
    fn output(&self, isa: Isa) -> Option<Vec<u32>> {
        let (region, [h, w, c]) = (self.region(isa)?, self.input_size());
        let plan = Plan::new(&region, &[[h, w, c]]).ok()?;
        let quant = self.quant.quant();
        let real = |i: usize| ((i * 89 + self.seed as usize) % 256) as i32 - quant.zero_point;
        let input: Vec<f32> = (0..h * w * c).map(|i| real(i) as f32 * quant.scale).collect();
        let mut output = vec![0.0; plan.sizes[region.outputs[0].1].iter().product()];
        let (mut ws, cancel) = (Workspace::default(), AtomicBool::new(false));
        let (inputs, outputs) = (&[&input[..]], &mut [&mut output[..]]);
        let threads = 1 + usize::from(self.threads) % 2;
        run(&region, &plan, &mut ws, inputs, outputs, threads, &cancel).unwrap();
        Some(output.into_iter().map(f32::to_bits).collect())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let network = Network::read(&mut Input(bytes.iter()));
    let expected = network.output(Isa::Scalar);
    for isa in Isa::available() {
        assert!(network.output(isa) == expected, "{isa} differs: {network:?}");
    }
});
