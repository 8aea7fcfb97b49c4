//! `.npy` files, read and written again; the same bytes as a PNG's pixels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use salientd::frame::Picture;
use salientd_fuzz::sound;

fuzz_target!(|bytes: &[u8]| {
    sound::array(bytes);
    if let Some((&width, rgb)) = bytes.split_last()
        && (1..=rgb.len() / 3).contains(&usize::from(width))
    {
        let width = usize::from(width);
        let height = rgb.len() / 3 / width;
        let rgb = rgb[..width * height * 3].to_vec();
        sound::picture(&Picture { width, height, rgb });
    }
});
