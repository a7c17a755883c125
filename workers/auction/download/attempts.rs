//! The requests of one download: send, check the response, read the body.

use super::error::{DownloadError, RejectedResponse, TransferError};
use super::gzip::{GzipDecoder, PIECE_BYTES, detect_format};
use super::response::BodyIdentity;
use super::{DownloadProgress, DownloadedFile, FeedClient, MAX_REDIRECTS, Validators, response};
use crate::auction::header::is_html;
use crate::store::{Store, StoreWriter};
use bytes::Bytes;
use headers::{HeaderMapExt, IfModifiedSince, IfRange};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use secrecy::ExposeSecret;
use std::time::SystemTime;
use tokio::time::timeout;

/// State of one download across several requests.
pub(super) struct DownloadAttempts<'a> {
    pub(super) feed: &'a FeedClient,
    pub(super) store: &'a Store,
    pub(super) since: &'a Validators,
    pub(super) progress: DownloadProgress<'a>,
    pub(super) made: u32,
    pub(super) partial: Option<PartialBody>,
}

/// A body that has begun to arrive.
pub(super) struct PartialBody {
    writer: StoreWriter,
    coding: BodyCoding,
    /// The first bytes of the file, held back until they are known to begin the header.
    head: Vec<u8>,
    /// Bytes of the body received, before decompression.
    pub(super) received: u64,
    /// Bytes of the file after decompression.
    file_bytes: u64,
    pub(super) total: Option<u64>,
    pub(super) since: Validators,
    pub(super) identity: BodyIdentity,
    /// The `If-Range` value: a strong ETag, or the modification time.
    validator: Option<IfRange>,
}

/// The coding of a body, detected by the first bytes.
enum BodyCoding {
    /// Too few bytes have arrived.
    Unknown(Vec<u8>),
    /// The bytes of the body are those of the file.
    Identity,
    Gzip(Box<GzipDecoder>),
}

impl DownloadAttempts<'_> {
    /// Sends one request. Returns the file, or `None` if it still matches `since`.
    pub(super) async fn attempt_download(&mut self) -> Result<Option<DownloadedFile>, DownloadError> {
        self.made += 1;
        let silence = self.feed.options.idle_timeout;
        let mut response = match timeout(silence, self.build_request().send()).await {
            Err(_) => return Err(TransferError::Silent { silence }.into()),
            Ok(Err(e)) if e.is_redirect() => {
                return Err(
                    RejectedResponse::Redirects { most: MAX_REDIRECTS, why: self.feed.mask.redact_error(e) }.into()
                );
            }
            Ok(Err(e)) => {
                return Err(TransferError::Connection { why: self.feed.mask.redact_error(e) }.into());
            }
            Ok(Ok(response)) => response,
        };
        match (response.status(), &self.partial) {
            (StatusCode::NOT_MODIFIED, None) if self.since.has_any() => return Ok(None),
            (StatusCode::PARTIAL_CONTENT, Some(partial)) => {
                match response::check_continuation(response.headers(), partial) {
                    Ok(total) => self.adopt_total(total)?,
                    Err(why) => {
                        self.partial = None;
                        return Err(TransferError::Range { why }.into());
                    }
                }
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                self.partial = None;
                return Err(TransferError::Range { why: "416: no such range any more".into() }.into());
            }
            (StatusCode::OK, _) => self.partial = Some(self.start_body(&response)?),
            // A server with a transient problem may still continue the body later, so the partial body stays.
            (status, _) => {
                let retry_after = response::retry_after(response.headers());
                let body = self.feed.mask.read_snippet(&mut response).await;
                return Err(RejectedResponse::Status { status, body, retry_after }.into());
            }
        }
        let body = self.read_body(&mut response).await;
        if matches!(body, Err(DownloadError::Refused(_))) {
            self.partial = None;
        }
        body?;
        let Some(partial) = self.partial.take() else { return Ok(None) };
        let spool = partial.writer.finish().await?;
        Ok(Some(DownloadedFile { spool, since: partial.since }))
    }

    fn build_request(&mut self) -> reqwest::RequestBuilder {
        // A body that cannot be resumed is dropped here together with its spool.
        self.partial = self.partial.take().filter(|p| p.received > 0 && p.validator.is_some());
        let mut headers = HeaderMap::new();
        match &self.partial {
            Some(partial) => {
                headers.insert(header::RANGE, response::range_from(partial.received));
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
    fn adopt_total(&mut self, total: Option<u64>) -> Result<(), DownloadError> {
        self.feed.check_size(total.unwrap_or(0))?;
        if let Some(partial) = &mut self.partial {
            partial.total = partial.total.or(total);
        }
        Ok(())
    }

    /// Checks the headers of a 200 before any of the body is read.
    fn start_body(&self, response: &Response) -> Result<PartialBody, DownloadError> {
        let headers = response.headers();
        let total = response.content_length();
        self.feed.check_size(total.unwrap_or(0))?;
        let since = response::read_validators(headers);
        if let (Some(now), Some(then)) = (since.last_modified, self.since.last_modified)
            && now < then
        {
            return Err(RejectedResponse::Stale { now, then }.into());
        }
        Ok(PartialBody {
            writer: self.store.writer()?,
            coding: BodyCoding::Unknown(Vec::new()),
            head: Vec::new(),
            received: 0,
            file_bytes: 0,
            total,
            since,
            identity: BodyIdentity::from_headers(headers),
            validator: response::if_range_validator(headers),
        })
    }

    /// Reads the rest of the body into the partial body.
    async fn read_body(&mut self, response: &mut Response) -> Result<(), DownloadError> {
        let silence = self.feed.options.idle_timeout;
        let Some(partial) = &mut self.partial else { return Ok(()) };
        loop {
            let chunk = match timeout(silence, response.chunk()).await {
                Err(_) => return Err(TransferError::Stalled { silence, got: partial.received }.into()),
                Ok(Err(e)) => {
                    let (got, total) = (partial.received, partial.total);
                    return Err(TransferError::Cut { got, total, why: self.feed.mask.redact_error(e) }.into());
                }
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
            };
            partial.received += chunk.len() as u64;
            self.feed.check_size(partial.received)?;
            partial.receive_chunk(chunk, self.feed).await?;
            (self.progress)(partial.received, partial.total.unwrap_or(0));
        }
        partial.finish_body(self.feed).await
    }
}

impl PartialBody {
    /// Processes the next bytes of the body, decompressed if necessary.
    async fn receive_chunk(&mut self, chunk: Bytes, feed: &FeedClient) -> Result<(), DownloadError> {
        let chunk = match &mut self.coding {
            BodyCoding::Unknown(first) => {
                first.extend_from_slice(&chunk);
                if first.len() < response::HEAD_BYTES {
                    return Ok(());
                }
                let first = Bytes::from(std::mem::take(first));
                self.coding = self.detect_coding(&first, feed)?;
                first
            }
            _ => chunk,
        };
        let BodyCoding::Gzip(_) = &self.coding else { return self.write_bytes(chunk, feed).await };
        for piece in chunk.chunks(PIECE_BYTES) {
            let BodyCoding::Gzip(gunzip) = &mut self.coding else { break };
            let bytes = gunzip.write(piece)?;
            self.write_bytes(bytes, feed).await?;
        }
        Ok(())
    }

    /// Returns the coding of the body, detected by the first bytes. `Content-Encoding` only names an unknown one.
    fn detect_coding(&self, first: &[u8], feed: &FeedClient) -> Result<BodyCoding, DownloadError> {
        let encoding = match detect_format(first) {
            Some("gzip") => return Ok(BodyCoding::Gzip(Box::new(GzipDecoder::new()))),
            Some(format) => format.to_owned(),
            None => match self.identity.encoding() {
                Some(encoding) if !response::is_header_start(first) => feed.mask.clean_text(encoding.as_bytes()),
                _ => return Ok(BodyCoding::Identity),
            },
        };
        Err(RejectedResponse::Compressed { encoding }.into())
    }

    /// Writes the next bytes of the file, and checks the size.
    async fn write_bytes(&mut self, bytes: Bytes, feed: &FeedClient) -> Result<(), DownloadError> {
        self.file_bytes += bytes.len() as u64;
        feed.check_size(self.file_bytes)?;
        if self.head.len() >= response::HEAD_BYTES {
            return if bytes.is_empty() { Ok(()) } else { Ok(self.writer.write(bytes).await?) };
        }
        self.head.extend_from_slice(&bytes);
        if self.head.len() >= response::HEAD_BYTES { self.write_head(feed).await } else { Ok(()) }
    }

    /// Writes the held-back first bytes, if they begin the feed's header.
    async fn write_head(&mut self, feed: &FeedClient) -> Result<(), DownloadError> {
        if !response::is_header_start(&self.head) {
            let body = feed.mask.clean_text(&self.head);
            // The decision uses the bytes and ignores `Content-Type`.
            let html = is_html(&self.head);
            return Err(
                if html { RejectedResponse::Html { body } } else { RejectedResponse::FirstBytes { body } }.into()
            );
        }
        Ok(self.writer.write(Bytes::copy_from_slice(&self.head)).await?)
    }

    async fn finish_body(&mut self, feed: &FeedClient) -> Result<(), DownloadError> {
        if let Some(total) = self.total.filter(|total| *total != self.received) {
            return Err(RejectedResponse::Length { total, bytes: self.received }.into());
        }
        let last = match &mut self.coding {
            BodyCoding::Unknown(first) => Bytes::from(std::mem::take(first)),
            BodyCoding::Gzip(gunzip) => gunzip.finish()?,
            BodyCoding::Identity => Bytes::new(),
        };
        self.write_bytes(last, feed).await?;
        let (bytes, least) = (self.file_bytes, feed.options.min_bytes);
        if bytes < least {
            return Err(RejectedResponse::TooSmall { bytes, least, body: feed.mask.clean_text(&self.head) }.into());
        }
        // The file is shorter than the held-back head, which only limits below the real ones allow.
        if self.head.len() < response::HEAD_BYTES { self.write_head(feed).await } else { Ok(()) }
    }
}
