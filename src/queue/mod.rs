//! The job queue: a table of jobs, the workers that claim them, and the guards against losing a job, completing it
//! twice or running it forever.
//!
//! `fleet.jobs` has one row per job, retained after the job's end until it is pruned. `fleet.job_attempts` has one row
//! per finished run, `fleet.job_kind_settings` the pauses and limits of job kinds, and `fleet.workers` the registered
//! workers. The worker runtime of apalis runs the jobs. This module is the backend of that runtime, and no other module
//! names apalis or relies on the rules of these tables. (The PostgreSQL storage of apalis was measured and rejected:
//! retries have no delay, a panic leaves a row running forever, and a worker restarted under the same name blocks the
//! jobs of its dead predecessor.)
//!
//! # The life of a job
//!
//! ```text
//!      enqueue
//!         │  run_at ahead   ┌───────────┐ ◀────────────── snooze(delay): attempt-1 ────────────────┐
//!         ├───────────────▶ │ scheduled │ ──┐                                                      │
//!         │                 └───────────┘   │ claim, once run_at has come,                         │
//!         │        run now    │             │ unless its kind is paused or at                      │
//!         │                   ▼             │ its limit: attempt+1, run+1                          │
//!         │  due now        ┌───────────┐   │                                ┌─────────┐           │
//!         └───────────────▶ │ available │ ──┼──────────────────────────────▶ │ running │ ──────────┤
//!                           └───────────┘   │                                └─────────┘           │
//!                             ▲   ▲         │                                                      │
//!            requeue, from    │   └─────────┼── rescued, interrupted, released: attempt-1 ─────────┤
//!            any state but ───┘     ▲       │                                                      │
//!            running           run now      │                                                      │
//!                           ┌───────────┐   │                                                      │
//!                           │ retryable │ ──┘                                                      │
//!                           └───────────┘ ◀──── error, panic, timeout, and attempts are left ──────┤
//!                                                                                                  │
//!                           ┌───────────┐ ◀──── done(report) ──────────────────────────────────────┤
//!                           │ completed │                                                          │
//!                           └───────────┘                                                          │
//!                           ┌───────────┐ ◀──── abort, unreadable, attempts spent, 20 rescues ─────┤
//!                           │ discarded │                                                          │
//!                           └───────────┘                                                          │
//!                           ┌───────────┐ ◀──── cut off, by request ───────────────────────────────┘
//!                           │ cancelled │
//!                           └───────────┘ ◀──── a waiting job, by an operator or the scheduler
//! ```
//!
//! *Waiting* means available, scheduled or retryable. All three are claimed alike once `run_at` has passed. They differ
//! only in the reason for waiting. Three counters differ on purpose. `attempt` counts the spent attempts: one per
//! claim, refunded when the run is no evidence about the job (a rescue, a snooze, an interruption). `run` is the fence
//! token: one per claim, never refunded. `rescues` counts lost leases.
//!
//! # Operator commands and when they take effect
//!
//! *Pause* and *limit* are rows of `fleet.job_kind_settings` that every claim reads, so they apply to all workers from
//! the next claim on. Running jobs continue. The limit is hard: a claim counts the running jobs of a limited kind under
//! a lock on the row of the kind. The limits of one worker (slots, jobs per kind) need no lock. *Cancel* ends a waiting
//! job immediately. A running job is marked, and from then on none of its steps can commit. The worker learns of the
//! mark from a notification or at its next lease renewal, cuts the run off, terminates the transaction at the server
//! and writes `cancelled`. If the job completed at that moment, `completed` counts. If the worker is dead, the rescue
//! cancels the job. *Requeue* starts over with all attempts, and the history continues. Each command is one statement
//! that also records actor and reason.
//!
//! # Three guards
//!
//! A crash, a freeze or a network failure can break a claim. No single guard covers all three.
//!
//! The **lease** guards against workers that die. A claim lasts for `lease`. The worker renews the leases of all its
//! jobs three times in that time, from a task that no handler can block. A lease is no evidence of progress: the
//! timeout handles a job that hangs in a healthy worker.
//!
//! The **rescue** handles expired leases. Once a second, on the database's clock, every worker searches for jobs of any
//! kind with an expired lease and makes them available again: the job of a dead worker runs again within the lease and
//! 2 s. The attempt is refunded, because deployments and power cuts must not discard a job. A job that kills the worker
//! looks the same from outside, so rescues have a limit of their own: a job with more than 20 is discarded.
//!
//! The **fence** guards against workers that only seemed dead. A process that was stopped for a minute and then
//! continued still counts on its jobs, and no clock can correct it in time. So every statement that ends a run names
//! the job, the run, the worker and `state = 'running'`, and matches no row once another worker has the job. In a step
//! ([`JobRun::begin_step`] … [`JobTransaction::done`]) that statement is part of the transaction of the step's own
//! writes, so the late worker's effects are rolled back. A run without a step is fenced when its result is written. Its
//! earlier effects remain, so such jobs must be repeatable.
//!
//! Worker names (host, pid, start time) complete the fence. They are never reused, so a restarted worker cannot pass
//! for its predecessor.
//!
//! # Exactly once, at least once
//!
//! Handlers run *at least* once. The database effects of a step happen *exactly* once: the step's writes, the report,
//! the completion and the enqueue of the next job are one transaction behind the fence. Other effects (a download, a
//! file in the store) happen at least once and must be harmless when repeated.
//!
//! # Accepted races
//!
//! * *The response to a claim is lost.* The jobs run under the worker's name without the worker knowing. Their leases
//!   are not renewed, so they are rescued.
//! * *A worker is cut off from the database.* The worker runs on beside a successor until it learns of the loss,
//!   because a dead database and a lost lease look the same. The fence discards its effects.
//! * *The response to a commit is lost.* The run returns an error although the job is completed. The completer finds
//!   the result stale, looks once, and reports the run as done.
//! * *A job ends at the moment it is cut off.* The first to reach the row counts. The other result is stale.
//! * *A crash of the server loses a claim, or the result of a run without a step.* Neither waits for the disk. The job
//!   runs again, as after the death of a worker.
//! * *A crash of the server loses a step together with the next job.* The step's commit leaves the flush to the commit
//!   of the next job, so only the last step of a chain waits for the disk, on behalf of all of them. Lost are whole
//!   steps of the last second, newest first. Their jobs are found running with leases that are not renewed, so they are
//!   rescued and run again.
//! * *A run works outside the transaction of its step* (on a second connection). It is cut off here, and at the server
//!   only when the connection is next used. Such work must be harmless, like everything outside the step.
//! * *A notification is lost.* The cost is at most the poll interval: NOTIFY is a hint, polling decides.
//! * *Two claims run at once.* They skip each other's locked rows, so one may return fewer jobs than are due. It finds
//!   that a job is due and claims again 10 ms later.
//! * *Order* within a kind is by priority and time of claim. The order of completion is undefined.
//!
//! # The cost of a job
//!
//! A job that does nothing is three writes: enqueue, claim, complete. The baseline is a loop that claims and
//! acknowledges rows of a bare table, and `vinops bench queue` prints both. Staying close to the baseline shapes the
//! tables:
//!
//! * **A statement has a cost before its first row.** The server reads every CHECK of the table and every WHEN of the
//!   triggers from the catalog as text, parses and plans them. So rules about one column are domains, which are checked
//!   on assignment. Rules about several columns name as few states as possible. A claim sets no column that has a
//!   trigger. The most frequent result has a separate statement without the work for the others.
//! * **History is derived, not written twice.** Nearly all jobs are completed by their first run, and their own row
//!   contains everything about that run. A second record would cost a row, a key and a foreign key check. The view
//!   `fleet.job_attempts` reads the row, and `fleet.job_runs` contains only the runs that no row describes.
//! * **A loop keeps its connection.** A pool returns the connection idle for longest, so the server processes alternate
//!   with cold caches, and pings every connection that is returned: twice as many queries.
//! * **A result notifies others of the freed slot only if a limit is near.** A notification wakes a server process,
//!   which wakes its listener.
//!
//! # Modules
//!
//! `job` (the job trait and the four results), `run` (a running job and its step), `enqueue`, `claim`, `lease`,
//! `completer` (the three loops of a worker, each with SQL files beside the source), `execute` (the wrapper around one
//! handler), `retry_transient` (retries after deadlocks and lost connections), `prune` (retention), `worker` (set-up
//! and drain), `backend` (the interface to the runtime), `queries` and `admin` (the operators' queries and commands),
//! `manual` (a worker's statements one at a time, for tests and measurements).

pub mod admin;
mod backend;
mod claim;
mod completer;
mod enqueue;
mod event;
mod execute;
mod job;
mod lease;
#[doc(hidden)]
pub mod manual;
mod outage;
mod prune;
pub mod queries;
mod registry;
mod retry_transient;
mod run;
mod worker;
mod worker_state;

pub use enqueue::{EnqueueOptions, UNFINISHED_STATES, enqueue_job, enqueue_jobs};
pub use event::{RunOutcome, WorkerEvent};
pub use job::{Job, JobDone, JobError, JobPolicy, JobResult, abort, snooze};
pub use prune::Retention;
pub use registry::JobDefinition;
pub use run::{ClaimedJob, Extensions, JobRun, JobTransaction, LeaseLost};
pub use worker::Worker;
pub use worker_state::WorkerSummary;
