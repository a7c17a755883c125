//! The faults of the chaos scenario: how many of each, how each is injected, and how each ends.

use super::{LEASE, Play};
use crate::fleet::Role;
use crate::proxy::Mode;
use nix::sys::signal::Signal;
use rand::RngExt;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
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

pub const DECK: &[(Fault, usize)] = &[
    (Fault::KillWorker, 20),
    (Fault::KillScheduler, 4),
    (Fault::Freeze, 8),
    (Fault::KillPostgres, 4),
    (Fault::Cut, 5),
    (Fault::Refuse, 3),
    (Fault::Delay, 4),
    (Fault::Swallow, 4),
    (Fault::FillDisk, 2),
];

/// An operation that is scheduled for a time.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Strike,
    Spawn(usize),
    Thaw(usize, u32),
    StartPostgres,
    Pass { cut: bool },
    FreeDisk,
}

impl Play {
    pub fn one_of(&mut self, places: &[usize]) -> Option<usize> {
        (!places.is_empty()).then(|| places[self.dice.random_range(0..places.len())])
    }

    /// Picks a worker, preferably the one that claimed last, since it has work.
    pub fn victim(&mut self) -> Option<usize> {
        let workers = self.fleet.places(Role::Worker);
        let busy = workers.iter().copied().find(|place| self.fleet.pid(*place) == self.claimant);
        let any = self.one_of(&workers);
        busy.filter(|_| self.dice.random_bool(0.75)).or(any)
    }

    pub async fn inflict(&mut self, fault: Fault) {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        self.fleet.log.note(format!("--- {fault:?}"));
        *self.inflicted.entry(format!("{fault:?}")).or_default() += 1;
        match fault {
            Fault::KillWorker => {
                if let Some(place) = self.victim() {
                    self.fleet.kill(place).await;
                    self.after(ms(0), ms(300), Deed::Spawn(place));
                }
            }
            Fault::KillScheduler => {
                let schedulers = self.fleet.places(Role::Scheduler);
                if let Some(place) = self.one_of(&schedulers) {
                    self.fleet.kill(place).await;
                    self.after(ms(0), ms(300), Deed::Spawn(place));
                }
            }
            Fault::Freeze => {
                if let Some(place) = self.victim() {
                    self.fleet.signal(place, Signal::SIGSTOP);
                    let pid = self.fleet.pid(place).unwrap();
                    self.after(LEASE.mul_f64(1.2), LEASE * 3, Deed::Thaw(place, pid));
                }
            }
            Fault::KillPostgres if *self.up.borrow() => {
                self.up.send_replace(false);
                // a server whose clients do not read takes much longer to stop
                self.proxy.set(Mode::Pass);
                self.cluster.kill().await;
                self.outage.get_or_insert_with(Instant::now);
                self.after(ms(100), ms(1500), Deed::StartPostgres);
            }
            Fault::KillPostgres => {}
            Fault::Cut => {
                self.outage.get_or_insert_with(Instant::now);
                self.proxy.cut();
            }
            Fault::Refuse => {
                self.outage.get_or_insert_with(Instant::now);
                self.proxy.set(Mode::Refuse);
                self.proxy.cut();
                self.after(ms(200), ms(1500), Deed::Pass { cut: false });
            }
            Fault::Delay => {
                self.proxy.set(Mode::Delay(ms(20).mul_f64(self.dice.random())));
                self.after(ms(200), s(2), Deed::Pass { cut: false });
            }
            Fault::Swallow => {
                self.outage.get_or_insert_with(Instant::now);
                self.proxy.set(Mode::Swallow);
                let cut = self.dice.random_bool(0.5);
                self.after(ms(300), s(2), Deed::Pass { cut });
            }
            Fault::FillDisk => {
                self.disk.as_ref().unwrap().fill();
                self.after(ms(300), ms(1500), Deed::FreeDisk);
            }
        }
    }

    pub async fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Strike => {
                if let Some(fault) = self.deck.pop() {
                    self.inflict(fault).await;
                }
                self.plan();
            }
            Deed::Spawn(place) => self.fleet.spawn(place).await,
            Deed::Thaw(place, pid) => {
                if self.fleet.pid(place) == Some(pid) {
                    self.fleet.signal(place, Signal::SIGCONT);
                }
            }
            Deed::StartPostgres => {
                self.cluster.start().await;
                self.proxy.lead_to(self.cluster.address());
                self.calm.lead_to(self.cluster.address());
                self.up.send_replace(true);
            }
            Deed::Pass { cut } => {
                if cut {
                    self.proxy.cut();
                }
                self.proxy.set(Mode::Pass);
            }
            Deed::FreeDisk if self.starving => {}
            Deed::FreeDisk => self.disk.as_ref().unwrap().free(),
        }
    }
}
