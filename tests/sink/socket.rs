//! The socket sink and its clients.

use crate::material::{heatmap, published, small_heatmap};
use salientd::config::SocketConfig;
use salientd::sink::socket::{SocketSink, SocketStats};
use salientd::sink::wire::{Decoder, Header, Hello, Message, ModelEntry};
use salientd::sink::{CameraState, Sink};
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn config(path: &Path) -> SocketConfig {
    SocketConfig { path: path.into(), ..SocketConfig::default() }
}

pub fn model() -> ModelEntry {
    ModelEntry { name: "default".into(), sha256: "0123456789abcdef".repeat(4) }
}

pub fn open(config: &SocketConfig) -> SocketSink {
    SocketSink::open(config, model(), vec!["tench".into(), "church".into()]).unwrap()
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait_for_clients(stats: &Arc<SocketStats>, count: usize) {
    wait_until(&format!("{count} clients"), || stats.clients() == count);
}

/// A client that decodes what it reads.
struct Client {
    stream: UnixStream,
    decoder: Decoder,
}

impl Client {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: Decoder::default() }
    }

    /// The next message; `None` at the end of the connection.
    fn next(&mut self) -> Option<Message> {
        let mut piece = [0; 8192];
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            match self.stream.read(&mut piece).unwrap() {
                0 => return None,
                taken => self.decoder.feed(&piece[..taken]),
            }
        }
    }

    fn hello(&mut self) -> Hello {
        match self.next() {
            Some(Message { header: Header::Hello(hello), .. }) => hello,
            other => panic!("{other:?} instead of hello"),
        }
    }

    fn sequence(&mut self) -> u64 {
        match self.next() {
            Some(Message { header: Header::Heatmap(heatmap), .. }) => heatmap.sequence,
            other => panic!("{other:?} instead of a heatmap"),
        }
    }

    /// Sequence numbers of all heatmaps up to the end of the connection.
    fn sequences(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.next())
            .filter_map(|message| match message.header {
                Header::Heatmap(heatmap) => Some(heatmap.sequence),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn every_message_comes_as_it_was_published() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut sink = open(&config(&path));
    let away = CameraState { running: false, reason: "/dev/video0: no such device".into() };
    sink.camera(&away).unwrap();
    let mut client = Client::connect(&path);
    let hello = client.hello();
    assert_eq!((hello.protocol, hello.model, hello.classes.len()), (1, model(), 2));
    assert_eq!(hello.server, format!("salientd {}", env!("CARGO_PKG_VERSION")));
    assert_eq!((hello.camera.running, hello.camera.reason), (false, away.reason));

    sink.camera(&CameraState { running: true, reason: String::new() }).unwrap();
    let mut sent = heatmap(7);
    sent.values[..4].copy_from_slice(&[-0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0]);
    sent.classes[0].logit = f32::NAN;
    sink.publish(&published(sent.clone())).unwrap();
    assert!(matches!(client.next().unwrap().header, Header::Camera(state) if state.running));
    let message = client.next().unwrap();
    let Header::Heatmap(header) = message.header else { panic!("no heatmap") };
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&message.values), bits(&sent.values));
    assert_eq!(header.shape, [149, 149, 1]);
    assert_eq!((header.sequence, header.covers, header.picture), (7, sent.covers, sent.picture));
    assert_eq!(header.captured, "2026-11-23T12:16:24.000042000Z");
    assert_eq!(header.captured_unix_ns, 1_795_436_184_000_042_000);
    assert_eq!((header.classes[0].index, header.classes[0].logit), (3, None));
    assert_eq!(header.classes[0].probability, Some(0.93));
    assert_eq!((header.views.len(), header.views[7].scale, header.views[7].hflip), (8, 2.0, true));
    assert_eq!((header.spent_ms, &*header.model_sha256), (Some(412.5), &*sent.model_sha256));
    sink.finish().unwrap();
    assert_eq!(client.next(), None);
    assert!(!path.exists(), "the socket file stays");
}

#[test]
fn a_client_that_does_not_read_loses_messages_and_nobody_else_does() {
    const HEATMAPS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut sink = open(&config(&path));
    let stats = sink.stats();
    let mut slow = Client::connect(&path);
    let mut quick = Client::connect(&path);
    quick.hello();
    wait_for_clients(&stats, 2);
    for sequence in 0..HEATMAPS {
        // 89 kB each: the kernel's buffer for the slow client is full after two or three.
        sink.publish(&published(heatmap(sequence))).unwrap();
        assert_eq!(quick.sequence(), sequence);
    }
    let lost = stats.dropped();
    assert!(lost > HEATMAPS / 2, "{lost} lost");
    slow.hello();
    let reader = std::thread::spawn(move || slow.sequences());
    wait_until("all is sent", || stats.sent() + lost == 2 * HEATMAPS + 2);
    sink.finish().unwrap();
    let came = reader.join().unwrap();
    assert_eq!(came.len() as u64, HEATMAPS - lost);
    assert!(came.is_sorted());
    // The newest are there, as many as the ring holds.
    assert_eq!(came[came.len() - 4..], [196, 197, 198, 199]);
    assert_eq!(stats.dropped(), lost);
}

#[test]
fn two_hundred_clients_come_and_go() {
    const PLACES: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut sink = open(&SocketConfig { max_clients: PLACES, ..config(&path) });
    let stats = sink.stats();
    let mut stays = Client::connect(&path);
    stays.hello();
    wait_for_clients(&stats, 1);
    let mut refused = 0;
    for round in 0..200 {
        let mut client = Client::connect(&path);
        sink.publish(&published(small_heatmap(round))).unwrap();
        match client.next().map(|message| message.header) {
            Some(Header::Hello(_)) => {}
            Some(Header::Refused(refusal)) => {
                assert_eq!(refusal.reason, "all 8 places for clients are taken");
                assert_eq!(client.next(), None);
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(stays.sequence(), round);
    }
    wait_for_clients(&stats, 1);
    assert_eq!(stats.refused(), refused);
    sink.publish(&published(small_heatmap(1000))).unwrap();
    assert_eq!(stays.sequence(), 1000);
}

#[test]
fn one_client_too_many_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let sink = open(&SocketConfig { max_clients: 2, ..config(&path) });
    let mut clients = [Client::connect(&path), Client::connect(&path)];
    clients.iter_mut().for_each(|client| drop(client.hello()));
    let mut third = Client::connect(&path);
    let Some(Message { header: Header::Refused(refusal), .. }) = third.next() else {
        panic!("not refused")
    };
    assert_eq!(refusal.reason, "all 2 places for clients are taken");
    assert_eq!(third.next(), None);
    assert_eq!(sink.stats().refused(), 1);
    // A place that becomes free is given again.
    drop(clients);
    wait_for_clients(&sink.stats(), 0);
    Client::connect(&path).hello();
}

#[test]
fn what_clients_write_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut sink = open(&config(&path));
    let mut client = Client::connect(&path);
    client.hello();
    let garbage: Vec<u8> = (0..100_000u32).map(|i| ((i * 7919) >> 3) as u8).collect();
    client.stream.write_all(&garbage).unwrap();
    // Nor does a client that will write no more, such as `nc` at the end of its input.
    client.stream.shutdown(Shutdown::Write).unwrap();
    for sequence in 0..50 {
        sink.publish(&published(small_heatmap(sequence))).unwrap();
        assert_eq!(client.sequence(), sequence);
    }
    assert_eq!(sink.stats().clients(), 1);
}

#[test]
fn the_end_comes_soon_even_if_a_client_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut sink = open(&config(&path));
    let stats = sink.stats();
    let _stuck = Client::connect(&path);
    wait_for_clients(&stats, 1);
    for sequence in 0..50 {
        sink.publish(&published(heatmap(sequence))).unwrap();
    }
    let before = Instant::now();
    sink.finish().unwrap();
    assert!(before.elapsed() < PATIENCE);
    assert!(UnixStream::connect(&path).is_err());
    let error = sink.publish(&published(small_heatmap(0))).unwrap_err().to_string();
    assert_eq!(error, format!("publish on {}: the serving thread has ended", path.display()));
}

#[test]
fn the_socket_file_has_the_configured_mode() {
    let dir = tempfile::tempdir().unwrap();
    for (mode, bits) in [("0660", 0o660), ("0600", 0o600), ("0666", 0o666)] {
        let path = dir.path().join(mode);
        let _sink = open(&SocketConfig { mode: mode.into(), ..config(&path) });
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, bits, "{mode}");
    }
}

#[test]
fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _sink = open(&config(&path));
    Client::connect(&path).hello();
}

/// Whoever may read a directory may lock it.
#[test]
fn a_lock_on_the_directory_keeps_nobody_from_listening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let directory = fs::File::open(dir.path()).unwrap();
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let sink = open(&config(&path));
    Client::connect(&path).hello();
    drop(sink);
    // What we lock nobody else may open.
    let lock = dir.path().join(".s.lock");
    assert_eq!(fs::metadata(&lock).unwrap().permissions().mode() & 0o777, 0o600);
    let held = fs::File::open(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let Err(error) = SocketSink::open(&config(&path), ModelEntry::default(), Vec::new()) else {
        panic!("two at once")
    };
    let said = format!("another process keeps {} locked; stop it", lock.display());
    assert!(error.to_string().contains(&said), "{error}");
}

#[test]
fn a_socket_file_that_is_not_ours_any_more_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let sink = open(&config(&path));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody else's").unwrap();
    drop(sink);
    assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
}

#[test]
fn what_stands_in_the_way_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let _living = UnixListener::bind(at("living")).unwrap();
    fs::write(at("file"), "").unwrap();
    let long = "x".repeat(120);
    let cases = [
        // Another process's: tests/daemon.rs.
        (
            "living",
            "a sink of this daemon still listens there, another one or that of the old configuration; set sink.socket.path or reload again",
        ),
        ("file", "exists and is not a socket; remove it or set sink.socket.path"),
        (
            "no/s",
            "cannot listen: No such file or directory (os error 2); create the directory or set sink.socket.path",
        ),
        (&long, "longer than the 107 bytes that a socket path may have; set sink.socket.path"),
    ];
    let fails = |config: &SocketConfig| {
        SocketSink::open(config, model(), vec![]).err().expect("opened").to_string()
    };
    for (name, message) in cases {
        let path = at(name);
        assert_eq!(fails(&config(&path)), format!("sink.socket: {}: {message}", path.display()));
    }
    let wrong = SocketConfig { mode: "rw".into(), ..config(&at("s")) };
    assert_eq!(
        fails(&wrong),
        "sink.socket: mode \"rw\" is not an octal file mode from 0000 to 0777"
    );
    assert!(at("living").exists() && at("file").exists());
}

#[test]
fn an_inherited_socket_is_served_and_its_file_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    // Clients may come before the daemon does: that is what activation is for.
    let mut early = Client::connect(&path);
    let mut sink = SocketSink::from_listener(listener, &config(&path), model(), vec![]).unwrap();
    early.hello();
    sink.publish(&published(small_heatmap(5))).unwrap();
    assert_eq!(early.sequence(), 5);
    sink.finish().unwrap();
    assert!(path.exists());
}
