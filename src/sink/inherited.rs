//! Sockets that the service manager hands down (socket activation; sd_listen_fds(3)). They
//! work where the daemon itself may open none: without a network, as a user without rights.

use super::SinkError;
use rustix::io::FdFlags;
use rustix::net::AddressFamily;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

/// The sockets handed down, by name. They stay open for as long as this lives, so that a
/// reload finds them again.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(String, OwnedFd)>);

/// A listening socket of either kind.
#[derive(Debug)]
pub enum HandedDown {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Inherited {
    /// Takes what was handed to this process. To be called once, before other files are
    /// opened: the sockets are known by their numbers.
    pub fn take() -> Result<Self, SinkError> {
        let wrong = |why: String| {
            SinkError::Open(format!("socket activation: {why}; look at LISTEN_FDS and LISTEN_PID"))
        };
        let handed = sd_listen_fds::get().map_err(|error| wrong(error.to_string()))?;
        let mut sockets = Vec::new();
        for (name, socket) in handed {
            let socket = socket.into_std();
            // Not for the commands that a camera may run.
            rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)
                .map_err(|errno| wrong(errno.to_string()))?;
            sockets.push((name.unwrap_or_default(), socket));
        }
        Ok(Self(sockets))
    }

    /// A copy of the stream socket handed down as `name`; `None`: there is none that listens.
    pub fn listener(&self, name: &str) -> std::io::Result<Option<HandedDown>> {
        let Some((_, socket)) = self.0.iter().find(|(known, _)| known == name) else {
            return Ok(None);
        };
        if !rustix::net::sockopt::socket_acceptconn(socket)? {
            return Ok(None);
        }
        let copy = socket.try_clone()?;
        Ok(match rustix::net::sockopt::socket_domain(&copy)? {
            AddressFamily::UNIX => Some(HandedDown::Unix(copy.into())),
            AddressFamily::INET | AddressFamily::INET6 => Some(HandedDown::Tcp(copy.into())),
            _ => None,
        })
    }

    /// For messages: the names, or `none`.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }
}
