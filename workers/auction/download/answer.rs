//! What an answer says: its headers read, its text made fit to be repeated.

use super::Since;
use super::tries::Partial;
use chrono::{DateTime, Utc};
use reqwest::Response;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// Bytes that decide whether a body is the feed: a byte order mark and `"Id",`.
pub(super) const HEAD: usize = 8;
/// Bytes of a refused body that are read.
const BODY: usize = 4096;
/// Characters of a refused body that are repeated.
const SNIPPET: usize = 200;
/// Longest wait for each piece of a refused body; nobody needs all of it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shorter parts of the URL (a `1`, a `csv`) tell nothing, and would redact half of every text.
const TELLING: usize = 5;

/// Whether a body begins with the header's first column, after an optional byte order mark.
pub(super) fn begins_the_header(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    head.starts_with(b"\"Id\",") || head.starts_with(b"Id,")
}

pub(super) fn is_html(headers: &HeaderMap) -> bool {
    text(headers, header::CONTENT_TYPE)
        .is_some_and(|t| t.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

/// How the body is packed, where it should not be.
pub(super) fn packing(headers: &HeaderMap) -> Option<&str> {
    text(headers, header::CONTENT_ENCODING).filter(|it| !it.eq_ignore_ascii_case("identity"))
}

pub(super) fn since(headers: &HeaderMap) -> Since {
    let modified = text(headers, header::LAST_MODIFIED).and_then(|t| DateTime::parse_from_rfc2822(t).ok());
    Since {
        etag: text(headers, header::ETAG).map(str::to_owned),
        last_modified: modified.map(|t| t.to_utc()),
    }
}

/// What `If-Range` may name: an ETag unless it is weak, else the modification time.
pub(super) fn validator(since: &Since) -> Option<HeaderValue> {
    match &since.etag {
        Some(etag) if !etag.starts_with("W/") => HeaderValue::from_str(etag).ok(),
        _ => since.last_modified.map(http_date),
    }
}

pub(super) fn range_from(offset: u64) -> HeaderValue {
    #[expect(clippy::expect_used, reason = "digits are always a header's value")]
    HeaderValue::from_str(&format!("bytes={offset}-")).expect("visible ASCII")
}

pub(super) fn http_date(time: DateTime<Utc>) -> HeaderValue {
    #[expect(clippy::expect_used, reason = "chrono's English names and digits are always a header's value")]
    HeaderValue::from_str(&time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()).expect("visible ASCII")
}

/// Whether a 206 goes on exactly where the partial body ends, in the same file; else what differs.
pub(super) fn continues(headers: &HeaderMap, partial: &Partial) -> Result<(), String> {
    let range = text(headers, header::CONTENT_RANGE).unwrap_or("none");
    let parsed = range.strip_prefix("bytes ").and_then(|r| {
        let (span, total) = r.split_once('/')?;
        let (first, _) = span.split_once('-')?;
        Some((first.trim().parse::<u64>().ok()?, total.trim().parse::<u64>().ok()))
    });
    let Some((first, total)) = parsed else {
        return Err("a 206 without a Content-Range of bytes".into());
    };
    if first != partial.received {
        return Err(format!("asked for bytes from {}, got them from {first}", partial.received));
    }
    if total.is_some() && partial.total.is_some() && total != partial.total {
        return Err("the total length changed".into());
    }
    match (since(headers).etag, &partial.since.etag) {
        (Some(now), Some(then)) if now != *then => Err("the ETag changed".into()),
        _ => Ok(()),
    }
}

/// The parts of the feed's URL that no text may repeat, longest first: the whole, path with query, query, its values
/// as written and decoded, user and password.
fn secrets(url: &Url) -> Vec<String> {
    let query = url.query().unwrap_or_default();
    let mut parts = vec![
        url.as_str().to_owned(),
        format!("{}?{query}", url.path()),
        query.to_owned(),
        url.username().to_owned(),
        url.password().unwrap_or_default().to_owned(),
    ];
    for pair in query.split('&') {
        parts.push(pair.split_once('=').map_or(pair, |(_, value)| value).to_owned());
    }
    parts.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    parts
}

/// What no text may repeat, longest first.
#[derive(Clone)]
pub struct Mask(Vec<SecretString>);

impl Mask {
    /// The telling parts of this URL, and these, as they are and as a form says them.
    pub fn new<'a>(url: &Url, others: impl IntoIterator<Item = &'a str>) -> Mask {
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let others = others.into_iter().flat_map(|text| [text.to_owned(), encoded(text)]);
        let mut parts: Vec<String> = secrets(url).into_iter().chain(others).collect();
        parts.retain(|p| p.len() >= TELLING);
        parts.sort_by_key(|p| std::cmp::Reverse(p.len()));
        parts.dedup();
        Mask(parts.into_iter().map(SecretString::from).collect())
    }

    /// A client's error in words, with its causes, without the URL.
    pub fn tell(&self, e: reqwest::Error) -> String {
        self.redact(&format!("{:#}", anyhow::Error::new(e.without_url())))
    }

    /// The beginning of a refused answer's body.
    pub async fn snippet(&self, response: &mut Response) -> String {
        let mut body = Vec::new();
        while body.len() < BODY {
            match timeout(PATIENCE, response.chunk()).await {
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
                _ => break,
            }
        }
        self.clean(&body)
    }

    /// Text of the server's, fit for an error: redacted, one line, short.
    pub fn clean(&self, body: &[u8]) -> String {
        // Redacted first, so that no cut can leave half a key.
        let text = self.redact(&String::from_utf8_lossy(&body[..body.len().min(BODY)]));
        let line: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(BODY / 4).collect();
        let words: Vec<&str> = line.split_whitespace().collect();
        words.join(" ").chars().take(SNIPPET).collect()
    }

    fn redact(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "[redacted]"))
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
