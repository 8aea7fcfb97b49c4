//! The thread that accepts connections and serves them, within its limits.

use super::Listening;
use super::board::Board;
use super::connection::Patient;
use super::routes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

/// A request's head has to be there within this; a connection may be idle for as long.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The largest head: the request line and all headers.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// A client that takes no byte for this long is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause after a failed `accept`: the usual cause is too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Connections above the limit that are told so at the same time; others are just closed.
const MAX_TOLD: usize = 32;
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// What may wait in the kernel for a viewer: a picture or two. More would only make a slow
/// viewer see the past.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Encoding small answers; more at the same time would take cores from inference.
pub(super) const BACKGROUND_THREADS: usize = 1;
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// The serving thread. Stops when dropped.
pub(super) struct Handle {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    pub fn is_serving(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("sink http: the serving thread panicked");
        }
    }
}

pub(super) fn start(listening: Listening, board: Arc<Board>) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BACKGROUND_THREADS)
        .thread_name("http-encode")
        .build()?;
    let (stop, stopped) = watch::channel(false);
    let door = {
        let _inside = runtime.enter();
        Door::new(listening)?
    };
    let thread = std::thread::Builder::new().name("sink-http".into()).spawn(move || {
        runtime.block_on(accept(door, board, stopped));
        runtime.shutdown_timeout(STOP_WITHIN);
    })?;
    Ok(Handle { stop, thread: Some(thread) })
}

/// A listener of either kind, as the runtime knows it.
enum Door {
    Tcp(TcpListener),
    /// With the file that goes when this does.
    Unix(UnixListener, #[allow(dead_code)] super::Listener),
}

/// A connection of either kind.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

impl Door {
    fn new(listening: Listening) -> io::Result<Self> {
        match listening {
            Listening::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(listener)?))
            }
            Listening::Unix(listener) => {
                let socket = listener.socket.try_clone()?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(UnixListener::from_std(socket)?, listener))
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Connection>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let size = SEND_BUFFER_BYTES;
                rustix::net::sockopt::set_socket_send_buffer_size(&stream, size)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

async fn accept(door: Door, board: Arc<Board>, mut stopped: watch::Receiver<bool>) {
    let seats = Arc::new(Semaphore::new(board.config.max_connections));
    let told = Arc::new(Semaphore::new(MAX_TOLD));
    let serving = async {
        loop {
            let stream = match door.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    log::debug!("sink http: cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(seat) = seats.clone().try_acquire_owned() else {
                board.stats.refused.add(1);
                if let Ok(permit) = told.clone().try_acquire_owned() {
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(TOLD_WITHIN, turn_away(stream)).await;
                        drop(permit);
                    });
                }
                continue;
            };
            let board = board.clone();
            tokio::spawn(async move {
                board.stats.connections.fetch_add(1, Relaxed);
                serve(stream, &board).await;
                board.stats.connections.fetch_sub(1, Relaxed);
                drop(seat);
            });
        }
    };
    let mut serving = std::pin::pin!(serving);
    // Ends too when the handle is gone without a word.
    let mut stop = std::pin::pin!(stopped.wait_for(|&stop| stop));
    std::future::poll_fn(|context| match stop.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => serving.as_mut().poll(context),
    })
    .await;
}

async fn serve(stream: Box<dyn Connection>, board: &Arc<Board>) {
    let service = service_fn(|request| {
        let board = board.clone();
        async move { Ok::<_, Infallible>(routes::answer(&board, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream, PATIENCE)), service)
        .await;
    if let Err(error) = served {
        // Clients come and go as they like.
        log::debug!("sink http: {error}");
    }
}

/// Says that there are enough connections. The request is read first: closing with unread
/// bytes would reset the connection, and the answer with it.
async fn turn_away(mut stream: Box<dyn Connection>) -> io::Result<()> {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head).await?;
    let why = "as many connections are open as sink.http.max_connections allows\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n{why}",
        why.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
