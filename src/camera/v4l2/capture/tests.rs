use super::super::colour::Colour;
use super::*;
use std::collections::VecDeque;

/// A driver that plays a script and minds who owns which buffer.
#[derive(Default)]
struct Driver {
    script: VecDeque<Event>,
    /// Indices of buffers that were dequeued and not given back.
    out: Vec<u32>,
    content: Vec<u8>,
    requeue_fails: bool,
}

enum Event {
    /// A wait ends with the buffers up to the next event.
    Ready,
    Buffer(Filled),
    Timeout,
    Error(i32),
}

impl Queue for Driver {
    fn wait(&mut self, _timeout: Duration) -> io::Result<bool> {
        match self.script.pop_front() {
            Some(Event::Ready) => Ok(true),
            Some(Event::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(false),
        }
    }

    fn dequeue(&mut self) -> io::Result<Option<Filled>> {
        match self.script.front() {
            Some(Event::Buffer(filled)) => {
                let filled = *filled;
                self.script.pop_front();
                assert!(!self.out.contains(&filled.index), "dequeued twice");
                self.out.push(filled.index);
                Ok(Some(filled))
            }
            _ => Ok(None),
        }
    }

    fn requeue(&mut self, filled: &Filled) -> io::Result<()> {
        assert!(self.out.contains(&filled.index), "queued while the driver has it");
        if self.requeue_fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.out.retain(|&index| index != filled.index);
        Ok(())
    }

    fn plane(&self, filled: &Filled, plane: usize) -> &[u8] {
        let (offset, used) = filled.used[plane];
        self.content.get(offset as usize..(offset + used) as usize).unwrap_or(&[])
    }
}

fn format(code: &FourCc, width: u32, height: u32, strides: &[u32]) -> Format {
    let colour = Colour::default();
    Format { code: *code, width, height, strides: strides.to_vec(), colour }
}

fn grey_plan() -> Plan {
    Plan::new(&format(b"GREY", 2, 2, &[2])).unwrap()
}

fn buffer(index: u32, sequence: u32, used: u32) -> Event {
    let used = [(0, used), (0, 0), (0, 0)];
    Event::Buffer(Filled { index, sequence, used, ..Filled::default() })
}

fn flagged(index: u32, sequence: u32) -> Event {
    let used = [(0, 4), (0, 0), (0, 0)];
    Event::Buffer(Filled { index, sequence, used, flagged: true, timestamp: None })
}

/// Plays the script to its end; the sequence numbers that came out, and the counts
/// `[frames, skipped, lost, bad]`.
fn check(name: &str, script: Vec<Event>, expected: &[u32], counts: [u64; 4]) {
    let mut driver =
        Driver { script: script.into(), content: vec![1, 2, 3, 4], ..Driver::default() };
    let (mut account, mut out, mut got) = (Account::default(), vec![9; 7], Vec::new());
    while !driver.script.is_empty() {
        let timeout = Duration::from_secs(60);
        match newest(&mut driver, &grey_plan(), &mut account, timeout, &mut out) {
            Ok(Some(filled)) => {
                assert_eq!(out, [1, 2, 3, 4], "{name}");
                got.push(filled.sequence);
            }
            Ok(None) => {}
            Err(error) => panic!("{name}: {error}"),
        }
        assert!(driver.out.is_empty(), "{name}: buffers {:?} were kept", driver.out);
    }
    let CameraCounters { frames, skipped, lost, bad } = account.counters;
    assert_eq!(got, expected, "{name}");
    assert_eq!([frames, skipped, lost, bad], counts, "{name}");
}

#[test]
fn the_newest_good_frame_wins_and_every_buffer_goes_back() {
    use Event::{Ready, Timeout};
    check(
        "one at a time",
        vec![Ready, buffer(0, 0, 4), Ready, buffer(1, 1, 4)],
        &[0, 1],
        [2, 0, 0, 0],
    );
    let waiting = vec![Ready, buffer(0, 0, 4), buffer(1, 1, 4), buffer(2, 2, 4)];
    check("three wait", waiting, &[2], [1, 2, 0, 0]);
    check("flagged", vec![Ready, flagged(0, 0), Ready, buffer(1, 1, 4)], &[1], [1, 0, 0, 1]);
    check("flagged newest", vec![Ready, buffer(0, 0, 4), flagged(1, 1)], &[0], [1, 0, 0, 1]);
    check("short", vec![Ready, buffer(0, 0, 3), Ready, buffer(0, 1, 4)], &[1], [1, 0, 0, 1]);
    check("empty", vec![Ready, buffer(0, 0, 0), Timeout], &[], [0, 0, 0, 1]);
    check("more than was mapped", vec![Ready, buffer(0, 0, 9), Timeout], &[], [0, 0, 0, 1]);
    check("gap", vec![Ready, buffer(0, 5, 4), Ready, buffer(1, 9, 4)], &[5, 9], [2, 0, 3, 0]);
    let wrap = vec![Ready, buffer(0, u32::MAX, 4), Ready, buffer(1, 1, 4)];
    check("numbers wrap", wrap, &[u32::MAX, 1], [2, 0, 1, 0]);
    check(
        "starts over",
        vec![Ready, buffer(0, 50, 4), Ready, buffer(1, 0, 4)],
        &[50, 0],
        [2, 0, 0, 0],
    );
    check("woken for nothing", vec![Ready, Ready, buffer(0, 0, 4)], &[0], [1, 0, 0, 0]);
    check("stall, then on", vec![Timeout, Ready, buffer(0, 0, 4)], &[0], [1, 0, 0, 0]);
}

#[test]
fn errors_of_the_driver_come_through() {
    let newest = |driver: &mut Driver| {
        let mut account = Account::default();
        newest(driver, &grey_plan(), &mut account, Duration::from_secs(60), &mut Vec::new())
    };
    let mut gone = Driver { script: vec![Event::Error(19)].into(), ..Driver::default() };
    assert_eq!(newest(&mut gone).unwrap_err().raw_os_error(), Some(19));
    let script = vec![Event::Ready, buffer(0, 0, 4)].into();
    let content = vec![0; 4];
    let mut broken = Driver { script, content, requeue_fails: true, ..Driver::default() };
    assert_eq!(newest(&mut broken).unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn planes_in_separate_buffers_make_one_frame() {
    let luma = [1, 2, 9, 9, 3, 4, 9, 9];
    let chroma = [5, 6, 9];
    type Case<'a> = (&'a FourCc, &'a [u32], &'a [&'a [u8]], u32, &'a [u8]);
    let cases: [Case<'_>; 6] = [
        (b"NV12", &[2], &[&[1, 2, 3, 4, 5, 6, 77]], 2, &[1, 2, 3, 4, 5, 6]),
        (b"NM12", &[2, 2], &[&[1, 2, 3, 4], &[5, 6]], 2, &[1, 2, 3, 4, 5, 6]),
        (b"NM12", &[4, 3], &[&luma, &chroma], 4, &[1, 2, 9, 9, 3, 4, 0, 0, 5, 6]),
        (b"YM12", &[2, 1, 1], &[&[1, 2, 3, 4], &[5], &[6]], 2, &[1, 2, 3, 4, 5, 6]),
        (b"YM12", &[4, 8, 8], &[&luma, &[5, 9], &[6, 9]], 4, &[1, 2, 9, 9, 3, 4, 0, 0, 5, 0, 6]),
        (b"GREY", &[0], &[&[1, 2, 3, 4]], 2, &[1, 2, 3, 4]),
    ];
    for (code, strides, planes, stride, expected) in cases {
        let plan = Plan::new(&format(code, 2, 2, strides)).unwrap();
        assert_eq!(plan.layout.stride_bytes, stride, "{strides:?}");
        let mut out = Vec::new();
        assert!(plan.gather(|index| planes[index], &mut out), "{strides:?}");
        let shown = &out[..plan.layout.min_bytes() as usize];
        assert_eq!(shown, expected, "{} {strides:?}", name(*code));
        let short = |index: usize| {
            &planes[index][..planes[index].len().min(plan.planes[index].min_bytes() - 1)]
        };
        assert!(!plan.gather(short, &mut out), "short {strides:?}");
    }
}

#[test]
fn a_format_that_makes_no_sense_is_named() {
    for (format, expected) in [
        (format(b"H264", 640, 480, &[0]), "format H264 is not one we read"),
        (format(b"YUYV", 0, 480, &[0]), "0x480, each side must be 1 to 8192 pixels"),
        (format(b"YUYV", 640, 9000, &[0]), "640x9000, each side must be 1 to 8192 pixels"),
        (format(b"NM12", 640, 480, &[640]), "1 planes of NM12, expected 2"),
        (format(b"GREY", 64, 48, &[u32::MAX]), "a stride of 4294967295 bytes for 64 pixels"),
    ] {
        assert_eq!(Plan::new(&format).unwrap_err(), expected);
    }
}
