//! `vinops fetch --now`: enqueue a fetch of the current window, and follow it.

use super::bars::Bars;
use super::chain::{Hand, ended};
use super::session::{Connect, Session};
use super::show::{self, Json};
use super::{Failure, Fleet, summary};
use crate::config::Config;
use crate::scheduler::Scheduler;
use anyhow::{Context, anyhow};

/// Arguments of `vinops fetch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A window is fetched once: if the scheduler has already asked for the current one, this follows that. A source that is
disabled, or whose breaker is open, is not asked.

  COPART_FEED_URL_FILE=/run/secrets/feed vinops fetch --now")]
pub struct Args {
    /// The current quarter-hour; the feed has no other
    #[arg(long, required = true)]
    now: bool,
    /// From where
    #[arg(long, default_value = "copart")]
    source: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Enqueues and follows.
pub async fn run(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    if config.copart.feed_url.is_none() {
        return Err(Failure::wrong(anyhow!(
            "COPART_FEED_URL is not set: it is the feed's address with its key, a secret; or name a file that holds it in \
             COPART_FEED_URL_FILE"
        )));
    }
    let session = Session::open(config, &args.connect).await?;
    let store = session.store()?;
    let bars = Bars::new(!args.json.json);
    let scheduler = Scheduler::new(fleet.fetch, &[&args.source]).by_hand();
    let hand = Hand::start(&session.db, fleet, &session.config, store, &[], &bars)?;
    let events = hand.watch();
    let window = scheduler.due(&session.db.pool, None).await?;
    let due = window.first().context("the scheduler named no window")?;
    let window = due.window_start_utc;
    if let Some(why) = &due.held {
        hand.stop().await?;
        return Err(anyhow!("window {} is not fetched: {why}", show::minute(window)).into());
    }
    let end = ended(&session.db, &args.source, window, None, events).await;
    hand.stop().await?;
    let end = end?;
    match (end.file_id, end.state.as_str()) {
        (Some(file_id), state) if !matches!(state, "failed" | "quarantined") => {
            let summary = summary(&session.db, file_id, state == "unchanged").await?;
            session.close().await?;
            if args.json.json {
                show::json(&summary)?;
            } else {
                println!("window {} is {state}, {} rows", show::minute(window), show::count(summary.rows));
            }
            Ok(())
        }
        (_, state) => {
            Err(anyhow!("window {} is {state}: {}", show::minute(window), end.note.unwrap_or_default())
                .into())
        }
    }
}
