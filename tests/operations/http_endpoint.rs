//! Health and metrics over HTTP, as a probe and Prometheus request them.

use super::{RoleProcess, metric_value};
use crate::cli_fixture::CliFixture;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Stdio;
use tokio_util::sync::{CancellationToken, DropGuard};
use vinops::scheduler::Scheduler;
use vinops::simulator::server::FeedServer;
use vinops::simulator::{Simulator, SimulatorOptions};
use vinops::telemetry::{METRICS, MetricKind, MetricOrigin};
use vinops::workers::JOBS;

pub async fn start_feed() -> (FeedServer, DropGuard) {
    let stop = CancellationToken::new();
    let mut options = SimulatorOptions::new(5, 600, "2026-03-06T17:00:00Z".parse().unwrap());
    options.broken = 4;
    let feed = FeedServer::start(Simulator::new(options), stop.clone()).await.unwrap();
    (feed, stop.drop_guard())
}

/// Opens the feed's current window.
async fn open_window(fixture: &CliFixture, feed: &FeedServer) {
    let at = feed.with_simulator(Simulator::window_start);
    let scheduler = Scheduler::new(&JOBS[0], &["copart"]).simulated();
    assert!(scheduler.enqueue_due_windows(fixture.pool(), Some(at)).await.unwrap()[0].job.is_some());
}

/// Returns true if each kind has a completed run. Runs are counted one by one, and not always in the order of their
/// ends.
fn is_every_kind_done(text: &str) -> bool {
    let runs = |kind: &str| metric_value(text, &format!("vinops_job_runs_total{{kind=\"{kind}\",outcome=\"done\"}}"));
    JOBS.iter().all(|entry| runs(entry.kind) == Some(1.0))
}

async fn query_number(fixture: &CliFixture, sql: &'static str) -> f64 {
    sqlx::query_scalar(sql).fetch_one(fixture.pool()).await.unwrap()
}

#[tokio::test]
async fn a_worker_shows_what_a_window_has_done() {
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed().await;
    let mut worker = RoleProcess::start(fixture.vinops_command(&["worker"]).env("COPART_FEED_URL", feed.url())).await;
    let before = worker.wait_for_response("/metrics", |status, _| status == 200).await;
    assert_eq!(metric_value(&before, "etl_ingest_rows_total"), Some(0.0));
    assert_eq!(metric_value(&before, "vinops_jobs_ready{kind=\"fetch\"}"), Some(0.0));

    open_window(&fixture, &feed).await;
    // the one metric of the database that does not exist before
    let applied = "etl_last_success_timestamp_seconds{source=\"copart\"}";
    worker.wait_for_response("/metrics", |_, text| is_every_kind_done(text) && text.contains(applied)).await;
    // again: the response with the last run may have been started before the run was counted
    let (_, text) = worker.get("/metrics").await;

    for (series, sql) in [
        ("etl_ingest_rows_total", "select sum(rows_processed)::float8 from audit.etl_runs"),
        (
            "etl_parse_errors_total{outcome=\"repaired\"}",
            "select sum((report #>> '{ingest,repaired}')::int)::float8 from audit.etl_runs",
        ),
        (
            "etl_parse_errors_total{outcome=\"rejected\"}",
            "select count(*)::float8 from audit.parse_errors where kind = 'rejected'",
        ),
        ("etl_vehicle_upserts_total{outcome=\"inserted\"}", "select count(*)::float8 from vehicles"),
        ("etl_lot_upserts_total{outcome=\"inserted\"}", "select count(*)::float8 from lots"),
        ("etl_vin_conflicts_total", "select count(*)::float8 from audit.vin_conflicts"),
        (
            "etl_unknown_rate_percent{source=\"copart\",column=\"vin\"}",
            "select vin_null_pct::float8 from audit.v_unknown_rate",
        ),
        ("etl_unknown_words_percent{source=\"copart\",domain=\"damage_types\"}", "select 0::float8"),
        ("etl_unknown_words_percent{source=\"copart\",domain=\"sale_types\"}", "select 0::float8"),
        ("etl_unknown_words_percent{source=\"copart\",domain=\"title_types\"}", "select 0::float8"),
        ("etl_ingest_duration_seconds_count", "select 1::float8"),
        ("copart_fetch_success_total", "select 1::float8"),
        ("copart_fetch_duration_seconds_count", "select 1::float8"),
        ("vinops_breaker_state{source=\"copart\",state=\"closed\"}", "select 1::float8"),
        ("vinops_breaker_state{source=\"copart\",state=\"open\"}", "select 0::float8"),
        ("vinops_workers{state=\"working\"}", "select count(*)::float8 from fleet.workers"),
        ("vinops_workers{state=\"lost\"}", "select 0::float8"),
        ("vinops_kind_paused{kind=\"fetch\"}", "select 0::float8"),
        ("vinops_source_enabled{source=\"copart\"}", "select 1::float8"),
        ("vinops_consecutive_failures{source=\"copart\"}", "select 0::float8"),
        ("etl_orphan_lots_total", "select 0::float8"),
        ("vinops_database_up", "select 1::float8"),
    ] {
        assert_eq!(metric_value(&text, series), Some(query_number(&fixture, sql).await), "{series}");
    }
    assert!(metric_value(&text, "etl_parse_errors_total{outcome=\"repaired\"}").unwrap() > 0.0);
    let success = query_number(&fixture, "select extract(epoch from updated_at)::float8 from fleet.windows").await;
    let shown = metric_value(&text, "etl_last_success_timestamp_seconds{source=\"copart\"}").unwrap();
    assert!((shown - success).abs() < 0.001, "{shown} {success}");

    // the log has the source, window and duration of each job
    assert_eq!(worker.shut_down().await, Some(0));
    let ended: Vec<serde_json::Value> = worker.said.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ended: Vec<_> = ended.iter().filter(|line| line["message"] == "job run finished").collect();
    let kinds: Vec<_> = ended.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    let all: BTreeSet<_> = JOBS.iter().map(|entry| entry.kind).collect();
    assert!(kinds.len() == all.len() && kinds.iter().copied().collect::<BTreeSet<_>>() == all, "{kinds:?}");
    for line in ended {
        assert_eq!((&line["source"], &line["attempt"]), (&"copart".into(), &1.into()), "{line}");
        assert_eq!(line["window"], "2026-03-06T17:00:00Z", "{line}");
        assert!(line["job"].is_i64() && line["ms"].is_u64() && line["outcome"] == "done", "{line}");
    }
}

#[tokio::test]
async fn every_metric_is_there_before_and_after_a_window() {
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed().await;
    let mut worker = RoleProcess::start(fixture.vinops_command(&["worker"]).env("COPART_FEED_URL", feed.url())).await;
    let (_, before) = worker.get("/metrics").await;
    open_window(&fixture, &feed).await;
    let applied = "vinops_last_applied_window_age_seconds{source=\"copart\"}";
    let after =
        worker.wait_for_response("/metrics", |_, text| is_every_kind_done(text) && text.contains(applied)).await;
    let names = |text: &str| -> BTreeSet<String> {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        series.filter_map(|line| line.split_once(['{', ' '])).map(|(name, _)| name.to_owned()).collect()
    };
    let (before, after) = (names(&before), names(&after));
    for metric in METRICS {
        let seconds = matches!(metric.kind, MetricKind::Seconds(_));
        let name = if seconds { format!("{}_bucket", metric.name) } else { metric.name.to_owned() };
        // a feed without a login has no session, and no client sends API requests to a worker
        let elsewhere = ["vinops_session_expiry_timestamp_seconds", "vinops_api_request_duration_seconds"];
        if elsewhere.contains(&metric.name) {
            continue;
        }
        assert!(after.contains(&name), "{name} is not there");
        if metric.kind == MetricKind::Counter {
            assert!(before.contains(&name), "{name} is not there from the start");
        }
    }
    let known = |name: &String| {
        let of = |metric: &&str| {
            name.strip_prefix(metric).is_some_and(|end| ["", "_bucket", "_sum", "_count"].contains(&end))
        };
        METRICS.iter().map(|metric| metric.name).any(|metric| of(&metric))
    };
    assert_eq!(after.iter().filter(|name| !known(name)).count(), 0, "{after:?}");
    assert_eq!(worker.shut_down().await, Some(0));
}

#[test]
fn every_metric_of_a_process_is_moved_by_the_code() {
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    fn list_sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                list_sources(&path, found);
            } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("telemetry/names.rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    ["src", "workers"].iter().for_each(|folder| list_sources(folder.as_ref(), &mut files));
    let code: String =
        files.iter().map(|path| read(path).split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()).collect();
    // the newest migration that makes it
    let mut migrations: Vec<_> = std::fs::read_dir("migrations").unwrap().map(|entry| entry.unwrap().path()).collect();
    migrations.retain(|path| path.extension().is_some_and(|it| it == "sql"));
    migrations.sort();
    let texts = migrations.iter().rev().map(|path| read(path));
    let view = texts.into_iter().find(|text| text.contains("view fleet.metrics as")).unwrap();
    for metric in METRICS {
        let (text, quote) = if metric.origin == MetricOrigin::Database { (&view, '\'') } else { (&code, '"') };
        let moved = text.contains(&format!("{quote}{}{quote}", metric.name));
        assert!(moved, "nothing ever sets {}", metric.name);
    }
}

#[tokio::test]
async fn a_process_is_ready_while_its_schema_is_its_own_and_says_why_it_is_not() {
    let fixture = CliFixture::new().await;
    let mut scheduler = RoleProcess::start(&mut fixture.vinops_command(&["scheduler"])).await;
    assert_eq!(scheduler.get("/readyz").await, (200, "{\"ready\":true}\n".to_owned()));
    sqlx::raw_sql("insert into vinops.migrations select (jsonb_populate_record(m, '{\"id\": \"9999\"}')).* from vinops.migrations m where id = '0016'")
        .execute(fixture.pool())
        .await
        .unwrap();
    let said = scheduler.wait_for_response("/readyz", |status, _| status == 503).await;
    assert_eq!(
        said,
        "{\"ready\":false,\"reason\":\"the database schema has migrations 9999, which this program does not know\"}\n"
    );
    assert_eq!(scheduler.shut_down().await, Some(0));
}

#[tokio::test]
async fn a_process_without_its_database_lives_and_is_not_ready_and_comes_back() {
    let fixture = CliFixture::new().await;
    let mut serve = RoleProcess::start(&mut fixture.vinops_command(&["serve"])).await;
    let (_, text) = serve.get("/metrics").await;
    assert_eq!(metric_value(&text, "vinops_database_up"), Some(1.0));

    // new sessions are rejected, and existing ones terminated
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(fixture.pool()).await.unwrap();
    let mut elsewhere = url::Url::parse(&fixture.db.url).unwrap();
    elsewhere.set_path("postgres");
    let mut admin = vinops::db::connect_session(elsewhere.as_str()).await.unwrap();
    let bar = |allow: bool| sqlx::AssertSqlSafe(format!("alter database {name} allow_connections {allow}"));
    sqlx::raw_sql(bar(false)).execute(&mut admin).await.unwrap();
    sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1")
        .bind(&name)
        .execute(&mut admin)
        .await
        .unwrap();
    let said = serve.wait_for_response("/readyz", |status, _| status == 503).await;
    assert_eq!(said, "{\"ready\":false,\"reason\":\"the database is unavailable\"}\n");
    assert_eq!(serve.get("/livez").await, (200, "{\"alive\":true}\n".to_owned()));
    let text =
        serve.wait_for_response("/metrics", |_, text| metric_value(text, "vinops_database_up") == Some(0.0)).await;
    assert!(!text.contains("vinops_jobs{"), "what the database said is not repeated while it is away: {text}");

    sqlx::raw_sql(bar(true)).execute(&mut admin).await.unwrap();
    serve.wait_for_response("/readyz", |status, _| status == 200).await;
    serve.wait_for_response("/metrics", |_, text| text.contains("vinops_jobs{")).await;
    assert_eq!(serve.shut_down().await, Some(0));
}

#[tokio::test]
async fn a_worker_that_drains_is_not_ready_and_still_answers() {
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed().await;
    sqlx::query("insert into raw.sources (source) values ('copart')").execute(fixture.pool()).await.unwrap();
    let mut lock = fixture.pool().begin().await.unwrap();
    sqlx::query("select from raw.sources for update").execute(&mut *lock).await.unwrap();
    let mut worker = RoleProcess::start(fixture.vinops_command(&["worker"]).env("COPART_FEED_URL", feed.url())).await;
    open_window(&fixture, &feed).await;
    let running = "vinops_jobs{kind=\"ingest\",state=\"running\"} 1\n";
    worker.wait_for_response("/metrics", |_, text| text.contains(running)).await;
    assert_eq!(worker.get("/readyz").await.0, 200);
    worker.send_sigterm();
    worker.next_line("worker draining").await;
    let (status, said) = worker.get("/readyz").await;
    assert_eq!((status, &*said), (503, "{\"ready\":false,\"reason\":\"the process is shutting down\"}\n"));
    assert_eq!(worker.get("/livez").await.0, 200);
    assert_eq!(metric_value(&worker.get("/metrics").await.1, "vinops_draining"), Some(1.0));
    lock.rollback().await.unwrap();
    assert_eq!(worker.shut_down().await, Some(0));
}

#[tokio::test]
async fn serve_needs_no_more_than_the_right_to_read() {
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed().await;
    open_window(&fixture, &feed).await;
    // a login of its own: its session is the role's
    let url = format!("{}?options=-c%20role%3Dapp_ro", fixture.db.url);
    let mut serve = RoleProcess::start(fixture.vinops_command(&["serve"]).env("DATABASE_URL", url)).await;
    let text = serve.wait_for_response("/metrics", |status, _| status == 200).await;
    assert_eq!(metric_value(&text, "vinops_jobs{kind=\"fetch\",state=\"available\"}"), Some(1.0), "{text}");
    assert_eq!(serve.get("/readyz").await.0, 200);
    assert_eq!(serve.get("/nothing").await.0, 404);
    assert_eq!(serve.shut_down().await, Some(0));
}

#[tokio::test]
async fn every_request_has_an_id_and_a_log_line() {
    let fixture = CliFixture::new().await;
    let mut serve = RoleProcess::start(&mut fixture.vinops_command(&["serve"])).await;
    let asked = "/api/v1/lots/77?lang=en";
    let (status, head, body) = serve.get_with(asked, "X-Request-Id: proxy-7\r\n").await;
    assert_eq!((status, head.contains("x-request-id: proxy-7")), (404, true), "{head}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&problem["request_id"], &problem["title"]), (&"proxy-7".into(), &"Not Found".into()));
    let line = serve.next_line("request completed").await;
    assert_eq!(
        (&line["method"], &line["path"], &line["status"], &line["request_id"]),
        (&"GET".into(), &"/api/v1/lots/77".into(), &404.into(), &"proxy-7".into())
    );
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0, "{line}");

    // Probes have an id too, and no line of their own while they succeed.
    for probe in ["/livez", "/readyz", "/metrics"] {
        let (status, head, _) = serve.get_with(probe, "X-Request-Id: not printable\r\n").await;
        assert!(status == 200 && head.contains("x-request-id: ") && !head.contains("printable"), "{head}");
    }
    run_and_log_failure(&fixture, &mut serve).await;
    assert_eq!(serve.shut_down().await, Some(0));
    let probed = |line: &String| line.contains("\"path\":\"/readyz\"");
    assert!(!serve.said.iter().any(probed), "{:#?}", serve.said);
}

/// Checks that the log line of a failure has the request id of its response.
async fn run_and_log_failure(fixture: &CliFixture, serve: &mut RoleProcess) {
    sqlx::raw_sql("alter table public.images rename to pictures; alter table public.lots rename to auctions")
        .execute(fixture.pool())
        .await
        .unwrap();
    let (status, _, body) = serve.get_with("/api/v1/lots/77", "X-Request-Id: proxy-8\r\n").await;
    assert_eq!(status, 500, "{body}");
    let line = serve.next_line("API request failed").await;
    assert_eq!((&line["request_id"], &line["level"]), (&"proxy-8".into(), &"ERROR".into()), "{line}");
    assert!(line["error"].as_str().unwrap().contains("lots"), "{line}");
}

#[tokio::test]
async fn the_root_links_what_is_served_and_other_paths_are_problem_documents() {
    let fixture = CliFixture::new().await;
    for (role, api) in [("serve", true), ("scheduler", false)] {
        let mut role = RoleProcess::start(&mut fixture.vinops_command(&[role])).await;
        let (status, body) = role.get("/").await;
        let index: Value = serde_json::from_str(&body).unwrap();
        let (_, head, page) = role.get_with("/", "Accept: text/html,*/*\r\n").await;
        assert!(status == 200 && head.contains("content-type: text/html"), "{head}");
        let mut paths = vec!["/livez", "/readyz", "/metrics"];
        paths.extend(["/api/v1/", "/api/v1/openapi.json"].iter().filter(|_| api));
        let listed = index["endpoints"].as_array().unwrap();
        assert_eq!(listed.len(), paths.len(), "{body}");
        for path in paths {
            assert!(listed.iter().any(|endpoint| endpoint["path"] == path), "{path}: {body}");
            assert!(page.contains(&format!("<a href=\"{path}\">")), "{path}: {page}");
            assert_eq!(role.get(path).await.0, 200, "{path}");
        }
        let (status, head, body) = role.get_with("/favicon.ico", "").await;
        assert!(status == 404 && head.contains("application/problem+json"), "{head}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["title"], "Not Found");
        assert_eq!(role.shut_down().await, Some(0));
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let fixture = CliFixture::new().await;
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = fixture.vinops_command(&["serve"]);
    let output = command.env("VINOPS_LISTEN", &address).stdin(Stdio::null()).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        format!(
            "error: could not listen on {address} for /metrics, /livez and /readyz\n\
             detail: Address already in use (os error 98)\n"
        )
    );
    assert_eq!(output.status.code(), Some(3));
}
