//! Jobs whose payload defines what they do, a gate that blocks them, and a worker that runs them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vinops::db::Db;
use vinops::queue::{
    Enqueue, Entry, Event, Job, Outcome, Policy, Run, Summary, Tools, Verdict, Worker, abort, enqueue, snooze,
};

/// A lease so long that no test reaches its end or its renewal.
pub const NEVER: Duration = Duration::from_secs(600);
/// A lease that ends within a test.
pub const SHORT: Duration = Duration::from_millis(300);
/// A lease that is renewed within a test. A worker on a busy machine does not lose it.
pub const KEPT: Duration = Duration::from_secs(2);
/// Longer than any step of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub const FLEET: &[Entry] =
    &[Entry::of::<Probe>().aliases(&["probe-as-it-was"]), Entry::of::<Brief>(), Entry::of::<Patient>()];

/// The behaviour of a test job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Act {
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
    Unfit(Unfit),
}

/// Values that PostgreSQL always rejects.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Unfit {
    Data,
    Length,
}

/// The default test job: three attempts, short delays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    pub act: Act,
}

impl Job for Probe {
    const KIND: &'static str = "probe";
    const POLICY: Policy =
        Policy::DEFAULT.attempts(3).waits(Duration::from_millis(40), Duration::from_millis(100)).cheap();
    type Report = Value;

    async fn run(self, run: Run) -> Verdict<Value> {
        act(self.act, run).await
    }
}

/// A test job with a timeout of 50 ms.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Brief {
    pub act: Act,
}

impl Job for Brief {
    const KIND: &'static str = "brief";
    const POLICY: Policy = Probe::POLICY.within(Duration::from_millis(50));
    type Report = Value;

    async fn run(self, run: Run) -> Verdict<Value> {
        act(self.act, run).await
    }
}

/// A test job with delays of an hour, which is not claimed ahead.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Patient {
    pub act: Act,
}

impl Job for Patient {
    const KIND: &'static str = "patient";
    const POLICY: Policy =
        Policy::DEFAULT.attempts(3).waits(Duration::from_secs(3600), Duration::from_secs(3600));
    type Report = Value;

    async fn run(self, run: Run) -> Verdict<Value> {
        act(self.act, run).await
    }
}

async fn act(act: Act, run: Run) -> Verdict<Value> {
    let job = run.job().id;
    match act {
        Act::Done => run.done(json!({ "attempt": run.job().attempt })).await,
        Act::Fail => {
            let error =
                anyhow::anyhow!("the yard is closed").context(format!("attempt {}", run.job().attempt));
            Err(error.into())
        }
        Act::Abort => Err(abort(anyhow::anyhow!("no such yard"))),
        Act::Snooze(seconds) if run.job().run < 3 => Err(snooze(Duration::from_secs_f64(seconds))),
        Act::Snooze(_) => run.done(json!({})).await,
        Act::Panic => panic!("kaboom"),
        Act::Hang => std::future::pending().await,
        Act::Unfit(unfit) => {
            let mut step = run.begin().await?;
            let statement = match unfit {
                Unfit::Data => "select 'x'::int",
                Unfit::Length => {
                    "create temp table long (v text); create index on long (v);
                     insert into long select string_agg(md5(n::text), '') from generate_series(1, 1000) as n"
                }
            };
            sqlx::raw_sql(statement).execute(&mut *step).await.map_err(anyhow::Error::new)?;
            step.done(json!({})).await
        }
        Act::Wait => {
            run.tool::<Gate>()?.pass(job).await;
            run.done(json!({})).await
        }
        Act::Step => {
            let mut step = run.begin().await?;
            sqlx::query("insert into effects values ($1)").bind(job).execute(&mut *step).await?;
            step.enqueue(&Probe { act: Act::Done }, &format!("after {job}")).await?;
            run.tool::<Gate>()?.pass(job).await;
            step.done(json!({})).await
        }
        Act::Write => {
            let mut step = run.begin().await?;
            let backend: i32 =
                sqlx::query_scalar("with e as (insert into effects values ($1)) select pg_backend_pid()")
                    .bind(job)
                    .fetch_one(&mut *step)
                    .await?;
            step.done(json!({ "backend": backend })).await
        }
        Act::Sleep => {
            let mut step = run.begin().await?;
            sqlx::query("insert into effects values ($1)").bind(job).execute(&mut *step).await?;
            sqlx::query("select pg_sleep(60)").execute(&mut *step).await?;
            step.done(json!({})).await
        }
        Act::Block => {
            let gate = run.tool::<Gate>()?;
            let runtime = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || runtime.block_on(gate.pass(job))).await?;
            run.done(json!({})).await
        }
        Act::Die => std::process::abort(),
        Act::Nul => run.done(json!({ "text": "a\0b" })).await,
    }
}

/// A gate at which jobs wait for the test, and the test for jobs.
pub struct Gate {
    arrived: mpsc::UnboundedSender<i64>,
    arrivals: Mutex<mpsc::UnboundedReceiver<i64>>,
    open: Semaphore,
}

impl Gate {
    fn new() -> Gate {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        Gate { arrived, arrivals: Mutex::new(arrivals), open: Semaphore::new(0) }
    }

    async fn pass(&self, job: i64) {
        self.arrived.send(job).unwrap();
        self.open.acquire().await.unwrap().forget();
    }

    /// Waits for the next job at the gate, and returns its id.
    pub async fn arrival(&self) -> i64 {
        within(async { self.arrivals.lock().await.recv().await.unwrap() }).await
    }

    pub fn open(&self, jobs: usize) {
        self.open.add_permits(jobs);
    }
}

/// A running worker.
pub struct Running {
    pub gate: Arc<Gate>,
    events: broadcast::Receiver<Event>,
    leave: CancellationToken,
    worker: JoinHandle<anyhow::Result<Summary>>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    pub job: i64,
    pub outcome: Outcome,
    pub discarded: bool,
    pub error: Option<String>,
}

/// Starts a worker for the test jobs with one slot, a lease that never ends and no polling. `set_up` changes these
/// settings.
pub fn start(db: &Db, set_up: impl FnOnce(Worker) -> Worker) -> Running {
    let (watchers, events) = broadcast::channel(10_000);
    let (leave, gate) = (CancellationToken::new(), Arc::new(Gate::new()));
    let worker = Worker::new(db, FLEET).concurrency(1).lease(NEVER).poll(NEVER).observe(watchers);
    let worker = set_up(worker).tools(Tools::new().with_arc(gate.clone()));
    let worker = tokio::spawn(worker.run(leave.clone()));
    Running { gate, events, leave, worker }
}

impl Running {
    /// Waits for the next end of a run.
    pub async fn ended(&mut self) -> End {
        within(async {
            loop {
                if let Event::Ended { job, outcome, discarded, error, .. } = self.events.recv().await.unwrap()
                {
                    return End { job, outcome, discarded, error };
                }
            }
        })
        .await
    }

    pub fn leave(&self) {
        self.leave.cancel();
    }

    /// Shuts the worker down, and waits for its end.
    pub async fn left(self) -> Summary {
        self.leave.cancel();
        within(self.worker).await.unwrap().unwrap()
    }
}

/// Enqueues a job without a key.
pub async fn put<J: Job>(pool: &PgPool, job: J) -> i64 {
    put_as(pool, job, Enqueue::default()).await.unwrap()
}

pub async fn put_as<J: Job>(pool: &PgPool, job: J, how: Enqueue) -> Option<i64> {
    enqueue(&mut pool.acquire().await.unwrap(), &job, how).await.unwrap()
}

pub fn probe(act: Act) -> Probe {
    Probe { act }
}

/// Creates a migrated database with a table for the jobs' effects.
pub async fn database() -> vinops::testing::TestDb {
    let test = vinops::testing::database().await;
    sqlx::query("create table effects (job bigint not null)").execute(&test.db.pool).await.unwrap();
    test
}

pub async fn effects(pool: &PgPool) -> Vec<i64> {
    sqlx::query_scalar("select job from effects order by job").fetch_all(pool).await.unwrap()
}

pub async fn state(pool: &PgPool, job: i64) -> String {
    sqlx::query_scalar("select state from fleet.jobs where id = $1").bind(job).fetch_one(pool).await.unwrap()
}

/// Returns the outcomes of a job's runs so far.
pub async fn outcomes(pool: &PgPool, job: i64) -> Vec<Option<String>> {
    sqlx::query_scalar("select outcome from fleet.job_attempts where job_id = $1 order by run")
        .bind(job)
        .fetch_all(pool)
        .await
        .unwrap()
}

/// Returns how many steps sleep at the server.
pub async fn sleeping(pool: &PgPool) -> i64 {
    let asleep = "select count(*) from pg_stat_activity
        where datname = current_database() and query like 'select pg_sleep(60)%'";
    sqlx::query_scalar(asleep).fetch_one(pool).await.unwrap()
}

/// Repeats the query until it returns true, without a delay.
pub async fn until(pool: &PgPool, question: &'static str, job: i64) {
    within(async {
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

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this should have happened long ago")
}
