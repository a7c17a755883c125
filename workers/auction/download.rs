//! Downloads the feed: one download makes up to four requests, resumes a broken body, and stores nothing but the feed.
//!
//! Each request is conditional (`If-None-Match`, `If-Modified-Since` of the last good file), and 304 ends the download.
//! A `Last-Modified` later than the response's own `Date` is not a valid reference and is dropped. If a body breaks off
//! and the server sent a strong validator, the next request resumes it with `Range` and `If-Range`. 206 continues the
//! same spool. 200 means that the file has changed, and starts over. The feed is regenerated every quarter-hour, so a
//! resumed body may belong to another file than its beginning, and not every server honours `If-Range`. The 206 must
//! therefore match the first response in ETag, `Last-Modified`, total and `Content-Encoding`, and continue where the
//! body ended. Otherwise the next request starts over. A body that ends before the total of either response is
//! incomplete.
//!
//! A server can ask for a delay with `Retry-After` (seconds or a date) on 429, 503 or any other error status. The delay
//! is respected within the slot. A longer delay ends the download, and is part of the error.
//!
//! A response is rejected in these cases, with the status and the start of the body in the error:
//!
//! - the status is not 200,
//! - the body does not begin with the header's first column,
//! - the body is smaller or larger than the limits,
//! - the response is behind more than three redirects,
//! - `Last-Modified` is older than the last good file, so the response comes from a stale cache.
//!
//! If the server's clock was set back, its files are rejected until the clock has caught up. `vinops ingest FILE`
//! ingests one manually. `Content-Type` is ignored, since servers and proxies often guess it. Gzip is detected by its
//! first bytes, regardless of `Content-Encoding`, and decompressed within the size limit and a ratio limit (`gzip.rs`).
//! Other compression formats are rejected with their name.
//!
//! A body without a length that ends early and cleanly cannot be distinguished from a complete one here. The ingest
//! sees its short last record.
//!
//! **The URL is a secret**, since the query contains the key. It is exposed only to be parsed and to be requested. No
//! `reqwest::Error` leaves this module: each is converted to text, without the URL and redacted. Neither Display nor
//! Debug of any error can contain the key, even if the server's own error page repeats it. The cookies of a session are
//! redacted too, and are sent only to the feed's own host ([`FeedClient::with_session`]). `Referer` is fixed, and never
//! the previous URL on a redirect.

use crate::config::CopartConfig;
use crate::store::{SpoolFile, Store};
use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use reqwest::Client;
use reqwest::header::{self, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use url::Url;

mod attempts;
mod error;
mod gzip;
mod response;
use attempts::DownloadAttempts;
pub use error::{DownloadError, RejectedResponse, TransferError};
pub(super) use response::SecretMask;

/// Maximum number of redirects; a response behind more is rejected.
const MAX_REDIRECTS: usize = 3;

/// The default `User-Agent`, which identifies this program and which the feed's server accepts.
const DEFAULT_USER_AGENT: &str = concat!("vinops/", env!("CARGO_PKG_VERSION"));
/// The default `Referer`, which is the page that a browser would send.
const DEFAULT_REFERER: &str = "https://www.copart.com/";

/// Options of the feed client: address, headers, timeouts and limits.
#[derive(Clone, Debug)]
pub struct FeedOptions {
    /// The URL of the feed, which is a secret.
    pub url: SecretString,
    /// The `User-Agent` header, the same in all requests.
    pub user_agent: String,
    /// The `Referer` header, the same in all requests.
    pub referer: String,
    /// Timeout for the connection to the server.
    pub connect_timeout: Duration,
    /// Timeout for the next bytes from a connected server.
    pub idle_timeout: Duration,
    /// Timeout for the whole download with all requests and delays. Ends a download that only trickles.
    pub deadline: Duration,
    /// Delays between requests, each varied by ± 25 %. The number of requests is one more.
    pub waits: Vec<Duration>,
    /// Minimum size of the file in bytes; a smaller body is rejected.
    pub min_bytes: u64,
    /// Maximum size of the file in bytes; a larger body is rejected.
    pub max_bytes: u64,
}

impl FeedOptions {
    /// Returns the options from the configuration. An error names the missing variable.
    pub fn from_config(copart: &CopartConfig) -> anyhow::Result<FeedOptions> {
        let url = copart.feed_url.clone().context(
            "COPART_FEED_URL is not set; set it to the feed's address, or set COPART_FEED_URL_FILE to a file that contains it",
        )?;
        let user_agent = copart.user_agent.as_deref().unwrap_or(DEFAULT_USER_AGENT);
        Ok(FeedOptions::new(url, user_agent, copart.referer.as_deref().unwrap_or(DEFAULT_REFERER)))
    }

    /// Returns options with the limits of the real feed: 96 MB, an error page of 963 bytes, a slot of 15 minutes.
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

/// HTTP client of the feed's server, and the only place that sends requests to it. A run extension of the fetch job.
pub struct FeedClient {
    client: Client,
    options: FeedOptions,
    /// Secrets that no text may contain: the secret parts of the URL and the session's cookies.
    mask: SecretMask,
    /// The cookie header of a session.
    cookies: Option<HeaderValue>,
    /// The maximum time from the first request to the last retry that a server may ask for.
    retry_within: Duration,
}

impl fmt::Debug for FeedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Validators of the last good file; they make the next request conditional.
#[derive(Clone, Debug, Default)]
pub struct Validators {
    /// The value of `ETag`, including the quotes.
    pub etag: Option<String>,
    /// The time in `Last-Modified`.
    pub last_modified: Option<DateTime<Utc>>,
}

impl Validators {
    /// Returns true if there is a validator to make a request conditional.
    fn has_any(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// Result of a successful download.
#[derive(Debug)]
pub struct CompletedDownload {
    /// The number of requests, from 1.
    pub tries: u32,
    /// The new file, or `None` if the server reported no change (304).
    pub file: Option<DownloadedFile>,
}

/// A complete and plausible file that is not in the store or the database yet.
#[derive(Debug)]
pub struct DownloadedFile {
    /// The spooled bytes.
    pub spool: SpoolFile,
    /// The validators in the response.
    pub since: Validators,
}

/// Callback that receives the bytes received and the bytes expected (0 if unknown) during a download.
pub type DownloadProgress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

impl FeedClient {
    /// Creates a client for the feed at `options.url`. An error names the variable and never the URL.
    pub fn new(options: FeedOptions) -> anyhow::Result<FeedClient> {
        let url: Url = options.url.expose_secret().parse().map_err(|e| anyhow!("COPART_FEED_URL is not a URL: {e}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(anyhow!("COPART_FEED_URL is not an http or https URL"));
        }
        let client = build_client(&options, &url, MAX_REDIRECTS)?;
        let retry_within = options.deadline;
        Ok(FeedClient { client, mask: SecretMask::new(&url, []), options, cookies: None, retry_within })
    }

    /// Returns a copy of the client that sends the cookies of a session: `name=value; name=value`.
    pub fn with_session(&self, cookies: &SecretString) -> anyhow::Result<FeedClient> {
        let text = cookies.expose_secret();
        let mut header = HeaderValue::from_str(text).map_err(|_| anyhow!("the session's cookies cannot be sent"))?;
        header.set_sensitive(true);
        let url = self.options.url.expose_secret().parse()?;
        let values = text.split("; ").filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
        Ok(FeedClient {
            client: self.client.clone(),
            options: self.options.clone(),
            mask: SecretMask::new(&url, values.chain([text])),
            cookies: Some(header),
            retry_within: self.retry_within,
        })
    }

    /// Returns a copy of the client that accepts a server's `Retry-After` only within `left`, the rest of the slot.
    ///
    /// The limit is never later than the deadline of a download.
    pub fn with_retry_within(&self, left: Duration) -> FeedClient {
        FeedClient {
            client: self.client.clone(),
            options: self.options.clone(),
            mask: self.mask.clone(),
            cookies: self.cookies.clone(),
            retry_within: left.min(self.options.deadline),
        }
    }

    /// Returns the maximum time from the first request to the last retry that a server may ask for.
    pub fn retry_within(&self) -> Duration {
        self.retry_within
    }

    /// Downloads the feed into a spool of `store`, unless the server reports that it still matches `since`.
    pub async fn download(
        &self,
        store: &Store,
        since: &Validators,
        progress: DownloadProgress<'_>,
    ) -> Result<CompletedDownload, DownloadError> {
        let deadline = self.options.deadline;
        let tries =
            self.download_with_retry(DownloadAttempts { feed: self, store, since, progress, made: 0, partial: None });
        timeout(deadline, tries).await.map_err(|_| TransferError::Overdue { deadline })?
    }

    /// Sends requests until the file is complete, the retries are used up, or the server asks for more time than is
    /// left.
    async fn download_with_retry(&self, mut tries: DownloadAttempts<'_>) -> Result<CompletedDownload, DownloadError> {
        let began = Instant::now();
        let mut waits = self.options.waits.iter();
        loop {
            let error = match tries.attempt_download().await {
                Ok(file) => return Ok(CompletedDownload { tries: tries.made, file }),
                Err(error) => error,
            };
            let left = self.retry_within.saturating_sub(began.elapsed());
            if error.retry_after() > left {
                return Err(error.into_retry_after_error(left));
            }
            let Some(wait) = waits.next().filter(|_| error.is_retryable()) else { return Err(error) };
            let wait = wait.mul_f64(rand::random_range(0.75..=1.25)).max(error.retry_after());
            tracing::warn!(error = %error, wait_ms = wait.as_millis() as u64, "download retried");
            sleep(wait).await;
        }
    }

    fn check_size(&self, bytes: u64) -> Result<(), DownloadError> {
        let most = self.options.max_bytes;
        if bytes > most { Err(RejectedResponse::TooLarge { bytes, most }.into()) } else { Ok(()) }
    }
}

#[expect(clippy::disallowed_methods, reason = "the place for HTTP clients that the lint names")]
pub(super) fn build_client(options: &FeedOptions, url: &Url, redirects: usize) -> anyhow::Result<Client> {
    let value = |name: &str, text: &str| {
        HeaderValue::from_str(text).with_context(|| format!("{name} cannot be sent as a header"))
    };
    let fixed = HeaderMap::from_iter([
        (header::USER_AGENT, value("COPART_USER_AGENT", &options.user_agent)?),
        (header::REFERER, value("COPART_REFERER", &options.referer)?),
        // Lengths and ranges then refer to the file itself.
        (header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ]);
    // An error means that another part of the program has already installed a provider, which is sufficient.
    _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .default_headers(fixed)
        .connect_timeout(options.connect_timeout)
        .redirect(match redirects {
            0 => reqwest::redirect::Policy::none(),
            most => reqwest::redirect::Policy::limited(most),
        })
        .referer(false);
    // A proxy of the environment leads to outside servers and cannot reach a feed on this machine.
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
