//! Operator commands on jobs and kinds, and how workers obey them.

use crate::harness::*;
use std::collections::BTreeSet;
use std::time::Duration;
use vinops::queue::admin::{Actor, cancel_jobs, limit_kind, pause_kinds, requeue_jobs, resume_kinds, run_jobs_now};
use vinops::queue::manual::ManualWorker;
use vinops::queue::queries::{JobFilter, database_time, job_details, list_kind_settings, list_run_ends};
use vinops::queue::{EnqueueOptions, RunOutcome};

fn actor(why: &str) -> Actor {
    Actor::new("ada", why)
}

#[tokio::test]
async fn a_paused_kind_is_left_alone_until_it_is_resumed() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let probes = ["probe".to_owned()];
    assert_eq!(pause_kinds(pool, &probes, &actor("the yard is closed")).await.unwrap(), probes);
    assert!(pause_kinds(pool, &probes, &actor("again")).await.unwrap().is_empty());
    assert_eq!(list_kind_settings(pool).await.unwrap()[0].paused_because.as_deref(), Some("the yard is closed"));
    let paused = add_job(pool, probe_job(TestAction::Done)).await;
    let other = add_job(pool, BriefJob { act: TestAction::Done }).await;
    let depth: i64 = sqlx::query_scalar("select fleet.ready_depth()").fetch_one(pool).await.unwrap();
    assert_eq!(depth, 1, "what is paused calls for no worker");

    let mut worker = start_worker(&test.db, |worker| worker);
    assert_eq!(worker.next_end().await.job, other);
    assert_eq!(job_state(pool, paused).await, "available");
    // Resuming wakes a worker that would never poll.
    assert_eq!(resume_kinds(pool, &probes, &actor("open again")).await.unwrap(), probes);
    assert_eq!(worker.next_end().await.job, paused);
    assert!(list_kind_settings(pool).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_the_whole_fleet_holds_under_concurrent_claims() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    limit_kind(pool, "probe", Some(3), &actor("the feed allows three")).await.unwrap();
    let fill = "select count(fleet.enqueue('probe', '{\"act\":\"Done\"}')) from generate_series(1, 400)";
    sqlx::query(fill).execute(pool).await.unwrap();
    let mut hands = tokio::task::JoinSet::new();
    for n in 0..8 {
        let pool = pool.clone();
        let kinds = vec!["brief".to_owned(), "probe".to_owned()];
        let hand = ManualWorker { pool, name: format!("hand-{n}"), kinds, lease: ENDLESS_LEASE };
        hands.spawn(async move {
            let (mut done, mut most) = (0, 0);
            loop {
                let jobs = hand.claim_jobs(2).await.unwrap();
                let state = "select count(*) filter (where state = 'running'),
                    count(*) filter (where state = 'available') from fleet.jobs";
                let (running, waiting): (i64, i64) = sqlx::query_as(state).fetch_one(&hand.pool).await.unwrap();
                most = most.max(running);
                for job in &jobs {
                    hand.end_run(job, RunOutcome::Done, Duration::ZERO).await.unwrap();
                    done += 1;
                }
                if jobs.is_empty() && waiting == 0 {
                    return (done, most);
                }
            }
        });
    }
    let ended = with_timeout(hands.join_all()).await;
    assert_eq!(ended.iter().map(|(done, _)| done).sum::<i64>(), 400);
    assert_eq!(ended.iter().map(|(_, most)| *most).max(), Some(3), "never more than three, and all three used");
}

#[tokio::test]
async fn a_freed_slot_of_a_limited_kind_wakes_another_worker() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    limit_kind(pool, "probe", Some(1), &actor("one by one")).await.unwrap();
    let first = add_job(pool, probe_job(TestAction::Wait)).await;
    let worker = start_worker(&test.db, |worker| worker);
    assert_eq!(worker.gate.next_arrival().await, first);
    // Another worker, which never polls, finds no free slot and waits.
    let mut other = start_worker(&test.db, |worker| worker.with_kinds(&["probe", "brief"]));
    let brief = add_job(pool, BriefJob { act: TestAction::Done }).await;
    assert_eq!(other.next_end().await.job, brief);
    let second = add_job(pool, probe_job(TestAction::Done)).await;
    worker.begin_shutdown();
    worker.gate.open(1);
    assert_eq!(other.next_end().await.job, second);
}

#[tokio::test]
async fn a_worker_runs_no_more_of_a_kind_than_it_was_told() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let probes = [add_job(pool, probe_job(TestAction::Wait)).await, add_job(pool, probe_job(TestAction::Wait)).await];
    let brief = add_job(pool, BriefJob { act: TestAction::Done }).await;
    let mut worker =
        start_worker(&test.db, |worker| worker.with_concurrency(4).with_prefetch(4).with_kind_limit("probe", 1));
    assert_eq!(worker.gate.next_arrival().await, probes[0]);
    assert_eq!(worker.next_end().await.job, brief);
    assert_eq!(job_state(pool, probes[1]).await, "available");
    worker.gate.open(1);
    assert_eq!(worker.next_end().await.job, probes[0]);
    assert_eq!(worker.gate.next_arrival().await, probes[1]);
    worker.gate.open(1);
    worker.next_end().await;
}

#[tokio::test]
async fn only_cheap_kinds_are_claimed_ahead() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    for _ in 0..3 {
        add_job(pool, SlowRetryJob { act: TestAction::Wait }).await;
    }
    let worker = start_worker(&test.db, |worker| worker.with_prefetch(5));
    worker.gate.next_arrival().await;
    add_job(pool, probe_job(TestAction::Wait)).await;
    // The prefetchable job is claimed although no slot is free. Of the others only the running one is claimed.
    wait_until(pool, "select state = 'running' from fleet.jobs where kind = 'probe' and $1 = 0", 0).await;
    let running = "select count(*) from fleet.jobs where state = 'running' and kind = 'patient'";
    assert_eq!(sqlx::query_scalar::<_, i64>(running).fetch_one(pool).await.unwrap(), 1);
    worker.gate.open(4);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_its_key_is_free() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("a")).await.unwrap();
    let done = cancel_jobs(pool, &[job, 99], &actor("not wanted")).await.unwrap();
    assert_eq!(done.iter().map(|job| (job.id, job.running)).collect::<Vec<_>>(), [(job, false)]);
    let shown = job_details(pool, job).await.unwrap().unwrap();
    assert_eq!((&*shown.job.state, shown.job.error.as_deref()), ("cancelled", Some("cancelled by ada: not wanted")));
    let history = &shown.attempts[0];
    assert_eq!((history.outcome.as_deref(), &*history.worker), (Some("cancelled"), "ada"));
    assert!(add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("a")).await.is_some());
}

#[tokio::test]
async fn a_running_job_is_cut_off_its_writes_undone_and_its_statement_ended() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Sleep)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    wait_until(
        pool,
        "select count(*) = 1 from pg_stat_activity where datname = current_database()
        and query like 'select pg_sleep(60)%' and $1 = 0",
        0,
    )
    .await;
    assert!(cancel_jobs(pool, &[job], &actor("wrong file")).await.unwrap()[0].running);
    let end = worker.next_end().await;
    assert_eq!((end.job, end.outcome), (job, RunOutcome::Cancelled));
    assert_eq!(count_sleeping_steps(pool).await, 0, "the server works on for nobody");
    assert!(list_effects(pool).await.is_empty());
    assert_eq!(job_state(pool, job).await, "cancelled");
    assert_eq!(run_outcomes(pool, job).await, [Some("cancelled".to_owned())]);
    let error = job_details(pool, job).await.unwrap().unwrap().job.error;
    assert_eq!(error.as_deref(), Some("cancelled by ada: wrong file"));
    assert_eq!(worker.shut_down().await.cancelled, 1);
}

#[tokio::test]
async fn a_cancellation_nobody_told_of_is_found_by_the_renewal() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Hang)).await;
    let mut worker = start_worker(&test.db, |worker| worker.with_lease(RENEWED_LEASE));
    wait_until(pool, "select state = 'running' from fleet.jobs where id = $1", job).await;
    let silent = "update fleet.jobs set cancelling = 'cancelled by nobody: to see' where id = $1";
    sqlx::query(silent).bind(job).execute(pool).await.unwrap();
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Cancelled);
    assert_eq!(job_state(pool, job).await, "cancelled");
}

#[tokio::test]
async fn a_step_cannot_commit_once_its_job_is_to_be_cancelled() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Step)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.gate.next_arrival().await;
    let silent = "update fleet.jobs set cancelling = 'cancelled by nobody: to see' where id = $1";
    sqlx::query(silent).bind(job).execute(pool).await.unwrap();
    worker.gate.open(1);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Cancelled);
    assert!(list_effects(pool).await.is_empty());
    assert_eq!(run_outcomes(pool, job).await, [Some("cancelled".to_owned())]);
}

#[tokio::test]
async fn a_job_that_was_to_be_cancelled_when_its_worker_died_is_not_run_again() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Done)).await;
    let hand = |name: &str| ManualWorker {
        pool: pool.clone(),
        name: name.to_owned(),
        kinds: vec!["probe".to_owned()],
        lease: ENDLESS_LEASE,
    };
    assert_eq!(hand("doomed").claim_jobs(1).await.unwrap().len(), 1);
    assert!(cancel_jobs(pool, &[job], &actor("not wanted")).await.unwrap()[0].running);
    assert!(cancel_jobs(pool, &[job], &actor("twice")).await.unwrap().is_empty());
    sqlx::query("update fleet.jobs set lease_until = now() - interval '1 s'").execute(pool).await.unwrap();
    assert_eq!(hand("other").rescue_jobs().await.unwrap(), [job]);
    let row = job_details(pool, job).await.unwrap().unwrap();
    assert_eq!((&*row.job.state, row.job.rescues), ("cancelled", 1));
    assert_eq!(row.job.error.as_deref(), Some("cancelled by ada: not wanted; the lease of doomed ran out"));
}

#[tokio::test]
async fn a_timeout_ends_the_statement_before_the_job_may_run_again() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, BriefJob { act: TestAction::Sleep }).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    for last in [false, false, true] {
        let end = worker.next_end().await;
        assert_eq!((end.job, end.outcome, end.discarded), (job, RunOutcome::Timeout, last));
    }
    assert_eq!(count_sleeping_steps(pool).await, 0, "the server works on for nobody");
    assert!(list_effects(pool).await.is_empty());
}

#[tokio::test]
async fn what_waits_can_be_run_now_and_keeps_its_attempts() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let failed = add_job(pool, SlowRetryJob { act: TestAction::Fail }).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Retry);
    let later = database_time(pool).await.unwrap() + Duration::from_secs(3600);
    let scheduled =
        add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::default().with_run_at(later)).await.unwrap();
    assert_eq!(run_jobs_now(pool, &[failed, scheduled, 99], &actor("at once")).await.unwrap(), [failed, scheduled]);
    let ended = BTreeSet::from([worker.next_end().await.job, worker.next_end().await.job]);
    assert_eq!(ended, BTreeSet::from([failed, scheduled]));
    assert_eq!(job_details(pool, failed).await.unwrap().unwrap().job.attempt, 2);
}

#[tokio::test]
async fn many_are_requeued_and_of_one_key_only_the_newest() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let mut worker = start_worker(&test.db, |worker| worker);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(add_job_with(pool, probe_job(TestAction::Abort), EnqueueOptions::with_key("a")).await.unwrap());
        worker.next_end().await;
    }
    let blocked = add_job_with(pool, probe_job(TestAction::Abort), EnqueueOptions::with_key("b")).await.unwrap();
    worker.next_end().await;
    add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("b")).await.unwrap();
    worker.next_end().await;
    worker.shut_down().await;
    jobs.push(blocked);
    assert_eq!(requeue_jobs(pool, &jobs, &actor("all of them")).await.unwrap(), [jobs[2]]);
    assert_eq!(job_state(pool, jobs[2]).await, "available");
    assert_eq!(job_state(pool, blocked).await, "discarded");
}

#[tokio::test]
async fn every_act_is_noted_and_takes_no_more_than_the_operators_role() {
    let test = database_with_effects().await;
    let options = (*test.db.pool.connect_options()).clone();
    let ops = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    sqlx::query("set role vinops_ops").execute(&ops).await.unwrap();
    let job = add_job(&test.db.pool, probe_job(TestAction::Done)).await;
    let probes = ["probe".to_owned()];
    pause_kinds(&ops, &probes, &actor("1")).await.unwrap();
    resume_kinds(&ops, &probes, &actor("2")).await.unwrap();
    limit_kind(&ops, "probe", Some(2), &actor("3")).await.unwrap();
    cancel_jobs(&ops, &[job], &actor("4")).await.unwrap();
    assert_eq!(requeue_jobs(&ops, &[job], &actor("5")).await.unwrap(), [job]);
    sqlx::query("update fleet.jobs set state = 'scheduled', run_at = now() + interval '1 h'")
        .execute(&ops)
        .await
        .unwrap();
    run_jobs_now(&ops, &[job], &actor("6")).await.unwrap();
    let noted =
        "select array_agg(format('%s %s %s %s', who, action, subject, reason) order by id) from audit.operator_actions";
    let noted: Vec<String> = sqlx::query_scalar(noted).fetch_one(&ops).await.unwrap();
    let job = format!("job {job}");
    assert_eq!(
        noted,
        [
            "ada pause probe 1".to_owned(),
            "ada resume probe 2".to_owned(),
            "ada limit probe 3".to_owned(),
            format!("ada cancel {job} 4"),
            format!("ada requeue {job} 5"),
            format!("ada run-now {job} 6"),
        ]
    );
    assert!(sqlx::query("delete from fleet.jobs").execute(&ops).await.is_err());
}

#[tokio::test]
async fn ends_can_be_followed_as_they_happen() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let began = database_time(pool).await.unwrap();
    let mut worker = start_worker(&test.db, |worker| worker);
    let good = add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("copart/1")).await.unwrap();
    let bad = add_job(pool, probe_job(TestAction::Abort)).await;
    worker.next_end().await;
    worker.next_end().await;
    let seen = async |filter: JobFilter| {
        let ends = list_run_ends(pool, began, &filter).await.unwrap();
        ends.into_iter().map(|end| (end.job, end.outcome)).collect::<Vec<_>>()
    };
    assert_eq!(seen(JobFilter::default()).await, [(good, "done".to_owned()), (bad, "abort".to_owned())]);
    assert_eq!(seen(JobFilter { key: Some("copart/".into()), ..JobFilter::default() }).await.len(), 1);
    assert_eq!(seen(JobFilter { error: Some("no such".into()), ..JobFilter::default() }).await.len(), 1);
    assert_eq!(seen(JobFilter { states: vec!["running".into()], ..JobFilter::default() }).await.len(), 0);
}
