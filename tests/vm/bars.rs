//! `bars FORMAT WIDTH HEIGHT 75|100 [MATRIX RANGE]`: takes one frame of the colour bars that
//! the kernel's test driver vivid draws, through camera and decoder, and holds every pixel
//! against the colour that stands there. `MATRIX` (`Bt601`, `Bt709`) and `RANGE` (`Limited`,
//! `Full`) are what the driver must have said. Exits 1 where a pixel is more than two levels
//! off. Run in the virtual machine by tests/vm/pixels.
//!
//! vivid's own arithmetic cuts YCbCr off to whole levels and keeps 0 and 255 free, which is up
//! to four levels of blue: so a bar is drawn with that arithmetic (v4l2-tpg-core.c), and what
//! its bytes mean by ITU-R BT.601 and BT.709, to the last digit, is what must come out.

use anyhow::{Context, bail, ensure};
use salientd::camera;
use salientd::config::{CameraConfig, CameraSource};
use salientd::frame::{FrameLayout, Picture, PixelFormat, YuvMatrix, YuvRange};
use salientd::preprocess::decode::Decoder;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);
const LEVELS: u8 = 2;
/// Columns left out on each side of an edge between bars, where the chroma of a pair of
/// pixels, or the scaler that vivid plays, mixes both.
const EDGE_PX: usize = 2;

/// White, yellow, cyan, green, magenta, red, blue, black at 75 % (ITU-R BT.801, as vivid
/// rounds it) and at 100 %.
fn bars(percent: &str) -> anyhow::Result<[[u8; 3]; 8]> {
    let on = match percent {
        "75" => 191,
        "100" => 255,
        _ => bail!("bars of {percent} %: there are 75 and 100"),
    };
    let bar = |i: usize| [i & 2 == 0, i & 4 == 0, i & 1 == 0].map(|is_on| on * u8::from(is_on));
    Ok(std::array::from_fn(bar))
}

/// What a bar's bytes mean.
fn stands(layout: &FrameLayout, rgb: [u8; 3]) -> [u8; 3] {
    match layout.format {
        PixelFormat::Rgb3 | PixelFormat::Bgr3 => rgb,
        // Whatever it says of the range: its luma of Rec. 709, 0 to 255.
        PixelFormat::Grey => [dot([0.2126, 0.7152, 0.0722], rgb).round() as u8; 3],
        _ => meaning(layout, drawn(layout, rgb)),
    }
}

fn dot(weights: [f64; 3], rgb: [u8; 3]) -> f64 {
    std::iter::zip(weights, rgb).map(|(weight, value)| weight * f64::from(value)).sum()
}

/// Y, Cb and Cr as vivid writes them: in twelve bits, then cut to eight.
fn drawn(layout: &FrameLayout, rgb: [u8; 3]) -> [u8; 3] {
    let rows = match layout.matrix {
        YuvMatrix::Bt601 => {
            [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]
        }
        YuvMatrix::Bt709 => {
            [[0.2126, 0.7152, 0.0722], [-0.1146, -0.3854, 0.5], [0.5, -0.4542, -0.0458]]
        }
    };
    let (spans, offsets, [low, high]) = match layout.range {
        YuvRange::Full => ([255.0; 3], [0, 128, 128], [[1; 3], [254; 3]]),
        YuvRange::Limited => ([219.0, 224.0, 224.0], [16, 128, 128], [[16; 3], [235, 240, 240]]),
    };
    std::array::from_fn(|i| {
        let weight = |value: f64| (0.5 + value * spans[i] * 256.0) as i32;
        let sum: i32 =
            std::iter::zip(rows[i], rgb).map(|(w, v)| weight(w) * 16 * i32::from(v)).sum();
        (((sum >> 16) + (offsets[i] << 4)) >> 4).clamp(low[i], high[i]) as u8
    })
}

/// ITU-R BT.601-7 and BT.709-6, and their inverse.
fn meaning(layout: &FrameLayout, [y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (kr, kb) = match layout.matrix {
        YuvMatrix::Bt601 => (0.299, 0.114),
        YuvMatrix::Bt709 => (0.2126, 0.0722),
    };
    let (low, luma_span, chroma_span) = match layout.range {
        YuvRange::Full => (0.0, 255.0, 255.0),
        YuvRange::Limited => (16.0, 219.0, 224.0),
    };
    let y = (f64::from(y) - low) / luma_span;
    let [cb, cr] = [cb, cr].map(|chroma| (f64::from(chroma) - 128.0) / chroma_span * 2.0);
    let (r, b) = (y + (1.0 - kr) * cr, y + (1.0 - kb) * cb);
    let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
    [r, g, b].map(|value| (value * 255.0).round().clamp(0.0, 255.0) as u8)
}

/// The bar of a column; none beside an edge.
fn bar_at(x: usize, width: usize) -> Option<usize> {
    let bar = |x: usize| x * 8 / width;
    let (left, right) = (x.saturating_sub(EDGE_PX), (x + EDGE_PX).min(width - 1));
    (bar(left) == bar(right)).then(|| bar(x))
}

fn worst(picture: &Picture, bars: &[[u8; 3]; 8]) -> anyhow::Result<u8> {
    let (mut worst, mut held) = (0, 0);
    for y in 0..picture.height {
        for x in 0..picture.width {
            let Some(bar) = bar_at(x, picture.width) else { continue };
            let (is, stands) = (picture.pixel(x, y), bars[bar]);
            let off = std::iter::zip(is, stands).map(|(a, b)| a.abs_diff(b)).max().unwrap_or(0);
            ensure!(off <= LEVELS, "column {x}, row {y}: {is:?}, there stands {stands:?}");
            worst = worst.max(off);
            held += 1;
        }
    }
    ensure!(held * 10 >= picture.width * picture.height * 8, "only {held} pixels were compared");
    Ok(worst)
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (asked, said) = arguments.split_at(arguments.len().min(4));
    let [code, width, height, percent] = asked else {
        bail!("usage: bars FORMAT WIDTH HEIGHT 75|100 [MATRIX RANGE]")
    };
    let mut config = CameraConfig { source: CameraSource::V4l2, ..CameraConfig::default() };
    config.v4l2.device = "name:vivid".into();
    config.v4l2.format = code.clone();
    (config.v4l2.width, config.v4l2.height) = (width.parse()?, height.parse()?);

    let mut camera = camera::open(&config)?;
    let frame = camera.next_frame(TIMEOUT)?;
    let layout = frame.layout;
    let bars = bars(percent)?.map(|rgb| stands(&layout, rgb));
    let seen = format!(
        "{code} {}x{} stride {} {:?} {:?}",
        layout.width, layout.height, layout.stride_bytes, layout.matrix, layout.range
    );
    let is_asked = (layout.width, layout.height) == (config.v4l2.width, config.v4l2.height);
    ensure!(is_asked && camera.describe().contains(code.as_str()), "{seen}: {}", camera.describe());
    if let [matrix, range] = said {
        let is = [format!("{:?}", layout.matrix), format!("{:?}", layout.range)];
        ensure!(is == [matrix.as_str(), range.as_str()], "{seen}: the driver was to say {said:?}");
    }
    let picture = Decoder::new().decode(&frame).with_context(|| seen.clone())?;
    let worst = worst(&picture, &bars).with_context(|| format!("{seen}, bars of {percent} %"))?;
    println!("{seen}, bars of {percent} %: at most {worst} levels off");
    Ok(())
}
