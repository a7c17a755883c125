//! One server process: started by a thread of its own, stopped on request or at the end of the vinops process.
//!
//! The thread that starts the server also waits for the server's end, so thread and server live equally long. Linux
//! sends the parent-death signal at the end of the spawning *thread*, which then is the end of the vinops process. A
//! server started from the thread of a test or a runtime would die with that thread.

use super::ServerBinaries;
use super::cluster::ClusterFolder;
use super::os_user::OsUser;
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Longest time until a server is ready. After a power cut the server first replays its WAL.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(180);
/// Maximum number of ports to try.
const MAX_PORT_ATTEMPTS: u32 = 10;

/// A server that accepts connections.
#[derive(Debug)]
pub(super) struct PostgresServer {
    folder: ClusterFolder,
    password: String,
    process: ServerProcess,
}

impl PostgresServer {
    /// Starts the server on `folder` and returns once it accepts connections.
    pub(super) fn launch_server(
        folder: ClusterFolder,
        binaries: &ServerBinaries,
        os_user: &OsUser,
        settings: &[String],
        password: String,
    ) -> anyhow::Result<Arc<PostgresServer>> {
        for _ in 0..MAX_PORT_ATTEMPTS {
            let port = free_port()?;
            let log = std::fs::File::create(folder.log_path())
                .with_context(|| format!("could not write the file {}", folder.log_path().display()))?;
            let mut command = os_user.build_command(&binaries.folder.join("postgres"), &folder.path);
            command.arg("-D").arg(folder.data_path()).args(["-p", &port.to_string()]);
            command.args(settings.iter().flat_map(|setting| ["-c", setting.as_str()]));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let process = ServerProcess::spawn(command, port)
                .with_context(|| format!("could not start {}/postgres", binaries.folder.display()))?;
            match process.wait_until_ready(&folder)? {
                StartupResult::Yes => {
                    let server = Arc::new(PostgresServer { folder, password, process });
                    if server.folder.is_temporary() {
                        stop_at_exit(&server);
                    }
                    return Ok(server);
                }
                StartupResult::PortTaken => {}
            }
        }
        bail!("no free port for PostgreSQL on 127.0.0.1 after {MAX_PORT_ATTEMPTS} attempts")
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.process.port)
    }

    pub(super) fn socket_url(&self, database: &str) -> String {
        let url = self.url(database);
        match self.folder.socket_folder() {
            Some(folder) => format!("{url}?host={folder}"),
            None => url,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Stops the server without a checkpoint, as `pg_ctl stop -m immediate` does.
    pub(super) fn crash(&self) -> anyhow::Result<()> {
        self.process.stop_with_signal(Signal::SIGQUIT)
    }

    /// Stops the server, closes connections and removes a temporary folder. A repeated call has no effect.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        // A cluster that is about to be removed needs no checkpoint.
        let word = if self.folder.is_temporary() { Signal::SIGQUIT } else { Signal::SIGINT };
        self.process.stop_with_signal(word)?;
        self.folder.remove_temporary();
        Ok(())
    }
}

/// The server process and the channel for its exit status.
#[derive(Debug)]
struct ServerProcess {
    pid: u32,
    port: u16,
    /// Receives the exit status once, from the waiting thread. `None` after the status was read.
    end: Mutex<Option<Receiver<std::io::Result<ExitStatus>>>>,
    /// On systems without a parent-death signal, a shell at the other end of this pipe that stops the server.
    _watchdog: Option<std::process::Child>,
}

enum StartupResult {
    Yes,
    PortTaken,
}

impl ServerProcess {
    fn spawn(mut command: Command, port: u16) -> anyhow::Result<ServerProcess> {
        // A process group of its own: Ctrl-C in the terminal interrupts vinops, which then stops the server.
        command.process_group(0);
        set_parent_death_signal(&mut command);
        let (born, birth) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        std::thread::Builder::new().name("postgres".to_owned()).spawn(move || match command.spawn() {
            Ok(mut child) => {
                let _ = born.send(Ok(child.id()));
                let _ = ended.send(child.wait());
            }
            Err(error) => drop(born.send(Err(error))),
        })?;
        let pid = birth.recv().context("the thread that starts the server ended")??;
        let watchdog = if cfg!(target_os = "linux") { None } else { Some(spawn_watchdog(pid)?) };
        Ok(ServerProcess { pid, port, end: Mutex::new(Some(end)), _watchdog: watchdog })
    }

    /// Returns the exit status if the server ends within `timeout`, or `None` while it runs.
    fn wait_for_exit(&self, timeout: Duration) -> Option<String> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let said = match end.as_ref()?.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => return None,
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(RecvTimeoutError::Disconnected) => "an unknown status: its thread has ended".to_owned(),
        };
        *end = None;
        Some(said)
    }

    /// Waits until the server accepts connections or has found the port in use.
    ///
    /// Like `pg_ctl`, this reads `postmaster.pid`: the first line is the pid, the eighth line is the state.
    fn wait_until_ready(&self, folder: &ClusterFolder) -> anyhow::Result<StartupResult> {
        let begun = Instant::now();
        while begun.elapsed() < STARTUP_TIMEOUT {
            let pid_file = std::fs::read_to_string(folder.data_path().join("postmaster.pid")).unwrap_or_default();
            let mut lines = pid_file.lines();
            let ours = lines.next().is_some_and(|pid| pid.trim() == self.pid.to_string());
            if ours && lines.nth(6).is_some_and(|state| state.starts_with("ready")) {
                return Ok(StartupResult::Yes);
            }
            if let Some(status) = self.wait_for_exit(Duration::from_millis(10)) {
                let log = std::fs::read_to_string(folder.log_path()).unwrap_or_default();
                if log.contains("could not bind") {
                    return Ok(StartupResult::PortTaken);
                }
                let tail: Vec<&str> = log.lines().rev().take(10).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                bail!("PostgreSQL failed to start with {status}\ndetail: {}", tail.join("\ndetail: "));
            }
        }
        self.stop_with_signal(Signal::SIGQUIT)?;
        bail!(
            "PostgreSQL was not ready after {} s\nhint: see the log {}",
            STARTUP_TIMEOUT.as_secs(),
            folder.log_path().display()
        )
    }

    fn stop_with_signal(&self, word: Signal) -> anyhow::Result<()> {
        // The pid of a server that ended by itself may have been reused.
        self.wait_for_exit(Duration::ZERO);
        let all = [(Signal::SIGINT, 60), (Signal::SIGQUIT, 10), (Signal::SIGKILL, 5)];
        for (signal, timeout) in all.into_iter().skip_while(|(signal, _)| *signal != word) {
            if self.end.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                return Ok(());
            }
            // The pid still belongs to the server: its thread has not reported the exit status yet.
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
            if self.wait_for_exit(Duration::from_secs(timeout)).is_some() {
                return Ok(());
            }
        }
        bail!("PostgreSQL process {} does not stop", self.pid)
    }
}

/// Returns a port that is free now. Another process may take the port before the server binds it.
fn free_port() -> anyhow::Result<u16> {
    let probe = std::net::TcpListener::bind(("127.0.0.1", 0)).context("could not find a free port on 127.0.0.1")?;
    Ok(probe.local_addr()?.port())
}

/// Makes the child end together with the thread that spawns it, and fail to start if that process has already ended.
#[cfg(target_os = "linux")]
fn set_parent_death_signal(command: &mut Command) {
    let us = nix::unistd::getpid();
    let promise = move || {
        // SIGINT is a clean shutdown that does not wait for clients. Set after the change of user, which would clear
        // it.
        nix::sys::prctl::set_pdeathsig(Signal::SIGINT)?;
        if nix::unistd::getppid() == us { Ok(()) } else { Err(std::io::Error::from_raw_os_error(nix::libc::ESRCH)) }
    };
    #[expect(unsafe_code, reason = "between fork and exec only system calls run: prctl and getppid, no allocation")]
    // SAFETY: the closure is async-signal-safe, see the reason above.
    unsafe {
        command.pre_exec(promise);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_us(_: &mut Command) {}

/// Starts a shell that waits for the end of a pipe owned by this process alone, then stops the server.
fn spawn_watchdog(pid: u32) -> std::io::Result<std::process::Child> {
    Command::new("/bin/sh")
        .args(["-c", "read _; kill -INT \"$0\"", &pid.to_string()])
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// Temporary servers that are stopped at the normal exit of the process.
///
/// Statics are never dropped, so a cluster that a test binary shares would leave its folder behind.
static TEMPORARY_SERVERS: Mutex<Vec<Weak<PostgresServer>>> = Mutex::new(Vec::new());

fn stop_at_exit(server: &Arc<PostgresServer>) {
    static REGISTERED: Once = Once::new();
    TEMPORARY_SERVERS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(server));
    REGISTERED.call_once(|| {
        #[expect(unsafe_code, reason = "atexit has no safe wrapper")]
        // SAFETY: the function is `extern "C"`, lives as long as the program and does not unwind.
        unsafe {
            nix::libc::atexit(stop_temporary);
        }
    });
}

extern "C" fn stop_temporary() {
    let servers = std::mem::take(&mut *TEMPORARY_SERVERS.lock().unwrap_or_else(PoisonError::into_inner));
    for server in servers.iter().filter_map(Weak::upgrade) {
        let _ = server.stop();
    }
}
