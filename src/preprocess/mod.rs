//! From a camera's frame to the model's input: decode, orient, crop and fit, resize.
//! No I/O, no clock.

pub mod decode;
pub mod geometry;
pub mod resize;
