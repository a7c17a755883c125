//! `vinops digest`: the content hashes of vehicles, lots and open image links.

use super::Failure;
use super::session::{Connect, Session};
use super::show::{self, Json, count};
use crate::config::Config;

/// Arguments of `vinops digest`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Prints the content hashes.
pub async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let digest = crate::db::digest::digest(&session.db.pool).await?;
    session.close().await?;
    if args.json.json {
        show::json(&digest)?;
    } else {
        println!("vehicles  {}  {:>12} rows", digest.vehicles, count(digest.vehicle_count));
        println!("lots      {}  {:>12} rows", digest.lots, count(digest.lot_count));
        println!("images    {}  {:>12} open links", digest.images, count(digest.image_count));
    }
    Ok(())
}
