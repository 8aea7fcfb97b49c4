//! Model files that are damaged or made to harm: an error each, and the process goes on in
//! bounded memory. The mutations are the same in every run; MUTANTS=N makes N of each file.

mod common;

use common::mutate::{Dice, mutants_each, mutated};
use common::{repository, sound};
use salientd::config::ModelConfig;
use salientd::model::Model;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Mutants of each file.
const MUTANTS: u64 = 20;
/// The largest that a mutant may make the process; those of ONNX files of kilobytes.
const MOST_BYTES: u64 = 700 << 20;

fn models() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository("tests/models")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "onnx"));
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    paths
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn check(path: &Path, seed: u64) -> Result<(), String> {
    let bytes = mutated(&std::fs::read(path).unwrap(), &mut Dice(seed));
    // With --nocapture: the case that ended the process.
    eprintln!("{}, seed {seed}", path.display());
    let tried = catch_unwind(AssertUnwindSafe(|| sound::model(&bytes)));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if tried.is_err() {
        return Err(format!("{name}, seed {seed}: a panic; it stands above"));
    }
    match peak_bytes() {
        bytes if bytes > MOST_BYTES => Err(format!("{name}, seed {seed}: {bytes} bytes")),
        _ => Ok(()),
    }
}

#[test]
fn mutated_models_give_errors_in_bounded_memory() {
    let seeds = mutants_each(MUTANTS);
    let paths = models();
    let cases = paths.iter().flat_map(|path| (0..seeds).map(move |seed| (path, seed)));
    let wrong: Vec<String> = cases.filter_map(|(path, seed)| check(path, seed).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What fuzzing found, one file each.
#[test]
fn what_once_ended_the_process_is_an_error() {
    for entry in std::fs::read_dir(repository("tests/damaged")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let loaded = Model::from_bytes("damaged", &bytes, &ModelConfig::default());
        assert!(loaded.is_err(), "{}", path.display());
    }
}

#[test]
fn a_file_that_is_no_model_is_an_error() {
    for bytes in [&b""[..], b"\0", b"\x0a", &[0xff; 100], b"\x89PNG\r\n\x1a\n", &[0x3a; 4000]] {
        let error = Model::from_bytes("none", bytes, &ModelConfig::default()).err();
        let error = error.expect("it is none").to_string();
        assert!(error.starts_with("not a usable ONNX file: "), "{error}");
    }
}
