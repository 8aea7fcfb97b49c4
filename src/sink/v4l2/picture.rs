//! A picture as the bytes of a V4L2 frame.

use super::sys::Format;
use crate::frame::{Picture, Rect};
use crate::rescale::{RescaleError, rescale};
use fast_image_resize::{FilterType, Resizer};
use yuv::{BufferStoreMut, YuvChromaSubsampling, YuvPackedImageMut, YuvPlanarImageMut};
use yuv::{YuvRange, YuvStandardMatrix};

/// A format's code as V4L2 has it.
pub(super) type FourCc = [u8; 4];

/// What we can write, the best first: the one that every program reads, its like, and
/// what costs no colour.
pub(super) const FORMATS: [FourCc; 4] = [*b"YUYV", *b"UYVY", *b"RGB3", *b"BGR3"];

/// Turns pictures into frames of one format. Keeps its buffers.
pub(super) struct Converter {
    format: Format,
    resizer: Resizer,
    /// The picture at the device's size, where that is another.
    fitted: Picture,
    planes: YuvPlanarImageMut<'static, u8>,
    frame: Vec<u8>,
}

/// A picture that cannot become a frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConvertError {
    #[error("resizing: {0}")]
    Resize(#[from] RescaleError),
    #[error("colours: {0}")]
    Colour(#[from] yuv::YuvError),
}

impl Converter {
    /// `None` where the format is none of [`FORMATS`], or its sizes make no sense.
    pub fn new(format: Format) -> Option<Self> {
        let Format { code, width, height, stride_bytes, bytes } = format;
        let row_bytes = match &code {
            b"YUYV" | b"UYVY" => width.div_ceil(2).checked_mul(4)?,
            b"RGB3" | b"BGR3" => width.checked_mul(3)?,
            _ => return None,
        };
        let stride_bytes = stride_bytes.max(row_bytes);
        let needed = stride_bytes.checked_mul(height)?;
        let is_size = |pixels| (1..=8192).contains(&pixels);
        (is_size(width) && is_size(height)).then(|| Self {
            format: Format { stride_bytes, ..format },
            resizer: Resizer::new(),
            fitted: Picture::new(width as usize, height as usize),
            planes: YuvPlanarImageMut::alloc(width, height, YuvChromaSubsampling::Yuv422),
            frame: vec![0; needed.max(bytes) as usize],
        })
    }

    /// The whole frame, as the driver wants it.
    pub fn frame(&mut self, picture: &Picture) -> Result<&[u8], ConvertError> {
        let Format { code, width, height, stride_bytes, .. } = self.format;
        let fits = (picture.width, picture.height) == (width as usize, height as usize);
        if !fits {
            self.fit(picture)?;
        }
        let picture = if fits { picture } else { &self.fitted };
        let stride = stride_bytes as usize;
        let rows =
            self.frame.chunks_exact_mut(stride).zip(picture.rgb.chunks_exact(picture.width * 3));
        match &code {
            b"RGB3" => rows.for_each(|(out, row)| out[..row.len()].copy_from_slice(row)),
            b"BGR3" => rows.for_each(|(out, row)| {
                for (to, from) in out.chunks_exact_mut(3).zip(row.chunks_exact(3)) {
                    to.copy_from_slice(&[from[2], from[1], from[0]]);
                }
            }),
            code => {
                yuv::rgb_to_yuv422(
                    &mut self.planes,
                    &picture.rgb,
                    width * 3,
                    YuvRange::Limited,
                    YuvStandardMatrix::Bt601,
                    Default::default(),
                )?;
                let mut packed = YuvPackedImageMut {
                    yuy: BufferStoreMut::Borrowed(&mut self.frame),
                    yuy_stride: stride_bytes,
                    width,
                    height,
                };
                let planes = self.planes.to_fixed();
                match code {
                    b"UYVY" => yuv::yuv422_to_uyvy422(&mut packed, &planes)?,
                    _ => yuv::yuv422_to_yuyv422(&mut packed, &planes)?,
                }
            }
        }
        Ok(&self.frame)
    }

    /// Whole, at its own aspect ratio, on black.
    fn fit(&mut self, picture: &Picture) -> Result<(), ConvertError> {
        let (width, height) = (self.fitted.width as u32, self.fitted.height as u32);
        let scale = f64::min(
            f64::from(width) / picture.width as f64,
            f64::from(height) / picture.height as f64,
        );
        let inner =
            |length: usize, most: u32| ((length as f64 * scale).round() as u32).clamp(1, most);
        let (w, h) = (inner(picture.width, width), inner(picture.height, height));
        self.fitted.rgb.fill(0);
        let place = Rect { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h };
        let to = (&mut self.fitted, place);
        Ok(rescale(&mut self.resizer, (picture, picture.whole()), to, FilterType::Lanczos3)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(code: &FourCc, width: u32, height: u32, stride_bytes: u32) -> Format {
        Format { code: *code, width, height, stride_bytes, bytes: stride_bytes * height }
    }

    fn plain(width: usize, height: usize, colour: [u8; 3]) -> Picture {
        Picture { width, height, rgb: colour.repeat(width * height) }
    }

    /// The frame's rows as the format says, one colour all over. Reference: ITU-R BT.601-7.
    #[test]
    fn frames_have_the_colours_of_the_picture() {
        let red = [255, 0, 0];
        let cases: [(&FourCc, u32, &[u8]); 5] = [
            (b"YUYV", 8, &[81, 90, 81, 240, 81, 90, 81, 240]),
            (b"UYVY", 8, &[90, 81, 240, 81, 90, 81, 240, 81]),
            (b"RGB3", 12, &[255, 0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0]),
            (b"BGR3", 12, &[0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 255]),
            // Padding stays what it is.
            (b"RGB3", 16, &[255, 0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 0, 0, 0]),
        ];
        for (code, stride, expected) in cases {
            let mut converter = Converter::new(format(code, 4, 2, stride)).unwrap();
            let frame = converter.frame(&plain(4, 2, red)).unwrap();
            let name = String::from_utf8_lossy(code);
            assert_eq!(frame.len(), 2 * stride as usize, "{name}");
            for row in frame.chunks_exact(stride as usize) {
                let off = row.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(off <= Some(1), "{name}: {row:?}");
            }
        }
    }

    #[test]
    fn another_size_is_fitted_whole_on_black() {
        let mut converter = Converter::new(format(b"RGB3", 8, 4, 24)).unwrap();
        let frame = converter.frame(&plain(10, 10, [9, 200, 30])).unwrap();
        let pixel = |x: usize, y: usize| [0, 1, 2].map(|c| frame[y * 24 + x * 3 + c]);
        for y in 0..4 {
            assert_eq!([pixel(1, y), pixel(6, y)], [[0; 3]; 2]);
            assert_eq!([pixel(2, y), pixel(5, y)], [[9, 200, 30]; 2]);
        }
    }

    #[test]
    fn formats_that_make_no_sense_are_none() {
        for (code, width, height) in
            [(b"MJPG", 4, 2), (b"YUYV", 0, 2), (b"YUYV", 4, 0), (b"RGB3", 9000, 1)]
        {
            assert!(Converter::new(format(code, width, height, 16)).is_none());
        }
    }
}
