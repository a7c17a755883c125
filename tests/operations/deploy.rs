//! The files that run the fleet, compared with the program that they run.

use super::RoleProcess;
use crate::cli_fixture::CliFixture;
use std::collections::BTreeSet;
use std::process::Command;
use vinops::config::VARIABLE_NAMES;

/// A worker's drain, and its additional time to store the last outcomes, in seconds.
const DRAIN_AND_GRACE_SECONDS: u64 = 30 + 5;

fn read_file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn unit_files() -> Vec<(String, String)> {
    let folder = std::fs::read_dir("deploy/systemd").unwrap();
    folder
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .map(|path| (path.clone(), read_file(&path)))
        .collect()
}

/// Returns the text after the mark, for each line that begins with the mark.
fn lines_after<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim().strip_prefix(mark))
}

#[test]
fn every_command_that_is_run_is_one() {
    let compose = read_file("docker-compose.yml");
    let mut commands: Vec<String> =
        lines_after(&compose, "command: ").filter(|it| !it.starts_with("postgres ")).map(str::to_owned).collect();
    assert!(commands.len() >= 5, "{commands:?}");
    for (path, unit) in unit_files() {
        let mut starts = lines_after(&unit, "ExecStart=/usr/local/bin/vinops ");
        assert_eq!(starts.next().is_some(), path.ends_with(".service"), "{path}");
        commands.extend(lines_after(&unit, "ExecStart=/usr/local/bin/vinops ").map(str::to_owned));
    }
    for command in commands {
        let mut vinops = Command::new(env!("CARGO_BIN_EXE_vinops"));
        let output = vinops.args(command.split(' ')).arg("--help").env_clear().output().unwrap();
        assert!(output.status.success(), "vinops {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_variable_and_secret_is_one_that_is_read() {
    let compose = read_file("docker-compose.yml");
    let known = |name: &str| VARIABLE_NAMES.contains(&name.trim_end_matches("_FILE"));
    let named: BTreeSet<&str> = compose
        .split(|c: char| !c.is_ascii_uppercase() && c != '_')
        .filter(|word| ["DATABASE_", "VINOPS_", "COPART_"].iter().any(|begin| word.starts_with(begin)))
        .collect();
    assert!(named.len() >= 4 && named.iter().all(|name| known(name)), "{named:?}");
    for (path, unit) in unit_files() {
        for secret in lines_after(&unit, "LoadCredential=") {
            let (name, file) = secret.split_once(':').unwrap();
            assert!(known(&name.to_uppercase()) && file.ends_with(&format!("/{name}")), "{path}: {secret}");
        }
        for pair in lines_after(&unit, "Environment=").flat_map(|line| line.split(' ')) {
            assert!(known(pair.split('=').next().unwrap()), "{path}: {pair}");
        }
    }
    // no file of the repository contains a secret
    assert!(!compose.contains("PASSWORD: ") && !compose.contains("postgres://"));
}

#[test]
fn whoever_stops_a_worker_waits_longer_than_its_drain() {
    let compose = read_file("docker-compose.yml");
    let (fleet, _) = compose.split_once("services:").unwrap();
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    let period = lines_after(fleet, "stop_grace_period: ").next().unwrap();
    assert!(seconds(period) > DRAIN_AND_GRACE_SECONDS, "{period}");
    let worker = read_file("deploy/systemd/vinops-worker@.service");
    assert!(seconds(lines_after(&worker, "TimeoutStopSec=").next().unwrap()) > DRAIN_AND_GRACE_SECONDS);
    assert!(worker.contains("--drain 30s") && compose.contains("--drain 30s"));
}

#[test]
fn the_timer_is_the_documents_quarter_hour() {
    let timer = read_file("deploy/systemd/copart-etl.timer");
    assert_eq!(lines_after(&timer, "OnCalendar=").collect::<Vec<_>>(), ["*:00/15:10"]);
    assert_eq!(lines_after(&timer, "Persistent=").collect::<Vec<_>>(), ["false"]);
}

/// The shell command of the container's health check, against a ready process and one that is not ready.
#[tokio::test]
async fn the_containers_health_check_tells_ready_from_not() {
    let compose = read_file("docker-compose.yml");
    let check = lines_after(&compose, "- exec 3<>").next().unwrap();
    let fixture = CliFixture::new().await;
    let mut serve = RoleProcess::start(&mut fixture.vinops_command(&["serve"])).await;
    let port = serve.address.rsplit(':').next().unwrap();
    let check = format!("exec 3<>{}", check.replace("/9464", &format!("/{port}")));
    let healthy = async || {
        let mut bash = tokio::process::Command::new("bash");
        bash.args(["-c", &check]).output().await.unwrap().status.success()
    };
    assert!(healthy().await, "{check}");
    sqlx::raw_sql("delete from vinops.migrations where id = '0016'").execute(fixture.pool()).await.unwrap();
    serve.wait_for_response("/readyz", |status, _| status == 503).await;
    assert!(!healthy().await, "not ready");
    assert_eq!(serve.shut_down().await, Some(0));
    assert!(!healthy().await, "gone");
}
