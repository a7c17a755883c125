//! An S3 server on loopback over a folder, which checks signatures and conditional puts, and fails when a test requests
//! it.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

const BUCKET: &str = "vinops";
const ACCESS_KEY: &str = "a-test";
const SECRET_KEY: &str = "a test's own key";

/// A server with one empty bucket. It stops on drop.
pub struct BucketServer {
    address: SocketAddr,
    state: Arc<ServerState>,
    _folder: TempDir,
    _stop: DropGuard,
}

struct ServerState {
    service: S3Service,
    faults: Arc<Faults>,
    requests: Mutex<Vec<ServedRequest>>,
}

/// The faults of the server.
#[derive(Default)]
pub struct Faults {
    /// The number of following requests that get a 503.
    pub slow_down: AtomicUsize,
    /// Every nth request gets a 503, unless this is 0.
    pub slow_down_every: AtomicUsize,
    /// The delay of responses to parts of an upload, in milliseconds.
    pub part_delay: AtomicUsize,
    /// The number of received bytes after which one connection is cut. None is cut at 0.
    pub cut_after: AtomicI64,
}

/// One answered request.
#[derive(Clone, Debug)]
pub struct ServedRequest {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub status: StatusCode,
    pub if_none_match: Option<String>,
    pub authorization: String,
}

impl ServedRequest {
    pub fn is_part(&self) -> bool {
        self.query.contains("partNumber=")
    }
}

impl BucketServer {
    pub async fn start() -> BucketServer {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let faults = Arc::new(Faults::default());
        let state =
            Arc::new(ServerState { service: builder.build(), faults: Arc::clone(&faults), requests: Mutex::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = axum::serve(
            FaultyListener { listener, faults },
            Router::new().fallback(answer).with_state(Arc::clone(&state)),
        );
        let stopping = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                served = served.into_future() => served.unwrap(),
                () = stopping.cancelled() => {}
            }
        });
        BucketServer { address, state, _folder: folder, _stop: stop.drop_guard() }
    }

    pub fn faults(&self) -> &Faults {
        &self.state.faults
    }

    /// Returns the answered requests.
    pub fn requests(&self) -> Vec<ServedRequest> {
        self.state.requests.lock().unwrap().clone()
    }

    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/fleet")
    }

    /// Returns the variables with which a process uses the bucket.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![("VINOPS_STORE".to_owned(), self.url())];
        environment.extend(self.settings().map(|(name, value)| (name.to_uppercase(), value)));
        environment
    }

    /// Returns the settings of a store in this process.
    pub fn settings(&self) -> [(&'static str, String); 5] {
        [
            ("aws_endpoint_url", format!("http://{}", self.address)),
            ("aws_allow_http", "true".to_owned()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_access_key_id", ACCESS_KEY.to_owned()),
            ("aws_secret_access_key", SECRET_KEY.to_owned()),
        ]
    }
}

impl Faults {
    /// Returns true if the nth request gets a 503.
    fn refuses(&self, nth: usize) -> bool {
        let left = |left: usize| left.checked_sub(1);
        let every = self.slow_down_every.load(Ordering::SeqCst);
        self.slow_down.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
            || (every > 0 && nth.is_multiple_of(every))
    }
}

fn header(request: &Request, name: &str) -> Option<String> {
    request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

async fn answer(State(state): State<Arc<ServerState>>, request: Request) -> Response {
    let mut served = ServedRequest {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        status: StatusCode::SERVICE_UNAVAILABLE,
        if_none_match: header(&request, "if-none-match"),
        authorization: header(&request, "authorization").unwrap_or_default(),
    };
    let nth = state.requests.lock().unwrap().len() + 1;
    let response = if state.faults.refuses(nth) {
        let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
        (StatusCode::SERVICE_UNAVAILABLE, [("content-type", "application/xml")], body).into_response()
    } else {
        if served.is_part() {
            let delay = state.faults.part_delay.load(Ordering::SeqCst) as u64;
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        match state.service.call(request.map(s3s::Body::http_body_unsync)).await {
            Ok(response) => response.map(Body::new),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")).into_response(),
        }
    };
    served.status = response.status();
    state.requests.lock().unwrap().push(served);
    response
}

/// Accepts connections that can be cut.
struct FaultyListener {
    listener: TcpListener,
    faults: Arc<Faults>,
}

impl Listener for FaultyListener {
    type Io = FaultyStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (FaultyStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (FaultyStream { stream, faults: Arc::clone(&self.faults) }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct FaultyStream {
    stream: TcpStream,
    faults: Arc<Faults>,
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = (buffer.filled().len() - before) as i64;
        let left = self.faults.cut_after.load(Ordering::SeqCst);
        if left > 0 {
            self.faults.cut_after.store((left - read).max(0), Ordering::SeqCst);
            if left <= read {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
