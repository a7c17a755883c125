//! The pipeline fixture: a database, a store and a worker. A test passes bytes and gets the reports of their chain.
//!
//! The worker's events signal the end of a chain, after the commit. No test waits for time to pass. A job that fails
//! fails its test, with the job's own error.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;
use vinops::auction::difference::{ComparisonCounts, ComparisonProgress, ComparisonScope, RowDifference};
use vinops::db::digest::{DataDigest, compute_digest};
use vinops::queue::{Extensions, RunOutcome, Worker, WorkerEvent, admin};
use vinops::store::Store;
use vinops::testing::{TestDb, migrated_database};
use vinops::workers::JOBS;
use vinops::workers::auction::compare::compare_rows;
use vinops::workers::auction::download::Validators;
use vinops::workers::auction::receive::{FileReceipt, IncomingFile, register_file, store_bytes};
use vinops::workers::auction::sightings::RepeatOutcome;

/// Longer than any chain of these tests takes.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Parses a time in RFC 3339.
pub fn parse_time(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

/// A worker over its own database and a store in memory.
pub struct Pipeline {
    pub test: TestDb,
    pub store: Store,
    events: broadcast::Sender<WorkerEvent>,
    watch: broadcast::Receiver<WorkerEvent>,
    leave: Option<DropGuard>,
    /// The source of the received files.
    pub source: &'static str,
}

/// The reports of a file's chain, by kind of job.
pub struct CompletedChain {
    pub receipt: FileReceipt,
    pub reports: HashMap<String, Value>,
}

impl CompletedChain {
    /// Returns a number of one job's report, by a path such as `/skipped/vin_empty`.
    pub fn report_number(&self, kind: &str, path: &str) -> u64 {
        let report = self.reports.get(kind).unwrap_or_else(|| panic!("no report of {kind}"));
        report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {report}"))
    }

    /// Returns the state in the last job's report.
    pub fn final_state(&self) -> &str {
        let last = self.reports.get("detect-completion").or_else(|| self.reports.get("ingest"));
        last.and_then(|report| report["state"].as_str()).unwrap_or("unchanged")
    }
}

impl Pipeline {
    /// Creates a pipeline with a running worker.
    pub async fn new() -> Pipeline {
        let mut pipeline = Pipeline::without_worker().await;
        pipeline.start_worker();
        pipeline
    }

    /// Creates a pipeline without a running worker.
    pub async fn without_worker() -> Pipeline {
        let (events, watch) = broadcast::channel(10_000);
        let store = Store::open("memory:").unwrap();
        Pipeline { test: migrated_database().await, store, events, watch, leave: None, source: "copart" }
    }

    /// Starts the worker. It stops when the pipeline is dropped.
    pub fn start_worker(&mut self) {
        let leave = CancellationToken::new();
        let worker = Worker::new(&self.test.db, JOBS)
            .with_extensions(Extensions::new().with(self.store.clone()))
            .with_event_sender(self.events.clone());
        tokio::spawn(worker.run(leave.clone()));
        self.leave = Some(leave.drop_guard());
    }

    pub fn pool(&self) -> &PgPool {
        &self.test.db.pool
    }

    /// Receives a file. With `full`, its ingest stages every row.
    pub async fn receive_file(&self, bytes: &[u8], window: DateTime<Utc>, full: bool) -> FileReceipt {
        let mut writer = self.store.writer().unwrap();
        writer.write(Bytes::copy_from_slice(bytes)).await.unwrap();
        let spool = writer.finish().await.unwrap();
        let arrival = IncomingFile { source: self.source.into(), window, since: Validators::default(), spool };
        let kept = store_bytes(self.pool(), &self.store, arrival).await.unwrap();
        let mut tx = self.pool().begin().await.unwrap();
        let receipt = register_file(&mut tx, &kept).await.unwrap();
        if full {
            let payload =
                "update fleet.jobs set payload = payload || '{\"full\": true}' where kind = 'ingest' and key = $1";
            sqlx::query(payload).bind(receipt.file_id.to_string()).execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        receipt
    }

    /// Receives a file and waits for the end of its chain.
    pub async fn run_chain(&mut self, bytes: &[u8], window: DateTime<Utc>) -> CompletedChain {
        self.run_chain_with(bytes, window, false).await
    }

    /// Receives a file and waits for the end of its chain. With `full`, its ingest stages every row.
    pub async fn run_chain_with(&mut self, bytes: &[u8], window: DateTime<Utc>, full: bool) -> CompletedChain {
        let receipt = self.receive_file(bytes, window, full).await;
        let reports = match receipt.repetition {
            None | Some(RepeatOutcome::Again | RepeatOutcome::Unchanged) => {
                self.follow_chain(&receipt.sighting.job_key()).await
            }
            Some(RepeatOutcome::Known | RepeatOutcome::Quarantined) => HashMap::new(),
        };
        CompletedChain { receipt, reports }
    }

    /// Waits for the end of the chain whose jobs have this key.
    pub async fn follow_chain(&mut self, chain: &str) -> HashMap<String, Value> {
        let mut reports = HashMap::new();
        loop {
            let (_, kind, key, report) = self.next_end().await;
            if key != chain {
                continue;
            }
            let last = kind == "detect-completion" || report["state"] == "quarantined";
            reports.insert(kind, report);
            if last {
                return reports;
            }
        }
    }

    /// Waits for the end of these files' chains, in whatever order they end.
    pub async fn follow_all(&mut self, files: impl Iterator<Item = Uuid>) {
        let mut open: HashSet<String> = files.map(|file_id| file_id.to_string()).collect();
        while !open.is_empty() {
            let (_, kind, key, _) = self.next_end().await;
            if kind == "detect-completion" {
                open.remove(&key);
            }
        }
    }

    /// Requeues a job and waits until it has run again. Returns its report.
    pub async fn rerun_job(&mut self, job: i64) -> Value {
        admin::requeue_job(self.pool(), job, "a test", "to see that it changes nothing").await.unwrap();
        loop {
            let (ended, _, _, report) = self.next_end().await;
            if ended == job {
                return report;
            }
        }
    }

    /// Waits for the next completed job: id, kind, key, report.
    async fn next_end(&mut self) -> (i64, String, String, Value) {
        loop {
            let event =
                tokio::time::timeout(CHAIN_TIMEOUT, self.watch.recv()).await.expect("a job should end").unwrap();
            if let WorkerEvent::Ended { job, kind, key, outcome, report, error, .. } = event {
                match outcome {
                    RunOutcome::Done => {
                        return (job, kind.to_string(), key.unwrap_or_default().to_string(), report);
                    }
                    RunOutcome::Snooze => {}
                    other => panic!("{kind} ended as {other:?}: {error:?}"),
                }
            }
        }
    }

    pub async fn digest(&self) -> DataDigest {
        compute_digest(self.pool()).await.unwrap()
    }

    /// Compares all rows with their stored versions. Each difference is a line: kind, table, row, column, stored value,
    /// value of the versions, and the window's time.
    pub async fn compare_lots(&self) -> (ComparisonCounts, Vec<String>) {
        let found = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&found);
        let observer = Box::new(move |progress: ComparisonProgress| {
            kept.lock().unwrap().extend(progress.found.iter().map(difference_line));
        });
        let scope = ComparisonScope { sample: None, source: None };
        let counts = compare_rows(self.pool().clone(), scope, observer).await.unwrap();
        let found = std::mem::take(&mut *found.lock().unwrap());
        (counts, found)
    }

    /// Returns the number that a query selects.
    pub async fn query_number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(self.pool()).await.unwrap()
    }

    /// Returns the text that a query selects.
    pub async fn query_text(&self, query: &'static str) -> String {
        sqlx::query_scalar(query).fetch_one(self.pool()).await.unwrap()
    }

    /// Runs one or more statements.
    pub async fn run_sql(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(self.pool()).await.unwrap();
    }
}

fn difference_line(it: &RowDifference) -> String {
    let kind = format!("{:?}", it.kind).to_lowercase();
    let lot = it.lot.map(|lot| format!("{}/{lot}", it.source.as_deref().unwrap()));
    let row = it.vin.clone().or(lot).unwrap_or_default();
    let column = it.column.as_deref().unwrap_or_default();
    let window = it.window.map(|at| at.format("%H:%M").to_string()).unwrap_or_default();
    format!("{kind} {} {row} {column} {} {} {window}", it.table, it.stands, it.versions)
}
