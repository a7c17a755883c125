//! `vinops ingest FILE`: ingests one file and runs its chain of jobs to the end.
//!
//! The file is read once before anything is stored, for its sha256 and its clock. A window that contradicts the clock
//! is rejected. A known file needs no window. A known file may be unapplied, so its chain is run to the end like the
//! chain of a new file.

use super::chain::{InlineWorker, downstream_kinds};
use super::follow::{FileChain, FileResult, UnfinishedJob};
use super::output::{self, JsonArgs, format_count};
use super::progress::ProgressBars;
use super::session::{CommandSession, ConnectArgs, os_user};
use super::source::expect_source;
use super::{CommandError, ImportRequest, JobRegistry, WindowSummary, read_summary};
use crate::auction::mapping::{self, SourceMapping};
use crate::auction::window::{FileClock, parse_path_time};
use crate::config::Config;
use crate::queue::queries;
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
pub struct IngestArgs {
    /// CSV file of the feed
    file: PathBuf,
    /// Start of the file's window, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = output::parse_time)]
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
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Ingests the file and runs its chain.
///
/// # Errors
/// Returns an error if the file is not applied at the end.
pub async fn run(args: IngestArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    expect_readable(&args.file).map_err(CommandError::usage)?;
    let session = CommandSession::open(config, &args.connect).await?;
    let outcome = ingest_file(&args, fleet, &session).await;
    session.close().await?;
    let IngestOutcome { summary, end, worked } = outcome?;
    if args.json.json {
        output::print_json(&summary)?;
    } else {
        print_summary(&args, &summary, worked);
    }
    if end.is_applied() {
        return Ok(());
    }
    let reason = end.reason.unwrap_or_else(|| "no reason is recorded".to_owned());
    Err(anyhow!("the file is {}: {reason}", end.state).into())
}

/// Checks that the path is a readable file, before the command connects.
fn expect_readable(path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    let about = std::fs::metadata(path)
        .with_context(|| format!("could not find the file {name}\nhint: name a CSV file of the feed"))?;
    ensure!(!about.is_dir(), "{name} is a directory\nhint: ingest its files one after the other");
    File::open(path)
        .with_context(|| format!("could not open the file {name}\nhint: let this user read it (chmod, chown)"))?;
    Ok(())
}

/// The clock and the checksum of a file, found by reading the file once.
struct FileSurvey {
    clock: FileClock,
    sha256: String,
}

/// A reader that hashes all bytes that are read.
struct Sha256Reader<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Sha256Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Reads the file once, on a thread of its own.
async fn survey_file(path: &Path, mapping: &'static SourceMapping) -> anyhow::Result<FileSurvey> {
    let name = path.to_owned();
    let read = move || {
        let mut file = Sha256Reader { inner: File::open(&name)?, hasher: Sha256::new() };
        let clock = FileClock::read_file(&mut file, mapping)?;
        io::copy(&mut file, &mut io::sink())?;
        let sha256 = HEXLOWER.encode(&file.hasher.finalize());
        Ok::<FileSurvey, io::Error>(FileSurvey { clock, sha256 })
    };
    let survey = tokio::task::spawn_blocking(read).await.context("reading the file panicked")?;
    survey.with_context(|| format!("could not read the file {}", path.display()))
}

/// Returns the window of the file.
///
/// # Errors
/// Returns a usage error if the window is unknown or contradicts the clocks.
async fn resolve_window(args: &IngestArgs, session: &CommandSession) -> Result<DateTime<Utc>, CommandError> {
    let FileSurvey { clock, sha256 } = survey_file(&args.file, mapping::mapping_for_source(&args.source)).await?;
    let pool = &session.db.pool;
    let named = args.window.or_else(|| parse_path_time(&args.file));
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
    let now = queries::database_time(pool).await?;
    let window = clock.select_window(named, now).map_err(CommandError::usage)?;
    let Err(refusal) = clock.check_window(window, now) else { return Ok(window) };
    let Some(reason) = args.reason.as_ref().filter(|_| args.even_so) else {
        return Err(CommandError::usage(refusal));
    };
    let refusal = refusal.to_string();
    sqlx::query!(
        "-- ingest: note what was overridden
        insert into audit.operator_actions (who, action, subject, reason, details)
        values ($1, 'ingest-even-so', $2, $3, $4)",
        os_user(),
        format!("{}/{}", args.source, output::format_minute(window)),
        reason,
        json!({ "window_start_utc": window, "sha256": sha256, "refusal": refusal.lines().next() }),
    )
    .execute(pool)
    .await
    .context("could not record the override of the clocks")?;
    Ok(window)
}

/// The result of the command.
struct IngestOutcome {
    summary: WindowSummary,
    end: FileResult,
    /// True if the chain had unfinished jobs.
    worked: bool,
}

/// Imports the file and runs its chain to the end.
async fn ingest_file(
    args: &IngestArgs,
    fleet: JobRegistry,
    session: &CommandSession,
) -> Result<IngestOutcome, CommandError> {
    expect_source(&session.db.pool, &args.source).await?;
    let bars = ProgressBars::new(!args.json.json);
    let store = session.open_store()?;
    let window = resolve_window(args, session).await?;
    let reading = bars.add_byte_bar("receive", std::fs::metadata(&args.file).map_or(0, |m| m.len()));
    let receipt = (fleet.receive)(ImportRequest {
        db: session.db.clone(),
        store: store.clone(),
        path: args.file.clone(),
        source: args.source.clone(),
        window: Some(window),
        progress: Box::new({
            let reading = reading.clone();
            move |done, _| reading.set_position(done)
        }),
    })
    .await?;
    reading.finish_and_clear();
    let kinds = downstream_kinds(fleet, receipt.kind);
    let first = fleet.find_job(receipt.kind)?;
    let (db, file_id) = (&session.db, receipt.file_id);
    let chain = if receipt.duplicate {
        FileChain::for_known_file(db, file_id, first)
    } else {
        FileChain::for_new_file(db, file_id, first)
    };
    let holder = UnfinishedJob::find(db, Some(file_id), None).await?.and_then(UnfinishedJob::into_worker);
    let chain = chain.with_other_worker(holder);
    let (end, worked) = match chain.read_result().await? {
        Some(end) => (end, false),
        None => {
            let hand = InlineWorker::start(db, fleet, &session.config, store, &kinds, &bars)?;
            let events = hand.subscribe();
            let end = chain.run_to_end(&bars, events).await;
            hand.stop().await?;
            (end?, true)
        }
    };
    let mut summary = read_summary(db, file_id, receipt.duplicate).await?;
    summary.state.clone_from(&end.state);
    Ok(IngestOutcome { summary, end, worked })
}

/// Prints the summary of the file.
fn print_summary(args: &IngestArgs, s: &WindowSummary, worked: bool) {
    let line = "=".repeat(60);
    println!("{line}\n  Copart CSV ingestion\n{line}\n");
    println!("Source: {}", args.file.display());
    println!("Window: {} UTC", output::format_minute(s.window_start_utc));
    println!("SHA256: {}", s.sha256);
    println!("Bytes:  {}", format_count(s.bytes));
    if s.duplicate && !worked {
        match s.state.as_str() {
            "applied" => {
                println!("\nFile already ingested (file_id: {}).\nSkipping ingestion (idempotent).", s.file_id)
            }
            _ => println!("\nThe file is known (file_id: {}).", s.file_id),
        }
        println!("State:  {}", s.state);
        return;
    }
    println!("\n{line}\n  Ingestion summary\n{line}");
    let share = |n: i64| format!("{} ({:.2}%)", format_count(n), 100.0 * n as f64 / s.rows.max(1) as f64);
    println!("File:              {} ({})", s.file_id, s.state);
    println!("Total rows:        {}", format_count(s.rows));
    println!("  new              {}", format_count(s.new));
    println!("  changed          {}", share(s.changed));
    println!("  unchanged        {}", format_count(s.unchanged));
    println!("Disappeared:       {}", format_count(s.gone));
    println!("Parse errors:      {} (repaired: {})", format_count(s.parse_errors), format_count(s.repaired));
    println!("Missing Lot ID:    {}", share(s.skipped.lot_missing));
    println!("Missing VIN:       {}", share(s.skipped.vin_empty));
    println!("Not a VIN:         {}", share(s.skipped.vin_format));
    for (column, values) in &s.unreadable {
        println!("Unreadable:        {column}: {} (first: {:?})", format_count(values.count), values.first);
    }
    for (name, upserted) in [("Vehicles:", &s.vehicles), ("Lots:", &s.lots)] {
        println!(
            "{name:18} {} inserted, {} updated, {} unchanged",
            format_count(upserted.inserted),
            format_count(upserted.updated),
            format_count(upserted.unchanged)
        );
    }
    println!(
        "Statuses:          {} pending result, {} removed, {} reappeared",
        format_count(s.pending_result),
        format_count(s.removed),
        format_count(s.returned)
    );
    println!(
        "Seconds:           {:.2} (ingest {:.2}, vehicles {:.2}, lots {:.2}, completion {:.2})",
        s.seconds.total,
        s.seconds.ingest,
        s.seconds.upsert_vehicles,
        s.seconds.upsert_lots,
        s.seconds.detect_completion
    );
    println!("Stored:            {} (compressed)", output::format_megabytes(s.stored_bytes));
}
