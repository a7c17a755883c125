//! A TCP proxy between the fleet and its database, which can delay, swallow, cut and refuse connections, and change its
//! backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The treatment of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ProxyMode {
    Pass,
    /// Each chunk is delivered after this delay.
    Delay(Duration),
    /// Nothing is delivered, and no error is reported. Held bytes are delivered when the mode changes.
    Swallow,
    /// New connections are refused.
    Refuse,
}

struct ProxyRoute {
    backend: watch::Sender<SocketAddr>,
    mode: watch::Sender<ProxyMode>,
    /// The number of cuts. Each ends the connections that exist at the time.
    cuts: watch::Sender<u32>,
    /// The number of times that existing connections were stranded, which ends them without an error.
    stranded: watch::Sender<u32>,
}

pub struct TcpProxy {
    pub address: SocketAddr,
    way: Arc<ProxyRoute>,
    _serving: AbortOnDropHandle<()>,
}

impl TcpProxy {
    pub async fn new(backend: SocketAddr) -> TcpProxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let way = Arc::new(ProxyRoute {
            backend: watch::channel(backend).0,
            mode: watch::channel(ProxyMode::Pass).0,
            cuts: watch::channel(0).0,
            stranded: watch::channel(0).0,
        });
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn({
            let way = way.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve_client(client, way.clone()));
                }
            }
        });
        TcpProxy { address, way, _serving: AbortOnDropHandle::new(serving) }
    }

    /// Returns the URL with this proxy's address.
    pub fn url(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.into()
    }

    pub fn set_mode(&self, mode: ProxyMode) {
        self.way.mode.send_replace(mode);
    }

    /// Ends every connection. New ones are accepted.
    pub fn cut_connections(&self) {
        self.way.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Makes every existing connection dead without an error. New ones are accepted.
    pub fn strand_connections(&self) {
        self.way.stranded.send_modify(|times| *times += 1);
    }

    /// Directs new connections to this backend.
    pub fn set_backend(&self, backend: SocketAddr) {
        self.way.backend.send_replace(backend);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.cut_connections();
    }
}

async fn serve_client(client: TcpStream, way: Arc<ProxyRoute>) {
    let (mut cut, mut stranded) = (way.cuts.subscribe(), way.stranded.subscribe());
    if *way.mode.borrow() == ProxyMode::Refuse {
        return;
    }
    let backend = *way.backend.borrow();
    let Ok(server) = TcpStream::connect(backend).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).ok();
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // both ends stay open when they are stranded
    let (mut forth, mut back) = ((from_client, to_server), (from_server, to_client));
    tokio::select! {
        () = copy_bytes(&mut forth.0, &mut forth.1, way.mode.subscribe()) => {}
        () = copy_bytes(&mut back.0, &mut back.1, way.mode.subscribe()) => {}
        _ = cut.changed() => {}
        _ = stranded.changed() => drop(cut.changed().await),
    }
}

async fn copy_bytes(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, mut mode: watch::Receiver<ProxyMode>) {
    let mut piece = vec![0; 1 << 16];
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        let now = *mode.borrow_and_update();
        let held = match now {
            ProxyMode::Delay(delay) => tokio::time::timeout(delay, std::future::pending::<()>()).await.is_ok(),
            _ => mode.wait_for(|mode| *mode != ProxyMode::Swallow).await.is_err(),
        };
        if held || to.write_all(&piece[..bytes]).await.is_err() {
            return;
        }
    }
}
