//! Test-time augmentation: which views, in what order, within what budget, and how their
//! maps become one. Takes times and temperatures as values; no I/O, no clock.

pub mod budget;
pub mod gate;
pub mod luma;
pub mod merge;
pub mod rolling;
mod settings;
pub mod thermal;
pub mod view;

pub use budget::{Budget, BudgetSettings, Outcome};
pub use gate::{Gate, GateSettings};
pub use luma::LumaGrid;
pub use merge::{MapMerger, Weight};
pub use rolling::{Rolling, RollingSettings};
pub use thermal::{Thermal, ThermalSettings};
pub use view::{View, WeightedView, views};
