//! Pictures of 8-bit RGB at another size.
//!
//! `Resizer::resize` learns the pixels' type when it runs, and so brings the kernels of a dozen
//! other types along: a megabyte of the program.

use fast_image_resize::pixels::U8x3;
use fast_image_resize::{
    ImageError, IntoImageView, IntoImageViewMut, ResizeError, ResizeOptions, Resizer,
};

/// Fills `to` with `from`. Both are of `PixelType::U8x3`; an error where one is not.
pub fn rescale(
    resizer: &mut Resizer,
    from: &impl IntoImageView,
    to: &mut impl IntoImageViewMut,
    options: &ResizeOptions,
) -> Result<(), ResizeError> {
    let unsupported = ImageError::UnsupportedPixelType;
    let from = from.image_view::<U8x3>().ok_or(unsupported)?;
    let mut to = to.image_view_mut::<U8x3>().ok_or(unsupported)?;
    resizer.resize_typed(&from, &mut to, options)
}
