//! The fleet as processes. Workers are the program itself. Schedulers are this test's binary in another role, since the
//! program's scheduler uses only the real clock.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use vinops::scheduler::Scheduler;
use vinops::workers::JOBS;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FleetRole {
    Worker,
    Scheduler,
}

/// The log lines of all members, and the actions of the test.
#[derive(Clone, Default)]
pub struct FleetLog(Arc<(Mutex<Vec<String>>, Notify)>);

impl FleetLog {
    pub fn push_line(&self, line: String) {
        self.0.0.lock().unwrap().push(line);
        self.0.1.notify_waiters();
    }

    pub fn to_text(&self) -> String {
        self.0.0.lock().unwrap().join("\n")
    }

    /// Returns the last lines.
    pub fn last_lines(&self) -> String {
        let lines = self.0.0.lock().unwrap();
        lines[lines.len().saturating_sub(200)..].join("\n")
    }

    /// Waits until a log line contains `words`.
    pub async fn wait_for(&self, words: &str) {
        loop {
            let news = self.0.1.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.count_lines(words) > 0 {
                return;
            }
            news.await;
        }
    }

    pub fn count_lines(&self, words: &str) -> usize {
        self.0.0.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    /// Records the lines of a process, and sets the flag once one of them contains `words`.
    pub fn read_from(
        &self,
        name: String,
        from: impl AsyncRead + Unpin + Send + 'static,
        words: &'static str,
    ) -> Arc<AtomicBool> {
        let (log, said) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let flag = said.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(words) {
                    flag.store(true, Ordering::Release);
                }
                log.push_line(format!("{name}: {line}"));
            }
        });
        said
    }
}

/// A position in the fleet, and the process that fills it.
pub struct FleetMember {
    pub role: FleetRole,
    pub child: Option<Child>,
    stdin: Option<ChildStdin>,
    /// True once the process has started to work. A process that exits before, because it has no database, may be
    /// started again.
    at_work: Arc<AtomicBool>,
}

pub struct ProcessFleet {
    pub members: Vec<FleetMember>,
    pub log: FleetLog,
    /// The time of the simulated clock.
    clock: String,
    environment: Vec<(&'static str, String)>,
}

impl ProcessFleet {
    /// Creates a fleet without processes.
    pub fn new(
        workers: usize,
        schedulers: usize,
        environment: Vec<(&'static str, String)>,
        log: &FleetLog,
    ) -> ProcessFleet {
        let roles = [FleetRole::Worker].repeat(workers).into_iter().chain([FleetRole::Scheduler].repeat(schedulers));
        let member = |role| FleetMember { role, child: None, stdin: None, at_work: Arc::default() };
        ProcessFleet { members: roles.map(member).collect(), log: log.clone(), clock: String::new(), environment }
    }

    /// Starts a process at a position. It is killed when the fleet is dropped.
    pub async fn spawn_member(&mut self, place: usize) {
        let member = &mut self.members[place];
        let mut command = match member.role {
            FleetRole::Worker => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_vinops"));
                command.arg("worker");
                command
            }
            FleetRole::Scheduler => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["fleet::scheduler", "--exact", "--ignored", "--nocapture"]);
                command
            }
        };
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = piped.kill_on_drop(true).spawn().unwrap();
        let name = format!("{:?} {}", member.role, child.id().unwrap());
        let started = match member.role {
            FleetRole::Worker => "worker started",
            FleetRole::Scheduler => "scheduler started",
        };
        member.at_work = self.log.read_from(name, child.stderr.take().unwrap(), started);
        member.stdin = child.stdin.take();
        member.child = Some(child);
        if member.role == FleetRole::Scheduler && !self.clock.is_empty() {
            self.send_clock(place).await;
        }
    }

    /// Advances the simulated clock.
    pub async fn set_clock(&mut self, clock: String) {
        self.clock = clock;
        for place in 0..self.members.len() {
            self.send_clock(place).await;
        }
    }

    async fn send_clock(&mut self, place: usize) {
        if let FleetMember { role: FleetRole::Scheduler, stdin: Some(stdin), .. } = &mut self.members[place] {
            // a dead process gets the clock when it is started again
            stdin.write_all(format!("{}\n", self.clock).as_bytes()).await.ok();
        }
    }

    pub fn pid(&self, place: usize) -> Option<u32> {
        self.members[place].child.as_ref()?.id()
    }

    pub fn members_of(&self, role: FleetRole) -> Vec<usize> {
        (0..self.members.len())
            .filter(|place| self.members[*place].role == role && self.pid(*place).is_some())
            .collect()
    }

    pub fn signal(&self, place: usize, signal: Signal) {
        if let Some(pid) = self.pid(place) {
            self.log.push_line(format!("{pid} gets {signal}"));
            kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
        }
    }

    /// Kills a process with `kill -9`, and waits for its end.
    pub async fn kill(&mut self, place: usize) {
        self.signal(place, Signal::SIGKILL);
        if let Some(mut child) = self.members[place].child.take() {
            child.wait().await.unwrap();
        }
    }

    /// Waits until all running workers have started to work.
    pub fn all_started(&self) -> impl Future<Output = ()> + use<> {
        let workers: Vec<_> =
            self.members_of(FleetRole::Worker).into_iter().map(|place| self.members[place].at_work.clone()).collect();
        async move {
            while !workers.iter().all(|at_work| at_work.load(Ordering::Acquire)) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits until a process exits by itself. Returns its position and exit status.
    pub async fn next_exit(&mut self) -> (usize, ExitStatus) {
        let waits = self.members.iter_mut().enumerate().filter_map(|(place, member)| {
            let child = member.child.as_mut()?;
            Some(Box::pin(async move { (place, child.wait().await.unwrap()) }))
        });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(waits).await.0
    }

    /// Removes a process that exited by itself. The only allowed case is a process started without a database: exit
    /// code 3, before any work.
    pub fn remove_member(&mut self, place: usize, status: ExitStatus) {
        let member = &mut self.members[place];
        let stillborn = !member.at_work.load(Ordering::Acquire) && status.code() == Some(3);
        assert!(stillborn, "a {:?} left by itself: {status}", member.role);
        member.child = None;
    }

    /// Sends SIGTERM to all processes, and returns their exit codes.
    pub async fn shut_down(&mut self) -> Vec<Option<i32>> {
        let mut codes = Vec::new();
        for place in self.members_of(FleetRole::Worker) {
            self.signal(place, Signal::SIGTERM);
        }
        for member in &mut self.members {
            member.stdin = None;
        }
        for member in &mut self.members {
            codes.push(match member.child.take() {
                Some(mut child) => child.wait().await.unwrap().code(),
                None => None,
            });
        }
        codes
    }
}

/// A scheduler on the simulated clock. Each line of standard input is a time, whose window it opens, however long that
/// takes. It ends with its input.
#[tokio::test]
#[ignore = "a role, which the chaos test starts as a process"]
#[expect(clippy::disallowed_methods, reason = "a variable of the tests, which the program does not read")]
async fn scheduler() {
    let Ok(url) = std::env::var("DATABASE_URL") else { return };
    let db = vinops::db::Database::connect(&url, None, 2).await;
    let Ok(db) = db else { std::process::exit(3) };
    eprintln!("scheduler started");
    let scheduler = Scheduler::new(&JOBS[0], &["copart"]).simulated();
    for now in std::io::stdin().lines() {
        let now = now.unwrap().parse().unwrap();
        while let Err(error) = scheduler.enqueue_due_windows(&db.pool, Some(now)).await {
            eprintln!("tries again: {error:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    std::process::exit(0);
}
