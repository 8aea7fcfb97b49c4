//! Test-time augmentation: which views, in what order, within what budget, and how their
//! maps become one. Takes times and temperatures as values; no I/O, no clock.

pub mod merge;
pub mod view;

pub use merge::{MapMerger, Weight};
pub use view::{View, WeightedView, views};
