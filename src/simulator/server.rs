//! The HTTP server of the simulated feed, on loopback. It responds like the real server, and fails as a test requests.
//!
//! Like the real server it serves a static file with a length, a date and an `ETag` of hexadecimal mtime and size, and
//! supports `If-None-Match`, `Range` and `If-Range`. Each window's file is written once, to a temporary folder, and
//! streamed from there. A running request uses the same file to its end, even if the feed advances.

use super::fault::{FeedFault, corrupt_file, garbage_bytes, guard_page, gzip_bomb};
use super::{FileCounters, FileDelivery, Simulator};
use anyhow::Context;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt};
use headers::{ETag, HeaderMapExt, IfNoneMatch, IfRange, LastModified};
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

/// The path of the file.
pub const FEED_PATH: &str = "/FTPLSTDM/salesdata.cgi";

/// A served request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRequest {
    /// The status of the response.
    pub status: u16,
    /// The `Range` header of the request.
    pub range: Option<String>,
    /// The `User-Agent` header of the request.
    pub user_agent: Option<String>,
}

/// A window's file as served.
#[derive(Clone)]
struct ServedFile {
    path: PathBuf,
    size: u64,
    modified: DateTime<Utc>,
}

impl ServedFile {
    fn etag(&self) -> String {
        format!("\"{:x}-{:x}\"", self.modified.timestamp(), self.size)
    }

    fn last_modified(&self) -> String {
        httpdate::fmt_http_date(self.modified.into())
    }

    /// Returns true if the file has changed since the version in `If-Range`. Returns false without the header.
    fn is_modified(&self, headers: &HeaderMap) -> bool {
        let Some(condition) = headers.typed_get::<IfRange>() else { return false };
        let tag = self.etag().parse::<ETag>().ok();
        condition.is_modified(tag.as_ref(), Some(&LastModified::from(SystemTime::from(self.modified))))
    }

    /// Returns true if `If-None-Match`, or without it `If-Modified-Since`, matches the current file.
    fn is_not_modified(&self, headers: &HeaderMap) -> bool {
        match headers.typed_get::<IfNoneMatch>() {
            Some(tags) => self.etag().parse().is_ok_and(|tag| !tags.precondition_passes(&tag)),
            None => headers
                .get(header::IF_MODIFIED_SINCE)
                .is_some_and(|since| since.as_bytes() == self.last_modified().as_bytes()),
        }
    }
}

struct FeedServerState {
    current: Option<ServedFile>,
    before: Option<ServedFile>,
    fault: Option<(FeedFault, u32)>,
    hits: Vec<RecordedRequest>,
    /// Number of files corrupted by [`FeedServer::inject_fault`], used for their names.
    spoiled: u32,
}

type SharedFeedState = Arc<Mutex<FeedServerState>>;

/// Locks a mutex. A poisoned lock is ignored: its state is still valid, and a test that panicked elsewhere must not
/// mask this one.
fn lock_state<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running simulated feed.
pub struct FeedServer {
    address: SocketAddr,
    simulator: Arc<Mutex<Simulator>>,
    folder: Arc<tempfile::TempDir>,
    shared: SharedFeedState,
}

impl FeedServer {
    /// Serves window 0 of a simulator on a free port of 127.0.0.1 until the token is cancelled.
    pub async fn start(simulator: Simulator, stop: CancellationToken) -> anyhow::Result<FeedServer> {
        let listener =
            tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.context("could not listen for the simulated feed")?;
        let inner = FeedServerState { current: None, before: None, fault: None, hits: Vec::new(), spoiled: 0 };
        let shared: SharedFeedState = Arc::new(Mutex::new(inner));
        let server = FeedServer {
            address: listener.local_addr()?,
            simulator: Arc::new(Mutex::new(simulator)),
            folder: Arc::new(tempfile::tempdir().context("could not create a folder for the simulated feed's files")?),
            shared: shared.clone(),
        };
        let app = axum::Router::new().route(FEED_PATH, get(handle_request)).with_state(shared);
        tokio::spawn(async move {
            let serving = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(%error, "simulated feed server failed");
            }
        });
        server.advance_to(0).await?;
        Ok(server)
    }

    /// Returns the file's URL, with a key like the real one.
    pub fn url(&self) -> String {
        format!("http://{}{FEED_PATH}?authKey=simulated", self.address)
    }

    /// Advances to window `k`, whose file counts as read. A window at or before the current one is generated and served
    /// again.
    pub async fn advance_to(&self, k: u32) -> anyhow::Result<FileCounters> {
        self.serve_window(k, None, FileDelivery::Whole).await
    }

    /// Advances to window `k` and serves its file corrupted. `reach` is the part that a reader can use: `Nothing` for a
    /// file that must be refused.
    pub async fn advance_with_fault(
        &self,
        k: u32,
        fault: FeedFault,
        reach: FileDelivery,
    ) -> anyhow::Result<FileCounters> {
        self.serve_window(k, Some(fault), reach).await
    }

    /// Responds to the next `times` requests with this fault. `u32::MAX` means without limit. A fault of the file
    /// replaces the current file with a corrupt copy until the next window, regardless of `times`, and does not change
    /// the expected state.
    pub fn inject_fault(&self, fault: FeedFault, times: u32) -> anyhow::Result<()> {
        let mut inner = lock_state(&self.shared);
        if fault.is_in_file()
            && let Some(current) = inner.current.clone()
        {
            inner.spoiled += 1;
            let path = self.folder.path().join(format!("spoiled-{}.csv", inner.spoiled));
            let mut out = BufWriter::new(File::create(&path)?);
            corrupt_file(File::open(&current.path)?, &mut out, fault)?;
            out.flush()?;
            let spoiled = ServedFile { size: std::fs::metadata(&path)?.len(), path, modified: current.modified };
            inner.before = inner.current.replace(spoiled);
        } else {
            inner.fault = Some((fault, times));
        }
        Ok(())
    }

    /// Ends a fault. A corrupt file stays until the next window.
    pub fn clear_fault(&self) {
        lock_state(&self.shared).fault = None;
    }

    /// Returns the requests served so far.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        lock_state(&self.shared).hits.clone()
    }

    /// Calls `look` with the simulator, for access to the expected state.
    pub fn with_simulator<T>(&self, look: impl FnOnce(&Simulator) -> T) -> T {
        look(&lock_state(&self.simulator))
    }

    async fn serve_window(
        &self,
        k: u32,
        fault: Option<FeedFault>,
        reach: FileDelivery,
    ) -> anyhow::Result<FileCounters> {
        let (simulator, folder, shared) = (self.simulator.clone(), self.folder.clone(), self.shared.clone());
        let made = tokio::task::spawn_blocking(move || -> anyhow::Result<FileCounters> {
            let mut simulator = lock_state(&simulator);
            let path = folder.path().join(format!("{k}.csv"));
            let mut whole = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
            let counters = match reach {
                FileDelivery::Whole => simulator.write_window(k, &mut whole)?,
                _ => {
                    simulator.advance_to(k);
                    simulator.write_current(&mut whole)?;
                    simulator.record_file(reach)
                }
            };
            let path = match fault {
                Some(fault) if fault.is_in_file() => {
                    let spoiled = folder.path().join(format!("{k}-spoiled.csv"));
                    whole.seek(SeekFrom::Start(0))?;
                    let mut out = BufWriter::new(File::create(&spoiled)?);
                    corrupt_file(BufReader::new(whole), &mut out, fault)?;
                    out.flush()?;
                    spoiled
                }
                _ => path,
            };
            // The real file appears two to five seconds into the quarter-hour.
            let modified = simulator.options().window_start(k) + chrono::Duration::seconds(2 + i64::from(k % 4));
            let served = ServedFile { size: std::fs::metadata(&path)?.len(), path, modified };
            let mut inner = lock_state(&shared);
            let forgotten = inner.before.take();
            inner.before = inner.current.replace(served);
            inner.fault = fault.filter(|fault| !fault.is_in_file()).map(|fault| (fault, u32::MAX));
            let kept = [&inner.before, &inner.current];
            if let Some(old) =
                forgotten.filter(|old| kept.iter().all(|k| k.as_ref().is_none_or(|k| k.path != old.path)))
            {
                // Only unlinked: a request that still reads the file has it open.
                std::fs::remove_file(old.path).ok();
            }
            Ok(counters)
        });
        made.await?.with_context(|| format!("could not generate window {k} of the simulated feed"))
    }
}

/// Responds to one request and records it.
async fn handle_request(State(shared): State<SharedFeedState>, headers: HeaderMap) -> Response {
    let (fault, mut file, before) = {
        let mut inner = lock_state(&shared);
        let fault = inner.fault.map(|(fault, _)| fault);
        inner.fault = inner.fault.map(|(fault, left)| (fault, left.saturating_sub(u32::from(left != u32::MAX))));
        inner.fault.take_if(|(_, left)| *left == 0);
        (fault, inner.current.clone(), inner.before.clone())
    };
    if fault == Some(FeedFault::Stale)
        && let (Some(file), Some(before)) = (&mut file, before)
    {
        *file = ServedFile { modified: file.modified, ..before };
    }
    let response = match (fault, file) {
        (Some(FeedFault::Forbidden), _) => {
            (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, "text/html")], guard_page()).into_response()
        }
        (Some(FeedFault::HtmlPage), _) => ([(header::CONTENT_TYPE, "text/html")], guard_page()).into_response(),
        (Some(FeedFault::ProxyAuth), _) => {
            (StatusCode::PROXY_AUTHENTICATION_REQUIRED, [(header::PROXY_AUTHENTICATE, "Basic")], "pay first")
                .into_response()
        }
        (Some(FeedFault::Garbage), _) => garbage_bytes().into_response(),
        (Some(FeedFault::GzipBomb), _) => match gzip_bomb() {
            Ok(bomb) => ([(header::CONTENT_ENCODING, "gzip")], bomb).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        (Some(FeedFault::RedirectLoop), _) => (StatusCode::FOUND, [(header::LOCATION, FEED_PATH)]).into_response(),
        (fault, Some(file)) => serve_file(&headers, &file, fault).await,
        (_, None) => StatusCode::NOT_FOUND.into_response(),
    };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (range, user_agent) = (text(header::RANGE), text(header::USER_AGENT));
    lock_state(&shared).hits.push(RecordedRequest { status: response.status().as_u16(), range, user_agent });
    response
}

/// Serves the file or the requested range.
async fn serve_file(headers: &HeaderMap, file: &ServedFile, fault: Option<FeedFault>) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (etag, modified) = (file.etag(), file.last_modified());
    let shown_etag = match (fault, text(header::RANGE)) {
        (Some(FeedFault::WrongEtag { .. }), Some(_)) => "\"0-0\"",
        _ => etag.as_str(),
    };
    let answer = Response::builder()
        .header(header::ETAG, shown_etag)
        .header(header::LAST_MODIFIED, &modified)
        .header(header::ACCEPT_RANGES, "bytes");
    let built = if file.is_not_modified(headers) {
        answer.status(StatusCode::NOT_MODIFIED).body(Body::empty())
    } else {
        let current = !file.is_modified(headers);
        let range = text(header::RANGE).filter(|_| current).and_then(|range| parse_range(range, file.size));
        let (from, to) = range.unwrap_or((0, file.size));
        if from >= to && range.is_some() {
            let unit = format!("bytes */{}", file.size);
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            return (status, [(header::CONTENT_RANGE, unit)]).into_response();
        }
        let answer = match range {
            Some(_) => answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {from}-{}/{}", to - 1, file.size)),
            None => answer,
        };
        let missing = if let Some(FeedFault::Short { missing }) = fault { missing } else { 0 };
        let body = match file_body(file, from, to, fault).await {
            Ok(body) => body,
            Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        };
        answer
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_DISPOSITION, "attachment; filename=\"salesdata.csv\"")
            .header(header::CONTENT_LENGTH, to - from + missing)
            .body(body)
    };
    built.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response())
}

/// Returns the bytes `from..to` of a file as a body, with the fault applied.
async fn file_body(file: &ServedFile, from: u64, to: u64, fault: Option<FeedFault>) -> std::io::Result<Body> {
    let mut open = tokio::fs::File::open(&file.path).await?;
    tokio::io::AsyncSeekExt::seek(&mut open, SeekFrom::Start(from)).await?;
    let cut = match fault {
        Some(FeedFault::Reset { at } | FeedFault::WrongEtag { at }) => at.min(to - from),
        _ => to - from,
    };
    let breaks = matches!(fault, Some(FeedFault::Reset { .. } | FeedFault::WrongEtag { .. } | FeedFault::Short { .. }));
    let chunk = if let Some(FeedFault::Drip { bytes, .. }) = fault { bytes } else { 1 << 16 };
    let sent = ReaderStream::with_capacity(open.take(cut), chunk);
    let end = futures::stream::iter(breaks.then_some(())).then(|()| async {
        // An error discards the connection's buffered bytes. The pause lets them out first.
        tokio::time::sleep(Duration::from_millis(30)).await;
        Err(std::io::Error::other("the simulated feed closed the connection"))
    });
    let whole: std::pin::Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>> = Box::pin(sent.chain(end));
    Ok(match fault {
        Some(FeedFault::Drip { every, .. }) => Body::from_stream(whole.then(move |part| async move {
            tokio::time::sleep(every).await;
            part
        })),
        _ => Body::from_stream(whole),
    })
}

/// Returns the range `bytes=a-` or `bytes=a-b` of a file of this size, as a half-open span. Other forms are ignored, as
/// a server may do.
fn parse_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to = if to.is_empty() { size } else { to.parse::<u64>().ok()?.saturating_add(1).min(size) };
    Some((from, to))
}
