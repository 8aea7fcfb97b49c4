//! `salientd watch`: the socket's messages in a terminal.

use super::args::WatchArgs;
use crate::heatmap::{colormap, view_text};
use crate::sink::wire::{
    CameraHeader, Decoder, EventHeader, Header, HeatmapHeader, Hello, Message, ViewEntry, WireError,
};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pause before a connection is tried again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(1);
const PIECE_BYTES: usize = 64 << 10;
/// The map in the terminal, in characters; each shows two values, one above the other.
const MAP_COLUMNS: usize = 32;
const MAP_ROWS: usize = 16;

/// Why watching cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("{}: {source}", path.display())]
    Wire { path: PathBuf, source: WireError },
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// The command.
pub fn run(args: &WatchArgs) -> anyhow::Result<()> {
    Ok(watch(&args.socket, args.json, &mut io::stdout().lock())?)
}

/// Writes one line for each message of the socket at `path` until `out` is closed, and
/// connects again whenever the daemon goes away. With `json`, the line is the message's
/// header as it came; without, it is for people, and where standard output is a terminal
/// the newest map is drawn below.
pub fn watch(path: &Path, json: bool, out: &mut impl Write) -> Result<(), WatchError> {
    let mut screen = Screen { json, map: !json && io::stdout().is_terminal(), drawn_rows: 0 };
    let mut told = String::new();
    loop {
        match attempt(path, &mut told, &mut screen, out) {
            Ok(()) => std::thread::sleep(RECONNECT_AFTER),
            Err(Stop::Reader) => return Ok(()),
            Err(Stop::Output(error)) => return Err(error.into()),
            Err(Stop::Wire(source)) => return Err(WatchError::Wire { path: path.into(), source }),
        }
    }
}

/// One connection, or why there is none, which is told once.
fn attempt(
    path: &Path,
    told: &mut String,
    screen: &mut Screen,
    out: &mut impl Write,
) -> Result<(), Stop> {
    let why = match UnixStream::connect(path) {
        Ok(stream) => {
            told.clear();
            follow(stream, screen, out)?
        }
        Err(error) => error.to_string(),
    };
    if *told != why {
        screen.notice(&format!("{}: {why}; waiting", path.display()), out)?;
        *told = why;
    }
    Ok(())
}

/// Why watching ends.
#[derive(Debug)]
enum Stop {
    /// Whoever read our output has left, as `head` does.
    Reader,
    Output(io::Error),
    Wire(WireError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Reader,
            _ => Self::Output(error),
        }
    }
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// Shows what one connection says. Returns why it ended, if another may be tried.
fn follow(
    mut stream: UnixStream,
    screen: &mut Screen,
    out: &mut impl Write,
) -> Result<String, Stop> {
    let mut decoder = Decoder::default();
    let mut piece = vec![0; PIECE_BYTES];
    if let Err(error) = stream.set_read_timeout(Some(READ_TIMEOUT)) {
        return Ok(error.to_string());
    }
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok("the daemon closed the connection".into()),
            Ok(taken) => decoder.feed(&piece[..taken]),
            Err(error) if is_idle(&error) => continue,
            Err(error) => return Ok(error.to_string()),
        }
        while let Some(message) = decoder.next_message()? {
            if let Header::Refused(refused) = &message.header {
                return Ok(format!("refused: {}", printable(&refused.reason)));
            }
            screen.show(&message, out)?;
        }
        out.flush()?;
    }
}

fn is_idle(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// Where lines and the map go.
struct Screen {
    json: bool,
    map: bool,
    /// Rows of the map that stand below the last line.
    drawn_rows: usize,
}

impl Screen {
    fn show(&mut self, message: &Message, out: &mut impl Write) -> io::Result<()> {
        if self.json {
            return match message.header {
                Header::Unknown => Ok(()),
                _ => writeln!(out, "{}", serde_json::to_string(&message.header)?),
            };
        }
        match &message.header {
            Header::Hello(hello) => self.line(&hello_line(hello), out),
            Header::Camera(camera) => self.line(&camera_line(camera), out),
            Header::Heatmap(heatmap) => {
                self.line(&heatmap_line(heatmap), out)?;
                if self.map { self.draw(heatmap, &message.values, out) } else { Ok(()) }
            }
            Header::Event(event) => self.line(&event_line(event), out),
            Header::Mean(_) | Header::Refused(_) | Header::Unknown => Ok(()),
        }
    }

    /// What is not a message, for people only.
    fn notice(&mut self, text: &str, out: &mut impl Write) -> io::Result<()> {
        if self.json {
            log::warn!("{text}");
            return Ok(());
        }
        self.line(text, out)?;
        out.flush()
    }

    /// A line above the place of the map.
    fn line(&mut self, text: &str, out: &mut impl Write) -> io::Result<()> {
        if self.drawn_rows > 0 {
            // Up over the map, and clear from there.
            write!(out, "\x1b[{}A\x1b[J", self.drawn_rows)?;
            self.drawn_rows = 0;
        }
        writeln!(out, "{text}")
    }

    fn draw(
        &mut self,
        heatmap: &HeatmapHeader,
        values: &[f32],
        out: &mut impl Write,
    ) -> io::Result<()> {
        let rows = map_rows(heatmap.shape, values);
        for row in &rows {
            writeln!(out, "{row}\x1b[0m")?;
        }
        self.drawn_rows = rows.len();
        Ok(())
    }
}

fn hello_line(hello: &Hello) -> String {
    let Hello { server, model, classes, camera, .. } = hello;
    let sha: String = printable(&model.sha256).chars().take(12).collect();
    let (server, model) = (printable(server), printable(&model.name));
    let classes = classes.len();
    format!("{server}, model {model} ({sha}), {classes} classes, {}", camera_line(camera))
}

fn event_line(event: &EventHeader) -> String {
    let EventHeader { change, rule, zone, side, class, share, .. } = event;
    let what = format!("rule {rule} {}", change.as_str());
    match class.as_ref().zip(*share) {
        Some((class, share)) => {
            let percent = share * 100.0;
            format!("{what}: {percent:.0} % of {} {} {zone}", class.label, side.as_str())
        }
        None => what,
    }
}

fn camera_line(camera: &CameraHeader) -> String {
    if camera.running {
        return "camera running".into();
    }
    format!("camera away: {}", printable(&camera.reason))
}

/// `12:16:17  tench p=0.93  church p=0.05  [1 0.5f 1f@1.2s]  31 of 40 ms  #42`: the views
/// with their ages, the time and the budget.
fn heatmap_line(heatmap: &HeatmapHeader) -> String {
    let number = |value: Option<f32>| value.map_or("?".into(), |value| format!("{value:.2}"));
    let classes: String = heatmap
        .classes
        .iter()
        .take(3)
        .map(|class| format!("{} p={}  ", printable(&class.label), number(class.probability)))
        .collect();
    let time = printable(heatmap.captured.get(11..19).unwrap_or("?"));
    let spent_ms = heatmap.spent_ms.map_or("?".into(), |ms| format!("{ms:.0}"));
    let budget = heatmap.budget_ms.map_or(String::new(), |ms| format!(" of {ms:.0}"));
    let view =
        |view: &ViewEntry| view_text(view.scale, view.hflip, view.age_ms.unwrap_or_default());
    let views = heatmap.views.iter().map(view).collect::<Vec<_>>().join(" ");
    let heat = heatmap.heat_factor.filter(|&factor| factor < 1.0);
    let heat = heat.map_or(String::new(), |factor| format!(" (heat: {:.0} %)", 100.0 * factor));
    format!("{time}  {classes}[{views}]  {spent_ms}{budget} ms{heat}  #{}", heatmap.sequence)
}

/// The text without what would steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The first class's map as lines of half blocks in 24-bit colours.
fn map_rows([height, width, classes]: [usize; 3], values: &[f32]) -> Vec<String> {
    if values.is_empty() {
        return Vec::new();
    }
    let table = colormap::table(crate::config::Colormap::Turbo);
    let map: Vec<f32> = values.iter().step_by(classes).copied().collect();
    let peak = crate::heatmap::region::peak(&map).max(f32::MIN_POSITIVE);
    let colour = |row: usize, column: usize| {
        let y = (row * 2 + 1) * height / (MAP_ROWS * 4);
        let x = (column * 2 + 1) * width / (MAP_COLUMNS * 2);
        let [r, g, b] = table[(map[y * width + x] / peak * 255.0) as u8 as usize];
        format!("{r};{g};{b}")
    };
    let cell = |row: usize, column| {
        format!("\x1b[38;2;{};48;2;{}m▀", colour(row * 2, column), colour(row * 2 + 1, column))
    };
    (0..MAP_ROWS).map(|row| (0..MAP_COLUMNS).map(|column| cell(row, column)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Rect;
    use crate::sink::wire::{ClassEntry, ModelEntry, Refused, encode};

    fn heatmap() -> HeatmapHeader {
        let class = |label: &str, probability| ClassEntry {
            index: 0,
            label: label.into(),
            logit: None,
            probability,
        };
        let view =
            ViewEntry { scale: 1.0, hflip: false, weight: 1.0, spent_ms: None, age_ms: None };
        let kept = ViewEntry { scale: 0.5, hflip: true, age_ms: Some(98.0), ..view.clone() };
        HeatmapHeader {
            sequence: 42,
            captured: "2026-11-23T12:16:17.000042000Z".into(),
            captured_unix_ns: 0,
            picture: [4, 4],
            covers: Rect::full(4, 4),
            dtype: "<f4".into(),
            shape: [2, 2, 2],
            classes: vec![class("tench\x1b[2J", Some(0.934)), class("church", None)],
            views: vec![view.clone(), kept],
            zones: Vec::new(),
            spent_ms: Some(412.4),
            budget_ms: Some(500.0),
            heat_factor: Some(0.75),
            model_sha256: "00".into(),
        }
    }

    fn hello() -> Hello {
        let model = ModelEntry { name: "default".into(), sha256: "0123456789abcdef".into() };
        let (server, classes) = ("salientd 0.1.0".into(), vec!["tench".into()]);
        let camera = CameraHeader { running: false, reason: "starting".into() };
        Hello { protocol: 1, server, model, classes, camera }
    }

    /// What is shown of a connection that says `messages` and then ends.
    fn shown(
        messages: &[(Header, Vec<f32>)],
        json: bool,
        map: bool,
    ) -> (String, Result<String, Stop>) {
        let (mut daemon, client) = UnixStream::pair().unwrap();
        for (header, values) in messages {
            daemon.write_all(&encode(header, values).unwrap()).unwrap();
        }
        drop(daemon);
        let mut out = Vec::new();
        let ended = follow(client, &mut Screen { json, map, drawn_rows: 0 }, &mut out);
        (String::from_utf8(out).unwrap(), ended)
    }

    #[test]
    fn one_line_for_each_message() {
        let running = CameraHeader { running: true, reason: String::new() };
        let messages = [
            (Header::Hello(hello()), vec![]),
            (Header::Camera(running), vec![]),
            (Header::Heatmap(heatmap()), vec![0.5; 8]),
        ];
        let (text, ended) = shown(&messages, false, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "salientd 0.1.0, model default (0123456789ab), 1 classes, camera away: starting",
                "camera running",
                "12:16:17  tench\u{fffd}[2J p=0.93  church p=?  [1 0.5f@98ms]  412 of 500 ms (heat: 75 %)  #42",
            ]
        );
        assert_eq!(ended.unwrap(), "the daemon closed the connection");

        let (text, _) = shown(&messages, true, false);
        for (line, (header, _)) in text.lines().zip(&messages) {
            assert_eq!(&serde_json::from_str::<Header>(line).unwrap(), header);
        }
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn the_map_is_drawn_below_the_newest_line_only() {
        let values = vec![0.0, 0.0, 1.0, 0.0, f32::NAN, 0.0, -1.0, 0.0];
        let message = (Header::Heatmap(heatmap()), values);
        let (text, _) = shown(&[message.clone(), message], false, true);
        assert_eq!(text.matches('▀').count(), 2 * MAP_ROWS * MAP_COLUMNS);
        assert_eq!(text.matches("\x1b[16A\x1b[J").count(), 1);
        let first = text.lines().nth(1).unwrap();
        // Cold on the left, hot on the right.
        assert!(first.starts_with("\x1b[38;2;48;18;59;48;2;48;18;59m▀"));
        assert!(first.ends_with("\x1b[38;2;122;4;3;48;2;122;4;3m▀\x1b[0m"));
    }

    #[test]
    fn an_end_that_may_pass_is_told_and_a_stranger_is_an_error() {
        let refused = Header::Refused(Refused { reason: "all 2 places are taken".into() });
        let (_, ended) = shown(&[(refused, vec![])], false, false);
        assert_eq!(ended.unwrap(), "refused: all 2 places are taken");
        let (mut daemon, client) = UnixStream::pair().unwrap();
        daemon.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        let mut screen = Screen { json: false, map: false, drawn_rows: 0 };
        let ended = follow(client, &mut screen, &mut Vec::new());
        assert!(matches!(ended, Err(Stop::Wire(WireError::Magic(magic))) if &magic == b"HTTP"));
    }

    #[test]
    fn a_reader_that_leaves_ends_it() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let nowhere = Path::new("/nonexistent/salientd.sock");
        assert!(matches!(watch(nowhere, false, &mut Closed), Ok(())));
    }
}
