//! What a client of the socket reads, in pieces of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use salientd_fuzz::sound;

fuzz_target!(|bytes: &[u8]| {
    if let Some((&piece, stream)) = bytes.split_last() {
        sound::messages(stream, 1 + usize::from(piece));
    }
});
