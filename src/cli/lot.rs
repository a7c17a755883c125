//! `vinops lot show`: the changes of a lot by window, or a snapshot of the lot at a moment.

use super::Failure;
use super::session::{Connect, Session};
use super::show::{self, Json};
use crate::auction::lot_number::lot_number_of_digits;
use crate::config::Config;
use crate::db::history::told::{Told, Word};
use crate::db::history::{self, AmbiguousLot, Change, LotAt, LotHistory, Presence, What};
use crate::db::vocabulary::{self, Label};
use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashMap;

/// The subcommands of `vinops lot`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the history of a lot, or a snapshot of it at a moment
    Show(ShowArgs),
}

/// Arguments of `vinops lot show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops lot show 45148624 --at 2026-11-20T14:30:00Z --lang ru")]
pub struct ShowArgs {
    /// Lot number
    lot: String,
    /// Source of the lot; required if several sources have the number
    #[arg(long)]
    source: Option<String>,
    /// Show a snapshot at this time, RFC 3339, instead of the history
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    at: Option<DateTime<Utc>>,
    /// Language of labels
    #[arg(long, default_value = "en", value_parser = ["en", "ru"])]
    lang: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Runs a subcommand of `vinops lot`.
pub async fn run(command: Command, config: Config) -> Result<(), Failure> {
    let Command::Show(args) = command;
    let number = lot_number_of_digits(&args.lot)
        .ok_or_else(|| Failure::wrong(anyhow!("{:?} is not a lot number of 1 to 18 digits", args.lot)))?;
    let session = Session::open(config, &args.connect).await?;
    let mut connection = session.db.pool.acquire().await.context("could not acquire a connection")?;
    let spellings = vocabulary::spellings(&mut connection).await?;
    let labels = Labels::read(&mut connection, &args.lang).await?;
    let of = args.source.as_ref().map_or_else(String::new, |source| format!(" of source {source:?}"));
    let none = || {
        anyhow!(
            "lot {number}{of} does not exist\ndetail: no stored file contains it, or it has no VIN\nhint: \
             audit.skipped_lots contains the lots without a VIN"
        )
    };
    let source = args.source.as_deref();
    let told = match args.at {
        None => {
            let told = history::history(&mut connection, source, number, &spellings).await;
            let mut told = told.map_err(ambiguous)?.ok_or_else(none);
            told.iter_mut().flat_map(LotHistory::words).for_each(|word| labels.put(word));
            told.map(|told| Shown::History(Box::new(told)))
        }
        Some(time) => {
            let told = history::at(&mut connection, source, number, time, &spellings).await;
            let mut told = told.map_err(ambiguous)?.ok_or_else(none);
            told.iter_mut().flat_map(LotAt::words).for_each(|word| labels.put(word));
            told.map(|told| Shown::At(Box::new(told)))
        }
    };
    drop(connection);
    session.close().await?;
    match (told?, args.json.json) {
        (Shown::History(told), true) => show::json(&told)?,
        (Shown::At(told), true) => show::json(&told)?,
        (Shown::History(told), false) => show_history(*told),
        (Shown::At(told), false) => show_at(&told)?,
    }
    Ok(())
}

/// Returns the error of the command. A lot number that several sources have is a usage error.
fn ambiguous(error: anyhow::Error) -> Failure {
    match error.downcast::<AmbiguousLot>() {
        Ok(error) => Failure::wrong(anyhow!("{error}\nhint: name one of them with --source")),
        Err(error) => error.into(),
    }
}

/// The result that the command prints.
enum Shown {
    History(Box<LotHistory>),
    At(Box<LotAt>),
}

/// Labels in one language, by domain, code and state.
struct Labels(HashMap<(String, String, String), String>);

impl Labels {
    /// Reads all labels. A missing Russian label is replaced by the English one.
    async fn read(connection: &mut PgConnection, lang: &str) -> anyhow::Result<Labels> {
        let labels = vocabulary::labels(connection, None).await?;
        let said = |label: Label| {
            let text = if lang == "ru" && !label.ru.is_empty() { label.ru } else { label.en };
            ((label.domain, label.code, label.state), text)
        };
        Ok(Labels(labels.into_iter().map(said).collect()))
    }

    /// Sets the label of a code. A title has the label of its state, or the general label if the state has none.
    fn put(&self, word: &mut Word) {
        let Some(code) = &word.code else { return };
        let key = |state: &str| (word.domain.name().to_owned(), code.clone(), state.to_owned());
        let own = word.state.as_deref().and_then(|state| self.0.get(&key(state)));
        word.label = own.or_else(|| self.0.get(&key(""))).cloned();
    }
}

/// Returns a time to the minute, or the text `an unknown time`.
fn instant(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "an unknown time".to_owned(), show::minute)
}

/// Prints the history of a lot.
fn show_history(told: LotHistory) {
    println!("lot       {} ({}), {}", told.lot, told.source, told.status.said());
    println!("vehicle   {}", told.vin);
    let until = if told.in_feed { ", in the newest file" } else { "" };
    println!("seen      from {} to {}{until}", instant(told.first_seen), instant(told.last_seen));
    if !told.carried.is_empty() {
        println!("carried   {}", told.carried.join(", "));
    }
    let any_carried = !told.carried.is_empty() || told.listings.iter().any(|lot| !lot.carried.is_empty());
    if told.events.is_empty() {
        println!("no changes are recorded");
    } else {
        let mut table = show::table(&["window (UTC)", "what", "before", "after", "why"]);
        for event in told.events {
            let mut window = show::minute(event.window_start_utc);
            let mut why = event.reason.unwrap_or_default();
            let of = if event.what == What::Vehicle { "vehicle: " } else { "" };
            for Change { column, before, after } in event.changes {
                let what = format!("{of}{column}");
                table.add_row([
                    std::mem::take(&mut window),
                    what,
                    before.said(),
                    after.said(),
                    std::mem::take(&mut why),
                ]);
            }
        }
        println!("{table}");
    }
    if told.listings.len() > 1 {
        let mut table = show::table(&[
            "lots of the vehicle",
            "source",
            "from (UTC)",
            "to (UTC)",
            "status",
            "sale (UTC)",
            "bid",
        ]);
        for listing in told.listings {
            let carried = |name| if listing.carried.contains(&name) { CARRIED } else { "" };
            let (sale_carried, bid_carried) = (carried("auction_datetime_utc"), carried("current_bid"));
            table.add_row([
                listing.lot,
                listing.source,
                instant(listing.first_seen),
                instant(listing.last_seen),
                listing.status.said(),
                listing
                    .auction_datetime_utc
                    .map(show::minute)
                    .map(|sale| sale + sale_carried)
                    .unwrap_or_default(),
                if listing.current_bid == Told::Nothing {
                    String::new()
                } else {
                    listing.current_bid.said() + bid_carried
                },
            ]);
        }
        println!("{table}");
    }
    if any_carried {
        println!("{CARRIED_MEANS}");
    }
}

/// Prints the snapshot of a lot.
fn show_at(told: &LotAt) -> anyhow::Result<()> {
    let when = match told.window_start_utc {
        Some(window) => format!("as of the window {} UTC", show::minute(window)),
        None => "before the first window".to_owned(),
    };
    let presence = match told.presence {
        Presence::NotYetSeen => format!("not yet seen; first seen {}", instant(told.first_seen)),
        Presence::InFeed => "in the feed".to_owned(),
        Presence::Gone => "no longer in the feed".to_owned(),
    };
    println!("lot       {} ({}), {when}: {presence}", told.lot, told.source);
    if let Some(status) = &told.status {
        println!("status    {}", status.said());
    }
    let Some(standing) = &told.standing else { return Ok(()) };
    let values = serde_json::to_value(standing).context("could not print the lot")?;
    let mut table = show::table(&["column", "value"]);
    let shown = |(name, value): &(&String, &Value)| !value.is_null() && *name != "carried";
    for (name, value) in values.as_object().into_iter().flatten().filter(shown) {
        let carried = if standing.carried.contains(&name.as_str()) { CARRIED } else { "" };
        table.add_row([name.clone(), said(value) + carried]);
    }
    println!("{table}");
    if !standing.carried.is_empty() {
        println!("{CARRIED_MEANS}");
    }
    Ok(())
}

/// The mark after a value that comes from an older version.
const CARRIED: &str = " (carried)";
/// The explanation of the mark.
const CARRIED_MEANS: &str =
    "carried: the value comes from an older version, because the value of the newest version is unreadable";

/// Returns a value of a snapshot as text: a code by its label, an amount with its currency.
fn said(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Object(parts) => {
            let text = |name: &str| parts.get(name).and_then(Value::as_str);
            match text("amount") {
                Some(amount) => [amount, text("currency").unwrap_or("")].join(" ").trim_end().to_owned(),
                None => text("label").or(text("code")).or(text("raw")).unwrap_or("").to_owned(),
            }
        }
        other => other.to_string(),
    }
}
