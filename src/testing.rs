//! Creates a migrated database for each test, in tens of milliseconds.
//!
//! Each test binary has one cluster, started by the first test that needs it and deleted with the process. The cluster
//! has one template, migrated like `vinops migrate up` does. Each test has a copy of the template, dropped at the end
//! of the test. So tests run in parallel on a real PostgreSQL, isolated from each other.
//!
//! With `VINOPS_TEST_DATABASE_URL` (any database of a running server, as superuser) that server is used. The template
//! is named after the text of the migrations and reused by the next run, which makes the inner loop fast.
//!
//! The functions return no errors: a test cannot continue without its database, so each failure panics with its cause.

use crate::config;
use crate::db::migrations::AUCTION_SET;
use crate::db::{self, Database, migrate, seed};
use crate::embedded::{EmbeddedOptions, EmbeddedPostgres};
use anyhow::Context;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::OnceCell;

/// Maximum number of connections of a test's pool.
const MAX_CONNECTIONS: u32 = 10;

/// The database of one test. The database is dropped with this value.
#[derive(Debug)]
pub struct TestDb {
    /// Connections as superuser.
    pub db: Database,
    /// URL of the database, password included.
    pub url: String,
    name: String,
    janitor: mpsc::Sender<String>,
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // The janitor outlives every test. A send fails only at the end of the process.
        let _ = self.janitor.send(std::mem::take(&mut self.name));
    }
}

/// Returns a new database with the schema of the auction.
pub async fn migrated_database() -> TestDb {
    from_template(Some("vinops_template")).await
}

/// Returns a new database without any schema, for tests of the migrations themselves.
pub async fn empty_database() -> TestDb {
    from_template(None).await
}

/// The log lines of a test that runs on one thread, from [`TestLog::start`] on.
pub struct TestLog {
    lines: LogLines,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl TestLog {
    /// Starts to collect the log lines of this thread.
    pub fn start() -> TestLog {
        let lines = LogLines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        TestLog { lines, _guard: tracing::subscriber::set_default(log) }
    }

    /// Returns the text of all log lines so far.
    pub fn captured_text(&self) -> String {
        let lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&lines).into_owned()
    }
}

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn from_template(template: Option<&str>) -> TestDb {
    let cluster = TEST_CLUSTER.get_or_init(|| async { or_panic(TestCluster::open_cluster().await) }).await;
    or_panic(cluster.create_database(template.map(|_| cluster.template.as_str())).await)
}

/// Panics on an error. All errors of this module end here, see the module documentation.
fn or_panic<T>(result: anyhow::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("no database for this test: {error:#}"))
}

static TEST_CLUSTER: OnceCell<TestCluster> = OnceCell::const_new();

struct TestCluster {
    /// URL of the database from which others are created.
    admin: String,
    template: String,
    created: AtomicU64,
    janitor: mpsc::Sender<String>,
    _embedded: Option<EmbeddedPostgres>,
}

impl TestCluster {
    async fn open_cluster() -> anyhow::Result<TestCluster> {
        let (admin, embedded) = match config::test_database_url() {
            Some(url) => (url, None),
            None => {
                let options = EmbeddedOptions { temporary: true, durable: false, ..EmbeddedOptions::default() };
                let embedded = EmbeddedPostgres::start(options).await?;
                (embedded.url("postgres"), Some(embedded))
            }
        };
        let text =
            Sha256::new().chain_update(AUCTION_SET.fingerprint()).chain_update(seed::seed_fingerprint()).finalize();
        let template = format!("vinops_template_{}", HEXLOWER.encode(&text[..4]));
        let mut connection = db::connect_session(&admin).await?;
        build_template(&mut connection, &admin, &template).await?;
        sweep_databases(&mut connection).await?;
        let janitor = start_janitor(admin.clone())?;
        Ok(TestCluster { admin, template, created: AtomicU64::new(0), janitor, _embedded: embedded })
    }

    async fn create_database(&self, template: Option<&str>) -> anyhow::Result<TestDb> {
        let name = format!("vinops_test_{}_{}", std::process::id(), self.created.fetch_add(1, Ordering::Relaxed));
        let mut connection = db::connect_session(&self.admin).await?;
        let template = template.unwrap_or("template0");
        execute_statement(&mut connection, format!("create database {name} template {template}")).await?;
        let url = with_database(&self.admin, &name)?;
        let db = Database::connect(&url, None, MAX_CONNECTIONS).await?;
        Ok(TestDb { db, url, name, janitor: self.janitor.clone() })
    }
}

/// Builds the template unless it exists.
///
/// The template is renamed to its final name at the end, so an aborted run leaves no incomplete template. Of several
/// processes on one server, the first builds and the others wait.
async fn build_template(admin: &mut PgConnection, url: &str, template: &str) -> anyhow::Result<()> {
    execute_statement(admin, "select pg_advisory_lock(hashtextextended('vinops_template', 0))".to_owned()).await?;
    let there: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(template)
        .fetch_one(&mut *admin)
        .await?;
    if !there {
        let unfinished = format!("{template}_unfinished");
        execute_statement(admin, format!("drop database if exists {unfinished} with (force)")).await?;
        execute_statement(admin, format!("create database {unfinished} template template0")).await?;
        let mut connection = db::connect_session(&with_database(url, &unfinished)?).await?;
        migrate::apply_pending(&mut connection, &AUCTION_SET, |_| {})
            .await
            .context("could not migrate the test template")?;
        sqlx::Connection::close(connection).await?;
        execute_statement(admin, format!("alter database {unfinished} rename to {template}")).await?;
    }
    execute_statement(admin, "select pg_advisory_unlock_all()".to_owned()).await
}

/// Drops the databases of ended test processes, on a server that outlives them.
async fn sweep_databases(admin: &mut PgConnection) -> anyhow::Result<()> {
    let names: Vec<String> =
        sqlx::query_scalar("select datname::text from pg_database where datname ^@ 'vinops_test_'")
            .fetch_all(&mut *admin)
            .await?;
    for name in names {
        let owner = name.split('_').nth(2).and_then(|pid| pid.parse().ok()).map(nix::unistd::Pid::from_raw);
        if owner.is_some_and(|pid| nix::sys::signal::kill(pid, None) == Err(nix::errno::Errno::ESRCH)) {
            execute_statement(admin, format!("drop database if exists {name} with (force)")).await?;
        }
    }
    Ok(())
}

/// Starts a thread that drops databases. The `Drop` of a test cannot wait, and the runtime of a test ends with the
/// test.
fn start_janitor(admin: String) -> anyhow::Result<mpsc::Sender<String>> {
    let (sender, names) = mpsc::channel::<String>();
    std::thread::Builder::new().name("test databases".to_owned()).spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut connection = runtime.block_on(db::connect_session(&admin))?;
        for name in names {
            // A database that remains is dropped by a later run, or deleted with the cluster.
            let _ = runtime
                .block_on(execute_statement(&mut connection, format!("drop database if exists {name} with (force)")));
        }
        Ok(())
    })?;
    Ok(sender)
}

/// Runs a statement that contains only names from this file.
async fn execute_statement(connection: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(connection).await.context(statement)?;
    Ok(())
}

fn with_database(url: &str, database: &str) -> anyhow::Result<String> {
    let mut url = url::Url::parse(url).context("VINOPS_TEST_DATABASE_URL is not a URL")?;
    url.set_path(database);
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn each_test_has_a_database_of_its_own() {
        let (one, other) = tokio::join!(migrated_database(), migrated_database());
        sqlx::raw_sql("create table mine ()").execute(&one.db.pool).await.unwrap();
        sqlx::raw_sql("create table mine ()").execute(&other.db.pool).await.unwrap();
        db::expect_schema(&one.db).await.unwrap();
    }

    #[tokio::test]
    async fn a_database_goes_with_its_test() {
        let (watcher, gone) = (empty_database().await, empty_database().await);
        let name = gone.name.clone();
        drop(gone);
        let begun = Instant::now();
        let there = || sqlx::query_scalar("select exists (select from pg_database where datname = $1)").bind(&name);
        while there().fetch_one(&watcher.db.pool).await.unwrap() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{name} is still there");
            tokio::task::yield_now().await;
        }
    }
}
