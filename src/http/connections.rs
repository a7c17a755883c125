//! The connections of the HTTP server, bounded in number and in time.
//!
//! A client that opens a connection and sends no request, or a request byte by byte, costs a file descriptor for as
//! long as the client likes. So a connection is closed if no request begins in time, if a request is not answered in
//! time from its first byte on, or if the client does not read the response. Connections beyond the limit wait in the
//! system's queue until another one is closed.

use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Longest wait for a request, for the response from the request's first byte on, and for the client to read on.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of open connections.
pub(super) const MAX_CONNECTIONS: usize = 512;

/// A listener whose connections are bounded.
pub(super) struct BoundedListener {
    listener: TcpListener,
    free: Arc<Semaphore>,
    timeout: Duration,
}

impl BoundedListener {
    /// Bounds the connections of a listener in number and in time.
    pub(super) fn new(listener: TcpListener, connections: usize, timeout: Duration) -> BoundedListener {
        BoundedListener { listener, free: Arc::new(Semaphore::new(connections)), timeout }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        // The semaphore is never closed. If it were, connections would be unbounded rather than refused.
        let permit = self.free.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let deadline = Box::pin(sleep(self.timeout));
        (BoundedStream { stream, deadline, timeout: self.timeout, reading: false, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with a deadline.
pub(super) struct BoundedStream {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
    /// True if a request has begun and none of its response is written.
    reading: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl BoundedStream {
    fn extend_deadline(&mut self) {
        self.deadline.as_mut().reset(Instant::now() + self.timeout);
    }

    /// Returns an error if the deadline of the connection is over, otherwise `Pending`.
    fn poll_deadline<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Extends the deadline if bytes were written.
    fn after_write(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.poll_deadline(cx),
            Poll::Ready(written) => {
                self.reading = false;
                self.extend_deadline();
                Poll::Ready(written)
            }
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Pending => self.poll_deadline(cx),
            Poll::Ready(read) => {
                // Only the first bytes of a request extend the deadline, or a slow client would never time out.
                if !self.reading && buffer.filled().len() > before {
                    self.reading = true;
                    self.extend_deadline();
                }
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    async fn start_server(connections: usize, timeout: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(async || "here"));
        let bounded = BoundedListener::new(listener, connections, timeout);
        tokio::spawn(async { axum::serve(bounded, app).await });
        address
    }

    /// Reads until the server closes the connection.
    async fn read_until_closed(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // A reset also closes the connection.
        _ = stream.read_to_end(&mut text).await;
        String::from_utf8(text).unwrap()
    }

    async fn send_request(stream: &mut TcpStream) -> String {
        stream.write_all(REQUEST).await.unwrap();
        let mut text = String::new();
        while !text.ends_with("here") {
            let mut part = [0; 512];
            let n = stream.read(&mut part).await.unwrap();
            assert_ne!(n, 0, "closed after {text}");
            text.push_str(std::str::from_utf8(&part[..n]).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn a_connection_without_a_request_and_one_with_half_of_it_are_closed() {
        let address = start_server(8, Duration::from_millis(200)).await;
        for half in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(half).await.unwrap();
            assert_eq!(read_until_closed(&mut stream).await, "");
        }
    }

    #[tokio::test]
    async fn a_request_that_drips_is_closed_while_bytes_still_come() {
        let address = start_server(8, Duration::from_millis(300)).await;
        let (mut reading, mut writing) = TcpStream::connect(address).await.unwrap().into_split();
        let dripping = tokio::spawn(async move {
            writing.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while writing.write_all(b"x").await.is_ok() {
                tick.tick().await;
            }
        });
        let mut text = Vec::new();
        _ = reading.read_to_end(&mut text).await;
        assert_eq!(text, b"");
        drop(reading);
        dripping.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_is_used_outlives_its_timeout() {
        let address = start_server(8, Duration::from_millis(400)).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(150));
        for _ in 0..6 {
            tick.tick().await;
            assert!(send_request(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
        }
        assert_eq!(read_until_closed(&mut stream).await, "", "and is closed when it is not used any more");
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_answered_when_another_ends() {
        let address = start_server(1, Duration::from_millis(300)).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut waiting = TcpStream::connect(address).await.unwrap();
        assert!(send_request(&mut waiting).await.starts_with("HTTP/1.1 200 OK"));
        assert_eq!(read_until_closed(&mut idle).await, "");
    }
}
