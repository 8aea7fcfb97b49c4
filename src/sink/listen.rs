//! Unix sockets that listen, with their files; and sockets handed down by the service
//! manager.

use super::SinkError;
use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Another daemon that starts at the same path holds the lock for less.
const LOCK_TRIES: u32 = 20;
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// Where in the configuration a listening address stands, for errors.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub table: &'static str,
    /// Dotted, of the address itself.
    pub address: &'static str,
}

/// A listening socket; removes its file when it goes, if it made that file.
pub(super) struct Listener {
    pub socket: UnixListener,
    file: Option<SocketFile>,
}

/// A socket file as we made it.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl Listener {
    /// Keeps the socket's file: it belongs to whoever handed the socket down.
    pub fn inherited(socket: UnixListener) -> Self {
        Self { socket, file: None }
    }

    /// Listens at `path`; `mode` is octal text such as `0660`.
    pub fn bind(path: &Path, mode: &str, key: Key) -> Result<Self, SinkError> {
        let (shown, set) = (path.display(), key.address);
        let mode = parse_mode(mode, key)?;
        let address = SocketAddrUnix::new(path).map_err(|_| {
            key.error(format!(
                "{shown}: longer than the 107 bytes that a socket path may have; set {set}"
            ))
        })?;
        // Two daemons that start at once would both find a stale file, and the second
        // would remove the living socket of the first.
        let _lock = lock(path, key)?;
        remove_stale(path, &address, key)?;
        let cannot = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "create the directory or ",
                io::ErrorKind::PermissionDenied => "let this user write in the directory or ",
                _ => "",
            };
            key.error(format!("{shown}: cannot listen: {error}; {hint}set {}", key.address))
        };
        let socket = listen(path, &address, mode).map_err(cannot)?;
        let made = fs::symlink_metadata(path).map_err(cannot)?;
        let file = SocketFile { path: path.into(), device: made.dev(), inode: made.ino() };
        Ok(Self { socket: socket.into(), file: Some(file) })
    }

    /// Removes the socket's file, so that nobody new finds it.
    pub fn unlink(&mut self) {
        self.file = None;
    }
}

impl Key {
    fn error(self, message: String) -> SinkError {
        SinkError::Open(format!("{}: {message}", self.table))
    }
}

fn parse_mode(text: &str, key: Key) -> Result<u32, SinkError> {
    u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o777).ok_or_else(|| {
        key.error(format!("mode {text:?} is not an octal file mode from 0000 to 0777"))
    })
}

fn listen(path: &Path, address: &SocketAddrUnix, mode: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // On Linux the file takes the descriptor's mode, less the umask: so it is at no
    // moment open to more users than `mode` says …
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, address)?;
    // … and this gives back what the umask took.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// An exclusive lock on a file beside `path`, until it is closed. A file of our own that
/// nobody else may open: any user who may read a directory could keep that locked, and us
/// from starting. It stays there: were it removed, one who waits for it would lock a file
/// that has no name any more, and a third a new one beside it. `None` where it cannot be
/// made: binding will tell why.
fn lock(path: &Path, key: Key) -> Result<Option<File>, SinkError> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let beside = path.with_file_name(format!(".{name}.lock"));
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600).custom_flags(no_follow);
    let Ok(file) = options.open(&beside) else { return Ok(None) };
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_RETRY),
            // A file system without locks is no reason not to serve.
            _ => return Ok(Some(file)),
        }
    }
    Err(key.error(format!(
        "{}: another process keeps {} locked; stop it or set {}",
        path.display(),
        beside.display(),
        key.address
    )))
}

/// Makes way for a new socket file, if what stands at `path` is a socket without a process.
fn remove_stale(path: &Path, address: &SocketAddrUnix, key: Key) -> Result<(), SinkError> {
    let (shown, set) = (path.display(), key.address);
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(
            key.error(format!("{shown}: exists and is not a socket; remove it or set {set}"))
        );
    }
    match listening_pid(address) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => {}
        Err(error) => {
            return Err(key.error(format!(
                "{shown}: cannot tell whether its socket is in use: {error}; \
                 remove it or set {set}"
            )));
        }
        Ok(Some(pid)) if pid == std::process::id() => {
            return Err(key.error(format!(
                "{shown}: a sink of this daemon still listens there, another one or that of the \
                 old configuration; set {set} or reload again"
            )));
        }
        Ok(pid) => {
            let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            return Err(key.error(format!(
                "{shown}: another process{pid} is listening; stop it or set {set}"
            )));
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(key.error(format!(
            "{shown}: cannot remove the stale socket: {error}; remove it or set {set}"
        ))),
        _ => Ok(()),
    }
}

/// The process that listens, where the kernel tells it.
fn listening_pid(address: &SocketAddrUnix) -> Result<Option<u32>, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, address) {
        // Its backlog is full: it listens.
        Err(Errno::AGAIN) => return Ok(None),
        other => other?,
    }
    let peer = rustix::net::sockopt::socket_peercred(&probe).ok();
    Ok(peer.map(|peer| peer.pid.as_raw_nonzero().get().unsigned_abs()))
}
