//! A USB camera in user space: `uvc SERIAL [JPEG]` plugs one into the kernel's `vhci_hcd`, so
//! that the real `uvcvideo` drives it, and then obeys lines on its standard input. For the
//! virtual machine (tests/vm/cameras); needs the rights to write to sysfs.
//!
//! | line | does |
//! |---|---|
//! | `plug YUYV\|MJPG WIDTH HEIGHT FPS` | plugs it in; MJPG sends the JPEG, whose size that must be |
//! | `unplug` | pulls it out in the middle of whatever it does |
//! | `truncate N` | the next N frames end halfway |
//! | `flag N` | the next N frames carry the error bit |
//! | `stall on`, `stall off` | goes silent, and on |
//!
//! The wire is USB/IP over a socket pair (Documentation/usb/usbip_protocol.rst); what the
//! device says of itself is USB Video Class 1.0 over one bulk endpoint. One thread: what the
//! kernel asks, what is asked of it and the time for the next frame are met in one loop.

use anyhow::{Context, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const CONTROLLER: &str = "/sys/devices/platform/vhci_hcd.0";
const PORT: u32 = 0;
/// High speed, as `attach` counts.
const SPEED: u32 = 3;
/// Bytes of one bulk transfer, its header with them.
const PAYLOAD: u32 = 16_384;
const HEADER: usize = 2;
/// Error numbers of RET_SUBMIT and RET_UNLINK.
const STALLED: i32 = -32;
const UNLINKED: i32 = -104;

/// What it shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Coding {
    Yuyv,
    Mjpg,
}

#[derive(Clone, Copy, Debug)]
struct Mode {
    coding: Coding,
    width: u16,
    height: u16,
    fps: u32,
}

impl Mode {
    fn max_frame_bytes(&self) -> u32 {
        u32::from(self.width) * u32::from(self.height) * 2
    }

    fn interval_100ns(&self) -> u32 {
        10_000_000 / self.fps
    }
}

/// Little-endian fields one after the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    /// As a descriptor: its length stands before it.
    fn sized(self) -> Vec<u8> {
        [&[self.0.len() as u8 + 1], &self.0[..]].concat()
    }
}

fn device_descriptor() -> Vec<u8> {
    // USB 2.0, a function of several interfaces; product and serial number are strings 2, 3.
    let ids = Bytes::default().bytes(&[1]).u16(0x200).bytes(&[0xef, 2, 1, 64]);
    ids.u16(0x1d6b).u16(0x0102).u16(0x0100).bytes(&[1, 2, 3, 1]).sized()
}

/// UVC 1.0, 3.7.2 and 3.9.2: a camera terminal, an output terminal, one format in one size.
fn configuration_descriptor(mode: &Mode) -> Vec<u8> {
    let class = |kind: u8, subtype: u8| Bytes::default().bytes(&[kind, subtype]);
    let camera = class(0x24, 2).bytes(&[1]).u16(0x0201).bytes(&[0; 8]).bytes(&[3, 0, 0, 0]).sized();
    let output = class(0x24, 3).bytes(&[2]).u16(0x0101).bytes(&[0, 1, 0]).sized();
    let total = 13 + camera.len() + output.len();
    let control = class(0x24, 1).u16(0x100).u16(total as u16).u32(48_000_000).bytes(&[1, 1]);
    let control = [control.sized(), camera, output].concat();

    let format = match mode.coding {
        Coding::Yuyv => class(0x24, 4)
            .bytes(&[1, 1])
            .bytes(b"YUY2\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71")
            .bytes(&[16, 1, 0, 0, 0, 0]),
        Coding::Mjpg => class(0x24, 6).bytes(&[1, 1, 0, 1, 0, 0, 0, 0]),
    };
    let frame_subtype = if mode.coding == Coding::Yuyv { 5 } else { 7 };
    let bits_per_s = mode.max_frame_bytes() * 8 * mode.fps;
    let frame = class(0x24, frame_subtype).bytes(&[1, 0]).u16(mode.width).u16(mode.height);
    let frame = frame.u32(bits_per_s).u32(bits_per_s).u32(mode.max_frame_bytes());
    let frame = frame.u32(mode.interval_100ns()).bytes(&[1]).u32(mode.interval_100ns()).sized();
    let colours = class(0x24, 13).bytes(&[1, 1, 4]).sized();
    let format = format.sized();
    let total = 14 + format.len() + frame.len() + colours.len();
    let stream = class(0x24, 1).bytes(&[1]).u16(total as u16);
    let stream = stream.bytes(&[0x81, 0, 2, 0, 0, 0, 1, 0]).sized();
    let stream = [stream, format, frame, colours].concat();

    let interface = |number: u8, endpoints: u8, subclass: u8| {
        Bytes::default().bytes(&[4, number, 0, endpoints, 0x0e, subclass, 0, 0]).sized()
    };
    let endpoint = Bytes::default().bytes(&[5, 0x81, 2]).u16(512).bytes(&[0]).sized();
    let association = Bytes::default().bytes(&[11, 0, 2, 0x0e, 3, 0, 0]).sized();
    let parts = [association, interface(0, 0, 1), control, interface(1, 1, 2), stream, endpoint];
    let parts = parts.concat();
    let whole = Bytes::default().bytes(&[2]).u16(9 + parts.len() as u16);
    [whole.bytes(&[2, 1, 0, 0x80, 250]).sized(), parts].concat()
}

fn string_descriptor(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().fold(Bytes::default().bytes(&[3]), Bytes::u16);
    units.sized()
}

/// UVC 1.0, 4.3.1.1: what a stream of the one mode there is would be like.
fn probe(mode: &Mode) -> Vec<u8> {
    let fields = Bytes::default().u16(0).bytes(&[1, 1]).u32(mode.interval_100ns());
    fields.bytes(&[0; 10]).u32(mode.max_frame_bytes()).u32(PAYLOAD).0
}

/// A camera that is plugged in.
struct Plugged {
    wire: UnixStream,
    mode: Mode,
    /// Bulk transfers that wait for picture: number, length.
    waiting: VecDeque<(u32, u32)>,
    newest: u32,
    /// The kernel may send the wish to forget a transfer before the transfer: by transfer.
    forgotten_early: HashMap<u32, u32>,
    frame: Vec<u8>,
    /// Of the frame that is on its way.
    sent: usize,
    end: usize,
    flags: u8,
    toggle: u8,
    due: Instant,
}

struct Faults {
    truncate: u32,
    flag: u32,
    stalled: bool,
}

fn plug(mode: Mode, jpeg: &[u8]) -> anyhow::Result<Plugged> {
    let (kernel, wire) = UnixStream::pair()?;
    let line = format!("{PORT} {} {} {SPEED}", kernel.as_raw_fd(), 0x10001);
    std::fs::write(format!("{CONTROLLER}/attach"), line).context("attach: is vhci_hcd loaded?")?;
    let row: Vec<u8> = (0..mode.width).flat_map(|x| [(x * 7) as u8, 128]).collect();
    let frame = match mode.coding {
        Coding::Yuyv => row.repeat(mode.height.into()),
        Coding::Mjpg => jpeg.to_vec(),
    };
    ensure!(!frame.is_empty(), "MJPG needs a JPEG");
    Ok(Plugged {
        wire,
        mode,
        waiting: VecDeque::new(),
        newest: 0,
        forgotten_early: HashMap::new(),
        frame,
        sent: 0,
        end: 0,
        flags: 0,
        toggle: 0,
        due: Instant::now(),
    })
}

impl Plugged {
    fn answer(&mut self, command: u32, number: u32, status: i32, data: &[u8], took: usize) {
        let mut message = Vec::with_capacity(48 + data.len());
        for field in [command, number, 0, 0, 0, status as u32, took as u32, 0, 0, 0, 0, 0] {
            message.extend(field.to_be_bytes());
        }
        message.extend_from_slice(data);
        // The kernel has let go: the next read says so.
        let _ = self.wire.write_all(&message);
    }

    /// One message of the kernel's.
    fn obey(&mut self, serial: &str) -> anyhow::Result<()> {
        let mut header = [0; 48];
        self.wire.read_exact(&mut header)?;
        let field = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (command, number, into_host, endpoint) = (field(0), field(4), field(12), field(16));
        if command == 2 {
            self.forget(field(20), number);
            return Ok(());
        }
        ensure!(command == 1, "USB/IP command {command}");
        let length = field(24);
        let mut data = vec![0; if into_host == 0 { length as usize } else { 0 }];
        self.wire.read_exact(&mut data)?;
        self.newest = self.newest.max(number);
        if let Some(wish) = self.forgotten_early.remove(&number) {
            self.answer(4, wish, UNLINKED, &[], 0);
        } else if endpoint != 0 {
            self.waiting.push_back((number, length));
        } else {
            match self.control(&header[40..], serial) {
                Some(reply) => {
                    let took = if into_host == 0 { data.len() } else { reply.len() };
                    self.answer(3, number, 0, &reply, took);
                }
                None => self.answer(3, number, STALLED, &[], 0),
            }
        }
        Ok(())
    }

    /// A transfer that was forgotten gets no answer of its own, or the kernel hangs up.
    fn forget(&mut self, transfer: u32, wish: u32) {
        let known = self.waiting.iter().position(|&(number, _)| number == transfer);
        match known {
            None if transfer > self.newest => {
                self.forgotten_early.insert(transfer, wish);
                return;
            }
            None => self.answer(4, wish, 0, &[], 0),
            Some(at) => {
                self.waiting.remove(at);
                self.answer(4, wish, UNLINKED, &[], 0);
            }
        }
        // The stream was stopped: the next one begins with a whole frame.
        self.end = 0;
    }

    /// The answer to a control request; none: refused.
    fn control(&self, setup: &[u8], serial: &str) -> Option<Vec<u8>> {
        let (kind, request, low, high, interface) =
            (setup[0], setup[1], setup[2], setup[3], setup[4]);
        let length = usize::from(u16::from_le_bytes([setup[6], setup[7]]));
        let mut reply = match (kind, request) {
            (0x80, 6) => match (high, low) {
                (1, _) => device_descriptor(),
                (2, _) => configuration_descriptor(&self.mode),
                (3, 0) => vec![4, 3, 9, 4],
                (3, 1) => string_descriptor("salientd"),
                (3, 2) => string_descriptor("Test camera on USB"),
                (3, _) => string_descriptor(serial),
                _ => return None,
            },
            (0x80..=0x82, 0) => vec![0, 0],
            (0x81, 10) => vec![0],
            // To the streaming interface: limits, current and default of probe and commit.
            (0xa1, 0x81..=0x84 | 0x87) if interface == 1 => probe(&self.mode),
            (0xa1, 0x85) if interface == 1 => vec![26, 0],
            (0xa1, 0x86) if interface == 1 => vec![3],
            // What is set has one value only.
            (0x00..=0x02 | 0x21, _) => return Some(Vec::new()),
            _ => return None,
        };
        reply.truncate(length);
        Some(reply)
    }

    /// Sends what is due into the transfers that wait.
    fn send(&mut self, faults: &mut Faults) {
        while !faults.stalled && !self.waiting.is_empty() && Instant::now() >= self.due {
            if self.end == 0 {
                self.begin(faults);
            }
            let Some((number, length)) = self.waiting.pop_front() else { return };
            let room = length.min(PAYLOAD) as usize - HEADER;
            let until = (self.sent + room).min(self.end);
            let is_last = until == self.end;
            let flags = 0x80 | self.flags | self.toggle | if is_last { 2 } else { 0 };
            let payload = [&[HEADER as u8, flags], &self.frame[self.sent..until]].concat();
            self.sent = until;
            self.answer(3, number, 0, &payload, payload.len());
            if is_last {
                self.end = 0;
                self.toggle ^= 1;
                self.due += Duration::from_secs(1) / self.mode.fps;
                self.due = self.due.max(Instant::now());
            }
        }
    }

    fn begin(&mut self, faults: &mut Faults) {
        let take = |left: &mut u32| std::mem::replace(left, left.saturating_sub(1)) > 0;
        self.sent = 0;
        self.end = if take(&mut faults.truncate) { self.frame.len() / 2 } else { self.frame.len() };
        self.flags = if take(&mut faults.flag) { 0x40 } else { 0 };
    }
}

fn unplug(camera: &mut Option<Plugged>) -> anyhow::Result<()> {
    if camera.take().is_some() {
        std::fs::write(format!("{CONTROLLER}/detach"), PORT.to_string()).context("detach")?;
    }
    Ok(())
}

fn act(
    line: &str,
    camera: &mut Option<Plugged>,
    faults: &mut Faults,
    jpeg: &[u8],
) -> anyhow::Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["plug", coding, width, height, fps] => {
            let coding = match coding {
                "YUYV" => Coding::Yuyv,
                "MJPG" => Coding::Mjpg,
                _ => bail!("no such format: {coding}"),
            };
            let (width, height, fps) = (width.parse()?, height.parse()?, fps.parse()?);
            *camera = Some(plug(Mode { coding, width, height, fps }, jpeg)?);
        }
        ["unplug"] => unplug(camera)?,
        ["truncate", frames] => faults.truncate = frames.parse()?,
        ["flag", frames] => faults.flag = frames.parse()?,
        ["stall", on] => faults.stalled = on == "on",
        _ => bail!("no such command: {line:?}"),
    }
    println!("uvc: {line}");
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let serial = arguments.next().context("usage: uvc SERIAL [JPEG]")?;
    let jpeg = arguments.next().map(std::fs::read).transpose()?.unwrap_or_default();
    let mut faults = Faults { truncate: 0, flag: 0, stalled: false };
    let mut camera: Option<Plugged> = None;
    let mut pending = Vec::new();
    loop {
        let stdin = std::io::stdin();
        let mut fds = vec![PollFd::new(&stdin, PollFlags::IN)];
        if let Some(camera) = &camera {
            fds.push(PollFd::new(&camera.wire, PollFlags::IN));
        }
        let wait = camera.as_ref().map_or(Duration::from_secs(1), |camera| {
            camera.due.saturating_duration_since(Instant::now())
        });
        // With nothing to send into, waiting for the kernel is enough.
        let idle = camera.as_ref().is_none_or(|camera| camera.waiting.is_empty());
        let wait = if idle || faults.stalled { Duration::from_secs(1) } else { wait };
        poll(&mut fds, Some(&Timespec::try_from(wait)?))?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            let mut chunk = [0; 256];
            let read = rustix::io::read(&stdin, &mut chunk)?;
            if read == 0 {
                return unplug(&mut camera);
            }
            pending.extend_from_slice(&chunk[..read]);
            while let Some(at) = pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=at).collect();
                act(String::from_utf8_lossy(&line).trim(), &mut camera, &mut faults, &jpeg)?;
            }
        } else if ready.get(1) == Some(&true)
            && let Some(plugged) = &mut camera
            && let Err(error) = plugged.obey(&serial)
        {
            println!("uvc: the kernel let go: {error}");
            camera = None;
        }
        if let Some(camera) = &mut camera {
            camera.send(&mut faults);
        }
    }
}
