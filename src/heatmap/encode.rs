//! Pictures as PNG and JPEG bytes.

use crate::frame::Picture;
use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use turbojpeg::{Compressor, Image, OutputBuf, PixelFormat, Subsamp};

/// Visually close to the original at a tenth of its PNG's size.
pub const JPEG_QUALITY: u8 = 85;

/// What the format holds (ITU-T T.81, B.2.2).
const JPEG_SIDE: std::ops::RangeInclusive<usize> = 1..=65_535;

/// A picture that its format cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("a picture of {width}×{height} cannot be a JPEG, the limit is 65535 a side")]
    JpegSize { width: usize, height: usize },
    #[error("JPEG: {0}")]
    Jpeg(#[from] turbojpeg::Error),
    #[error("PNG: {0}")]
    Png(#[from] image::ImageError),
}

/// Replaces `out` with `picture` as a baseline JPEG, 4:2:0, of `quality` 1–100.
pub fn jpeg(picture: &Picture, quality: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let Picture { width, height, ref rgb } = *picture;
    if ![width, height].iter().all(|length| JPEG_SIDE.contains(length)) {
        return Err(EncodeError::JpegSize { width, height });
    }
    let mut compressor = Compressor::new()?;
    compressor.set_quality(quality.clamp(1, 100).into())?;
    compressor.set_subsamp(Subsamp::Sub2x2)?;
    let image =
        Image { pixels: &rgb[..], width, pitch: width * 3, height, format: PixelFormat::RGB };
    // It grows with what is written: the most that there could be is ten times as much.
    let mut jpeg = OutputBuf::new_owned();
    compressor.compress(image, &mut jpeg)?;
    out.clear();
    out.extend_from_slice(&jpeg);
    Ok(())
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
