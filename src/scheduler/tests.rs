//! The scheduler against a real database.

use super::*;
use crate::queue::{Job, JobResult, JobRun};
use crate::testing;
use serde::Deserialize;

#[derive(Serialize, Deserialize)]
struct FetchStub {
    source: String,
    window_start_utc: DateTime<Utc>,
}

impl Job for FetchStub {
    const KIND: &'static str = "fetch";
    type Report = ();
    async fn run(self, run: JobRun) -> JobResult<()> {
        run.done(()).await
    }
}

fn copart_scheduler() -> Scheduler {
    Scheduler::new(&JobDefinition::for_job::<FetchStub>(), &["copart"])
}

fn utc_time(time: &str) -> DateTime<Utc> {
    format!("2026-11-20T{time}:00Z").parse().unwrap()
}

async fn window_states(pool: &PgPool) -> Vec<(String, String)> {
    sqlx::query!(
        r#"select to_char(window_start_utc at time zone 'utc', 'HH24:MI') as "start!", state
        from fleet.windows
        order by window_start_utc"#
    )
    .fetch_all(pool)
    .await
    .unwrap()
    .into_iter()
    .map(|row| (row.start, row.state))
    .collect()
}

#[tokio::test]
async fn a_due_window_is_enqueued_once_under_its_key() {
    let test = testing::migrated_database().await;
    let first = copart_scheduler().enqueue_due_windows(&test.db.pool, Some(utc_time("14:37"))).await.unwrap();
    assert_eq!(first[0].window_start_utc, utc_time("14:30"));
    assert!(first[0].job.is_some());
    let again = copart_scheduler().enqueue_due_windows(&test.db.pool, Some(utc_time("14:44"))).await.unwrap();
    assert_eq!(again[0].job, None);

    let job = sqlx::query!("select kind, key, payload, max_attempts from fleet.jobs").fetch_one(&test.db.pool).await;
    let job = job.unwrap();
    assert_eq!((job.kind.as_str(), job.key.as_deref()), ("fetch", Some("copart/2026-11-20T14:30Z")));
    let payload: FetchStub = serde_json::from_value(job.payload).unwrap();
    assert_eq!((payload.source.as_str(), payload.window_start_utc), ("copart", utc_time("14:30")));
}

#[tokio::test]
async fn two_schedulers_at_once_give_one_job() {
    let test = testing::migrated_database().await;
    let scheduler = copart_scheduler();
    let calls = (0..8).map(|_| scheduler.enqueue_due_windows(&test.db.pool, Some(utc_time("14:37"))));
    let enqueued: usize =
        futures::future::join_all(calls).await.into_iter().filter(|due| due.as_ref().unwrap()[0].job.is_some()).count();
    assert_eq!(enqueued, 1);
    assert_eq!(window_states(&test.db.pool).await, [("14:30".to_owned(), "due".to_owned())]);
}

#[tokio::test]
async fn a_scheduler_that_dies_before_its_commit_leaves_the_window_to_the_next() {
    let test = testing::migrated_database().await;
    let mut dying = test.db.pool.begin().await.unwrap();
    sqlx::query!("insert into fleet.windows (source, window_start_utc) values ('copart', $1)", utc_time("14:30"))
        .execute(&mut *dying)
        .await
        .unwrap();
    let scheduler = copart_scheduler();
    let (due, _) = tokio::join!(scheduler.enqueue_due_windows(&test.db.pool, Some(utc_time("14:30"))), async {
        dying.rollback().await
    });
    assert!(due.unwrap()[0].job.is_some());
}

#[tokio::test]
async fn windows_that_passed_during_an_outage_are_missed_and_never_fetched() {
    let test = testing::migrated_database().await;
    copart_scheduler().enqueue_due_windows(&test.db.pool, Some(utc_time("14:00"))).await.unwrap();
    let due = copart_scheduler().enqueue_due_windows(&test.db.pool, Some(utc_time("15:01"))).await.unwrap();
    assert_eq!((due[0].window_start_utc, due[0].missed), (utc_time("15:00"), 3));
    let named: Vec<_> =
        window_states(&test.db.pool).await.into_iter().map(|(start, state)| start + " " + &state).collect();
    assert_eq!(named, ["14:00 due", "14:15 missed", "14:30 missed", "14:45 missed", "15:00 due"]);
    let jobs = sqlx::query_scalar!("select count(*) from fleet.jobs").fetch_one(&test.db.pool).await.unwrap();
    assert_eq!(jobs, Some(2));
}

#[tokio::test]
async fn a_fetch_that_nobody_took_in_its_window_is_cancelled_and_the_window_missed() {
    let test = testing::migrated_database().await;
    copart_scheduler().enqueue_due_windows(&test.db.pool, Some(utc_time("14:00"))).await.unwrap();
    sqlx::query!("update fleet.windows set window_start_utc = '2026-01-01T00:00Z'")
        .execute(&test.db.pool)
        .await
        .unwrap();
    sqlx::query!("update fleet.jobs set key = 'copart/2026-01-01T00:00Z', payload = '{}'")
        .execute(&test.db.pool)
        .await
        .unwrap();
    let current = copart_scheduler().enqueue_due_windows(&test.db.pool, None).await.unwrap();
    assert!(current[0].job.is_some());

    assert_eq!(copart_scheduler().expire_windows(&test.db.pool).await.unwrap(), 1);
    assert_eq!(copart_scheduler().expire_windows(&test.db.pool).await.unwrap(), 0);
    let states =
        sqlx::query_scalar!("select state from fleet.jobs order by id").fetch_all(&test.db.pool).await.unwrap();
    assert_eq!(states, ["cancelled", "available"]);
    assert_eq!(window_states(&test.db.pool).await[0].1, "missed");
}

#[test]
fn the_next_waking_is_ten_to_thirty_seconds_into_the_next_window() {
    let wakings = [0.0, 1.0].map(|luck| utc_time("14:37") + copart_scheduler().next_delay(utc_time("14:37"), luck));
    assert_eq!(wakings, [utc_time("14:45") + Duration::from_secs(10), utc_time("14:45") + Duration::from_secs(30)]);
}

/// Starts a proxy to PostgreSQL that closes the first `times` connections and forwards all later ones.
///
/// Returns its address and the number of connections so far.
async fn flaky_proxy(server: String, times: usize) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let came = std::sync::Arc::new(AtomicUsize::new(0));
    let counts = came.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            if counts.fetch_add(1, Ordering::SeqCst) >= times {
                let mut server = tokio::net::TcpStream::connect(&server).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
            }
        }
    });
    (address, came)
}

#[tokio::test]
async fn a_scheduler_without_its_database_stays_and_schedules_when_it_is_back() {
    let test = testing::migrated_database().await;
    let mut listener = test.db.connect_listener().await.unwrap();
    listener.listen("fleet").await.unwrap();
    let mut url: url::Url = test.url.parse().unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let (door, came) = flaky_proxy(server, 2).await;
    let (host, port) = door.split_once(':').unwrap();
    url.set_host(Some(host)).unwrap();
    url.set_port(Some(port.parse().unwrap())).unwrap();
    let away = sqlx::postgres::PgPoolOptions::new().max_connections(2).connect_lazy(url.as_str()).unwrap();
    let leave = CancellationToken::new();
    let running = tokio::spawn({
        let (leave, scheduler) = (leave.clone(), copart_scheduler().with_wakeup(Duration::ZERO, Duration::ZERO));
        async move { scheduler.run(&away, leave).await }
    });
    assert_eq!(listener.recv().await.unwrap().payload(), "fetch");
    assert!(came.load(std::sync::atomic::Ordering::SeqCst) > 2);
    leave.cancel();
    running.await.unwrap();
    assert_eq!(window_states(&test.db.pool).await.len(), 1);
}

#[test]
fn a_scheduler_started_early_in_a_window_waits_for_the_file_and_one_started_late_does_not() {
    let scheduler = copart_scheduler();
    let young = utc_time("14:30") + Duration::from_secs(3);
    assert_eq!(scheduler.first_delay(young, 0.5), Duration::from_secs(17));
    assert_eq!(scheduler.first_delay(utc_time("14:31"), 1.0), Duration::ZERO);
}
