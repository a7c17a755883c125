//! queue
mod backend;
mod claim;
mod engine;
mod enqueue;
mod entry;
mod event;
mod execute;
mod job;
mod lease;
pub mod operate;
mod run;
mod settle;
mod worker;

pub use engine::Summary;
pub use enqueue::{Enqueue, enqueue, enqueue_all};
pub use entry::Entry;
pub use event::{Event, Outcome};
pub use job::{Done, Job, Policy, Stop, Verdict, abort, snooze};
pub use run::{Claimed, Lost, Run, Step, Tools};
pub use worker::Worker;
