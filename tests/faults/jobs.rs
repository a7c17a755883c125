//! Operator commands on jobs: by id or by filter, with confirmation, with a record of the action, and in JSON for
//! programs.

use super::cli_fixture::CliFixture;
use serde_json::{Value, json};
use vinops::queue::manual::ManualWorker;

impl CliFixture {
    /// Inserts jobs of a kind that no worker of this test claims.
    pub async fn insert_jobs(&self, kind: &str, jobs: i32) -> Vec<i64> {
        let put = "select fleet.enqueue($1, '{}', 'copart/' || $1 || n) from generate_series(1, $2) as n";
        sqlx::query_scalar(put).bind(kind).bind(jobs).fetch_all(self.pool()).await.unwrap()
    }

    pub async fn job_states(&self) -> Value {
        let states = "select jsonb_object_agg(state, jobs) from (select state, count(*) as jobs from fleet.jobs group by state) as s";
        sqlx::query_scalar(states).fetch_one(self.pool()).await.unwrap()
    }

    fn manual_worker(&self, kind: &str) -> ManualWorker {
        ManualWorker {
            pool: self.pool().clone(),
            name: "hand".to_owned(),
            kinds: vec![kind.to_owned()],
            lease: std::time::Duration::from_secs(60),
        }
    }
}

#[tokio::test]
async fn many_jobs_are_not_touched_without_a_yes() {
    let fixture = CliFixture::new().await;
    fixture.insert_jobs("ingest", 3).await;
    fixture.run_vinops(&["jobs", "cancel", "--kind", "ingest"]).await.assert_output(
        2,
        "error: this would cancel 3 jobs, and standard input is not a terminal\nhint: pass --yes to confirm\n",
    );
    assert_eq!(fixture.job_states().await, json!({ "available": 3 }));
    fixture.run_vinops(&["jobs", "requeue", "--yes"]).await.assert_output(
        2,
        "error: no jobs to requeue are selected, or both by id and by filter\n\
         hint: give ids of jobs, or a filter such as --kind or --error\n",
    );
    let said = fixture.run_vinops(&["jobs", "cancel", "--kind", "ingest", "--yes", "--why", "a test", "--json"]).await;
    said.assert_output(0, "");
    assert_eq!(said.json()["done"].as_array().unwrap().len(), 3);
    assert_eq!(fixture.job_states().await, json!({ "cancelled": 3 }));

    // Without a state, requeue selects cancelled jobs.
    let said = fixture.run_vinops(&["jobs", "requeue", "--key-prefix", "copart/", "--error", "a test", "--yes"]).await;
    said.assert_output(0, "");
    assert_eq!(said.out, "3 jobs are available again\n");
    let noted = "select array_agg(action || ': ' || subject || ', ' || reason order by id) from audit.operator_actions";
    let noted: Vec<String> = sqlx::query_scalar(noted).fetch_one(fixture.pool()).await.unwrap();
    assert_eq!(noted, ["cancel: 3 jobs, a test", "requeue: 3 jobs, manual"]);
}

#[tokio::test]
async fn one_job_is_steered_by_its_id_and_says_what_it_is() {
    let fixture = CliFixture::new().await;
    let job = fixture.insert_jobs("ingest", 1).await[0].to_string();
    let claimed = fixture.manual_worker("ingest").claim_jobs(1).await.unwrap();
    let said = fixture.run_vinops(&["jobs", "cancel", &job, "--why", "wrong file"]).await;
    assert_eq!(said.out, format!("job {job} is running; its worker has been asked to release it\n"));
    let again = fixture.run_vinops(&["jobs", "cancel", &job]).await;
    assert_eq!(again.code, Some(1));
    assert!(
        again.err.contains("is running and already cancelled by ") && again.err.ends_with(": wrong file\n"),
        "{}",
        again.err
    );
    fixture.run_vinops(&["jobs", "run-now", &job]).await.assert_output(
        1,
        &format!("error: job {job} (ingest) is running and already {}\n", {
            let cancelling = "select cancelling from fleet.jobs";
            sqlx::query_scalar::<_, String>(cancelling).fetch_one(fixture.pool()).await.unwrap()
        }),
    );
    assert!(!fixture.manual_worker("ingest").complete_step(&claimed[0]).await.unwrap());
    fixture
        .run_vinops(&["jobs", "requeue", "999"])
        .await
        .assert_output(1, "error: job 999 does not exist\nhint: `vinops jobs list` lists the jobs\n");
}

#[tokio::test]
async fn kinds_are_paused_limited_and_shown() {
    let fixture = CliFixture::new().await;
    fixture.insert_jobs("ingest", 2).await;
    fixture.run_vinops(&["jobs", "pause", "nonsense"]).await.assert_output(
        2,
        "error: unknown job kind \"nonsense\"; expected one of fetch, ingest, upsert-vehicles, upsert-lots, detect-completion\n",
    );
    assert_eq!(fixture.run_vinops(&["jobs", "pause", "ingest", "--why", "the disk"]).await.out, "ingest: paused\n");
    assert_eq!(fixture.run_vinops(&["jobs", "pause", "ingest"]).await.out, "ingest: was paused already\n");
    assert!(fixture.manual_worker("ingest").claim_jobs(2).await.unwrap().is_empty());
    assert_eq!(fixture.run_vinops(&["jobs", "limit", "ingest", "1"]).await.out, "ingest: at most 1 at once\n");
    let stats = fixture.run_vinops(&["jobs", "stats", "--json"]).await.json();
    assert_eq!(
        (&stats["kinds"][0]["paused_because"], &stats["kinds"][0]["max_running"]),
        (&json!("the disk"), &json!(1))
    );
    assert_eq!(stats["counts"][0]["jobs"], 2);
    assert_eq!(fixture.run_vinops(&["jobs", "resume", "ingest"]).await.out, "ingest: runs again\n");
    assert_eq!(fixture.manual_worker("ingest").claim_jobs(2).await.unwrap().len(), 1);
    assert_eq!(fixture.run_vinops(&["jobs", "limit", "ingest", "none"]).await.out, "ingest: any number at once\n");
    assert_eq!(fixture.manual_worker("ingest").claim_jobs(2).await.unwrap().len(), 1);
}

#[tokio::test]
async fn ends_are_followed_and_workers_listed() {
    let fixture = CliFixture::new().await;
    fixture.insert_jobs("ingest", 2).await;
    let hand = fixture.manual_worker("ingest");
    for job in hand.claim_jobs(2).await.unwrap() {
        hand.end_run(&job, vinops::queue::RunOutcome::Done, std::time::Duration::ZERO).await.unwrap();
    }
    let tail = ["jobs", "tail", "--since", "2020-01-01T00:00:00Z", "--kind", "ingest", "--limit", "2", "--json"];
    let said = fixture.run_vinops(&tail).await;
    said.assert_output(0, "");
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["outcome"], &lines[0]["state"], &lines[0]["worker"]),
        (&json!("done"), &json!("completed"), &json!("hand"))
    );

    let registered = "insert into fleet.workers (name, kinds, concurrency, lease, seen_at)
        values ('gone', '{ingest}', 4, interval '30 s', now() - interval '1 h')";
    sqlx::query(registered).execute(fixture.pool()).await.unwrap();
    let workers = fixture.run_vinops(&["workers", "--json"]).await.json();
    assert_eq!((&workers[0]["name"], &workers[0]["state"]), (&json!("gone"), &json!("lost")));
}
