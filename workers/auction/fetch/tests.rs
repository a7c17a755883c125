//! Tests the fetch job through a real worker, against a server with prepared responses.

use super::super::download::FeedOptions;
use super::super::download::tests::scripted_server::{
    ScriptedResponse, ScriptedServer, feed_csv, full_response, respond_with, response_builder,
};
use super::*;
use crate::queue::{EnqueueOptions, Extensions, JobDefinition, RunOutcome as How, Worker, WorkerEvent, enqueue_job};
use crate::testing::{TestDb, TestLog, migrated_database};
use axum::body::Body;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

mod breaker;
mod hostile_server;

const TEST_JOBS: &[JobDefinition] = &[JobDefinition::for_job::<Fetch>()];

/// Result of a fetch job: state, report and error.
#[derive(Debug)]
struct FetchJobResult {
    state: String,
    report: Value,
    error: String,
}

struct FetchFixture {
    db: TestDb,
    stage: ScriptedServer,
    tools: Extensions,
}

impl FetchFixture {
    async fn with_responses(acts: Vec<ScriptedResponse>) -> FetchFixture {
        FetchFixture::with_server(ScriptedServer::with_responses(acts).await, "memory:", |options| options).await
    }

    async fn with_server(
        stage: ScriptedServer,
        store: &str,
        options: impl FnOnce(FeedOptions) -> FeedOptions,
    ) -> FetchFixture {
        let url = SecretString::from(stage.url.as_str());
        let plain = FeedOptions { waits: vec![Duration::ZERO; 3], ..FeedOptions::new(url, "vinops-test", "x") };
        let feed = FeedClient::new(options(plain)).unwrap();
        let tools = Extensions::new().with(Store::open(store).unwrap()).with(feed);
        FetchFixture { db: migrated_database().await, stage, tools }
    }

    fn pool(&self) -> &PgPool {
        &self.db.db.pool
    }

    /// Returns the fetch of a quarter-hour that lasts at least five more minutes, by the database's clock.
    async fn current_fetch(&self) -> Fetch {
        let window =
            sqlx::query_scalar!(r#"select date_bin('15 minutes', now() + interval '5 minutes', 'epoch') as "window!""#);
        let window_start_utc = window.fetch_one(self.pool()).await.unwrap();
        Fetch { source: "copart".into(), window_start_utc, late_ok: false }
    }

    /// Enqueues the job without a key, so that it can be repeated, and runs a worker until it has ended.
    async fn run_fetch(&self, fetch: &Fetch) -> FetchJobResult {
        let mut conn = self.pool().acquire().await.unwrap();
        let id = enqueue_job(&mut conn, fetch, EnqueueOptions::default()).await.unwrap().unwrap();
        drop(conn);
        self.job_result(id).await
    }

    /// Runs a worker until this job has ended.
    async fn job_result(&self, id: i64) -> FetchJobResult {
        let (events, mut seen) = broadcast::channel(1000);
        let leave = CancellationToken::new();
        let worker = Worker::new(&self.db.db, TEST_JOBS).with_extensions(self.tools.clone()).with_event_sender(events);
        let working = tokio::spawn(worker.run(leave.clone()));
        while !matches!(seen.recv().await.unwrap(), WorkerEvent::Ended { job, outcome, .. } if job == id && outcome != How::Snooze)
        {
        }
        leave.cancel();
        working.await.unwrap().unwrap();
        let job = sqlx::query!("select state, result, error from fleet.jobs where id = $1", id);
        let job = job.fetch_one(self.pool()).await.unwrap();
        FetchJobResult {
            state: job.state,
            report: job.result.unwrap_or_default(),
            error: job.error.unwrap_or_default(),
        }
    }

    async fn window_state(&self, fetch: &Fetch) -> (String, Option<Uuid>) {
        let row = sqlx::query!(
            "select state, file_id from fleet.windows where (source, window_start_utc) = ($1, $2)",
            fetch.source,
            fetch.window_start_utc
        );
        let row = row.fetch_one(self.pool()).await.unwrap();
        (row.state, row.file_id)
    }

    fn request_count(&self) -> usize {
        self.stage.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_fetch_that_meets_a_conflict_goes_on_and_does_not_call_it_an_outage() {
    let fixture = FetchFixture::with_responses(vec![
        refused_response(),
        refused_response(),
        refused_response(),
        refused_response(),
    ])
    .await;
    let conflict = "
        create sequence refusals;
        create function refuse() returns trigger language plpgsql as $$
        begin
          if nextval('public.refusals') <= 1 then
            raise exception 'deadlock detected' using errcode = '40P01';
          end if;
          return new;
        end $$;
        create trigger refuse before insert on fleet.fetch_slots for each row execute function refuse()";
    sqlx::raw_sql(conflict).execute(fixture.pool()).await.unwrap();
    let log = TestLog::start();
    let end = fixture.run_fetch(&fixture.current_fetch().await).await;
    assert_eq!((end.state.as_str(), fixture.request_count()), ("discarded", 4), "{end:?}");
    let text = log.captured_text();
    assert!(text.contains("transaction conflict, fetch snoozed") && text.contains("deadlock detected"), "{text}");
    assert!(!text.contains("database unavailable"), "{text}");
}

fn refused_response() -> ScriptedResponse {
    respond_with(|_| response_builder(403).body("no entry".into()).unwrap())
}

fn not_modified_response() -> ScriptedResponse {
    respond_with(|_| response_builder(304).body(Body::empty()).unwrap())
}

fn earlier_fetch(fetch: &Fetch, windows: i32) -> Fetch {
    let window_start_utc = fetch.window_start_utc - Duration::from_secs(900) * windows as u32;
    Fetch { window_start_utc, ..fetch.clone() }
}

#[tokio::test]
async fn a_window_gets_its_file_and_an_ingest_job() {
    let fixture = FetchFixture::with_responses(vec![full_response(feed_csv())]).await;
    let fetch = fixture.current_fetch().await;
    let end = fixture.run_fetch(&fetch).await;
    assert_eq!(end.state, "completed", "{end:?}");
    assert_eq!(end.report["outcome"], "fetched");
    assert_eq!(end.report["bytes"], feed_csv().len());
    assert_eq!(end.report["tries"], 1);
    let (state, file_id) = fixture.window_state(&fetch).await;
    assert_eq!(
        (state.as_str(), end.report["file_id"].as_str()),
        ("fetched", file_id.map(|f| f.to_string()).as_deref())
    );
    let ingests = sqlx::query_scalar!("select payload ->> 'file_id' from fleet.jobs where kind = 'ingest'");
    assert_eq!(ingests.fetch_all(fixture.pool()).await.unwrap(), [file_id.map(|f| f.to_string())]);
}

#[tokio::test]
async fn a_window_that_has_its_file_is_not_fetched_again() {
    let fixture = FetchFixture::with_responses(vec![full_response(feed_csv()), full_response(feed_csv())]).await;
    let fetch = fixture.current_fetch().await;
    fixture.run_fetch(&fetch).await;
    let end = fixture.run_fetch(&fetch).await;
    assert_eq!((end.state.as_str(), &end.report["outcome"]), ("completed", &"already_fetched".into()));
    assert_eq!((fixture.window_state(&fetch).await.0.as_str(), fixture.request_count()), ("fetched", 1));
}

#[tokio::test]
async fn nothing_new_ends_the_chain_with_the_file_that_is_known() {
    let fixture = FetchFixture::with_responses(vec![
        full_response(feed_csv()),
        not_modified_response(),
        full_response(feed_csv()),
    ])
    .await;
    let fetch = fixture.current_fetch().await;
    let simulated = |n| Fetch { late_ok: true, ..earlier_fetch(&fetch, n) };
    let first = fixture.run_fetch(&simulated(3)).await;
    for (n, outcome) in [(2, "not_modified"), (1, "duplicate")] {
        let end = fixture.run_fetch(&simulated(n)).await;
        assert_eq!((&end.report["outcome"], &end.report["file_id"]), (&outcome.into(), &first.report["file_id"]));
        assert_eq!(fixture.window_state(&simulated(n)).await.0, "unchanged");
    }
    let ingests = sqlx::query_scalar!(r#"select count(*) as "n!" from fleet.jobs where kind = 'ingest'"#);
    assert_eq!(ingests.fetch_one(fixture.pool()).await.unwrap(), 1);
    assert_eq!(fixture.stage.request_header(1, reqwest::header::IF_NONE_MATCH).as_deref(), Some("\"e1\""));
}

#[tokio::test]
async fn a_quarter_hour_gone_by_is_missed_and_never_fetched_late() {
    let fixture = FetchFixture::with_responses(vec![full_response(feed_csv())]).await;
    let late = earlier_fetch(&fixture.current_fetch().await, 2);
    for _ in 0..2 {
        let end = fixture.run_fetch(&late).await;
        assert_eq!((end.state.as_str(), &end.report["outcome"]), ("completed", &"missed".into()));
        assert_eq!((fixture.window_state(&late).await.0.as_str(), fixture.request_count()), ("missed", 0));
    }
    let simulated = Fetch { late_ok: true, ..late };
    assert_eq!(fixture.run_fetch(&simulated).await.report["outcome"], "fetched");
}

#[tokio::test]
async fn a_slot_has_four_tries_then_its_window_has_failed_and_is_not_asked_for_again() {
    let fixture = FetchFixture::with_responses(vec![
        refused_response(),
        refused_response(),
        refused_response(),
        refused_response(),
        full_response(feed_csv()),
    ])
    .await;
    let fetch = fixture.current_fetch().await;
    let end = fixture.run_fetch(&fetch).await;
    assert_eq!((end.state.as_str(), fixture.request_count()), ("discarded", 4));
    assert!(end.error.contains(&format!("download window {}", fetch.job_key())), "{end:?}");
    assert!(end.error.contains("403 Forbidden, body \"no entry\""), "{end:?}");
    assert_eq!(fixture.window_state(&fetch).await.0, "failed");
    let again = fixture.run_fetch(&fetch).await;
    assert_eq!((again.state.as_str(), fixture.request_count()), ("discarded", 4));
    assert!(again.error.contains("has no attempt left"), "{again:?}");
    assert_eq!(fixture.window_state(&fetch).await.0, "failed");
}

#[tokio::test]
async fn a_fetch_that_breaks_halfway_is_resumed_within_its_attempt() {
    let fixture = FetchFixture::with_responses(vec![refused_response(), full_response(feed_csv())]).await;
    let end = fixture.run_fetch(&fixture.current_fetch().await).await;
    assert_eq!((&end.report["outcome"], &end.report["tries"]), (&"fetched".into(), &2.into()));
}

#[tokio::test]
async fn the_urls_key_is_nowhere_in_the_database() {
    let echo = || respond_with(|r| response_builder(500).body(format!("bad request for {}", r.uri()).into()).unwrap());
    let fixture = FetchFixture::with_responses(vec![echo(), echo(), echo(), echo()]).await;
    let end = fixture.run_fetch(&fixture.current_fetch().await).await;
    assert_eq!(end.state, "discarded");
    let traces = sqlx::query_scalar!(
        r#"select
          (select count(*) from fleet.jobs j where j::text like '%PLANTED%')
          + (select count(*) from fleet.job_attempts a where a::text like '%PLANTED%')
          + (select count(*) from fleet.windows w where w::text like '%PLANTED%') as "n!""#
    );
    assert_eq!(traces.fetch_one(fixture.pool()).await.unwrap(), 0);
    assert!(end.error.contains("[redacted]"), "{end:?}");
}

#[tokio::test]
async fn a_304_is_never_about_a_file_that_was_quarantined_or_whose_chain_failed() {
    let tagged = |text: String, etag: &'static str| {
        respond_with(move |_| response_builder(200).header("etag", etag).body(text.into()).unwrap())
    };
    let second = || format!("{}1,7\n", feed_csv());
    for fate in [
        "update raw.csv_files set state = 'quarantined' where etag = '\"e2\"'",
        "update fleet.windows set state = 'failed' where file_id = (select file_id from raw.csv_files where etag = '\"e2\"')",
        "update fleet.windows set state = 'quarantined' where file_id = (select file_id from raw.csv_files where etag = '\"e2\"')",
    ] {
        let acts = vec![
            tagged(feed_csv(), "\"e1\""),
            tagged(second(), "\"e2\""),
            tagged(second(), "\"e2\""),
            not_modified_response(),
        ];
        let fixture = FetchFixture::with_responses(acts).await;
        let fetch = fixture.current_fetch().await;
        let simulated = |n| Fetch { late_ok: true, ..earlier_fetch(&fetch, n) };
        let first = fixture.run_fetch(&simulated(4)).await;
        fixture.run_fetch(&simulated(3)).await;
        sqlx::raw_sql(fate).execute(fixture.pool()).await.unwrap();
        // The server still has the bad file: the same bytes arrive again and are recognised.
        assert_eq!(fixture.run_fetch(&simulated(2)).await.report["outcome"], "duplicate");
        assert_eq!(fixture.stage.request_header(2, reqwest::header::IF_NONE_MATCH).as_deref(), Some("\"e1\""));
        if fate.contains("fleet.windows") {
            continue;
        }
        // The repeat does not make the file good, and a 304 refers to the file before it.
        let end = fixture.run_fetch(&simulated(1)).await;
        assert_eq!(
            (&end.report["outcome"], &end.report["file_id"]),
            (&"not_modified".into(), &first.report["file_id"])
        );
        assert_eq!(fixture.stage.request_header(3, reqwest::header::IF_NONE_MATCH).as_deref(), Some("\"e1\""));
    }
}

#[tokio::test]
async fn a_file_without_validators_is_followed_by_a_request_that_is_not_conditional() {
    let bare = respond_with(|_| response_builder(200).body(format!("{}1,7\n", feed_csv()).into()).unwrap());
    let fixture = FetchFixture::with_responses(vec![full_response(feed_csv()), bare, full_response(feed_csv())]).await;
    let fetch = fixture.current_fetch().await;
    let simulated = |n| Fetch { late_ok: true, ..earlier_fetch(&fetch, n) };
    for n in [3, 2, 1] {
        fixture.run_fetch(&simulated(n)).await;
    }
    assert_eq!(fixture.stage.request_header(1, reqwest::header::IF_NONE_MATCH).as_deref(), Some("\"e1\""));
    assert_eq!(fixture.stage.request_header(2, reqwest::header::IF_NONE_MATCH), None);
}

#[tokio::test]
async fn a_server_that_asks_for_more_time_than_the_slot_has_fails_the_window_by_name() {
    let busy = respond_with(|_| response_builder(429).header("retry-after", "1300").body("slow down".into()).unwrap());
    let fixture = FetchFixture::with_responses(vec![busy, full_response(feed_csv())]).await;
    let fetch = fixture.current_fetch().await;
    let end = fixture.run_fetch(&fetch).await;
    assert_eq!((end.state.as_str(), fixture.request_count()), ("discarded", 1));
    assert!(end.error.contains("429 Too Many Requests, body \"slow down\"; its Retry-After of 1300 s"), "{end:?}");
    assert_eq!(fixture.window_state(&fetch).await.0, "failed");
}

#[tokio::test]
async fn a_retry_is_waited_for_no_longer_than_the_slot_lasts() {
    let stage = ScriptedServer::with_responses(vec![]).await;
    let url = || SecretString::from(stage.url.as_str());
    let feed = || Arc::new(FeedClient::new(FeedOptions::new(url(), "vinops-test", "x")).unwrap());
    let fetch = |ago: i64, late_ok| Fetch {
        source: "copart".into(),
        window_start_utc: now() - chrono::Duration::seconds(ago),
        late_ok,
    };
    let within = |fetch: Fetch| fetch.limit_to_slot(feed()).retry_within();
    assert!((58..=60).contains(&within(fetch(840, false)).as_secs()));
    assert_eq!(within(fetch(901, false)), Duration::ZERO);
    // The limit is never longer than the deadline of a download.
    assert_eq!(within(fetch(10, false)), Duration::from_secs(600));
    assert_eq!(within(fetch(90_000, true)), Duration::from_secs(600));
}

/// Starts a login server that accepts every login and sets a cookie.
async fn login_server() -> ScriptedServer {
    let come_in = || {
        respond_with(|_| {
            response_builder(200).header("set-cookie", "s=PLANTED-cookie; Path=/").body(Body::empty()).unwrap()
        })
    };
    ScriptedServer::with_responses((0..9).map(|_| come_in()).collect()).await
}

#[tokio::test]
async fn a_session_goes_with_every_request_and_ends_when_the_server_refuses_it() {
    let echo = || respond_with(|r| response_builder(403).body(format!("no {:?}", r.headers()).into()).unwrap());
    let acts =
        vec![full_response(feed_csv()), echo(), echo(), echo(), echo(), full_response(format!("{}1,7\n", feed_csv()))];
    let (mut fixture, lobby) = (FetchFixture::with_responses(acts).await, login_server().await);
    let copart = crate::config::CopartConfig {
        feed_url: None,
        user: Some("anna".into()),
        password: Some("PLANTED-password".into()),
        login_url: Some(lobby.url.clone()),
        user_agent: Some("vinops-test".into()),
        referer: None,
    };
    let login = LoginClient::from_config(&copart, Some(&"k".repeat(32).into())).unwrap().unwrap();
    fixture.tools = fixture.tools.clone().with(login);
    let fetch = fixture.current_fetch().await;
    let simulated = |n| Fetch { late_ok: true, ..earlier_fetch(&fetch, n) };
    assert_eq!(fixture.run_fetch(&simulated(3)).await.report["outcome"], "fetched");
    let refused = fixture.run_fetch(&simulated(2)).await;
    assert!(refused.error.contains("403") && !refused.error.contains("PLANTED"), "{refused:?}");
    assert_eq!(fixture.run_fetch(&simulated(1)).await.report["outcome"], "fetched");
    for request in 0..6 {
        let cookie = fixture.stage.request_header(request, reqwest::header::COOKIE);
        assert_eq!(cookie.as_deref(), Some("s=PLANTED-cookie"));
    }
    assert_eq!(lobby.asked.lock().unwrap().len(), 2, "one login, and one after the refusal");
    let traces = sqlx::query_scalar!(
        r#"select
          (select count(*) from fleet.jobs j where j::text like '%PLANTED%')
          + (select count(*) from fleet.job_attempts a where a::text like '%PLANTED%')
          + (select count(*) from fleet.sources s where s::text like '%PLANTED%')
          + (select count(*) from fleet.source_sessions s where s::text like '%PLANTED%') as "n!""#
    );
    assert_eq!(traces.fetch_one(fixture.pool()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_worker_without_the_feeds_address_says_what_is_missing() {
    let mut fixture = FetchFixture::with_responses(vec![]).await;
    fixture.tools = Extensions::new().with(Store::open("memory:").unwrap());
    let end = fixture.run_fetch(&fixture.current_fetch().await).await;
    assert!(end.state == "discarded" && end.error.contains("COPART_FEED_URL"), "{end:?}");
}

#[test]
fn a_payload_of_yesterday_is_read_today() {
    let fetch: Fetch =
        serde_json::from_str(r#"{"source":"copart","window_start_utc":"2026-11-20T14:30:00Z","tomorrow":1}"#).unwrap();
    assert!(!fetch.late_ok);
    assert_eq!(fetch.job_key(), "copart/2026-11-20T14:30Z");
    let back = serde_json::to_string(&fetch).unwrap();
    assert_eq!(back, r#"{"source":"copart","window_start_utc":"2026-11-20T14:30:00Z"}"#);
}
