//! The tries of one download: ask, judge the answer, take its body in.

use super::error::{Break, DownloadError, Refusal};
use super::{Feed, File, MOST_REDIRECTS, Progress, Since, answer};
use crate::store::{Store, Writer};
use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use secrecy::ExposeSecret;
use tokio::time::timeout;

/// One download's state from try to try.
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
    /// The first bytes, held back until they are known to be a header's.
    head: Vec<u8>,
    pub(super) received: u64,
    pub(super) total: Option<u64>,
    pub(super) since: Since,
    /// For `If-Range`: a strong ETag, else the modification time.
    validator: Option<HeaderValue>,
}

impl Tries<'_> {
    /// As `backon` wants it: the state goes in and comes out again.
    pub(super) async fn next(mut self) -> (Self, Result<Option<File>, DownloadError>) {
        let result = self.once().await;
        (self, result)
    }

    async fn once(&mut self) -> Result<Option<File>, DownloadError> {
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
                if let Err(why) = answer::continues(response.headers(), partial) {
                    self.partial = None;
                    return Err(Break::Range { why }.into());
                }
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                self.partial = None;
                return Err(Break::Range { why: "416: no such range any more".into() }.into());
            }
            (StatusCode::OK, _) => self.partial = Some(self.begin(&mut response).await?),
            // A server that is unwell for a moment may still continue the body later: the partial stays.
            (status, _) => {
                return Err(
                    Refusal::Status { status, body: self.feed.mask.snippet(&mut response).await }.into()
                );
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
        // A body that cannot be resumed is dropped here, and its spool with it.
        self.partial = self.partial.take().filter(|p| p.received > 0 && p.validator.is_some());
        let mut headers = HeaderMap::new();
        match &self.partial {
            Some(partial) => {
                headers.insert(header::RANGE, answer::range_from(partial.received));
                headers.extend(partial.validator.clone().map(|v| (header::IF_RANGE, v)));
            }
            None => {
                let etag = self.since.etag.as_deref().and_then(|e| HeaderValue::from_str(e).ok());
                headers.extend(etag.map(|e| (header::IF_NONE_MATCH, e)));
                headers.extend(
                    self.since.last_modified.map(|t| (header::IF_MODIFIED_SINCE, answer::http_date(t))),
                );
            }
        }
        headers.extend(self.feed.cookies.clone().map(|cookies| (header::COOKIE, cookies)));
        self.feed.client.get(self.feed.options.url.expose_secret()).headers(headers)
    }

    /// Checks what a 200 says of its body before any of it is read.
    async fn begin(&self, response: &mut Response) -> Result<Partial, DownloadError> {
        if answer::is_html(response.headers()) {
            return Err(Refusal::Html { body: self.feed.mask.snippet(response).await }.into());
        }
        if let Some(packing) = answer::packing(response.headers()) {
            // Never unpacked: a kilobyte of it may hold a gigabyte.
            return Err(Refusal::Packed { packing: self.feed.mask.clean(packing.as_bytes()) }.into());
        }
        let total = response.content_length();
        self.feed.check_size(total.unwrap_or(0))?;
        let since = answer::since(response.headers());
        if let (Some(now), Some(then)) = (since.last_modified, self.since.last_modified)
            && now < then
        {
            return Err(Refusal::Stale { now, then }.into());
        }
        let validator = answer::validator(&since);
        let writer = self.store.writer()?;
        Ok(Partial { writer, head: Vec::new(), received: 0, total, since, validator })
    }

    /// Reads the body to its end into the partial.
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
    async fn take(&mut self, chunk: Bytes, feed: &Feed) -> Result<(), DownloadError> {
        if self.head.len() >= answer::HEAD {
            return Ok(self.writer.write(chunk).await?);
        }
        self.head.extend_from_slice(&chunk);
        if self.head.len() >= answer::HEAD { self.open(feed).await } else { Ok(()) }
    }

    /// Lets the first bytes through, if they begin the feed's header.
    async fn open(&mut self, feed: &Feed) -> Result<(), DownloadError> {
        if !answer::begins_the_header(&self.head) {
            return Err(Refusal::FirstBytes { body: feed.mask.clean(&self.head) }.into());
        }
        Ok(self.writer.write(Bytes::copy_from_slice(&self.head)).await?)
    }

    async fn end(&mut self, feed: &Feed) -> Result<(), DownloadError> {
        let (bytes, least) = (self.received, feed.options.min_bytes);
        match self.total {
            Some(total) if total != bytes => return Err(Refusal::Length { total, bytes }.into()),
            _ if bytes < least => {
                return Err(Refusal::TooSmall { bytes, least, body: feed.mask.clean(&self.head) }.into());
            }
            _ => {}
        }
        // A file shorter than the held-back head; only limits lower than the real ones let it come here.
        if self.head.len() < answer::HEAD { self.open(feed).await } else { Ok(()) }
    }
}
