//! Raw frames to RGB: checks every length before it reads, then converts.
//!
//! YCbCr becomes RGB with the frame's own matrix and range, exact to one level. Packed
//! 4:2:2 goes through planes first: the one-step conversion of the `yuv` crate carries six
//! fractional bits, which is two levels off at white; its planar one carries thirteen.

use crate::frame::{Frame, FrameLayout, Picture, PixelFormat, YuvMatrix, YuvRange};
use yuv::{YuvBiPlanarImage, YuvGrayImage, YuvPlanarImage, YuvStandardMatrix};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Longest side of a picture, in pixels. 8192 x 8192 RGB is 192 MiB.
pub const MAX_SIDE: u32 = 8192;

/// Longest row with its padding, in bytes: twice that of the widest RGB row. A driver that claims
/// more is wrong, and would have its one row filled up to that.
const MAX_STRIDE_BYTES: u32 = 2 * 3 * MAX_SIDE;

/// Rows of packed 4:2:2 taken apart at a time: few enough that the planes stay in cache.
const BLOCK_ROWS: usize = 16;

/// Picture buffers kept for reuse; more than one frame path ever has in flight.
const SPARE_PICTURES: usize = 4;

/// A frame that is not a picture. Nothing is wrong with the next one: drop and count.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("{width}x{height} {format}: each side must be 1 to {MAX_SIDE} pixels")]
    Size { format: &'static str, width: u32, height: u32 },
    #[error(
        "{width}x{height} {format}: a stride of {actual} bytes, \
         expected {expected} to {MAX_STRIDE_BYTES}"
    )]
    Stride { format: &'static str, width: u32, height: u32, expected: u32, actual: u32 },
    #[error("{width}x{height} {format}: short frame of {actual} bytes, expected {expected}")]
    Short { format: &'static str, width: u32, height: u32, expected: u64, actual: usize },
    #[error("MJPG: corrupt frame of {actual} bytes: {why}")]
    Jpeg { actual: usize, why: String },
    #[error("MJPG: the picture is {width}x{height}, expected {expected_width}x{expected_height}")]
    JpegSize { width: usize, height: usize, expected_width: u32, expected_height: u32 },
    #[error("{width}x{height} {format}: {why}")]
    Convert { format: &'static str, width: u32, height: u32, why: String },
}

/// Turns frames into pictures. Keeps its buffers, so that a steady stream allocates nothing
/// when the pictures come back through [`Decoder::recycle`].
#[derive(Debug, Default)]
pub struct Decoder {
    planes: Vec<u8>,
    padded: Vec<u8>,
    jpeg: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The picture that the frame shows, not yet upright.
    ///
    /// `RGB3` and `BGR3` honour the range too: `Limited` is stretched to 0–255, as HDMI
    /// grabbers need it.
    pub fn decode(&mut self, frame: &Frame) -> Result<Picture, DecodeError> {
        let layout = &frame.layout;
        check(layout, frame.data.len())?;
        let data = whole(layout, &frame.data, &mut self.padded);
        let (width, height) = (layout.width as usize, layout.height as usize);
        let mut rgb = self.spare.pop().unwrap_or_default();
        rgb.resize(width * height * 3, 0);
        let done = match layout.format {
            PixelFormat::Yuyv => self.packed(layout, &frame.data, [0, 2], [1, 3], &mut rgb),
            PixelFormat::Uyvy => self.packed(layout, &frame.data, [1, 3], [0, 2], &mut rgb),
            PixelFormat::Nv12 => nv12(layout, data, &mut rgb),
            PixelFormat::Yu12 => yu12(layout, data, &mut rgb),
            PixelFormat::Grey => grey(layout, data, &mut rgb),
            PixelFormat::Rgb3 => copy_rgb(layout, &frame.data, [0, 1, 2], &mut rgb),
            PixelFormat::Bgr3 => copy_rgb(layout, &frame.data, [2, 1, 0], &mut rgb),
            PixelFormat::Mjpg => self.jpeg(layout, &frame.data, &mut rgb),
        };
        match done {
            Ok(()) => Ok(Picture { width, height, rgb }),
            Err(error) => {
                self.keep(rgb);
                Err(error)
            }
        }
    }

    /// Takes a picture's buffer back for the next frame.
    pub fn recycle(&mut self, picture: Picture) {
        self.keep(picture.rgb);
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_PICTURES {
            self.spare.push(buffer);
        }
    }

    /// `y` and `uv` say where in four bytes the two lumas, and U and V, stand.
    fn packed(
        &mut self,
        layout: &FrameLayout,
        data: &[u8],
        y: [usize; 2],
        uv: [usize; 2],
        rgb: &mut [u8],
    ) -> Result<(), DecodeError> {
        let width = layout.width as usize;
        let pairs = width.div_ceil(2);
        self.planes.resize(BLOCK_ROWS * pairs * 4, 0);
        let (lumas, chromas) = self.planes.split_at_mut(BLOCK_ROWS * pairs * 2);
        let (us, vs) = chromas.split_at_mut(BLOCK_ROWS * pairs);
        let mut rows = data.chunks(layout.stride_bytes as usize);
        for block in rgb.chunks_mut(BLOCK_ROWS * width * 3) {
            let count = block.len() / (width * 3);
            for (r, row) in rows.by_ref().take(count).enumerate() {
                let at = r * pairs..(r + 1) * pairs;
                let planes = lumas[r * pairs * 2..(r + 1) * pairs * 2]
                    .chunks_exact_mut(2)
                    .zip(us[at.clone()].iter_mut().zip(&mut vs[at]));
                for (four, (luma, (u, v))) in row.chunks_exact(4).zip(planes) {
                    luma[0] = four[y[0]];
                    luma[1] = four[y[1]];
                    *u = four[uv[0]];
                    *v = four[uv[1]];
                }
            }
            let image = YuvPlanarImage {
                y_plane: lumas,
                y_stride: pairs as u32 * 2,
                u_plane: us,
                u_stride: pairs as u32,
                v_plane: vs,
                v_stride: pairs as u32,
                width: layout.width,
                height: count as u32,
            };
            let (range, matrix) = colour(layout);
            yuv::yuv422_to_rgb(&image, block, layout.width * 3, range, matrix)
                .map_err(|e| convert(layout, e))?;
        }
        Ok(())
    }

    fn jpeg(
        &mut self,
        layout: &FrameLayout,
        data: &[u8],
        rgb: &mut [u8],
    ) -> Result<(), DecodeError> {
        let corrupt = |why: String| DecodeError::Jpeg { actual: data.len(), why };
        let shape = scan_jpeg(data).map_err(|why| corrupt(why.into()))?;
        let data = if shape.has_tables { data } else { self.with_default_tables(data) };
        let options = DecoderOptions::default()
            .jpeg_set_out_colorspace(ColorSpace::RGB)
            .set_strict_mode(true)
            .set_max_width(MAX_SIDE as usize)
            .set_max_height(MAX_SIDE as usize);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
        decoder.decode_headers().map_err(|e| corrupt(e.to_string()))?;
        let info = decoder.info().ok_or_else(|| corrupt("no size".into()))?;
        let (width, height) = (usize::from(info.width), usize::from(info.height));
        if (width, height) != (layout.width as usize, layout.height as usize) {
            let (expected_width, expected_height) = (layout.width, layout.height);
            return Err(DecodeError::JpegSize { width, height, expected_width, expected_height });
        }
        decoder.decode_into(rgb).map_err(|e| corrupt(e.to_string()))
    }

    /// Webcams leave the Huffman tables out, as AVI's MJPG allows. The decoder fills in the
    /// standard ones (ITU-T T.81, annex K.3) when it sees AVI's marker, so put it there.
    fn with_default_tables(&mut self, data: &[u8]) -> &[u8] {
        const START_AVI1: &[u8] = b"\xff\xd8\xff\xe0\x00\x07AVI1\0";
        self.jpeg.clear();
        self.jpeg.extend_from_slice(START_AVI1);
        self.jpeg.extend_from_slice(&data[2..]);
        &self.jpeg
    }
}

fn check(layout: &FrameLayout, actual: usize) -> Result<(), DecodeError> {
    let &FrameLayout { width, height, .. } = layout;
    let format = layout.format.fourcc();
    if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(DecodeError::Size { format, width, height });
    }
    let row = layout.format.row_bytes(width);
    if !(row..=MAX_STRIDE_BYTES).contains(&layout.stride_bytes) {
        let (expected, actual) = (row, layout.stride_bytes);
        return Err(DecodeError::Stride { format, width, height, expected, actual });
    }
    let expected = layout.min_bytes();
    if (actual as u64) < expected {
        return Err(DecodeError::Short { format, width, height, expected, actual });
    }
    Ok(())
}

/// The frame with the padding of its last row, which drivers may leave out: the `yuv` crate
/// passes over a last row that is not a stride long, and panics where the height is odd.
fn whole<'a>(layout: &FrameLayout, data: &'a [u8], padded: &'a mut Vec<u8>) -> &'a [u8] {
    let bytes = layout.bytes() as usize;
    let planar = matches!(layout.format, PixelFormat::Nv12 | PixelFormat::Yu12 | PixelFormat::Grey);
    if !planar || data.len() >= bytes {
        return data;
    }
    padded.clear();
    padded.extend_from_slice(data);
    padded.resize(bytes, 0);
    padded
}

fn colour(layout: &FrameLayout) -> (yuv::YuvRange, YuvStandardMatrix) {
    let range = match layout.range {
        YuvRange::Limited => yuv::YuvRange::Limited,
        YuvRange::Full => yuv::YuvRange::Full,
    };
    let matrix = match layout.matrix {
        YuvMatrix::Bt601 => YuvStandardMatrix::Bt601,
        YuvMatrix::Bt709 => YuvStandardMatrix::Bt709,
    };
    (range, matrix)
}

fn convert(layout: &FrameLayout, error: yuv::YuvError) -> DecodeError {
    DecodeError::Convert {
        format: layout.format.fourcc(),
        width: layout.width,
        height: layout.height,
        why: error.to_string(),
    }
}

fn nv12(layout: &FrameLayout, data: &[u8], rgb: &mut [u8]) -> Result<(), DecodeError> {
    let (y_plane, uv_plane) = data.split_at(layout.stride_bytes as usize * layout.height as usize);
    let image = YuvBiPlanarImage {
        y_plane,
        y_stride: layout.stride_bytes,
        uv_plane,
        uv_stride: layout.stride_bytes,
        width: layout.width,
        height: layout.height,
    };
    let (range, matrix) = colour(layout);
    yuv::yuv_nv12_to_rgb(&image, rgb, layout.width * 3, range, matrix, Default::default())
        .map_err(|e| convert(layout, e))
}

fn yu12(layout: &FrameLayout, data: &[u8], rgb: &mut [u8]) -> Result<(), DecodeError> {
    let height = layout.height as usize;
    let chroma_stride = layout.stride_bytes / 2;
    let (y_plane, chroma) = data.split_at(layout.stride_bytes as usize * height);
    let chroma_bytes = chroma_stride as usize * height.div_ceil(2);
    let (u_plane, v_plane) = chroma.split_at(chroma_bytes);
    let image = YuvPlanarImage {
        y_plane,
        y_stride: layout.stride_bytes,
        u_plane,
        u_stride: chroma_stride,
        v_plane,
        v_stride: chroma_stride,
        width: layout.width,
        height: layout.height,
    };
    let (range, matrix) = colour(layout);
    yuv::yuv420_to_rgb(&image, rgb, layout.width * 3, range, matrix).map_err(|e| convert(layout, e))
}

fn grey(layout: &FrameLayout, data: &[u8], rgb: &mut [u8]) -> Result<(), DecodeError> {
    let image = YuvGrayImage {
        y_plane: data,
        y_stride: layout.stride_bytes,
        width: layout.width,
        height: layout.height,
    };
    let (range, matrix) = colour(layout);
    yuv::yuv400_to_rgb(&image, rgb, layout.width * 3, range, matrix).map_err(|e| convert(layout, e))
}

/// `order`: where R, G and B stand in a pixel of `data`.
fn copy_rgb(
    layout: &FrameLayout,
    data: &[u8],
    order: [usize; 3],
    rgb: &mut [u8],
) -> Result<(), DecodeError> {
    let row_bytes = layout.width as usize * 3;
    let rows = data.chunks(layout.stride_bytes as usize).zip(rgb.chunks_exact_mut(row_bytes));
    for (from, to) in rows {
        if order == [0, 1, 2] {
            to.copy_from_slice(&from[..row_bytes]);
            continue;
        }
        for (from, to) in from.chunks_exact(3).zip(to.chunks_exact_mut(3)) {
            to.copy_from_slice(&order.map(|c| from[c]));
        }
    }
    if layout.range == YuvRange::Limited {
        let stretched: [u8; 256] = std::array::from_fn(|v| {
            ((v as f32 - 16.0) * (255.0 / 219.0)).round().clamp(0.0, 255.0) as u8
        });
        rgb.iter_mut().for_each(|v| *v = stretched[usize::from(*v)]);
    }
    Ok(())
}

/// What a walk over a JPEG's markers tells before it is decoded.
struct JpegShape {
    has_tables: bool,
}

/// A whole JPEG starts with SOI, has a scan, and an EOI after it: a frame cut short lacks
/// that, and the decoder would fill the missing part with grey.
fn scan_jpeg(data: &[u8]) -> Result<JpegShape, &'static str> {
    const SOI: [u8; 2] = [0xff, 0xd8];
    const EOI: [u8; 2] = [0xff, 0xd9];
    if !data.starts_with(&SOI) {
        return Err("it does not start with the marker SOI");
    }
    let mut at = 2;
    let mut has_tables = false;
    loop {
        let Some(&[0xff, marker]) = data.get(at..at + 2) else {
            return Err("no scan: the headers end too early");
        };
        // Any number of 0xff may stand before a marker (ITU-T T.81, B.1.1.2).
        if marker == 0xff {
            at += 1;
            continue;
        }
        has_tables |= marker == 0xc4;
        if marker == 0xda {
            break;
        }
        let Some(&[high, low]) = data.get(at + 2..at + 4) else {
            return Err("no scan: the headers end too early");
        };
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
    // Searched from the end: that is where it is, before zeros that cameras pad with.
    if !data[at..].windows(2).rev().any(|pair| pair == EOI) {
        return Err("cut short: no marker EOI at its end");
    }
    Ok(JpegShape { has_tables })
}

#[cfg(test)]
mod tests;
