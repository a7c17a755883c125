//! Operators' queries of jobs, and their commands.

use crate::harness::*;
use vinops::queue::admin::requeue_job;
use vinops::queue::queries::{JobFilter, job_details, job_stats, list_jobs};
use vinops::queue::{EnqueueOptions, RunOutcome};

#[tokio::test]
async fn a_discarded_job_is_requeued_with_its_history_and_who_and_why() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Abort)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.next_end().await;
    requeue_job(pool, job, "ada", "the yard is back").await.unwrap();
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Abort);

    let shown = job_details(pool, job).await.unwrap().unwrap();
    assert_eq!((shown.job.state.as_str(), shown.job.attempt), ("discarded", 1));
    let history: Vec<_> = shown.attempts.iter().map(|a| (a.run, a.outcome.as_deref().unwrap())).collect();
    assert_eq!(history, [(1, "abort"), (2, "requeued"), (3, "abort")]);
    assert_eq!(
        (shown.attempts[1].worker.as_str(), shown.attempts[1].error.as_deref()),
        ("ada", Some("the yard is back"))
    );
    let json = serde_json::to_value(&shown).unwrap();
    assert_eq!((&json["id"], &json["attempts"][0]["outcome"]), (&job.into(), &"abort".into()));
}

#[tokio::test]
async fn a_completed_job_that_is_requeued_keeps_the_run_that_its_row_told() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Done)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.next_end().await;
    let first = job_details(pool, job).await.unwrap().unwrap().attempts;
    requeue_job(pool, job, "ada", "once more").await.unwrap();
    worker.next_end().await;

    let shown = job_details(pool, job).await.unwrap().unwrap();
    let history: Vec<_> = shown.attempts.iter().map(|a| (a.run, a.attempt, a.outcome.as_deref().unwrap())).collect();
    assert_eq!(history, [(1, 1, "done"), (2, 0, "requeued"), (3, 1, "done")]);
    let output = |run: &vinops::queue::queries::AttemptRow| {
        (run.worker.clone(), run.started_at, run.finished_at, run.error.clone())
    };
    assert_eq!(output(&first[0]), output(&shown.attempts[0]));
}

#[tokio::test]
async fn what_cannot_be_requeued_says_what_is_possible() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let said = async |job| requeue_job(pool, job, "ada", "why not").await.unwrap_err().to_string();
    assert_eq!(said(99).await, "job 99 does not exist\nhint: `vinops jobs list` lists the jobs");

    let first = add_job_with(pool, probe_job(TestAction::Abort), EnqueueOptions::with_key("a")).await.unwrap();
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.next_end().await;
    add_job_with(pool, probe_job(TestAction::Wait), EnqueueOptions::with_key("a")).await.unwrap();
    let running = worker.gate.next_arrival().await;
    assert!(
        said(first)
            .await
            .starts_with(&format!("job {first} cannot be requeued\ndetail: another job of its kind and key"))
    );
    assert!(
        said(running).await.starts_with(&format!("job {running} (probe) is running and cannot be requeued\nhint: "))
    );
    worker.gate.open(1);
    worker.next_end().await;
}

#[tokio::test]
async fn lists_and_counts_are_filtered_and_the_oldest_due_job_is_known() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let jobs = [
        add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("copart/1")).await.unwrap(),
        add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("iaai/1")).await.unwrap(),
        add_job(pool, BriefJob { act: TestAction::Done }).await,
    ];
    sqlx::query("update fleet.jobs set run_at = now() - interval '90 s' where id = $1")
        .bind(jobs[0])
        .execute(pool)
        .await
        .unwrap();
    let ids =
        async |filter: JobFilter| list_jobs(pool, &filter).await.unwrap().iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(ids(JobFilter::default()).await, [jobs[2], jobs[1], jobs[0]]);
    assert_eq!(ids(JobFilter { limit: Some(1), ..JobFilter::default() }).await, [jobs[2]]);
    assert_eq!(ids(JobFilter { kinds: vec!["brief".into()], ..JobFilter::default() }).await, [jobs[2]]);
    assert_eq!(ids(JobFilter { key: Some("copart/".into()), ..JobFilter::default() }).await, [jobs[0]]);
    assert!(ids(JobFilter { states: vec!["running".into()], ..JobFilter::default() }).await.is_empty());

    let counts = job_stats(pool).await.unwrap();
    let seen: Vec<_> = counts.iter().map(|c| (c.kind.as_str(), c.state.as_str(), c.jobs, c.ready)).collect();
    assert_eq!(seen, [("brief", "available", 1, 1), ("probe", "available", 2, 2)]);
    assert!(counts[1].oldest_ready_seconds.unwrap() >= 90.0);
}
