//! A recorded clip as frames, every one of them: for measuring, where no frame is skipped.

use super::y4m::Splitter;
use crate::frame::{Frame, FrameLayout};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Instant, SystemTime};

const PIECE_BYTES: usize = 64 << 10;

/// Reads a y4m file (`ffmpeg -i clip.mp4 -pix_fmt yuv420p clip.y4m`) piece by piece.
pub struct Clip {
    file: File,
    splitter: Splitter,
    piece: Vec<u8>,
    /// Whole frames of the last piece; more than one only where frames are smaller than it.
    ready: VecDeque<(FrameLayout, Vec<u8>)>,
    sequence: u64,
}

impl Clip {
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| e.to_string())?;
        let (splitter, ready) = (Splitter::default(), VecDeque::new());
        Ok(Self { file, splitter, piece: vec![0; PIECE_BYTES], ready, sequence: 0 })
    }

    /// The next frame; `None` at the end. A frame that is cut short there is left out.
    ///
    /// # Errors
    /// The file cannot be read, or is no y4m stream.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        while self.ready.is_empty() {
            let taken = self.file.read(&mut self.piece).map_err(|e| e.to_string())?;
            if taken == 0 {
                return Ok(None);
            }
            let ready = &mut self.ready;
            self.splitter.feed(&self.piece[..taken], |header, fill| {
                let mut data = Vec::new();
                fill(&mut data);
                ready.push_back((header.layout(), data));
            })?;
        }
        let sequence = self.sequence;
        self.sequence += 1;
        Ok(self.ready.pop_front().map(|(layout, data)| Frame {
            layout,
            data,
            sequence,
            captured_at: Instant::now(),
            captured_wall: SystemTime::now(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_whole_frame_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip.y4m");
        let mut bytes = b"YUV4MPEG2 W4 H2 F25:1 Cmono\n".to_vec();
        for luma in 0..5u8 {
            bytes.extend(b"FRAME\n");
            bytes.extend([luma; 8]);
        }
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&path, &bytes).unwrap();
        let mut clip = Clip::open(&path).unwrap();
        for luma in 0..4u8 {
            let frame = clip.next_frame().unwrap().unwrap();
            assert_eq!((frame.sequence, frame.data), (luma.into(), vec![luma; 8]));
        }
        assert!(clip.next_frame().unwrap().is_none(), "the last frame is cut short");
        std::fs::write(&path, "RIFF").unwrap();
        let error = Clip::open(&path).unwrap().next_frame().unwrap_err();
        assert!(error.starts_with("not a y4m stream"), "{error}");
    }
}
