//! How good are the maps? Measured on photos, for people who choose a model, views or a
//! budget. Nothing here runs in the daemon.

pub mod annotations;
pub mod baseline;
pub mod boxes;
pub mod faithfulness;
pub mod fit;
pub mod images;
pub mod localize;
pub mod metrics;
pub mod plot;
pub mod stream;
pub mod tta;

/// Why nothing could be measured: what is wrong with which input, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error("{folder}: {why}; --images wants a folder of photos", folder = folder.display())]
    Folder { folder: std::path::PathBuf, why: String },
    #[error("{file}: {why}", file = file.display())]
    Annotation { file: std::path::PathBuf, why: String },
    #[error("{file}: {why}; --source wants a y4m file or a folder of images", file = file.display())]
    Source { file: std::path::PathBuf, why: String },
    #[error("{0}")]
    Views(&'static str),
    #[error(transparent)]
    Image(#[from] crate::camera::image::LoadError),
    #[error(transparent)]
    Explain(#[from] crate::explain::ExplainError),
}

impl EvalError {
    fn annotation(file: &std::path::Path, why: String) -> Self {
        Self::Annotation { file: file.to_path_buf(), why }
    }
}
