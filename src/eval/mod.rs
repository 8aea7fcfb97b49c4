//! How good are the maps? Measured on photos, for people who choose a model, views or a
//! budget. Nothing here runs in the daemon.

pub mod images;
pub mod metrics;
pub mod plot;

/// Why nothing could be measured: what is wrong with which input, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error("{folder}: {why}; --images wants a folder of photos", folder = folder.display())]
    Folder { folder: std::path::PathBuf, why: String },
    #[error(transparent)]
    Image(#[from] crate::camera::image::LoadError),
    #[error(transparent)]
    Explain(#[from] crate::explain::ExplainError),
}
