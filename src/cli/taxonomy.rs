//! `vinops taxonomy`: lists raw values without a code, maps them to codes, and exchanges labels with translators.

use super::Failure;
use super::session::{Connect, Session, who};
use super::show::{self, Json, count, right};
use crate::config::Config;
use crate::db::vocabulary::{self, By, Label, Mapped};
use crate::taxonomy::Domain;
use anyhow::Context;
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::path::PathBuf;

/// The subcommands of `vinops taxonomy`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List raw values without a code, most frequent first
    Unknown(UnknownArgs),
    /// Map a raw value to a code, and recode the rows that contain it
    Map(MapArgs),
    /// Write labels as CSV, for a translator
    Export(ExportArgs),
    /// Read labels from an exported CSV file, all or none
    Import(ImportArgs),
}

/// Arguments of `vinops taxonomy unknown`.
#[derive(Debug, clap::Args)]
pub struct UnknownArgs {
    /// List only this domain, e.g. damage_types
    #[arg(long, value_parser = domain)]
    domain: Option<Domain>,
    /// Maximum number of values
    #[arg(long, default_value_t = 50)]
    limit: i64,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `vinops taxonomy map`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops taxonomy map fuel_types \"FLEX FUEL\" fuel_flex")]
pub struct MapArgs {
    /// Domain of the value, e.g. damage_types
    #[arg(value_parser = domain)]
    domain: Domain,
    /// Raw value; case, blanks and punctuation are ignored
    #[arg(value_name = "VALUE")]
    raw: String,
    /// Code of the domain
    code: String,
    /// Reason, recorded in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "mapped manually")]
    reason: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `vinops taxonomy export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Export only this domain, e.g. damage_types
    #[arg(long, value_parser = domain)]
    domain: Option<Domain>,
    /// Write to this path instead of standard output
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
}

/// Arguments of `vinops taxonomy import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// CSV file, or - for standard input
    file: PathBuf,
    /// Reason, recorded in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "translated")]
    reason: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

fn domain(name: &str) -> Result<Domain, String> {
    Domain::named(name).ok_or_else(|| {
        format!("unknown domain {name:?}; expected one of {}", Domain::ALL.map(Domain::name).join(", "))
    })
}

/// Runs a subcommand of `vinops taxonomy`.
pub async fn run(command: Command, config: Config) -> Result<(), Failure> {
    match command {
        Command::Unknown(args) => unknown(args, config).await,
        Command::Map(args) => map(args, config).await,
        Command::Export(args) => export(args, config).await,
        Command::Import(args) => import(args, config).await,
    }
}

async fn unknown(args: UnknownArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let unknown = vocabulary::unknown(&session.db.pool, args.domain, args.limit).await?;
    session.close().await?;
    if args.json.json {
        show::json(&unknown)?;
        return Ok(());
    }
    if unknown.is_empty() {
        println!("every value has a code");
        return Ok(());
    }
    let mut table = show::table(&["domain", "value", "files", "first seen", "last seen"]);
    for row in unknown {
        table.add_row([
            row.domain.into(),
            row.raw_value.into(),
            right(count(row.occurrences)),
            show::minute(row.first_seen_at).into(),
            show::minute(row.last_seen_at).into(),
        ]);
    }
    println!("{table}\nto map a value to a code: vinops taxonomy map DOMAIN VALUE CODE");
    Ok(())
}

async fn map(args: MapArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let by = By { who: who(), why: args.reason };
    let mut connection = session.db.pool.acquire().await.context("could not acquire a connection")?;
    let mapped = vocabulary::map(&mut connection, args.domain, &args.raw, &args.code, &by).await;
    drop(connection);
    session.close().await?;
    let mapped = mapped?;
    if args.json.json {
        show::json(&mapped)?;
        return Ok(());
    }
    let Mapped { domain, code, before, lots, .. } = &mapped;
    let before = match before {
        Some(before) if before != code => format!(", no longer {before}"),
        _ => String::new(),
    };
    println!(
        "{domain}: {:?} is mapped to {code}{before}; {} lots recoded",
        args.raw,
        count(i64::try_from(*lots).unwrap_or(i64::MAX))
    );
    Ok(())
}

async fn export(args: ExportArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let labels = vocabulary::labels(&session.db.pool, args.domain).await?;
    session.close().await?;
    let out: Box<dyn Write> = match &args.out {
        Some(path) => Box::new(
            File::create(path).with_context(|| format!("could not create the file {}", path.display()))?,
        ),
        None => Box::new(stdout()),
    };
    let mut writer = csv::Writer::from_writer(out);
    for label in &labels {
        writer.serialize(label).context("could not write the labels")?;
    }
    writer.flush().context("could not write the labels")?;
    Ok(())
}

async fn import(args: ImportArgs, config: Config) -> Result<(), Failure> {
    let named = args.file.display();
    let from: Box<dyn Read> = if args.file.as_os_str() == "-" {
        Box::new(stdin())
    } else {
        Box::new(
            File::open(&args.file)
                .with_context(|| format!("could not open the file {named}"))
                .map_err(Failure::wrong)?,
        )
    };
    let labels: Vec<Label> = csv::Reader::from_reader(from)
        .deserialize()
        .collect::<Result<_, _>>()
        .with_context(|| {
            format!("could not read labels from {named}\nhint: `vinops taxonomy export` writes the expected columns")
        })
        .map_err(Failure::wrong)?;
    let session = Session::open(config, &args.connect).await?;
    let by = By { who: who(), why: args.reason };
    let mut connection = session.db.pool.acquire().await.context("could not acquire a connection")?;
    let changed = vocabulary::relabel(&mut connection, &labels, &by).await;
    drop(connection);
    session.close().await?;
    let changed = changed?;
    if args.json.json {
        show::json(&json!({ "labels": labels.len(), "changed": changed }))?;
    } else {
        println!("{} labels read, {changed} changed", count(i64::try_from(labels.len()).unwrap_or(i64::MAX)));
    }
    Ok(())
}
