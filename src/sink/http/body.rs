//! What answers consist of: whole bytes, or a stream without an end.

use super::board::{Board, Newest, Picture, Shown};
use crate::sink::CameraState;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;

/// Parts the pictures of a stream. Not in a JPEG: their lengths stand before them anyway.
pub(super) const BOUNDARY: &str = "salientd-frame";
/// A stream of events says something at least so often, so that a lost viewer is noticed.
const PING_EVERY: Duration = Duration::from_secs(10);

/// An answer's body.
pub(super) enum Answer {
    Whole(Bytes),
    /// The next piece in the making.
    Stream(Next),
}

type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Box<dyn Source>)>> + Send>>;

/// Where a stream's pieces come from. Asked for one only when the connection has room for
/// it, so that the piece is as new as can be.
pub(super) trait Source: Send {
    fn next(self: Box<Self>) -> Next;
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Self::Whole(bytes) => std::mem::take(bytes),
            Self::Stream(next) => match next.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some((piece, source))) => {
                    *next = source.next();
                    piece
                }
            },
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Somebody who watches a stream; gone when this is dropped.
pub(super) struct Seat {
    board: Arc<Board>,
    what: Option<Picture>,
}

impl Seat {
    /// Of a stream of pictures, or, with `None`, of events. `None`: all are taken.
    pub fn take(board: &Arc<Board>, what: Option<Picture>) -> Option<Self> {
        let watching = board.watching();
        if watching >= board.config.max_connections * 3 / 4 {
            return None;
        }
        match what {
            Some(picture) => {
                board.channel(picture).join();
                board.viewers.join();
            }
            None => {
                board.listeners.fetch_add(1, Relaxed);
            }
        }
        Some(Self { board: board.clone(), what })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        match self.what {
            Some(picture) => {
                self.board.channel(picture).leave();
                self.board.viewers.leave();
            }
            None => {
                self.board.listeners.fetch_sub(1, Relaxed);
            }
        }
    }
}

/// `multipart/x-mixed-replace`: the newest picture whenever there is room for one.
struct Pictures {
    frames: watch::Receiver<Shown>,
    last: u64,
    seat: Seat,
}

/// A stream of pictures that begins with `first`, if there is one.
pub(super) fn pictures(seat: Seat, picture: Picture, first: Option<Bytes>) -> Answer {
    let mut frames = seat.board.channel(picture).frames.subscribe();
    let last = frames.borrow_and_update().number;
    let source = Box::new(Pictures { frames, last, seat });
    let mut begin = format!("--{BOUNDARY}\r\n").into_bytes();
    if let Some(jpeg) = first {
        begin.extend_from_slice(&part(&jpeg));
    }
    Answer::Stream(Box::pin(async move { Some((Bytes::from(begin), source as Box<dyn Source>)) }))
}

/// A picture as a part of a stream. The boundary that ends it goes with it: browsers show a
/// picture when they see its end, which else would come with the next one.
pub(super) fn part(jpeg: &[u8]) -> Bytes {
    let head = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
    let tail = format!("\r\n--{BOUNDARY}\r\n");
    [head.as_bytes(), jpeg, tail.as_bytes()].concat().into()
}

impl Source for Pictures {
    fn next(mut self: Box<Self>) -> Next {
        Box::pin(async move {
            self.frames.changed().await.ok()?;
            let shown = self.frames.borrow_and_update().clone();
            let missed = shown.number.saturating_sub(self.last + 1);
            self.seat.board.stats.frames_dropped.add(missed);
            self.seat.board.stats.frames_sent.add(1);
            self.last = shown.number;
            Some((shown.part, self as Box<dyn Source>))
        })
    }
}

/// Server-sent events: each heatmap's JSON, the camera's state when it changes, and what
/// rules say.
struct Events {
    seat: Seat,
    now: watch::Receiver<super::board::Now>,
    heatmap: Option<Arc<Newest>>,
    camera: Option<CameraState>,
    /// How many of the rules' events are told; `None`: not even which are raised.
    rules: Option<u64>,
}

pub(super) fn events(seat: Seat) -> Answer {
    let mut now = seat.board.now.subscribe();
    now.mark_changed();
    Answer::Stream(Box::new(Events { seat, now, heatmap: None, camera: None, rules: None }).next())
}

/// Appends an event: the lines before its data, and the data, which has no line breaks.
fn tell(text: &mut Vec<u8>, head: &str, data: &[u8]) {
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(b"\ndata: ");
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
}

impl Source for Events {
    fn next(mut self: Box<Self>) -> Next {
        Box::pin(async move {
            match tokio::time::timeout(PING_EVERY, self.now.changed()).await {
                Err(_) => return Some((Bytes::from_static(b": still here\n\n"), self as _)),
                Ok(changed) => changed.ok()?,
            }
            let now = self.now.borrow_and_update().clone();
            let mut text = Vec::new();
            if self.camera.as_ref() != Some(&now.camera) {
                tell(&mut text, "event: camera", &super::json::camera(&now.camera));
                self.camera = Some(now.camera);
            }
            let is_new = |newest: &&Arc<Newest>| {
                self.heatmap.as_ref().is_none_or(|last| !Arc::ptr_eq(last, newest))
            };
            if let Some(newest) = now.newest.as_ref().filter(is_new) {
                let sequence = newest.item.heatmap.sequence;
                let head = format!("event: heatmap\nid: {sequence}");
                tell(&mut text, &head, &newest.event());
                self.heatmap = Some(newest.clone());
                self.seat.board.stats.events_sent.add(1);
            }
            match self.rules.replace(now.alarms.count()) {
                Some(seen) => {
                    now.alarms.since(seen).for_each(|e| tell(&mut text, "event: rule", e))
                }
                None => now.alarms.raised().for_each(|event| {
                    tell(&mut text, "event: rule", &super::json::rule(event));
                }),
            }
            Some((text.into(), self as Box<dyn Source>))
        })
    }
}
