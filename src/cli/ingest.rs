//! `vinops ingest FILE`: ingests one file and runs its chain of jobs to the end.
//!
//! The file is read once before anything is stored, for its sha256 and its clock. A window that contradicts the clock
//! is rejected. A known file needs no window. A known file may be unapplied, so its chain is run to the end like the
//! chain of a new file.

use super::bars::Bars;
use super::chain::{Hand, kinds_from};
use super::follow::{FileChain, FileEnd, UnfinishedJob};
use super::session::{Connect, Session, who};
use super::show::{self, Json, count};
use super::source::expect_source;
use super::{Failure, Fleet, Received, Summary, summary};
use crate::auction::mapping::{self, SourceMapping};
use crate::auction::window::{FileClock, time_in_path};
use crate::config::Config;
use crate::queue::operate;
use anyhow::{Context, anyhow, ensure};
use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Arguments of `vinops ingest`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The window is taken from --window, or from a path that ends in YYYY/MM/DD/HHmm.csv (UTC), or from the snapshot's \
clock (column Create Date/Time, US Pacific, 12 hours without AM or PM) if only one of its two instants is possible. \
A window more than 15 minutes ahead of the database's clock, or more than 36 hours from the file's clock, is \
rejected unless --even-so is given.

A file is identified by its bytes. A known file that is applied is skipped. If its chain is unfinished, the chain is \
run to its end. If its chain failed, the failed job is requeued. Running workers may claim the file's jobs. This \
command runs them if no other worker does.

Exit code 0: the file is applied, late or incomplete. Exit code 1: it failed or is quarantined, or its chain may not \
run.

  vinops ingest salesdata.csv
  vinops ingest /data/2026/11/20/1430.csv --json
  vinops ingest old.csv --window 2026-11-20T14:30:00Z")]
pub struct Args {
    /// CSV file of the feed
    file: PathBuf,
    /// Start of the file's window, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    window: Option<DateTime<Utc>>,
    /// Source of the file
    #[arg(long, default_value = "copart")]
    source: String,
    /// Accept a window that contradicts the clocks
    #[arg(long, requires = "reason")]
    even_so: bool,
    /// Reason, recorded with the operator and the time
    #[arg(long, alias = "why", value_name = "TEXT", requires = "even_so", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Ingests the file and runs its chain.
///
/// # Errors
/// Returns an error if the file is not applied at the end.
pub async fn run(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    readable(&args.file).map_err(Failure::wrong)?;
    let session = Session::open(config, &args.connect).await?;
    let outcome = take_in(&args, fleet, &session).await;
    session.close().await?;
    let Outcome { summary, end, worked } = outcome?;
    if args.json.json {
        show::json(&summary)?;
    } else {
        print(&args, &summary, worked);
    }
    if end.is_applied() {
        return Ok(());
    }
    let reason = end.reason.unwrap_or_else(|| "no reason is recorded".to_owned());
    Err(anyhow!("the file is {}: {reason}", end.state).into())
}

/// Checks that the path is a readable file, before the command connects.
fn readable(path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    let about = std::fs::metadata(path)
        .with_context(|| format!("could not find the file {name}\nhint: name a CSV file of the feed"))?;
    ensure!(!about.is_dir(), "{name} is a directory\nhint: ingest its files one after the other");
    File::open(path).with_context(|| {
        format!("could not open the file {name}\nhint: let this user read it (chmod, chown)")
    })?;
    Ok(())
}

/// The clock and the checksum of a file, found by reading the file once.
struct Survey {
    clock: FileClock,
    sha256: String,
}

/// A reader that hashes all bytes that are read.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Reads the file once, on a thread of its own.
async fn survey(path: &Path, mapping: &'static SourceMapping) -> anyhow::Result<Survey> {
    let name = path.to_owned();
    let read = move || {
        let mut file = Hashing { inner: File::open(&name)?, hasher: Sha256::new() };
        let clock = FileClock::read(&mut file, mapping)?;
        io::copy(&mut file, &mut io::sink())?;
        let sha256 = HEXLOWER.encode(&file.hasher.finalize());
        Ok::<Survey, io::Error>(Survey { clock, sha256 })
    };
    let survey = tokio::task::spawn_blocking(read).await.context("reading the file panicked")?;
    survey.with_context(|| format!("could not read the file {}", path.display()))
}

/// Returns the window of the file.
///
/// # Errors
/// Returns a usage error if the window is unknown or contradicts the clocks.
async fn window(args: &Args, session: &Session) -> Result<DateTime<Utc>, Failure> {
    let Survey { clock, sha256 } = survey(&args.file, mapping::for_source(&args.source)).await?;
    let pool = &session.db.pool;
    let named = args.window.or_else(|| time_in_path(&args.file));
    let known = sqlx::query_scalar!(
        "-- ingest: window of a known file
        select window_start_utc
        from raw.csv_files
        where source = $1
          and sha256 = $2
          and state <> 'withdrawn'",
        args.source,
        sha256
    )
    .fetch_optional(pool)
    .await
    .context("could not look up the sha256 of the file")?;
    if let (None, Some(window)) = (named, known) {
        return Ok(window);
    }
    let now = operate::now(pool).await?;
    let window = clock.window(named, now).map_err(Failure::wrong)?;
    let Err(refusal) = clock.check(window, now) else { return Ok(window) };
    let Some(reason) = args.reason.as_ref().filter(|_| args.even_so) else {
        return Err(Failure::wrong(refusal));
    };
    let refusal = refusal.to_string();
    sqlx::query!(
        "-- ingest: note what was overridden
        insert into audit.operator_actions (who, action, subject, reason, details)
        values ($1, 'ingest-even-so', $2, $3, $4)",
        who(),
        format!("{}/{}", args.source, show::minute(window)),
        reason,
        json!({ "window_start_utc": window, "sha256": sha256, "refusal": refusal.lines().next() }),
    )
    .execute(pool)
    .await
    .context("could not record the override of the clocks")?;
    Ok(window)
}

/// The result of the command.
struct Outcome {
    summary: Summary,
    end: FileEnd,
    /// True if the chain had unfinished jobs.
    worked: bool,
}

/// Imports the file and runs its chain to the end.
async fn take_in(args: &Args, fleet: Fleet, session: &Session) -> Result<Outcome, Failure> {
    expect_source(&session.db.pool, &args.source).await?;
    let bars = Bars::new(!args.json.json);
    let store = session.store()?;
    let window = window(args, session).await?;
    let reading = bars.bytes("receive", std::fs::metadata(&args.file).map_or(0, |m| m.len()));
    let receipt = (fleet.receive)(Received {
        db: session.db.clone(),
        store: store.clone(),
        path: args.file.clone(),
        source: args.source.clone(),
        window: Some(window),
        told: Box::new({
            let reading = reading.clone();
            move |done, _| reading.set_position(done)
        }),
    })
    .await?;
    reading.finish_and_clear();
    let kinds = kinds_from(fleet, receipt.kind);
    let first = fleet.known(receipt.kind)?;
    let (db, file_id) = (&session.db, receipt.file_id);
    let chain = if receipt.duplicate {
        FileChain::known(db, file_id, first)
    } else {
        FileChain::fresh(db, file_id, first)
    };
    let holder = UnfinishedJob::find(db, Some(file_id), None).await?.and_then(UnfinishedJob::worker);
    let chain = chain.held_by(holder);
    let (end, worked) = match chain.ended().await? {
        Some(end) => (end, false),
        None => {
            let hand = Hand::start(db, fleet, &session.config, store, &kinds, &bars)?;
            let events = hand.watch();
            let end = chain.work(&bars, events).await;
            hand.stop().await?;
            (end?, true)
        }
    };
    let mut summary = summary(db, file_id, receipt.duplicate).await?;
    summary.state.clone_from(&end.state);
    Ok(Outcome { summary, end, worked })
}

/// Prints the summary of the file.
fn print(args: &Args, s: &Summary, worked: bool) {
    let line = "=".repeat(60);
    println!("{line}\n  Copart CSV ingestion\n{line}\n");
    println!("Source: {}", args.file.display());
    println!("Window: {} UTC", show::minute(s.window_start_utc));
    println!("SHA256: {}", s.sha256);
    println!("Bytes:  {}", count(s.bytes));
    if s.duplicate && !worked {
        match s.state.as_str() {
            "applied" => {
                println!(
                    "\nFile already ingested (file_id: {}).\nSkipping ingestion (idempotent).",
                    s.file_id
                )
            }
            _ => println!("\nThe file is known (file_id: {}).", s.file_id),
        }
        println!("State:  {}", s.state);
        return;
    }
    println!("\n{line}\n  Ingestion summary\n{line}");
    let share = |n: i64| format!("{} ({:.2}%)", count(n), 100.0 * n as f64 / s.rows.max(1) as f64);
    println!("File:              {} ({})", s.file_id, s.state);
    println!("Total rows:        {}", count(s.rows));
    println!("  new              {}", count(s.new));
    println!("  changed          {}", share(s.changed));
    println!("  unchanged        {}", count(s.unchanged));
    println!("Disappeared:       {}", count(s.gone));
    println!("Parse errors:      {} (repaired: {})", count(s.parse_errors), count(s.repaired));
    println!("Missing Lot ID:    {}", share(s.skipped.lot_missing));
    println!("Missing VIN:       {}", share(s.skipped.vin_empty));
    println!("Not a VIN:         {}", share(s.skipped.vin_format));
    for (column, values) in &s.unreadable {
        println!("Unreadable:        {column}: {} (first: {:?})", count(values.count), values.first);
    }
    for (name, upserted) in [("Vehicles:", &s.vehicles), ("Lots:", &s.lots)] {
        println!(
            "{name:18} {} inserted, {} updated, {} unchanged",
            count(upserted.inserted),
            count(upserted.updated),
            count(upserted.unchanged)
        );
    }
    println!(
        "Statuses:          {} pending result, {} removed, {} reappeared",
        count(s.pending_result),
        count(s.removed),
        count(s.returned)
    );
    println!(
        "Seconds:           {:.2} (ingest {:.2}, vehicles {:.2}, lots {:.2}, completion {:.2})",
        s.seconds.total,
        s.seconds.ingest,
        s.seconds.upsert_vehicles,
        s.seconds.upsert_lots,
        s.seconds.detect_completion
    );
    println!("Stored:            {} (compressed)", show::megabytes(s.stored_bytes));
}
