//! What is the camera's classifier looking at, right now, on this device?
//!
//! `salientd` takes frames from a camera, runs a quantized Xception with tract, computes
//! class activation maps smoothed by test-time augmentation within a budget, and
//! publishes the heatmaps. This library is the daemon without its `main`.

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![allow(missing_docs)]

pub mod bilinear;
pub mod camera;
pub mod classes;
#[cfg(feature = "model")]
pub mod cli;
pub mod config;
#[cfg(feature = "model")]
pub mod eval;
#[cfg(feature = "model")]
pub mod explain;
pub mod frame;
pub mod health;
pub mod heatmap;
pub mod int8;
#[cfg(feature = "model")]
pub mod model;
#[cfg(feature = "model")]
pub mod pipeline;
pub mod preprocess;
pub mod redact;
mod rescale;
pub mod rules;
pub mod sandbox;
pub mod sink;
pub mod slot;
pub mod tta;
pub mod wall;
