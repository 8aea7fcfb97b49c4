//! What the targets share.

#[path = "../tests/common/sound.rs"]
pub mod sound;
