//! The slot's own source, with loom's locks instead of the system's and without its tests.

fn main() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/slot.rs");
    println!("cargo::rerun-if-changed={source}");
    let text = std::fs::read_to_string(source).expect("src/slot.rs");
    let (code, _) = text.split_once("#[cfg(test)]").expect("its tests come last");
    assert!(code.contains("use std::sync::{Condvar, Mutex, MutexGuard};"));
    let code = code.replace("use std::sync::", "use loom::sync::");
    // Documentation of a module cannot be included.
    let lines: Vec<&str> = code.lines().filter(|line| !line.starts_with("//!")).collect();
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    std::fs::write(format!("{out}/slot.rs"), lines.join("\n")).expect("OUT_DIR");
}
