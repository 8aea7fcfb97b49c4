//! mosquitto, Debian's own, for tests of what is published to a broker.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::process::PATIENCE;

/// A port below those that the kernel gives away by itself, so that no other test's connection
/// sits on it when a broker starts, or starts again.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 1000) as u16 * 10;
    for _ in 0..100 {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {first} on");
}

/// mosquitto with its own configuration.
pub struct Broker {
    child: Child,
    pub port: u16,
    config: PathBuf,
}

impl Broker {
    pub fn start(dir: &Path, settings: &str) -> Self {
        Self::start_on(dir, settings, free_port())
    }

    pub fn start_on(dir: &Path, settings: &str, port: u16) -> Self {
        let config = dir.join("mosquitto.conf");
        fs::write(&config, format!("listener {port} 127.0.0.1\nuser root\n{settings}\n")).unwrap();
        Self { child: Self::spawn(&config, port), port, config }
    }

    fn spawn(config: &Path, port: u16) -> Child {
        let log = config.with_extension("log");
        let file = fs::File::create(&log).unwrap();
        // Debian keeps it among the administrator's programs.
        let mut child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .expect("mosquitto: sudo apt-get install mosquitto mosquitto-clients");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "mosquitto: {ended:?}: {}",
                fs::read_to_string(&log).unwrap()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// With SIGTERM, on which it saves what it is to keep.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }

    pub fn restart(&mut self) {
        self.stop();
        self.child = Self::spawn(&self.config, self.port);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}
