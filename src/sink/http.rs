//! The live page and its streams over HTTP: docs/http.md.
//!
//! One thread serves all connections (hyper on a single-threaded runtime); it encodes
//! nothing but small answers, each once for a heatmap. Streams are encoded where the
//! pipeline runs the sink, once for all who watch, and only while somebody does: a stream
//! holds the newest picture alone, so a slow viewer loses pictures and delays nobody.

mod access;
mod alarms;
mod board;
mod body;
mod connection;
mod json;
mod metrics;
mod page;
mod routes;
mod serve;

pub use metrics::Stats;

use super::inherited::{HandedDown, Inherited};
use super::listen::{Key, Listener};
use super::mean::SharedMeans;
use super::wire::ModelEntry;
use super::{CameraState, LivePicture, Published, Sink, SinkError, Viewers};
use crate::config::{Config, HttpConfig, HttpListen, OverlayConfig, ZoneConfig, render};
use crate::health::Health;
use crate::redact;
use crate::rules::Event;
use access::Secret;
use board::{Board, Picture};
use rustix::io::Errno;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const KEY: Key = Key { table: "sink.http", address: "sink.http.listen" };

/// What the sink tells about the daemon besides heatmaps.
#[derive(Clone)]
pub struct About {
    pub model: ModelEntry,
    /// The labels of all the model's classes.
    pub classes: Vec<String>,
    pub zones: Vec<ZoneConfig>,
    /// The names of the rules.
    pub rules: Vec<String>,
    /// The long-term means, if they are kept.
    pub means: Option<SharedMeans>,
    pub health: Arc<Health>,
    /// The effective configuration, kept up to date by its owner; see [`About::set_config`].
    pub config: Arc<Mutex<String>>,
    pub started: Instant,
}

impl About {
    /// Takes up another configuration, without what may hold a password.
    pub fn set_config(config: &Mutex<String>, now: &Config) {
        *config.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = shown(now.clone());
    }
}

/// The configuration as TOML, with the programs of its commands alone: among the arguments are
/// passwords of cameras, and nobody knows at which place.
fn shown(mut config: Config) -> String {
    let rules = config.rules.iter_mut().map(|rule| &mut rule.command);
    for command in rules.chain([&mut config.camera.pipe.command]) {
        let arguments = command.len().saturating_sub(1);
        command.truncate(1);
        if let Some(program) = command.first_mut() {
            *program = redact::addresses(program);
        }
        if arguments > 0 {
            command.push(format!("… ({arguments} arguments)"));
        }
    }
    render::effective(&config)
}

/// The `http` sink. Stops serving when it is dropped.
pub struct HttpSink {
    board: Arc<Board>,
    server: Option<serve::Handle>,
    address: String,
    /// For streams; snapshots are drawn on the serving side.
    drawing: board::Drawing,
    newest: Option<Published>,
}

/// What is listened on, and its name for people.
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(Listener),
}

impl HttpSink {
    /// Listens as configured. A socket that the service manager is to hand down is looked
    /// for in `inherited`.
    pub fn open(
        config: &HttpConfig,
        overlay: &OverlayConfig,
        about: About,
        inherited: &Inherited,
    ) -> Result<Self, SinkError> {
        let secret = config.token_file.as_deref().map(Secret::read).transpose()?;
        let (listening, address) = listen(config, inherited)?;
        if secret.is_none() && is_open_to_others(&listening) {
            log::warn!(
                "sink.http: everybody who reaches {address} may look; set sink.http.token_file"
            );
        }
        let board = Arc::new(Board::new(config, overlay, about, secret));
        let server = serve::start(listening, board.clone())
            .map_err(|error| open_error(format!("{address}: cannot serve: {error}")))?;
        log::info!("live page at {address}");
        Ok(Self {
            drawing: board::Drawing::new(overlay, config.jpeg_quality),
            board,
            server: Some(server),
            address,
            newest: None,
        })
    }

    /// Where it listens: `http://127.0.0.1:8088/` or `unix:/run/…`.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn check_serving(&self) -> Result<(), SinkError> {
        if self.server.as_ref().is_some_and(serve::Handle::is_serving) {
            return Ok(());
        }
        Err(SinkError::Open(format!("{}: the serving thread has ended", self.address)))
    }
}

fn open_error(message: String) -> SinkError {
    SinkError::Open(format!("sink.http: {message}"))
}

fn listen(config: &HttpConfig, inherited: &Inherited) -> Result<(Listening, String), SinkError> {
    match HttpListen::parse(&config.listen) {
        Some(HttpListen::Tcp(address)) => bind_tcp(address),
        Some(HttpListen::Unix(path)) => {
            let listener = Listener::bind(&path, &config.mode, KEY)?;
            Ok((Listening::Unix(listener), format!("unix:{}", path.display())))
        }
        Some(HttpListen::Systemd) => hand_down(inherited),
        // The configuration's own check comes first; this is for users of the library.
        None => Err(open_error(format!("{:?} is nothing to listen on", config.listen))),
    }
}

fn bind_tcp(address: SocketAddr) -> Result<(Listening, String), SinkError> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program listens there; stop it or ",
            std::io::ErrorKind::PermissionDenied => "take a port above 1023 or ",
            // AF_INET itself is refused: RestrictAddressFamilies= of the service.
            _ if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => {
                "the service has no network; enable salientd-http.socket with listen = \"systemd\", \
                 or "
            }
            _ => "",
        };
        open_error(format!("{address}: cannot listen: {error}; {hint}set {}", KEY.address))
    })?;
    let bound = listener.local_addr().unwrap_or(address);
    Ok((Listening::Tcp(listener), format!("http://{bound}/")))
}

fn hand_down(inherited: &Inherited) -> Result<(Listening, String), SinkError> {
    let found = inherited
        .listener("http")
        .map_err(|error| open_error(format!("the socket handed down cannot be used: {error}")))?;
    match found {
        Some(HandedDown::Tcp(listener)) => {
            let name = listener.local_addr().map_or("tcp".into(), |a| format!("http://{a}/"));
            Ok((Listening::Tcp(listener), name))
        }
        Some(HandedDown::Unix(listener)) => {
            let path = listener.local_addr().ok().and_then(|a| Some(a.as_pathname()?.to_owned()));
            let name = path.map_or("unix".into(), |path| format!("unix:{}", path.display()));
            Ok((Listening::Unix(Listener::inherited(listener)), name))
        }
        None => Err(open_error(format!(
            "listen = \"systemd\", but no listening socket named http was handed down (names: \
             {}); start the daemon through a socket unit with FileDescriptorName=http, or set {}",
            inherited.names(),
            KEY.address
        ))),
    }
}

fn is_open_to_others(listening: &Listening) -> bool {
    match listening {
        Listening::Tcp(listener) => {
            listener.local_addr().is_ok_and(|address| !address.ip().is_loopback())
        }
        // The file's mode says who may.
        Listening::Unix(_) => false,
    }
}

impl Sink for HttpSink {
    fn name(&self) -> &'static str {
        "http"
    }

    fn publish(&mut self, item: &Published) -> Result<(), SinkError> {
        self.check_serving()?;
        self.newest = Some(item.clone());
        self.board.publish(item, Instant::now());
        Ok(())
    }

    fn camera(&mut self, state: &CameraState) -> Result<(), SinkError> {
        self.check_serving()?;
        self.board.camera(state);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        self.check_serving()?;
        self.board.event(event);
        Ok(())
    }

    fn viewers(&self) -> Option<Arc<Viewers>> {
        Some(self.board.viewers.clone())
    }

    fn live(&mut self, live: &LivePicture) -> Result<(), SinkError> {
        self.check_serving()?;
        if self.board.overlay.is_watched() {
            let heatmap = self.newest.as_ref().map(|newest| &*newest.heatmap);
            let jpeg = self.drawing.jpeg(Picture::Overlay, &live.picture, heatmap)?;
            self.board.overlay.show(jpeg);
        }
        if self.board.raw.is_watched() {
            let jpeg = self.drawing.jpeg(Picture::Raw, &live.picture, None)?;
            self.board.raw.show(jpeg);
        }
        Ok(())
    }

    /// Streams have no end of their own: connections are cut.
    fn finish(&mut self) -> Result<(), SinkError> {
        self.server = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse, schema};

    #[test]
    fn arguments_of_commands_are_not_shown() {
        let toml = r#"
[camera.pipe]
command = ["curl", "-u", "me:s3cret", """http://cam/
?pwd=s3cret"""]
[[zones]]
name = "z"
polygon = [[0, 0], [1, 0], [1, 1]]
[[rules]]
name = "r"
zone = "z"
command = ["notify", "--token=s3cret"]
[[rules]]
name = "q"
zone = "z"
command = ["true"]
"#;
        let shown = shown(parse(toml, "test").unwrap());
        let commands: Vec<&str> = shown.lines().filter(|l| l.starts_with("command =")).collect();
        let expected = [
            "command = [\"curl\", \"… (3 arguments)\"]",
            "command = [\"notify\", \"… (1 arguments)\"]",
            "command = [\"true\"]",
        ];
        assert_eq!(commands, expected, "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    /// Another key that holds a command has to be left out too.
    #[test]
    fn there_are_no_other_commands() {
        let commands = |table: &schema::Table| {
            let keys = table.keys.iter().filter(|key| key.name.ends_with("command"));
            keys.map(|key| format!("{}.{}", table.path, key.name)).collect::<Vec<_>>()
        };
        let all: Vec<String> = schema::SCHEMA.iter().flat_map(commands).collect();
        assert_eq!(all, ["camera.pipe.command", "rules.command"]);
    }
}
