//! One download of the feed: up to four tries, resumed where they broke off, and nothing kept that is not the feed.
//!
//! A try asks conditionally (`If-None-Match`, `If-Modified-Since` of the last good file); 304 ends the download. A
//! `Last-Modified` later than the answer's own `Date` is no reference and is dropped. A body that breaks off is resumed
//! by the next try with `Range` and `If-Range`, if the server named a strong validator. 206 continues the same spool,
//! 200 means that the file changed meanwhile, and starts over. The feed regenerates every quarter-hour, so a resumed
//! body may belong to another file than its beginning, and not every server heeds `If-Range`. So the 206 must agree
//! with the first answer in ETag, `Last-Modified`, total and `Content-Encoding`, and go on where the body ended; else
//! the next try starts over. A body that ends before the total that either answer names is not whole.
//!
//! A server that asks for time (`Retry-After` in seconds or as a date, with 429, 503 or any other status that is no
//! file) gets it within the slot. What lies beyond ends the download, and the error names it.
//!
//! An answer is refused, with its status and the start of its body, when it is not 200, begins with other bytes than the
//! header's first column, is smaller or larger than the limits, sits behind more than three redirects, or says of
//! itself that it is older than the last good file: a copy that somebody on the way has kept. Should the server's own
//! clock have been set back, its files are refused until it has caught up; `vinops ingest FILE` ingests one by hand.
//! `Content-Type` is not consulted, since servers and proxies often guess it. Gzip is decompressed by its first bytes,
//! whatever `Content-Encoding` is, within the limit of size and a limit of its own (`gunzip.rs`); other compressions are
//! refused by name.
//!
//! A body without a length that ends early and cleanly cannot be told from a whole one here. The next step sees its
//! short last record.
//!
//! **The URL is a secret**, since its query carries the key. It is unwrapped in one line of this file. No
//! `reqwest::Error` leaves: each is turned to text, without its URL and redacted, so that neither Display nor Debug of
//! any error can hold the key, not even when the server's own error page repeats it. So are the cookies of a session,
//! which go to the feed's own host only ([`Feed::with_session`]). `Referer` is the fixed one, never
//! the previous URL on a redirect.

use crate::config::Copart;
use crate::store::{Spool, Store};
use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use reqwest::Client;
use reqwest::header::{self, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use url::Url;

mod answer;
mod error;
mod gunzip;
mod tries;
pub(super) use answer::Mask;
pub use error::{Break, DownloadError, Refusal};
use tries::Tries;

/// More redirects than this are refused.
const MOST_REDIRECTS: usize = 3;

/// The default `User-Agent`: says who asks, which the feed's server accepts.
const USER_AGENT: &str = concat!("vinops/", env!("CARGO_PKG_VERSION"));
/// The default `Referer`: the page from which a browser asks.
const REFERER: &str = "https://www.copart.com/";

/// How to ask for the feed.
#[derive(Clone, Debug)]
pub struct FeedOptions {
    /// Where; a secret.
    pub url: SecretString,
    /// `User-Agent`, fixed.
    pub user_agent: String,
    /// `Referer`, fixed.
    pub referer: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence of a connected server.
    pub idle_timeout: Duration,
    /// Longest download, all tries and waits together: ends a server that drips.
    pub deadline: Duration,
    /// Waits between tries, each varied by ± 25 %; one more try than waits.
    pub waits: Vec<Duration>,
    /// A smaller body is refused, in bytes.
    pub min_bytes: u64,
    /// A larger body is refused, in bytes.
    pub max_bytes: u64,
}

impl FeedOptions {
    /// The options that the environment gives. Errors name the variable that is missing.
    pub fn from_config(copart: &Copart) -> anyhow::Result<FeedOptions> {
        let url = copart.feed_url.clone().context(
            "COPART_FEED_URL is not set: give it the feed's address, or name a file that holds it in COPART_FEED_URL_FILE",
        )?;
        let user_agent = copart.user_agent.as_deref().unwrap_or(USER_AGENT);
        Ok(FeedOptions::new(url, user_agent, copart.referer.as_deref().unwrap_or(REFERER)))
    }

    /// The limits of the real feed: 96 MB, an error page of 963 bytes, a slot of 15 minutes.
    pub fn new(url: SecretString, user_agent: impl Into<String>, referer: impl Into<String>) -> FeedOptions {
        FeedOptions {
            url,
            user_agent: user_agent.into(),
            referer: referer.into(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(600),
            waits: [1, 2, 4].map(Duration::from_secs).to_vec(),
            min_bytes: 1000,
            max_bytes: 2 << 30,
        }
    }
}

/// The one door to the feed's server; a tool of the worker.
pub struct Feed {
    client: Client,
    options: FeedOptions,
    /// What must not be repeated: the URL's telling parts, and a session's.
    mask: Mask,
    /// Of a session.
    cookies: Option<HeaderValue>,
    /// The longest time from the first request to the last retry that a server may ask for.
    retry_within: Duration,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What the last good file's answer said of itself; makes the next request conditional.
#[derive(Clone, Debug, Default)]
pub struct Since {
    /// Its `ETag`, quotes and all.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub last_modified: Option<DateTime<Utc>>,
}

impl Since {
    /// Whether there is anything to make a request conditional.
    fn is_known(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// How a download ended well.
#[derive(Debug)]
pub struct Download {
    /// Tries it took, from 1.
    pub tries: u32,
    /// The new file, or `None`: the server says nothing changed (304).
    pub file: Option<File>,
}

/// A whole, plausible file, published by nobody yet.
#[derive(Debug)]
pub struct File {
    /// Its bytes.
    pub spool: Spool,
    /// What its answer said of itself.
    pub since: Since,
}

/// Told bytes received and bytes expected (0: unknown) while they arrive.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

impl Feed {
    /// A client for the feed at `options.url`. Errors name the variable and never the URL.
    pub fn new(options: FeedOptions) -> anyhow::Result<Feed> {
        let url: Url =
            options.url.expose_secret().parse().map_err(|e| anyhow!("COPART_FEED_URL is not a URL: {e}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(anyhow!("COPART_FEED_URL is not an http or https URL"));
        }
        let client = client(&options, &url, MOST_REDIRECTS)?;
        let retry_within = options.deadline;
        Ok(Feed { client, mask: Mask::new(&url, []), options, cookies: None, retry_within })
    }

    /// The same feed, asked with the cookies of a session: `name=value; name=value`.
    pub fn with_session(&self, cookies: &SecretString) -> anyhow::Result<Feed> {
        let text = cookies.expose_secret();
        let mut header =
            HeaderValue::from_str(text).map_err(|_| anyhow!("the session's cookies cannot be sent"))?;
        header.set_sensitive(true);
        let url = self.options.url.expose_secret().parse()?;
        let values = text.split("; ").filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
        Ok(Feed {
            client: self.client.clone(),
            options: self.options.clone(),
            mask: Mask::new(&url, values.chain([text])),
            cookies: Some(header),
            retry_within: self.retry_within,
        })
    }

    /// Returns the same feed, whose server may ask for a retry (`Retry-After`) within `left`, which is what remains of
    /// the slot; never later than the deadline of a download.
    pub fn with_retry_within(&self, left: Duration) -> Feed {
        Feed {
            client: self.client.clone(),
            options: self.options.clone(),
            mask: self.mask.clone(),
            cookies: self.cookies.clone(),
            retry_within: left.min(self.options.deadline),
        }
    }

    /// Returns the longest time from the first request to the last retry that a server may ask for.
    pub fn retry_within(&self) -> Duration {
        self.retry_within
    }

    /// Downloads the feed into `store`'s spool, unless it is still what `since` describes.
    pub async fn download(
        &self,
        store: &Store,
        since: &Since,
        progress: Progress<'_>,
    ) -> Result<Download, DownloadError> {
        let deadline = self.options.deadline;
        let tries = self.try_to_the_end(Tries { feed: self, store, since, progress, made: 0, partial: None });
        timeout(deadline, tries).await.map_err(|_| Break::Overdue { deadline })?
    }

    /// Tries until the file is there, the tries are spent, or the server wants more time than there is.
    async fn try_to_the_end(&self, mut tries: Tries<'_>) -> Result<Download, DownloadError> {
        let began = Instant::now();
        let mut waits = self.options.waits.iter();
        loop {
            let error = match tries.next().await {
                Ok(file) => return Ok(Download { tries: tries.made, file }),
                Err(error) => error,
            };
            let left = self.retry_within.saturating_sub(began.elapsed());
            if error.retry_after() > left {
                return Err(error.beyond(left));
            }
            let Some(wait) = waits.next().filter(|_| error.is_worth_another_try()) else { return Err(error) };
            let wait = wait.mul_f64(rand::random_range(0.75..=1.25)).max(error.retry_after());
            tracing::warn!(error = %error, wait_ms = wait.as_millis() as u64, "download retried");
            sleep(wait).await;
        }
    }

    fn check_size(&self, bytes: u64) -> Result<(), DownloadError> {
        let most = self.options.max_bytes;
        if bytes > most { Err(Refusal::TooLarge { bytes, most }.into()) } else { Ok(()) }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the door that the lint names")]
pub(super) fn client(options: &FeedOptions, url: &Url, redirects: usize) -> anyhow::Result<Client> {
    let value = |name: &str, text: &str| {
        HeaderValue::from_str(text).with_context(|| format!("{name} cannot be sent as a header"))
    };
    let fixed = HeaderMap::from_iter([
        (header::USER_AGENT, value("COPART_USER_AGENT", &options.user_agent)?),
        (header::REFERER, value("COPART_REFERER", &options.referer)?),
        // Lengths and ranges are then those of the file itself.
        (header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ]);
    // Fails when another part of the program has installed it already, which is as good.
    _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .default_headers(fixed)
        .connect_timeout(options.connect_timeout)
        .redirect(match redirects {
            0 => reqwest::redirect::Policy::none(),
            most => reqwest::redirect::Policy::limited(most),
        })
        .referer(false);
    // A proxy of the environment leads outwards; a feed on this machine is not there.
    if is_loopback(url) {
        client = client.no_proxy();
    }
    client.build().map_err(|e| anyhow!("make the HTTP client: {}", e.without_url()))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
pub(super) mod tests;
