//! TOML configurations.
#![no_main]

use libfuzzer_sys::fuzz_target;
use salientd_fuzz::sound;

fuzz_target!(|text: &str| sound::configuration(text));
