//! Frames of every format, whose sizes need not fit their bytes: 14 bytes of layout at the
//! end, so that a JPEG file is most of an input as it stands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use salientd::frame::{FrameLayout, PixelFormat, YuvMatrix, YuvRange};
use salientd::preprocess::decode::Decoder;
use salientd_fuzz::sound;
use std::cell::RefCell;

fn layout([format, colours, sides @ ..]: &[u8; 14]) -> FrameLayout {
    let side = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| sides[4 * i + byte]));
    FrameLayout {
        format: PixelFormat::ALL[usize::from(*format) % PixelFormat::ALL.len()],
        width: side(0),
        height: side(1),
        stride_bytes: side(2),
        matrix: if colours & 1 == 0 { YuvMatrix::Bt601 } else { YuvMatrix::Bt709 },
        range: if colours & 2 == 0 { YuvRange::Limited } else { YuvRange::Full },
    }
}

thread_local! {
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new());
}

fuzz_target!(|bytes: &[u8]| {
    if let Some((data, end)) = bytes.split_last_chunk() {
        let frame = sound::frame(layout(end), data.to_vec());
        DECODER.with_borrow_mut(|decoder| sound::decoded(decoder, &frame));
    }
});
