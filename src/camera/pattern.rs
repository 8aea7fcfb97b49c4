//! A moving synthetic scene: no camera needed, and the same for everybody.
//!
//! A colour gradient, a disc and a square that bounce, and the frame's number in the corner.
//! Each frame depends on its sequence number and size alone.

use super::files::rgb_layout;
use super::pace::Pace;
use super::{Camera, CameraCounters, CameraError};
use crate::config::PatternConfig;
use crate::frame::Frame;
use std::time::{Duration, Instant, SystemTime};

const NAME: &str = "test pattern";
const MAX_SIDE: u32 = 8192;

/// Paints frames at a steady rate.
#[derive(Debug)]
pub struct Pattern {
    config: PatternConfig,
    pace: Pace,
    sequence: u64,
    spare: Vec<u8>,
}

impl Pattern {
    /// `timeout`: the longest wait for a frame that is no stall.
    pub fn open(config: &PatternConfig, timeout: Duration) -> Result<Self, CameraError> {
        let &PatternConfig { width, height, fps } = config;
        for (key, side) in [("camera.pattern.width", width), ("camera.pattern.height", height)] {
            if !(1..=MAX_SIDE).contains(&side) {
                let why = format!("{side} pixels, allowed 1 to {MAX_SIDE}");
                return Err(CameraError::unusable(key, why));
            }
        }
        let pace = Pace::new("camera.pattern.fps", fps, timeout)?;
        Ok(Self { config: config.clone(), pace, sequence: 0, spare: Vec::new() })
    }
}

impl Camera for Pattern {
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError> {
        if !self.pace.wait(timeout) {
            return Err(CameraError::stalled(NAME, timeout));
        }
        let PatternConfig { width, height, .. } = self.config;
        let mut data = std::mem::take(&mut self.spare);
        paint(self.sequence, width as usize, height as usize, &mut data);
        let sequence = self.sequence;
        self.sequence += 1;
        Ok(Frame {
            layout: rgb_layout(width, height),
            data,
            sequence,
            captured_at: Instant::now(),
            captured_wall: SystemTime::now(),
        })
    }

    fn describe(&self) -> String {
        let PatternConfig { width, height, fps } = self.config;
        format!("{NAME} {width}x{height} @ {fps}")
    }

    fn counters(&self) -> CameraCounters {
        CameraCounters { frames: self.sequence, ..CameraCounters::default() }
    }

    fn recycle(&mut self, frame: Frame) {
        self.spare = frame.data;
    }
}

/// Fills `rgb`, `[height, width, 3]`, with the scene's frame `sequence`.
pub fn paint(sequence: u64, width: usize, height: usize, rgb: &mut Vec<u8>) {
    rgb.resize(width * height * 3, 0);
    let radius = width.min(height) / 6;
    let disc = [bounce(sequence * 5, width, radius), bounce(sequence * 3, height, radius)];
    let square = [bounce(sequence * 2 + 90, width, radius), bounce(sequence * 4, height, radius)];
    for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let [dx, dy] = [x.abs_diff(disc[0]), y.abs_diff(disc[1])];
            let in_square = x.abs_diff(square[0]) < radius && y.abs_diff(square[1]) < radius;
            let colour = if dx * dx + dy * dy < radius * radius {
                [240, 200, 40]
            } else if in_square {
                [200, 40, 60]
            } else {
                [x * 160 / width, y * 160 / height, 120].map(|v| v as u8)
            };
            pixel.copy_from_slice(&colour);
        }
    }
    number(sequence, width, height, rgb);
}

/// Back and forth between `margin` and `length − margin`.
fn bounce(step: u64, length: usize, margin: usize) -> usize {
    let span = length.saturating_sub(2 * margin).max(1) as u64;
    let step = step % (2 * span);
    margin + step.min(2 * span - 1 - step) as usize
}

/// Rows of a 3 x 5 digit, the most significant of 15 bits at the top left.
const DIGITS: [u16; 10] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_111_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_010_010_010,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
];

/// The number in white, each dot `height / 60` pixels; what does not fit is left out.
fn number(sequence: u64, width: usize, height: usize, rgb: &mut [u8]) {
    let dot = (height / 60).max(1);
    for (place, digit) in sequence.to_string().bytes().enumerate() {
        let bits = DIGITS[usize::from(digit - b'0')];
        for y in 0..5 * dot {
            for x in 0..3 * dot {
                let bit = 14 - (y / dot * 3 + x / dot);
                let (x, y) = (dot * (1 + place * 4) + x, dot + y);
                if bits >> bit & 1 == 1 && x < width && y < height {
                    rgb[(y * width + x) * 3..][..3].fill(255);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(sequence: u64, width: usize, height: usize) -> Vec<u8> {
        let mut rgb = Vec::new();
        paint(sequence, width, height, &mut rgb);
        rgb
    }

    #[test]
    fn a_frame_depends_on_its_number_and_nothing_else() {
        let mut dirty = vec![9; 5];
        paint(7, 64, 48, &mut dirty);
        assert_eq!(dirty, painted(7, 64, 48));
        assert_ne!(painted(7, 64, 48), painted(8, 64, 48));
    }

    #[test]
    fn every_size_and_late_numbers_paint() {
        for [width, height] in [[1, 1], [1, 300], [300, 1], [5, 5], [33, 17]] {
            for sequence in [0, 1, 1000, u64::MAX / 8] {
                assert_eq!(painted(sequence, width, height).len(), width * height * 3);
            }
        }
    }

    #[test]
    fn bouncing_stays_inside_and_moves_one_step_at_a_time() {
        let at: Vec<usize> = (0..500).map(|step| bounce(step, 100, 10)).collect();
        assert!(at.iter().all(|at| (10..90).contains(at)));
        assert!(at.windows(2).all(|two| two[0].abs_diff(two[1]) <= 1));
    }
}
