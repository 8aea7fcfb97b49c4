//! Pictures of 8-bit RGB at another size.

use crate::frame::{Picture, Rect};
use fast_image_resize::images::{CroppedImage, CroppedImageMut, Image, ImageRef};
use fast_image_resize::{
    CropBoxError, FilterType, ImageBufferError, PixelType, ResizeAlg, ResizeError, ResizeOptions,
    Resizer,
};

/// A picture without pixels, or a part that reaches over its picture's edge.
#[derive(Debug, thiserror::Error)]
pub enum RescaleError {
    #[error(transparent)]
    Buffer(#[from] ImageBufferError),
    #[error(transparent)]
    Part(#[from] CropBoxError),
    #[error(transparent)]
    Resize(#[from] ResizeError),
}

/// Fills `place` of `to` with `part` of `from`; no pixel outside of `part` counts.
///
/// Whole pictures go this way too: for each kind of view that it is given, fast_image_resize has
/// its kernels in the program once more, a third of a megabyte.
pub fn rescale(
    resizer: &mut Resizer,
    (from, part): (&Picture, Rect),
    (to, place): (&mut Picture, Rect),
    filter: FilterType,
) -> Result<(), RescaleError> {
    let (width, height) = (from.width as u32, from.height as u32);
    let from = ImageRef::new(width, height, &from.rgb, PixelType::U8x3)?;
    // Cut out beforehand: the resizer's own crop lets the kernel reach over its edge.
    let from = CroppedImage::new(&from, part.x, part.y, part.width, part.height)?;
    let (width, height) = (to.width as u32, to.height as u32);
    let mut to = Image::from_slice_u8(width, height, &mut to.rgb, PixelType::U8x3)?;
    let mut to = CroppedImageMut::new(&mut to, place.x, place.y, place.width, place.height)?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Ok(resizer.resize(&from, &mut to, &options)?)
}

/// The whole of `from` at `width` × `height` pixels.
pub fn rescaled(
    resizer: &mut Resizer,
    from: &Picture,
    [width, height]: [usize; 2],
    filter: FilterType,
) -> Result<Picture, RescaleError> {
    let mut to = Picture::new(width, height);
    let place = to.whole();
    rescale(resizer, (from, from.whole()), (&mut to, place), filter)?;
    Ok(to)
}
