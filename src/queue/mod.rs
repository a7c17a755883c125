//! The queue: jobs in a table, workers that claim them, and what keeps a job from being lost, done twice or run for
//! ever.
//!
//! The table is `fleet.jobs`, one row per job, kept after its end until it is pruned; `fleet.job_attempts` has one line per
//! ended run, `fleet.kinds` what operators said about kinds, `fleet.workers` who works. apalis' worker runtime runs the
//! jobs; this room is its backend, and no other room names apalis or these tables' rules. (apalis' own PostgreSQL storage
//! was measured and left: its retries do not wait, a panic leaves a row running for ever, and a worker restarted under
//! its old name keeps its dead predecessor's jobs from everybody.)
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
//!            requeue, from    │   └─────────┼── rescued, interrupted, returned: attempt-1 ─────────┤
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
//! *Waiting* means available, scheduled or retryable; all three are claimed alike once `run_at` has come, and differ
//! only in why they wait. Three counters move apart on purpose. `attempt` is what the job has spent of its patience:
//! one per claim, refunded when the run says nothing about the job (a rescue, a snooze, an interruption). `run` is the
//! fence token: one per claim, never refunded. `rescues` counts leases lost.
//!
//! # What operators may do, and when it holds
//!
//! *Pause* and *limit* are rows of `fleet.kinds` that every claim reads, so they hold for all workers from the next claim
//! on; what runs goes on. The limit is hard: a claim counts the running jobs of a limited kind under a lock on the
//! kind's row. A worker's own limits (slots, so many of a kind) need no lock. *Cancel* ends a waiting job at once. A
//! running one is marked, and from then on no step of it can commit; its worker hears of the mark by a notification or at
//! its next renewal, cuts the run off, ends its transaction at the server, and writes `cancelled`. If it was done in that
//! moment, done counts; if its worker is dead, the rescue cancels it. *Requeue* starts over with all attempts, and the
//! history goes on. Each act is one statement that also notes who and why.
//!
//! # Three guards, and what each is for
//!
//! A claim is a promise that can be broken by a crash, a freeze or a network. No single guard covers all three.
//!
//! The **lease** is against workers that die. A claim holds for `lease`; the worker renews it three times in that
//! time, for all its jobs at once, from a task that no handler can hold up. It says nothing of progress: a job that
//! hangs in a healthy worker is the time limit's business.
//!
//! The **rescue** is what a lease that ran out leads to. Every worker looks once a second, on the database's clock,
//! for jobs of any kind whose lease is past, and puts them back: a dead worker's job runs again within the lease and
//! 2 s. The attempt is refunded, for a job must not be given up because of deployments and power cuts. But a job that
//! kills its worker looks the same from outside, so rescues have a limit of their own: over 20, discarded.
//!
//! The **fence** is against workers that were only thought dead. A process stopped for a minute and then continued
//! believes that it still holds its jobs; no clock can tell it otherwise in time. So every statement that ends a run
//! names the job, the run, the worker and `state = 'running'`, and hits no row once the job has another holder. In a
//! step ([`Run::begin`] … [`Step::done`]) that statement is in the transaction of the step's own writes: the late
//! worker's effects roll back with it. A run that ends without a step is fenced when its end is written; what it did
//! before stands, so such jobs must be repeatable.
//!
//! Worker names (host, pid, start time) make the fence's other half: never used twice, so a restarted worker cannot
//! take itself for its predecessor.
//!
//! # Exactly once, at least once
//!
//! Handlers run *at least* once. A step's effects in the database happen *exactly* once: its writes, its report, the
//! completion and the enqueue of what follows are one transaction behind the fence. Effects elsewhere (a download, a
//! file in the store) happen at least once and must be harmless twice.
//!
//! # Races that exist, and why they are accepted
//!
//! * *A claim whose answer is lost.* The jobs run under our name without our knowing; nobody renews them; rescue.
//! * *A worker cut off from the database* runs on beside its successor until it hears of it, because a dead database
//!   and a lost lease look the same. The fence keeps its effects out.
//! * *A commit whose answer is lost.* The run reports an error, but the job is completed; the settler finds the end
//!   stale, looks once, and reports it as done.
//! * *A job that ends in the moment it is cut off.* Whichever reaches the row first counts; the other is stale.
//! * *A claim, or the end of a run without a step, that a crash of the server forgets.* Neither waits for the disk; the job
//!   runs again, as after a death.
//! * *A step that a crash of the server forgets, with what it put in to follow it.* Its commit leaves the disk to the
//!   follower's, so of a chain the last step waits, for all of them. What is forgotten is whole steps of the last second,
//!   the newest first; their jobs are found running with leases that nobody renews: rescue, and the same again.
//! * *A run that works outside its step's transaction* (a second connection) is cut off here, and at the server only when
//!   its connection is next used: such work must be harmless, as everything outside the step.
//! * *A lost notification.* Costs at most the poll interval: NOTIFY is a hint, polling is the truth.
//! * *Two claims at once* skip each other's locked rows, so one may leave with fewer jobs than are due. It sees that
//!   something is due and looks again 10 ms later.
//! * *Order* within a kind is by priority and time of claim; nothing promises the order of completion.
//!
//! # What a job costs
//!
//! A job that does nothing is three writes: a row put in, claimed, completed. The floor under that is a loop that claims and
//! acknowledges rows of a bare table, and `vinops bench queue` prints both. What keeps near it shapes the tables:
//!
//! * **A statement costs before its first row.** Each reads every CHECK of the table and every WHEN of its triggers from
//!   the catalogue as text, parses and plans them. So rules of one column are domains, which are looked at when a value is
//!   assigned; rules of several name as few states as they can; a claim sets no column that has a trigger; and the ends
//!   that are nearly all ends have a statement without what happens only to others.
//! * **History is read, not written twice.** Nearly all jobs are completed by their first run, of which their own row knows
//!   everything; a line for it would be a row, a key and a foreign key asked. The view `fleet.job_attempts` reads it there,
//!   and `fleet.job_runs` holds only what a row can't tell.
//! * **A loop keeps its connection.** A pool hands out the idlest, so that its server processes take turns with cold
//!   caches, and asks each that comes back whether it lives: as many questions again.
//! * **An end tells others of its slot only where a limit is near.** A notification wakes a process, and that its listener.
//!
//! # Where to read on
//!
//! `job` (what a job is and the four words), `run` (what it holds while running, the step), `enqueue`, `claim`,
//! `lease`, `settle` (the three loops of a worker, each with its SQL beside it), `execute` (around one handler), `again`
//! (deadlocks and lost connections, met on the spot), `prune` (retention), `worker` (set-up and drain), `backend` (the
//! runtime's view), `operate` and `steer` (the operators' face: what they see, what they do), `hand` (a worker's
//! statements one at a time, for tests and measurements).

mod again;
mod away;
mod backend;
mod claim;
mod engine;
mod enqueue;
mod entry;
mod event;
mod execute;
#[doc(hidden)]
pub mod hand;
mod job;
mod lease;
pub mod operate;
mod prune;
mod run;
mod settle;
pub mod steer;
mod worker;

pub use engine::Summary;
pub use enqueue::{Enqueue, UNFINISHED, enqueue, enqueue_all};
pub use entry::Entry;
pub use event::{Event, Outcome};
pub use job::{Done, Job, Policy, Stop, Verdict, abort, snooze};
pub use prune::Keep;
pub use run::{Claimed, Lost, Run, Step, Tools};
pub use worker::Worker;
