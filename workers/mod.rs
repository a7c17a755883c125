//! The jobs of the worker: everything that happens because a job ran.

use crate::auction::difference::{ComparisonCounts, ComparisonObserver, ComparisonScope};
use crate::auction::withdrawal::{Withdrawal, WithdrawalObserver, WithdrawalRequest};
use crate::cli::{FileInStore, Fleet, LoggingIn, Receipt, Received};
use crate::config::Config;
use crate::queue::{Entry, Job, Tools};
use crate::store::Store;
use anyhow::Context;
use auction::download::{Feed, FeedOptions, Since};
use auction::receive::StoredFile;
use auction::session::Login;
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub mod auction;

/// The definitions of all job kinds, in the order of a window's chain.
pub const FLEET: &[Entry] = &[
    Entry::of::<auction::fetch::Fetch>(),
    Entry::of::<auction::ingest::Ingest>(),
    Entry::of::<auction::upsert_vehicles::UpsertVehicles>(),
    Entry::of::<auction::upsert_lots::UpsertLots>(),
    Entry::of::<auction::detect_completion::DetectCompletion>(),
];

/// Returns the job registry that the command line uses.
pub const fn fleet() -> Fleet {
    Fleet {
        jobs: FLEET,
        fetch: &FLEET[0],
        tools,
        lacks,
        receive,
        register,
        login,
        counted: auction::counted::counted,
        compare,
        withdraw,
    }
}

fn tools(config: &Config, store: Store) -> anyhow::Result<Tools> {
    let tools = Tools::new().with(store);
    // A worker without COPART_FEED_URL can run every other kind.
    let copart = config.copart.get()?;
    if copart.feed_url.is_none() {
        return Ok(tools);
    }
    let tools = tools.with(Feed::new(FeedOptions::from_config(copart)?)?);
    Ok(match logins(config)? {
        Some(login) => tools.with(login),
        None => tools,
    })
}

fn logins(config: &Config) -> anyhow::Result<Option<Login>> {
    Login::from_config(config.copart.get()?, config.cookie_key.get()?.as_ref())
}

fn login(config: &Config, pool: PgPool, source: String, who: String) -> LoggingIn {
    let login = logins(config);
    async move {
        let login = login?.context("COPART_USER is not set")?;
        login.by_hand(&pool, &source, &who).await
    }
    .boxed()
}

fn lacks(config: &Config, entry: &Entry) -> Option<&'static str> {
    // An invalid URL is a separate error, which `tools` returns.
    let no_feed = config.copart.get().is_ok_and(|copart| copart.feed_url.is_none());
    (entry.kind == auction::fetch::Fetch::KIND && no_feed)
        .then_some("COPART_FEED_URL is not set; set it to the feed's address with its key, or set COPART_FEED_URL_FILE to a file that contains it")
}

fn compare(
    pool: PgPool,
    scope: ComparisonScope,
    observer: ComparisonObserver,
) -> BoxFuture<'static, anyhow::Result<ComparisonCounts>> {
    auction::compare::compare_rows(pool, scope, observer).boxed()
}

fn withdraw(
    connection: &mut PgConnection,
    request: WithdrawalRequest,
    observer: WithdrawalObserver,
) -> BoxFuture<'_, anyhow::Result<Withdrawal>> {
    async move { auction::withdraw::withdraw(connection, &request, &observer).await }.boxed()
}

fn receive(file: Received) -> BoxFuture<'static, anyhow::Result<Receipt>> {
    async move {
        let Received { db, store, path, source, window, told } = file;
        let (window, receipt) =
            auction::receive::receive_file(&db.pool, &store, &path, &source, window, told).await?;
        Ok(Receipt {
            file_id: receipt.file_id,
            window,
            duplicate: receipt.duplicate,
            sha256: receipt.sha256,
            bytes: receipt.bytes,
            kind: auction::ingest::Ingest::KIND,
        })
    }
    .boxed()
}

fn register(conn: &mut PgConnection, stored: FileInStore) -> BoxFuture<'_, anyhow::Result<Uuid>> {
    async move {
        let FileInStore { file, bytes, stored_bytes, etag, last_modified, placed } = stored;
        let (source, window, sha256) = (file.source, file.window_start_utc, file.sha256);
        let since = Since { etag, last_modified };
        let stored = StoredFile { source, window, sha256, bytes, stored_bytes, since, placed };
        Ok(auction::receive::register(conn, stored).await?.file_id)
    }
    .boxed()
}
