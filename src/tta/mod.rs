//! Test-time augmentation: which views, in what order, within what budget, and how their
//! maps become one. Takes a clock and an infer closure; no I/O.

pub mod merge;
pub mod view;
