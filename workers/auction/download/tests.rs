//! Tests the download against a server that misbehaves in one way per test.
//!
//! Long because each kind of misbehaviour is a test of its own, over the same server.

use super::*;
use axum::body::Body;
use axum::http::Response as Answer;
use bytes::Bytes;
use futures::{StreamExt, stream};
use scripted_server::{
    ENCODED_KEY, SECRET_KEY, ScriptedResponse, ScriptedServer, feed_csv, full_response, respond_with, response_builder,
};
use std::io::Read;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod responses;
pub mod scripted_server;

/// Returns a response with the first `n` bytes of the file, after which the connection breaks.
fn cut_response(n: usize, etag: &'static str) -> ScriptedResponse {
    respond_with(move |_| {
        let pieces = stream::iter([Ok(feed_csv()[..n].to_owned()), Err(std::io::Error::other("cut"))]);
        // The error must not overtake the bytes before it.
        let pieces = pieces.then(async |piece| {
            tokio::task::yield_now().await;
            piece
        });
        let head = response_builder(200).header("etag", etag).header("content-length", feed_csv().len());
        head.body(Body::from_stream(pieces)).unwrap()
    })
}

fn partial_response(from: usize, etag: &'static str, range: impl Into<String>) -> ScriptedResponse {
    let range = range.into();
    respond_with(move |_| {
        let head = response_builder(206).header("etag", etag).header("content-range", range);
        head.body(feed_csv()[from..].to_owned().into()).unwrap()
    })
}

fn content_range(from: usize) -> String {
    format!("bytes {from}-{}/{}", feed_csv().len() - 1, feed_csv().len())
}

fn test_options(url: &str) -> FeedOptions {
    FeedOptions {
        idle_timeout: Duration::from_millis(300),
        waits: vec![Duration::ZERO; 3],
        ..FeedOptions::new(SecretString::from(url), "vinops-test", "https://www.copart.com/")
    }
}

struct DownloadOutcome {
    result: Result<CompletedDownload, DownloadError>,
    store: Store,
}

impl DownloadOutcome {
    /// Returns the text of the file, read back from the store.
    async fn file_text(self) -> String {
        let file = self.result.unwrap().file.unwrap();
        self.store.publish_spool(&file.spool, "raw/x").await.unwrap();
        let mut reader = self.store.open_reader("raw/x").await.unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        read.await.unwrap().unwrap()
    }

    /// Returns the text of the error, after a check that neither Display nor Debug contains the key.
    fn error_text(self) -> String {
        let e = self.result.unwrap_err();
        let (display, debug) = (e.to_string(), format!("{e:?}"));
        let chain = format!("{:#}\n{:?}", anyhow!("{e}"), anyhow::Error::new(e));
        for text in [&display, &debug, &chain] {
            for trace in [SECRET_KEY, ENCODED_KEY, "PLANTED", "authKey="] {
                assert!(!text.contains(trace), "{trace} in {text}");
            }
        }
        display
    }
}

async fn download_with(options: FeedOptions, since: Validators) -> DownloadOutcome {
    let store = Store::open("memory:").unwrap();
    let feed = FeedClient::new(options).unwrap();
    assert!(!format!("{feed:?}").contains("PLANTED"));
    let result = feed.download(&store, &since, &|_, _| {}).await;
    DownloadOutcome { result, store }
}

async fn download_from(url: &str) -> DownloadOutcome {
    download_with(test_options(url), Validators::default()).await
}

fn single_attempt(url: &str) -> FeedOptions {
    FeedOptions { waits: vec![], ..test_options(url) }
}

#[tokio::test]
async fn a_good_file_is_kept_with_what_its_answer_said_of_itself() {
    let server = ScriptedServer::with_responses(vec![respond_with(|_| {
        let head = response_builder(200).header("etag", "\"68eef0a5-5b8b851\"");
        head.header("last-modified", "Wed, 15 Oct 2025 04:00:05 GMT").body(feed_csv().into()).unwrap()
    })])
    .await;
    let outcome = download_from(&server.url).await;
    let download = outcome.result.as_ref().unwrap();
    let file = download.file.as_ref().unwrap();
    assert_eq!((download.tries, file.spool.bytes), (1, feed_csv().len() as u64));
    assert_eq!(file.since.etag.as_deref(), Some("\"68eef0a5-5b8b851\""));
    assert_eq!(file.since.last_modified, Some("2025-10-15T04:00:05Z".parse().unwrap()));
    assert_eq!(server.request_header(0, header::USER_AGENT).as_deref(), Some("vinops-test"));
    assert_eq!(server.request_header(0, header::REFERER).as_deref(), Some("https://www.copart.com/"));
    assert_eq!(server.request_header(0, header::ACCEPT_ENCODING).as_deref(), Some("identity"));
    assert_eq!(outcome.file_text().await, feed_csv());
}

#[tokio::test]
async fn bytes_received_and_expected_are_told_while_they_arrive() {
    let server = ScriptedServer::with_responses(vec![full_response(feed_csv())]).await;
    let store = Store::open("memory:").unwrap();
    let progress = Mutex::new(Vec::new());
    let feed = FeedClient::new(test_options(&server.url)).unwrap();
    feed.download(&store, &Validators::default(), &|done, total| progress.lock().unwrap().push((done, total)))
        .await
        .unwrap();
    let size = feed_csv().len() as u64;
    assert_eq!(progress.lock().unwrap().last(), Some(&(size, size)));
}

#[tokio::test]
async fn what_has_not_changed_since_the_last_good_file_is_not_sent_again() {
    let server =
        ScriptedServer::with_responses(vec![respond_with(|_| response_builder(304).body(Body::empty()).unwrap())])
            .await;
    let since =
        Validators { etag: Some("\"e1\"".into()), last_modified: Some("2025-10-15T04:00:05Z".parse().unwrap()) };
    let outcome = download_with(test_options(&server.url), since).await;
    assert!(outcome.result.unwrap().file.is_none());
    assert_eq!(server.request_header(0, header::IF_NONE_MATCH).as_deref(), Some("\"e1\""));
    assert_eq!(server.request_header(0, header::IF_MODIFIED_SINCE).as_deref(), Some("Wed, 15 Oct 2025 04:00:05 GMT"));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_resumed_where_it_ended() {
    let server = ScriptedServer::with_responses(vec![
        cut_response(1500, "\"e1\""),
        partial_response(1500, "\"e1\"", content_range(1500)),
    ])
    .await;
    let outcome = download_from(&server.url).await;
    assert_eq!(outcome.result.as_ref().unwrap().tries, 2);
    assert_eq!(server.request_header(1, header::RANGE).as_deref(), Some("bytes=1500-"));
    assert_eq!(server.request_header(1, header::IF_RANGE).as_deref(), Some("\"e1\""));
    assert_eq!(server.request_header(1, header::IF_NONE_MATCH), None);
    assert_eq!(outcome.file_text().await, feed_csv());
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_starts_over() {
    let server = ScriptedServer::with_responses(vec![cut_response(1500, "\"e1\""), full_response(feed_csv())]).await;
    assert_eq!(download_from(&server.url).await.file_text().await, feed_csv());
}

#[tokio::test]
async fn a_rest_that_does_not_fit_the_beginning_is_thrown_away_and_the_next_try_starts_over() {
    let misfits = [
        partial_response(1500, "\"e2\"", content_range(1500)),
        partial_response(1500, "\"e1\"", content_range(1400)),
        partial_response(1500, "\"e1\"", format!("bytes 1500-{}/{}", feed_csv().len(), feed_csv().len() + 1)),
        partial_response(1500, "\"e1\"", "pages 3-4"),
        respond_with(|_| response_builder(416).body(Body::empty()).unwrap()),
    ];
    for misfit in misfits {
        let server =
            ScriptedServer::with_responses(vec![cut_response(1500, "\"e1\""), misfit, full_response(feed_csv())]).await;
        let outcome = download_from(&server.url).await;
        assert_eq!(outcome.result.as_ref().unwrap().tries, 3);
        assert_eq!(server.request_header(2, header::RANGE), None);
        assert_eq!(outcome.file_text().await, feed_csv());
    }
}

#[tokio::test]
async fn a_weak_etag_does_not_resume() {
    let server = ScriptedServer::with_responses(vec![cut_response(1500, "W/\"e1\""), full_response(feed_csv())]).await;
    assert_eq!(download_from(&server.url).await.file_text().await, feed_csv());
    assert_eq!(server.request_header(1, header::RANGE), None);
}

#[tokio::test]
async fn a_server_unwell_between_two_halves_does_not_lose_the_first() {
    let unwell = respond_with(|_| response_builder(503).body("later".into()).unwrap());
    let server = ScriptedServer::with_responses(vec![
        cut_response(1500, "\"e1\""),
        unwell,
        partial_response(1500, "\"e1\"", content_range(1500)),
    ])
    .await;
    let outcome = download_from(&server.url).await;
    assert_eq!(outcome.result.as_ref().unwrap().tries, 3);
    assert_eq!(outcome.file_text().await, feed_csv());
}

#[tokio::test]
async fn four_tries_are_all_there_are() {
    let refuse = || respond_with(|_| response_builder(403).body(format!("no entry with {SECRET_KEY}").into()).unwrap());
    let server =
        ScriptedServer::with_responses(vec![refuse(), refuse(), refuse(), refuse(), full_response(feed_csv())]).await;
    let error = download_from(&server.url).await.error_text();
    assert!(error.contains("403 Forbidden") && error.contains("no entry with [redacted]"), "{error}");
    assert_eq!(server.asked.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn an_answer_that_is_not_the_feed_is_refused_with_its_beginning() {
    let page =
        format!("<html>\r\n\0<p>for {ENCODED_KEY} and {SECRET_KEY} at ?authKey={ENCODED_KEY}</p>{}", "x".repeat(9000));
    let html = page.clone();
    let bom_html = format!("\u{feff}{page}");
    let acts: Vec<(ScriptedResponse, &str)> = vec![
        (respond_with(|_| response_builder(403).body(page.into()).unwrap()), "403 Forbidden"),
        (
            respond_with(|_| Answer::builder().header("content-type", "Text/HTML; x").body(html.into()).unwrap()),
            "HTML page",
        ),
        (full_response(bom_html), "HTML page"),
        (full_response(format!("Lot number,Id\n{}", "1,2\n".repeat(500))), "does not begin"),
        (full_response(""), "0 bytes is too small"),
        (full_response("\"Id\",\"Lot number\"\n"), "too small (at least 1000)"),
        (full_response("\"Id\""), "too small"),
        (respond_with(|_| response_builder(206).body(feed_csv().into()).unwrap()), "206"),
        (respond_with(|_| response_builder(204).body(Body::empty()).unwrap()), "204"),
        (respond_with(|_| response_builder(304).body(Body::empty()).unwrap()), "304"),
    ];
    for (act, says) in acts {
        let server = ScriptedServer::with_responses(vec![act]).await;
        let error = download_with(single_attempt(&server.url), Validators::default()).await.error_text();
        assert!(error.contains("rejected") && error.contains(says), "{error}");
        assert!(error.len() < 400 && !error.chars().any(char::is_control), "{error}");
    }
}

#[tokio::test]
async fn a_byte_order_mark_and_a_bare_header_are_the_feed_too() {
    for text in [format!("\u{feff}{}", feed_csv()), feed_csv().replace('"', "")] {
        let server = ScriptedServer::with_responses(vec![full_response(text.clone())]).await;
        assert_eq!(download_from(&server.url).await.file_text().await, text);
    }
}

#[tokio::test]
async fn first_bytes_that_come_one_by_one_are_judged_together() {
    let act = respond_with(|_| {
        let bytes: Vec<_> = feed_csv().bytes().map(|b| Ok::<_, std::io::Error>(Bytes::copy_from_slice(&[b]))).collect();
        response_builder(200).body(Body::from_stream(stream::iter(bytes))).unwrap()
    });
    let server = ScriptedServer::with_responses(vec![act]).await;
    assert_eq!(download_from(&server.url).await.file_text().await, feed_csv());
}

#[tokio::test]
async fn redirects_are_followed_three_times_without_telling_where_from() {
    let redirect =
        || respond_with(|r| response_builder(302).header("location", r.uri().to_string()).body(Body::empty()).unwrap());
    let acts = vec![redirect(), redirect(), redirect(), full_response(feed_csv())];
    let server = ScriptedServer::with_responses(acts).await;
    assert!(download_with(single_attempt(&server.url), Validators::default()).await.result.is_ok());
    assert_eq!(server.request_header(3, header::REFERER).as_deref(), Some("https://www.copart.com/"));

    let server =
        ScriptedServer::with_responses(vec![redirect(), redirect(), redirect(), redirect(), full_response(feed_csv())])
            .await;
    let error = download_with(single_attempt(&server.url), Validators::default()).await.error_text();
    assert!(error.contains("more than 3 redirects"), "{error}");
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_after_the_silence() {
    let stall = respond_with(|_| {
        let start = stream::iter([Ok::<_, std::io::Error>(feed_csv()[..600].to_owned())]);
        response_builder(200).body(Body::from_stream(start.chain(stream::pending()))).unwrap()
    });
    let server = ScriptedServer::with_responses(vec![stall]).await;
    let error = download_with(single_attempt(&server.url), Validators::default()).await.error_text();
    assert!(error.contains("no data for 300ms after 600 bytes"), "{error}");
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_at_the_deadline() {
    let drip = respond_with(|_| {
        let drops = stream::repeat_with(|| Ok::<_, std::io::Error>("\"Id\","));
        let tick = tokio::time::interval(Duration::from_millis(20));
        let slow = stream::unfold((drops, tick), async |(mut drops, mut tick)| {
            tick.tick().await;
            Some((drops.next().await?, (drops, tick)))
        });
        response_builder(200).body(Body::from_stream(Box::pin(slow))).unwrap()
    });
    let server = ScriptedServer::with_responses(vec![drip]).await;
    let options = FeedOptions { deadline: Duration::from_millis(500), ..test_options(&server.url) };
    let error = download_with(options, Validators::default()).await.error_text();
    assert!(error.contains("not completed within 500ms"), "{error}");
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_whether_announced_or_not() {
    let endless = || {
        respond_with(|_| {
            let rows = stream::repeat_with(|| Ok::<_, std::io::Error>("\"Id\",\"Lot number\"\n"));
            response_builder(200).body(Body::from_stream(rows)).unwrap()
        })
    };
    for act in [full_response(feed_csv()), endless()] {
        let server = ScriptedServer::with_responses(vec![act]).await;
        let options = FeedOptions { max_bytes: 2000, ..test_options(&server.url) };
        let error = download_with(options, Validators::default()).await.error_text();
        assert!(error.contains("too large (at most 2000)"), "{error}");
        assert_eq!(server.asked.lock().unwrap().len(), 1, "no second try for a file that is too large");
    }
}

/// Starts a server below HTTP that reads the request, writes `bytes`, and closes.
async fn raw_server(bytes: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/salesdata.cgi?authKey={ENCODED_KEY}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            _ = stream.read(&mut [0; 4096]).await;
            _ = stream.write_all(bytes.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn a_body_shorter_than_its_length_is_cut_and_told_so() {
    let url = raw_server(format!("HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n{}", feed_csv())).await;
    let error = download_with(single_attempt(&url), Validators::default()).await.error_text();
    assert!(error.contains(&format!("cut after {} of 99999 bytes", feed_csv().len())), "{error}");
}

#[tokio::test]
async fn a_resumed_body_that_ends_short_of_the_total_is_refused() {
    let short = respond_with(|_| {
        let head = response_builder(206).header("etag", "\"e1\"").header("content-range", content_range(1500));
        head.body(feed_csv()[1500..feed_csv().len() - 40].to_owned().into()).unwrap()
    });
    let server = ScriptedServer::with_responses(vec![cut_response(1500, "\"e1\""), short]).await;
    let options = FeedOptions { waits: vec![Duration::ZERO], ..test_options(&server.url) };
    let error = download_with(options, Validators::default()).await.error_text();
    assert!(error.contains("bytes instead of"), "{error}");
}

#[tokio::test]
async fn no_connection_and_no_http_and_no_answer_are_told_without_the_key() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let garbage = raw_server(format!("What is {SECRET_KEY}?\r\n\r\n")).await;
    for (url, says) in [
        (format!("http://{closed}/?authKey={ENCODED_KEY}"), "connection failed: "),
        (format!("http://user:{ENCODED_KEY}@{closed}/?authKey={ENCODED_KEY}"), "connection failed: "),
        (format!("https://{closed}/?authKey={ENCODED_KEY}"), "connection failed: "),
        (garbage, "connection failed: "),
        (format!("http://{}/?authKey={ENCODED_KEY}", deaf.local_addr().unwrap()), "no response within 300ms"),
    ] {
        let error = download_with(single_attempt(&url), Validators::default()).await.error_text();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_keep_the_bytes_ends_the_download_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Url::from_directory_path(folder.path()).unwrap().as_str()).unwrap();
    std::fs::write(folder.path().join("spool"), "a file in the way").unwrap();
    let server = ScriptedServer::with_responses(vec![full_response(feed_csv()), full_response(feed_csv())]).await;
    let feed = FeedClient::new(test_options(&server.url)).unwrap();
    let result = feed.download(&store, &Validators::default(), &|_, _| {}).await;
    let error = DownloadOutcome { result, store }.error_text();
    assert!(error.contains("store the downloaded bytes") && error.contains("VINOPS_STORE"), "{error}");
    assert_eq!(server.asked.lock().unwrap().len(), 1);
}

#[test]
fn a_url_that_is_none_is_named_by_its_variable_only() {
    for url in [format!("not a url {SECRET_KEY}"), format!("ftp://host/{SECRET_KEY}"), SECRET_KEY.to_owned()] {
        let e = FeedClient::new(test_options(&url)).unwrap_err();
        let text = format!("{e:#} {e:?}");
        assert!(text.contains("COPART_FEED_URL") && !text.contains("PLANTED"), "{text}");
    }
    let e = FeedClient::new(FeedOptions { user_agent: "a\nb".into(), ..test_options("http://x/") }).unwrap_err();
    assert!(e.to_string().contains("COPART_USER_AGENT"));
}

#[test]
fn the_waits_are_one_two_four_seconds_within_a_slot() {
    let options = FeedOptions::new(SecretString::from("http://x/"), "a", "b");
    assert_eq!(options.waits, [1, 2, 4].map(Duration::from_secs));
    assert!(options.deadline < Duration::from_secs(900));
}
