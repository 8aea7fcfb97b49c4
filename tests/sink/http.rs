//! The `http` sink from outside: real connections, good ones and bad ones.

use super::material::{class, heatmap, picture, published, small_heatmap, spot};
use salientd::config::{HttpConfig, OverlayConfig, Side, SocketConfig, ZoneConfig};
use salientd::health::Health;
use salientd::heatmap::mean::MeanMaps;
use salientd::heatmap::{Heatmap, ViewReport};
use salientd::rules::{Change, Event};
use salientd::sink::http::{About, HttpSink};
use salientd::sink::inherited::Inherited;
use salientd::sink::socket::SocketSink;
use salientd::sink::wire::ModelEntry;
use salientd::sink::{CameraState, LivePicture, Sink};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(60);

/// A sink that serves, with the address to reach it at.
struct Served {
    sink: HttpSink,
    address: String,
}

fn serve(change: impl FnOnce(&mut HttpConfig)) -> Served {
    serve_with(change, about())
}

fn serve_with(change: impl FnOnce(&mut HttpConfig), about: About) -> Served {
    let mut config = HttpConfig { listen: "127.0.0.1:0".into(), ..HttpConfig::default() };
    change(&mut config);
    let sink = open_with(&config, about).unwrap();
    let address = sink.address().trim_start_matches("http://").trim_end_matches('/').to_string();
    Served { sink, address }
}

fn open(config: &HttpConfig) -> Result<HttpSink, String> {
    open_with(config, about())
}

fn open_with(config: &HttpConfig, about: About) -> Result<HttpSink, String> {
    HttpSink::open(config, &OverlayConfig::default(), about, &Inherited::default())
        .map_err(|error| error.to_string())
}

fn zone() -> ZoneConfig {
    ZoneConfig { name: "gate".into(), polygon: vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]] }
}

fn about() -> About {
    let about = About {
        model: ModelEntry { name: "tiny \"one\"".into(), sha256: "00ff".into() },
        classes: vec!["tench".into(), "church".into()],
        zones: vec![zone()],
        rules: vec!["a".into(), "quiet".into()],
        means: None,
        health: Arc::new(Health::new(Instant::now())),
        config: Arc::new(Mutex::new("[camera]\n".into())),
        started: Instant::now(),
    };
    about.health.counters.frames.add(7);
    about.health.counters.sink("http").published.add(3);
    about
}

/// An answer: status, head and body.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(mut from: impl Read) -> Self {
        let mut all = Vec::new();
        // A reset after the answer does not take it back.
        let _ = from.read_to_end(&mut all);
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_ascii_lowercase(), body: all[end..].to_vec() }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes and reads until the other side closes.
fn send(address: &str, request: &str) -> Answer {
    let mut stream = connect(address);
    // A request that is too large is refused before all of it is sent.
    let _ = stream.write_all(request.as_bytes());
    Answer::read(stream)
}

fn ask(address: &str, line: &str, headers: &str) -> Answer {
    send(
        address,
        &format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n"),
    )
}

fn get(address: &str, path: &str) -> Answer {
    ask(address, &format!("GET {path}"), "")
}

fn two_classes(sequence: u64) -> Heatmap {
    let (first, second) = (spot(16, 16, 0.3, 0.3), spot(16, 16, 0.8, 0.8));
    let values = first.into_iter().zip(second).flat_map(|(a, b)| [a, b]).collect();
    let classes = vec![class(7, "church", 0.75), class(2, "tench", 0.2)];
    Heatmap { height: 16, width: 16, values, classes, ..heatmap(sequence) }
}

/// The value of a metric, or of all of its kind.
fn metric(address: &str, name: &str) -> f64 {
    let text = get(address, "/metrics");
    let values = text.text().lines().filter_map(|line| {
        let rest = line.strip_prefix("salientd_")?.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    values.sum()
}

/// Waits until a metric has this value.
fn wait_metric(address: &str, name: &str, value: f64) {
    let deadline = Instant::now() + PATIENCE;
    while metric(address, name) != value {
        assert!(Instant::now() < deadline, "{name} is {}, not {value}", metric(address, name));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_request_gets_its_status() {
    let mut served = serve(|_| {});
    let a = served.address.clone();
    for path in ["/healthz", "/snapshot.jpg", "/heatmap.png", "/heatmap.npy"] {
        assert_eq!(get(&a, path).status, 503, "{path} before the first heatmap");
    }
    assert_eq!(get(&a, "/healthz").text(), "no heatmap yet; camera away: starting\n");
    // A page from elsewhere that calls this machine by a name of its own.
    let elsewhere = |path: &str| {
        let host = "Host: evil.example\r\nConnection: close";
        send(&a, &format!("GET {path} HTTP/1.1\r\n{host}\r\n\r\n"))
    };
    assert_eq!(elsewhere("/healthz").text(), "no heatmap yet; camera away\n");
    served.sink.camera(&CameraState { running: true, reason: String::new() }).unwrap();
    served.sink.publish(&published(two_classes(41))).unwrap();

    let large = format!("X: {}\r\n", "x".repeat(20_000));
    let long = format!("GET /{}", "x".repeat(20_000));
    let many: String = (0..70).map(|i| format!("X{i}: x\r\n")).collect();
    let cases = [
        ("GET /", "", 200, "text/html; charset=utf-8"),
        ("GET /?1795436177", "", 200, "text/html; charset=utf-8"),
        ("HEAD /", "", 200, "text/html; charset=utf-8"),
        ("GET /snapshot.jpg", "", 200, "image/jpeg"),
        ("GET /snapshot.jpg?raw=1", "", 200, "image/jpeg"),
        ("GET /snapshot.jpg?raw=2", "", 400, "raw: allowed 0 or 1"),
        ("GET /heatmap.png", "", 200, "image/png"),
        ("GET /heatmap.png?class=2&colormap=grey", "", 200, "image/png"),
        ("GET /heatmap.png?class=3", "", 404, "class 3 has no map now; there is one of 7, 2"),
        ("GET /heatmap.png?class=-1", "", 400, "class: allowed an index from 0"),
        (
            "GET /heatmap.png?colormap=rainbow",
            "",
            400,
            "colormap: allowed turbo, viridis, inferno, jet or grey",
        ),
        ("GET /mean.png", "", 404, "no mean is kept; add [mean]"),
        ("GET /mean.png?class=x", "", 400, "class: allowed an index from 0"),
        ("GET /heatmap.npy", "", 200, "application/octet-stream"),
        ("GET /state", "", 200, "application/json"),
        ("GET /metrics", "", 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("GET /healthz", "", 200, "text/plain; charset=utf-8"),
        ("GET /config", "", 200, "text/plain; charset=utf-8"),
        ("HEAD /stream.mjpg", "", 200, "multipart/x-mixed-replace; boundary=salientd-frame"),
        ("GET /nothing", "", 404, "no such page; docs/http.md lists them"),
        ("GET /../../etc/passwd", "", 404, "no such page; docs/http.md lists them"),
        ("GET /%2e%2e/%2e%2e/etc/passwd", "", 404, "no such page; docs/http.md lists them"),
        ("GET /./state", "", 404, "no such page; docs/http.md lists them"),
        ("GET //", "", 404, "no such page; docs/http.md lists them"),
        ("GET /..%2f..%2fetc/passwd", "", 404, "no such page; docs/http.md lists them"),
        ("GET /state/../config", "", 404, "no such page; docs/http.md lists them"),
        ("GET /state%00", "", 404, "no such page; docs/http.md lists them"),
        ("POST /", "Content-Length: 3\r\n", 405, "allow: get, head"),
        // The body that it announces is not waited for.
        ("POST /", "Content-Length: 1000000\r\n", 405, "only GET and HEAD"),
        ("DELETE /state", "", 405, "only GET and HEAD"),
        ("GET /", large.as_str(), 431, ""),
        ("GET /", many.as_str(), 431, ""),
        (long.as_str(), "", 431, ""),
        ("GET", "", 400, ""),
        ("NONSENSE \x07", "", 400, ""),
    ];
    for (line, headers, status, told) in cases {
        let answer = ask(&a, line, headers);
        assert_eq!(answer.status, status, "{line}: {}", answer.head);
        let said =
            answer.head.contains(told) || String::from_utf8_lossy(&answer.body).contains(told);
        assert!(said, "{line}: {}\n{}", answer.head, String::from_utf8_lossy(&answer.body));
        if line.starts_with("HEAD") {
            assert!(answer.body.is_empty(), "{line}");
        }
    }
    assert_eq!(elsewhere("/").status, 421);
    served.sink.finish().unwrap();
    assert!(TcpStream::connect(&a).is_err(), "nobody listens after the end");
}

#[test]
fn what_is_served_is_the_newest_heatmap() {
    let mut served = serve(|_| {});
    let a = served.address.clone();
    served.sink.publish(&published(two_classes(41))).unwrap();
    let item = published(two_classes(42));
    served.sink.publish(&item).unwrap();

    let npy = get(&a, "/heatmap.npy");
    assert!(npy.head.contains("x-salientd-sequence: 42"), "{}", npy.head);
    let array = salientd::sink::npy::from_bytes::<f32>(&npy.body).unwrap();
    assert_eq!((array.shape, &array.values), (vec![16, 16, 2], &item.heatmap.values));

    // Of the second class: hot at the lower right, cold at the upper left.
    let png = get(&a, "/heatmap.png?class=2&colormap=grey").body;
    let map = image::load_from_memory(&png).unwrap().to_luma8();
    assert_eq!(map.dimensions(), (16, 16));
    assert!(map.get_pixel(12, 12)[0] > 240 && map.get_pixel(2, 2)[0] == 0);

    let size = |path: &str| {
        let picture = image::load_from_memory(&get(&a, path).body).unwrap().to_rgb8();
        (picture.dimensions(), picture.get_pixel(496, 216).0)
    };
    let ((drawn, hot), (raw, as_it_was)) = (size("/snapshot.jpg"), size("/snapshot.jpg?raw=1"));
    assert_eq!((drawn, raw), ((1280, 720), (1280, 720)));
    assert!(hot[0].abs_diff(as_it_was[0]) > 20 || hot[2].abs_diff(as_it_was[2]) > 20);

    let state: serde_json::Value = serde_json::from_str(get(&a, "/state").text()).unwrap();
    assert_eq!(state["heatmap"]["sequence"], 42);
    assert_eq!(state["heatmap"]["classes"][0]["label"], "church");
    assert_eq!((&state["healthy"], &state["camera"]["reason"]), (&true.into(), &"starting".into()));
    assert_eq!(
        (&state["counters"]["frames"], &state["model"]["sha256"]),
        (&7.into(), &"00ff".into())
    );
    assert_eq!(state["classes"], serde_json::json!(["tench", "church"]));
    assert_eq!(get(&a, "/config").text(), "[camera]\n");
}

#[test]
fn metrics_are_as_prometheus_wants_them() {
    let about = about();
    let health = about.health.clone();
    let mut served = serve_with(|_| {}, about);
    let mut heatmap = two_classes(1);
    heatmap.classes[1].label = "a \"quoted\" \\ label\nof two lines".into();
    heatmap.budget_ms = Some(500.0);
    heatmap.heat_factor = Some(0.25);
    // Kept from an earlier frame, so not one of those that were run.
    let kept = ViewReport { age_ms: 1500.0, ..heatmap.views[0].clone() };
    heatmap.views.push(kept);
    served.sink.publish(&published(heatmap)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = SocketConfig { path: dir.path().join("s"), ..SocketConfig::default() };
    let socket = SocketSink::open(&socket, ModelEntry::default(), Vec::new()).unwrap();
    health.counters.watch("socket", socket.metrics());
    let metrics = get(&served.address, "/metrics");
    for line in [
        "salientd_frames_total 7",
        "# TYPE salientd_socket_clients gauge",
        "salientd_socket_clients 0",
        "# TYPE salientd_socket_messages_dropped_total counter",
        "salientd_socket_messages_dropped_total 0",
        "salientd_sink_published_total{sink=\"http\"} 3",
        "salientd_budget_seconds 0.5",
        "salientd_heat_budget_ratio 0.25",
        "salientd_heatmap_oldest_view_seconds 1.5",
        "salientd_inference_seconds_bucket{le=\"0.5\"} 1",
        "salientd_views_total 8",
        "salientd_build_info{version=\"0.1.0\",model=\"tiny \\\"one\\\"\",model_sha256=\"00ff\"} 1",
    ] {
        assert!(metrics.text().lines().any(|l| l == line), "no {line} in\n{}", metrics.text());
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of the Debian package prometheus; tests/run installs it");
    promtool.stdin.take().unwrap().write_all(&metrics.body).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let told =
        String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && told.is_empty(), "{told}");
}

#[test]
fn only_those_with_the_token_look() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "correct-horse\n").unwrap();
    let served = serve(|config| config.token_file = Some(token));
    let a = &served.address;
    let without = get(a, "/state");
    assert_eq!((without.status, without.text()), (401, "a token is needed\n"));
    assert!(
        without.head.contains("www-authenticate: basic realm=\"salientd\""),
        "{}",
        without.head
    );
    let wrong = ask(a, "GET /state", "Authorization: Bearer wrong-horse\r\n");
    assert_eq!((wrong.status, wrong.text()), (401, "wrong token\n"));
    assert_eq!(ask(a, "GET /state", "Authorization: Bearer correct-horse\r\n").status, 200);
    let basic = "Authorization: Basic Y2FtOmNvcnJlY3QtaG9yc2U=\r\n";
    assert_eq!(ask(a, "GET /", basic).status, 200);
    // With a token any name will do: a proxy's, for one.
    let named =
        format!("GET / HTTP/1.1\r\nHost: cam.example.org\r\nConnection: close\r\n{basic}\r\n");
    assert_eq!(send(a, &named).status, 200);
    // A probe has none, and learns nothing but whether all is well; nor does one that guesses.
    let wrong = "Authorization: Bearer wrong-horse\r\n";
    for (headers, told) in [
        ("", "no heatmap yet; camera away\n"),
        (wrong, "no heatmap yet; camera away\n"),
        (basic, "no heatmap yet; camera away: starting\n"),
    ] {
        let answer = ask(a, "GET /healthz", headers);
        assert_eq!((answer.status, answer.text()), (503, told));
    }
    assert_eq!(ask(a, "POST /healthz", "").status, 405);
    assert_eq!(ask(a, "GET /metrics", basic).text().matches("http_denied_total 2\n").count(), 1);
}

#[test]
fn what_cannot_be_listened_on_is_told() {
    let taken = serve(|_| {});
    let token = "/nowhere/token";
    let cases: [(&str, Option<&str>, String); 4] = [
        (
            &taken.address,
            None,
            format!(
                "sink.http: {}: cannot listen: Address already in use (os error 98); another \
                 program listens there; stop it or set sink.http.listen",
                taken.address
            ),
        ),
        (
            "systemd",
            None,
            "sink.http: listen = \"systemd\", but no listening socket named http was handed down \
             (names: none); start the daemon through a socket unit with FileDescriptorName=http, \
             or set sink.http.listen"
                .into(),
        ),
        (
            "unix:/nowhere/http.sock",
            None,
            "sink.http: /nowhere/http.sock: cannot listen: No such file or directory (os error \
             2); create the directory or set sink.http.listen"
                .into(),
        ),
        (
            "127.0.0.1:0",
            Some(token),
            format!("sink.http: token_file {token}: No such file or directory (os error 2)"),
        ),
    ];
    for (listen, token_file, told) in cases {
        let token_file = token_file.map(Into::into);
        let config = HttpConfig { listen: listen.into(), token_file, ..HttpConfig::default() };
        assert_eq!(open(&config).err(), Some(told));
    }
}

#[test]
fn a_unix_socket_serves_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let listen = format!("unix:{}", path.display());
    let mut served = serve(|config| config.listen = listen.clone());
    assert_eq!(served.sink.address(), listen);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /config HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(Answer::read(stream).text(), "[camera]\n");
    served.sink.finish().unwrap();
    assert!(!path.exists());
}

/// Reads a stream of pictures part by part.
struct Viewer {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Viewer {
    fn open(address: &str, path: &str) -> Self {
        let mut stream = connect(address);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        Self { stream, pending: Vec::new() }
    }

    /// The next JPEG; what stands around it is chunk sizes and part heads.
    fn next(&mut self) -> Vec<u8> {
        let mut buffer = [0; 65536];
        loop {
            let find = |from: usize, what: &[u8]| {
                let place = self.pending[from..].windows(what.len()).position(|w| w == what);
                place.map(|at| from + at)
            };
            if let Some(head) = find(0, b"Content-Length: ") {
                let end = find(head, b"\r\n\r\n");
                if let Some(start) = end.map(|end| end + 4) {
                    let digits = &self.pending[head + 16..start - 4];
                    let length: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
                    if self.pending.len() >= start + length {
                        let jpeg = self.pending[start..start + length].to_vec();
                        self.pending.drain(..start + length);
                        return jpeg;
                    }
                }
            }
            let n = self.stream.read(&mut buffer).expect("a picture in time");
            assert!(n > 0, "the stream ended");
            self.pending.extend_from_slice(&buffer[..n]);
        }
    }
}

fn live(width: usize, height: usize, sequence: u64) -> LivePicture {
    let picture = Arc::new(picture(width, height));
    LivePicture { picture, sequence, captured_at: Instant::now() }
}

#[test]
fn nobody_looks_nothing_is_due_and_viewers_share_one_encoding() {
    let mut served = serve(|_| {});
    let a = served.address.clone();
    let viewers = served.sink.viewers().unwrap();
    assert!(!viewers.are_due(Instant::now()));
    let mut two = [Viewer::open(&a, "/stream.mjpg?raw=1"), Viewer::open(&a, "/stream.mjpg?raw=1")];
    wait_metric(&a, "http_viewers", 2.0);
    assert!(viewers.are_due(Instant::now()));
    served.sink.live(&live(64, 48, 1)).unwrap();
    let [first, second] = &mut two;
    let jpeg = first.next();
    assert_eq!(jpeg, second.next());
    assert_eq!(image::load_from_memory(&jpeg).unwrap().to_rgb8().dimensions(), (64, 48));
    drop(two);
    wait_metric(&a, "http_viewers", 0.0);
    assert!(!viewers.are_due(Instant::now() + PATIENCE));
}

#[test]
fn a_new_viewer_sees_the_newest_heatmap_at_once() {
    let mut served = serve(|_| {});
    served.sink.publish(&published(heatmap(5))).unwrap();
    let jpeg = Viewer::open(&served.address, "/stream.mjpg").next();
    assert_eq!(jpeg, get(&served.address, "/snapshot.jpg").body);
}

#[test]
fn a_slow_viewer_loses_pictures_and_nobody_else_does() {
    let mut served = serve(|_| {});
    let a = served.address.clone();
    let mut quick = Viewer::open(&a, "/stream.mjpg?raw=1");
    let mut slow = Viewer::open(&a, "/stream.mjpg?raw=1"); // does not read for now
    wait_metric(&a, "http_viewers", 2.0);
    let before = salientd::health::memory::rss_bytes().unwrap();
    let picture = live(1280, 720, 0);
    for i in 0..200 {
        served.sink.live(&LivePicture { sequence: i, ..picture.clone() }).unwrap();
        quick.next();
    }
    // What had gone out before it stopped reading, and then, many later, the newest: each of
    // the pictures either came or was dropped.
    let mut came = 0;
    while metric(&a, "http_frames_dropped_total") + f64::from(came) < 200.0 {
        slow.next();
        came += 1;
        assert!(came < 150, "hardly any were dropped");
    }
    assert!(metric(&a, "http_frames_sent_total") >= 200.0);
    let grown = salientd::health::memory::rss_bytes().unwrap().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
}

#[test]
fn events_tell_of_every_change() {
    let mut served = serve(|_| {});
    let a = served.address.clone();
    let mut stream = connect(&a);
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    let mut wait = |what: &str| {
        while !text.contains(what) {
            let mut buffer = [0; 65536];
            let n = stream.read(&mut buffer).expect("an event in time");
            assert!(n > 0, "the stream ended; so far:\n{text}");
            text += std::str::from_utf8(&buffer[..n]).unwrap();
        }
    };
    wait("event: camera\ndata: {\"running\":false,\"reason\":\"starting\"}\n\n");
    served.sink.publish(&published(small_heatmap(8))).unwrap();
    wait("event: heatmap\nid: 8\ndata: {\"sequence\":8,");
    wait("\"latency_ms\":");
    served.sink.camera(&CameraState { running: false, reason: "unplugged".into() }).unwrap();
    wait("\"reason\":\"unplugged\"}\n\n");
    served.sink.publish(&published(small_heatmap(9))).unwrap();
    wait("id: 9\n");

    // All of a burst, in order; and one who comes later is told what is raised.
    let event = |rule: &str, sequence, change| Event {
        change,
        rule: rule.into(),
        zone: "gate".into(),
        side: Side::Outside,
        class: Some((7, "church".into())),
        share: Some(0.75),
        sequence,
        captured_wall: UNIX_EPOCH,
        model_sha256: "ab".into(),
    };
    for (rule, sequence, change) in
        [("a", 1, Change::Raised), ("b", 2, Change::Raised), ("a", 3, Change::Cleared)]
    {
        served.sink.event(&event(rule, sequence, change)).unwrap();
    }
    wait("\"change\":\"cleared\",\"rule\":\"a\"");
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in\n{text}"));
    let told = ["raised\",\"rule\":\"a", "raised\",\"rule\":\"b", "cleared\",\"rule\":\"a"].map(at);
    assert!(
        told.is_sorted() && at("event: rule\ndata: {\"change\":\"raised\"") < told[0],
        "{text}"
    );

    let state: serde_json::Value = serde_json::from_str(get(&a, "/state").text()).unwrap();
    let raised: Vec<_> = state["raised"].as_array().unwrap().iter().map(|e| &e["rule"]).collect();
    assert_eq!(raised, ["b"]);
    assert_eq!(state["raises"], serde_json::json!({ "a": 1, "b": 1, "quiet": 0 }));
    let metrics = get(&a, "/metrics");
    for line in [
        "salientd_rule_raised{rule=\"a\"} 0",
        "salientd_rule_raised{rule=\"b\"} 1",
        "salientd_rule_raised{rule=\"quiet\"} 0",
        "salientd_rule_raises_total{rule=\"a\"} 1",
        "salientd_rule_raises_total{rule=\"quiet\"} 0",
    ] {
        assert!(metrics.text().lines().any(|l| l == line), "no {line} in\n{}", metrics.text());
    }
    let polygon = serde_json::json!([[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]]);
    assert_eq!(state["zones"], serde_json::json!([{ "name": "gate", "polygon": polygon }]));
    let mut late = connect(&a);
    late.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut seen = String::new();
    while !seen.contains("\"rule\":\"b\"") {
        let mut buffer = [0; 65536];
        let n = late.read(&mut buffer).expect("an event in time");
        assert!(n > 0, "the stream ended; so far:\n{seen}");
        seen += std::str::from_utf8(&buffer[..n]).unwrap();
    }
    assert!(!seen.contains("\"rule\":\"a\""), "{seen}");
}

#[test]
fn the_mean_of_each_class_is_shown() {
    let means = Arc::new(Mutex::new(MeanMaps::new(Duration::from_secs(60))));
    let config = HttpConfig { listen: "127.0.0.1:0".into(), ..HttpConfig::default() };
    let about = About { means: Some(means.clone()), ..about() };
    let mut sink = open_with(&config, about).unwrap();
    let a = sink.address().trim_start_matches("http://").trim_end_matches('/').to_string();
    let item = published(two_classes(1));
    sink.publish(&item).unwrap();
    let answer = get(&a, "/mean.png");
    assert_eq!((answer.status, answer.text()), (404, "class 7 was not seen yet\n"));

    means.lock().unwrap().add(&item.heatmap);
    // Only its best class has a map now; the other's mean is still there.
    let (values, classes) = (spot(16, 16, 0.3, 0.3), vec![class(7, "church", 0.75)]);
    sink.publish(&published(Heatmap { values, classes, ..two_classes(2) })).unwrap();
    for (path, hot, cold) in [
        ("/mean.png?colormap=grey", (4, 4), (14, 14)),
        ("/mean.png?colormap=grey&class=2", (12, 12), (2, 2)),
    ] {
        let map = image::load_from_memory(&get(&a, path).body).unwrap().to_luma8();
        let at = |(x, y): (u32, u32)| map.get_pixel(x, y)[0];
        assert!(map.dimensions() == (16, 16) && at(hot) > 230 && at(cold) == 0, "{path}");
    }
    let answer = get(&a, "/mean.png?class=3");
    assert_eq!((answer.status, answer.text()), (404, "class 3 was not seen yet\n"));
}

#[test]
fn streams_leave_room_for_other_requests() {
    let served = serve(|config| config.max_connections = 8);
    let a = &served.address;
    let open: Vec<Viewer> = (0..6).map(|_| Viewer::open(a, "/stream.mjpg")).collect();
    wait_metric(a, "http_viewers", 6.0);
    let more = get(a, "/stream.mjpg");
    assert_eq!(more.status, 503);
    assert_eq!(more.text(), "as many streams are open as sink.http.max_connections allows\n");
    assert_eq!(get(a, "/metrics").status, 200);
    drop(open);
    wait_metric(a, "http_viewers", 0.0);
}

#[test]
fn a_head_that_does_not_end_is_cut_off() {
    let served = serve(|_| {});
    // One byte now and then keeps no connection.
    let mut loris = connect(&served.address);
    let begun = Instant::now();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut dripping = loris.try_clone().unwrap();
        let stop = &stop;
        scope.spawn(move || {
            for byte in b"GET / HTTP/1.1\r\nX: ".iter().chain([b'x'; 1000].iter()) {
                if stop.load(Ordering::Relaxed) || dripping.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let mut rest = Vec::new();
        let _ = loris.read_to_end(&mut rest);
        stop.store(true, Ordering::Relaxed);
        // Closed without a word: there was no request to answer.
        assert_eq!(String::from_utf8_lossy(&rest), "");
    });
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(get(&served.address, "/metrics").status, 200);
}

#[test]
fn a_crowd_that_never_ends_its_heads_leaves_others_their_answers() {
    let served = serve(|config| config.max_connections = 64);
    let a = &served.address;
    let mut crowd: Vec<TcpStream> = (0..60).map(|_| connect(a)).collect();
    // Half of them have begun, half have said nothing.
    for (i, stream) in crowd.iter_mut().enumerate() {
        stream
            .write_all(if i % 2 == 0 { b"GET /state HTTP/1.1\r\nHost: local" } else { b"" })
            .unwrap();
    }
    assert_eq!(get(a, "/metrics").status, 200);
    for stream in &mut crowd {
        let mut rest = Vec::new();
        // A reset says the same.
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
    wait_metric(a, "http_connections", 1.0);
}

#[test]
fn a_viewer_that_stops_reading_is_given_up() {
    let mut served = serve(|_| {});
    let a = served.address.clone();
    let stuck = Viewer::open(&a, "/stream.mjpg?raw=1");
    wait_metric(&a, "http_viewers", 1.0);
    // More than its buffers and the kernel's hold.
    let picture = live(1280, 720, 0);
    for i in 0..100 {
        served.sink.live(&LivePicture { sequence: i, ..picture.clone() }).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    wait_metric(&a, "http_viewers", 0.0);
    // It was cut off in the middle of a picture, which nobody ended for it.
    assert!(metric(&a, "http_frames_sent_total") < 100.0);
    drop(stuck);
}

#[test]
fn ten_thousand_connections_are_turned_away_in_bounded_memory() {
    let served = serve(|config| config.max_connections = 16);
    let a = &served.address;
    let before = salientd::health::memory::rss_bytes().unwrap();
    for _ in 0..100 {
        let crowd: Vec<TcpStream> = (0..100).map(|_| connect(a)).collect();
        drop(crowd);
    }
    let grown = salientd::health::memory::rss_bytes().unwrap().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    let deadline = Instant::now() + PATIENCE;
    while get(a, "/metrics").status != 200 {
        assert!(Instant::now() < deadline, "no place was free again");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(metric(a, "http_refused_total") > 1_000.0);
}

#[test]
fn who_comes_when_all_places_are_taken_is_told() {
    let served = serve(|config| config.max_connections = 4);
    let a = &served.address;
    let taken: Vec<TcpStream> = (0..4).map(|_| connect(a)).collect();
    let answer = get(a, "/");
    assert_eq!(answer.status, 503, "{}", answer.head);
    assert_eq!(answer.text(), "as many connections are open as sink.http.max_connections allows\n");
    drop(taken);
}
