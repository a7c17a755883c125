//! Workers that die, freeze or are busy, and jobs that kill their workers.

use crate::harness::*;
use std::process::Command;
use vinops::queue::{Extensions, RunOutcome, Worker};

#[tokio::test]
async fn the_job_of_a_killed_worker_is_taken_over_without_spending_an_attempt() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Done)).await;
    // Claimed by a dead process: no worker renews this lease.
    let killed = "update fleet.jobs set state = 'running', attempt = 1, run = 1, locked_by = 'host-1-dead',
        started_at = now(), lease_until = now() + interval '300 ms' where id = $1";
    sqlx::query(killed).bind(job).execute(pool).await.unwrap();

    let mut worker = start_worker(&test.db, |worker| worker.with_lease(SHORT_LEASE));
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    let after = "select attempt, rescues, run, extract(epoch from finished_at - created_at)::float8 from fleet.jobs";
    let (attempt, rescues, run, seconds): (i32, i32, i64, f64) = sqlx::query_as(after).fetch_one(pool).await.unwrap();
    assert_eq!((attempt, rescues, run), (1, 1, 2));
    assert!(seconds < 2.3, "{seconds} s: more than the lease and 2 s");
    assert_eq!(run_outcomes(pool, job).await, ["lost", "done"].map(|word| Some(word.to_owned())));
    assert_eq!(worker.shut_down().await.rescued, 1);
}

#[test]
fn a_worker_that_vanishes_in_the_middle_leaves_its_job_to_its_successor() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outer = runtime();
    let test = outer.block_on(database_with_effects());
    let job = outer.block_on(add_job(&test.db.pool, probe_job(TestAction::Wait)));

    let doomed = runtime();
    let url = test.url.clone();
    doomed.block_on(async {
        let db = vinops::db::Database::connect(&url, None, 4).await.unwrap();
        let worker = start_worker(&db, |worker| worker.with_lease(SHORT_LEASE));
        worker.gate.next_arrival().await;
    });
    doomed.shutdown_background();

    outer.block_on(async {
        let mut successor = start_worker(&test.db, |worker| worker.with_lease(SHORT_LEASE));
        assert_eq!(successor.gate.next_arrival().await, job);
        successor.gate.open(1);
        assert_eq!(successor.next_end().await.outcome, RunOutcome::Done);
        assert_eq!(run_outcomes(&test.db.pool, job).await, ["lost", "done"].map(|word| Some(word.to_owned())));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_job_keeps_its_lease_beside_idle_workers() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Wait)).await;
    let workers = [0, 1].map(|_| start_worker(&test.db, |worker| worker.with_lease(RENEWED_LEASE)));
    let renewed = "select lease_until > started_at + interval '2500 ms' from fleet.jobs where id = $1";
    wait_until(pool, renewed, job).await;
    workers.iter().for_each(|worker| worker.gate.open(1));
    wait_until(pool, "select state = 'completed' from fleet.jobs where id = $1", job).await;
    assert_eq!(run_outcomes(pool, job).await, [Some("done".to_owned())]);
    let rescued: u64 =
        futures::future::join_all(workers.map(|worker| worker.shut_down())).await.iter().map(|s| s.rescued).sum();
    assert_eq!(rescued, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_blocks_its_thread_keeps_its_lease() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Block)).await;
    let mut worker = start_worker(&test.db, |worker| worker.with_lease(RENEWED_LEASE));
    let renewed = "select lease_until > started_at + interval '2500 ms' from fleet.jobs where id = $1";
    wait_until(pool, renewed, job).await;
    worker.gate.open(1);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    assert_eq!(run_outcomes(pool, job).await, [Some("done".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claimed_jobs_that_wait_for_a_slot_keep_their_leases() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let mut jobs = Vec::new();
    for _ in 0..10 {
        jobs.push(add_job(pool, probe_job(TestAction::Wait)).await);
    }
    let workers = [0, 1].map(|_| start_worker(&test.db, |worker| worker.with_lease(RENEWED_LEASE).with_prefetch(10)));
    let renewed = "select min(lease_until - started_at) > interval '2500 ms' from fleet.jobs
        where state = 'running' having count(*) = 10 and $1 = 0";
    wait_until(pool, renewed, 0).await;
    workers.iter().for_each(|worker| worker.gate.open(10));
    wait_until(pool, "select count(*) filter (where state = 'completed') = 10 from fleet.jobs where $1 = 0", 0).await;
    let starts: i64 = sqlx::query_scalar("select count(*) from fleet.job_attempts").fetch_one(pool).await.unwrap();
    assert_eq!(starts, 10);
}

#[tokio::test]
async fn a_run_that_has_lost_its_lease_is_cut_off() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Hang)).await;
    let mut worker = start_worker(&test.db, |worker| worker.with_lease(SHORT_LEASE));
    wait_until(pool, "select state = 'running' from fleet.jobs where id = $1", job).await;
    let taken = "update fleet.jobs set run = run + 1, locked_by = 'successor', lease_until = now() + interval '1 hour'
        where id = $1";
    sqlx::query(taken).bind(job).execute(pool).await.unwrap();
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Lost);
    assert_eq!(job_state(pool, job).await, "running");
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_discarded_after_twenty_of_them() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Die)).await;
    // Nineteen workers have died already. Two more die for real.
    sqlx::query("update fleet.jobs set rescues = 19").execute(pool).await.unwrap();
    let me = std::env::current_exe().unwrap();
    let doomed = || async {
        let mut child = Command::new(&me);
        child.args(["--exact", "leases::a_doomed_worker", "--ignored"]).env("VINOPS_DOOMED_URL", &test.url);
        let died = with_timeout(tokio::task::spawn_blocking(move || child.output())).await.unwrap().unwrap();
        assert!(!died.status.success());
    };
    doomed().await;
    let rescuer = start_worker(&test.db, |worker| worker.with_lease(SHORT_LEASE).with_kinds(&["brief"]));
    wait_until(pool, "select state = 'available' and rescues = 20 from fleet.jobs where id = $1", job).await;
    doomed().await;
    wait_until(pool, "select state = 'discarded' from fleet.jobs where id = $1", job).await;
    let end: (String, i32) = sqlx::query_as("select error, attempt from fleet.jobs").fetch_one(pool).await.unwrap();
    assert!(end.0.ends_with("rescued 20 times, given up as a job that kills its workers"), "{}", end.0);
    assert_eq!(end.1, 0);
    rescuer.shut_down().await;
}

/// Runs as a child process of the test above, which loses it.
#[tokio::test]
#[ignore = "run by a_job_that_kills_its_workers_is_discarded_after_twenty_of_them"]
async fn a_doomed_worker() {
    #[expect(clippy::disallowed_methods, reason = "the parent's word to its child")]
    let Ok(url) = std::env::var("VINOPS_DOOMED_URL") else { return };
    let db = vinops::db::Database::connect(&url, None, 4).await.unwrap();
    let worker =
        Worker::new(&db, TEST_JOBS).with_kinds(&["probe"]).with_lease(SHORT_LEASE).with_extensions(Extensions::new());
    worker.run(tokio_util::sync::CancellationToken::new()).await.unwrap();
}
