//! The pipe source on real commands.

use salientd::camera::pipe::Pipe;
use salientd::camera::{Camera, CameraError};
use salientd::config::{PipeConfig, PipeFormat};
use salientd::frame::{Frame, PixelFormat, YuvMatrix, YuvRange};
use salientd::preprocess::decode::Decoder;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn shell(script: &str, format: PipeFormat) -> PipeConfig {
    let command = ["sh", "-c", script].map(String::from).to_vec();
    PipeConfig { command, format, ..PipeConfig::default() }
}

/// Frames until the stream ends, and its end.
fn frames(config: &PipeConfig) -> (Vec<Frame>, CameraError) {
    let mut pipe = Pipe::open(config).unwrap();
    let mut frames = Vec::new();
    loop {
        match pipe.next_frame(PATIENCE) {
            Ok(frame) => frames.push(frame),
            Err(end) => return (frames, end),
        }
    }
}

#[test]
fn y4m_and_raw_frames_come_through_and_the_end_is_an_end() {
    let y4m = r"printf 'YUV4MPEG2 W2 H2 C420jpeg XCOLORRANGE=FULL\nFRAME\nabcdef'";
    let (got, end) = frames(&shell(y4m, PipeFormat::Y4m));
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].data, b"abcdef");
    assert_eq!(got[0].layout.format, PixelFormat::Yu12);
    assert_eq!((got[0].layout.matrix, got[0].layout.range), (YuvMatrix::Bt601, YuvRange::Full));
    assert!(matches!(end, CameraError::End(_)), "{end}");

    let raw = PipeConfig {
        width: 2,
        height: 1,
        pixel_format: "RGB3".into(),
        ..shell("printf 123456; sleep 0.3; printf abcdef78", PipeFormat::Raw)
    };
    let (got, end) = frames(&raw);
    let data: Vec<&[u8]> = got.iter().map(|frame| &frame.data[..]).collect();
    assert_eq!(data, [b"123456", b"abcdef"]);
    assert_eq!((got[0].sequence, got[1].sequence), (0, 1));
    assert!(matches!(end, CameraError::End(_)), "{end}");
}

#[test]
fn jpegs_are_cut_out_of_the_stream_and_decode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    let mut jpeg = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    encoder.encode(&[90; 24 * 16 * 3], 24, 16, jpeg_encoder::ColorType::Rgb).unwrap();
    // An image that lacks its end, then a whole one.
    let cut = &jpeg[..jpeg.len() - 2];
    fs::write(&path, [b"--boundary\r\n\r\n", cut, &jpeg].concat()).unwrap();
    let script = format!("cat {}; sleep 60", path.display());
    let mut pipe = Pipe::open(&shell(&script, PipeFormat::Mjpeg)).unwrap();
    let frame = pipe.next_frame(PATIENCE).unwrap();
    assert_eq!((frame.layout.width, frame.layout.height), (24, 16));
    let picture = Decoder::new().decode(&frame).unwrap();
    assert!(picture.pixel(12, 8).iter().all(|v| v.abs_diff(90) <= 2));
    let deadline = Instant::now() + PATIENCE;
    while pipe.counters().bad == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((pipe.counters().frames, pipe.counters().bad), (1, 1));
    assert_eq!(pipe.describe(), "sh MJPG 24x16");
}

#[test]
fn the_newest_frame_wins_and_the_others_are_counted() {
    let config = PipeConfig {
        width: 1,
        height: 1,
        pixel_format: "GREY".into(),
        ..shell("printf 123456789; sleep 60", PipeFormat::Raw)
    };
    let mut pipe = Pipe::open(&config).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while pipe.counters().skipped < 8 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let frame = pipe.next_frame(PATIENCE).unwrap();
    assert_eq!((frame.data.as_slice(), frame.sequence), (&b"9"[..], 8));
    assert_eq!(pipe.counters().skipped, 8);
    let short = Duration::from_millis(20);
    let stalled = pipe.next_frame(short).unwrap_err();
    assert_eq!(stalled.to_string(), "sh: no frame for 20 ms");
}

#[test]
fn how_a_command_ended_is_said_with_its_last_words() {
    for (script, gone, expected) in [
        (
            "echo first >&2; echo 'no camera found' >&2; exit 3",
            true,
            "sh: the command ended, exit status: 3: no camera found",
        ),
        (
            "echo 'rtsp://me:s3cret@host/x: Connection refused' >&2; exit 1",
            true,
            "sh: the command ended, exit status: 1: rtsp://…@host/x: Connection refused",
        ),
        ("kill -9 $$", true, "sh: the command ended, signal: 9 (SIGKILL)"),
        (
            "printf 'YUV4MPEG2 W1 H1 Cmono\\nFRAME\\nxJUNK'; sleep 60",
            true,
            "sh: y4m stream damaged: no FRAME where one starts",
        ),
        ("exec 1>&-; sleep 60", true, "sh: the command closed its output"),
        (
            "echo hello; sleep 60",
            false,
            "sh: not a y4m stream: it does not start with YUV4MPEG2 (ffmpeg needs -f yuv4mpegpipe)",
        ),
    ] {
        let (_, end) = frames(&shell(script, PipeFormat::Y4m));
        assert_eq!(end.to_string(), expected);
        assert_eq!(matches!(end, CameraError::Gone { .. }), gone, "{end:?}");
    }
}

/// What the command leaves behind may hold its standard error for as long as it likes.
#[test]
fn a_descendant_outside_of_the_group_does_not_hold_up_the_end() {
    let script = "echo lost it >&2; setsid sleep 60 >/dev/null & sleep 0.3; exit 1";
    let began = Instant::now();
    let (_, end) = frames(&shell(script, PipeFormat::Y4m));
    assert_eq!(end.to_string(), "sh: the command ended, exit status: 1: lost it");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn a_setting_that_cannot_work_is_unusable() {
    let base = shell("true", PipeFormat::Raw);
    let none = PipeConfig { command: vec!["no-such-program-here".into()], ..base.clone() };
    for (config, expected) in [
        (none, "no-such-program-here: no such program (camera.pipe.command)"),
        (PipeConfig { width: 0, ..base.clone() }, "camera.pipe.width: 0 pixels, allowed 1 to 8192"),
        (
            PipeConfig { width: 641, ..base.clone() },
            "camera.pipe.width: 641 pixels, YU12 needs an even number",
        ),
        (
            PipeConfig { pixel_format: "MJPG".into(), ..base.clone() },
            "camera.pipe.pixel_format: \"MJPG\", allowed for raw: \
          YUYV, UYVY, NV12, YU12, RGB3, BGR3, GREY",
        ),
    ] {
        let Err(error) = Pipe::open(&config) else { panic!("{expected}") };
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, CameraError::Unusable { .. }));
    }
}

/// The command and what it started are gone when the camera is, even those that do not heed
/// a friendly request.
#[test]
fn closing_ends_the_whole_process_group() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!(
        "trap '' TERM; sleep 600 & echo $! $$ > {0}.new; mv {0}.new {0}; while :; do sleep 600; done",
        pids.display()
    );
    let pipe = Pipe::open(&shell(&script, PipeFormat::Y4m)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !pids.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(pipe);
    for pid in fs::read_to_string(&pids).unwrap().split_whitespace() {
        let deadline = Instant::now() + PATIENCE;
        while runs(pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!runs(pid), "{pid} goes on");
    }
}

/// A process that has ended but was left to init may stay as a zombie for a while.
fn runs(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}
