//! `vinops lot show`: the changes of a lot by window, or a snapshot of the lot at a moment.

use super::CommandError;
use super::output::{self, JsonArgs};
use super::session::{CommandSession, ConnectArgs};
use crate::auction::lot_number::parse_lot_digits;
use crate::config::Config;
use crate::db::history::display::{DisplayValue, TaxonomyValue};
use crate::db::history::{self, AmbiguousLot, ChangeSubject, ColumnChange, FeedPresence, HistoricalLot, LotHistory};
use crate::db::taxonomy::{self, LabelRow};
use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashMap;

/// The subcommands of `vinops lot`.
#[derive(Debug, clap::Subcommand)]
pub enum LotCommand {
    /// Show the history of a lot, or a snapshot of it at a moment
    Show(LotShowArgs),
}

/// Arguments of `vinops lot show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops lot show 45148624 --at 2026-11-20T14:30:00Z --lang ru")]
pub struct LotShowArgs {
    /// Lot number
    lot: String,
    /// Source of the lot; required if several sources have the number
    #[arg(long)]
    source: Option<String>,
    /// Show a snapshot at this time, RFC 3339, instead of the history
    #[arg(long, value_name = "TIME", value_parser = output::parse_time)]
    at: Option<DateTime<Utc>>,
    /// Language of labels
    #[arg(long, default_value = "en", value_parser = ["en", "ru"])]
    lang: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Runs a subcommand of `vinops lot`.
pub async fn run(command: LotCommand, config: Config) -> Result<(), CommandError> {
    let LotCommand::Show(args) = command;
    let number = parse_lot_digits(&args.lot)
        .ok_or_else(|| CommandError::usage(anyhow!("{:?} is not a lot number of 1 to 18 digits", args.lot)))?;
    let session = CommandSession::open(config, &args.connect).await?;
    let mut connection = session.db.pool.acquire().await.context("could not acquire a connection")?;
    let aliases = taxonomy::load_aliases(&mut connection).await?;
    let labels = LabelLookup::read_labels(&mut connection, &args.lang).await?;
    let of = args.source.as_ref().map_or_else(String::new, |source| format!(" of source {source:?}"));
    let none = || {
        anyhow!(
            "lot {number}{of} does not exist\ndetail: no stored file contains it, or it has no VIN\nhint: \
             audit.skipped_lots contains the lots without a VIN"
        )
    };
    let source = args.source.as_deref();
    let view = match args.at {
        None => {
            let view = history::lot_history(&mut connection, source, number, &aliases).await;
            let mut view = view.map_err(ambiguity_error)?.ok_or_else(none);
            view.iter_mut().flat_map(LotHistory::taxonomy_values).for_each(|word| labels.set_label(word));
            view.map(|view| LotView::History(Box::new(view)))
        }
        Some(time) => {
            let view = history::lot_at(&mut connection, source, number, time, &aliases).await;
            let mut view = view.map_err(ambiguity_error)?.ok_or_else(none);
            view.iter_mut().flat_map(HistoricalLot::taxonomy_values).for_each(|word| labels.set_label(word));
            view.map(|view| LotView::At(Box::new(view)))
        }
    };
    drop(connection);
    session.close().await?;
    match (view?, args.json.json) {
        (LotView::History(view), true) => output::print_json(&view)?,
        (LotView::At(view), true) => output::print_json(&view)?,
        (LotView::History(view), false) => show_history(*view),
        (LotView::At(view), false) => show_snapshot(&view)?,
    }
    Ok(())
}

/// Returns the error of the command. A lot number that several sources have is a usage error.
fn ambiguity_error(error: anyhow::Error) -> CommandError {
    match error.downcast::<AmbiguousLot>() {
        Ok(error) => CommandError::usage(anyhow!("{error}\nhint: name one of them with --source")),
        Err(error) => error.into(),
    }
}

/// The result that the command prints.
enum LotView {
    History(Box<LotHistory>),
    At(Box<HistoricalLot>),
}

/// Labels in one language, by domain, code and state.
struct LabelLookup(HashMap<(String, String, String), String>);

impl LabelLookup {
    /// Reads all labels. A missing Russian label is replaced by the English one.
    async fn read_labels(connection: &mut PgConnection, lang: &str) -> anyhow::Result<LabelLookup> {
        let labels = taxonomy::read_labels(connection, None).await?;
        let said = |label: LabelRow| {
            let text = if lang == "ru" && !label.ru.is_empty() { label.ru } else { label.en };
            ((label.domain, label.code, label.state), text)
        };
        Ok(LabelLookup(labels.into_iter().map(said).collect()))
    }

    /// Sets the label of a code. A title has the label of its state, or the general label if the state has none.
    fn set_label(&self, word: &mut TaxonomyValue) {
        let Some(code) = &word.code else { return };
        let key = |state: &str| (word.domain.name().to_owned(), code.clone(), state.to_owned());
        let own = word.state.as_deref().and_then(|state| self.0.get(&key(state)));
        word.label = own.or_else(|| self.0.get(&key(""))).cloned();
    }
}

/// Returns a time to the minute, or the text `an unknown time`.
fn time_or_unknown(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "an unknown time".to_owned(), output::format_minute)
}

/// Prints the history of a lot.
fn show_history(view: LotHistory) {
    println!("lot       {} ({}), {}", view.lot, view.source, view.status.to_text());
    println!("vehicle   {}", view.vin);
    let until = if view.in_feed { ", in the newest file" } else { "" };
    println!("seen      from {} to {}{until}", time_or_unknown(view.first_seen), time_or_unknown(view.last_seen));
    if !view.carried.is_empty() {
        println!("carried   {}", view.carried.join(", "));
    }
    let any_carried = !view.carried.is_empty() || view.listings.iter().any(|lot| !lot.carried.is_empty());
    if view.events.is_empty() {
        println!("no changes are recorded");
    } else {
        let mut table = output::new_table(&["window (UTC)", "what", "before", "after", "why"]);
        for event in view.events {
            let mut window = output::format_minute(event.window_start_utc);
            let mut why = event.reason.unwrap_or_default();
            let of = if event.what == ChangeSubject::Vehicle { "vehicle: " } else { "" };
            for ColumnChange { column, before, after } in event.changes {
                let what = format!("{of}{column}");
                table.add_row([
                    std::mem::take(&mut window),
                    what,
                    before.to_text(),
                    after.to_text(),
                    std::mem::take(&mut why),
                ]);
            }
        }
        println!("{table}");
    }
    if view.listings.len() > 1 {
        let mut table = output::new_table(&[
            "lots of the vehicle",
            "source",
            "from (UTC)",
            "to (UTC)",
            "status",
            "sale (UTC)",
            "bid",
        ]);
        for listing in view.listings {
            let carried = |name| if listing.carried.contains(&name) { CARRIED_MARK } else { "" };
            let (sale_carried, bid_carried) = (carried("auction_datetime_utc"), carried("current_bid"));
            table.add_row([
                listing.lot,
                listing.source,
                time_or_unknown(listing.first_seen),
                time_or_unknown(listing.last_seen),
                listing.status.to_text(),
                listing
                    .auction_datetime_utc
                    .map(output::format_minute)
                    .map(|sale| sale + sale_carried)
                    .unwrap_or_default(),
                if listing.current_bid == DisplayValue::Nothing {
                    String::new()
                } else {
                    listing.current_bid.to_text() + bid_carried
                },
            ]);
        }
        println!("{table}");
    }
    if any_carried {
        println!("{CARRIED_NOTE}");
    }
}

/// Prints the snapshot of a lot.
fn show_snapshot(view: &HistoricalLot) -> anyhow::Result<()> {
    let when = match view.window_start_utc {
        Some(window) => format!("as of the window {} UTC", output::format_minute(window)),
        None => "before the first window".to_owned(),
    };
    let presence = match view.presence {
        FeedPresence::NotYetSeen => format!("not yet seen; first seen {}", time_or_unknown(view.first_seen)),
        FeedPresence::InFeed => "in the feed".to_owned(),
        FeedPresence::Gone => "no longer in the feed".to_owned(),
    };
    println!("lot       {} ({}), {when}: {presence}", view.lot, view.source);
    if let Some(status) = &view.status {
        println!("status    {}", status.to_text());
    }
    let Some(standing) = &view.standing else { return Ok(()) };
    let values = serde_json::to_value(standing).context("could not print the lot")?;
    let mut table = output::new_table(&["column", "value"]);
    let shown = |(name, value): &(&String, &Value)| !value.is_null() && *name != "carried";
    for (name, value) in values.as_object().into_iter().flatten().filter(shown) {
        let carried = if standing.carried.contains(&name.as_str()) { CARRIED_MARK } else { "" };
        table.add_row([name.clone(), format_value(value) + carried]);
    }
    println!("{table}");
    if !standing.carried.is_empty() {
        println!("{CARRIED_NOTE}");
    }
    Ok(())
}

/// The mark after a value that comes from an older version.
const CARRIED_MARK: &str = " (carried)";
/// The explanation of the mark.
const CARRIED_NOTE: &str =
    "carried: the value comes from an older version, because the value of the newest version is unreadable";

/// Returns a value of a snapshot as text: a code by its label, an amount with its currency.
fn format_value(value: &Value) -> String {
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
