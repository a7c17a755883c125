//! Simulated clients of the API, which send requests at a constant rate and measure the duration of each response.
//!
//! The HTTP client is minimal, one request and one response over a persistent connection, so that the API is measured
//! and not a client library. Requests do not wait for one another: a slow response does not delay the next request.

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Number of requests per second.
pub const REQUESTS_PER_SECOND: u32 = 20;

/// Kinds of requests with their share in percent.
pub const REQUEST_MIX: &[(&str, u32)] = &[
    ("search, three filters", 30),
    ("search, a next page", 10),
    ("search, misspelt", 5),
    ("a lot", 25),
    ("a vehicle", 5),
    ("facets", 20),
    ("a taxonomy", 5),
];

/// Simulated clients with the values that their requests use.
pub struct ApiClients {
    address: String,
    dice: StdRng,
    lots: Vec<(String, String)>,
    makes: Vec<String>,
    damages: Vec<String>,
    states: Vec<String>,
}

impl ApiClients {
    /// Reads the values for the requests from the API at an address.
    pub async fn new(address: &str, seed: u64) -> anyhow::Result<ApiClients> {
        let mut stream = None;
        let facets = "/api/v1/facets?facet=make&facet=damage&facet=state";
        let facets = fetch_json(&mut stream, address, facets).await?;
        let options = |place: usize| -> Vec<String> {
            let options = facets["facets"][place]["options"].as_array().into_iter().flatten();
            options.filter_map(|option| Some(option["code"].as_str()?.to_owned())).collect()
        };
        let mut lots = Vec::new();
        for state in options(2) {
            let page = fetch_json(&mut stream, address, &format!("/api/v1/search?limit=100&state={state}")).await?;
            let pairs =
                page["lots"].as_array().into_iter().flatten().filter_map(|lot| {
                    Some((lot["lot"].as_str()?.to_owned(), lot["vehicle"]["vin"].as_str()?.to_owned()))
                });
            lots.extend(pairs);
        }
        ensure!(!lots.is_empty(), "the API returned no lots");
        let (address, dice) = (address.to_owned(), StdRng::seed_from_u64(seed));
        Ok(ApiClients { address, dice, lots, makes: options(0), damages: options(1), states: options(2) })
    }

    /// Returns the kind and the path of the next random request.
    fn next_request(&mut self) -> (&'static str, String) {
        let mut throw: u32 = self.dice.random_range(0..100);
        let mut kind = REQUEST_MIX[0].0;
        for (named, share) in REQUEST_MIX {
            kind = named;
            match throw.checked_sub(*share) {
                Some(rest) => throw = rest,
                None => break,
            }
        }
        let escaped = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let dice = &mut self.dice;
        let mut any = |of: &[String]| of.get(dice.random_range(0..of.len().max(1))).cloned().unwrap_or_default();
        let (make, damage, state) = (any(&self.makes), any(&self.damages), any(&self.states));
        let year = self.dice.random_range(2005..2022);
        let (lot, vin) = self.lots[self.dice.random_range(0..self.lots.len())].clone();
        let make = escaped(&make);
        let path = match kind {
            "search, misspelt" => {
                let mut name = make;
                let at = self.dice.random_range(0..name.len().max(1));
                if name.is_char_boundary(at) && at < name.len() {
                    name.remove(at);
                }
                format!("search?q={name}x&sort=-year")
            }
            "a lot" => format!("lots/{lot}"),
            "a vehicle" => format!("vehicles/{vin}"),
            "facets" => format!("facets?make={make}&year_min={year}&state={state}"),
            "a taxonomy" => "taxonomies/damage_types?lang=ru".to_owned(),
            // The caller requests the second page.
            "search, a next page" => format!("search?make={make}&sort=-price&limit=20"),
            _ => format!("search?make={make}&year_min={year}&damage={damage}&lang=ru"),
        };
        (kind, format!("/api/v1/{path}"))
    }

    /// Sends requests at the rate until a time. Returns the durations in milliseconds by kind of request.
    pub async fn run_until(mut self, until: Instant) -> anyhow::Result<BTreeMap<&'static str, Vec<f64>>> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
        let mut asked = tokio::task::JoinSet::new();
        let mut idle: Vec<TcpStream> = Vec::new();
        let mut taken: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        while Instant::now() < until {
            ticks.tick().await;
            let (kind, path) = self.next_request();
            let (mut stream, address) = (idle.pop(), self.address.clone());
            asked.spawn(async move {
                let mut path = path;
                if kind == "search, a next page" {
                    let page = fetch_json(&mut stream, &address, &path).await?;
                    if let Some(next) = page["next"].as_str() {
                        path = format!("{path}&cursor={next}");
                    }
                }
                let began = Instant::now();
                fetch_json(&mut stream, &address, &path).await?;
                Ok::<_, anyhow::Error>((kind, began.elapsed().as_secs_f64() * 1000.0, stream))
            });
            while let Some(done) = asked.try_join_next() {
                let (kind, milliseconds, stream) = done.context("client task panicked")??;
                taken.entry(kind).or_default().push(milliseconds);
                idle.extend(stream);
            }
        }
        while let Some(done) = asked.join_next().await {
            let (kind, milliseconds, _) = done.context("client task panicked")??;
            taken.entry(kind).or_default().push(milliseconds);
        }
        Ok(taken)
    }
}

/// Sends one GET request over a persistent connection and returns the JSON body.
///
/// # Errors
/// Returns an error if the status is not 200.
pub async fn fetch_json(stream: &mut Option<TcpStream>, address: &str, path: &str) -> anyhow::Result<Value> {
    let mut connection = match stream.take() {
        Some(connection) => connection,
        None => TcpStream::connect(address).await.context("could not connect to the API")?,
    };
    connection.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1 << 16);
    let (head, length) = loop {
        if let Some(at) = memchr::memmem::find(&answer, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..at]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize =
                length.and_then(|text| text.trim().parse().ok()).context("response has no Content-Length")?;
            break (head, at + 4 + length);
        }
        ensure!(connection.read_buf(&mut answer).await? > 0, "the API closed the connection during a response");
    };
    while answer.len() < length {
        ensure!(connection.read_buf(&mut answer).await? > 0, "the API closed the connection during a response");
    }
    let body = answer.split_off(memchr::memmem::find(&answer, b"\r\n\r\n").map_or(0, |at| at + 4));
    ensure!(head.starts_with("http/1.1 200"), "{path}: {head}\n{}", String::from_utf8_lossy(&body));
    *stream = Some(connection);
    serde_json::from_slice(&body).with_context(|| format!("could not parse the response to {path}"))
}
