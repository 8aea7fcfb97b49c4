//! What a camera yields and what it becomes: raw [`Frame`]s, decoded [`Picture`]s and
//! the geometry that ties a heatmap to the part of the picture that it covers.

use std::time::{Instant, SystemTime};

/// How the bytes of a [`Frame`] are laid out. Named after the V4L2 four-character codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Packed 4:2:2, `Y0 U Y1 V`.
    Yuyv,
    /// Packed 4:2:2, `U Y0 V Y1`.
    Uyvy,
    /// Planar 4:2:0, luma plane then interleaved `UV`.
    Nv12,
    /// Planar 4:2:0, planes `Y`, `U`, `V` (I420).
    Yu12,
    /// Packed `R G B`.
    Rgb3,
    /// Packed `B G R`.
    Bgr3,
    /// 8-bit luma only.
    Grey,
    /// One JPEG image per frame.
    Mjpg,
}

impl PixelFormat {
    /// All of them, uncompressed ones first.
    pub const ALL: [Self; 8] = [
        Self::Yuyv,
        Self::Uyvy,
        Self::Nv12,
        Self::Yu12,
        Self::Rgb3,
        Self::Bgr3,
        Self::Grey,
        Self::Mjpg,
    ];

    /// The four-character code, `YUYV` … `MJPG`.
    pub fn fourcc(self) -> &'static str {
        match self {
            Self::Yuyv => "YUYV",
            Self::Uyvy => "UYVY",
            Self::Nv12 => "NV12",
            Self::Yu12 => "YU12",
            Self::Rgb3 => "RGB3",
            Self::Bgr3 => "BGR3",
            Self::Grey => "GREY",
            Self::Mjpg => "MJPG",
        }
    }

    /// The format of that four-character code, if it is one of ours.
    pub fn from_fourcc(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.fourcc() == code)
    }

    /// Smallest `stride_bytes` that holds a row of `width` pixels. Chroma comes in pairs,
    /// so an odd row of a subsampled format is as long as the next even one.
    pub fn row_bytes(self, width: u32) -> u32 {
        match self {
            Self::Yuyv | Self::Uyvy => width.div_ceil(2).saturating_mul(4),
            Self::Nv12 | Self::Yu12 => width.div_ceil(2).saturating_mul(2),
            Self::Rgb3 | Self::Bgr3 => width.saturating_mul(3),
            Self::Grey => width,
            Self::Mjpg => 0,
        }
    }
}

/// Which matrix turns YCbCr into RGB (ITU-R BT.601-7, BT.709-6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum YuvMatrix {
    #[default]
    Bt601,
    Bt709,
}

/// Whether luma spans 16–235 (`Limited`) or 0–255 (`Full`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum YuvRange {
    #[default]
    Limited,
    Full,
}

/// Everything needed to read the bytes of a frame as pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    pub format: PixelFormat,
    pub width: u32,
    pub height: u32,
    /// Bytes from one row of the first plane to the next; 0 for [`PixelFormat::Mjpg`].
    /// Chroma planes follow from it as V4L2 defines them (same for NV12, half for YU12).
    pub stride_bytes: u32,
    pub matrix: YuvMatrix,
    pub range: YuvRange,
}

impl FrameLayout {
    /// Bytes of a whole frame, the padding of its last row with it. `MJPG`: 0.
    pub fn bytes(&self) -> u64 {
        let (rows, stride) = (u64::from(self.height), u64::from(self.stride_bytes));
        match self.format {
            PixelFormat::Mjpg => 0,
            PixelFormat::Nv12 => stride.saturating_mul(rows + rows.div_ceil(2)),
            PixelFormat::Yu12 => {
                (stride * rows).saturating_add((stride / 2).saturating_mul(2 * rows.div_ceil(2)))
            }
            _ => stride * rows,
        }
    }

    /// Fewest bytes that show a whole frame: the padding of its last row may be missing.
    pub fn min_bytes(&self) -> u64 {
        let (stride, row) = (self.stride_bytes, self.format.row_bytes(self.width));
        let padding = match self.format {
            PixelFormat::Yu12 => (stride / 2).saturating_sub(row / 2),
            _ => stride.saturating_sub(row),
        };
        self.bytes().saturating_sub(u64::from(padding))
    }
}

/// One raw frame as the camera gave it. `data` holds exactly the bytes used.
#[derive(Clone, Debug)]
pub struct Frame {
    pub layout: FrameLayout,
    pub data: Vec<u8>,
    /// The camera's own count; a gap means frames lost before us.
    pub sequence: u64,
    /// When the sensor or driver says the frame was taken.
    pub captured_at: Instant,
    /// The same moment on the wall clock, for people and files.
    pub captured_wall: SystemTime,
}

/// Which frame, and when it was taken.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// As [`Frame::sequence`].
    pub sequence: u64,
    pub captured_at: Instant,
    pub captured_wall: SystemTime,
}

impl Frame {
    /// Which frame this is.
    pub fn moment(&self) -> Moment {
        let Self { sequence, captured_at, captured_wall, .. } = *self;
        Moment { sequence, captured_at, captured_wall }
    }
}

/// A decoded, upright picture: 8-bit RGB, row by row without padding, `[height, width, 3]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

impl Picture {
    /// A black picture of the given size.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, rgb: vec![0; width * height * 3] }
    }

    /// All of it.
    pub fn whole(&self) -> Rect {
        Rect::full(self.width as u32, self.height as u32)
    }

    /// The colour at column `x`, row `y`.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let i = (y * self.width + x) * 3;
        [self.rgb[i], self.rgb[i + 1], self.rgb[i + 2]]
    }
}

/// A rectangle in pixels of some picture; `x`, `y` is its top left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Rect {
    /// The rectangle that covers a whole picture.
    pub fn full(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }
}

impl Placement {
    /// A whole picture stretched onto an input of `[height, width]`.
    pub fn stretched(picture: &Picture, [height, width]: [usize; 2]) -> Self {
        let size = [picture.width as u32, picture.height as u32];
        Self {
            picture: size,
            covers: Rect::full(size[0], size[1]),
            content: Rect::full(width as u32, height as u32),
        }
    }
}

/// Where the model's input lies in the picture it was made from.
///
/// The model sees `input` pixels; of these the rectangle `content` shows picture (the
/// rest is letterbox padding) and that content is exactly `covers` of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Size of the upright picture (after rotation and mirroring), `[width, height]`.
    pub picture: [u32; 2],
    /// The part of the picture that the content shows.
    pub covers: Rect,
    /// The part of the model's input that shows picture.
    pub content: Rect,
}
