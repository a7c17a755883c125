//! The jobs: everything that happens because a job ran.

use crate::cli::{Receipt, Received};
use crate::config::Config;
use crate::queue::{Entry, Job, Tools};
use crate::store::Store;
use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;

pub mod auction;

/// Every kind of job there is, in the order of a window's chain.
pub const FLEET: &[Entry] = &[
    Entry::of::<auction::fetch::Fetch>(),
    Entry::of::<auction::ingest::Ingest>(),
    Entry::of::<auction::upsert_vehicles::UpsertVehicles>(),
    Entry::of::<auction::upsert_lots::UpsertLots>(),
    Entry::of::<auction::detect_completion::DetectCompletion>(),
];
