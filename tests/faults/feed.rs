//! A feed that sends something else, or breaks off.

use super::cli_fixture::CliFixture;
use super::{CommandOutput, ROWS};
use tokio_util::sync::{CancellationToken, DropGuard};
use vinops::simulator::fault::FeedFault;
use vinops::simulator::server::FeedServer;
use vinops::simulator::{Simulator, SimulatorOptions};

async fn start_feed(fault: FeedFault) -> (FeedServer, DropGuard) {
    let stop = CancellationToken::new();
    let options = SimulatorOptions::new(3, ROWS, "2026-03-06T17:00:00Z".parse().unwrap());
    let feed = FeedServer::start(Simulator::new(options), stop.clone()).await.unwrap();
    feed.inject_fault(fault, u32::MAX).unwrap();
    (feed, stop.drop_guard())
}

async fn run_fetch(fixture: &CliFixture, feed: &FeedServer) -> CommandOutput {
    let mut command = fixture.vinops_command(&["fetch", "--now", "--json"]);
    fixture.command_output(command.env("COPART_FEED_URL", feed.url()).output().await.unwrap())
}

/// Checks that a download fails: its job is discarded after the slot's one attempt, and nothing is stored.
async fn assert_fetch_fails(fault: FeedFault, why: &str) {
    assert_fetch_fails_after(fault, why, 3).await;
}

/// Checks that a download fails after this many retries.
async fn assert_fetch_fails_after(fault: FeedFault, why: &str, retries: usize) {
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed(fault).await;
    let before = fixture.stored_counts().await;
    let said = run_fetch(&fixture, &feed).await;
    assert_eq!(said.code, Some(1));
    // each failed try is logged, then the error, once
    let lines: Vec<&str> = said.err.lines().collect();
    let (line, tries) = lines.split_last().unwrap();
    assert!(tries.len() == retries && tries.iter().all(|line| line.contains("download retried")), "{}", said.err);
    assert!(line.starts_with("error: window ") && line.contains(" is failed: "), "{line}");
    assert_eq!(line.matches(why).count(), 1, "{line}");
    assert!(!said.err.contains("authKey"), "the key stays secret: {}", said.err);
    assert_eq!(fixture.newest_job().await, ("fetch".to_owned(), "discarded".to_owned(), "retry".to_owned()));
    assert_eq!(fixture.newest_window().await.0, "failed");
    assert_eq!((fixture.stored_counts().await, fixture.count_rows("raw.csv_files").await), (before, 0));
}

#[tokio::test]
async fn an_html_page_in_place_of_the_feed_fails_the_window_and_shows_its_beginning() {
    assert_fetch_fails(FeedFault::HtmlPage, "status 200 OK, but an HTML page: \"<html").await;
}

#[tokio::test]
async fn the_guards_page_fails_the_window_with_its_status() {
    assert_fetch_fails(FeedFault::Forbidden, "status 403 Forbidden, body \"<html").await;
}

#[tokio::test]
async fn a_proxy_that_wants_to_be_paid_fails_the_window_by_name() {
    assert_fetch_fails(FeedFault::ProxyAuth, "status 407 Proxy Authentication Required, body \"pay first\"").await;
}

#[tokio::test]
async fn a_redirect_to_itself_fails_the_window() {
    assert_fetch_fails(FeedFault::RedirectLoop, "more than 3 redirects").await;
}

#[tokio::test]
async fn a_gzip_bomb_fails_the_window_at_its_ratio() {
    // a response that is rejected for its size is not requested again
    assert_fetch_fails_after(FeedFault::GzipBomb, "over 100 times as many", 0).await;
}

#[tokio::test]
async fn garbage_fails_the_window() {
    assert_fetch_fails(FeedFault::Garbage, "the body does not begin with the column Id").await;
}

#[tokio::test]
async fn a_rest_under_another_etag_fails_the_window_and_is_never_sewn_on() {
    assert_fetch_fails(
        FeedFault::WrongEtag { at: 5000 },
        "the resumed body does not match its beginning: the ETag changed",
    )
    .await;
}

#[tokio::test]
async fn a_body_that_is_always_reset_at_the_same_byte_is_taken_in_piece_by_piece() {
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed(FeedFault::Reset { at: 1 << 20 }).await;
    feed.inject_fault(FeedFault::Reset { at: 100_000 }, 2).unwrap();
    let said = run_fetch(&fixture, &feed).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let ranges: Vec<Option<String>> = feed.requests().into_iter().map(|hit| hit.range).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_owned()), Some("bytes=200000-".to_owned())]);
}

#[tokio::test]
async fn an_empty_answer_fails_the_window() {
    assert_fetch_fails(FeedFault::Empty, "0 bytes is too small").await;
}

#[tokio::test]
async fn a_body_that_never_comes_whole_fails_the_window() {
    assert_fetch_fails(FeedFault::Short { missing: 1000 }, "the feed transfer failed: ").await;
}

#[tokio::test]
async fn a_wrong_header_from_the_feed_is_kept_and_quarantined() {
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed(FeedFault::WrongHeader).await;
    let before = fixture.stored_counts().await;
    let said = run_fetch(&fixture, &feed).await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains(" is quarantined: the header has no column VIN; the first line begins"), "{}", said.err);
    assert_eq!(said.err.lines().count(), 1);
    assert_eq!(fixture.newest_job().await, ("ingest".to_owned(), "completed".to_owned(), "done".to_owned()));
    assert_eq!((fixture.stored_counts().await, fixture.count_rows("raw.csv_files").await), (before, 1));
}

#[tokio::test]
async fn a_fetch_by_hand_that_may_not_go_on_names_why_and_the_next_one_finishes_its_chain() {
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed(FeedFault::Reset { at: 1 << 20 }).await;
    for kind in ["fetch", "upsert-lots"] {
        fixture.run_vinops(&["jobs", "pause", kind, "--reason", "a test"]).await.assert_output(0, "");
        let said = run_fetch(&fixture, &feed).await;
        assert_eq!(said.code, Some(1), "{}", said.err);
        let hint = format!("hint: run `vinops jobs resume {kind} --reason \"…\"`\n");
        assert!(said.err.contains("is paused since ") && said.err.ends_with(&hint), "{}", said.err);
        fixture.run_vinops(&["jobs", "resume", kind]).await.assert_output(0, "");
    }
    assert_eq!(fixture.count_rows("lots").await, 0);
    let said = run_fetch(&fixture, &feed).await;
    assert_eq!((said.code, &said.json()["state"]), (Some(0), &"applied".into()), "{}", said.err);
    assert!(fixture.count_rows("lots").await > 300);
}

#[tokio::test]
async fn a_fetch_by_hand_of_a_quarantined_file_is_a_failure_each_time() {
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed(FeedFault::WrongHeader).await;
    for _ in 0..2 {
        let said = run_fetch(&fixture, &feed).await;
        assert_eq!((said.code, &said.json()["state"]), (Some(1), &"quarantined".into()), "{}", said.err);
        assert!(said.err.contains("quarantined: the header has no column VIN"), "{}", said.err);
    }
}
