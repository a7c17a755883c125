//! `vinops verify`: checks a live database against its documentation and against the stored row versions.

use super::migrate::SchemaArgs;
use super::output::{self, JsonArgs};
use super::{CommandError, JobRegistry, session};
use crate::config::Config;
use crate::db::{self, Database, listing, verify};
use anyhow::{anyhow, bail};
use clap::Subcommand;
use secrecy::ExposeSecret;

mod lots;

pub use lots::{describe_difference, repair_command};

/// The subcommands of `vinops verify`.
#[derive(Debug, Subcommand)]
pub enum VerifyCommand {
    /// Check every object of the auction's schema
    Auction {
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Run every check of the listing helper's runbook
    #[command(after_help = "\
Some checks insert, drop and migrate; all of that is rolled back. Checks 12 and 29 to 34 take ACCESS EXCLUSIVE locks \
on the tables while the slices run: tens of milliseconds, under a second with 100,000 listings. They require the \
login that owns the tables.

  vinops verify listing
  vinops verify listing --json")]
    Listing {
        #[command(flatten)]
        place: SchemaArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Compare lots, vehicles and image links with the stored versions of their rows
    Lots(lots::VerifyLotsArgs),
}

/// Runs `vinops verify`.
///
/// # Errors
/// Returns an error if a check fails.
pub async fn run(command: VerifyCommand, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    match command {
        VerifyCommand::Auction { json } => {
            let url = config.direct_url()?;
            let Some(url) = url.map(ExposeSecret::expose_secret) else {
                return Err(CommandError::unavailable(anyhow!(
                    "DATABASE_URL is not set\nhint: set it to the URL of the database to verify"
                )));
            };
            // A pool retries a refused address for half a minute. A single connection fails at once.
            let session = db::connect_session(url).await.map_err(CommandError::unavailable)?;
            sqlx::Connection::close(session).await?;
            Ok(verify_auction(url, json.json).await?)
        }
        VerifyCommand::Lots(args) => lots::run(args, fleet, config).await,
        VerifyCommand::Listing { place, json } => verify_listing(&place, json, &config).await,
    }
}

/// Checks every object of the auction's schema and prints a line per object.
///
/// # Errors
/// Returns an error if a check fails.
pub async fn verify_auction(url: &str, json: bool) -> anyhow::Result<()> {
    let db = Database::connect(url, None, 2).await?;
    let checks = verify::verify_schema(&db.pool).await?;
    let failed = checks.iter().filter(|check| !check.passed).count();
    if json {
        super::output::print_json(&checks)?;
    } else {
        for check in &checks {
            let verdict = if check.passed { "PASS" } else { "FAIL" };
            println!("{verdict} {} {} ({})", check.id, check.object, check.evidence);
        }
        println!("{} passed, {failed} failed", checks.len() - failed);
    }
    if failed > 0 || checks.is_empty() {
        bail!("{failed} of {} checks failed", checks.len());
    }
    Ok(())
}

/// Runs the checks of the listing helper's runbook and prints a line per check.
///
/// # Errors
/// Returns an error if a check fails, and exit code 3 if the database has no listing helper.
pub async fn verify_listing(place: &SchemaArgs, json: JsonArgs, config: &Config) -> Result<(), CommandError> {
    let url = session::listing_url(config)?;
    let mut session = db::connect_session(url).await.map_err(CommandError::unavailable)?;
    let wanted =
        place.schema.as_deref().map(listing::ListingSchema::from_name).transpose().map_err(CommandError::usage)?;
    let there = listing::ListingSchema::find_registered(&mut session).await?.is_some();
    if !there {
        return Err(CommandError::unavailable(anyhow!(
            "the database has no listing helper\nhint: run `vinops migrate --set listing up`"
        )));
    }
    let place = listing::ListingSchema::resolve_schema(&mut session, wanted).await.map_err(CommandError::usage)?;
    let report = listing::verify::verify_listing(&mut session, &place).await?;
    if json.json {
        output::print_json(&report)?;
    } else {
        print_report(&report);
    }
    match report.checks.iter().filter(|check| !check.passed).count() {
        0 if report.ok => Ok(()),
        failed => Err(anyhow!("{failed} of {} checks failed", report.checks.len()).into()),
    }
}

/// Prints the checks, and a table of their results by subject.
fn print_report(report: &listing::verify::ListingVerifyReport) {
    for check in &report.checks {
        let verdict = if check.passed { "PASS" } else { "FAIL" };
        println!("{verdict} {:02} {} ({})", check.line, check.demand, check.evidence);
    }
    let mut table = output::new_table(&["Check", "Status", "Lines"]);
    for row in &report.verdict {
        let of = report.checks.iter().filter(|check| check.verdict == row.check);
        let lines: Vec<String> = of.map(|check| check.line.to_string()).collect();
        let lines = if lines.is_empty() { "40".to_owned() } else { lines.join(" ") };
        table.add_row([row.check, row.status, lines.as_str()]);
    }
    println!("\nSchema {}\n{table}", report.schema);
    if let Some(flagged) = report.flagged_margins {
        println!(
            "Margins outside -1..1 are flagged in flagged_margins, not rejected, because a loss is valid data: \
             {flagged}"
        );
    }
}
