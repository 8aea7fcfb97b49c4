//! From a request to its answer.

use super::access::{self, Credentials};
use super::board::{Board, Newest, Picture};
use super::body::{self, Answer, BOUNDARY, Seat};
use super::{json, metrics, page};
use crate::config::Colormap;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// What a wrong token waits for its answer, so that guessing takes time.
const DENIED_AFTER: Duration = Duration::from_millis(500);

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Colours by the name that the configuration gives them.
const COLORMAPS: [(&str, Colormap); 5] = [
    ("turbo", Colormap::Turbo),
    ("viridis", Colormap::Viridis),
    ("inferno", Colormap::Inferno),
    ("jet", Colormap::Jet),
    ("grey", Colormap::Grey),
];

/// Why a request gets something else than it asked for.
type Refusal = (StatusCode, String);

pub(super) async fn answer(board: &Arc<Board>, request: Request<Incoming>) -> Response<Answer> {
    board.stats.requests.add(1);
    let answered = match admit(board, &request).await {
        Ok(()) => route(board, &request).await,
        // Probes carry no secrets, and whether all is well is none. Why not may be.
        Err(_) if is_probe(&request) => health(board.ailment()),
        Err(refusal) => Err(refusal),
    };
    let mut response = answered.unwrap_or_else(|(status, why)| refuse(status, &why));
    if request.method() == Method::HEAD {
        // A stream that nobody reads has no viewer.
        let length = hyper::body::Body::size_hint(response.body()).exact();
        *response.body_mut() = Answer::Whole(Bytes::new());
        if let Some(length) = length {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
    }
    response
}

/// Lets in whoever may ask.
async fn admit(board: &Board, request: &Request<Incoming>) -> Result<(), Refusal> {
    if !only_reads(request) {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD".into()));
    }
    let Some(secret) = &board.secret else {
        // Whoever knows the token needs no further proof.
        return match access::is_local_name(request.headers()) {
            true => Ok(()),
            false => Err((
                StatusCode::MISDIRECTED_REQUEST,
                "this name could be anybody's: ask for an IP address, localhost or a name of the \
                 local network, or set sink.http.token_file"
                    .into(),
            )),
        };
    };
    match secret.check(request.headers()) {
        Credentials::Good => Ok(()),
        Credentials::Missing => Err((StatusCode::UNAUTHORIZED, "a token is needed".into())),
        Credentials::Wrong => {
            board.stats.denied.add(1);
            tokio::time::sleep(DENIED_AFTER).await;
            Err((StatusCode::UNAUTHORIZED, "wrong token".into()))
        }
    }
}

fn only_reads(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET || request.method() == Method::HEAD
}

fn is_probe(request: &Request<Incoming>) -> bool {
    only_reads(request) && request.uri().path() == "/healthz"
}

async fn route(
    board: &Arc<Board>,
    request: &Request<Incoming>,
) -> Result<Response<Answer>, Refusal> {
    let query = Query::of(request.uri().query().unwrap_or_default());
    match request.uri().path() {
        "/" => Ok(page::response(whole(HTML, page::html()))),
        "/stream.mjpg" => {
            let seat = Seat::take(board, Some(query.picture()?)).ok_or_else(crowded)?;
            stream_pictures(board, seat, query.picture()?).await
        }
        "/events" => {
            let seat = Seat::take(board, None).ok_or_else(crowded)?;
            Ok(respond("text/event-stream", body::events(seat)))
        }
        "/snapshot.jpg" => {
            let picture = query.picture()?;
            encoded(board, "image/jpeg", move |board, newest| board.snapshot(newest, picture)).await
        }
        "/heatmap.png" => {
            let colours = query.colours()?;
            let class = query.number("class")?;
            encoded(board, "image/png", move |board, newest| {
                board.map_png(newest, colours, position(newest, class)?)
            })
            .await
        }
        "/mean.png" => {
            let colours = query.colours()?;
            let class = query.number("class")?;
            encoded(board, "image/png", move |board, n| board.mean_png(n, colours, class)).await
        }
        "/heatmap.npy" => encoded(board, "application/octet-stream", |_, n| Ok(n.npy())).await,
        "/state" => Ok(whole(JSON, json::state(board))),
        "/metrics" => {
            Ok(whole("text/plain; version=0.0.4; charset=utf-8", metrics::text(board).into()))
        }
        "/healthz" => health(board.ailment_in_full()),
        "/config" => {
            let config = board.about.config.lock().unwrap_or_else(|e| e.into_inner()).clone();
            Ok(whole(TEXT, config.into()))
        }
        _ => Err((StatusCode::NOT_FOUND, "no such page; docs/http.md lists them".into())),
    }
}

fn health(ailment: Option<String>) -> Result<Response<Answer>, Refusal> {
    match ailment {
        None => Ok(whole(TEXT, Bytes::from_static(b"ok\n"))),
        Some(ailment) => Err((StatusCode::SERVICE_UNAVAILABLE, ailment)),
    }
}

/// Where in the heatmap the class with this index is; without one, the best.
fn position(newest: &Newest, class: Option<usize>) -> Result<usize, String> {
    let Some(index) = class else { return Ok(0) };
    let classes = &newest.item.heatmap.classes;
    classes.iter().position(|class| class.index == index).ok_or_else(|| {
        let there: Vec<String> = classes.iter().map(|class| class.index.to_string()).collect();
        format!("class {index} has no map now; there is one of {}", there.join(", "))
    })
}

/// An answer made of the newest heatmap, off the thread that serves.
async fn encoded(
    board: &Arc<Board>,
    kind: &'static str,
    make: impl FnOnce(&Board, &Newest) -> Result<Bytes, String> + Send + 'static,
) -> Result<Response<Answer>, Refusal> {
    let newest =
        board.newest().ok_or((StatusCode::SERVICE_UNAVAILABLE, "no heatmap yet".to_string()))?;
    let sequence = newest.item.heatmap.sequence;
    let bytes = in_background(board, move |board| make(board, &newest)).await;
    let mut response = whole(kind, bytes.map_err(|why| (StatusCode::NOT_FOUND, why))?);
    // Tells pictures and maps of the same frame from others.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-salientd-sequence"), HeaderValue::from(sequence));
    Ok(response)
}

/// A stream that begins with the picture of the newest heatmap: the next may be long in
/// coming, or never come.
async fn stream_pictures(
    board: &Arc<Board>,
    seat: Seat,
    picture: Picture,
) -> Result<Response<Answer>, Refusal> {
    let first = match board.newest() {
        None => None,
        Some(newest) => {
            let made = in_background(board, move |board| board.snapshot(&newest, picture)).await;
            Some(made.map_err(|why| (StatusCode::INTERNAL_SERVER_ERROR, why))?)
        }
    };
    let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    Ok(respond(&kind, body::pictures(seat, picture, first)))
}

async fn in_background(
    board: &Arc<Board>,
    make: impl FnOnce(&Board) -> Result<Bytes, String> + Send + 'static,
) -> Result<Bytes, String> {
    // The runtime's queue of work has no bound, and work in it is done for nobody, too.
    let turn = board.encoding.clone().acquire_owned().await.map_err(|error| error.to_string())?;
    let board = board.clone();
    let made = tokio::task::spawn_blocking(move || {
        let made = make(&board);
        drop(turn);
        made
    })
    .await;
    made.unwrap_or_else(|error| Err(error.to_string()))
}

fn crowded() -> Refusal {
    let why = "as many streams are open as sink.http.max_connections allows";
    (StatusCode::SERVICE_UNAVAILABLE, why.into())
}

fn whole(kind: &str, bytes: Bytes) -> Response<Answer> {
    respond(kind, Answer::Whole(bytes))
}

fn respond(kind: &str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn refuse(status: StatusCode, why: &str) -> Response<Answer> {
    let mut response = whole(TEXT, format!("{why}\n").into());
    *response.status_mut() = status;
    let more = match status {
        StatusCode::UNAUTHORIZED => {
            Some((header::WWW_AUTHENTICATE, "Basic realm=\"salientd\", charset=\"UTF-8\""))
        }
        StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "GET, HEAD")),
        StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "5")),
        _ => None,
    };
    if let Some((name, value)) = more {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The part of an address after `?`. What is not known is let pass: a browser's own
/// `?1700000000` against its cache, a proxy's marks.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn of(text: &'a str) -> Self {
        Self(text)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        let pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn picture(&self) -> Result<Picture, Refusal> {
        match self.value("raw") {
            None | Some("0") => Ok(Picture::Overlay),
            Some("1") => Ok(Picture::Raw),
            Some(_) => Err(bad("raw", "0 or 1")),
        }
    }

    fn number(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let parse = |text: &str| text.parse().map_err(|_| bad(name, "an index from 0"));
        self.value(name).map(parse).transpose()
    }

    fn colours(&self) -> Result<(&'static str, Colormap), Refusal> {
        let wanted = self.value("colormap").unwrap_or("turbo");
        let found = COLORMAPS.into_iter().find(|(name, _)| *name == wanted);
        found.ok_or_else(|| bad("colormap", "turbo, viridis, inferno, jet or grey"))
    }
}

fn bad(name: &str, allowed: &str) -> Refusal {
    (StatusCode::BAD_REQUEST, format!("{name}: allowed {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HttpConfig, OverlayConfig};
    use crate::health::Health;
    use crate::sink::http::About;
    use crate::sink::wire::ModelEntry;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Instant;

    fn board() -> Arc<Board> {
        let about = About {
            model: ModelEntry::default(),
            classes: Vec::new(),
            zones: Vec::new(),
            rules: Vec::new(),
            means: None,
            health: Arc::new(Health::new(Instant::now())),
            config: Arc::default(),
            started: Instant::now(),
        };
        Arc::new(Board::new(&HttpConfig::default(), &OverlayConfig::default(), about, None))
    }

    /// A client that asks and leaves costs nothing but its turn.
    #[test]
    fn what_nobody_waits_for_any_more_is_not_made() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (board, made) = (board(), Arc::new(AtomicUsize::new(0)));
        runtime.block_on(async {
            let ask = || {
                let made = made.clone();
                in_background(&board, move |_| {
                    made.fetch_add(1, Relaxed);
                    Ok(Bytes::new())
                })
            };
            let busy = board.encoding.clone().acquire_owned().await.unwrap();
            for _ in 0..10 {
                let left = tokio::time::timeout(Duration::from_millis(1), ask()).await;
                assert!(left.is_err(), "it waits for its turn");
            }
            drop(busy);
            ask().await.unwrap();
        });
        assert_eq!(made.load(Relaxed), 1);
    }
}
