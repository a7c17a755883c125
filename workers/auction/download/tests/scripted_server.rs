//! A test server that sends prepared responses in order, and records the requests.

use axum::body::Body;
use axum::http::{Request, Response as Answer};
use axum::routing::any;
use reqwest::header::{HeaderMap, HeaderName};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// The secret key, of which no trace may appear in any output.
pub const SECRET_KEY: &str = "PLANTED-kEy/7f3a";
/// The secret key as encoded in the URL's query.
pub const ENCODED_KEY: &str = "PLANTED-kEy%2F7f3a";

pub fn feed_csv() -> String {
    format!("\"Id\",\"Lot number\"\n{}", "1,45148624\n".repeat(300))
}

/// A response of the server to one request.
pub type ScriptedResponse = Box<dyn FnOnce(&Request<Body>) -> Answer<Body> + Send>;

/// A server that sends prepared responses in order, and records the headers of the requests.
pub struct ScriptedServer {
    pub url: String,
    pub asked: Arc<Mutex<Vec<HeaderMap>>>,
}

impl ScriptedServer {
    pub async fn with_responses(acts: Vec<ScriptedResponse>) -> ScriptedServer {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (remembered, acts) = (asked.clone(), Arc::new(Mutex::new(VecDeque::from(acts))));
        let play = move |request: Request<Body>| {
            remembered.lock().unwrap().push(request.headers().clone());
            let act = acts.lock().unwrap().pop_front();
            let over = || response_builder(500).body("no prepared response is left".into()).unwrap();
            std::future::ready(act.map_or_else(over, |act| act(&request)))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/salesdata.cgi?authKey={ENCODED_KEY}", listener.local_addr().unwrap());
        let app = axum::Router::new().route("/{*any}", any(play));
        tokio::spawn(async { axum::serve(listener, app).await });
        ScriptedServer { url, asked }
    }

    pub fn request_header(&self, request: usize, header: HeaderName) -> Option<String> {
        let asked = self.asked.lock().unwrap();
        asked[request].get(header).map(|v| v.to_str().unwrap().to_owned())
    }
}

pub fn response_builder(status: u16) -> axum::http::response::Builder {
    Answer::builder().status(status).header("content-type", "application/octet-stream")
}

pub fn respond_with(f: impl FnOnce(&Request<Body>) -> Answer<Body> + Send + 'static) -> ScriptedResponse {
    Box::new(f)
}

pub fn full_response(text: impl Into<String>) -> ScriptedResponse {
    let text = text.into();
    respond_with(move |_| response_builder(200).header("etag", "\"e1\"").body(text.into()).unwrap())
}
