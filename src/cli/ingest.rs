//! `vinops ingest FILE`: one file, by hand, to the end of its chain.

use super::bars::Bars;
use super::chain::{Hand, ended, kinds_from};
use super::session::{Connect, Session};
use super::show::{self, Json, count};
use super::{Failure, Fleet, Received, Summary, summary};
use crate::config::Config;
use anyhow::{Context, anyhow, ensure};
use chrono::{DateTime, Utc};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Arguments of `vinops ingest`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The window is --window, else what a path ending YYYY/MM/DD/HHmm.csv says (UTC), else the file's time, floored to the
quarter-hour. A file is known by its bytes: the same again is a duplicate, and nothing is done. Running workers may take
the file's jobs; without any, this command works them itself.

  vinops ingest salesdata.csv
  vinops ingest /data/2026/11/20/1430.csv --json
  vinops ingest old.csv --window 2026-11-20T14:30:00Z")]
pub struct Args {
    /// The file
    file: PathBuf,
    /// The window it belongs to, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    window: Option<DateTime<Utc>>,
    /// Where it comes from
    #[arg(long, default_value = "copart")]
    source: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Takes the file in and works its chain.
pub async fn run(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    readable(&args.file).map_err(Failure::wrong)?;
    let session = Session::open(config, &args.connect).await?;
    let outcome = take_in(&args, fleet, &session).await;
    session.close().await?;
    let (summary, note) = outcome?;
    if args.json.json {
        show::json(&summary)?;
    } else {
        print(&args, &summary);
    }
    match summary.state.as_str() {
        _ if summary.duplicate => Ok(()),
        "applied" | "late" | "incomplete" => Ok(()),
        state => Err(anyhow!("the file is {state}: {}", note.unwrap_or_default()).into()),
    }
}

/// Whether there is a file to take in; a wrong name should not cost a connection.
fn readable(path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    let about =
        std::fs::metadata(path).with_context(|| format!("look at {name}: name a CSV file of the feed"))?;
    ensure!(
        !about.is_dir(),
        "{name} is a directory: name one of its files, or take them in one after the other"
    );
    File::open(path)
        .with_context(|| format!("open {name}: give this user the right to read it (chmod, chown)"))?;
    Ok(())
}

async fn take_in(args: &Args, fleet: Fleet, session: &Session) -> Result<(Summary, Option<String>), Failure> {
    let bars = Bars::new(!args.json.json);
    let store = session.store()?;
    let reading = bars.bytes("receive", std::fs::metadata(&args.file).map_or(0, |m| m.len()));
    let receipt = (fleet.receive)(Received {
        db: session.db.clone(),
        store: store.clone(),
        path: args.file.clone(),
        source: args.source.clone(),
        window: args.window,
        told: Box::new({
            let reading = reading.clone();
            move |done, _| reading.set_position(done)
        }),
    })
    .await?;
    reading.finish_and_clear();
    let mut note = None;
    if !receipt.duplicate {
        let kinds = kinds_from(fleet, receipt.kind);
        let hand = Hand::start(&session.db, fleet, &session.config, store, &kinds, &bars)?;
        let events = hand.watch();
        let end = ended(&session.db, &args.source, receipt.window, Some(receipt.file_id), events).await;
        hand.stop().await?;
        let end = end?;
        note = end.note;
        if end.state == "failed" {
            return Err(anyhow!("the file could not be applied: {}", note.unwrap_or_default()).into());
        }
    }
    Ok((summary(&session.db, receipt.file_id, receipt.duplicate).await?, note))
}

/// The summary that operators know.
fn print(args: &Args, s: &Summary) {
    let line = "=".repeat(60);
    println!("{line}\n  Copart CSV ingestion\n{line}\n");
    println!("Source: {}", args.file.display());
    println!("Window: {} UTC", show::minute(s.window_start_utc));
    println!("SHA256: {}", s.sha256);
    println!("Bytes:  {}", count(s.bytes));
    if s.duplicate {
        println!("\nFile already ingested (file_id: {}).\nSkipping ingestion (idempotent).", s.file_id);
        return;
    }
    println!("\n{line}\n  Ingestion summary\n{line}");
    let share = |n: i64| format!("{} ({:.2}%)", count(n), 100.0 * n as f64 / s.rows.max(1) as f64);
    println!("File:              {} ({})", s.file_id, s.state);
    println!("Total rows:        {}", count(s.rows));
    println!("  new              {}", count(s.new));
    println!("  changed          {}", share(s.changed));
    println!("  unchanged        {}", count(s.unchanged));
    println!("Gone:              {}", count(s.gone));
    println!("Parse errors:      {} (repaired: {})", count(s.parse_errors), count(s.repaired));
    println!("Missing Lot ID:    {}", share(s.skipped.lot_missing));
    println!("Missing VIN:       {}", share(s.skipped.vin_empty));
    println!("Not a VIN:         {}", share(s.skipped.vin_format));
    for (name, upserted) in [("Vehicles:", &s.vehicles), ("Lots:", &s.lots)] {
        println!(
            "{name:18} {} inserted, {} updated, {} unchanged",
            count(upserted.inserted),
            count(upserted.updated),
            count(upserted.unchanged)
        );
    }
    println!(
        "Statuses:          {} pending result, {} removed, {} returned",
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
    println!("Kept in the store: {}", show::megabytes(s.stored_bytes));
}
