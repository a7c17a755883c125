//! Jobs whose payload defines what they do, a gate that blocks them, and a worker that runs them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vinops::db::Database;
use vinops::queue::{
    EnqueueOptions, Extensions, Job, JobDefinition, JobPolicy, JobResult, JobRun, RunOutcome, Worker, WorkerEvent,
    WorkerSummary, abort, enqueue_job, snooze,
};

/// A lease so long that no test reaches its end or its renewal.
pub const ENDLESS_LEASE: Duration = Duration::from_secs(600);
/// A lease that ends within a test.
pub const SHORT_LEASE: Duration = Duration::from_millis(300);
/// A lease that is renewed within a test. A worker on a busy machine does not lose it.
pub const RENEWED_LEASE: Duration = Duration::from_secs(2);
/// Longer than any step of these tests takes.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

pub const TEST_JOBS: &[JobDefinition] = &[
    JobDefinition::for_job::<ProbeJob>().with_aliases(&["probe-as-it-was"]),
    JobDefinition::for_job::<BriefJob>(),
    JobDefinition::for_job::<SlowRetryJob>(),
];

/// The behaviour of a test job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TestAction {
    Done,
    Fail,
    Abort,
    Snooze(f64),
    Panic,
    Hang,
    /// Ends when the gate opens.
    Wait,
    /// Waits at the gate within a step that writes a row.
    Step,
    /// Runs a step that writes a row, and reports the server process that executed it.
    Write,
    /// Sleeps at the server, in a step.
    Sleep,
    /// Blocks a thread of `spawn_blocking` until the gate opens.
    Block,
    /// Aborts the process.
    Die,
    /// Reports a value that PostgreSQL cannot store.
    Nul,
    /// Writes a value that PostgreSQL always rejects: a data exception, or one too long for an index.
    Unfit(RejectedValue),
}

/// Values that PostgreSQL always rejects.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum RejectedValue {
    Data,
    Length,
}

/// The default test job: three attempts, short delays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeJob {
    pub act: TestAction,
}

impl Job for ProbeJob {
    const KIND: &'static str = "probe";
    const POLICY: JobPolicy = JobPolicy::DEFAULT
        .with_attempts(3)
        .with_backoff(Duration::from_millis(40), Duration::from_millis(100))
        .prefetchable();
    type Report = Value;

    async fn run(self, run: JobRun) -> JobResult<Value> {
        perform_action(self.act, run).await
    }
}

/// A test job with a timeout of 50 ms.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BriefJob {
    pub act: TestAction,
}

impl Job for BriefJob {
    const KIND: &'static str = "brief";
    const POLICY: JobPolicy = ProbeJob::POLICY.with_timeout(Duration::from_millis(50));
    type Report = Value;

    async fn run(self, run: JobRun) -> JobResult<Value> {
        perform_action(self.act, run).await
    }
}

/// A test job with delays of an hour, which is not claimed ahead.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SlowRetryJob {
    pub act: TestAction,
}

impl Job for SlowRetryJob {
    const KIND: &'static str = "patient";
    const POLICY: JobPolicy =
        JobPolicy::DEFAULT.with_attempts(3).with_backoff(Duration::from_secs(3600), Duration::from_secs(3600));
    type Report = Value;

    async fn run(self, run: JobRun) -> JobResult<Value> {
        perform_action(self.act, run).await
    }
}

async fn perform_action(act: TestAction, run: JobRun) -> JobResult<Value> {
    let job = run.job().id;
    match act {
        TestAction::Done => run.done(json!({ "attempt": run.job().attempt })).await,
        TestAction::Fail => {
            let error = anyhow::anyhow!("the yard is closed").context(format!("attempt {}", run.job().attempt));
            Err(error.into())
        }
        TestAction::Abort => Err(abort(anyhow::anyhow!("no such yard"))),
        TestAction::Snooze(seconds) if run.job().run < 3 => Err(snooze(Duration::from_secs_f64(seconds))),
        TestAction::Snooze(_) => run.done(json!({})).await,
        TestAction::Panic => panic!("kaboom"),
        TestAction::Hang => std::future::pending().await,
        TestAction::Unfit(unfit) => {
            let mut step = run.begin_step().await?;
            let statement = match unfit {
                RejectedValue::Data => "select 'x'::int",
                RejectedValue::Length => {
                    "create temp table long (v text); create index on long (v);
                     insert into long select string_agg(md5(n::text), '') from generate_series(1, 1000) as n"
                }
            };
            sqlx::raw_sql(statement).execute(&mut *step).await.map_err(anyhow::Error::new)?;
            step.done(json!({})).await
        }
        TestAction::Wait => {
            run.extension::<JobGate>()?.wait_open(job).await;
            run.done(json!({})).await
        }
        TestAction::Step => {
            let mut step = run.begin_step().await?;
            sqlx::query("insert into effects values ($1)").bind(job).execute(&mut *step).await?;
            step.enqueue_next(&ProbeJob { act: TestAction::Done }, &format!("after {job}")).await?;
            run.extension::<JobGate>()?.wait_open(job).await;
            step.done(json!({})).await
        }
        TestAction::Write => {
            let mut step = run.begin_step().await?;
            let backend: i32 =
                sqlx::query_scalar("with e as (insert into effects values ($1)) select pg_backend_pid()")
                    .bind(job)
                    .fetch_one(&mut *step)
                    .await?;
            step.done(json!({ "backend": backend })).await
        }
        TestAction::Sleep => {
            let mut step = run.begin_step().await?;
            sqlx::query("insert into effects values ($1)").bind(job).execute(&mut *step).await?;
            sqlx::query("select pg_sleep(60)").execute(&mut *step).await?;
            step.done(json!({})).await
        }
        TestAction::Block => {
            let gate = run.extension::<JobGate>()?;
            let runtime = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || runtime.block_on(gate.wait_open(job))).await?;
            run.done(json!({})).await
        }
        TestAction::Die => std::process::abort(),
        TestAction::Nul => run.done(json!({ "text": "a\0b" })).await,
    }
}

/// A gate at which jobs wait for the test, and the test for jobs.
pub struct JobGate {
    arrived: mpsc::UnboundedSender<i64>,
    arrivals: Mutex<mpsc::UnboundedReceiver<i64>>,
    open: Semaphore,
}

impl JobGate {
    fn new() -> JobGate {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        JobGate { arrived, arrivals: Mutex::new(arrivals), open: Semaphore::new(0) }
    }

    async fn wait_open(&self, job: i64) {
        self.arrived.send(job).unwrap();
        self.open.acquire().await.unwrap().forget();
    }

    /// Waits for the next job at the gate, and returns its id.
    pub async fn next_arrival(&self) -> i64 {
        with_timeout(async { self.arrivals.lock().await.recv().await.unwrap() }).await
    }

    pub fn open(&self, jobs: usize) {
        self.open.add_permits(jobs);
    }
}

/// A running worker.
pub struct RunningWorker {
    pub gate: Arc<JobGate>,
    events: broadcast::Receiver<WorkerEvent>,
    leave: CancellationToken,
    worker: JoinHandle<anyhow::Result<WorkerSummary>>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedEnd {
    pub job: i64,
    pub outcome: RunOutcome,
    pub discarded: bool,
    pub error: Option<String>,
}

/// Starts a worker for the test jobs with one slot, a lease that never ends and no polling. `set_up` changes these
/// settings.
pub fn start_worker(db: &Database, set_up: impl FnOnce(Worker) -> Worker) -> RunningWorker {
    let (watchers, events) = broadcast::channel(10_000);
    let (leave, gate) = (CancellationToken::new(), Arc::new(JobGate::new()));
    let worker = Worker::new(db, TEST_JOBS)
        .with_concurrency(1)
        .with_lease(ENDLESS_LEASE)
        .with_poll_interval(ENDLESS_LEASE)
        .with_event_sender(watchers);
    let worker = set_up(worker).with_extensions(Extensions::new().with_arc(gate.clone()));
    let worker = tokio::spawn(worker.run(leave.clone()));
    RunningWorker { gate, events, leave, worker }
}

impl RunningWorker {
    /// Waits for the next end of a run.
    pub async fn next_end(&mut self) -> ObservedEnd {
        with_timeout(async {
            loop {
                if let WorkerEvent::Ended { job, outcome, discarded, error, .. } = self.events.recv().await.unwrap() {
                    return ObservedEnd { job, outcome, discarded, error };
                }
            }
        })
        .await
    }

    pub fn begin_shutdown(&self) {
        self.leave.cancel();
    }

    /// Shuts the worker down, and waits for its end.
    pub async fn shut_down(self) -> WorkerSummary {
        self.leave.cancel();
        with_timeout(self.worker).await.unwrap().unwrap()
    }
}

/// Enqueues a job without a key.
pub async fn add_job<J: Job>(pool: &PgPool, job: J) -> i64 {
    add_job_with(pool, job, EnqueueOptions::default()).await.unwrap()
}

pub async fn add_job_with<J: Job>(pool: &PgPool, job: J, how: EnqueueOptions) -> Option<i64> {
    enqueue_job(&mut pool.acquire().await.unwrap(), &job, how).await.unwrap()
}

pub fn probe_job(act: TestAction) -> ProbeJob {
    ProbeJob { act }
}

/// Creates a migrated database with a table for the jobs' effects.
pub async fn database_with_effects() -> vinops::testing::TestDb {
    let test = vinops::testing::migrated_database().await;
    sqlx::query("create table effects (job bigint not null)").execute(&test.db.pool).await.unwrap();
    test
}

pub async fn list_effects(pool: &PgPool) -> Vec<i64> {
    sqlx::query_scalar("select job from effects order by job").fetch_all(pool).await.unwrap()
}

pub async fn job_state(pool: &PgPool, job: i64) -> String {
    sqlx::query_scalar("select state from fleet.jobs where id = $1").bind(job).fetch_one(pool).await.unwrap()
}

/// Returns the outcomes of a job's runs so far.
pub async fn run_outcomes(pool: &PgPool, job: i64) -> Vec<Option<String>> {
    sqlx::query_scalar("select outcome from fleet.job_attempts where job_id = $1 order by run")
        .bind(job)
        .fetch_all(pool)
        .await
        .unwrap()
}

/// Returns how many steps sleep at the server.
pub async fn count_sleeping_steps(pool: &PgPool) -> i64 {
    let asleep = "select count(*) from pg_stat_activity
        where datname = current_database() and query like 'select pg_sleep(60)%'";
    sqlx::query_scalar(asleep).fetch_one(pool).await.unwrap()
}

/// Repeats the query until it returns true, without a delay.
pub async fn wait_until(pool: &PgPool, question: &'static str, job: i64) {
    with_timeout(async {
        loop {
            let asked = sqlx::query_scalar::<_, Option<bool>>(question).bind(job).fetch_optional(pool);
            if asked.await.is_ok_and(|answer| answer.flatten() == Some(true)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

pub async fn with_timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_TIMEOUT, future).await.expect("this should have happened long ago")
}
