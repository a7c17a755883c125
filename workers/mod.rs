//! The jobs of the worker: everything that happens because a job ran.

use crate::auction::difference::{ComparisonCounts, ComparisonObserver, ComparisonScope};
use crate::auction::withdrawal::{Withdrawal, WithdrawalObserver, WithdrawalRequest};
use crate::cli::{FileInStore, ImportReceipt, ImportRequest, JobRegistry, LoginFuture};
use crate::config::Config;
use crate::queue::{Extensions, Job, JobDefinition};
use crate::store::Store;
use anyhow::Context;
use auction::download::{FeedClient, FeedOptions, Validators};
use auction::receive::StoredFile;
use auction::session::LoginClient;
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub mod auction;

/// The definitions of all job kinds, in the order of a window's chain.
pub const JOBS: &[JobDefinition] = &[
    JobDefinition::for_job::<auction::fetch::Fetch>(),
    JobDefinition::for_job::<auction::ingest::Ingest>(),
    JobDefinition::for_job::<auction::upsert_vehicles::UpsertVehicles>(),
    JobDefinition::for_job::<auction::upsert_lots::UpsertLots>(),
    JobDefinition::for_job::<auction::detect_completion::DetectCompletion>(),
];

/// Returns the job registry that the command line uses.
pub const fn job_registry() -> JobRegistry {
    JobRegistry {
        jobs: JOBS,
        fetch: &JOBS[0],
        extensions: worker_extensions,
        missing_prerequisites: missing_config,
        receive: receive_file,
        register: register_file,
        login: log_in,
        record_metrics: auction::job_metrics::record_metrics,
        compare: compare_rows,
        withdraw: withdraw_file,
    }
}

fn worker_extensions(config: &Config, store: Store) -> anyhow::Result<Extensions> {
    let tools = Extensions::new().with(store);
    // A worker without COPART_FEED_URL can run every other kind.
    let copart = config.copart.get()?;
    if copart.feed_url.is_none() {
        return Ok(tools);
    }
    let tools = tools.with(FeedClient::new(FeedOptions::from_config(copart)?)?);
    Ok(match configured_login(config)? {
        Some(login) => tools.with(login),
        None => tools,
    })
}

fn configured_login(config: &Config) -> anyhow::Result<Option<LoginClient>> {
    LoginClient::from_config(config.copart.get()?, config.cookie_key.get()?.as_ref())
}

fn log_in(config: &Config, pool: PgPool, source: String, who: String) -> LoginFuture {
    let login = configured_login(config);
    async move {
        let login = login?.context("COPART_USER is not set")?;
        login.log_in_manually(&pool, &source, &who).await
    }
    .boxed()
}

fn missing_config(config: &Config, entry: &JobDefinition) -> Option<&'static str> {
    // An invalid URL is a separate error, which `worker_extensions` returns.
    let no_feed = config.copart.get().is_ok_and(|copart| copart.feed_url.is_none());
    (entry.kind == auction::fetch::Fetch::KIND && no_feed)
        .then_some("COPART_FEED_URL is not set; set it to the feed's address with its key, or set COPART_FEED_URL_FILE to a file that contains it")
}

fn compare_rows(
    pool: PgPool,
    scope: ComparisonScope,
    observer: ComparisonObserver,
) -> BoxFuture<'static, anyhow::Result<ComparisonCounts>> {
    auction::compare::compare_rows(pool, scope, observer).boxed()
}

fn withdraw_file(
    connection: &mut PgConnection,
    request: WithdrawalRequest,
    observer: WithdrawalObserver,
) -> BoxFuture<'_, anyhow::Result<Withdrawal>> {
    async move { auction::withdraw::withdraw_file(connection, &request, &observer).await }.boxed()
}

fn receive_file(file: ImportRequest) -> BoxFuture<'static, anyhow::Result<ImportReceipt>> {
    async move {
        let ImportRequest { db, store, path, source, window, progress } = file;
        let (window, receipt) =
            auction::receive::receive_file(&db.pool, &store, &path, &source, window, progress).await?;
        Ok(ImportReceipt {
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

fn register_file(conn: &mut PgConnection, stored: FileInStore) -> BoxFuture<'_, anyhow::Result<Uuid>> {
    async move {
        let FileInStore { file, bytes, stored_bytes, etag, last_modified, placed } = stored;
        let (source, window, sha256) = (file.source, file.window_start_utc, file.sha256);
        let since = Validators { etag, last_modified };
        let stored = StoredFile { source, window, sha256, bytes, stored_bytes, since, placed };
        Ok(auction::receive::register_stored_file(conn, stored).await?.file_id)
    }
    .boxed()
}
