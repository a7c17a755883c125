//! Operator commands on jobs and kinds, and how workers obey them.

use crate::harness::*;
use std::collections::BTreeSet;
use std::time::Duration;
use vinops::queue::hand::Hand;
use vinops::queue::operate::{Filter, ends, kinds, now, show};
use vinops::queue::steer::{By, cancel, limit, pause, requeue_all, resume, run_now};
use vinops::queue::{Enqueue, Outcome};

fn by(why: &str) -> By {
    By::new("ada", why)
}

#[tokio::test]
async fn a_paused_kind_is_left_alone_until_it_is_resumed() {
    let test = database().await;
    let pool = &test.db.pool;
    let probes = ["probe".to_owned()];
    assert_eq!(pause(pool, &probes, &by("the yard is closed")).await.unwrap(), probes);
    assert!(pause(pool, &probes, &by("again")).await.unwrap().is_empty());
    assert_eq!(kinds(pool).await.unwrap()[0].paused_because.as_deref(), Some("the yard is closed"));
    let paused = put(pool, probe(Act::Done)).await;
    let other = put(pool, Brief { act: Act::Done }).await;
    let depth: i64 = sqlx::query_scalar("select fleet.ready_depth()").fetch_one(pool).await.unwrap();
    assert_eq!(depth, 1, "what is paused calls for no worker");

    let mut worker = start(&test.db, |worker| worker);
    assert_eq!(worker.ended().await.job, other);
    assert_eq!(state(pool, paused).await, "available");
    // Resuming wakes a worker that would never poll.
    assert_eq!(resume(pool, &probes, &by("open again")).await.unwrap(), probes);
    assert_eq!(worker.ended().await.job, paused);
    assert!(kinds(pool).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_the_whole_fleet_holds_under_concurrent_claims() {
    let test = database().await;
    let pool = &test.db.pool;
    limit(pool, "probe", Some(3), &by("the feed allows three")).await.unwrap();
    let fill = "select count(fleet.enqueue('probe', '{\"act\":\"Done\"}')) from generate_series(1, 400)";
    sqlx::query(fill).execute(pool).await.unwrap();
    let mut hands = tokio::task::JoinSet::new();
    for n in 0..8 {
        let pool = pool.clone();
        let kinds = vec!["brief".to_owned(), "probe".to_owned()];
        let hand = Hand { pool, name: format!("hand-{n}"), kinds, lease: NEVER };
        hands.spawn(async move {
            let (mut done, mut most) = (0, 0);
            loop {
                let jobs = hand.claim(2).await.unwrap();
                let state = "select count(*) filter (where state = 'running'),
                    count(*) filter (where state = 'available') from fleet.jobs";
                let (running, waiting): (i64, i64) =
                    sqlx::query_as(state).fetch_one(&hand.pool).await.unwrap();
                most = most.max(running);
                for job in &jobs {
                    hand.end(job, Outcome::Done, Duration::ZERO).await.unwrap();
                    done += 1;
                }
                if jobs.is_empty() && waiting == 0 {
                    return (done, most);
                }
            }
        });
    }
    let ended = within(hands.join_all()).await;
    assert_eq!(ended.iter().map(|(done, _)| done).sum::<i64>(), 400);
    assert_eq!(
        ended.iter().map(|(_, most)| *most).max(),
        Some(3),
        "never more than three, and all three used"
    );
}

#[tokio::test]
async fn a_freed_slot_of_a_limited_kind_wakes_another_worker() {
    let test = database().await;
    let pool = &test.db.pool;
    limit(pool, "probe", Some(1), &by("one by one")).await.unwrap();
    let first = put(pool, probe(Act::Wait)).await;
    let worker = start(&test.db, |worker| worker);
    assert_eq!(worker.gate.arrival().await, first);
    // Another worker, which never polls, finds no free slot and waits.
    let mut other = start(&test.db, |worker| worker.kinds(&["probe", "brief"]));
    let brief = put(pool, Brief { act: Act::Done }).await;
    assert_eq!(other.ended().await.job, brief);
    let second = put(pool, probe(Act::Done)).await;
    worker.leave();
    worker.gate.open(1);
    assert_eq!(other.ended().await.job, second);
}

#[tokio::test]
async fn a_worker_runs_no_more_of_a_kind_than_it_was_told() {
    let test = database().await;
    let pool = &test.db.pool;
    let probes = [put(pool, probe(Act::Wait)).await, put(pool, probe(Act::Wait)).await];
    let brief = put(pool, Brief { act: Act::Done }).await;
    let mut worker = start(&test.db, |worker| worker.concurrency(4).prefetch(4).at_most("probe", 1));
    assert_eq!(worker.gate.arrival().await, probes[0]);
    assert_eq!(worker.ended().await.job, brief);
    assert_eq!(state(pool, probes[1]).await, "available");
    worker.gate.open(1);
    assert_eq!(worker.ended().await.job, probes[0]);
    assert_eq!(worker.gate.arrival().await, probes[1]);
    worker.gate.open(1);
    worker.ended().await;
}

#[tokio::test]
async fn only_cheap_kinds_are_claimed_ahead() {
    let test = database().await;
    let pool = &test.db.pool;
    for _ in 0..3 {
        put(pool, Patient { act: Act::Wait }).await;
    }
    let worker = start(&test.db, |worker| worker.prefetch(5));
    worker.gate.arrival().await;
    put(pool, probe(Act::Wait)).await;
    // The prefetchable job is claimed although no slot is free. Of the others only the running one is claimed.
    until(pool, "select state = 'running' from fleet.jobs where kind = 'probe' and $1 = 0", 0).await;
    let running = "select count(*) from fleet.jobs where state = 'running' and kind = 'patient'";
    assert_eq!(sqlx::query_scalar::<_, i64>(running).fetch_one(pool).await.unwrap(), 1);
    worker.gate.open(4);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_its_key_is_free() {
    let test = database().await;
    let pool = &test.db.pool;
    let job = put_as(pool, probe(Act::Done), Enqueue::once("a")).await.unwrap();
    let done = cancel(pool, &[job, 99], &by("not wanted")).await.unwrap();
    assert_eq!(done.iter().map(|job| (job.id, job.running)).collect::<Vec<_>>(), [(job, false)]);
    let shown = show(pool, job).await.unwrap().unwrap();
    assert_eq!(
        (&*shown.job.state, shown.job.error.as_deref()),
        ("cancelled", Some("cancelled by ada: not wanted"))
    );
    let history = &shown.attempts[0];
    assert_eq!((history.outcome.as_deref(), &*history.worker), (Some("cancelled"), "ada"));
    assert!(put_as(pool, probe(Act::Done), Enqueue::once("a")).await.is_some());
}

#[tokio::test]
async fn a_running_job_is_cut_off_its_writes_undone_and_its_statement_ended() {
    let test = database().await;
    let pool = &test.db.pool;
    let job = put(pool, probe(Act::Sleep)).await;
    let mut worker = start(&test.db, |worker| worker);
    until(
        pool,
        "select count(*) = 1 from pg_stat_activity where datname = current_database()
        and query like 'select pg_sleep(60)%' and $1 = 0",
        0,
    )
    .await;
    assert!(cancel(pool, &[job], &by("wrong file")).await.unwrap()[0].running);
    let end = worker.ended().await;
    assert_eq!((end.job, end.outcome), (job, Outcome::Cancelled));
    assert_eq!(sleeping(pool).await, 0, "the server works on for nobody");
    assert!(effects(pool).await.is_empty());
    assert_eq!(state(pool, job).await, "cancelled");
    assert_eq!(outcomes(pool, job).await, [Some("cancelled".to_owned())]);
    let error = show(pool, job).await.unwrap().unwrap().job.error;
    assert_eq!(error.as_deref(), Some("cancelled by ada: wrong file"));
    assert_eq!(worker.left().await.cancelled, 1);
}

#[tokio::test]
async fn a_cancellation_nobody_told_of_is_found_by_the_renewal() {
    let test = database().await;
    let pool = &test.db.pool;
    let job = put(pool, probe(Act::Hang)).await;
    let mut worker = start(&test.db, |worker| worker.lease(KEPT));
    until(pool, "select state = 'running' from fleet.jobs where id = $1", job).await;
    let silent = "update fleet.jobs set cancelling = 'cancelled by nobody: to see' where id = $1";
    sqlx::query(silent).bind(job).execute(pool).await.unwrap();
    assert_eq!(worker.ended().await.outcome, Outcome::Cancelled);
    assert_eq!(state(pool, job).await, "cancelled");
}

#[tokio::test]
async fn a_step_cannot_commit_once_its_job_is_to_be_cancelled() {
    let test = database().await;
    let pool = &test.db.pool;
    let job = put(pool, probe(Act::Step)).await;
    let mut worker = start(&test.db, |worker| worker);
    worker.gate.arrival().await;
    let silent = "update fleet.jobs set cancelling = 'cancelled by nobody: to see' where id = $1";
    sqlx::query(silent).bind(job).execute(pool).await.unwrap();
    worker.gate.open(1);
    assert_eq!(worker.ended().await.outcome, Outcome::Cancelled);
    assert!(effects(pool).await.is_empty());
    assert_eq!(outcomes(pool, job).await, [Some("cancelled".to_owned())]);
}

#[tokio::test]
async fn a_job_that_was_to_be_cancelled_when_its_worker_died_is_not_run_again() {
    let test = database().await;
    let pool = &test.db.pool;
    let job = put(pool, probe(Act::Done)).await;
    let hand = |name: &str| Hand {
        pool: pool.clone(),
        name: name.to_owned(),
        kinds: vec!["probe".to_owned()],
        lease: NEVER,
    };
    assert_eq!(hand("doomed").claim(1).await.unwrap().len(), 1);
    assert!(cancel(pool, &[job], &by("not wanted")).await.unwrap()[0].running);
    assert!(cancel(pool, &[job], &by("twice")).await.unwrap().is_empty());
    sqlx::query("update fleet.jobs set lease_until = now() - interval '1 s'").execute(pool).await.unwrap();
    assert_eq!(hand("other").rescue().await.unwrap(), [job]);
    let row = show(pool, job).await.unwrap().unwrap();
    assert_eq!((&*row.job.state, row.job.rescues), ("cancelled", 1));
    assert_eq!(row.job.error.as_deref(), Some("cancelled by ada: not wanted; the lease of doomed ran out"));
}

#[tokio::test]
async fn a_timeout_ends_the_statement_before_the_job_may_run_again() {
    let test = database().await;
    let pool = &test.db.pool;
    let job = put(pool, Brief { act: Act::Sleep }).await;
    let mut worker = start(&test.db, |worker| worker);
    for last in [false, false, true] {
        let end = worker.ended().await;
        assert_eq!((end.job, end.outcome, end.discarded), (job, Outcome::Timeout, last));
    }
    assert_eq!(sleeping(pool).await, 0, "the server works on for nobody");
    assert!(effects(pool).await.is_empty());
}

#[tokio::test]
async fn what_waits_can_be_run_now_and_keeps_its_attempts() {
    let test = database().await;
    let pool = &test.db.pool;
    let failed = put(pool, Patient { act: Act::Fail }).await;
    let mut worker = start(&test.db, |worker| worker);
    assert_eq!(worker.ended().await.outcome, Outcome::Retry);
    let later = now(pool).await.unwrap() + Duration::from_secs(3600);
    let scheduled = put_as(pool, probe(Act::Done), Enqueue::default().at(later)).await.unwrap();
    assert_eq!(run_now(pool, &[failed, scheduled, 99], &by("at once")).await.unwrap(), [failed, scheduled]);
    let ended = BTreeSet::from([worker.ended().await.job, worker.ended().await.job]);
    assert_eq!(ended, BTreeSet::from([failed, scheduled]));
    assert_eq!(show(pool, failed).await.unwrap().unwrap().job.attempt, 2);
}

#[tokio::test]
async fn many_are_requeued_and_of_one_key_only_the_newest() {
    let test = database().await;
    let pool = &test.db.pool;
    let mut worker = start(&test.db, |worker| worker);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(put_as(pool, probe(Act::Abort), Enqueue::once("a")).await.unwrap());
        worker.ended().await;
    }
    let blocked = put_as(pool, probe(Act::Abort), Enqueue::once("b")).await.unwrap();
    worker.ended().await;
    put_as(pool, probe(Act::Done), Enqueue::once("b")).await.unwrap();
    worker.ended().await;
    worker.left().await;
    jobs.push(blocked);
    assert_eq!(requeue_all(pool, &jobs, &by("all of them")).await.unwrap(), [jobs[2]]);
    assert_eq!(state(pool, jobs[2]).await, "available");
    assert_eq!(state(pool, blocked).await, "discarded");
}

#[tokio::test]
async fn every_act_is_noted_and_takes_no_more_than_the_operators_role() {
    let test = database().await;
    let options = (*test.db.pool.connect_options()).clone();
    let ops = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    sqlx::query("set role vinops_ops").execute(&ops).await.unwrap();
    let job = put(&test.db.pool, probe(Act::Done)).await;
    let probes = ["probe".to_owned()];
    pause(&ops, &probes, &by("1")).await.unwrap();
    resume(&ops, &probes, &by("2")).await.unwrap();
    limit(&ops, "probe", Some(2), &by("3")).await.unwrap();
    cancel(&ops, &[job], &by("4")).await.unwrap();
    assert_eq!(requeue_all(&ops, &[job], &by("5")).await.unwrap(), [job]);
    sqlx::query("update fleet.jobs set state = 'scheduled', run_at = now() + interval '1 h'")
        .execute(&ops)
        .await
        .unwrap();
    run_now(&ops, &[job], &by("6")).await.unwrap();
    let noted = "select array_agg(format('%s %s %s %s', who, action, subject, reason) order by id) from audit.operator_actions";
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
    let test = database().await;
    let pool = &test.db.pool;
    let began = now(pool).await.unwrap();
    let mut worker = start(&test.db, |worker| worker);
    let good = put_as(pool, probe(Act::Done), Enqueue::once("copart/1")).await.unwrap();
    let bad = put(pool, probe(Act::Abort)).await;
    worker.ended().await;
    worker.ended().await;
    let seen = async |filter: Filter| {
        let ends = ends(pool, began, &filter).await.unwrap();
        ends.into_iter().map(|end| (end.job, end.outcome)).collect::<Vec<_>>()
    };
    assert_eq!(seen(Filter::default()).await, [(good, "done".to_owned()), (bad, "abort".to_owned())]);
    assert_eq!(seen(Filter { key: Some("copart/".into()), ..Filter::default() }).await.len(), 1);
    assert_eq!(seen(Filter { error: Some("no such".into()), ..Filter::default() }).await.len(), 1);
    assert_eq!(seen(Filter { states: vec!["running".into()], ..Filter::default() }).await.len(), 0);
}
