//! The faults of the chaos scenario: how many of each, how each is injected, and how each ends.

use super::{ChaosScenario, LEASE_TIMEOUT};
use crate::fleet::FleetRole;
use crate::proxy::ProxyMode;
use nix::sys::signal::Signal;
use rand::RngExt;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChaosFault {
    KillWorker,
    KillScheduler,
    Freeze,
    KillPostgres,
    Cut,
    Refuse,
    Delay,
    Swallow,
    FillDisk,
}

pub const FAULT_COUNTS: &[(ChaosFault, usize)] = &[
    (ChaosFault::KillWorker, 20),
    (ChaosFault::KillScheduler, 4),
    (ChaosFault::Freeze, 8),
    (ChaosFault::KillPostgres, 4),
    (ChaosFault::Cut, 5),
    (ChaosFault::Refuse, 3),
    (ChaosFault::Delay, 4),
    (ChaosFault::Swallow, 4),
    (ChaosFault::FillDisk, 2),
];

/// An operation that is scheduled for a time.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Strike,
    Spawn(usize),
    Thaw(usize, u32),
    StartPostgres,
    Pass { cut: bool },
    FreeDisk,
}

impl ChaosScenario {
    pub fn pick_member(&mut self, places: &[usize]) -> Option<usize> {
        (!places.is_empty()).then(|| places[self.dice.random_range(0..places.len())])
    }

    /// Picks a worker, preferably the one that claimed last, since it has work.
    pub fn pick_victim(&mut self) -> Option<usize> {
        let workers = self.fleet.members_of(FleetRole::Worker);
        let busy = workers.iter().copied().find(|place| self.fleet.pid(*place) == self.claimant);
        let any = self.pick_member(&workers);
        busy.filter(|_| self.dice.random_bool(0.75)).or(any)
    }

    pub async fn inject_fault(&mut self, fault: ChaosFault) {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        self.fleet.log.push_line(format!("--- {fault:?}"));
        *self.inflicted.entry(format!("{fault:?}")).or_default() += 1;
        match fault {
            ChaosFault::KillWorker => {
                if let Some(place) = self.pick_victim() {
                    self.fleet.kill(place).await;
                    self.schedule_operation(ms(0), ms(300), Operation::Spawn(place));
                }
            }
            ChaosFault::KillScheduler => {
                let schedulers = self.fleet.members_of(FleetRole::Scheduler);
                if let Some(place) = self.pick_member(&schedulers) {
                    self.fleet.kill(place).await;
                    self.schedule_operation(ms(0), ms(300), Operation::Spawn(place));
                }
            }
            ChaosFault::Freeze => {
                if let Some(place) = self.pick_victim() {
                    self.fleet.signal(place, Signal::SIGSTOP);
                    let pid = self.fleet.pid(place).unwrap();
                    self.schedule_operation(LEASE_TIMEOUT.mul_f64(1.2), LEASE_TIMEOUT * 3, Operation::Thaw(place, pid));
                }
            }
            ChaosFault::KillPostgres if *self.up.borrow() => {
                self.up.send_replace(false);
                // a server whose clients do not read takes much longer to stop
                self.proxy.set_mode(ProxyMode::Pass);
                self.cluster.kill().await;
                self.outage.get_or_insert_with(Instant::now);
                self.schedule_operation(ms(100), ms(1500), Operation::StartPostgres);
            }
            ChaosFault::KillPostgres => {}
            ChaosFault::Cut => {
                self.outage.get_or_insert_with(Instant::now);
                self.proxy.cut_connections();
            }
            ChaosFault::Refuse => {
                self.outage.get_or_insert_with(Instant::now);
                self.proxy.set_mode(ProxyMode::Refuse);
                self.proxy.cut_connections();
                self.schedule_operation(ms(200), ms(1500), Operation::Pass { cut: false });
            }
            ChaosFault::Delay => {
                self.proxy.set_mode(ProxyMode::Delay(ms(20).mul_f64(self.dice.random())));
                self.schedule_operation(ms(200), s(2), Operation::Pass { cut: false });
            }
            ChaosFault::Swallow => {
                self.outage.get_or_insert_with(Instant::now);
                self.proxy.set_mode(ProxyMode::Swallow);
                let cut = self.dice.random_bool(0.5);
                self.schedule_operation(ms(300), s(2), Operation::Pass { cut });
            }
            ChaosFault::FillDisk => {
                self.disk.as_ref().unwrap().fill();
                self.schedule_operation(ms(300), ms(1500), Operation::FreeDisk);
            }
        }
    }

    pub async fn run_operation(&mut self, statement: Operation) {
        match statement {
            Operation::Strike => {
                if let Some(fault) = self.deck.pop() {
                    self.inject_fault(fault).await;
                }
                self.schedule_fault();
            }
            Operation::Spawn(place) => self.fleet.spawn_member(place).await,
            Operation::Thaw(place, pid) => {
                if self.fleet.pid(place) == Some(pid) {
                    self.fleet.signal(place, Signal::SIGCONT);
                }
            }
            Operation::StartPostgres => {
                self.cluster.start().await;
                self.proxy.set_backend(self.cluster.address());
                self.calm.set_backend(self.cluster.address());
                self.up.send_replace(true);
            }
            Operation::Pass { cut } => {
                if cut {
                    self.proxy.cut_connections();
                }
                self.proxy.set_mode(ProxyMode::Pass);
            }
            Operation::FreeDisk if self.starving => {}
            Operation::FreeDisk => self.disk.as_ref().unwrap().free_space(),
        }
    }
}
