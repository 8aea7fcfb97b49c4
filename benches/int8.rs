//! The int8 kernels at the shapes that full-size Xception has at 299, for every instruction
//! set of the machine: `cargo bench --bench int8`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use salientd::int8::aligned::Shelf;
use salientd::int8::depthwise::{Run, depthwise};
use salientd::int8::elementwise::{self, Rescale, Term};
use salientd::int8::gemm::{Rows, gemm};
use salientd::int8::pack::{PackedDepthwise, PackedGemm, Requant};
use salientd::int8::{Act, Clamp, Isa, Quant, store};
use std::hint::black_box;

/// Any bytes will do: no kernel's time depends on them.
fn bytes(n: usize) -> Vec<Act> {
    (0..n).map(|i| store((i * 89 % 256) as i32)).collect()
}

fn requant<'a>(bias: &'a [i32], multiplier: &'a [f32]) -> Requant<'a> {
    Requant { input_zero: 128, bias, multiplier, clamp: Clamp::new(128, 0, 255) }
}

fn weights(n: usize) -> Vec<i8> {
    (0..n).map(|i| (i * 37 % 255) as i8).collect()
}

/// Rows, inner dimension, columns: a tile of the pointwise convolutions of each flow.
fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm");
    for [m, k, n] in [[441, 64, 128], [370, 256, 728], [171, 728, 728], [100, 1536, 2048]] {
        let (rows, mut out) = (bytes(m * k + 64), bytes(m * n));
        let (bias, multiplier) = (vec![0; n], vec![1e-4; n]);
        group.throughput(Throughput::Elements((m * k * n) as u64));
        for isa in Isa::available() {
            let q = requant(&bias, &multiplier);
            let packed =
                PackedGemm::new(isa, &mut Shelf::default(), &weights(n * k), n, [1, k], &q)
                    .expect("in range");
            let id = BenchmarkId::new(isa.name(), format!("{m}x{k}x{n}"));
            group.bench_function(id, |b| {
                b.iter(|| {
                    let left = Rows { rows: &rows, row_stride: k, run_stride: 0, count: m };
                    gemm(&packed, left, black_box(&mut out), n);
                });
            });
        }
    }
}

/// Two output rows of a 3×3 window at stride 1: columns, channels.
fn windows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("depthwise 3x3");
    for [columns, c] in [[147usize, 128], [37, 728], [19, 728], [10, 1536]] {
        let step = c.next_multiple_of(64);
        let line = (columns + 2) * step;
        let (input, mut out) = (bytes(4 * line), bytes(2 * columns * c));
        let tap = |t: usize| (t / 9 + t % 9 / 3) * line + t % 3 * step;
        let taps: Vec<usize> = (0..18).map(tap).collect();
        let (bias, multiplier) = (vec![0; c], vec![1e-3; c]);
        group.throughput(Throughput::Elements((2 * columns * c) as u64));
        for isa in Isa::available() {
            let q = requant(&bias, &multiplier);
            let packed =
                PackedDepthwise::new(isa, &mut Shelf::default(), &weights(9 * c), 9, c, &q)
                    .expect("in range");
            group.bench_function(BenchmarkId::new(isa.name(), format!("{columns}x{c}")), |b| {
                b.iter(|| {
                    let (taps, input, out) = (&taps[..], &input[..], black_box(&mut out[..]));
                    let (count, out_step, rows, out_row) = (columns, c, 2, columns * c);
                    depthwise(
                        &packed,
                        Run { taps, step, count, input, out, out_step, rows, out_row },
                    );
                });
            });
        }
    }
}

/// The middle flow's tensor, 19×19×728.
fn elementwise(criterion: &mut Criterion) {
    let n = 19 * 19 * 728;
    let (a, b, mut out) = (bytes(n), bytes(n), bytes(n));
    let term = Term::new(Quant { scale: 0.02, zero_point: 100 }, 0.03);
    let clamp = Clamp::new(90, 0, 255);
    let mut group = criterion.benchmark_group("elementwise");
    group.throughput(Throughput::Elements(n as u64));
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::new("add", isa.name()), |bench| {
            bench.iter(|| elementwise::add(isa, &a, term, &b, term, clamp, black_box(&mut out)));
        });
        group.bench_function(BenchmarkId::new("rescale", isa.name()), |bench| {
            let by = Rescale { term, clamp };
            bench.iter(|| elementwise::rescale(isa, &a, by, black_box(&mut out)));
        });
    }
}

/// Multiply-accumulates a second of nothing but `vpdpbusd` on registers: what no product
/// can exceed.
fn ceiling(criterion: &mut Criterion) {
    #[cfg(target_arch = "x86_64")]
    if Isa::available().contains(&Isa::Avx512Vnni) {
        let mut group = criterion.benchmark_group("ceiling");
        group.throughput(Throughput::Elements(SPINS as u64 * 16 * 64));
        // SAFETY: the instructions were just asked for.
        group.bench_function("avx512-vnni", |b| b.iter(|| unsafe { dot_products() }));
    }
    let _ = criterion;
}

#[cfg(target_arch = "x86_64")]
const SPINS: usize = 100_000;

/// Sixteen independent sums: more than the instruction's latency.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_products() -> i32 {
    use std::arch::x86_64::*;
    let mut sums = [_mm512_setzero_si512(); 16];
    let x = _mm512_set1_epi32(0x0102_0304);
    for i in 0..SPINS {
        let y = black_box(_mm512_set1_epi32(i as i32));
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, x, y);
        }
    }
    sums.iter().fold(0, |all, &sum| all.wrapping_add(_mm512_reduce_add_epi32(sum)))
}

criterion_group!(benches, ceiling, products, windows, elementwise);
criterion_main!(benches);
