//! Frames on a command's standard output, or on our own standard input.
//!
//! A reader thread takes the stream apart as fast as it comes and keeps the newest frame
//! only; the one before it, if nobody came for it, is skipped and counted. The command runs
//! in a process group of its own, which is ended and waited for when the camera is closed;
//! every wait for what a command does is bounded.

use super::{Camera, CameraCounters, CameraError, mjpeg, usual_matrix, y4m};
use crate::config::{PipeConfig, PipeFormat};
use crate::frame::{Frame, FrameLayout, PixelFormat, YuvMatrix, YuvRange};
use crate::redact;
use crate::sandbox;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

const MAX_SIDE: u32 = 8192;
/// How often the threads look whether they are to stop.
const POLL_MS: i64 = 50;
/// One read; a pipe holds 64 KiB by default.
const CHUNK_BYTES: usize = 64 << 10;
/// Longest standard error line kept.
const MAX_LINE_BYTES: usize = 300;
/// How long a command may take to end: when asked to, and after it closed its output.
const GRACE: Duration = Duration::from_millis(500);
/// Commands that outlived a kill, as one does that hangs in a driver or is another user's.
static SURVIVORS: Survivors = Survivors(Mutex::new(Vec::new()));
/// Frame buffers kept for reuse.
const SPARE_BUFFERS: usize = 3;

/// The newest frame of a stream.
pub struct Pipe {
    name: String,
    /// The command names an address, so it will need a network.
    over_network: bool,
    child: Option<Child>,
    /// Once the command has ended: how, or nothing where it had to be ended.
    exit: Option<Option<ExitStatus>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    frames: u64,
    layout: Option<FrameLayout>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    slot: Mutex<Slot>,
    filled: Condvar,
    last_line: Mutex<String>,
}

#[derive(Default)]
struct Slot {
    newest: Option<Frame>,
    end: Option<End>,
    spare: Vec<Vec<u8>>,
    sequence: u64,
    skipped: u64,
    bad: u64,
}

/// Why the reader stopped.
#[derive(Clone, Debug)]
enum End {
    /// The other side closed.
    Closed,
    /// What came is not what the configuration says.
    NotOurs(String),
    /// Good frames came, then something else.
    Damaged(String),
}

impl Shared {
    /// A panicking reader leaves counts and buffers that are still good.
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_line(&self) -> MutexGuard<'_, String> {
        self.last_line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, layout: FrameLayout, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut data = self.slot().spare.pop().unwrap_or_default();
        fill(&mut data);
        let mut slot = self.slot();
        let frame = Frame {
            layout,
            data,
            sequence: slot.sequence,
            captured_at: Instant::now(),
            captured_wall: SystemTime::now(),
        };
        slot.sequence += 1;
        if let Some(older) = slot.newest.replace(frame) {
            slot.skipped += 1;
            slot.keep(older.data);
        }
        self.filled.notify_one();
    }

    fn end(&self, end: End) {
        self.slot().end = Some(end);
        self.filled.notify_one();
    }
}

impl Slot {
    fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.push(buffer);
        }
    }
}

impl Pipe {
    /// Starts the command, or takes standard input.
    pub fn open(config: &PipeConfig) -> Result<Self, CameraError> {
        let parser = Parser::new(config)?;
        let Some((program, arguments)) = config.command.split_first() else {
            let input = io::stdin().as_fd().try_clone_to_owned();
            let input =
                input.map_err(|e| CameraError::unusable("standard input", e.to_string()))?;
            return Self::start("standard input".into(), None, input, None, parser);
        };
        if !SURVIVORS.have_room() {
            let why = "the commands started before go on although they were killed";
            return Err(CameraError::gone(program, why));
        }
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| not_started(program, &e))?;
        let output = child.stdout.take().map(OwnedFd::from);
        let errors = child.stderr.take().map(OwnedFd::from);
        let Some(output) = output else {
            return Err(CameraError::unusable(program, "no standard output"));
        };
        let mut pipe = Self::start(program.clone(), Some(child), output, errors, parser)?;
        pipe.over_network = arguments.iter().any(|argument| argument.contains("://"));
        Ok(pipe)
    }

    fn start(
        name: String,
        child: Option<Child>,
        input: OwnedFd,
        errors: Option<OwnedFd>,
        parser: Parser,
    ) -> Result<Self, CameraError> {
        let shared = Arc::<Shared>::default();
        let mut pipe = Self {
            name,
            over_network: false,
            child,
            exit: None,
            shared,
            threads: Vec::new(),
            frames: 0,
            layout: None,
        };
        let shared = pipe.shared.clone();
        pipe.spawn("pipe-reader", move || read_frames(input, parser, &shared))?;
        if let Some(errors) = errors {
            let shared = pipe.shared.clone();
            pipe.spawn("pipe-stderr", move || read_lines(errors, &shared))?;
        }
        Ok(pipe)
    }

    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), CameraError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run);
        self.threads.push(thread.map_err(|e| CameraError::gone(&self.name, e.to_string()))?);
        Ok(())
    }

    fn is_standard_input(&self) -> bool {
        self.child.is_none() && self.exit.is_none()
    }

    /// What the end of the stream means, with the command's own last words.
    fn ended(&mut self, end: End) -> CameraError {
        let name = self.name.clone();
        match end {
            End::NotOurs(why) | End::Damaged(why) if self.is_standard_input() => {
                CameraError::Lost { camera: name, why }
            }
            End::NotOurs(why) => CameraError::unusable(name, why),
            End::Damaged(why) => CameraError::gone(name, why),
            End::Closed => {
                if let Some(child) = self.child.take() {
                    let by_itself = exits_within(&child, GRACE);
                    self.exit = Some(end_group(child).filter(|_| by_itself));
                    // Its last line may still be on the way; or for ever, where a process that
                    // left the group holds standard error.
                    let deadline = Instant::now() + GRACE;
                    let reading = |thread: &JoinHandle<()>| !thread.is_finished();
                    while self.threads.iter().any(reading) && Instant::now() < deadline {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    self.end_threads();
                }
                let why = match self.exit {
                    None => return CameraError::End(name),
                    Some(Some(status)) if status.success() => return CameraError::End(name),
                    Some(Some(status)) => format!("the command ended, {status}"),
                    Some(None) => "the command closed its output".into(),
                };
                let line = self.shared.last_line();
                let words = if line.is_empty() { String::new() } else { format!(": {line}") };
                let hint = refused(self.over_network).map(|hint| format!("; {hint}"));
                CameraError::gone(name, why + &words + &hint.unwrap_or_default())
            }
        }
    }

    fn end_threads(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Camera for Pipe {
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError> {
        let slot = self.shared.slot();
        let waiting = |slot: &mut Slot| slot.newest.is_none() && slot.end.is_none();
        let waited = self.shared.filled.wait_timeout_while(slot, timeout, waiting);
        let (mut slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = slot.newest.take() {
            drop(slot);
            self.frames += 1;
            self.layout = Some(frame.layout);
            return Ok(frame);
        }
        let end = slot.end.clone();
        drop(slot);
        match end {
            Some(end) => Err(self.ended(end)),
            None => Err(CameraError::stalled(&self.name, timeout)),
        }
    }

    fn describe(&self) -> String {
        match &self.layout {
            Some(FrameLayout { format, width, height, .. }) => {
                format!("{} {} {width}x{height}", self.name, format.fourcc())
            }
            None => self.name.clone(),
        }
    }

    fn counters(&self) -> CameraCounters {
        let slot = self.shared.slot();
        CameraCounters { frames: self.frames, skipped: slot.skipped, lost: 0, bad: slot.bad }
    }

    fn outlasts_stalls(&self) -> bool {
        self.is_standard_input()
    }

    fn recycle(&mut self, frame: Frame) {
        self.shared.slot().keep(frame.data);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(child) = self.child.take() {
            end_group(child);
        }
        self.end_threads();
    }
}

/// Why a command did not start. What the system lacks at the moment may be there later.
fn not_started(program: &str, error: &io::Error) -> CameraError {
    let passing = [Errno::AGAIN, Errno::NOMEM, Errno::TXTBSY, Errno::MFILE, Errno::NFILE];
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => {
            CameraError::unusable(program, "no such program (camera.pipe.command)")
        }
        Some(errno) if passing.contains(&errno) => {
            CameraError::gone(program, format!("cannot be started: {error}"))
        }
        _ => {
            let why = format!("cannot be started: {error} (camera.pipe.command)");
            CameraError::unusable(program, why)
        }
    }
}

/// What the service's sandbox may have kept from a command that ended with an error.
fn refused(over_network: bool) -> Option<String> {
    let network = over_network.then(sandbox::without_network).flatten();
    network.or_else(sandbox::without_media_devices)
}

/// Asks the whole group to end, then makes it, and reaps the child.
///
/// A process id is free for another process once it has been waited for; so that comes last,
/// and until then the signals reach our group alone, also when the child has ended and only
/// its own children go on.
fn end_group(mut child: Child) -> Option<ExitStatus> {
    let signal = |signal| {
        if let Some(group) = pid(&child) {
            let _ = kill_process_group(group, signal);
        }
    };
    signal(Signal::TERM);
    exits_within(&child, GRACE);
    signal(Signal::KILL);
    if exits_within(&child, GRACE) {
        return child.wait().ok();
    }
    log::warn!("pipe: process {} goes on although it was killed", child.id());
    SURVIVORS.take_in(child);
    None
}

/// Children that are waited for a little at a time: whenever one more is to be started.
struct Survivors(Mutex<Vec<Child>>);

impl Survivors {
    /// Above that no more are started.
    const MOST: usize = 4;

    fn children(&self) -> MutexGuard<'_, Vec<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, child: Child) {
        self.children().push(child);
    }

    /// Lets go of those that have ended meanwhile.
    fn have_room(&self) -> bool {
        let mut children = self.children();
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        children.len() < Self::MOST
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Whether the child ends by then; it still is to be waited for.
fn exits_within(child: &Child, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    let Some(pid) = pid(child) else { return false };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match waitid(WaitId::Pid(pid), look) {
            Ok(Some(_)) => return true,
            Ok(None) | Err(Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            _ => return false,
        }
    }
}

/// Reads until the other side closes, the camera does, or `take` has had enough.
fn read_all(input: &OwnedFd, stop: &AtomicBool, mut take: impl FnMut(&[u8]) -> bool) {
    let mut chunk = vec![0; CHUNK_BYTES];
    let timeout = Timespec { tv_sec: 0, tv_nsec: POLL_MS * 1_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(input, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        match rustix::io::read(input, &mut chunk[..]) {
            Ok(0) => return,
            Ok(n) if !take(&chunk[..n]) => return,
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

fn read_frames(input: OwnedFd, mut parser: Parser, shared: &Shared) {
    let mut end = End::Closed;
    read_all(&input, &shared.stop, |bytes| match parser.feed(bytes, shared) {
        Ok(()) => true,
        Err(why) if shared.slot().sequence == 0 => {
            end = End::NotOurs(why);
            false
        }
        Err(why) => {
            end = End::Damaged(why);
            false
        }
    });
    shared.end(end);
}

/// Keeps the last line that the command wrote to its standard error.
fn read_lines(errors: OwnedFd, shared: &Shared) {
    let mut line = Vec::new();
    read_all(&errors, &shared.stop, |bytes| {
        for &byte in bytes {
            if !matches!(byte, b'\n' | b'\r') {
                if line.len() < MAX_LINE_BYTES {
                    line.push(byte);
                }
            } else if !line.trim_ascii().is_empty() {
                keep_line(&line, shared);
                line.clear();
            }
        }
        true
    });
    if !line.trim_ascii().is_empty() {
        keep_line(&line, shared);
    }
}

fn keep_line(line: &[u8], shared: &Shared) {
    let text: String =
        String::from_utf8_lossy(line).trim().chars().filter(|c| !c.is_control()).collect();
    // It goes to everybody who may know why the camera is away.
    let text = redact::addresses(&text);
    log::debug!("pipe: {text}");
    *shared.last_line() = text;
}

/// Takes the stream apart.
#[derive(Debug)]
enum Parser {
    Y4m(y4m::Splitter),
    Mjpeg(mjpeg::Splitter),
    Raw { layout: FrameLayout, frame_bytes: usize, bytes: Vec<u8> },
}

impl Parser {
    fn new(config: &PipeConfig) -> Result<Self, CameraError> {
        Ok(match config.format {
            PipeFormat::Y4m => Self::Y4m(y4m::Splitter::default()),
            PipeFormat::Mjpeg => Self::Mjpeg(mjpeg::Splitter::default()),
            PipeFormat::Raw => {
                let layout = raw_layout(config)?;
                Self::Raw { layout, frame_bytes: layout.min_bytes() as usize, bytes: Vec::new() }
            }
        })
    }

    fn feed(&mut self, bytes: &[u8], shared: &Shared) -> Result<(), String> {
        match self {
            Self::Y4m(splitter) => {
                splitter.feed(bytes, |header, fill| shared.put(header.layout(), fill))
            }
            Self::Mjpeg(splitter) => {
                splitter.feed(bytes, |width, height, image| {
                    shared.put(jpeg_layout(width, height), |out| {
                        out.clear();
                        out.extend_from_slice(image);
                    });
                });
                shared.slot().bad = splitter.bad;
                Ok(())
            }
            Self::Raw { layout, frame_bytes, bytes: held } => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (part, after) = rest.split_at(rest.len().min(*frame_bytes - held.len()));
                    held.extend_from_slice(part);
                    rest = after;
                    if held.len() == *frame_bytes {
                        shared.put(*layout, |out| std::mem::swap(out, held));
                        held.clear();
                    }
                }
                Ok(())
            }
        }
    }
}

fn raw_layout(config: &PipeConfig) -> Result<FrameLayout, CameraError> {
    let unusable = |key: &str, why: String| Err(CameraError::unusable(key, why));
    let &PipeConfig { width, height, ref pixel_format, .. } = config;
    for (key, side) in [("camera.pipe.width", width), ("camera.pipe.height", height)] {
        if !(1..=MAX_SIDE).contains(&side) {
            return unusable(key, format!("{side} pixels, allowed 1 to {MAX_SIDE}"));
        }
    }
    let format = match PixelFormat::from_fourcc(pixel_format) {
        Some(format) if format != PixelFormat::Mjpg => format,
        _ => {
            let why = format!(
                "{pixel_format:?}, allowed for raw: YUYV, UYVY, NV12, YU12, RGB3, BGR3, GREY"
            );
            return unusable("camera.pipe.pixel_format", why);
        }
    };
    let paired = !matches!(format, PixelFormat::Rgb3 | PixelFormat::Bgr3 | PixelFormat::Grey);
    if paired && width % 2 == 1 {
        let why = format!("{width} pixels, {pixel_format} needs an even number");
        return unusable("camera.pipe.width", why);
    }
    let rgb = matches!(format, PixelFormat::Rgb3 | PixelFormat::Bgr3);
    Ok(FrameLayout {
        format,
        width,
        height,
        stride_bytes: format.row_bytes(width),
        matrix: usual_matrix(width, height),
        range: if rgb || format == PixelFormat::Grey { YuvRange::Full } else { YuvRange::Limited },
    })
}

/// JFIF is always BT.601 and full range; the decoder knows.
fn jpeg_layout(width: u32, height: u32) -> FrameLayout {
    FrameLayout {
        format: PixelFormat::Mjpg,
        width,
        height,
        stride_bytes: 0,
        matrix: YuvMatrix::Bt601,
        range: YuvRange::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    /// As standard input: its other end, and the camera.
    fn standard_input(config: &PipeConfig) -> (UnixStream, Pipe) {
        let (outside, inside) = UnixStream::pair().unwrap();
        let parser = Parser::new(config).unwrap();
        let pipe = Pipe::start("standard input".into(), None, inside.into(), None, parser);
        (outside, pipe.unwrap())
    }

    #[test]
    fn a_frame_on_standard_input_may_stall_half_way() {
        let (width, height, pixel_format) = (4, 1, "GREY".into());
        let config = PipeConfig { width, height, pixel_format, ..PipeConfig::default() };
        let config = PipeConfig { format: PipeFormat::Raw, ..config };
        let (mut outside, mut pipe) = standard_input(&config);
        assert!(pipe.outlasts_stalls());
        outside.write_all(b"ab").unwrap();
        let stalled = pipe.next_frame(SHORT).unwrap_err();
        assert!(matches!(stalled, CameraError::Stalled { .. }), "{stalled}");
        outside.write_all(b"cd").unwrap();
        assert_eq!(pipe.next_frame(PATIENCE).unwrap().data, b"abcd");
        drop(outside);
        let end = pipe.next_frame(PATIENCE).unwrap_err();
        assert!(matches!(end, CameraError::End(_)), "{end}");
    }

    #[test]
    fn standard_input_is_not_begun_anew() {
        let good = &b"YUV4MPEG2 W1 H1 Cmono\nFRAME\nx"[..];
        for (before, damage, expected) in [
            (good, &b"JUNK\n"[..], "y4m stream damaged: no FRAME where one starts"),
            (b"", b"hello\n", y4m::NOT_Y4M),
        ] {
            let (mut outside, mut pipe) = standard_input(&PipeConfig::default());
            outside.write_all(before).unwrap();
            let wait = if before.is_empty() { SHORT } else { PATIENCE };
            assert_eq!(pipe.next_frame(wait).is_ok(), !before.is_empty());
            outside.write_all(damage).unwrap();
            let lost = pipe.next_frame(PATIENCE).unwrap_err();
            assert!(matches!(lost, CameraError::Lost { .. }), "{lost}");
            let expected = format!("standard input: {expected}; it cannot be begun anew");
            assert_eq!(lost.to_string(), expected);
        }
    }

    #[test]
    fn a_command_that_may_start_later_is_told_from_one_that_will_not() {
        for (errno, gone, expected) in [
            (Errno::NOENT, false, "p: no such program (camera.pipe.command)"),
            (
                Errno::ACCESS,
                false,
                "p: cannot be started: Permission denied (os error 13) (camera.pipe.command)",
            ),
            (
                Errno::AGAIN,
                true,
                "p: cannot be started: Resource temporarily unavailable (os error 11)",
            ),
            (Errno::NOMEM, true, "p: cannot be started: Cannot allocate memory (os error 12)"),
            (Errno::TXTBSY, true, "p: cannot be started: Text file busy (os error 26)"),
        ] {
            let error = not_started("p", &errno.into());
            assert_eq!(error.to_string(), expected);
            assert_eq!(matches!(error, CameraError::Gone { .. }), gone, "{error:?}");
        }
    }

    #[test]
    fn what_outlives_a_kill_keeps_others_from_being_started_until_it_ends() {
        let survivors = Survivors(Mutex::default());
        let mut pids = Vec::new();
        while survivors.have_room() {
            let child = Command::new("sleep").arg("60").spawn().unwrap();
            pids.extend(pid(&child));
            survivors.take_in(child);
        }
        assert_eq!(pids.len(), Survivors::MOST);
        for pid in pids {
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while !survivors.have_room() {
            assert!(Instant::now() < deadline, "they are not waited for");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
