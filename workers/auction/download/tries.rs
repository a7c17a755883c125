//! The requests of one download: send, check the response, read the body.

use super::answer::Identity;
use super::error::{Break, DownloadError, Refusal};
use super::gunzip::{Gunzip, PIECE_BYTES, format_of};
use super::{Feed, File, MOST_REDIRECTS, Progress, Since, answer};
use crate::auction::header::is_html;
use crate::store::{Store, Writer};
use bytes::Bytes;
use headers::{HeaderMapExt, IfModifiedSince, IfRange};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use secrecy::ExposeSecret;
use std::time::SystemTime;
use tokio::time::timeout;

/// State of one download across several requests.
pub(super) struct Tries<'a> {
    pub(super) feed: &'a Feed,
    pub(super) store: &'a Store,
    pub(super) since: &'a Since,
    pub(super) progress: Progress<'a>,
    pub(super) made: u32,
    pub(super) partial: Option<Partial>,
}

/// A body that has begun to arrive.
pub(super) struct Partial {
    writer: Writer,
    coding: Coding,
    /// The first bytes of the file, held back until they are known to begin the header.
    head: Vec<u8>,
    /// Bytes of the body received, before decompression.
    pub(super) received: u64,
    /// Bytes of the file after decompression.
    file_bytes: u64,
    pub(super) total: Option<u64>,
    pub(super) since: Since,
    pub(super) identity: Identity,
    /// The `If-Range` value: a strong ETag, or the modification time.
    validator: Option<IfRange>,
}

/// The coding of a body, detected by the first bytes.
enum Coding {
    /// Too few bytes have arrived.
    Unknown(Vec<u8>),
    /// The bytes of the body are those of the file.
    Identity,
    Gzip(Box<Gunzip>),
}

impl Tries<'_> {
    /// Sends one request. Returns the file, or `None` if it still matches `since`.
    pub(super) async fn next(&mut self) -> Result<Option<File>, DownloadError> {
        self.made += 1;
        let silence = self.feed.options.idle_timeout;
        let mut response = match timeout(silence, self.request().send()).await {
            Err(_) => return Err(Break::Silent { silence }.into()),
            Ok(Err(e)) if e.is_redirect() => {
                return Err(Refusal::Redirects { most: MOST_REDIRECTS, why: self.feed.mask.tell(e) }.into());
            }
            Ok(Err(e)) => return Err(Break::Connection { why: self.feed.mask.tell(e) }.into()),
            Ok(Ok(response)) => response,
        };
        match (response.status(), &self.partial) {
            (StatusCode::NOT_MODIFIED, None) if self.since.is_known() => return Ok(None),
            (StatusCode::PARTIAL_CONTENT, Some(partial)) => {
                match answer::continues(response.headers(), partial) {
                    Ok(total) => self.adopt(total)?,
                    Err(why) => {
                        self.partial = None;
                        return Err(Break::Range { why }.into());
                    }
                }
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                self.partial = None;
                return Err(Break::Range { why: "416: no such range any more".into() }.into());
            }
            (StatusCode::OK, _) => self.partial = Some(self.begin(&response)?),
            // A server with a transient problem may still continue the body later, so the partial body stays.
            (status, _) => {
                let retry_after = answer::retry_after(response.headers());
                let body = self.feed.mask.snippet(&mut response).await;
                return Err(Refusal::Status { status, body, retry_after }.into());
            }
        }
        let body = self.body(&mut response).await;
        if matches!(body, Err(DownloadError::Refused(_))) {
            self.partial = None;
        }
        body?;
        let Some(partial) = self.partial.take() else { return Ok(None) };
        let spool = partial.writer.finish().await?;
        Ok(Some(File { spool, since: partial.since }))
    }

    fn request(&mut self) -> reqwest::RequestBuilder {
        // A body that cannot be resumed is dropped here together with its spool.
        self.partial = self.partial.take().filter(|p| p.received > 0 && p.validator.is_some());
        let mut headers = HeaderMap::new();
        match &self.partial {
            Some(partial) => {
                headers.insert(header::RANGE, answer::range_from(partial.received));
                if let Some(validator) = partial.validator.clone() {
                    headers.typed_insert(validator);
                }
            }
            None => {
                let etag = self.since.etag.as_deref().and_then(|e| HeaderValue::from_str(e).ok());
                headers.extend(etag.map(|e| (header::IF_NONE_MATCH, e)));
                if let Some(modified) = self.since.last_modified {
                    headers.typed_insert(IfModifiedSince::from(SystemTime::from(modified)));
                }
            }
        }
        headers.extend(self.feed.cookies.clone().map(|cookies| (header::COOKIE, cookies)));
        self.feed.client.get(self.feed.options.url.expose_secret()).headers(headers)
    }

    /// Stores the total of a 206 if the first response had none.
    fn adopt(&mut self, total: Option<u64>) -> Result<(), DownloadError> {
        self.feed.check_size(total.unwrap_or(0))?;
        if let Some(partial) = &mut self.partial {
            partial.total = partial.total.or(total);
        }
        Ok(())
    }

    /// Checks the headers of a 200 before any of the body is read.
    fn begin(&self, response: &Response) -> Result<Partial, DownloadError> {
        let headers = response.headers();
        let total = response.content_length();
        self.feed.check_size(total.unwrap_or(0))?;
        let since = answer::since(headers);
        if let (Some(now), Some(then)) = (since.last_modified, self.since.last_modified)
            && now < then
        {
            return Err(Refusal::Stale { now, then }.into());
        }
        Ok(Partial {
            writer: self.store.writer()?,
            coding: Coding::Unknown(Vec::new()),
            head: Vec::new(),
            received: 0,
            file_bytes: 0,
            total,
            since,
            identity: Identity::of(headers),
            validator: answer::validator(headers),
        })
    }

    /// Reads the rest of the body into the partial body.
    async fn body(&mut self, response: &mut Response) -> Result<(), DownloadError> {
        let silence = self.feed.options.idle_timeout;
        let Some(partial) = &mut self.partial else { return Ok(()) };
        loop {
            let chunk = match timeout(silence, response.chunk()).await {
                Err(_) => return Err(Break::Stalled { silence, got: partial.received }.into()),
                Ok(Err(e)) => {
                    let (got, total) = (partial.received, partial.total);
                    return Err(Break::Cut { got, total, why: self.feed.mask.tell(e) }.into());
                }
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
            };
            partial.received += chunk.len() as u64;
            self.feed.check_size(partial.received)?;
            partial.take(chunk, self.feed).await?;
            (self.progress)(partial.received, partial.total.unwrap_or(0));
        }
        partial.end(self.feed).await
    }
}

impl Partial {
    /// Processes the next bytes of the body, decompressed if necessary.
    async fn take(&mut self, chunk: Bytes, feed: &Feed) -> Result<(), DownloadError> {
        let chunk = match &mut self.coding {
            Coding::Unknown(first) => {
                first.extend_from_slice(&chunk);
                if first.len() < answer::HEAD {
                    return Ok(());
                }
                let first = Bytes::from(std::mem::take(first));
                self.coding = self.coding_of(&first, feed)?;
                first
            }
            _ => chunk,
        };
        let Coding::Gzip(_) = &self.coding else { return self.write(chunk, feed).await };
        for piece in chunk.chunks(PIECE_BYTES) {
            let Coding::Gzip(gunzip) = &mut self.coding else { break };
            let bytes = gunzip.write(piece)?;
            self.write(bytes, feed).await?;
        }
        Ok(())
    }

    /// Returns the coding of the body, detected by the first bytes. `Content-Encoding` only names an unknown one.
    fn coding_of(&self, first: &[u8], feed: &Feed) -> Result<Coding, DownloadError> {
        let encoding = match format_of(first) {
            Some("gzip") => return Ok(Coding::Gzip(Box::new(Gunzip::new()))),
            Some(format) => format.to_owned(),
            None => match self.identity.encoding() {
                Some(encoding) if !answer::begins_the_header(first) => feed.mask.clean(encoding.as_bytes()),
                _ => return Ok(Coding::Identity),
            },
        };
        Err(Refusal::Compressed { encoding }.into())
    }

    /// Writes the next bytes of the file, and checks the size.
    async fn write(&mut self, bytes: Bytes, feed: &Feed) -> Result<(), DownloadError> {
        self.file_bytes += bytes.len() as u64;
        feed.check_size(self.file_bytes)?;
        if self.head.len() >= answer::HEAD {
            return if bytes.is_empty() { Ok(()) } else { Ok(self.writer.write(bytes).await?) };
        }
        self.head.extend_from_slice(&bytes);
        if self.head.len() >= answer::HEAD { self.open(feed).await } else { Ok(()) }
    }

    /// Writes the held-back first bytes, if they begin the feed's header.
    async fn open(&mut self, feed: &Feed) -> Result<(), DownloadError> {
        if !answer::begins_the_header(&self.head) {
            let body = feed.mask.clean(&self.head);
            // The decision uses the bytes and ignores `Content-Type`.
            let html = is_html(&self.head);
            return Err(if html { Refusal::Html { body } } else { Refusal::FirstBytes { body } }.into());
        }
        Ok(self.writer.write(Bytes::copy_from_slice(&self.head)).await?)
    }

    async fn end(&mut self, feed: &Feed) -> Result<(), DownloadError> {
        if let Some(total) = self.total.filter(|total| *total != self.received) {
            return Err(Refusal::Length { total, bytes: self.received }.into());
        }
        let last = match &mut self.coding {
            Coding::Unknown(first) => Bytes::from(std::mem::take(first)),
            Coding::Gzip(gunzip) => gunzip.finish()?,
            Coding::Identity => Bytes::new(),
        };
        self.write(last, feed).await?;
        let (bytes, least) = (self.file_bytes, feed.options.min_bytes);
        if bytes < least {
            return Err(Refusal::TooSmall { bytes, least, body: feed.mask.clean(&self.head) }.into());
        }
        // The file is shorter than the held-back head, which only limits below the real ones allow.
        if self.head.len() < answer::HEAD { self.open(feed).await } else { Ok(()) }
    }
}
