//! A PgBouncer in front of one database. `VINOPS_TEST_PGBOUNCER` names the program, by default Debian's. `.ci/run`
//! downloads one that carries prepared statements, and prints a warning if it cannot.

use crate::cluster::ChaosCluster;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

const DEBIAN_PGBOUNCER: &str = "/usr/sbin/pgbouncer";
const STARTUP_TIMEOUT: Duration = Duration::from_secs(20);

pub struct TestPooler {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl TestPooler {
    /// Starts PgBouncer with these lines of configuration. Returns `None`, and prints a warning, if the program is
    /// missing.
    pub async fn new(cluster: &ChaosCluster, database: &str, settings: &str) -> Option<TestPooler> {
        let program = pgbouncer_path();
        if !program.exists() {
            println!("WITHOUT the pooler: there is no {}", program.display());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let server = url::Url::parse(&cluster.url(database)).unwrap();
        let ini = format!(
            "[databases]\n{database} = host=127.0.0.1 port={} user=postgres password={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
            listen_port = {port}\nunix_socket_dir =\nauth_type = any\n{settings}\n",
            server.port().unwrap(),
            server.password().unwrap(),
        );
        std::fs::write(folder.path().join("pgbouncer.ini"), ini).unwrap();
        let mut pooler = TestPooler { folder, port, process: None };
        pooler.start().await;
        Some(pooler)
    }

    /// Starts PgBouncer in transaction mode with `size` server connections. Returns `None`, and prints a warning, if it
    /// cannot carry prepared statements.
    pub async fn transaction_mode(cluster: &ChaosCluster, database: &str, size: u32) -> Option<TestPooler> {
        if pgbouncer_path().exists() && !carries_prepared_statements() {
            println!("WITHOUT a pooler in transaction mode: this PgBouncer is older than 1.21");
            return None;
        }
        let settings = format!("pool_mode = transaction\nmax_prepared_statements = 200\ndefault_pool_size = {size}");
        TestPooler::new(cluster, database, &settings).await
    }

    pub async fn start(&mut self) {
        // PgBouncer refuses to run as root, and the program may be in a folder that only root may enter
        let mut command = Command::new(if nix::unistd::geteuid().is_root() { "setpriv" } else { "env" });
        if nix::unistd::geteuid().is_root() {
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
            command.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]);
        }
        command.arg(pgbouncer_path()).arg(self.folder.path().join("pgbouncer.ini"));
        command.stdin(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.kill_on_drop(true).spawn().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let come = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(STARTUP_TIMEOUT, come).await.expect("the pooler listens");
    }

    pub async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

#[expect(clippy::disallowed_methods, reason = "a variable of the tests, which the program does not read")]
fn pgbouncer_path() -> PathBuf {
    std::env::var_os("VINOPS_TEST_PGBOUNCER").map_or_else(|| DEBIAN_PGBOUNCER.into(), PathBuf::from)
}

/// Returns true if the program is version 1.21 or newer, the first that carries prepared statements in transaction
/// mode.
pub fn carries_prepared_statements() -> bool {
    let Ok(said) = std::process::Command::new(pgbouncer_path()).arg("--version").output() else {
        return false;
    };
    let said = String::from_utf8(said.stdout).unwrap();
    let version = said.split_whitespace().nth(1).unwrap_or_else(|| panic!("no version: {said}"));
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap());
    (numbers.next(), numbers.next()) >= (Some(1), Some(21))
}
