//! Confirmations at a terminal, and the effect of each answer.

use super::CommandOutput;
use super::cli_fixture::CliFixture;
use nix::pty::openpty;
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;

/// The end of input, as typed.
const CONTROL_D: &str = "\u{4}";

impl CliFixture {
    /// Runs a command in a terminal into which `typed` was written before.
    async fn run_typing(&self, typed: &str, arguments: &[&str]) -> CommandOutput {
        let terminal = openpty(None, None).unwrap();
        nix::unistd::write(&terminal.master, typed.as_bytes()).unwrap();
        let mut command = self.vinops_command(arguments);
        command.stdin(Stdio::from(terminal.slave)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().unwrap();
        // the command's copy would keep the terminal open
        drop(command);
        // a command that asks twice would wait for ever
        let ended = tokio::time::timeout(Duration::from_secs(60), process.wait_with_output()).await;
        drop(terminal.master);
        self.command_output(ended.unwrap().unwrap())
    }
}

#[tokio::test]
async fn only_a_yes_is_a_yes() {
    let fixture = CliFixture::new().await;
    fixture.insert_jobs("ingest", 2).await;
    let cancel = ["jobs", "cancel", "--kind", "ingest"];
    for no in ["n\n", "N\n", "\n", "yess\n", "sure\n", " \n"] {
        fixture.run_typing(no, &cancel).await.assert_output(1, "cancel 2 jobs? [y/N] error: nothing was done\n");
    }
    fixture.run_typing(CONTROL_D, &cancel).await.assert_output(1, "cancel 2 jobs? [y/N] \nerror: nothing was done\n");
    assert_eq!(fixture.job_states().await, json!({ "available": 2 }));
    assert_eq!(fixture.count_rows("audit.operator_actions").await, 0);

    let said = fixture.run_typing("y\n", &cancel).await;
    said.assert_output(0, "cancel 2 jobs? [y/N] ");
    assert_eq!(said.out, "2 jobs are cancelled\n");
    assert_eq!(fixture.job_states().await, json!({ "cancelled": 2 }));
    // each command that asks, with each form of consent
    let requeue = ["jobs", "requeue", "--kind", "ingest"];
    fixture.run_typing("n\n", &requeue).await.assert_output(1, "requeue 2 jobs? [y/N] error: nothing was done\n");
    assert_eq!(fixture.job_states().await, json!({ "cancelled": 2 }));
    fixture.run_typing("YES\n", &requeue).await.assert_output(0, "requeue 2 jobs? [y/N] ");
    assert_eq!(fixture.job_states().await, json!({ "available": 2 }));
    let later = "update fleet.jobs set state = 'scheduled', run_at = now() + interval '1 hour'";
    sqlx::raw_sql(later).execute(fixture.pool()).await.unwrap();
    let run_now = ["jobs", "run-now", "--kind", "ingest"];
    fixture.run_typing("\n", &run_now).await.assert_output(1, "run 2 jobs? [y/N] error: nothing was done\n");
    assert_eq!(fixture.job_states().await, json!({ "scheduled": 2 }));
    fixture.run_typing("Y\n", &run_now).await.assert_output(0, "run 2 jobs? [y/N] ");
    assert_eq!(fixture.job_states().await, json!({ "available": 2 }));
}

#[tokio::test]
async fn one_job_is_asked_about_when_a_filter_found_it_and_not_when_it_was_named() {
    let fixture = CliFixture::new().await;
    let job = fixture.insert_jobs("ingest", 1).await[0].to_string();
    let found = ["jobs", "cancel", "--kind", "ingest"];
    let question = format!("cancel job {job}");
    fixture.run_vinops(&found).await.assert_output(
        2,
        &format!("error: this would {question}, and standard input is not a terminal\nhint: pass --yes to confirm\n"),
    );
    fixture.run_typing("n\n", &found).await.assert_output(1, &format!("{question}? [y/N] error: nothing was done\n"));
    assert_eq!(fixture.job_states().await, json!({ "available": 1 }));
    // with nothing to do there is nothing to ask
    let none = fixture.run_vinops(&["jobs", "cancel", "--kind", "fetch"]).await;
    none.assert_output(0, "");
    assert_eq!(none.out, "no job matches\n");
    fixture.run_vinops(&["jobs", "cancel", &job]).await.assert_output(0, "");
    assert_eq!(fixture.job_states().await, json!({ "cancelled": 1 }));
}

#[tokio::test]
async fn a_replay_is_asked_about() {
    let fixture = CliFixture::with_first_window().await;
    let (jobs, before) = (fixture.count_rows("fleet.jobs").await, fixture.stored_counts().await);
    let replay = ["replay", "2026-03-06T17:00Z"];
    let question = "replay window copart 2026-03-06 17:00 from ingest? [y/N] ";
    for (no, line) in [("n\n", ""), ("\n", ""), (CONTROL_D, "\n")] {
        fixture.run_typing(no, &replay).await.assert_output(1, &format!("{question}{line}error: nothing was done\n"));
    }
    assert_eq!(fixture.count_rows("fleet.jobs").await, jobs);
    fixture.run_typing("y\n", &replay).await.assert_output(0, question);
    assert_eq!(fixture.count_rows("fleet.jobs").await, jobs + 1);
    assert_eq!(fixture.stored_counts().await, before);
}
