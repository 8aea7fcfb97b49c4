//! ONNX files: loaded, planned, run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use salientd_fuzz::sound;

// libFuzzer ends the process in its panic hook; tract's panics are caught by the product. Any
// other leaves the target, and that ends the process too.
fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |bytes: &[u8]| {
    sound::model(bytes)
});
