//! YUV4MPEG2 streams, as `ffmpeg -f yuv4mpegpipe` and mjpegtools write them (yuv4mpeg(5)).
//!
//! 8-bit 4:2:0, 4:2:2, 4:4:4 and mono. The camera formats know no planar 4:2:2 or 4:4:4, so
//! these become `YUYV`; of 4:4:4 each two neighbours' chroma is averaged.

use super::usual_matrix;
use crate::frame::{FrameLayout, PixelFormat, YuvRange};

const MAX_SIDE: u32 = 8192;
/// Longest header line, in bytes; real ones have under 100.
const MAX_LINE: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chroma {
    C420,
    C422,
    C444,
    Mono,
}

/// What the stream's first line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    width: u32,
    height: u32,
    chroma: Chroma,
    range: YuvRange,
}

impl Header {
    /// From the first line, without its line feed.
    fn parse(line: &[u8]) -> Result<Self, String> {
        let line = std::str::from_utf8(line).map_err(|_| NOT_Y4M.to_string())?;
        let mut fields = line.split(' ').filter(|field| !field.is_empty());
        if fields.next() != Some("YUV4MPEG2") {
            return Err(NOT_Y4M.into());
        }
        let (mut width, mut height) = (None, None);
        let (mut chroma, mut range) = (Chroma::C420, YuvRange::Limited);
        for field in fields {
            let (tag, value) = field.split_at_checked(1).ok_or("y4m header: not ASCII")?;
            match tag {
                "W" => width = Some(side(field, value)?),
                "H" => height = Some(side(field, value)?),
                "C" => chroma = parse_chroma(value)?,
                "X" if value == "COLORRANGE=FULL" => range = YuvRange::Full,
                // Rate and aspect don't matter here; fields shown at once make a picture.
                _ => {}
            }
        }
        match (width, height) {
            (Some(width), Some(height)) => Ok(Self { width, height, chroma, range }),
            _ => Err("y4m header: no width or no height".into()),
        }
    }

    pub(super) fn layout(&self) -> FrameLayout {
        let format = match self.chroma {
            Chroma::C420 => PixelFormat::Yu12,
            Chroma::C422 | Chroma::C444 => PixelFormat::Yuyv,
            Chroma::Mono => PixelFormat::Grey,
        };
        FrameLayout {
            format,
            width: self.width,
            height: self.height,
            stride_bytes: format.row_bytes(self.width),
            matrix: usual_matrix(self.width, self.height),
            range: self.range,
        }
    }

    /// Samples of the luma plane, and of each chroma plane.
    fn planes(&self) -> (usize, usize) {
        let (width, height) = (self.width as usize, self.height as usize);
        let half = width.div_ceil(2);
        let chroma = match self.chroma {
            Chroma::C420 => half * height.div_ceil(2),
            Chroma::C422 => half * height,
            Chroma::C444 => width * height,
            Chroma::Mono => 0,
        };
        (width * height, chroma)
    }

    fn payload_bytes(&self) -> usize {
        let (luma, chroma) = self.planes();
        luma + 2 * chroma
    }

    /// A payload as a frame's bytes in [`Header::layout`].
    fn unpack(&self, payload: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let (luma, chroma) = self.planes();
        let (y, uv) = payload.split_at(luma);
        let (u, v) = uv.split_at(chroma);
        let width = self.width as usize;
        let half = width.div_ceil(2);
        match self.chroma {
            Chroma::Mono => out.extend_from_slice(y),
            Chroma::C420 if width.is_multiple_of(2) => out.extend_from_slice(payload),
            Chroma::C420 => {
                // Luma rows grow to the even stride that the chroma rows are half of.
                for row in y.chunks_exact(width) {
                    out.extend_from_slice(row);
                    out.push(row[width - 1]);
                }
                out.extend_from_slice(uv);
            }
            Chroma::C422 => {
                let rows =
                    y.chunks_exact(width).zip(u.chunks_exact(half).zip(v.chunks_exact(half)));
                for (y, (u, v)) in rows {
                    let pairs = y.chunks(2).zip(u.iter().zip(v));
                    out.extend(pairs.flat_map(|(y, (&u, &v))| [y[0], u, y[y.len() - 1], v]));
                }
            }
            Chroma::C444 => {
                let rows =
                    y.chunks_exact(width).zip(u.chunks_exact(width).zip(v.chunks_exact(width)));
                for (y, (u, v)) in rows {
                    let pairs = y.chunks(2).zip(u.chunks(2).zip(v.chunks(2)));
                    out.extend(
                        pairs.flat_map(|(y, (u, v))| [y[0], mean(u), y[y.len() - 1], mean(v)]),
                    );
                }
            }
        }
    }
}

pub(super) const NOT_Y4M: &str = "not a y4m stream: it does not start with YUV4MPEG2 \
                       (ffmpeg needs -f yuv4mpegpipe)";

fn side(field: &str, value: &str) -> Result<u32, String> {
    match value.parse() {
        Ok(side) if (1..=MAX_SIDE).contains(&side) => Ok(side),
        _ => Err(format!("y4m header: {field}: allowed 1 to {MAX_SIDE} pixels")),
    }
}

fn parse_chroma(value: &str) -> Result<Chroma, String> {
    Ok(match value {
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Chroma::C420,
        "422" => Chroma::C422,
        "444" => Chroma::C444,
        "mono" => Chroma::Mono,
        other => {
            return Err(format!(
                "y4m header: C{other}: allowed 420, 420jpeg, 420mpeg2, 420paldv, 422, 444, mono \
                 (ffmpeg needs -pix_fmt yuv420p)"
            ));
        }
    })
}

fn mean(pair: &[u8]) -> u8 {
    let sum: u16 = pair.iter().copied().map(u16::from).sum();
    ((sum + pair.len() as u16 / 2) / pair.len() as u16) as u8
}

/// Cuts the stream into frames.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    header: Option<Header>,
    in_frame: bool,
    /// The line or the payload that is coming in.
    bytes: Vec<u8>,
}

impl Splitter {
    /// Takes the next bytes; for each whole frame `frame(header, fill)` gets a function that
    /// writes it to a buffer.
    ///
    /// An error is about the header when no frame came before it, else the stream is damaged
    /// and cannot be picked up again.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut frame: impl FnMut(&Header, &dyn Fn(&mut Vec<u8>)),
    ) -> Result<(), String> {
        while !bytes.is_empty() {
            match self.header.filter(|_| self.in_frame) {
                Some(header) => {
                    let missing = header.payload_bytes() - self.bytes.len();
                    let (part, rest) = bytes.split_at(missing.min(bytes.len()));
                    self.bytes.extend_from_slice(part);
                    bytes = rest;
                    if part.len() == missing {
                        frame(&header, &|out| header.unpack(&self.bytes, out));
                        self.bytes.clear();
                        self.in_frame = false;
                    }
                }
                None => bytes = self.line(bytes)?,
            }
        }
        Ok(())
    }

    /// Collects a header line; returns what comes after it.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        self.bytes.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
        let magic: &[u8] = if self.header.is_some() { b"FRAME" } else { b"YUV4MPEG2" };
        let seen = self.bytes.len().min(magic.len());
        if self.bytes[..seen] != magic[..seen] || (end.is_some() && seen < magic.len()) {
            return Err(match self.header {
                Some(_) => "y4m stream damaged: no FRAME where one starts".into(),
                None => NOT_Y4M.into(),
            });
        }
        if self.bytes.len() > MAX_LINE {
            return Err(format!("y4m header: a line of more than {MAX_LINE} bytes"));
        }
        let Some(end) = end else { return Ok(&[]) };
        match self.header {
            None => self.header = Some(Header::parse(&self.bytes)?),
            Some(_) => self.in_frame = true,
        }
        self.bytes.clear();
        Ok(&bytes[end + 1..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let ok = |width, height, chroma, range| Ok(Header { width, height, chroma, range });
        let (limited, full) = (YuvRange::Limited, YuvRange::Full);
        let sides = |field| Err(format!("y4m header: {field}: allowed 1 to 8192 pixels"));
        let cases: Vec<(&[u8], Result<Header, String>)> = vec![
            (b"YUV4MPEG2 W640 H480 F30:1 Ip A1:1", ok(640, 480, Chroma::C420, limited)),
            (b"YUV4MPEG2 H2 W3 C422", ok(3, 2, Chroma::C422, limited)),
            (
                b"YUV4MPEG2 W4 H4 C420jpeg XYSCSS=420JPEG XCOLORRANGE=FULL",
                ok(4, 4, Chroma::C420, full),
            ),
            (b"YUV4MPEG2 W8192 H1 Cmono", ok(8192, 1, Chroma::Mono, limited)),
            (b"YUV4MPEG2 W0 H480", sides("W0")),
            (b"YUV4MPEG2 W640 H8193", sides("H8193")),
            (b"YUV4MPEG2 W-1 H2", sides("W-1")),
            (b"YUV4MPEG2 W99999999999 H2", sides("W99999999999")),
            (b"YUV4MPEG2 W640", Err("y4m header: no width or no height".into())),
            (
                b"YUV4MPEG2 W2 H2 C420p10",
                Err("y4m header: C420p10: allowed 420, 420jpeg, 420mpeg2, 420paldv, 422, 444, \
                     mono (ffmpeg needs -pix_fmt yuv420p)"
                    .into()),
            ),
            (b"RIFF", Err(NOT_Y4M.into())),
            ("YUV4MPEG2 é".as_bytes(), Err("y4m header: not ASCII".into())),
            (b"YUV4MPEG2 \xff", Err(NOT_Y4M.into())),
            (b"", Err(NOT_Y4M.into())),
        ];
        for (line, expected) in cases {
            assert_eq!(Header::parse(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }

    type Frames = Vec<(PixelFormat, Vec<u8>)>;

    fn split(stream: &[u8], chunk: usize) -> (Frames, Result<(), String>) {
        let (mut splitter, mut frames) = (Splitter::default(), Vec::new());
        let result = stream.chunks(chunk).try_for_each(|part| {
            splitter.feed(part, |header, fill| {
                let mut out = vec![99; 3];
                fill(&mut out);
                assert_eq!(out.len() as u64, header.layout().min_bytes());
                frames.push((header.layout().format, out));
            })
        });
        (frames, result)
    }

    #[test]
    fn frames_come_out_in_camera_formats_however_the_stream_is_cut() {
        use PixelFormat::*;
        let cases: [(&str, &[u8], PixelFormat, &[u8]); 6] = [
            ("W2 H2", &[1, 2, 3, 4, 5, 6], Yu12, &[1, 2, 3, 4, 5, 6]),
            ("W3 H1", &[1, 2, 3, 4, 5, 6, 7], Yu12, &[1, 2, 3, 3, 4, 5, 6, 7]),
            ("W3 H1 C422", &[1, 2, 3, 4, 5, 6, 7], Yuyv, &[1, 4, 2, 6, 3, 5, 3, 7]),
            ("W2 H1 C444", &[1, 2, 10, 21, 30, 40], Yuyv, &[1, 16, 2, 35]),
            ("W1 H1 C444", &[1, 2, 3], Yuyv, &[1, 2, 1, 3]),
            ("W3 H1 Cmono", &[1, 2, 3], Grey, &[1, 2, 3]),
        ];
        for (fields, payload, format, expected) in cases {
            let frame = [b"FRAME Ixyz\n", payload].concat();
            let head = format!("YUV4MPEG2 {fields} F5:1\n");
            let stream = [head.as_bytes(), &frame, &frame].concat();
            for chunk in [1, 2, 5, 100] {
                let (frames, result) = split(&stream, chunk);
                assert_eq!(result, Ok(()), "{fields}");
                assert_eq!(frames, vec![(format, expected.to_vec()); 2], "{fields} by {chunk}");
            }
        }
    }

    #[test]
    fn damage_is_named() {
        let long = [b"YUV4MPEG2 W1 H1 X".to_vec(), vec![b'x'; MAX_LINE]].concat();
        let cases: [(&[u8], &str); 4] = [
            (b"\x89PNG", NOT_Y4M),
            (b"YUV4\n", NOT_Y4M),
            (
                b"YUV4MPEG2 W1 H1 Cmono\nFRAME\nxFRAMY\nx",
                "y4m stream damaged: no FRAME where one starts",
            ),
            (&long, "y4m header: a line of more than 1024 bytes"),
        ];
        for (stream, expected) in cases {
            for chunk in [1, 2000] {
                assert_eq!(split(stream, chunk).1, Err(expected.into()), "by {chunk}");
            }
        }
    }
}
