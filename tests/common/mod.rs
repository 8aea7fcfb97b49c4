//! Reads parity test sets: `tests/parity`, whose recipe is `make.py` there, and folders
//! laid out like it.
#![allow(dead_code)] // each test program uses its part

pub mod broker;
pub mod mutate;
pub mod process;
pub mod sound;

use std::path::{Path, PathBuf};

/// An array of f32 in C order.
pub struct Npy {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn parity(name: &str) -> PathBuf {
    repository("tests/parity").join(name)
}

pub fn npy(name: &str) -> Npy {
    read_npy(&parity(name))
}

/// NPY version 1.0, little-endian f32, C order: what the recipes write.
pub fn read_npy(path: &Path) -> Npy {
    let name = path.display();
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{name}: {e}"));
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
    read_json(&parity(name))
}

pub fn read_json(path: &Path) -> serde_json::Value {
    let name = path.display();
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"))
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

/// One pass over an input that is at hand.
#[cfg(feature = "model")]
pub fn pass(
    model: &salientd::model::Model,
    plan: &salientd::model::Plan,
    input: &[f32],
) -> Result<salientd::model::Pass, salientd::model::ModelError> {
    model.run(plan, |x| {
        x.copy_from_slice(input);
        Ok(())
    })
}
