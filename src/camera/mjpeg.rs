//! Cuts a byte stream into JPEG images by walking their markers (ITU-T T.81, annex B).
//!
//! Walking rather than searching for start and end: an image may hold another as an EXIF
//! thumbnail. Whatever stands between two images (HTTP multipart headers, padding) is passed
//! over, and after damage the walk goes on at the next start of image.

pub(super) const SOI: [u8; 2] = [0xff, 0xd8];

/// Largest image taken for one, in bytes: above an 8192 x 8192 photo at high quality.
pub(super) const MAX_IMAGE_BYTES: usize = 32 << 20;

/// Holds the bytes of the image that is coming in.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    bytes: Vec<u8>,
    walk: Walk,
    /// Images given up on: cut short, corrupt or too large.
    pub(super) bad: u64,
}

/// How far the image that begins at `start` has been walked. It never goes back, and says no
/// more of the bytes before `start`.
#[derive(Debug, Default)]
struct Walk {
    start: usize,
    /// Everything before is walked; `start`: no start of image yet.
    at: usize,
    in_scan: bool,
    size: Option<[u32; 2]>,
}

enum Step {
    /// A whole image ends before this offset.
    Image(usize),
    /// The image is damaged; look for the next one from this offset.
    Damaged(usize),
    Go,
    NeedMore,
}

impl Splitter {
    /// Takes the next bytes and calls `image(width, height, bytes)` for each whole image.
    pub(super) fn feed(&mut self, bytes: &[u8], mut image: impl FnMut(u32, u32, &[u8])) {
        self.bytes.extend_from_slice(bytes);
        loop {
            match self.walk.step(&self.bytes) {
                Step::Go => {}
                Step::NeedMore if self.bytes.len() - self.walk.start <= MAX_IMAGE_BYTES => break,
                Step::NeedMore => self.give_up(self.bytes.len()),
                Step::Damaged(until) => self.give_up(until),
                Step::Image(end) => match self.walk.size {
                    Some([width, height]) => {
                        image(width, height, &self.bytes[self.walk.start..end]);
                        self.walk = Walk::from(end);
                    }
                    None => self.give_up(end),
                },
            }
        }
        // Once for all that was walked: a read may hold thousands of false starts.
        self.bytes.drain(..self.walk.start);
        self.walk.at -= self.walk.start;
        self.walk.start = 0;
    }

    fn give_up(&mut self, until: usize) {
        self.bad += 1;
        self.walk = Walk::from(until);
    }
}

impl Walk {
    fn from(start: usize) -> Self {
        Self { start, at: start, ..Self::default() }
    }

    fn step(&mut self, bytes: &[u8]) -> Step {
        if self.at == self.start {
            self.find_start(bytes)
        } else if self.in_scan {
            self.walk_scan(bytes)
        } else {
            self.walk_marker(bytes)
        }
    }

    fn find_start(&mut self, bytes: &[u8]) -> Step {
        match bytes[self.start..].windows(2).position(|pair| pair == SOI) {
            Some(found) => {
                self.start += found;
                self.at = self.start + SOI.len();
                Step::Go
            }
            None => {
                // The last byte may be the first half of the marker.
                let keep = usize::from(bytes[self.start..].ends_with(&SOI[..1]));
                *self = Self::from(bytes.len() - keep);
                Step::NeedMore
            }
        }
    }

    fn walk_marker(&mut self, bytes: &[u8]) -> Step {
        let Some(rest) = bytes.get(self.at..) else { return Step::NeedMore };
        match *rest {
            [0xff, 0xff, ..] => self.at += 1,
            [0xff, 0xd8, ..] => return Step::Damaged(self.at),
            [0xff, 0x00 | 0x01 | 0xd0..=0xd7 | 0xd9, ..] => return Step::Damaged(self.at + 2),
            [0xff, marker, high, low, ..] => {
                let len = usize::from(u16::from_be_bytes([high, low]));
                // SOF0 to SOF15 but for DHT, JPG and DAC, which share their numbers.
                if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
                    let Some(&[h1, h0, w1, w0]) = rest.get(5..9) else { return Step::NeedMore };
                    let side = |pair| u32::from(u16::from_be_bytes(pair));
                    self.size = Some([side([w1, w0]), side([h1, h0])]);
                }
                self.in_scan = marker == 0xda;
                self.at += 2 + len;
            }
            [] | [0xff] | [0xff, _] | [0xff, _, _] => return Step::NeedMore,
            _ => return Step::Damaged(self.at),
        }
        Step::Go
    }

    fn walk_scan(&mut self, bytes: &[u8]) -> Step {
        let Some(rest) = bytes.get(self.at..) else { return Step::NeedMore };
        let Some(found) = rest.iter().position(|&byte| byte == 0xff) else {
            self.at = bytes.len();
            return Step::NeedMore;
        };
        self.at += found;
        match bytes.get(self.at + 1) {
            None => return Step::NeedMore,
            // Stuffing and restart markers belong to the scan.
            Some(0x00 | 0xd0..=0xd7) => self.at += 2,
            Some(0xff) => self.at += 1,
            Some(0xd9) => return Step::Image(self.at + 2),
            Some(0xd8) => return Step::Damaged(self.at),
            // Tables or the next scan of a progressive image.
            Some(_) => self.in_scan = false,
        }
        Step::Go
    }
}

/// Whether the bytes begin with one whole image. What follows it does not matter: phones
/// append a clip.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut walk = Walk::default();
    loop {
        match walk.step(bytes) {
            Step::Go => {}
            Step::Image(_) => return walk.size.is_some(),
            Step::Damaged(_) | Step::NeedMore => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THUMBNAIL: &[u8] = b"\xff\xd8\xff\xda\0\x02ab\xff\xd9";

    /// SOI, APP1 with a thumbnail in it, SOF0 of 640x480, SOS, `scan`, EOI.
    fn image(scan: &[u8]) -> Vec<u8> {
        let mut bytes = SOI.to_vec();
        bytes.extend([0xff, 0xe1, 0, 2 + THUMBNAIL.len() as u8]);
        bytes.extend(THUMBNAIL);
        bytes.extend(b"\xff\xc0\0\x0b\x08\x01\xe0\x02\x80\x01\x01\x11\0");
        bytes.extend(b"\xff\xff\xda\0\x02");
        bytes.extend(scan);
        bytes.extend([0xff, 0xd9]);
        bytes
    }

    fn check(name: &str, stream: &[u8], expected: &[Vec<u8>], bad: u64) {
        for chunk in [1, 2, 3, 7, 64, stream.len().max(1)] {
            let (mut splitter, mut got) = (Splitter::default(), Vec::new());
            for part in stream.chunks(chunk) {
                splitter.feed(part, |width, height, bytes| {
                    assert_eq!([width, height], [640, 480], "{name}");
                    got.push(bytes.to_vec());
                });
            }
            assert_eq!(got, expected, "{name} in chunks of {chunk}");
            assert_eq!(splitter.bad, bad, "{name} in chunks of {chunk}");
        }
    }

    #[test]
    fn images_come_out_whole_however_the_stream_is_cut() {
        let one = image(b"scan\xff\x00\xff\xd3more");
        let progressive = image(b"one\xff\xc4\0\x04ab\xff\xda\0\x02two");
        let both = [one.clone(), progressive.clone()];
        check("two in a row", &both.concat(), &both, 0);
        let multipart = [b"--b\r\nContent-Type: image/jpeg\r\n\r\n", &one[..], b"\r\n"].concat();
        check("multipart", &multipart.repeat(2), &[one.clone(), one.clone()], 0);
        let cut = [&one[..one.len() - 2], &one[..]].concat();
        check("cut short, then a good one", &cut, std::slice::from_ref(&one), 1);
        let garbage = [b"\xff\xd8\xff\xe0\0\x02garbage", &one[..]].concat();
        check("no marker after a segment", &garbage, std::slice::from_ref(&one), 1);
        check("only the start", &one[..20], &[], 0);
        check("nothing but noise", &[0xff; 100], &[], 0);
        let no_size = [&b"\xff\xd8\xff\xda\0\x02ab\xff\xd9"[..], &one].concat();
        check("an image without a size", &no_size, &[one], 1);
    }

    #[test]
    fn an_image_that_never_ends_is_given_up_at_the_limit() {
        let mut splitter = Splitter::default();
        splitter.feed(&image(b"")[..30], |_, _, _| panic!("no image"));
        for _ in 0..=MAX_IMAGE_BYTES >> 20 {
            splitter.feed(&vec![7; 1 << 20], |_, _, _| panic!("no image"));
            assert!(splitter.bytes.len() <= MAX_IMAGE_BYTES + (1 << 20));
        }
        assert_eq!(splitter.bad, 1);
        let mut got = 0;
        splitter.feed(&image(b"x"), |_, _, _| got += 1);
        assert_eq!(got, 1);
    }

    #[test]
    fn whole_is_told_from_cut() {
        let one = image(b"scan");
        assert!(is_whole(&one));
        assert!(is_whole(&[&one[..], b"\0\0padding"].concat()));
        assert!(!is_whole(&one[..one.len() - 1]));
        assert!(!is_whole(b"hello"));
        let clip = b"\0\0\0\x18ftypmp42\xff\xd8\0\xff\xd8\xff\xd9";
        assert!(is_whole(&[&one[..], clip].concat()), "a photo with a clip behind it");
        assert!(!is_whole(b"\xff\xd8\xff\xda\0\x02ab\xff\xd9"), "no size");
    }

    /// Taking out each start by itself would move 16 TB here.
    #[test]
    fn starts_without_an_image_cost_no_more_than_their_bytes() {
        let starts = SOI.repeat(4 << 20);
        assert!(!is_whole(&starts));
        let mut splitter = Splitter::default();
        splitter.feed(&starts, |_, _, _| panic!("no image"));
        assert_eq!(splitter.bad, (4 << 20) - 1);
        splitter.feed(&image(b"x")[2..], |_, _, bytes| assert_eq!(bytes, image(b"x")));
        assert_eq!((splitter.bad, splitter.bytes.len()), ((4 << 20) - 1, 0));
    }
}
