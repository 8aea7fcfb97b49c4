//! One image file as a picture.

use super::mjpeg;
use crate::frame::Picture;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{Cursor, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest side in pixels, as for camera frames.
const MAX_SIDE: u32 = 8192;
const MAX_FILE_BYTES: u64 = 256 << 20;
const MAX_DECODED_BYTES: u64 = 1 << 30;
/// The first bytes of every PNG.
const PNG: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// A file that is no picture, and why.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = path.display())]
pub struct LoadError {
    pub path: PathBuf,
    pub why: String,
}

/// Reads a PNG or JPEG file, upright as its EXIF orientation says; transparency is dropped.
pub fn load_image(path: impl AsRef<Path>) -> Result<Picture, LoadError> {
    let path = path.as_ref();
    let failed = |why: String| LoadError { path: path.to_path_buf(), why };
    let bytes = read(path).map_err(failed)?;
    decode(&bytes).map_err(failed)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    // Opening a FIFO would wait for its writer.
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("not a file".into());
    }
    if metadata.len() > MAX_FILE_BYTES {
        let (len, most) = (metadata.len() >> 20, MAX_FILE_BYTES >> 20);
        return Err(format!("{len} MiB, more than the {most} MiB allowed for an image"));
    }
    let mut bytes = Vec::new();
    (&file).take(PNG.len() as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    format(&bytes)?;
    bytes.reserve_exact(metadata.len() as usize);
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// What a file that begins so is.
fn format(start: &[u8]) -> Result<ImageFormat, String> {
    match start {
        [] => Err("not an image: the file is empty".into()),
        _ if start.starts_with(&PNG) => Ok(ImageFormat::Png),
        _ if start.starts_with(&mjpeg::SOI) => Ok(ImageFormat::Jpeg),
        _ => Err("not an image: neither PNG nor JPEG".into()),
    }
}

fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let format = format(bytes)?;
    if format == ImageFormat::Jpeg && !mjpeg::is_whole(bytes) {
        return Err("not an image: the JPEG is cut short or corrupt".into());
    }
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    let (width, height) = decoder.dimensions();
    decoder
        .set_limits(limits)
        .map_err(|_| format!("{width}x{height}, each side may be at most {MAX_SIDE} pixels"))?;
    // A broken EXIF block says nothing about the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(explain)?;
    image.apply_orientation(orientation);
    let rgb = image.into_rgb8();
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    Ok(Picture { width, height, rgb: rgb.into_raw() })
}

fn explain(error: ImageError) -> String {
    match error {
        ImageError::Limits(_) => format!(
            "needs more than the {} MiB allowed for a decoded image",
            MAX_DECODED_BYTES >> 20
        ),
        error => format!("not an image: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2x1 pixels, red then blue.
    fn png() -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let pixels = image::RgbImage::from_raw(2, 1, vec![255, 0, 0, 0, 0, 255]).unwrap();
        pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    /// 16x8, left half light and right half dark, with an EXIF orientation.
    fn jpeg(orientation: u8) -> Vec<u8> {
        let pixels: Vec<u8> = (0..16 * 8).map(|i| if i % 16 < 8 { 230 } else { 20 }).collect();
        let mut bytes = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        encoder.add_app_segment(1, exif).unwrap();
        encoder.encode(&pixels, 16, 8, jpeg_encoder::ColorType::Luma).unwrap();
        bytes
    }

    #[test]
    fn a_png_is_exact_and_a_jpeg_is_turned_upright() {
        let picture = decode(&png()).unwrap();
        assert_eq!(picture, Picture { width: 2, height: 1, rgb: vec![255, 0, 0, 0, 0, 255] });

        let upright = decode(&jpeg(1)).unwrap();
        assert_eq!((upright.width, upright.height), (16, 8));
        assert!(upright.pixel(1, 1)[0] > 200 && upright.pixel(14, 1)[0] < 50);
        // 6: the camera was turned; a quarter turn clockwise puts the light half on top.
        let turned = decode(&jpeg(6)).unwrap();
        assert_eq!((turned.width, turned.height), (8, 16));
        assert!(turned.pixel(1, 1)[0] > 200 && turned.pixel(1, 14)[0] < 50);
    }

    #[test]
    fn what_does_not_begin_as_an_image_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip.jpg");
        let file = File::create(&path).unwrap();
        file.set_len(MAX_FILE_BYTES).unwrap();
        assert_eq!(read(&path).unwrap_err(), "not an image: neither PNG nor JPEG");
    }

    #[test]
    fn what_is_no_image_is_said_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let huge = {
            let mut bytes = png();
            // Width in the header chunk; its checksum is checked after the limits.
            bytes[16..20].copy_from_slice(&9000u32.to_be_bytes());
            let crc = crc32(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&crc.to_be_bytes());
            bytes
        };
        let cut = jpeg(1);
        let cut = cut[..cut.len() - 2].to_vec();
        let cases: [(&str, Vec<u8>, &str); 5] = [
            ("empty.png", vec![], "not an image: the file is empty"),
            ("text.jpg", b"hello".to_vec(), "not an image: neither PNG nor JPEG"),
            ("gif.png", b"GIF89a\x01\0\x01\0".to_vec(), "not an image: neither PNG nor JPEG"),
            ("cut.jpg", cut, "not an image: the JPEG is cut short or corrupt"),
            ("huge.png", huge, "9000x1, each side may be at most 8192 pixels"),
        ];
        for (name, bytes, why) in cases {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let expected = format!("{}: {why}", path.display());
            assert_eq!(load_image(&path).unwrap_err().to_string(), expected);
        }
        let missing = load_image(dir.path().join("none.png")).unwrap_err().to_string();
        assert!(
            missing.ends_with("none.png: cannot be read: No such file or directory (os error 2)")
        );
        let fifo = dir.path().join("fifo.jpg");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        let waiting = load_image(&fifo).unwrap_err().to_string();
        assert_eq!(waiting, format!("{}: not a file", fifo.display()));
        let folder = load_image(dir.path()).unwrap_err().to_string();
        assert_eq!(folder, format!("{}: not a file", dir.path().display()));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
            })
        })
    }
}
