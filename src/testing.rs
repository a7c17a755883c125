//! A migrated database for each test, in tens of milliseconds.
//!
//! One cluster per test binary, started by the first test that asks and gone with the process; one template in it,
//! migrated as `vinops migrate up` does; one copy of the template per test, dropped when the test lets go of it. So
//! tests run side by side, on a real PostgreSQL, and none sees another's rows.
//!
//! With `VINOPS_TEST_DATABASE_URL` (any database of a running server, as superuser) that server is used, and the
//! template, named after the migrations' text, is kept for the next run: the fast inner loop.
//!
//! Nothing here returns an error: a test cannot go on without its database, so each failure panics with its cause.

use crate::config;
use crate::db::migrations::AUCTION;
use crate::db::{self, Db, migrate, seed};
use crate::embedded::{Embedded, Options};
use anyhow::Context;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::OnceCell;

/// Connections of a test's pool.
const CONNECTIONS: u32 = 10;

/// A migrated database of one test; dropped with this.
#[derive(Debug)]
pub struct TestDb {
    /// Connected to it as superuser.
    pub db: Db,
    /// Its URL, password included.
    pub url: String,
    name: String,
    janitor: mpsc::Sender<String>,
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // The janitor outlives every test; if it is gone, so is the process.
        let _ = self.janitor.send(std::mem::take(&mut self.name));
    }
}

/// A fresh database with the auction's schema.
pub async fn database() -> TestDb {
    from_template(Some("vinops_template")).await
}

/// A fresh database without any schema, for tests of the migrations themselves.
pub async fn empty_database() -> TestDb {
    from_template(None).await
}

/// The log of a test that runs on one thread, from [`TestLog::start`] on.
pub struct TestLog {
    lines: LogLines,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl TestLog {
    /// Starts to gather what this thread logs.
    pub fn start() -> TestLog {
        let lines = LogLines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        TestLog { lines, _guard: tracing::subscriber::set_default(log) }
    }

    /// Returns what has been logged.
    pub fn text(&self) -> String {
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
    let cluster = CLUSTER.get_or_init(|| async { or_panic(Cluster::open().await) }).await;
    or_panic(cluster.create(template.map(|_| cluster.template.as_str())).await)
}

/// The one way out for errors here: see the module's head.
fn or_panic<T>(result: anyhow::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("no database for this test: {error:#}"))
}

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

struct Cluster {
    /// URL of the database from which others are created.
    admin: String,
    template: String,
    created: AtomicU64,
    janitor: mpsc::Sender<String>,
    _embedded: Option<Embedded>,
}

impl Cluster {
    async fn open() -> anyhow::Result<Cluster> {
        let (admin, embedded) = match config::test_database_url() {
            Some(url) => (url, None),
            None => {
                let options = Options { temporary: true, durable: false, ..Options::default() };
                let embedded = Embedded::start(options).await?;
                (embedded.url("postgres"), Some(embedded))
            }
        };
        let text =
            Sha256::new().chain_update(AUCTION.fingerprint()).chain_update(seed::fingerprint()).finalize();
        let template = format!("vinops_template_{}", HEXLOWER.encode(&text[..4]));
        let mut connection = db::session(&admin).await?;
        build_template(&mut connection, &admin, &template).await?;
        sweep(&mut connection).await?;
        let janitor = start_janitor(admin.clone())?;
        Ok(Cluster { admin, template, created: AtomicU64::new(0), janitor, _embedded: embedded })
    }

    async fn create(&self, template: Option<&str>) -> anyhow::Result<TestDb> {
        let name =
            format!("vinops_test_{}_{}", std::process::id(), self.created.fetch_add(1, Ordering::Relaxed));
        let mut connection = db::session(&self.admin).await?;
        let template = template.unwrap_or("template0");
        run(&mut connection, format!("create database {name} template {template}")).await?;
        let url = with_database(&self.admin, &name)?;
        let db = Db::connect(&url, None, CONNECTIONS).await?;
        Ok(TestDb { db, url, name, janitor: self.janitor.clone() })
    }
}

/// Makes the template unless it is there. It gets its name only when it is complete, so that a run that was cut off
/// leaves none that lacks half its tables; of several processes on one server the first builds and the others wait.
async fn build_template(admin: &mut PgConnection, url: &str, template: &str) -> anyhow::Result<()> {
    run(admin, "select pg_advisory_lock(hashtextextended('vinops_template', 0))".to_owned()).await?;
    let there: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(template)
        .fetch_one(&mut *admin)
        .await?;
    if !there {
        let unfinished = format!("{template}_unfinished");
        run(admin, format!("drop database if exists {unfinished} with (force)")).await?;
        run(admin, format!("create database {unfinished} template template0")).await?;
        let mut connection = db::session(&with_database(url, &unfinished)?).await?;
        migrate::up(&mut connection, &AUCTION, |_| {}).await.context("migrate the tests' template")?;
        sqlx::Connection::close(connection).await?;
        run(admin, format!("alter database {unfinished} rename to {template}")).await?;
    }
    run(admin, "select pg_advisory_unlock_all()".to_owned()).await
}

/// Drops what processes that are gone left on a server that outlives them.
async fn sweep(admin: &mut PgConnection) -> anyhow::Result<()> {
    let names: Vec<String> =
        sqlx::query_scalar("select datname::text from pg_database where datname ^@ 'vinops_test_'")
            .fetch_all(&mut *admin)
            .await?;
    for name in names {
        let owner = name.split('_').nth(2).and_then(|pid| pid.parse().ok()).map(nix::unistd::Pid::from_raw);
        if owner.is_some_and(|pid| nix::sys::signal::kill(pid, None) == Err(nix::errno::Errno::ESRCH)) {
            run(admin, format!("drop database if exists {name} with (force)")).await?;
        }
    }
    Ok(())
}

/// A thread that drops databases: a test's `Drop` cannot wait for one, and its runtime ends with it.
fn start_janitor(admin: String) -> anyhow::Result<mpsc::Sender<String>> {
    let (sender, names) = mpsc::channel::<String>();
    std::thread::Builder::new().name("test databases".to_owned()).spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut connection = runtime.block_on(db::session(&admin))?;
        for name in names {
            // Whatever stays is swept by a later run, or goes with the cluster.
            let _ = runtime
                .block_on(run(&mut connection, format!("drop database if exists {name} with (force)")));
        }
        Ok(())
    })?;
    Ok(sender)
}

/// Runs a statement made of names from this file.
async fn run(connection: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(connection).await.context(statement)?;
    Ok(())
}

fn with_database(url: &str, database: &str) -> anyhow::Result<String> {
    let mut url = url::Url::parse(url).context("VINOPS_TEST_DATABASE_URL")?;
    url.set_path(database);
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn each_test_has_a_database_of_its_own() {
        let (one, other) = tokio::join!(database(), database());
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
        let there =
            || sqlx::query_scalar("select exists (select from pg_database where datname = $1)").bind(&name);
        while there().fetch_one(&watcher.db.pool).await.unwrap() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{name} is still there");
            tokio::task::yield_now().await;
        }
    }
}
