//! Tests of wrong headers, mismatched partial responses, `Retry-After`, and compressed bodies.

use super::*;
use std::io::Write;
use std::time::Instant;

const RESPONSE_DATE: &str = "Wed, 15 Oct 2025 04:00:05 GMT";
const MODIFIED_BEFORE: &str = "Wed, 15 Oct 2025 04:00:04 GMT";
const MODIFIED_AFTER: &str = "Wed, 15 Oct 2025 04:00:06 GMT";

type HeaderPairs = &'static [(&'static str, &'static str)];

/// Returns the next snapshot, which has the same length and differs in each row.
fn newer_csv() -> String {
    feed_csv().replace("45148624", "45148625")
}

fn response_with(status: u16, headers: HeaderPairs, body: impl Into<Body>) -> Answer<Body> {
    let head = headers.iter().fold(Answer::builder().status(status), |head, (name, value)| head.header(*name, *value));
    head.body(body.into()).unwrap()
}

/// Returns a response with the first bytes of the file and without its length, after which the connection breaks.
fn cut_unsized(n: usize, headers: HeaderPairs) -> ScriptedResponse {
    respond_with(move |_| {
        let pieces = stream::iter([Ok(feed_csv()[..n].to_owned()), Err(std::io::Error::other("cut"))]);
        let pieces = pieces.then(async |piece| {
            tokio::task::yield_now().await;
            piece
        });
        response_with(200, headers, Body::from_stream(pieces))
    })
}

/// Returns a response with the file from byte 1500 on, under the correct range.
fn partial_response_of(file: String, headers: HeaderPairs) -> ScriptedResponse {
    respond_with(move |_| {
        let mut answer = response_with(206, headers, file[1500..].to_owned());
        let range = format!("bytes 1500-{}/{}", file.len() - 1, file.len());
        answer.headers_mut().insert("content-range", range.parse().unwrap());
        answer
    })
}

fn ok_response(headers: HeaderPairs, body: impl Into<Body> + Send + 'static) -> ScriptedResponse {
    respond_with(move |_| response_with(200, headers, body))
}

fn gzip_text(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_last_modified_later_than_the_answers_date_or_older_than_the_web_is_no_reference() {
    let dated: [(HeaderPairs, Option<&str>); 6] = [
        (&[("date", RESPONSE_DATE), ("last-modified", MODIFIED_AFTER)], None),
        (&[("date", RESPONSE_DATE), ("last-modified", RESPONSE_DATE)], Some("2025-10-15T04:00:05Z")),
        (
            &[("date", RESPONSE_DATE), ("last-modified", "Wednesday, 15-Oct-25 04:00:04 GMT")],
            Some("2025-10-15T04:00:04Z"),
        ),
        (&[("date", RESPONSE_DATE), ("last-modified", "Wed Oct 15 04:00:04 2025")], Some("2025-10-15T04:00:04Z")),
        (&[("last-modified", "Sun, 15 Oct 2090 04:00:05 GMT")], None),
        (&[("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")], None),
    ];
    for (headers, expected) in dated {
        let server = ScriptedServer::with_responses(vec![ok_response(headers, feed_csv())]).await;
        let file = download_from(&server.url).await.result.unwrap().file.unwrap();
        assert_eq!(file.since.last_modified, expected.map(|at| at.parse().unwrap()), "{headers:?}");
    }
}

#[tokio::test]
async fn a_date_resumes_a_body_only_where_it_is_older_than_the_answer_and_there_is_no_etag() {
    let cases: [(HeaderPairs, Option<&str>); 5] = [
        (&[("date", RESPONSE_DATE), ("last-modified", MODIFIED_BEFORE), ("etag", "unquoted")], None),
        (&[("date", RESPONSE_DATE), ("last-modified", MODIFIED_BEFORE)], Some(MODIFIED_BEFORE)),
        (&[("date", RESPONSE_DATE), ("last-modified", RESPONSE_DATE)], None),
        (&[("date", RESPONSE_DATE), ("last-modified", MODIFIED_AFTER)], None),
        (&[("date", RESPONSE_DATE), ("last-modified", MODIFIED_BEFORE), ("etag", "W/\"e1\"")], None),
    ];
    for (headers, if_range) in cases {
        let server =
            ScriptedServer::with_responses(vec![cut_unsized(1500, headers), ok_response(headers, feed_csv())]).await;
        assert_eq!(download_from(&server.url).await.file_text().await, feed_csv());
        assert_eq!(server.request_header(1, header::IF_RANGE).as_deref(), if_range);
        assert_eq!(server.request_header(1, header::RANGE).is_some(), if_range.is_some());
    }
}

#[tokio::test]
async fn a_rest_that_disagrees_in_any_header_starts_over_and_two_snapshots_are_never_sewn_together() {
    const DATED: HeaderPairs = &[("date", RESPONSE_DATE), ("last-modified", MODIFIED_BEFORE)];
    const TAGGED: HeaderPairs = &[("date", RESPONSE_DATE), ("last-modified", MODIFIED_BEFORE), ("etag", "\"e1\"")];
    let longer = || format!("{}1,45148625\n", newer_csv());
    let misfits: Vec<(HeaderPairs, ScriptedResponse)> = vec![
        (DATED, partial_response_of(newer_csv(), &[("date", MODIFIED_AFTER), ("last-modified", RESPONSE_DATE)])),
        (DATED, partial_response_of(newer_csv(), &[("date", MODIFIED_AFTER)])),
        (
            DATED,
            partial_response_of(
                newer_csv(),
                &[("date", MODIFIED_AFTER), ("last-modified", MODIFIED_BEFORE), ("etag", "\"e2\"")],
            ),
        ),
        (
            TAGGED,
            partial_response_of(
                newer_csv(),
                &[("date", MODIFIED_AFTER), ("last-modified", RESPONSE_DATE), ("etag", "\"e1\"")],
            ),
        ),
        (TAGGED, partial_response_of(newer_csv(), &[("date", MODIFIED_AFTER), ("last-modified", MODIFIED_BEFORE)])),
        (TAGGED, partial_response_of(newer_csv(), &[("etag", "\"e1\""), ("content-encoding", "gzip")])),
        (DATED, partial_response_of(longer(), &[("date", MODIFIED_AFTER), ("last-modified", MODIFIED_AFTER)])),
    ];
    for (first, misfit) in misfits {
        let server =
            ScriptedServer::with_responses(vec![cut_unsized(1500, first), misfit, full_response(newer_csv())]).await;
        let outcome = download_from(&server.url).await;
        assert_eq!(outcome.result.as_ref().unwrap().tries, 3);
        assert!(server.request_header(1, header::RANGE).is_some() && server.request_header(2, header::RANGE).is_none());
        assert_eq!(outcome.file_text().await, newer_csv());
    }
}

#[tokio::test]
async fn a_rest_that_agrees_in_its_etag_may_leave_out_the_date() {
    const TAGGED: HeaderPairs = &[("last-modified", MODIFIED_BEFORE), ("etag", "\"e1\"")];
    let rest = partial_response_of(feed_csv(), &[("etag", "\"e1\"")]);
    let server = ScriptedServer::with_responses(vec![cut_unsized(1500, TAGGED), rest]).await;
    let outcome = download_from(&server.url).await;
    assert_eq!(outcome.result.as_ref().unwrap().tries, 2);
    assert_eq!(outcome.file_text().await, feed_csv());
}

#[tokio::test]
async fn a_body_that_ends_before_the_total_that_only_its_rest_names_is_not_whole() {
    const TAGGED: HeaderPairs = &[("etag", "\"e1\"")];
    let short = || {
        respond_with(|_| {
            let range = format!("bytes 1500-{}/{}", feed_csv().len() - 1, feed_csv().len());
            let rest = feed_csv()[1500..feed_csv().len() - 11].to_owned();
            let head = Answer::builder().status(206).header("etag", "\"e1\"").header("content-range", range);
            // In pieces, so that no Content-Length states the length of the remainder.
            head.body(Body::from_stream(stream::iter([Ok::<_, std::io::Error>(rest)]))).unwrap()
        })
    };
    let server =
        ScriptedServer::with_responses(vec![cut_unsized(1500, TAGGED), short(), full_response(newer_csv())]).await;
    let outcome = download_from(&server.url).await;
    assert_eq!(outcome.result.as_ref().unwrap().tries, 3);
    assert_eq!(outcome.file_text().await, newer_csv());

    let server = ScriptedServer::with_responses(vec![cut_unsized(1500, TAGGED), short()]).await;
    let options = FeedOptions { waits: vec![Duration::ZERO], ..test_options(&server.url) };
    let error = download_with(options, Validators::default()).await.error_text();
    assert!(
        error.contains(&format!("received {} bytes instead of {}", feed_csv().len() - 11, feed_csv().len())),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_of_http_1_0_without_a_length_is_the_feed_to_its_end() {
    let url = raw_server(format!("HTTP/1.0 200 OK\r\nLast-Modified: {MODIFIED_BEFORE}\r\n\r\n{}", feed_csv())).await;
    assert_eq!(download_with(single_attempt(&url), Validators::default()).await.file_text().await, feed_csv());
}

fn busy_response(status: u16, headers: HeaderPairs) -> ScriptedResponse {
    respond_with(move |_| response_with(status, headers, "slow down"))
}

#[tokio::test]
async fn a_wait_that_the_server_asks_for_is_kept_in_seconds_and_as_a_date() {
    let seconds = busy_response(429, &[("retry-after", "1")]);
    let date = busy_response(503, &[("date", RESPONSE_DATE), ("retry-after", MODIFIED_AFTER)]);
    let server = ScriptedServer::with_responses(vec![seconds, date, full_response(feed_csv())]).await;
    let began = Instant::now();
    assert_eq!(download_from(&server.url).await.result.unwrap().tries, 3);
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_wait_beyond_the_slot_gives_it_up_and_the_error_names_it() {
    let cases: [(u16, HeaderPairs, &str); 5] = [
        (429, &[("retry-after", "61")], "429 Too Many Requests, body \"slow down\"; its Retry-After of 61 s"),
        (503, &[("retry-after", "3600")], "503 Service Unavailable, body \"slow down\"; its Retry-After of 3600 s"),
        (503, &[("date", RESPONSE_DATE), ("retry-after", "Wed, 15 Oct 2025 05:00:05 GMT")], "Retry-After of 3600 s"),
        (403, &[("retry-after", "600")], "403 Forbidden, body \"slow down\"; its Retry-After of 600 s"),
        (429, &[("retry-after", "99999999999999999999999")], "Retry-After of 18446744073709551615 s"),
    ];
    for (status, headers, says) in cases {
        let server =
            ScriptedServer::with_responses(vec![busy_response(status, headers), full_response(feed_csv())]).await;
        let store = Store::open("memory:").unwrap();
        let feed = FeedClient::new(test_options(&server.url)).unwrap().with_retry_within(Duration::from_secs(60));
        let result = feed.download(&store, &Validators::default(), &|_, _| {}).await;
        let error = DownloadOutcome { result, store }.error_text();
        assert!(error.contains(says), "{error}");
        assert!(error.ends_with("exceeds the 59 s left in the slot"), "{error}");
        assert_eq!(server.asked.lock().unwrap().len(), 1);
    }
    // Without a slot the deadline of a download is the limit.
    let server = ScriptedServer::with_responses(vec![busy_response(503, &[("retry-after", "601")])]).await;
    let error = download_from(&server.url).await.error_text();
    assert!(error.contains("Retry-After of 601 s exceeds the 599 s left"), "{error}");
}

#[tokio::test]
async fn a_wait_that_means_nothing_is_the_usual_one_and_four_tries_are_all_there_are() {
    let odd = ["soon", "-5", "1.5", "0"].map(|value| {
        respond_with(move |_| {
            Answer::builder().status(503).header("retry-after", value).body("slow down".into()).unwrap()
        })
    });
    let server = ScriptedServer::with_responses(odd.into_iter().chain([full_response(feed_csv())]).collect()).await;
    let error = download_from(&server.url).await.error_text();
    assert!(error.ends_with("503 Service Unavailable, body \"slow down\"; its Retry-After is 0 s"), "{error}");
    assert_eq!(server.asked.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn the_feed_under_a_wrong_content_type_is_judged_by_its_bytes() {
    let types: [HeaderPairs; 3] = [
        &[("content-type", "text/html; charset=UTF-8")],
        &[("content-type", "application/json")],
        &[("content-type", "no type at all")],
    ];
    for headers in types {
        let server = ScriptedServer::with_responses(vec![ok_response(headers, feed_csv())]).await;
        assert_eq!(
            download_with(single_attempt(&server.url), Validators::default()).await.file_text().await,
            feed_csv()
        );
    }
    let page = format!("\n <!DOCTYPE html><p>{}", "x".repeat(2000));
    let server = ScriptedServer::with_responses(vec![ok_response(&[("content-type", "text/csv")], page)]).await;
    let outcome = download_with(single_attempt(&server.url), Validators::default()).await;
    assert!(outcome.result.as_ref().unwrap_err().is_access_denied());
    let error = outcome.error_text();
    assert!(error.contains("an HTML page: \"<!DOCTYPE html><p>xxx"), "{error}");
}

#[tokio::test]
async fn gzip_that_nobody_asked_for_is_decompressed_whatever_the_headers_say() {
    let members = [gzip_text(&feed_csv()[..1000]), gzip_text(&feed_csv()[1000..])].concat();
    let bodies: Vec<(HeaderPairs, Vec<u8>)> = vec![
        (&[("content-encoding", "gzip"), ("etag", "\"e1\"")], gzip_text(&feed_csv())),
        (&[("content-encoding", "x-gzip"), ("content-type", "text/html")], gzip_text(&feed_csv())),
        (&[("content-type", "application/gzip")], gzip_text(&feed_csv())),
        (&[], members),
        // The opposite mismatch: a header without a compressed body.
        (&[("content-encoding", "gzip")], feed_csv().into_bytes()),
        (&[("content-encoding", "br")], feed_csv().into_bytes()),
    ];
    for (headers, body) in bodies {
        let server = ScriptedServer::with_responses(vec![ok_response(headers, body)]).await;
        let outcome = download_with(single_attempt(&server.url), Validators::default()).await;
        let file = outcome.result.as_ref().unwrap().file.as_ref().unwrap();
        assert_eq!(file.spool.bytes, feed_csv().len() as u64, "{headers:?}");
        assert_eq!(outcome.file_text().await, feed_csv());
    }
}

#[tokio::test]
async fn gzip_is_resumed_in_its_own_bytes() {
    let text: String = (0..4000u32).map(|n| format!("1,{}\n", n.wrapping_mul(2_654_435_761))).collect();
    let text = format!("\"Id\",\"Lot number\"\n{text}");
    let body = Bytes::from(gzip_text(&text));
    let (first, second) = (body.slice(..5000), body.slice(5000..));
    let range = format!("bytes 5000-{}/{}", body.len() - 1, body.len());
    let begins = respond_with(move |_| {
        let pieces = stream::iter([Ok(first), Err(std::io::Error::other("cut"))]).then(async |piece| {
            tokio::task::yield_now().await;
            piece
        });
        response_with(200, &[("content-encoding", "gzip"), ("etag", "\"e1\"")], Body::from_stream(pieces))
    });
    let ends = respond_with(move |_| {
        let mut answer = response_with(206, &[("content-encoding", "gzip"), ("etag", "\"e1\"")], second);
        answer.headers_mut().insert("content-range", range.parse().unwrap());
        answer
    });
    let server = ScriptedServer::with_responses(vec![begins, ends]).await;
    let outcome = download_from(&server.url).await;
    assert_eq!(outcome.result.as_ref().unwrap().tries, 2);
    assert_eq!(outcome.file_text().await, text);
}

#[tokio::test]
async fn a_compressed_body_that_is_cut_spoiled_too_large_or_of_another_kind_is_refused_by_name() {
    let good = gzip_text(&feed_csv());
    let cut = good[..good.len() - 4].to_vec();
    let mut spoiled = good.clone();
    let crc = spoiled.len() - 6;
    spoiled[crc] ^= 1;
    let bomb = gzip_text(&format!("\"Id\",\"Lot number\"\n{}", "0".repeat(10 << 20)));
    let zstd = zstd::encode_all(feed_csv().as_bytes(), 3).unwrap();
    let noise: Vec<u8> = (0..2000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let page = gzip_text(&format!("<html>{}", "x".repeat(2000)));
    let cases: Vec<(HeaderPairs, Vec<u8>, &str)> = vec![
        (&[], cut, "the gzip body cannot be decompressed"),
        (&[("content-encoding", "gzip")], spoiled, "the gzip body cannot be decompressed"),
        (&[("content-encoding", "gzip")], bomb, "over 100 times as many"),
        (&[], zstd.clone(), "the body is compressed (zstd), which was not requested"),
        (&[("content-encoding", "gzip")], zstd, "the body is compressed (zstd)"),
        (&[("content-encoding", "br")], noise.clone(), "the body is compressed (br)"),
        (&[("content-encoding", "Deflate")], noise, "the body is compressed (deflate)"),
        (&[("content-encoding", "gzip")], page, "an HTML page: \"<html>xxx"),
    ];
    for (headers, body, says_so) in cases {
        let server = ScriptedServer::with_responses(vec![ok_response(headers, body)]).await;
        let error = download_with(single_attempt(&server.url), Validators::default()).await.error_text();
        assert!(error.contains(says_so), "{error}");
    }
    let server = ScriptedServer::with_responses(vec![
        ok_response(&[], gzip_text(&feed_csv())),
        ok_response(&[], gzip_text(&feed_csv())),
    ])
    .await;
    let small = FeedOptions { max_bytes: 2000, ..test_options(&server.url) };
    let error = download_with(small, Validators::default()).await.error_text();
    assert!(error.contains("too large (at most 2000)"), "{error}");
    assert_eq!(server.asked.lock().unwrap().len(), 1);
}
