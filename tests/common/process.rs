//! The daemon as a process: its configuration in, its signals, sockets and log out.

use salientd::sink::wire::{Decoder, Message};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything here takes, even on a busy machine: for what fails by not coming.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// Tries `what` until it gives something.
pub fn wait_for<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = seen() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `salientd run` with a service manager that listens. Killed when dropped.
pub struct Daemon {
    child: Child,
    manager: UnixDatagram,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
    config: PathBuf,
}

impl Daemon {
    /// Starts it in `dir` with this configuration and, besides, these variables.
    pub fn start(dir: &Path, config: &str, variables: &[(&str, &str)]) -> Self {
        let (path, notify) = (dir.join("config.toml"), dir.join("notify"));
        std::fs::write(&path, config).unwrap();
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_salientd"))
            .args(["run", "--config"])
            .arg(&path)
            .env("NOTIFY_SOCKET", &notify)
            .env_remove("RUST_LOG")
            .env_remove("JOURNAL_STREAM")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        let reader = std::thread::spawn(move || {
            for line in lines.lines() {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line.unwrap());
                kept.push('\n');
            }
        });
        Self { child, manager, log, reader: Some(reader), config: path }
    }

    /// What the service manager is told next.
    pub fn told(&self) -> String {
        let mut buffer = [0; 4096];
        let n = self.manager.recv(&mut buffer).unwrap_or_else(|e| {
            panic!("the service manager hears nothing: {e}\n{}", self.log());
        });
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    /// Waits until the service manager is told something that begins so.
    pub fn wait_told(&self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let told = self.told();
            if told.starts_with(start) {
                return told;
            }
        }
        panic!("the service manager was not told {start}\n{}", self.log());
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn wait_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "the log has no {text:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Another configuration for the next SIGHUP.
    pub fn rewrite_config(&self, config: &str) {
        std::fs::write(&self.config, config).unwrap();
    }

    /// Waits for its end: how it ended, and all that it logged.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let child = &mut self.child;
        let status = wait_for("exit", || child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        (status, self.log())
    }

    /// SIGTERM, which has to end it in good order.
    pub fn stopped(self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let (status, log) = self.ended();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of the socket.
pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: Decoder::default() }
    }

    /// The next message; None at the end of the connection.
    pub fn next(&mut self) -> Option<Message> {
        let mut piece = [0; 1 << 16];
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            match self.stream.read(&mut piece).unwrap() {
                0 => return None,
                n => self.decoder.feed(&piece[..n]),
            }
        }
    }
}
