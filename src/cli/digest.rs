//! `vinops digest`: the content hashes of vehicles, lots and open image links.

use super::CommandError;
use super::output::{self, JsonArgs, format_count};
use super::session::{CommandSession, ConnectArgs};
use crate::config::Config;

/// Arguments of `vinops digest`.
#[derive(Debug, clap::Args)]
pub struct DigestArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Prints the content hashes.
pub async fn run(args: DigestArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let digest = crate::db::digest::compute_digest(&session.db.pool).await?;
    session.close().await?;
    if args.json.json {
        output::print_json(&digest)?;
    } else {
        println!("vehicles  {}  {:>12} rows", digest.vehicles, format_count(digest.vehicle_count));
        println!("lots      {}  {:>12} rows", digest.lots, format_count(digest.lot_count));
        println!("images    {}  {:>12} open links", digest.images, format_count(digest.image_count));
    }
    Ok(())
}
