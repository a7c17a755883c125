//! Secrets stay secret: a test plants one in every variable that contains a secret, and searches for them in everything
//! that is logged, stored or printed when commands fail, at the most verbose log level.

use super::RoleProcess;
use crate::cli_fixture::CliFixture;
use std::fmt::Write as _;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};
use vinops::scheduler::Scheduler;
use vinops::workers::JOBS;

const PLANTED_KEY: &str = "plantedFeedKey7Q";
const PLANTED_USER: &str = "plantedFeedUser7Q";
const PLANTED_PASSWORD: &str = "plantedPassword7Q";
const PLANTED_COOKIE: &str = "cGxhbnRlZENvb2tpZUtleTdRcGxhbnRlZENvb2tpZQ==";
const PLANTED_DATABASE: &str = "plantedDatabase7Q";
const PLANTED_SECRETS: &[&str] = &[PLANTED_KEY, PLANTED_USER, PLANTED_PASSWORD, PLANTED_COOKIE, PLANTED_DATABASE];

/// Starts a server that sends this response to every request, and repeats the request in the body.
async fn start_server(head: &'static str) -> (String, DropGuard) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap_or(0);
            let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
            let line = asked.lines().next().unwrap_or_default();
            let body = format!("<html>not for you: {line} {asked}</html>");
            let head = head.replace("KEY", PLANTED_KEY);
            let answer =
                format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.ok();
        }
    }));
    (format!("http://{address}/FTPLSTDM/salesdata.cgi?authKey={PLANTED_KEY}"), stop.drop_guard())
}

/// All captured output.
#[derive(Default)]
struct CapturedOutput(String);

impl CapturedOutput {
    fn push(&mut self, whence: &str, text: &str) {
        for secret in PLANTED_SECRETS {
            let at = text.find(secret);
            assert!(at.is_none(), "{whence} gives {secret} away: {}", text[at.unwrap_or(0)..].lines().next().unwrap());
        }
        writeln!(self.0, "{text}").unwrap();
    }

    /// Runs a command that must fail, and captures its output.
    async fn capture_failure(&mut self, whence: &str, command: &mut Command) {
        let output = with_secrets(command).output().await.unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "{whence} was to fail:\n{said}");
        self.push(whence, &said);
    }

    /// Captures everything that is stored as text.
    async fn capture_tables(&mut self, fixture: &CliFixture) {
        let rows: Vec<String> = sqlx::query_scalar(
            "select to_jsonb(j)::text from fleet.jobs j union all select to_jsonb(a)::text from fleet.job_attempts a \
            union all select to_jsonb(w)::text from fleet.windows w union all select to_jsonb(s)::text from fleet.sources s \
            union all select to_jsonb(t)::text from fleet.source_transitions t",
        )
        .fetch_all(fixture.pool())
        .await
        .unwrap();
        assert!(rows.len() >= 3, "something failed and was written down");
        self.push("the database", &rows.join("\n"));
    }
}

/// Sets every secret of a command, and the most verbose log level.
fn with_secrets(command: &mut Command) -> &mut Command {
    command
        .env("COPART_USER", PLANTED_USER)
        .env("COPART_PASSWORD", PLANTED_PASSWORD)
        .env("VINOPS_COOKIE_KEY", PLANTED_COOKIE)
        .env("COPART_LOGIN_URL", "http://127.0.0.1:9/login")
        .env("VINOPS_LOG", "trace")
        .env("VINOPS_LOG_FORMAT", "json")
}

#[tokio::test]
async fn a_feed_that_fails_in_every_way_hears_and_tells_no_secret() {
    let gone = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let mut feeds = vec![
        (format!("http://{gone}/?authKey={PLANTED_KEY}"), None),
        (format!("http://{PLANTED_USER}:{PLANTED_KEY}@{gone}/"), None),
        (format!("ftp://{gone}/{PLANTED_KEY}"), None),
        (format!("http://nowhere.invalid/?authKey={PLANTED_KEY}"), None),
    ];
    for head in [
        "200 OK\r\nContent-Type: text/html",
        "403 Forbidden\r\nContent-Type: text/html",
        "407 Proxy Authentication Required",
        "500 Internal Server Error",
        "302 Found\r\nLocation: /elsewhere?authKey=KEY",
        "302 Found\r\nLocation: http://KEY.invalid/?authKey=KEY",
        "this is no status at all",
    ] {
        let (url, stop) = start_server(head).await;
        feeds.push((url, Some(stop)));
    }
    // the same server, addressed as if it used TLS
    let tls = feeds.last().unwrap().0.replace("http://", "https://");
    feeds.push((tls, None));
    // concurrently, with a fixture for each: otherwise their retries would add up
    let heard = futures::future::join_all(feeds.iter().map(|(url, _server)| async move {
        let (fixture, mut heard) = (CliFixture::new().await, CapturedOutput::default());
        heard
            .capture_failure(url, fixture.vinops_command(&["fetch", "--now", "--json"]).env("COPART_FEED_URL", url))
            .await;
        if url.starts_with("http") {
            heard.capture_tables(&fixture).await;
        }
        heard.0
    }));
    let heard = heard.await.concat();
    assert!(heard.contains("403") && heard.contains("not for you"), "the answers are told: {heard}");
}

#[tokio::test]
async fn a_login_that_is_refused_tells_no_secret() {
    let fixture = CliFixture::new().await;
    let mut heard = CapturedOutput::default();
    for head in ["403 Forbidden\r\nContent-Type: text/html", "302 Found\r\nLocation: /?error=KEY", "200 OK"] {
        let (url, _server) = start_server(head).await;
        let mut command = fixture.vinops_command(&["source", "login", "copart"]);
        let output = with_secrets(&mut command).env("COPART_LOGIN_URL", &url).output().await.unwrap();
        assert!(!output.status.success(), "{head}");
        heard.push(head, &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
        let sessions: Vec<String> = sqlx::query_scalar("select to_jsonb(s)::text from fleet.source_sessions s")
            .fetch_all(fixture.pool())
            .await
            .unwrap();
        heard.push("the session's row", &sessions.join("\n"));
    }
    assert!(heard.0.contains("login rejected"), "{}", heard.0);
}

#[tokio::test]
async fn a_worker_whose_job_fails_tells_no_secret() {
    let fixture = CliFixture::new().await;
    let mut heard = CapturedOutput::default();
    let (url, _server) = start_server("403 Forbidden\r\nContent-Type: text/html").await;
    let mut worker =
        RoleProcess::start(with_secrets(fixture.vinops_command(&["worker"]).env("COPART_FEED_URL", url))).await;
    Scheduler::new(&JOBS[0], &["copart"]).enqueue_due_windows(fixture.pool(), None).await.unwrap();
    let discarded = "vinops_jobs_discarded_total{kind=\"fetch\"} 1\n";
    let figures = worker.wait_for_response("/metrics", |_, text| text.contains(discarded)).await;
    heard.push("/metrics", &figures);
    heard.push("/readyz", &worker.get("/readyz").await.1);
    assert_eq!(worker.shut_down().await, Some(0));
    heard.push("the worker's log", &worker.said.join("\n"));
    heard.capture_tables(&fixture).await;
    for arguments in [&["jobs", "list", "--json"][..], &["windows", "--json"]] {
        let output = with_secrets(&mut fixture.vinops_command(arguments)).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        heard.push("a list", &String::from_utf8(text).unwrap());
    }
    assert!(heard.0.contains("\"discarded\"") && heard.0.contains("403"));
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_tells_no_secret() {
    let fixture = CliFixture::new().await;
    let mut heard = CapturedOutput::default();
    let mut known = url::Url::parse(&fixture.db.url).unwrap();
    known.set_password(Some(PLANTED_DATABASE)).unwrap();
    let port = known.port().unwrap_or(5432);
    let gone = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let mut no_database = known.clone();
    no_database.set_path("nothing_of_this_name");
    let mut no_role = known.clone();
    no_role.set_username("nobody_of_this_name").unwrap();
    let mut nonsense = known.clone();
    nonsense.set_query(Some("sslmode=nonsense"));
    for url in [
        no_database.to_string(),
        no_role.to_string(),
        nonsense.to_string(),
        format!("postgres://postgres:{PLANTED_DATABASE}@{gone}/vinops"),
        format!("postgres://postgres:{PLANTED_DATABASE}@nowhere.invalid:{port}/vinops"),
        format!("postgres://postgres:{PLANTED_DATABASE}@127.0.0.1:notaport/vinops"),
        format!("postgres://postgres:{PLANTED_DATABASE}@127.0.0.1:{port}/vin%ZZops?sslmode=require"),
        format!("mysql://root:{PLANTED_DATABASE}@127.0.0.1/vinops"),
        format!("{PLANTED_DATABASE}@host"),
    ] {
        for role in ["worker", "scheduler", "serve", "windows"] {
            let mut command = fixture.vinops_command(&[role]);
            let command =
                command.env("DATABASE_URL", &url).env("COPART_FEED_URL", "http://127.0.0.1:9/").stdin(Stdio::null());
            heard.capture_failure(&url.replace(PLANTED_DATABASE, "…"), command).await;
        }
        let direct =
            fixture.vinops_command(&["migrate", "status"]).env("DATABASE_DIRECT_URL", &url).output().await.unwrap();
        heard.push("migrate status", &String::from_utf8_lossy(&[direct.stdout, direct.stderr].concat()));
    }
    assert!(heard.0.contains("could not connect to the database of DATABASE_URL"));
}

#[tokio::test]
async fn settings_that_are_wrong_are_named_and_not_repeated() {
    let fixture = CliFixture::new().await;
    let mut heard = CapturedOutput::default();
    let folder = fixture.folder.path();
    std::fs::create_dir(folder.join("database_url")).unwrap();
    std::fs::write(folder.join("binary"), [b'x', 0xff, 0xfe]).unwrap();
    for (name, value) in [
        ("COPART_FEED_URL", PLANTED_KEY),
        ("DATABASE_URL", PLANTED_DATABASE),
        ("DATABASE_DIRECT_URL", PLANTED_DATABASE),
        ("VINOPS_LOG_FORMAT", PLANTED_KEY),
        ("VINOPS_LEASE", PLANTED_KEY),
        ("COPART_PASSWORD_FILE", "/nonexistent/file"),
        ("DATABASE_DIRECT_URL_FILE", folder.join("binary").to_str().unwrap()),
    ] {
        let mut command = fixture.vinops_command(&["worker"]);
        let output = command.env(name, value).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(name), "{name}: {said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
        heard.push(name, &said);
    }
    // systemd's folder of credentials contains something that is not a file
    let mut command = fixture.vinops_command(&["windows"]);
    let output = command.env_remove("DATABASE_URL").env("CREDENTIALS_DIRECTORY", folder).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("DATABASE_URL: could not read ") && output.status.code() == Some(2), "{said}");
}

#[tokio::test]
async fn every_variable_may_be_a_file_or_a_credential() {
    let fixture = CliFixture::new().await;
    let folder = fixture.folder.path().join("credentials");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("database_url"), format!("{}\n", fixture.db.url)).unwrap();
    for (name, value) in [("CREDENTIALS_DIRECTORY", folder.clone()), ("DATABASE_URL_FILE", folder.join("database_url"))]
    {
        let mut command = fixture.vinops_command(&["windows", "--json"]);
        let output = command.env_remove("DATABASE_URL").env(name, value).output().await.unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
