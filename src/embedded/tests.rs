//! Tests of a server's start and end from outside.
//!
//! `a_killed_parent_leaves_no_server` runs this test binary once more as the parent that is killed. `becomes_a_parent`
//! is that run, and does nothing in any other.

use super::*;
use sqlx::{Connection, PgConnection};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn test_options(home: Option<PathBuf>) -> EmbeddedOptions {
    EmbeddedOptions { temporary: home.is_none(), home, durable: false, followed: false }
}

/// Returns a folder that the server's user can enter, also if the test runs as root.
fn reachable_folder() -> tempfile::TempDir {
    let root = os_user::OsUser::select_user().unwrap().temporary_root();
    let folder = tempfile::Builder::new().prefix("vinops-home-").tempdir_in(root).unwrap();
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    folder
}

fn is_alive(pid: u32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), None).is_ok()
}

#[tokio::test]
async fn a_temporary_cluster_leaves_no_folder_and_no_process() {
    let embedded = EmbeddedPostgres::start(test_options(None)).await.unwrap();
    let mut connection = PgConnection::connect(&embedded.url("postgres")).await.unwrap();
    let folder: String = sqlx::query_scalar("show data_directory").fetch_one(&mut connection).await.unwrap();
    let pid = embedded.pid();
    assert!(std::path::Path::new(&folder).exists());
    embedded.stop().await.unwrap();
    assert!(!std::path::Path::new(&folder).exists());
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_lasting_cluster_is_opened_again_with_its_rows() {
    let home = reachable_folder();
    let embedded = EmbeddedPostgres::start(test_options(Some(home.path().into()))).await.unwrap();
    let mut connection = PgConnection::connect(&embedded.url("postgres")).await.unwrap();
    sqlx::raw_sql("create table kept as select 42 as answer").execute(&mut connection).await.unwrap();
    embedded.stop().await.unwrap();

    // The pid of an unrelated process in a stale file must not prevent the start.
    let stale = home.path().join("postgres/data/postmaster.pid");
    std::fs::write(&stale, format!("{}\n", std::process::id())).unwrap();
    let embedded = EmbeddedPostgres::start(test_options(Some(home.path().into()))).await.unwrap();
    let mut connection = PgConnection::connect(&embedded.url("postgres")).await.unwrap();
    let answer: i32 = sqlx::query_scalar("select answer from kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(answer, 42);
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_in_use_is_refused_by_name() {
    let home = reachable_folder();
    let _held = EmbeddedPostgres::start(test_options(Some(home.path().into()))).await.unwrap();
    let refused = EmbeddedPostgres::start(test_options(Some(home.path().into()))).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    assert!(refused.contains("DATABASE_URL"), "{refused}");
}

#[tokio::test]
async fn a_password_is_asked_for() {
    let embedded = EmbeddedPostgres::start(test_options(None)).await.unwrap();
    let mut url = url::Url::parse(&embedded.url("postgres")).unwrap();
    url.set_password(Some("guess")).unwrap();
    let refused = PgConnection::connect(url.as_str()).await.unwrap_err().to_string();
    assert!(refused.contains("password authentication failed"), "{refused}");
}

/// The file in the current folder that makes [`becomes_a_parent`] start a server.
const PARENT_MARKER_FILE: &str = "be-a-parent";

#[test]
fn a_killed_parent_leaves_no_server() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(PARENT_MARKER_FILE), "").unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["embedded::tests::becomes_a_parent", "--exact", "--nocapture"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines().map_while(Result::ok);
    let pid: u32 =
        lines.filter_map(|line| line.split("server ").nth(1)?.trim().parse().ok()).next().expect("the server's number");
    assert!(is_alive(pid));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let killed = Instant::now();
    while is_alive(pid) {
        assert!(killed.elapsed() < Duration::from_secs(20), "process {pid} outlived its parent");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn becomes_a_parent() {
    if !std::path::Path::new(PARENT_MARKER_FILE).exists() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let embedded = runtime.block_on(EmbeddedPostgres::start(test_options(None))).unwrap();
    println!("server {}", embedded.pid());
    // Until this process is killed, or the test that should kill it has ended.
    let _ = std::io::stdin().read_line(&mut String::new());
}
