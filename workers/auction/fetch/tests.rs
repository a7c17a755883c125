//! Tests the fetch job through a real worker, against a server with prepared responses.

use super::super::download::FeedOptions;
use super::super::download::tests::stage::{Act, Stage, act, answer, csv, whole};
use super::*;
use crate::queue::{Enqueue, Entry, Event, Outcome as How, Tools, Worker, enqueue};
use crate::testing::{TestDb, TestLog, database};
use axum::body::Body;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

mod breaker;
mod mischief;

const FLEET: &[Entry] = &[Entry::of::<Fetch>()];

/// Result of a fetch job: state, report and error.
#[derive(Debug)]
struct End {
    state: String,
    report: Value,
    error: String,
}

struct House {
    db: TestDb,
    stage: Stage,
    tools: Tools,
}

impl House {
    async fn with(acts: Vec<Act>) -> House {
        House::of(Stage::playing(acts).await, "memory:", |options| options).await
    }

    async fn of(stage: Stage, store: &str, options: impl FnOnce(FeedOptions) -> FeedOptions) -> House {
        let url = SecretString::from(stage.url.as_str());
        let plain =
            FeedOptions { waits: vec![Duration::ZERO; 3], ..FeedOptions::new(url, "vinops-test", "x") };
        let feed = Feed::new(options(plain)).unwrap();
        let tools = Tools::new().with(Store::open(store).unwrap()).with(feed);
        House { db: database().await, stage, tools }
    }

    fn pool(&self) -> &PgPool {
        &self.db.db.pool
    }

    /// Returns the fetch of a quarter-hour that lasts at least five more minutes, by the database's clock.
    async fn now(&self) -> Fetch {
        let window = sqlx::query_scalar!(
            r#"select date_bin('15 minutes', now() + interval '5 minutes', 'epoch') as "window!""#
        );
        let window_start_utc = window.fetch_one(self.pool()).await.unwrap();
        Fetch { source: "copart".into(), window_start_utc, late_ok: false }
    }

    /// Enqueues the job without a key, so that it can be repeated, and runs a worker until it has ended.
    async fn work(&self, fetch: &Fetch) -> End {
        let mut conn = self.pool().acquire().await.unwrap();
        let id = enqueue(&mut conn, fetch, Enqueue::default()).await.unwrap().unwrap();
        drop(conn);
        self.end_of(id).await
    }

    /// Runs a worker until this job has ended.
    async fn end_of(&self, id: i64) -> End {
        let (events, mut seen) = broadcast::channel(1000);
        let leave = CancellationToken::new();
        let worker = Worker::new(&self.db.db, FLEET).tools(self.tools.clone()).observe(events);
        let working = tokio::spawn(worker.run(leave.clone()));
        while !matches!(seen.recv().await.unwrap(), Event::Ended { job, outcome, .. } if job == id && outcome != How::Snooze)
        {
        }
        leave.cancel();
        working.await.unwrap().unwrap();
        let job = sqlx::query!("select state, result, error from fleet.jobs where id = $1", id);
        let job = job.fetch_one(self.pool()).await.unwrap();
        End { state: job.state, report: job.result.unwrap_or_default(), error: job.error.unwrap_or_default() }
    }

    async fn window(&self, fetch: &Fetch) -> (String, Option<Uuid>) {
        let row = sqlx::query!(
            "select state, file_id from fleet.windows where (source, window_start_utc) = ($1, $2)",
            fetch.source,
            fetch.window_start_utc
        );
        let row = row.fetch_one(self.pool()).await.unwrap();
        (row.state, row.file_id)
    }

    fn requests(&self) -> usize {
        self.stage.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_fetch_that_meets_a_conflict_goes_on_and_does_not_call_it_an_outage() {
    let house = House::with(vec![refused(), refused(), refused(), refused()]).await;
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
    sqlx::raw_sql(conflict).execute(house.pool()).await.unwrap();
    let log = TestLog::start();
    let end = house.work(&house.now().await).await;
    assert_eq!((end.state.as_str(), house.requests()), ("discarded", 4), "{end:?}");
    let text = log.text();
    assert!(
        text.contains("transaction conflict, fetch snoozed") && text.contains("deadlock detected"),
        "{text}"
    );
    assert!(!text.contains("database unavailable"), "{text}");
}

fn refused() -> Act {
    act(|_| answer(403).body("no entry".into()).unwrap())
}

fn not_modified() -> Act {
    act(|_| answer(304).body(Body::empty()).unwrap())
}

fn earlier(fetch: &Fetch, windows: i32) -> Fetch {
    let window_start_utc = fetch.window_start_utc - Duration::from_secs(900) * windows as u32;
    Fetch { window_start_utc, ..fetch.clone() }
}

#[tokio::test]
async fn a_window_gets_its_file_and_an_ingest_job() {
    let house = House::with(vec![whole(csv())]).await;
    let fetch = house.now().await;
    let end = house.work(&fetch).await;
    assert_eq!(end.state, "completed", "{end:?}");
    assert_eq!(end.report["outcome"], "fetched");
    assert_eq!(end.report["bytes"], csv().len());
    assert_eq!(end.report["tries"], 1);
    let (state, file_id) = house.window(&fetch).await;
    assert_eq!(
        (state.as_str(), end.report["file_id"].as_str()),
        ("fetched", file_id.map(|f| f.to_string()).as_deref())
    );
    let ingests = sqlx::query_scalar!("select payload ->> 'file_id' from fleet.jobs where kind = 'ingest'");
    assert_eq!(ingests.fetch_all(house.pool()).await.unwrap(), [file_id.map(|f| f.to_string())]);
}

#[tokio::test]
async fn a_window_that_has_its_file_is_not_fetched_again() {
    let house = House::with(vec![whole(csv()), whole(csv())]).await;
    let fetch = house.now().await;
    house.work(&fetch).await;
    let end = house.work(&fetch).await;
    assert_eq!((end.state.as_str(), &end.report["outcome"]), ("completed", &"already_fetched".into()));
    assert_eq!((house.window(&fetch).await.0.as_str(), house.requests()), ("fetched", 1));
}

#[tokio::test]
async fn nothing_new_ends_the_chain_with_the_file_that_is_known() {
    let house = House::with(vec![whole(csv()), not_modified(), whole(csv())]).await;
    let fetch = house.now().await;
    let simulated = |n| Fetch { late_ok: true, ..earlier(&fetch, n) };
    let first = house.work(&simulated(3)).await;
    for (n, outcome) in [(2, "not_modified"), (1, "duplicate")] {
        let end = house.work(&simulated(n)).await;
        assert_eq!(
            (&end.report["outcome"], &end.report["file_id"]),
            (&outcome.into(), &first.report["file_id"])
        );
        assert_eq!(house.window(&simulated(n)).await.0, "unchanged");
    }
    let ingests = sqlx::query_scalar!(r#"select count(*) as "n!" from fleet.jobs where kind = 'ingest'"#);
    assert_eq!(ingests.fetch_one(house.pool()).await.unwrap(), 1);
    assert_eq!(house.stage.asked(1, reqwest::header::IF_NONE_MATCH).as_deref(), Some("\"e1\""));
}

#[tokio::test]
async fn a_quarter_hour_gone_by_is_missed_and_never_fetched_late() {
    let house = House::with(vec![whole(csv())]).await;
    let late = earlier(&house.now().await, 2);
    for _ in 0..2 {
        let end = house.work(&late).await;
        assert_eq!((end.state.as_str(), &end.report["outcome"]), ("completed", &"missed".into()));
        assert_eq!((house.window(&late).await.0.as_str(), house.requests()), ("missed", 0));
    }
    let simulated = Fetch { late_ok: true, ..late };
    assert_eq!(house.work(&simulated).await.report["outcome"], "fetched");
}

#[tokio::test]
async fn a_slot_has_four_tries_then_its_window_has_failed_and_is_not_asked_for_again() {
    let house = House::with(vec![refused(), refused(), refused(), refused(), whole(csv())]).await;
    let fetch = house.now().await;
    let end = house.work(&fetch).await;
    assert_eq!((end.state.as_str(), house.requests()), ("discarded", 4));
    assert!(end.error.contains(&format!("download window {}", fetch.key())), "{end:?}");
    assert!(end.error.contains("403 Forbidden, body \"no entry\""), "{end:?}");
    assert_eq!(house.window(&fetch).await.0, "failed");
    let again = house.work(&fetch).await;
    assert_eq!((again.state.as_str(), house.requests()), ("discarded", 4));
    assert!(again.error.contains("has no attempt left"), "{again:?}");
    assert_eq!(house.window(&fetch).await.0, "failed");
}

#[tokio::test]
async fn a_fetch_that_breaks_halfway_is_resumed_within_its_attempt() {
    let house = House::with(vec![refused(), whole(csv())]).await;
    let end = house.work(&house.now().await).await;
    assert_eq!((&end.report["outcome"], &end.report["tries"]), (&"fetched".into(), &2.into()));
}

#[tokio::test]
async fn the_urls_key_is_nowhere_in_the_database() {
    let echo = || act(|r| answer(500).body(format!("bad request for {}", r.uri()).into()).unwrap());
    let house = House::with(vec![echo(), echo(), echo(), echo()]).await;
    let end = house.work(&house.now().await).await;
    assert_eq!(end.state, "discarded");
    let traces = sqlx::query_scalar!(
        r#"select
          (select count(*) from fleet.jobs j where j::text like '%PLANTED%')
          + (select count(*) from fleet.job_attempts a where a::text like '%PLANTED%')
          + (select count(*) from fleet.windows w where w::text like '%PLANTED%') as "n!""#
    );
    assert_eq!(traces.fetch_one(house.pool()).await.unwrap(), 0);
    assert!(end.error.contains("[redacted]"), "{end:?}");
}

#[tokio::test]
async fn a_304_is_never_about_a_file_that_was_quarantined_or_whose_chain_failed() {
    let tagged = |text: String, etag: &'static str| {
        act(move |_| answer(200).header("etag", etag).body(text.into()).unwrap())
    };
    let second = || format!("{}1,7\n", csv());
    for fate in [
        "update raw.csv_files set state = 'quarantined' where etag = '\"e2\"'",
        "update fleet.windows set state = 'failed' where file_id = (select file_id from raw.csv_files where etag = '\"e2\"')",
        "update fleet.windows set state = 'quarantined' where file_id = (select file_id from raw.csv_files where etag = '\"e2\"')",
    ] {
        let acts = vec![
            tagged(csv(), "\"e1\""),
            tagged(second(), "\"e2\""),
            tagged(second(), "\"e2\""),
            not_modified(),
        ];
        let house = House::with(acts).await;
        let fetch = house.now().await;
        let simulated = |n| Fetch { late_ok: true, ..earlier(&fetch, n) };
        let first = house.work(&simulated(4)).await;
        house.work(&simulated(3)).await;
        sqlx::raw_sql(fate).execute(house.pool()).await.unwrap();
        // The server still has the bad file: the same bytes arrive again and are recognised.
        assert_eq!(house.work(&simulated(2)).await.report["outcome"], "duplicate");
        assert_eq!(house.stage.asked(2, reqwest::header::IF_NONE_MATCH).as_deref(), Some("\"e1\""));
        if fate.contains("fleet.windows") {
            continue;
        }
        // The repeat does not make the file good, and a 304 refers to the file before it.
        let end = house.work(&simulated(1)).await;
        assert_eq!(
            (&end.report["outcome"], &end.report["file_id"]),
            (&"not_modified".into(), &first.report["file_id"])
        );
        assert_eq!(house.stage.asked(3, reqwest::header::IF_NONE_MATCH).as_deref(), Some("\"e1\""));
    }
}

#[tokio::test]
async fn a_file_without_validators_is_followed_by_a_request_that_is_not_conditional() {
    let bare = act(|_| answer(200).body(format!("{}1,7\n", csv()).into()).unwrap());
    let house = House::with(vec![whole(csv()), bare, whole(csv())]).await;
    let fetch = house.now().await;
    let simulated = |n| Fetch { late_ok: true, ..earlier(&fetch, n) };
    for n in [3, 2, 1] {
        house.work(&simulated(n)).await;
    }
    assert_eq!(house.stage.asked(1, reqwest::header::IF_NONE_MATCH).as_deref(), Some("\"e1\""));
    assert_eq!(house.stage.asked(2, reqwest::header::IF_NONE_MATCH), None);
}

#[tokio::test]
async fn a_server_that_asks_for_more_time_than_the_slot_has_fails_the_window_by_name() {
    let busy = act(|_| answer(429).header("retry-after", "1300").body("slow down".into()).unwrap());
    let house = House::with(vec![busy, whole(csv())]).await;
    let fetch = house.now().await;
    let end = house.work(&fetch).await;
    assert_eq!((end.state.as_str(), house.requests()), ("discarded", 1));
    assert!(
        end.error.contains("429 Too Many Requests, body \"slow down\"; its Retry-After of 1300 s"),
        "{end:?}"
    );
    assert_eq!(house.window(&fetch).await.0, "failed");
}

#[tokio::test]
async fn a_retry_is_waited_for_no_longer_than_the_slot_lasts() {
    let stage = Stage::playing(vec![]).await;
    let url = || SecretString::from(stage.url.as_str());
    let feed = || Arc::new(Feed::new(FeedOptions::new(url(), "vinops-test", "x")).unwrap());
    let fetch = |ago: i64, late_ok| Fetch {
        source: "copart".into(),
        window_start_utc: now() - chrono::Duration::seconds(ago),
        late_ok,
    };
    let within = |fetch: Fetch| fetch.within_the_slot(feed()).retry_within();
    assert!((58..=60).contains(&within(fetch(840, false)).as_secs()));
    assert_eq!(within(fetch(901, false)), Duration::ZERO);
    // The limit is never longer than the deadline of a download.
    assert_eq!(within(fetch(10, false)), Duration::from_secs(600));
    assert_eq!(within(fetch(90_000, true)), Duration::from_secs(600));
}

/// Starts a login server that accepts every login and sets a cookie.
async fn lobby() -> Stage {
    let come_in =
        || act(|_| answer(200).header("set-cookie", "s=PLANTED-cookie; Path=/").body(Body::empty()).unwrap());
    Stage::playing((0..9).map(|_| come_in()).collect()).await
}

#[tokio::test]
async fn a_session_goes_with_every_request_and_ends_when_the_server_refuses_it() {
    let echo = || act(|r| answer(403).body(format!("no {:?}", r.headers()).into()).unwrap());
    let acts = vec![whole(csv()), echo(), echo(), echo(), echo(), whole(format!("{}1,7\n", csv()))];
    let (mut house, lobby) = (House::with(acts).await, lobby().await);
    let copart = crate::config::Copart {
        feed_url: None,
        user: Some("anna".into()),
        password: Some("PLANTED-password".into()),
        login_url: Some(lobby.url.clone()),
        user_agent: Some("vinops-test".into()),
        referer: None,
    };
    let login = Login::from_config(&copart, Some(&"k".repeat(32).into())).unwrap().unwrap();
    house.tools = house.tools.clone().with(login);
    let fetch = house.now().await;
    let simulated = |n| Fetch { late_ok: true, ..earlier(&fetch, n) };
    assert_eq!(house.work(&simulated(3)).await.report["outcome"], "fetched");
    let refused = house.work(&simulated(2)).await;
    assert!(refused.error.contains("403") && !refused.error.contains("PLANTED"), "{refused:?}");
    assert_eq!(house.work(&simulated(1)).await.report["outcome"], "fetched");
    for request in 0..6 {
        let cookie = house.stage.asked(request, reqwest::header::COOKIE);
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
    assert_eq!(traces.fetch_one(house.pool()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_worker_without_the_feeds_address_says_what_is_missing() {
    let mut house = House::with(vec![]).await;
    house.tools = Tools::new().with(Store::open("memory:").unwrap());
    let end = house.work(&house.now().await).await;
    assert!(end.state == "discarded" && end.error.contains("COPART_FEED_URL"), "{end:?}");
}

#[test]
fn a_payload_of_yesterday_is_read_today() {
    let fetch: Fetch =
        serde_json::from_str(r#"{"source":"copart","window_start_utc":"2026-11-20T14:30:00Z","tomorrow":1}"#)
            .unwrap();
    assert!(!fetch.late_ok);
    assert_eq!(fetch.key(), "copart/2026-11-20T14:30Z");
    let back = serde_json::to_string(&fetch).unwrap();
    assert_eq!(back, r#"{"source":"copart","window_start_utc":"2026-11-20T14:30:00Z"}"#);
}
