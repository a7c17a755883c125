//! `vinops taxonomy`: lists raw values without a code, maps them to codes, and exchanges labels with translators.

use super::CommandError;
use super::output::{self, JsonArgs, format_count, right_cell};
use super::session::{CommandSession, ConnectArgs, os_user};
use crate::config::Config;
use crate::db::taxonomy::{self, Actor, AliasMapping, LabelRow};
use crate::taxonomy::TaxonomyDomain;
use anyhow::Context;
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::path::PathBuf;

/// The subcommands of `vinops taxonomy`.
#[derive(Debug, clap::Subcommand)]
pub enum TaxonomyCommand {
    /// List raw values without a code, most frequent first
    Unknown(UnknownValuesArgs),
    /// Map a raw value to a code, and recode the rows that contain it
    Map(MapValueArgs),
    /// Write labels as CSV, for a translator
    Export(TaxonomyExportArgs),
    /// Read labels from an exported CSV file, all or none
    Import(TaxonomyImportArgs),
}

/// Arguments of `vinops taxonomy unknown`.
#[derive(Debug, clap::Args)]
pub struct UnknownValuesArgs {
    /// List only this domain, e.g. damage_types
    #[arg(long, value_parser = parse_domain)]
    domain: Option<TaxonomyDomain>,
    /// Maximum number of values
    #[arg(long, default_value_t = 50)]
    limit: i64,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `vinops taxonomy map`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops taxonomy map fuel_types \"FLEX FUEL\" fuel_flex")]
pub struct MapValueArgs {
    /// Domain of the value, e.g. damage_types
    #[arg(value_parser = parse_domain)]
    domain: TaxonomyDomain,
    /// Raw value; case, blanks and punctuation are ignored
    #[arg(value_name = "VALUE")]
    raw: String,
    /// Code of the domain
    code: String,
    /// Reason, recorded in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "mapped manually")]
    reason: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `vinops taxonomy export`.
#[derive(Debug, clap::Args)]
pub struct TaxonomyExportArgs {
    /// Export only this domain, e.g. damage_types
    #[arg(long, value_parser = parse_domain)]
    domain: Option<TaxonomyDomain>,
    /// Write to this path instead of standard output
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Arguments of `vinops taxonomy import`.
#[derive(Debug, clap::Args)]
pub struct TaxonomyImportArgs {
    /// CSV file, or - for standard input
    file: PathBuf,
    /// Reason, recorded in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "translated")]
    reason: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

fn parse_domain(name: &str) -> Result<TaxonomyDomain, String> {
    TaxonomyDomain::from_name(name).ok_or_else(|| {
        format!("unknown domain {name:?}; expected one of {}", TaxonomyDomain::ALL.map(TaxonomyDomain::name).join(", "))
    })
}

/// Runs a subcommand of `vinops taxonomy`.
pub async fn run(command: TaxonomyCommand, config: Config) -> Result<(), CommandError> {
    match command {
        TaxonomyCommand::Unknown(args) => list_unknown(args, config).await,
        TaxonomyCommand::Map(args) => map_value(args, config).await,
        TaxonomyCommand::Export(args) => export_labels(args, config).await,
        TaxonomyCommand::Import(args) => import_labels(args, config).await,
    }
}

async fn list_unknown(args: UnknownValuesArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let unknown = taxonomy::unknown_values(&session.db.pool, args.domain, args.limit).await?;
    session.close().await?;
    if args.json.json {
        output::print_json(&unknown)?;
        return Ok(());
    }
    if unknown.is_empty() {
        println!("every value has a code");
        return Ok(());
    }
    let mut table = output::new_table(&["domain", "value", "files", "first seen", "last seen"]);
    for row in unknown {
        table.add_row([
            row.domain.into(),
            row.raw_value.into(),
            right_cell(format_count(row.occurrences)),
            output::format_minute(row.first_seen_at).into(),
            output::format_minute(row.last_seen_at).into(),
        ]);
    }
    println!("{table}\nto map a value to a code: vinops taxonomy map DOMAIN VALUE CODE");
    Ok(())
}

async fn map_value(args: MapValueArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let by = Actor { who: os_user(), why: args.reason };
    let mut connection = session.db.pool.acquire().await.context("could not acquire a connection")?;
    let mapped = taxonomy::map_alias(&mut connection, args.domain, &args.raw, &args.code, &by).await;
    drop(connection);
    session.close().await?;
    let mapped = mapped?;
    if args.json.json {
        output::print_json(&mapped)?;
        return Ok(());
    }
    let AliasMapping { domain, code, before, lots, .. } = &mapped;
    let before = match before {
        Some(before) if before != code => format!(", no longer {before}"),
        _ => String::new(),
    };
    println!(
        "{domain}: {:?} is mapped to {code}{before}; {} lots recoded",
        args.raw,
        format_count(i64::try_from(*lots).unwrap_or(i64::MAX))
    );
    Ok(())
}

async fn export_labels(args: TaxonomyExportArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let labels = taxonomy::read_labels(&session.db.pool, args.domain).await?;
    session.close().await?;
    let out: Box<dyn Write> = match &args.out {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("could not create the file {}", path.display()))?)
        }
        None => Box::new(stdout()),
    };
    let mut writer = csv::Writer::from_writer(out);
    for label in &labels {
        writer.serialize(label).context("could not write the labels")?;
    }
    writer.flush().context("could not write the labels")?;
    Ok(())
}

async fn import_labels(args: TaxonomyImportArgs, config: Config) -> Result<(), CommandError> {
    let named = args.file.display();
    let from: Box<dyn Read> = if args.file.as_os_str() == "-" {
        Box::new(stdin())
    } else {
        Box::new(
            File::open(&args.file)
                .with_context(|| format!("could not open the file {named}"))
                .map_err(CommandError::usage)?,
        )
    };
    let labels: Vec<LabelRow> = csv::Reader::from_reader(from)
        .deserialize()
        .collect::<Result<_, _>>()
        .with_context(|| {
            format!("could not read labels from {named}\nhint: `vinops taxonomy export` writes the expected columns")
        })
        .map_err(CommandError::usage)?;
    let session = CommandSession::open(config, &args.connect).await?;
    let by = Actor { who: os_user(), why: args.reason };
    let mut connection = session.db.pool.acquire().await.context("could not acquire a connection")?;
    let changed = taxonomy::import_labels(&mut connection, &labels, &by).await;
    drop(connection);
    session.close().await?;
    let changed = changed?;
    if args.json.json {
        output::print_json(&json!({ "labels": labels.len(), "changed": changed }))?;
    } else {
        println!("{} labels read, {changed} changed", format_count(i64::try_from(labels.len()).unwrap_or(i64::MAX)));
    }
    Ok(())
}
