use salientd::{
    config::ModelConfig,
    int8::{Isa, graph::Layout},
    model::Model,
};
use std::time::Instant;
fn main() {
    env_logger::init();
    let a: Vec<String> = std::env::args().collect();
    let size: usize = a[2].parse().unwrap();
    let isa = match a.get(3).map(|s| s.as_str()) {
        Some("scalar") => Isa::Scalar,
        Some("avx2") => Isa::Avx2,
        _ => Isa::best(),
    };
    let t = Instant::now();
    let m = Model::with_isa(&a[1], std::fs::read(&a[1]).unwrap(), &ModelConfig::default(), isa)
        .unwrap();
    println!("load {:?} int8 {} isa {} fallbacks {:?}", t.elapsed(), m.is_int8(), isa, m.fallbacks);
    let t = Instant::now();
    let p = m.plan([size, size]).unwrap();
    println!(
        "plan {:?} grid {:?} int8 {} float {} arena {}",
        t.elapsed(),
        p.grid,
        p.macs_int8,
        p.macs_float,
        p.arena_bytes
    );
    let npy = a.get(4);
    let input: Vec<f32> = match npy {
        Some(f) => {
            let b = std::fs::read(f).unwrap();
            let x: Vec<f32> = b[b.len() - size * size * 12..]
                .chunks(4)
                .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
                .collect();
            x
        }
        None => (0..size * size * 3).map(|i| ((i * 7919 % 255) as f32) / 127.5 - 1.0).collect(),
    };
    let input = if m.input_layout() == Layout::Nchw {
        let n = size * size;
        let mut o = vec![0.0; n * 3];
        for p in 0..n {
            for c in 0..3 {
                o[c * n + p] = input[p * 3 + c];
            }
        }
        o
    } else {
        input
    };
    let mut best = f64::MAX;
    let mut pass = None;
    for _ in 0..a.get(5).map_or(5, |s| s.parse().unwrap()) {
        let t = Instant::now();
        pass = Some(
            m.run(&p, |x| {
                x.copy_from_slice(&input);
                Ok::<(), salientd::model::ModelError>(())
            })
            .unwrap(),
        );
        best = best.min(t.elapsed().as_secs_f64());
    }
    let pass = pass.unwrap();
    println!(
        "best {:.1} ms; logits {:?} sum feat {}",
        best * 1e3,
        &pass.logits[..8.min(pass.logits.len())],
        pass.features.iter().sum::<f32>()
    );
    std::fs::write(
        "/tmp/feat.raw",
        pass.features.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<u8>>(),
    )
    .unwrap();
}
