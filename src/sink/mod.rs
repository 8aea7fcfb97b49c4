//! Where heatmaps go. A sink never sees a camera and never delays the frame path: the
//! pipeline runs each on a thread of its own behind a slot that holds only the newest.

pub mod atomic;
pub mod command;
pub mod files;
pub mod mean;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod npy;
pub mod socket;
pub mod v4l2;
pub mod wire;

pub use atomic::write_atomically;

use crate::frame::Picture;
use crate::heatmap::Heatmap;
use crate::rules::Event;
use std::sync::Arc;

/// What the pipeline hands to every sink: a heatmap and the picture it was made from.
#[derive(Clone, Debug)]
pub struct Published {
    pub picture: Arc<Picture>,
    pub heatmap: Arc<Heatmap>,
}

/// What sinks say while there is nothing new to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraState {
    pub running: bool,
    /// Why not, for people; empty while running.
    pub reason: String,
}

/// An outlet for heatmaps. Errors are counted by the pipeline and never stop it.
pub trait Sink: Send {
    /// For logs and counters: `socket`, `files`, …
    fn name(&self) -> &'static str;
    fn publish(&mut self, item: &Published) -> Result<(), SinkError>;
    /// The camera went away or came back.
    fn camera(&mut self, state: &CameraState) -> Result<(), SinkError>;
    /// A rule was raised or cleared. Comes after the heatmap that brought it about, unless
    /// a newer one took that one's place.
    fn event(&mut self, _: &Event) -> Result<(), SinkError> {
        Ok(())
    }
    /// Everything accepted so far is out when this returns; called once, at the end.
    fn finish(&mut self) -> Result<(), SinkError>;
}

/// A sink that could not be opened, or could not take an item.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// At start: what, where and what to do about it.
    #[error("{0}")]
    Open(String),
    /// More than can be done at the moment.
    #[error("{0}")]
    Busy(String),
    #[error("cannot send: {0}")]
    Encode(#[from] wire::WireError),
    #[error("{what} {path}: {source}", path = path.display())]
    Io { what: &'static str, path: std::path::PathBuf, source: std::io::Error },
}
