//! `vinops demo`: all roles on a temporary PostgreSQL and a simulated feed. Nothing is left behind.

use super::chain::{InlineWorker, wait_for_window};
use super::http_endpoint::{ApiExposure, HttpArgs, HttpEndpoint};
use super::output::{self, JsonArgs, format_count, right_cell};
use super::progress::ProgressBars;
use super::session::CommandSession;
use super::{CommandError, JobRegistry, WindowSummary, read_summary};
use crate::config::{Config, CopartConfig};
use crate::db::Database;
use crate::embedded::{EmbeddedOptions, EmbeddedPostgres};
use crate::scheduler::Scheduler;
use crate::simulator::server::FeedServer;
use crate::simulator::{self, Simulator};
use crate::store::Store;
use anyhow::{Context, anyhow};
use chrono::{DateTime, TimeZone, Utc};
use comfy_table::Cell;
use secrecy::SecretString;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const DEMO_SOURCE: &str = "copart";

/// Arguments of `vinops demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Starts a temporary PostgreSQL, migrates it and serves a simulated feed on loopback. A worker fetches, ingests and \
applies one window after the other, without waiting for the clock. The database and the files are deleted at the end.

  vinops demo
  vinops demo --rows 5000 --windows 3 --json --exit")]
pub struct DemoArgs {
    /// Rows per window
    #[arg(long, default_value_t = 154_000)]
    rows: usize,
    /// Number of windows to process
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    windows: u32,
    /// Seed of the simulated feed; the same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Exit after the summary instead of keeping the database running
    #[arg(long)]
    exit: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    listen: HttpArgs,
}

/// A processed window: the summary, and the growth of the database and the store in bytes.
struct DemoWindow {
    summary: WindowSummary,
    added: i64,
}

/// Runs the demonstration.
pub async fn run(args: DemoArgs, fleet: JobRegistry, mut config: Config) -> Result<(), CommandError> {
    let bars = ProgressBars::new(!args.json.json);
    let leave = super::roles::shutdown_signal()?;
    let folder =
        tempfile::Builder::new().prefix("vinops-demo-").tempdir().context("could not create a temporary folder")?;
    let waiting = bars.add_spinner("PostgreSQL");
    waiting.set_message("starting a temporary cluster");
    let embedded = EmbeddedPostgres::start(EmbeddedOptions { temporary: true, ..EmbeddedOptions::default() })
        .await
        .map_err(CommandError::unavailable)?;
    bars.print_line(format!("  {}", embedded.describe()));
    let url = embedded.url(super::session::DATABASE_NAME);
    let store = url::Url::from_directory_path(folder.path())
        .map_err(|()| anyhow!("{} is not an absolute path", folder.path().display()))?
        .to_string();
    config.store = store.into();
    let session = CommandSession::with_cluster(config, embedded).await?;
    waiting.set_message("migrating");
    super::migrate::run_migrations(&session.db, |_| {}).await?;
    waiting.finish_and_clear();

    let mut face =
        HttpEndpoint::start("demo", &args.listen, None, &session, fleet, &leave, ApiExposure::Optional).await?;
    let stopping = leave.child_token();
    let worked = tokio::select! {
        worked = process_windows(&args, fleet, &session, &mut face, &bars, &stopping) => worked?,
        () = leave.cancelled() => {
            session.close().await?;
            return Err(anyhow!("interrupted").into());
        }
    };
    if args.json.json {
        let windows: Vec<&WindowSummary> = worked.iter().map(|w| &w.summary).collect();
        output::print_json(&json!({ "windows": windows, "ok": true }))?;
    } else {
        println!("{}", summary_table(&worked));
    }
    if !args.exit {
        eprintln!("\nThe database runs until you press Ctrl-C. Next commands:");
        eprintln!("  psql {url} -c 'select * from fleet.windows'");
        eprintln!("  DATABASE_URL={url} vinops windows");
        eprintln!("  DATABASE_URL={url} vinops jobs list");
        leave.cancelled().await;
    }
    face.close().await;
    session.close().await
}

async fn process_windows(
    args: &DemoArgs,
    fleet: JobRegistry,
    session: &CommandSession,
    face: &mut HttpEndpoint,
    bars: &ProgressBars,
    stopping: &CancellationToken,
) -> Result<Vec<DemoWindow>, CommandError> {
    let first = Utc
        .with_ymd_and_hms(2026, 3, 6, 17, 0, 0)
        .single()
        .context("the first window of the demonstration is no valid time")?;
    let simulator = Simulator::new(simulator::SimulatorOptions::new(args.seed, args.rows, first));
    let making = bars.add_spinner("feed");
    making.set_message("simulating the first window");
    let server = FeedServer::start(simulator, stopping.clone()).await?;
    making.finish_and_clear();
    let mut config = session.config.clone();
    let feed_url = Some(SecretString::from(server.url()));
    config.copart = CopartConfig { feed_url, ..config.copart.get()?.clone() }.into();
    let store = Store::open(config.store.get()?)?;
    let hand = InlineWorker::start(&session.db, fleet, &config, store, &[], bars)?;
    face.follow_events(hand.subscribe());
    let scheduler = Scheduler::new(fleet.fetch, &[DEMO_SOURCE]).simulated();
    let mut worked = Vec::new();
    for k in 0..args.windows {
        if k > 0 {
            server.advance_to(k).await?;
        }
        let at = server.with_simulator(Simulator::window_start);
        let before = database_size(&session.db).await?;
        let events = hand.subscribe();
        scheduler.enqueue_due_windows(&session.db.pool, Some(at)).await?;
        let end = wait_for_window(&session.db, DEMO_SOURCE, at, events).await?;
        let Some(file_id) = end.file_id.filter(|_| end.state == "applied") else {
            return Err(anyhow!(
                "window {} is {}: {}",
                output::format_minute(at),
                end.state,
                end.note.unwrap_or_default()
            )
            .into());
        };
        let summary = read_summary(&session.db, file_id, false).await?;
        let added = database_size(&session.db).await? - before + summary.stored_bytes;
        bars.print_line(window_line(k, args.windows, at, &summary));
        worked.push(DemoWindow { summary, added });
    }
    hand.stop().await?;
    Ok(worked)
}

fn window_line(k: u32, windows: u32, at: DateTime<Utc>, s: &WindowSummary) -> String {
    format!(
        "  window {} of {windows}  {}  {:>9} rows, {:>7} new, {:>6} changed, {:>5} gone  in {:.2} s",
        k + 1,
        output::format_minute(at),
        format_count(s.rows),
        format_count(s.new),
        format_count(s.changed),
        format_count(s.gone),
        s.seconds.total
    )
}

async fn database_size(db: &Database) -> anyhow::Result<i64> {
    sqlx::query_scalar!(
        r#"-- demo: size
        select pg_database_size(current_database()) as "bytes!""#
    )
    .fetch_one(&db.pool)
    .await
    .context("could not measure the size of the database")
}

/// The name of a metric, and the function that formats the metric of a window.
type DemoMetric = (&'static str, fn(&DemoWindow) -> String);

/// Returns a table with a column per window and a row per metric.
fn summary_table(worked: &[DemoWindow]) -> output::TextTable {
    let mut headings = vec!["".to_owned()];
    headings.extend(worked.iter().map(|w| w.summary.window_start_utc.format("%m-%d %H:%M").to_string()));
    let mut table = output::new_table(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    let measures: &[DemoMetric] = &[
        ("rows", |w| format_count(w.summary.rows)),
        ("new", |w| format_count(w.summary.new)),
        ("changed", |w| format_count(w.summary.changed)),
        ("gone", |w| format_count(w.summary.gone)),
        ("parse errors", |w| format_count(w.summary.parse_errors)),
        ("repaired", |w| format_count(w.summary.repaired)),
        ("skipped: no VIN", |w| format_count(w.summary.skipped.vin_empty)),
        ("skipped: not a VIN", |w| format_count(w.summary.skipped.vin_format)),
        ("skipped: no lot number", |w| format_count(w.summary.skipped.lot_missing)),
        ("vehicles inserted", |w| format_count(w.summary.vehicles.inserted)),
        ("vehicles updated", |w| format_count(w.summary.vehicles.updated)),
        ("vehicles unchanged", |w| format_count(w.summary.vehicles.unchanged)),
        ("lots inserted", |w| format_count(w.summary.lots.inserted)),
        ("lots updated", |w| format_count(w.summary.lots.updated)),
        ("lots unchanged", |w| format_count(w.summary.lots.unchanged)),
        ("pending result", |w| format_count(w.summary.pending_result)),
        ("removed", |w| format_count(w.summary.removed)),
        ("returned", |w| format_count(w.summary.returned)),
        ("ingest", |w| output::format_seconds(w.summary.seconds.ingest)),
        ("upsert vehicles", |w| output::format_seconds(w.summary.seconds.upsert_vehicles)),
        ("upsert lots", |w| output::format_seconds(w.summary.seconds.upsert_lots)),
        ("detect completion", |w| output::format_seconds(w.summary.seconds.detect_completion)),
        ("total", |w| output::format_seconds(w.summary.seconds.total)),
        ("bytes added", |w| output::format_megabytes(w.added)),
    ];
    for (name, read) in measures {
        let mut row = vec![Cell::new(name)];
        row.extend(worked.iter().map(|w| right_cell(read(w))));
        table.add_row(row);
    }
    table
}
