//! Tests a misbehaving server, one fault per test: the window fails with a clear error, and nothing is stored.

use super::super::super::download::tests::scripted_server::{SECRET_KEY, feed_csv};
use super::*;
use axum::http::header;
use futures::{StreamExt, stream};
use std::path::Path;

/// Returns the same response four times, for the four requests of a slot.
fn repeat_response(what: impl Fn() -> ScriptedResponse) -> Vec<ScriptedResponse> {
    (0..4).map(|_| what()).collect()
}

/// Returns the number of files below a folder.
fn count_files(folder: &Path) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { count_files(&path) } else { 1 })
        .sum()
}

/// Fetches from a server that sends `acts`, and checks everything that holds for a rejected download.
async fn assert_fails_with(options: impl FnOnce(FeedOptions) -> FeedOptions, acts: Vec<ScriptedResponse>, says: &str) {
    let folder = tempfile::tempdir().unwrap();
    let store = url::Url::from_directory_path(folder.path()).unwrap();
    let fixture = FetchFixture::with_server(ScriptedServer::with_responses(acts).await, store.as_str(), options).await;
    let fetch = fixture.current_fetch().await;
    let end = fixture.run_fetch(&fetch).await;
    assert_eq!(end.state, "discarded", "{end:?}");
    assert!(end.error.contains(says), "{}", end.error);
    assert!(end.error.contains(&fetch.job_key()) && !end.error.contains(SECRET_KEY), "{}", end.error);
    assert_eq!(count_files(folder.path()), 0, "nothing is left in the store, not even in its spool");
    let rows = sqlx::query_scalar!(
        r#"select (select count(*) from raw.csv_files) + (select count(*) from fleet.jobs where kind <> 'fetch') as "n!""#
    );
    assert_eq!(rows.fetch_one(fixture.pool()).await.unwrap(), 0);
    assert_eq!(fixture.window_state(&fetch).await, ("failed".to_owned(), None));
    let slot = sqlx::query_scalar!("select outcome from fleet.fetch_slots").fetch_one(fixture.pool()).await.unwrap();
    assert_eq!(slot.as_deref(), Some("failed"));
}

async fn assert_fails(what: impl Fn() -> ScriptedResponse, says: &str) {
    assert_fails_with(|options| options, repeat_response(what), says).await;
}

#[tokio::test]
async fn a_slow_loris_is_given_up_at_the_deadline() {
    let drip = || {
        respond_with(|_| {
            let drops = stream::repeat(()).then(async |()| {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok::<_, std::io::Error>("\"Id\",")
            });
            response_builder(200).header("content-length", 90_000_000).body(Body::from_stream(Box::pin(drops))).unwrap()
        })
    };
    let hasty = |options| FeedOptions { deadline: Duration::from_millis(400), ..options };
    assert_fails_with(hasty, repeat_response(drip), "the feed transfer failed: not completed within 400ms").await;
}

#[tokio::test]
async fn a_403_page_of_html_is_refused_with_its_status_and_beginning() {
    let page = || {
        respond_with(|_| {
            response_builder(403)
                .header(header::CONTENT_TYPE, "text/html")
                .body(crate::simulator::fault::guard_page().into())
                .unwrap()
        })
    };
    assert_fails(page, "rejected: status 403 Forbidden, body \"<html style=").await;
}

#[tokio::test]
async fn a_loop_of_302s_is_left_after_three() {
    let again =
        || respond_with(|r| response_builder(302).header("location", r.uri().to_string()).body(Body::empty()).unwrap());
    assert_fails_with(|options| options, (0..16).map(|_| again()).collect(), "rejected: more than 3 redirects").await;
}

#[tokio::test]
async fn a_407_of_a_proxy_is_named() {
    let proxy = || {
        respond_with(|_| response_builder(407).header("proxy-authenticate", "Basic").body("pay first".into()).unwrap())
    };
    assert_fails(proxy, "rejected: status 407 Proxy Authentication Required, body \"pay first\"").await;
}

/// Returns a response with the first bytes of a file that is announced as complete, and then an error.
fn cut_response_at(n: usize) -> ScriptedResponse {
    respond_with(move |_| {
        let pieces = stream::iter([Ok(feed_csv()[..n].to_owned()), Err(std::io::Error::other("cut"))]);
        let pieces = pieces.then(async |piece| {
            tokio::task::yield_now().await;
            piece
        });
        let head = response_builder(200).header("etag", "\"e1\"").header("content-length", feed_csv().len());
        head.body(Body::from_stream(pieces)).unwrap()
    })
}

#[tokio::test]
async fn a_connection_that_is_always_reset_at_the_same_byte_is_told_with_it() {
    assert_fails(|| cut_response_at(1500), &format!("the body was cut after 1500 of {} bytes", feed_csv().len())).await;
}

#[tokio::test]
async fn a_wrong_length_is_told_with_both() {
    let range = |end: usize| format!("bytes 1500-{end}/{}", feed_csv().len());
    // The announced range is correct, but the body is shorter.
    let short = respond_with(move |_| {
        let head = response_builder(206).header("etag", "\"e1\"").header("content-range", range(feed_csv().len() - 1));
        head.body(feed_csv()[1500..feed_csv().len() - 40].to_owned().into()).unwrap()
    });
    let says = format!("received {} bytes instead of {}", feed_csv().len() - 40, feed_csv().len());
    let twice = |options| FeedOptions { waits: vec![Duration::ZERO], ..options };
    assert_fails_with(twice, vec![cut_response_at(1500), short], &says).await;
}

#[tokio::test]
async fn a_rest_under_a_wrong_etag_is_not_sewn_on() {
    let other = respond_with(|_| {
        let range = format!("bytes 1500-{}/{}", feed_csv().len() - 1, feed_csv().len());
        let head = response_builder(206).header("etag", "\"e2\"").header("content-range", range);
        head.body(feed_csv()[1500..].to_owned().into()).unwrap()
    });
    let twice = |options| FeedOptions { waits: vec![Duration::ZERO], ..options };
    assert_fails_with(
        twice,
        vec![cut_response_at(1500), other],
        "the resumed body does not match its beginning: the ETag changed",
    )
    .await;
}

#[tokio::test]
async fn other_bytes_under_a_known_etag_are_another_file_and_the_same_under_a_new_one_are_none() {
    let tagged = |text: String, etag: &'static str| {
        respond_with(move |_| response_builder(200).header("etag", etag).body(text.into()).unwrap())
    };
    let more = format!("{}1,99\n", feed_csv());
    let fixture = FetchFixture::with_responses(vec![
        tagged(feed_csv(), "\"e1\""),
        tagged(more.clone(), "\"e1\""),
        tagged(more, "\"e9\""),
    ])
    .await;
    let fetch = fixture.current_fetch().await;
    let simulated = |n| Fetch { late_ok: true, ..earlier_fetch(&fetch, n) };
    for (n, outcome) in [(3, "fetched"), (2, "fetched"), (1, "duplicate")] {
        assert_eq!(fixture.run_fetch(&simulated(n)).await.report["outcome"], outcome);
    }
}

#[tokio::test]
async fn a_stale_copy_is_refused_as_one() {
    let dated = |text: String, date: &'static str| {
        respond_with(move |_| response_builder(200).header("last-modified", date).body(text.into()).unwrap())
    };
    let old = || dated(format!("{}1,7\n", feed_csv()), "Wed, 15 Oct 2025 03:45:03 GMT");
    let mut acts = vec![dated(feed_csv(), "Wed, 15 Oct 2025 04:00:05 GMT")];
    acts.extend(repeat_response(old));
    let fixture = FetchFixture::with_responses(acts).await;
    let fetch = fixture.current_fetch().await;
    let simulated = |n| Fetch { late_ok: true, ..earlier_fetch(&fetch, n) };
    fixture.run_fetch(&simulated(2)).await;
    let end = fixture.run_fetch(&simulated(1)).await;
    let says = "a stale copy: last modified 2025-10-15 03:45:03 UTC, and the last good file 2025-10-15 04:00:05 UTC";
    assert!(end.state == "discarded" && end.error.contains(says), "{end:?}");
    let files = sqlx::query_scalar!(r#"select count(*) as "n!" from raw.csv_files"#);
    assert_eq!(files.fetch_one(fixture.pool()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_body_without_an_end_is_left_at_the_limit() {
    let endless = || {
        respond_with(|_| {
            let rows = stream::repeat_with(|| Ok::<_, std::io::Error>("\"Id\",\"Lot number\"\n"));
            response_builder(200).body(Body::from_stream(rows)).unwrap()
        })
    };
    let small = |options| FeedOptions { max_bytes: 100_000, ..options };
    assert_fails_with(small, repeat_response(endless), "bytes or more is too large (at most 100000)").await;
}

#[tokio::test]
async fn a_gzip_bomb_is_left_at_its_ratio_whether_announced_or_not() {
    use std::io::Write;
    // Ten megabytes in ten kilobytes.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![b'0'; 10 << 20]).unwrap();
    let bomb = packed.finish().unwrap();
    let announced = || {
        let bomb = bomb.clone();
        respond_with(move |_| response_builder(200).header("content-encoding", "gzip").body(bomb.into()).unwrap())
    };
    assert_fails(announced, "over 100 times as many").await;
    let silent = || {
        let bomb = bomb.clone();
        respond_with(move |_| response_builder(200).body(bomb.into()).unwrap())
    };
    assert_fails(silent, "over 100 times as many").await;
}

#[tokio::test]
async fn garbage_bytes_are_refused_and_shown_in_one_line() {
    let garbage = || {
        let bytes: Vec<u8> = (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        respond_with(move |_| response_builder(200).body(bytes.into()).unwrap())
    };
    assert_fails(garbage, "rejected: status 200 OK, but the body does not begin with the column Id").await;
}
