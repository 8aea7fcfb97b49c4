//! From a camera's frame to the model's input: decode, orient, crop and fit, resize; and what
//! of a picture may be seen.
//! No I/O, no clock.

pub mod decode;
pub mod geometry;
pub mod lent;
pub mod resize;
pub mod veil;
