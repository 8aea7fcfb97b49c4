//! Pictures as PNG and JPEG bytes.

use crate::frame::Picture;
use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use jpeg_encoder::{ColorType, Encoder};

/// Visually close to the original at a tenth of its PNG's size.
pub const JPEG_QUALITY: u8 = 85;

/// A picture that its format cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("a picture of {width}×{height} cannot be a JPEG, the limit is 65535 a side")]
    JpegSize { width: usize, height: usize },
    #[error("JPEG: {0}")]
    Jpeg(#[from] jpeg_encoder::EncodingError),
    #[error("PNG: {0}")]
    Png(#[from] image::ImageError),
}

/// Replaces `out` with `picture` as a baseline JPEG, 4:2:0.
pub fn jpeg(picture: &Picture, quality: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let side = |length: usize| u16::try_from(length).ok().filter(|&length| length > 0);
    let (Some(width), Some(height)) = (side(picture.width), side(picture.height)) else {
        return Err(EncodeError::JpegSize { width: picture.width, height: picture.height });
    };
    out.clear();
    let mut encoder = Encoder::new(out, quality);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::R_4_2_0);
    Ok(encoder.encode(&picture.rgb, width, height, ColorType::Rgb)?)
}

/// Replaces `out` with `picture` as a PNG, 8-bit RGB.
pub fn png(picture: &Picture, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    out.clear();
    let encoder = PngEncoder::new_with_quality(out, CompressionType::Fast, FilterType::Adaptive);
    let (width, height) = (picture.width as u32, picture.height as u32);
    Ok(encoder.write_image(&picture.rgb, width, height, image::ExtendedColorType::Rgb8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: usize, height: usize) -> Picture {
        let mut picture = Picture::new(width, height);
        for (i, pixel) in picture.rgb.chunks_exact_mut(3).enumerate() {
            let (x, y) = (i % width, i / width);
            pixel.copy_from_slice(&[(x * 255 / width) as u8, (y * 255 / height) as u8, 90]);
        }
        picture
    }

    #[test]
    fn a_png_is_the_picture_and_a_jpeg_is_close_to_it() {
        let picture = gradient(67, 35);
        let mut bytes = b"what was there before".to_vec();
        png(&picture, &mut bytes).unwrap();
        let back = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!((back.dimensions(), back.as_raw()), ((67, 35), &picture.rgb));

        jpeg(&picture, JPEG_QUALITY, &mut bytes).unwrap();
        let back = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(back.dimensions(), (67, 35));
        let worst = back.iter().zip(&picture.rgb).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst.unwrap() < 24, "{worst:?}");
    }

    #[test]
    fn what_no_jpeg_can_hold_is_told() {
        for (width, height) in [(65_536, 1), (0, 5)] {
            let error = jpeg(&Picture::new(width, height), 80, &mut Vec::new()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "a picture of {width}×{height} cannot be a JPEG, the limit is 65535 a side"
                )
            );
        }
    }
}
