//! Reads the headers of a response, and redacts texts for error messages.

use super::Validators;
use super::attempts::PartialBody;
use crate::config::now;
use chrono::{DateTime, Utc};
use headers::{ContentRange, ETag, HeaderMapExt, IfRange};
use reqwest::Response;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// Bytes that decide whether a body is the feed: a byte order mark and `"Id",`.
pub(super) const HEAD_BYTES: usize = 8;
/// Maximum number of bytes read from a rejected body.
const MAX_ERROR_BODY_BYTES: usize = 4096;
/// Maximum number of characters of a rejected body in an error message.
const MAX_SNIPPET_CHARS: usize = 200;
/// Timeout for each chunk of a rejected body, which need not be read completely.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Earliest plausible modification time, in Unix seconds (1990); an earlier one is ignored.
const MIN_MODIFIED_SECONDS: i64 = 631_152_000;
/// Shorter parts of the URL (a `1`, a `csv`) are not secret, and redacting them would garble every text.
const MIN_SECRET_BYTES: usize = 5;

/// Returns true if a body begins with the header's first column, after an optional byte order mark.
pub(super) fn is_header_start(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    head.starts_with(b"\"Id\",") || head.starts_with(b"Id,")
}

/// Returns the `Content-Encoding`, or `None` if it is `identity`.
pub(super) fn content_encoding(headers: &HeaderMap) -> Option<&str> {
    header_text(headers, header::CONTENT_ENCODING).map(str::trim).filter(|it| !it.eq_ignore_ascii_case("identity"))
}

/// Returns the `Date` of the response, or the current time if the header is missing.
fn response_date(headers: &HeaderMap) -> DateTime<Utc> {
    header_text(headers, header::DATE).and_then(read_http_date).unwrap_or_else(now)
}

/// Returns the validators in a response.
///
/// A `Last-Modified` later than the response's own `Date` is not a valid reference (RFC 9110, 8.8.2.1). One from before
/// the web is ignored too, since a server that does not know the file's time sends it.
pub(super) fn read_validators(headers: &HeaderMap) -> Validators {
    let modified = header_text(headers, header::LAST_MODIFIED).and_then(read_http_date);
    Validators {
        etag: header_text(headers, header::ETAG).map(str::to_owned),
        last_modified: modified.filter(|at| *at <= response_date(headers) && at.timestamp() >= MIN_MODIFIED_SECONDS),
    }
}

/// Returns the delay that the server asks for in `Retry-After`, given in seconds or as a date.
///
/// A number of seconds that overflows becomes [`Duration::MAX`]. A date is compared with the response's own `Date`, so
/// a wrong server clock does no harm.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = header_text(headers, header::RETRY_AFTER)?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let wait = read_http_date(value)? - response_date(headers);
    Some(wait.to_std().unwrap_or(Duration::ZERO))
}

/// Returns the `If-Range` value that resumes this body.
///
/// The value is a well-formed strong ETag. Without any ETag a modification time is used that is a strong validator,
/// which is at least a second older than the response (RFC 9110, 13.1.5 and 8.8.2.2).
pub(super) fn if_range_validator(headers: &HeaderMap) -> Option<IfRange> {
    let since = read_validators(headers);
    if since.etag.is_some() {
        return headers.typed_get::<ETag>().filter(|etag| !etag.is_weak()).map(IfRange::etag);
    }
    let older = |at: &DateTime<Utc>| response_date(headers) - at >= chrono::Duration::seconds(1);
    since.last_modified.filter(older).map(|at| IfRange::date(at.into()))
}

pub(super) fn range_from(offset: u64) -> HeaderValue {
    #[expect(clippy::expect_used, reason = "digits are always a header's value")]
    HeaderValue::from_str(&format!("bytes={offset}-")).expect("visible ASCII")
}

/// Parses a date in one of the three forms of RFC 9110, 5.6.7.
fn read_http_date(text: &str) -> Option<DateTime<Utc>> {
    httpdate::parse_http_date(text).ok().map(DateTime::from)
}

/// The headers in which a 206 must match the response that began the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BodyIdentity {
    etag: Option<String>,
    last_modified: Option<String>,
    encoding: Option<String>,
}

impl BodyIdentity {
    /// Reads the headers as they are written.
    pub(super) fn from_headers(headers: &HeaderMap) -> BodyIdentity {
        BodyIdentity {
            etag: header_text(headers, header::ETAG).map(str::to_owned),
            last_modified: header_text(headers, header::LAST_MODIFIED).map(str::to_owned),
            encoding: content_encoding(headers).map(str::to_ascii_lowercase),
        }
    }

    /// Returns the `Content-Encoding` in lower case.
    pub(super) fn encoding(&self) -> Option<&str> {
        self.encoding.as_deref()
    }

    /// Returns the difference to a 206. If the ETags match, `Last-Modified` may be absent (RFC 9110, 15.3.7).
    fn find_difference(&self, rest: &BodyIdentity) -> Option<&'static str> {
        let dated = rest.last_modified.is_some() || self.etag.is_none();
        if self.etag != rest.etag {
            Some("the ETag changed")
        } else if dated && self.last_modified != rest.last_modified {
            Some("the Last-Modified changed")
        } else if self.encoding != rest.encoding {
            Some("the Content-Encoding changed")
        } else {
            None
        }
    }
}

/// Returns the total length in a 206 that continues exactly at the end of the partial body, in the same file.
///
/// # Errors
/// Returns the difference as text if the 206 does not continue the body.
pub(super) fn check_continuation(headers: &HeaderMap, partial: &PartialBody) -> Result<Option<u64>, String> {
    let range = headers.typed_get::<ContentRange>();
    let Some((range, (first, _))) = range.and_then(|range| Some((range.clone(), range.bytes_range()?))) else {
        return Err("a 206 without a Content-Range of bytes".into());
    };
    let total = range.bytes_len();
    if first != partial.received {
        return Err(format!("asked for bytes from {}, got them from {first}", partial.received));
    }
    if total.is_some() && partial.total.is_some() && total != partial.total {
        return Err("the total length changed".into());
    }
    match partial.identity.find_difference(&BodyIdentity::from_headers(headers)) {
        Some(difference) => Err(difference.into()),
        None => Ok(total),
    }
}

/// Returns the parts of the feed's URL that no text may contain.
///
/// They are the whole URL, path with query, query, query values as written and decoded, user and password.
fn url_secrets(url: &Url) -> Vec<String> {
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

/// Secrets that no text may contain, longest first.
#[derive(Clone)]
pub struct SecretMask(Vec<SecretString>);

impl SecretMask {
    /// Creates a mask for the secret parts of `url` and for `others`, both verbatim and form-encoded.
    pub fn new<'a>(url: &Url, others: impl IntoIterator<Item = &'a str>) -> SecretMask {
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let others = others.into_iter().flat_map(|text| [text.to_owned(), encoded(text)]);
        let mut parts: Vec<String> = url_secrets(url).into_iter().chain(others).collect();
        parts.retain(|p| p.len() >= MIN_SECRET_BYTES);
        parts.sort_by_key(|p| std::cmp::Reverse(p.len()));
        parts.dedup();
        SecretMask(parts.into_iter().map(SecretString::from).collect())
    }

    /// Returns the text of a client error with its causes, without the URL and redacted.
    pub fn redact_error(&self, e: reqwest::Error) -> String {
        self.redact_text(&format!("{:#}", anyhow::Error::new(e.without_url())))
    }

    /// Returns the beginning of a rejected response's body, redacted.
    pub async fn read_snippet(&self, response: &mut Response) -> String {
        let mut body = Vec::new();
        while body.len() < MAX_ERROR_BODY_BYTES {
            match timeout(ERROR_BODY_TIMEOUT, response.chunk()).await {
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
                _ => break,
            }
        }
        self.clean_text(&body)
    }

    /// Returns text from the server in a form fit for an error: redacted, one line, short.
    pub fn clean_text(&self, body: &[u8]) -> String {
        // Redaction comes first, so that truncation cannot leave half a key.
        let text = self.redact_text(&String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR_BODY_BYTES)]));
        let line: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_ERROR_BODY_BYTES / 4).collect();
        let words: Vec<&str> = line.split_whitespace().collect();
        words.join(" ").chars().take(MAX_SNIPPET_CHARS).collect()
    }

    fn redact_text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "[redacted]"))
    }
}

fn header_text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
