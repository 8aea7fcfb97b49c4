//! Which of a camera's modes to take. Pure: the driver's offers in, a ranking out.
//!
//! The rule for `auto`, first difference decides: colour before grey; the mode that comes
//! closest to the size from above (or, where none reaches it, misses the fewest pixels); the
//! one that reaches the rate (or comes closest); the one that is cheapest to move and decode:
//! NV12, YU12, YUYV, UYVY, RGB3, BGR3, then MJPG. So MJPG is taken exactly when the link
//! can't carry an uncompressed format at that size and rate, which drivers say by not
//! offering the rate.

use crate::frame::PixelFormat;

/// A V4L2 four-character code.
pub type FourCc = [u8; 4];

/// The frame format that a V4L2 format's bytes make. `NM12` and `YM12` have their planes in
/// separate buffers, `JPEG` differs from `MJPG` in name only.
pub(super) fn pixel_format(code: FourCc) -> Option<PixelFormat> {
    match &code {
        b"NM12" => Some(PixelFormat::Nv12),
        b"YM12" => Some(PixelFormat::Yu12),
        b"JPEG" => Some(PixelFormat::Mjpg),
        code => PixelFormat::from_fourcc(std::str::from_utf8(code).ok()?),
    }
}

/// A range of sizes in steps; a discrete size has its minimum for maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRange {
    /// `[minimum, maximum, step]` in pixels.
    pub width: [u32; 3],
    pub height: [u32; 3],
}

impl SizeRange {
    pub fn discrete(width: u32, height: u32) -> Self {
        Self { width: [width, width, 1], height: [height, height, 1] }
    }

    /// The size in the range nearest to the wanted one, from above where there is one.
    fn nearest(&self, width: u32, height: u32) -> [u32; 2] {
        [on_grid(self.width, width), on_grid(self.height, height)]
    }
}

fn on_grid([min, max, step]: [u32; 3], wanted: u32) -> u32 {
    let step = step.max(1);
    let max = max.max(min);
    let steps = wanted.saturating_sub(min).div_ceil(step).min((max - min) / step);
    min + steps * step
}

/// Frame rates from the slowest to the fastest, in Hz; a discrete rate has both the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRange {
    pub slowest: f64,
    pub fastest: f64,
}

/// What a driver offers in one format; no sizes: it does not say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Offer {
    pub code: FourCc,
    pub sizes: Vec<SizeRange>,
}

/// What the configuration wants; `code`: none for `auto`. `NV12` and `YU12` are had from
/// `NM12` and `YM12`, too, and `MJPG` from `JPEG`; these three mean themselves alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub code: Option<FourCc>,
    pub width: u32,
    pub height: u32,
    pub fps: u32,
}

/// A mode to ask the driver for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mode {
    pub code: FourCc,
    pub format: PixelFormat,
    pub width: u32,
    pub height: u32,
    /// In Hz; what was wanted where the driver does not say what there is.
    pub fps: f64,
}

/// One mode of each format that is wanted, best first. `rates` lists a mode's rates.
pub(super) fn rank(
    offers: &[Offer],
    wanted: &Wanted,
    mut rates: impl FnMut(FourCc, u32, u32) -> Vec<RateRange>,
) -> Vec<Mode> {
    let mut modes: Vec<Mode> = offers
        .iter()
        .filter_map(|offer| Some((offer, pixel_format(offer.code)?)))
        .filter(|(offer, format)| {
            wanted.code.is_none_or(|code| code == offer.code || code == format.fourcc().as_bytes())
        })
        .map(|(offer, format)| {
            let [width, height] = best_size(&offer.sizes, wanted);
            let fps = best_rate(&rates(offer.code, width, height), f64::from(wanted.fps));
            Mode { code: offer.code, format, width, height, fps }
        })
        .collect();
    modes.sort_by_key(|mode| {
        (
            mode.format == PixelFormat::Grey,
            size_misfit(mode.width, mode.height, wanted),
            rate_shortfall_mhz(mode.fps, f64::from(wanted.fps)),
            cost(mode.format),
        )
    });
    modes
}

fn best_size(sizes: &[SizeRange], wanted: &Wanted) -> [u32; 2] {
    let nearest = sizes.iter().map(|size| size.nearest(wanted.width, wanted.height));
    nearest
        .min_by_key(|&[width, height]| size_misfit(width, height, wanted))
        .unwrap_or([wanted.width, wanted.height])
}

/// Wanted pixels that are missing, then pixels too many.
fn size_misfit(width: u32, height: u32, wanted: &Wanted) -> (u64, u64) {
    let area = |width: u32, height: u32| u64::from(width) * u64::from(height);
    let shared = area(width.min(wanted.width), height.min(wanted.height));
    (area(wanted.width, wanted.height) - shared, area(width, height) - shared)
}

/// The slowest rate that reaches the wanted one, else the fastest.
fn best_rate(rates: &[RateRange], wanted: f64) -> f64 {
    let reaching = rates.iter().filter(|rate| rate.fastest >= wanted * REACHED);
    let slowest = reaching.map(|rate| wanted.clamp(rate.slowest, rate.fastest.max(rate.slowest)));
    slowest.min_by(f64::total_cmp).unwrap_or_else(|| {
        rates.iter().map(|rate| rate.fastest).max_by(f64::total_cmp).unwrap_or(wanted)
    })
}

/// 29.97 Hz is good for 30.
const REACHED: f64 = 0.99;

fn rate_shortfall_mhz(fps: f64, wanted: f64) -> u64 {
    if fps >= wanted * REACHED { 0 } else { ((wanted - fps) * 1e3) as u64 }
}

fn cost(format: PixelFormat) -> u8 {
    match format {
        PixelFormat::Nv12 => 0,
        PixelFormat::Yu12 => 1,
        PixelFormat::Yuyv => 2,
        PixelFormat::Uyvy => 3,
        PixelFormat::Rgb3 => 4,
        PixelFormat::Bgr3 => 5,
        PixelFormat::Grey => 6,
        PixelFormat::Mjpg => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discrete(code: &FourCc, sizes: &[[u32; 2]]) -> Offer {
        let sizes = sizes.iter().map(|&[w, h]| SizeRange::discrete(w, h)).collect();
        Offer { code: *code, sizes }
    }

    /// A webcam on USB 2: uncompressed at full rate only when small.
    fn webcam() -> Vec<Offer> {
        let sizes = [[640, 480], [1280, 720], [1920, 1080]];
        vec![discrete(b"YUYV", &sizes), discrete(b"MJPG", &sizes), discrete(b"H264", &sizes)]
    }

    fn webcam_rates(code: FourCc, width: u32, _: u32) -> Vec<RateRange> {
        let fps: &[f64] = match (&code, width) {
            (b"YUYV", 1280) => &[10.0, 5.0],
            (b"YUYV", 1920) => &[5.0],
            _ => &[30.0, 24.0, 15.0],
        };
        fps.iter().map(|&fps| RateRange { slowest: fps, fastest: fps }).collect()
    }

    fn check(name: &str, offers: &[Offer], wanted: (&str, u32, u32, u32), expected: &str) {
        let (format, width, height, fps) = wanted;
        let code = (format != "auto").then(|| format.as_bytes().try_into().unwrap());
        let wanted = Wanted { code, width, height, fps };
        let modes = rank(offers, &wanted, webcam_rates);
        let got: Vec<String> = modes
            .iter()
            .map(|m| {
                let code = String::from_utf8_lossy(&m.code);
                format!("{code} {}x{}@{}", m.width, m.height, m.fps)
            })
            .collect();
        assert_eq!(got.join(", "), expected, "{name}");
    }

    #[test]
    fn the_cheapest_mode_that_reaches_size_and_rate_comes_first() {
        let cam = webcam();
        let small = ("auto", 640, 480, 15);
        check("small", &cam, small, "YUYV 640x480@15, MJPG 640x480@15");
        let hd = ("auto", 1280, 720, 15);
        check("HD", &cam, hd, "MJPG 1280x720@15, YUYV 1280x720@10");
        let slow = ("auto", 1280, 720, 5);
        check("slow", &cam, slow, "YUYV 1280x720@5, MJPG 1280x720@15");
        let between = ("auto", 800, 600, 20);
        check("next larger size", &cam, between, "MJPG 1280x720@24, YUYV 1280x720@10");
        let large = ("auto", 4000, 3000, 60);
        check("beyond", &cam, large, "MJPG 1920x1080@30, YUYV 1920x1080@5");
        check("forced", &cam, ("YUYV", 1280, 720, 30), "YUYV 1280x720@10");
        check("not there", &cam, ("NV12", 640, 480, 15), "");
        let grey = [discrete(b"GREY", &[[640, 480]]), discrete(b"MJPG", &[[320, 240]])];
        check("colour first", &grey, small, "MJPG 320x240@15, GREY 640x480@15");
        let planes = [discrete(b"YM12", &[[640, 480]]), discrete(b"NM12", &[[640, 480]])];
        check("planes apart", &planes, small, "NM12 640x480@15, YM12 640x480@15");
        let both = [discrete(b"NV12", &[[640, 480]]), discrete(b"NM12", &[[640, 480]])];
        check("either way", &both, ("NV12", 640, 480, 15), "NV12 640x480@15, NM12 640x480@15");
        check("only apart", &both, ("NM12", 640, 480, 15), "NM12 640x480@15");
        let silent = [Offer { code: *b"YUYV", sizes: vec![] }];
        check("no sizes told", &silent, small, "YUYV 640x480@15");
    }

    #[test]
    fn sizes_snap_to_the_drivers_steps() {
        for (range, wanted, expected) in [
            ([16, 1920, 16], 640, 640),
            ([16, 1920, 16], 641, 656),
            ([16, 1920, 16], 5000, 1920),
            ([16, 1920, 16], 1, 16),
            ([16, 1000, 16], 999, 992),
            ([48, 8192, 0], 333, 333),
            ([100, 50, 7], 70, 100),
        ] {
            assert_eq!(on_grid(range, wanted), expected, "{range:?} {wanted}");
        }
    }

    #[test]
    fn rates() {
        let range = |slowest, fastest| RateRange { slowest, fastest };
        for (rates, wanted, expected) in [
            (vec![range(1.0, 60.0)], 15.0, 15.0),
            (vec![range(20.0, 60.0)], 15.0, 20.0),
            (vec![range(29.97, 29.97)], 30.0, 29.97),
            (vec![range(5.0, 5.0), range(10.0, 10.0)], 15.0, 10.0),
            (vec![], 15.0, 15.0),
        ] {
            assert_eq!(best_rate(&rates, wanted), expected, "{rates:?} {wanted}");
        }
    }
}
