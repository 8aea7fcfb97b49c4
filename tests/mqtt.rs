//! The mqtt sink against Debian's mosquitto, on loopback ports of its own.
#![cfg(feature = "mqtt")]

mod common;

use common::broker::{Broker, free_port};
use common::process::wait_for;
use salientd::config::{MqttConfig, OverlayConfig, PictureFormat, Side};
use salientd::frame::{Picture, Rect};
use salientd::heatmap::{ClassScore, Heatmap};
use salientd::rules::{Change, Event};
use salientd::sink::mqtt::MqttSink;
use salientd::sink::{CameraState, Published, Sink};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// How a sink reaches it.
fn config_of(broker: &Broker) -> MqttConfig {
    MqttConfig {
        host: "127.0.0.1".into(),
        port: broker.port,
        device: Some("gate-3".into()),
        every_s: 0.0,
        queue: 5000,
        ..MqttConfig::default()
    }
}

/// What a subscriber hears from now on, as `TOPIC RETAINED PAYLOAD` lines.
fn hear(broker: &Broker, topic: &str, options: &[&str]) -> Listener {
    // Retained, so that it comes as soon as the subscription stands.
    let ready = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &broker.port.to_string()])
        .args(["-r", "-t", "ready", "-m", "x"])
        .status();
    assert!(ready.unwrap().success());
    let mut child = Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "1"])
        .args(["-t", topic, "-t", "ready", "-F", "%t %r %p"])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("mosquitto_sub: sudo apt-get install mosquitto-clients");
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (lines, kept) = (BufReader::new(child.stdout.take().unwrap()), heard.clone());
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    let listener = Listener { child, heard };
    listener.wait("ready");
    listener.heard.lock().unwrap().retain(|line| !line.starts_with("ready"));
    listener
}

struct Listener {
    child: Child,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    fn lines(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    fn wait(&self, line: &str) {
        wait_until(line, || self.heard.lock().unwrap().iter().any(|l| l.starts_with(line)));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn item(sequence: u64, index: usize) -> Published {
    let (width, height) = (640, 360);
    let class = ClassScore { index, label: format!("class {index}"), logit: 3.0, probability: 0.9 };
    let heatmap = Heatmap {
        height: 4,
        width: 4,
        values: (0..16).map(|i| i as f32 / 15.0).collect(),
        classes: vec![class],
        covers: Rect { x: 140, y: 0, width: 360, height: 360 },
        picture: [width as u32, height as u32],
        views: Vec::new(),
        zones: Vec::new(),
        sequence,
        captured_at: Instant::now(),
        captured_wall: UNIX_EPOCH + Duration::from_secs(sequence),
        spent_ms: 40.0,
        budget_ms: None,
        heat_factor: None,
        model_sha256: "0123456789abcdef".repeat(4).into(),
    };
    Published { picture: Arc::new(Picture::new(width, height)), heatmap: Arc::new(heatmap) }
}

fn event(change: Change) -> Event {
    Event {
        change,
        rule: "looks-away".into(),
        zone: "gate".into(),
        side: Side::Outside,
        class: Some((3, "tench".into())),
        share: Some(0.75),
        sequence: 7,
        captured_wall: UNIX_EPOCH,
        model_sha256: "ab".into(),
    }
}

fn open(config: &MqttConfig) -> MqttSink {
    let overlay = OverlayConfig::default();
    MqttSink::open(config, &overlay, vec!["looks-away".into()], "default").unwrap()
}

fn connected(sink: &MqttSink) {
    wait_until("the connection", || sink.stats().is_connected());
}

/// Sequence numbers of the heatmaps heard.
fn sequences(lines: &[String]) -> Vec<u64> {
    let sequence = |line: &String| {
        let payload = line.strip_prefix("salientd/gate-3/heatmap 0 ")?;
        serde_json::from_str::<serde_json::Value>(payload).unwrap()["sequence"].as_u64()
    };
    lines.iter().filter_map(sequence).collect()
}

#[test]
fn a_thousand_heatmaps_come_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "allow_anonymous true\nmax_queued_messages 0");
    let listener = hear(&broker, "salientd/#", &[]);
    let mut sink = open(&config_of(&broker));
    connected(&sink);
    for sequence in 0..1000 {
        sink.publish(&item(sequence, 3)).unwrap();
    }
    wait_until("all", || sink.stats().delivered() >= 1000);
    sink.finish().unwrap();
    // Said by the daemon itself: a broker says nothing for one who takes leave.
    listener.wait("salientd/gate-3/status 0 offline");
    let lines = listener.lines();
    assert_eq!(sequences(&lines), (0..1000).collect::<Vec<_>>());
    let first = lines.iter().find(|l| l.contains("/heatmap ")).unwrap();
    assert_eq!(
        first.strip_prefix("salientd/gate-3/heatmap 0 ").unwrap(),
        "{\"sequence\":0,\"captured\":\"1970-01-01T00:00:00.000000000Z\",\
         \"classes\":[{\"index\":3,\"label\":\"class 3\",\"logit\":3.0,\"probability\":0.9}],\
         \"views\":0,\"spent_ms\":40.0,\"model_sha256\":\
         \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}"
    );
    assert_eq!(sink.stats().dropped(), 0);
}

#[test]
fn a_broker_that_restarts_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = format!(
        "allow_anonymous true\nmax_queued_messages 0\npersistence true\n\
         persistence_location {}/\n",
        dir.path().display()
    );
    let mut broker = Broker::start(dir.path(), &settings);
    // The broker keeps what this subscriber has missed.
    let listener = hear(&broker, "salientd/#", &["-c", "-i", "subscriber"]);
    let mut sink = open(&config_of(&broker));
    for sequence in 0..300 {
        sink.publish(&item(sequence, 3)).unwrap();
        if sequence % 100 == 50 {
            connected(&sink);
            broker.restart();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    wait_until("the last", || sequences(&listener.lines()).last() == Some(&299));
    let mut first_seen: Vec<u64> = Vec::new();
    for sequence in sequences(&listener.lines()) {
        // What was on its way when the connection broke may come twice.
        if !first_seen.contains(&sequence) {
            first_seen.push(sequence);
        }
    }
    assert_eq!(first_seen, (0..300).collect::<Vec<_>>());
    assert!(sink.stats().connects() >= 3, "{}", sink.stats().connects());
}

#[test]
fn a_broker_that_forgot_what_it_retained_is_told_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), "allow_anonymous true");
    let mut sink = open(&config_of(&broker));
    sink.camera(&CameraState { running: true, reason: String::new() }).unwrap();
    sink.event(&event(Change::Raised)).unwrap();
    connected(&sink);
    let connects = sink.stats().connects();
    broker.restart();
    wait_until("another connection", || sink.stats().connects() > connects);
    let later = hear(&broker, "salientd/#", &[]);
    for line in [
        "salientd/gate-3/status 1 online",
        "salientd/gate-3/camera 1 {\"reason\":\"\",\"running\":true}",
        "salientd/gate-3/rule/looks-away 1 ON",
    ] {
        later.wait(line);
    }
    sink.event(&event(Change::Cleared)).unwrap();
    later.wait("salientd/gate-3/rule/looks-away 0 OFF");
    later.wait(
        "salientd/gate-3/event 0 {\"change\":\"cleared\",\"rule\":\"looks-away\",\"zone\":\"gate\",\
         \"side\":\"outside\",\"class\":{\"index\":3,\"label\":\"tench\"},\"share\":0.75,",
    );
}

#[test]
fn a_full_queue_drops_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens on this port until the broker starts.
    let port = free_port();
    let config = MqttConfig {
        host: "127.0.0.1".into(),
        port,
        device: Some("gate-3".into()),
        every_s: 0.0,
        queue: 10,
        ..MqttConfig::default()
    };
    let mut sink = open(&config);
    for sequence in 0..100 {
        sink.publish(&item(sequence, 3)).unwrap();
    }
    assert_eq!(sink.stats().dropped(), 90);
    let broker = Broker::start_on(dir.path(), "allow_anonymous true", port);
    // Greeting and the ten that were left; which ones the queue's own test tells.
    wait_until("the rest", || sink.stats().delivered() >= 3 + 10);
    assert_eq!((sink.stats().delivered(), sink.stats().dropped()), (13, 90));
    drop(broker);
}

#[test]
fn every_s_holds_back_and_another_class_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "allow_anonymous true");
    let listener = hear(&broker, "salientd/#", &[]);
    let mut sink = open(&MqttConfig { every_s: 3600.0, ..config_of(&broker) });
    connected(&sink);
    for (sequence, class) in [(0, 3), (1, 3), (2, 4), (3, 4), (4, 3)] {
        sink.publish(&item(sequence, class)).unwrap();
    }
    wait_until("the last", || sequences(&listener.lines()).last() == Some(&4));
    assert_eq!(sequences(&listener.lines()), [0, 2, 4]);
}

#[test]
fn the_broker_says_offline_for_a_daemon_that_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "allow_anonymous true");
    let listener = hear(&broker, "salientd/#", &[]);
    let sink = open(&config_of(&broker));
    connected(&sink);
    listener.wait("salientd/gate-3/status 0 online");
    // Another with the same name: the broker drops the first, as it does a dead one.
    let mut other = Command::new("mosquitto_sub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port.to_string(),
            "-i",
            "salientd-gate-3",
            "-t",
            "x",
        ])
        .spawn()
        .unwrap();
    listener.wait("salientd/gate-3/status 0 offline");
    other.kill().unwrap();
    other.wait().unwrap();
    // And the daemon comes back by itself.
    let online = || listener.lines().iter().filter(|l| l.ends_with("status 0 online")).count();
    wait_until("its return", || online() >= 2);
}

#[test]
fn discovery_is_retained_and_pictures_are_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "allow_anonymous true");
    let config = MqttConfig {
        discovery_prefix: Some("homeassistant".into()),
        picture_every_s: Some(3600.0),
        ..config_of(&broker)
    };
    let mut sink = open(&config);
    wait_until("the greeting", || sink.stats().delivered() >= 4);
    sink.publish(&item(0, 3)).unwrap();
    wait_until("the picture", || sink.stats().delivered() >= 6);
    // Long after: retained.
    let listener = hear(&broker, "homeassistant/#", &[]);
    let topic = "homeassistant/device/salientd_gate-3/config 1 ";
    listener.wait(topic);
    let lines = listener.lines();
    let payload: serde_json::Value =
        serde_json::from_str(lines[0].strip_prefix(topic).unwrap()).unwrap();
    assert_eq!(payload["device"]["identifiers"][0], "salientd_gate-3");
    assert_eq!(payload["availability_topic"], "salientd/gate-3/status");
    let components = payload["components"].as_object().unwrap();
    let names: Vec<&String> = components.keys().collect();
    assert_eq!(names, ["camera_running", "class", "picture", "probability", "rule_looks-away"]);
    for (name, component) in components {
        assert!(component["platform"].is_string(), "{name}");
        assert_eq!(component["unique_id"], format!("salientd_gate-3_{name}"));
    }
    assert_eq!(components["picture"]["topic"], "salientd/gate-3/picture");
    assert_eq!(components["class"]["value_template"], "{{ value_json.classes[0].label }}");

    let get = |format| {
        let out = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-C", "1", "-W", "60", "-N"])
            .args(["-t", "salientd/gate-3/picture"])
            .output()
            .unwrap();
        let picture = image::load_from_memory_with_format(&out.stdout, format).unwrap();
        assert_eq!((picture.width(), picture.height()), (320, 180));
    };
    get(image::ImageFormat::Png);
    sink.finish().unwrap();
    let mut sink = open(&MqttConfig { picture_format: PictureFormat::Jpeg, ..config });
    wait_until("the greeting", || sink.stats().delivered() >= 4);
    sink.publish(&item(0, 3)).unwrap();
    wait_until("the picture", || sink.stats().delivered() >= 6);
    get(image::ImageFormat::Jpeg);
}

/// What the broker keeps for those who come later.
fn retained(broker: &Broker, topic: &str) -> Vec<String> {
    hear(broker, topic, &[]).lines()
}

#[test]
fn no_picture_of_before_stays_at_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "allow_anonymous true");
    let topic = "salientd/gate-3/picture";
    let left_behind = || {
        let port = broker.port.to_string();
        let published = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-r", "-t", topic, "-m", "sharp"])
            .status();
        assert!(published.unwrap().success());
        assert_eq!(retained(&broker, topic), [format!("{topic} 1 sharp")]);
    };
    // Greeted, there is none: whether pictures are to come or not.
    for picture_every_s in [None, Some(3600.0)] {
        left_behind();
        let mut sink = open(&MqttConfig { picture_every_s, ..config_of(&broker) });
        wait_until("the greeting", || sink.stats().delivered() >= 3);
        assert_eq!(retained(&broker, topic), [""; 0], "{picture_every_s:?}");
        sink.finish().unwrap();
    }
    // Nor after the end of one that sends them.
    let mut sink = open(&MqttConfig { picture_every_s: Some(3600.0), ..config_of(&broker) });
    wait_until("the greeting", || sink.stats().delivered() >= 3);
    sink.publish(&item(0, 3)).unwrap();
    wait_until("the picture", || sink.stats().delivered() >= 5);
    let bytes = Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &broker.port.to_string()])
        .args(["-t", topic, "-C", "1", "-W", "60", "-N"])
        .output();
    assert!(bytes.unwrap().stdout.starts_with(b"\x89PNG"));
    sink.finish().unwrap();
    assert_eq!(retained(&broker, topic), [""; 0]);
}

fn openssl(dir: &Path, arguments: &str) {
    let out = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("openssl: sudo apt-get install openssl");
    assert!(out.status.success(), "{arguments}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An authority of our own, a broker that it vouches for, and a client.
fn certificates(dir: &Path) {
    openssl(
        dir,
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=our-authority -keyout ca.key -out ca.pem",
    );
    for (name, extra) in
        [("broker", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
    {
        fs::write(dir.join("extra"), extra).unwrap();
        openssl(
            dir,
            &format!(
                "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ),
        );
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extra -out {name}.pem"
            ),
        );
    }
}

#[test]
fn tls_with_an_authority_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    certificates(dir.path());
    let settings = format!(
        "allow_anonymous true\ncafile {0}/ca.pem\ncertfile {0}/broker.pem\nkeyfile {0}/broker.key\n\
         require_certificate true\n",
        dir.path().display()
    );
    let broker = Broker::start(dir.path(), &settings);
    let config = MqttConfig {
        tls: true,
        ca_file: Some(at("ca.pem")),
        client_cert_file: Some(at("client.pem")),
        client_key_file: Some(at("client.key")),
        ..config_of(&broker)
    };
    let mut sink = open(&config);
    connected(&sink);
    sink.publish(&item(0, 3)).unwrap();
    wait_until("the heatmap", || sink.stats().delivered() >= 4);
    sink.finish().unwrap();

    // Nobody known vouches for this broker: no connection, however long one waits for it.
    openssl(
        dir.path(),
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem",
    );
    let mut stranger = open(&MqttConfig { ca_file: Some(at("other.pem")), ..config.clone() });
    let log = dir.path().join("mosquitto.log");
    let heard = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the refusal", || heard().contains("unknown ca"));
    assert_eq!(stranger.stats().connects(), 0);
    stranger.finish().unwrap();

    let refused = |change: &dyn Fn(&mut MqttConfig), said: String| {
        let mut config = config.clone();
        change(&mut config);
        let sink = MqttSink::open(&config, &OverlayConfig::default(), Vec::new(), "m");
        assert_eq!(sink.err().unwrap().to_string(), said);
    };
    fs::write(at("empty.pem"), "nothing").unwrap();
    refused(
        &|c| c.ca_file = Some(at("empty.pem")),
        format!("sink.mqtt.ca_file: {}: holds no certificate in PEM", at("empty.pem").display()),
    );
    refused(
        &|c| c.client_key_file = Some(at("absent")),
        format!(
            "sink.mqtt.client_key_file: {}: I/O error: No such file or directory (os error 2)",
            at("absent").display()
        ),
    );
}

#[test]
fn a_wrong_password_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c", passwords.to_str().unwrap(), "camera", "right"])
        .status()
        .unwrap();
    assert!(made.success());
    let broker = Broker::start(
        dir.path(),
        &format!("allow_anonymous false\npassword_file {}", passwords.display()),
    );
    let secret = dir.path().join("secret");
    fs::write(&secret, "wrong\n").unwrap();
    let config = MqttConfig {
        username: Some("camera".into()),
        password_file: Some(secret.clone()),
        ..config_of(&broker)
    };
    let mut sink = open(&config);
    let log = dir.path().join("mosquitto.log");
    let refusals =
        || fs::read_to_string(&log).unwrap_or_default().matches("not authorised").count();
    wait_until("two refusals", || refusals() >= 2);
    assert_eq!(sink.stats().connects(), 0);
    sink.finish().unwrap();

    fs::write(&secret, "right\nignored\n").unwrap();
    connected(&open(&config));
    fs::write(&secret, "\n").unwrap();
    let sink = MqttSink::open(&config, &OverlayConfig::default(), Vec::new(), "m");
    assert_eq!(
        sink.err().unwrap().to_string(),
        format!("sink.mqtt.password_file: {}: its first line is empty", secret.display())
    );
}

/// A broker that accepts and then says nothing must not hold up the end.
#[test]
fn a_silent_broker_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = MqttConfig {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        ..MqttConfig::default()
    };
    let mut sink = open(&config);
    sink.publish(&item(0, 3)).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut hello = [0; 2];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(hello[0], 0x10, "CONNECT");
    let began = Instant::now();
    sink.finish().unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
