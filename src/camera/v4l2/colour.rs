//! The driver's colour description as a matrix and a range.
//!
//! Zero means "default", and what that is follows from the colour space, as the macros
//! `V4L2_MAP_YCBCR_ENC_DEFAULT` and `V4L2_MAP_QUANTIZATION_DEFAULT` of linux/videodev2.h say.

#![allow(non_upper_case_globals)] // The kernel's enumerators as bindgen names them.

use crate::frame::{PixelFormat, YuvMatrix, YuvRange};
use v4l::v4l_sys::*;

/// `colorspace`, `ycbcr_enc` and `quantization` of `v4l2_pix_format`, by number: drivers may
/// know more of them than we do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Colour {
    pub colorspace: u32,
    pub ycbcr_enc: u32,
    pub quantization: u32,
}

impl Colour {
    /// BT.2020 and SMPTE 240M are taken for BT.709, whose coefficients are nearest.
    pub(super) fn matrix(&self) -> YuvMatrix {
        let encoding = match (self.ycbcr_enc, self.colorspace) {
            (v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_DEFAULT, colorspace) => match colorspace {
                v4l2_colorspace_V4L2_COLORSPACE_REC709 | v4l2_colorspace_V4L2_COLORSPACE_DCI_P3 => {
                    v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709
                }
                v4l2_colorspace_V4L2_COLORSPACE_BT2020 => v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020,
                v4l2_colorspace_V4L2_COLORSPACE_SMPTE240M => {
                    v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_SMPTE240M
                }
                _ => v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_601,
            },
            (encoding, _) => encoding,
        };
        match encoding {
            v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709
            | v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV709
            | v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020
            | v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020_CONST_LUM
            | v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_SMPTE240M => YuvMatrix::Bt709,
            _ => YuvMatrix::Bt601,
        }
    }

    /// By default RGB is full range, YCbCr is limited but for the colour space `JPEG`. A JPEG
    /// image itself is always full range. Grey is full range unless said otherwise: against
    /// the kernel's macro, but as monochrome sensors and the kernel's own test driver give
    /// it, and stretching those would cut off the darkest and the brightest.
    pub(super) fn range(&self, format: PixelFormat) -> YuvRange {
        let by_default = match format {
            PixelFormat::Mjpg | PixelFormat::Rgb3 | PixelFormat::Bgr3 | PixelFormat::Grey => {
                YuvRange::Full
            }
            _ if self.colorspace == v4l2_colorspace_V4L2_COLORSPACE_JPEG => YuvRange::Full,
            _ => YuvRange::Limited,
        };
        match (format, self.quantization) {
            (PixelFormat::Mjpg, _) => YuvRange::Full,
            (_, v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE) => YuvRange::Full,
            (_, v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE) => YuvRange::Limited,
            _ => by_default,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_the_colour_space_and_what_is_said_wins() {
        use PixelFormat::{Grey, Mjpg, Nv12, Rgb3, Yuyv};
        use YuvMatrix::{Bt601, Bt709};
        use YuvRange::{Full, Limited};
        // [colorspace, ycbcr_enc, quantization] as numbered in linux/videodev2.h
        for (numbers, format, matrix, range) in [
            ([0, 0, 0], Yuyv, Bt601, Limited),
            ([1, 0, 0], Yuyv, Bt601, Limited),  // SMPTE 170M
            ([2, 0, 0], Yuyv, Bt709, Limited),  // SMPTE 240M
            ([3, 0, 0], Nv12, Bt709, Limited),  // Rec. 709
            ([7, 0, 0], Yuyv, Bt601, Full),     // JPEG
            ([8, 0, 0], Yuyv, Bt601, Limited),  // sRGB
            ([10, 0, 0], Nv12, Bt709, Limited), // BT.2020
            ([12, 0, 0], Nv12, Bt709, Limited), // DCI-P3
            ([8, 2, 0], Yuyv, Bt709, Limited),  // said: 709
            ([3, 1, 1], Yuyv, Bt601, Full),     // said: 601, full
            ([3, 4, 2], Yuyv, Bt709, Limited),  // xvYCC 709
            ([7, 0, 2], Yuyv, Bt601, Limited),  // JPEG, but said: limited
            ([8, 0, 0], Rgb3, Bt601, Full),
            ([8, 0, 2], Rgb3, Bt601, Limited),
            ([8, 0, 0], Grey, Bt601, Full),
            ([8, 0, 2], Grey, Bt601, Limited),
            ([3, 0, 2], Mjpg, Bt709, Full),
            ([99, 99, 99], Yuyv, Bt601, Limited),
        ] {
            let [colorspace, ycbcr_enc, quantization] = numbers;
            let colour = Colour { colorspace, ycbcr_enc, quantization };
            assert_eq!((colour.matrix(), colour.range(format)), (matrix, range), "{numbers:?}");
        }
    }
}
