//! Messages to the service manager: sd_notify(3)'s protocol, a datagram of `NAME=value`
//! lines to the socket that it names. Without one every call does nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog_timeout: Option<Duration>,
}

impl Notifier {
    /// As the environment says: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
    ///
    /// # Errors
    /// For a NOTIFY_SOCKET that is not a socket address.
    pub fn from_env() -> io::Result<Self> {
        let var = |name| std::env::var(name).ok();
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(Self::default()) };
        let watchdog = watchdog_timeout(var("WATCHDOG_USEC"), var("WATCHDOG_PID"));
        Self::to_socket(&address, watchdog)
    }

    /// To a socket: a path, or `@NAME` for an abstract one.
    pub fn to_socket(address: &OsStr, watchdog_timeout: Option<Duration>) -> io::Result<Self> {
        let address = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that does not read must not stop us.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some((socket, address)), watchdog_timeout })
    }

    /// After how long without [`Self::watchdog`] the service manager acts; `None`: it does
    /// not watch us.
    pub fn watchdog_timeout(&self) -> Option<Duration> {
        self.watchdog_timeout
    }

    /// Start-up takes longer: the service manager gives it this much more from now on.
    pub fn extend(&self, by: Duration) -> io::Result<()> {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}\n", by.as_micros()))
    }

    /// Start-up, or a reload, is finished.
    pub fn ready(&self) -> io::Result<()> {
        self.send("READY=1\n")
    }

    /// A reload begins; [`Self::ready`] ends it. The time lets systemd 253 and later tell
    /// this reload from an earlier one.
    pub fn reloading(&self) -> io::Result<()> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={us}\n"))
    }

    /// Shutdown begins.
    pub fn stopping(&self) -> io::Result<()> {
        self.send("STOPPING=1\n")
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.send(&format!("STATUS={}\n", text.replace('\n', "; ")))
    }

    /// All is well.
    pub fn watchdog(&self) -> io::Result<()> {
        self.send("WATCHDOG=1\n")
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let Some((socket, address)) = &self.socket else { return Ok(()) };
        socket.send_to_addr(message.as_bytes(), address)?;
        Ok(())
    }
}

/// WATCHDOG_PID keeps a child that inherited the variables from answering for us.
fn watchdog_timeout(usec: Option<String>, pid: Option<String>) -> Option<Duration> {
    if pid.is_some_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    usec?.parse().ok().filter(|us| *us > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(listener: &UnixDatagram, notifier: &Notifier) {
        listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let receive = || {
            let mut buffer = [0; 256];
            let n = listener.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..n].to_vec()).unwrap()
        };
        notifier.extend(Duration::from_secs(30)).unwrap();
        assert_eq!(receive(), "EXTEND_TIMEOUT_USEC=30000000\n");
        notifier.ready().unwrap();
        assert_eq!(receive(), "READY=1\n");
        notifier.status("no camera:\ngone").unwrap();
        assert_eq!(receive(), "STATUS=no camera:; gone\n");
        notifier.watchdog().unwrap();
        assert_eq!(receive(), "WATCHDOG=1\n");
        notifier.stopping().unwrap();
        assert_eq!(receive(), "STOPPING=1\n");
        notifier.reloading().unwrap();
        let reload = receive();
        let us = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(us.parse::<u64>().unwrap() > 0, "{reload}");
    }

    #[test]
    fn sends_to_a_path_and_to_an_abstract_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        exchange(&listener, &Notifier::to_socket(path.as_os_str(), None).unwrap());

        let name = format!("salientd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        let name = format!("@{name}");
        exchange(&listener, &Notifier::to_socket(OsStr::new(&name), None).unwrap());
    }

    #[test]
    fn without_a_service_manager_nothing_is_sent_and_nothing_fails() {
        let notifier = Notifier::default();
        notifier.ready().unwrap();
        notifier.watchdog().unwrap();
        assert_eq!(notifier.watchdog_timeout(), None);
    }

    #[test]
    fn a_reader_that_is_stuck_or_gone_is_an_error_and_not_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to_socket(path.as_os_str(), None).unwrap();
        let full = (0..100_000).find_map(|_| notifier.watchdog().err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert_eq!(notifier.watchdog().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    /// The environment belongs to the whole process, so a child of this test plays the
    /// daemon.
    #[test]
    fn reads_the_environment() {
        if std::env::var_os("NOTIFY_TEST_CHILD").is_some() {
            let notifier = Notifier::from_env().unwrap();
            let timeout = notifier.watchdog_timeout().unwrap();
            return notifier.status(&format!("watched at {} ms", timeout.as_millis())).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "health::notify::tests::reads_the_environment"])
            .env("NOTIFY_TEST_CHILD", "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "30000000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        let mut buffer = [0; 256];
        let n = listener.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..n], *b"STATUS=watched at 30000 ms\n");
    }

    #[test]
    fn timeouts() {
        let own = std::process::id().to_string();
        let second = Some(Duration::from_secs(1));
        let cases = [
            (Some("1000000"), None, second),
            (Some("1000000"), Some(own.as_str()), second),
            (Some("1000000"), Some("1"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (None, Some(own.as_str()), None),
        ];
        for (usec, pid, expected) in cases {
            let seen = watchdog_timeout(usec.map(Into::into), pid.map(Into::into));
            assert_eq!(seen, expected, "{usec:?} {pid:?}");
        }
    }
}
