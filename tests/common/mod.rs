//! Reads the parity test set, `tests/parity`, whose recipe is `make.py` there.

use std::path::PathBuf;

/// An array of f32 in C order.
pub struct Npy {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

pub fn parity(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity").join(name)
}

/// NPY version 1.0, little-endian f32, C order: what the recipe writes.
pub fn npy(name: &str) -> Npy {
    let bytes = std::fs::read(parity(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{name}");
    let data = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..data]).expect("ASCII header");
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split(['(', ')']).nth(1).expect("a shape");
    let shape = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let values = bytes[data..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    Npy { shape, values: values.collect() }
}

pub fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(parity(name)).expect(name)).expect(name)
}

/// The largest difference in units of the expected values' range.
pub fn off(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let (lo, hi) =
        expected.iter().fold((f32::MAX, f32::MIN), |(lo, hi), &x| (lo.min(x), hi.max(x)));
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(got.iter().all(|x| x.is_finite()) && hi > lo);
    worst / (hi - lo)
}
