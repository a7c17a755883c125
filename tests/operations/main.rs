//! What operators rely on: health and metrics of real processes, secrets that stay secret, and the findings of `vinops
//! doctor`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests and their helpers fail by panicking")]

mod alerts;
#[path = "../faults/cli_fixture.rs"]
mod cli_fixture;
mod deploy;
mod doctor;
mod http_endpoint;
mod logins;
mod lots;
mod secrets;
mod shells;
mod taxonomy;
mod terminal_output;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Longer than any step of these tests takes.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A running process of a role, with its HTTP endpoint.
struct RoleProcess {
    process: Child,
    /// The lines of its log, read continuously: a process whose log is not read blocks in the end.
    log: mpsc::UnboundedReceiver<String>,
    address: String,
    /// All log lines so far.
    said: Vec<String>,
}

impl RoleProcess {
    /// Starts the process, and waits until it serves HTTP.
    async fn start(command: &mut Command) -> RoleProcess {
        // a machine under load cannot renew a lease as short as the fixture's
        let command = command.args(["--listen", "127.0.0.1:0"]).env("VINOPS_LEASE", "30s");
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (output, log) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                output.send(line).ok();
            }
        });
        let mut role = RoleProcess { process, log, address: String::new(), said: Vec::new() };
        let shown = role.next_line("HTTP server started").await;
        role.address = shown["address"].as_str().unwrap().to_owned();
        role
    }

    /// Returns the next log line whose message begins with `begin`.
    async fn next_line(&mut self, begin: &str) -> Value {
        let come = async {
            loop {
                let line = self.log.recv().await;
                let line = line.unwrap_or_else(|| panic!("it ended without `{begin}`: {:#?}", self.said));
                let value: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                self.said.push(line);
                if value["message"].as_str().is_some_and(|message| message.starts_with(begin)) {
                    return value;
                }
            }
        };
        tokio::time::timeout(WAIT_TIMEOUT, come).await.expect("the line comes")
    }

    /// Returns status and body of a GET request.
    async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.get_with(path, "").await;
        (status, body)
    }

    /// Returns status, head and body of a GET request with additional headers, each with its line end.
    async fn get_with(&self, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: vinops\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    /// Repeats the request until the response is as expected. A response may be a few seconds old.
    async fn wait_for_response(&self, path: &str, wished: impl Fn(u16, &str) -> bool) -> String {
        let mut last = (0, String::new());
        let come = async {
            loop {
                last = self.get(path).await;
                if wished(last.0, &last.1) {
                    return;
                }
            }
        };
        let come = tokio::time::timeout(WAIT_TIMEOUT, come).await;
        assert!(come.is_ok(), "{path} stays {last:?}");
        last.1
    }

    /// Sends SIGTERM, and returns the exit code. The rest of the log is then in `said`.
    async fn shut_down(&mut self) -> Option<i32> {
        self.send_sigterm();
        let ended = async {
            while let Some(line) = self.log.recv().await {
                self.said.push(line);
            }
            self.process.wait().await.unwrap().code()
        };
        tokio::time::timeout(WAIT_TIMEOUT, ended).await.expect("it leaves")
    }

    fn send_sigterm(&self) {
        kill(Pid::from_raw(self.process.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    }
}

/// Returns the value of a series in the Prometheus text format.
fn metric_value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}
