//! `vinops demo`: all roles on a temporary PostgreSQL and a simulated feed. Nothing is left behind.

use super::bars::Bars;
use super::chain::{Hand, ended};
use super::face::{Face, Listen, Serve};
use super::session::Session;
use super::show::{self, Json, count, right};
use super::{Failure, Fleet, Summary, summary};
use crate::config::{Config, Copart};
use crate::db::Db;
use crate::embedded::{Embedded, Options};
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

const SOURCE: &str = "copart";

/// Arguments of `vinops demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Starts a temporary PostgreSQL, migrates it and serves a simulated feed on loopback. A worker fetches, ingests and \
applies one window after the other, without waiting for the clock. The database and the files are deleted at the end.

  vinops demo
  vinops demo --rows 5000 --windows 3 --json --exit")]
pub struct Args {
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
    json: Json,
    #[command(flatten)]
    listen: Listen,
}

/// A processed window: the summary, and the growth of the database and the store in bytes.
struct Worked {
    summary: Summary,
    added: i64,
}

/// Runs the demonstration.
pub async fn run(args: Args, fleet: Fleet, mut config: Config) -> Result<(), Failure> {
    let bars = Bars::new(!args.json.json);
    let leave = super::roles::until_told()?;
    let folder = tempfile::Builder::new()
        .prefix("vinops-demo-")
        .tempdir()
        .context("could not create a temporary folder")?;
    let waiting = bars.spinner("PostgreSQL");
    waiting.set_message("starting a temporary cluster");
    let embedded = Embedded::start(Options { temporary: true, ..Options::default() })
        .await
        .map_err(Failure::unreachable)?;
    bars.say(format!("  {}", embedded.describe()));
    let url = embedded.url(super::session::DATABASE);
    let store = url::Url::from_directory_path(folder.path())
        .map_err(|()| anyhow!("{} is not an absolute path", folder.path().display()))?
        .to_string();
    config.store = store.into();
    let session = Session::on(config, embedded).await?;
    waiting.set_message("migrating");
    super::migrate::bring_up(&session.db, |_| {}).await?;
    waiting.finish_and_clear();

    let mut face = Face::show("demo", &args.listen, None, &session, fleet, &leave, Serve::ApiBesides).await?;
    let stopping = leave.child_token();
    let worked = tokio::select! {
        worked = work(&args, fleet, &session, &mut face, &bars, &stopping) => worked?,
        () = leave.cancelled() => {
            session.close().await?;
            return Err(anyhow!("interrupted").into());
        }
    };
    if args.json.json {
        let windows: Vec<&Summary> = worked.iter().map(|w| &w.summary).collect();
        show::json(&json!({ "windows": windows, "ok": true }))?;
    } else {
        println!("{}", table(&worked));
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

async fn work(
    args: &Args,
    fleet: Fleet,
    session: &Session,
    face: &mut Face,
    bars: &Bars,
    stopping: &CancellationToken,
) -> Result<Vec<Worked>, Failure> {
    let first = Utc
        .with_ymd_and_hms(2026, 3, 6, 17, 0, 0)
        .single()
        .context("the first window of the demonstration is no valid time")?;
    let simulator = Simulator::new(simulator::Options::new(args.seed, args.rows, first));
    let making = bars.spinner("feed");
    making.set_message("simulating the first window");
    let server = FeedServer::start(simulator, stopping.clone()).await?;
    making.finish_and_clear();
    let mut config = session.config.clone();
    let feed_url = Some(SecretString::from(server.url()));
    config.copart = Copart { feed_url, ..config.copart.get()?.clone() }.into();
    let store = Store::open(config.store.get()?)?;
    let hand = Hand::start(&session.db, fleet, &config, store, &[], bars)?;
    face.follow(hand.watch());
    let scheduler = Scheduler::new(fleet.fetch, &[SOURCE]).simulated();
    let mut worked = Vec::new();
    for k in 0..args.windows {
        if k > 0 {
            server.advance(k).await?;
        }
        let at = server.look(Simulator::window_start);
        let before = database_size(&session.db).await?;
        let events = hand.watch();
        scheduler.due(&session.db.pool, Some(at)).await?;
        let end = ended(&session.db, SOURCE, at, events).await?;
        let Some(file_id) = end.file_id.filter(|_| end.state == "applied") else {
            return Err(anyhow!(
                "window {} is {}: {}",
                show::minute(at),
                end.state,
                end.note.unwrap_or_default()
            )
            .into());
        };
        let summary = summary(&session.db, file_id, false).await?;
        let added = database_size(&session.db).await? - before + summary.stored_bytes;
        bars.say(line(k, args.windows, at, &summary));
        worked.push(Worked { summary, added });
    }
    hand.stop().await?;
    Ok(worked)
}

fn line(k: u32, windows: u32, at: DateTime<Utc>, s: &Summary) -> String {
    format!(
        "  window {} of {windows}  {}  {:>9} rows, {:>7} new, {:>6} changed, {:>5} gone  in {:.2} s",
        k + 1,
        show::minute(at),
        count(s.rows),
        count(s.new),
        count(s.changed),
        count(s.gone),
        s.seconds.total
    )
}

async fn database_size(db: &Db) -> anyhow::Result<i64> {
    sqlx::query_scalar!(
        r#"-- demo: size
        select pg_database_size(current_database()) as "bytes!""#
    )
    .fetch_one(&db.pool)
    .await
    .context("could not measure the size of the database")
}

/// The name of a metric, and the function that formats the metric of a window.
type Measure = (&'static str, fn(&Worked) -> String);

/// Returns a table with a column per window and a row per metric.
fn table(worked: &[Worked]) -> show::Table {
    let mut headings = vec!["".to_owned()];
    headings.extend(worked.iter().map(|w| w.summary.window_start_utc.format("%m-%d %H:%M").to_string()));
    let mut table = show::table(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    let measures: &[Measure] = &[
        ("rows", |w| count(w.summary.rows)),
        ("new", |w| count(w.summary.new)),
        ("changed", |w| count(w.summary.changed)),
        ("gone", |w| count(w.summary.gone)),
        ("parse errors", |w| count(w.summary.parse_errors)),
        ("repaired", |w| count(w.summary.repaired)),
        ("skipped: no VIN", |w| count(w.summary.skipped.vin_empty)),
        ("skipped: not a VIN", |w| count(w.summary.skipped.vin_format)),
        ("skipped: no lot number", |w| count(w.summary.skipped.lot_missing)),
        ("vehicles inserted", |w| count(w.summary.vehicles.inserted)),
        ("vehicles updated", |w| count(w.summary.vehicles.updated)),
        ("vehicles unchanged", |w| count(w.summary.vehicles.unchanged)),
        ("lots inserted", |w| count(w.summary.lots.inserted)),
        ("lots updated", |w| count(w.summary.lots.updated)),
        ("lots unchanged", |w| count(w.summary.lots.unchanged)),
        ("pending result", |w| count(w.summary.pending_result)),
        ("removed", |w| count(w.summary.removed)),
        ("returned", |w| count(w.summary.returned)),
        ("ingest", |w| show::seconds(w.summary.seconds.ingest)),
        ("upsert vehicles", |w| show::seconds(w.summary.seconds.upsert_vehicles)),
        ("upsert lots", |w| show::seconds(w.summary.seconds.upsert_lots)),
        ("detect completion", |w| show::seconds(w.summary.seconds.detect_completion)),
        ("total", |w| show::seconds(w.summary.seconds.total)),
        ("bytes added", |w| show::megabytes(w.added)),
    ];
    for (name, read) in measures {
        let mut row = vec![Cell::new(name)];
        row.extend(worked.iter().map(|w| right(read(w))));
        table.add_row(row);
    }
    table
}
