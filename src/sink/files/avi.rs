//! Motion JPEG in AVI: what every player and browser of files opens.
//!
//! Layout: `RIFF AVI` holding a list of headers (`hdrl`: `avih`, then `strl` with `strh` and
//! `strf`), a list of frames (`movi`: one `00dc` chunk each) and their index (`idx1`). Sizes
//! and counts are filled in at the end. Source: Microsoft, "AVI RIFF File Reference".

use std::io::{self, Seek, SeekFrom, Write};
use std::time::Duration;

/// Players of AVI 1.0 read up to here; some count in signed 32 bits.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// There is an index, and frames are whole pictures.
const AVIF_HASINDEX: u32 = 0x10;
const AVIIF_KEYFRAME: u32 = 0x10;

const HEADERS_BYTES: u32 = 4 + (8 + 56) + STREAM_BYTES + 8;
const STREAM_BYTES: u32 = 4 + (8 + 56) + (8 + 40);
/// Where the list of frames begins: after `RIFF`, its size, `AVI ` and the headers' list.
const MOVI_AT: u64 = 12 + 8 + HEADERS_BYTES as u64;

/// Writes a file frame by frame.
pub(super) struct Avi<W> {
    out: W,
    /// `[width, height]` of every frame, in pixels.
    size: [u16; 2],
    /// Offset from `movi` and size of each frame.
    index: Vec<[u32; 2]>,
    /// Written so far.
    bytes: u64,
    largest: u32,
}

impl<W: Write + Seek> Avi<W> {
    pub fn new(mut out: W, size: [u16; 2]) -> io::Result<Self> {
        // Filled in by `finish`; a reader sees zeros until then.
        let start = MOVI_AT + 12;
        out.write_all(&vec![0; start as usize])?;
        Ok(Self { out, size, index: Vec::new(), bytes: start, largest: 0 })
    }

    /// Bytes of the whole file if it ended here.
    pub fn bytes(&self) -> u64 {
        self.bytes + 8 + 16 * self.index.len() as u64
    }

    pub fn frames(&self) -> usize {
        self.index.len()
    }

    /// Appends a JPEG.
    pub fn frame(&mut self, jpeg: &[u8]) -> io::Result<()> {
        let length = jpeg.len() as u32;
        self.out.write_all(b"00dc")?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(jpeg)?;
        // Chunks begin at even offsets.
        self.out.write_all(&[0][..jpeg.len() % 2])?;
        let from_movi = self.bytes - (MOVI_AT + 8);
        self.index.push([from_movi as u32, length]);
        self.bytes += 8 + u64::from(length.next_multiple_of(2));
        self.largest = self.largest.max(length);
        Ok(())
    }

    /// Writes index and headers; each frame is shown for `period`. Gives the file back.
    pub fn finish(mut self, period: Duration) -> io::Result<W> {
        let mut tail = Vec::with_capacity(8 + 16 * self.index.len());
        tail.extend_from_slice(b"idx1");
        tail.extend_from_slice(&(16 * self.index.len() as u32).to_le_bytes());
        for [offset, length] in &self.index {
            tail.extend_from_slice(b"00dc");
            [AVIIF_KEYFRAME, *offset, *length].iter().for_each(|n| tail.extend(n.to_le_bytes()));
        }
        self.out.write_all(&tail)?;
        self.out.seek(SeekFrom::Start(0))?;
        let head = self.head(period, self.bytes + tail.len() as u64);
        self.out.write_all(&head)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Everything up to the first frame.
    fn head(&self, period: Duration, file_bytes: u64) -> Vec<u8> {
        let [width, height] = self.size.map(u32::from);
        let period_us = u32::try_from(period.as_micros()).unwrap_or(u32::MAX).max(1);
        let frames = self.index.len() as u32;
        let per_second = (u64::from(self.largest) * 1_000_000 / u64::from(period_us)) as u32;
        let mut head = Head(Vec::new());
        head.text(b"RIFF").number(file_bytes as u32 - 8).text(b"AVI ");
        head.text(b"LIST").number(HEADERS_BYTES).text(b"hdrl");
        head.text(b"avih").number(56);
        for n in [period_us, per_second, 0, AVIF_HASINDEX, frames, 0, 1, self.largest] {
            head.number(n);
        }
        head.number(width).number(height);
        for _ in 0..4 {
            head.number(0);
        }
        head.text(b"LIST").number(STREAM_BYTES).text(b"strl");
        head.text(b"strh").number(56).text(b"vids").text(b"MJPG");
        // Flags, priority and language, initial frames; then rate = 1,000,000 / period_us.
        for n in [0, 0, 0, period_us, 1_000_000, 0, frames, self.largest, u32::MAX, 0] {
            head.number(n);
        }
        // The rectangle, in 16-bit numbers: left and top, right and bottom.
        head.number(0).number(width | height << 16);
        head.text(b"strf").number(40).number(40).number(width).number(height);
        // One plane (16 bits), 24 bits a pixel (16 bits).
        head.number(1 | 24 << 16).text(b"MJPG").number(width * height * 3);
        for _ in 0..4 {
            head.number(0);
        }
        let movi_bytes = self.bytes - (MOVI_AT + 8);
        head.text(b"LIST").number(movi_bytes as u32).text(b"movi");
        debug_assert_eq!(head.0.len() as u64, MOVI_AT + 12);
        head.0
    }
}

/// Little-endian fields one after the other.
struct Head(Vec<u8>);

impl Head {
    fn text(&mut self, code: &[u8; 4]) -> &mut Self {
        self.0.extend_from_slice(code);
        self
    }

    fn number(&mut self, n: u32) -> &mut Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }
}
