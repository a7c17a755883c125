//! Checks at the end of the chaos scenario: jobs of another program are not lost, and the ledger counts are those of an
//! undisturbed run.

use super::{ChaosScenario, LEASE_TIMEOUT, NOTIFY_TRIGGERS, WINDOWS, new_simulator, open_pool};
use crate::cluster::{ChaosCluster, run_sql};
use crate::fleet::{FleetLog, ProcessFleet};
use crate::ledger_counts::LedgerCounts;
use sqlx::postgres::PgListener;
use sqlx::{Connection, PgConnection};
use std::collections::BTreeMap;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vinops::scheduler::Scheduler;
use vinops::simulator::server::FeedServer;
use vinops::workers::JOBS;

/// Jobs that another program enqueues after each window, in a transaction of its own.
const EXTERNAL_JOBS: usize = 6;

impl ChaosScenario {
    /// Enqueues jobs as another program would, through the fleet's connection and with SQL only. Without an
    /// acknowledged commit the program would have to repeat. An acknowledged job must not be lost.
    pub async fn enqueue_external_jobs(&mut self, k: u32) {
        let keys: Vec<String> = (0..EXTERNAL_JOBS).map(|n| format!("again {k} {n}")).collect();
        let asked = async {
            let mut session = PgConnection::connect(&self.way_in).await?;
            sqlx::query(
                "select fleet.enqueue('ingest', jsonb_build_object('file_id', w.file_id), key)
                from unnest($1::text[]) as key
                cross join (select file_id from fleet.windows where state = 'applied' limit 1) as w",
            )
            .bind(&keys)
            .execute(&mut session)
            .await
        };
        if matches!(timeout(LEASE_TIMEOUT, asked).await, Ok(Ok(done)) if done.rows_affected() > 0) {
            self.knocked.extend(keys);
        }
    }

    /// Checks that only a full disk cost a window its file. Faults of processes and connections cost no attempt.
    pub async fn expect_only_disk_failures(&self) {
        let errors: Vec<(String, Option<String>)> =
            sqlx::query_as("select kind, error from fleet.jobs where state in ('discarded', 'cancelled')")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        let full = |error: &Option<String>| error.as_ref().is_some_and(|error| error.contains("No space left"));
        assert!(errors.iter().all(|(kind, error)| kind == "fetch" && full(error)), "{errors:?}");
    }

    /// Checks that each job took effect in exactly one transaction, however many runs it had.
    pub async fn expect_one_effect_each(&self) {
        let odd: Vec<(i64, String, i64)> = sqlx::query_as(
            "select id, kind, (select count(*) from effects where job = id) from fleet.jobs
            where (select count(*) from effects where job = id) <> (state = 'completed')::int",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        assert!(odd.is_empty(), "jobs, and how often they took effect: {odd:?}");
    }

    /// Checks that every acknowledged job of the other program is done once, and removes these jobs from the counts,
    /// since an undisturbed run has none.
    pub async fn expect_external_jobs(&self) {
        let done: Vec<String> = sqlx::query_scalar(
            "select key from fleet.jobs as job
            where key like 'again %' and state = 'completed'
              and (select count(*) from fleet.job_attempts where job_id = job.id and outcome = 'done') = 1",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let lost: Vec<&String> = self.knocked.iter().filter(|key| !done.contains(key)).collect();
        assert!(!self.knocked.is_empty() && lost.is_empty(), "lost: {lost:?} of {}", self.knocked.len());
        sqlx::query("delete from fleet.jobs where key like 'again %'").execute(&self.pool).await.unwrap();
    }

    pub async fn describe_run(&self, applied: usize) -> String {
        let (jobs, rescues, lost): (i64, i64, i64) = sqlx::query_as(
            "select count(*), sum(rescues)::bigint, (select count(*) from fleet.job_attempts where outcome = 'lost')
            from fleet.jobs",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        let (faults, log) = (self.inflicted.values().sum::<usize>(), &self.fleet.log);
        format!(
            "{faults} faults: {:?}\n{jobs} jobs, {} of them another program's; {rescues} leases rescued, {lost} runs lost, {} tried \
            again on the spot; {} outages met by workers, {} processes born without a database; longest outage to \
            recovery {:.1} s; {applied} of {WINDOWS} windows applied",
            self.inflicted,
            self.knocked.len(),
            log.count_lines("job run retried immediately"),
            log.count_lines("database unavailable"),
            self.stillborn,
            self.longest.as_secs_f64(),
        )
    }
}

pub(super) async fn compare_counts(
    play: &ChaosScenario,
    found: &LedgerCounts,
    wanted: &LedgerCounts,
    skipped: u32,
    applied: &[u32],
) {
    let missed: Vec<chrono::DateTime<chrono::Utc>> =
        sqlx::query_scalar("select window_start_utc from fleet.windows where state = 'missed'")
            .fetch_all(&play.pool)
            .await
            .unwrap();
    assert_eq!(missed, [play.window_start(skipped)]);
    assert_eq!(found.digest, wanted.digest);
    assert_eq!(comparable_counts(found), comparable_counts(wanted));
    let count = |name: &str| found.counts.get(name).copied().unwrap_or_default();
    assert_eq!(count("leases"), 0);
    assert_eq!(count("window applied"), applied.len() as i64);
    assert_eq!(count("job fetch completed"), applied.len() as i64);
    assert_eq!(count("window applied") + count("window failed") + 1, i64::from(WINDOWS));
    assert_eq!(count("job fetch discarded"), count("window failed"));
}

/// Returns the counts that must be the same whatever happened: all but those of windows, fetches and attempts.
pub fn comparable_counts(books: &LedgerCounts) -> BTreeMap<&str, i64> {
    let own = ["window ", "job fetch ", "attempts "];
    let counts = books.counts.iter().filter(|(name, _)| !own.iter().any(|own| name.starts_with(own)));
    counts.map(|(name, count)| (name.as_str(), *count)).collect()
}

/// Processes these windows with one undisturbed worker.
pub async fn run_undisturbed(cluster: &ChaosCluster, windows: &[u32], log: &FleetLog) -> LedgerCounts {
    let direct = cluster.create_database("peace").await;
    run_sql(&direct, NOTIFY_TRIGGERS).await;
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let feed = FeedServer::start(new_simulator(), stop.clone()).await.unwrap();
    let _stops = stop.drop_guard();
    let mut fleet = ProcessFleet::new(
        1,
        0,
        vec![
            ("DATABASE_URL", direct.clone()),
            ("VINOPS_STORE", url::Url::from_directory_path(folder.path()).unwrap().into()),
            ("HOME", folder.path().to_str().unwrap().to_owned()),
            ("COPART_FEED_URL", feed.url()),
        ],
        log,
    );
    let mut ear = PgListener::connect(&direct).await.unwrap();
    ear.listen("play").await.unwrap();
    fleet.spawn_member(0).await;
    let pool = open_pool(&direct);
    for k in windows {
        feed.advance_to(*k).await.unwrap();
        let at = feed.with_simulator(|simulator| simulator.options().window_start(*k));
        Scheduler::new(&JOBS[0], &["copart"]).simulated().enqueue_due_windows(&pool, Some(at)).await.unwrap();
        while !ear.recv().await.unwrap().payload().is_empty() {}
    }
    assert_eq!(fleet.shut_down().await, [Some(0)]);
    LedgerCounts::read(&pool).await
}
