//! The life of one server process: started by a thread of its own, stopped by us, by our end, or by its own.
//!
//! The thread that starts the server also waits for it, so it lives exactly as long as the server: Linux's
//! parent-death signal, which belongs to the spawning *thread*, then means our process. Started from a test's or a
//! runtime's thread the server would die with that thread.

use super::Binaries;
use super::cluster::Folder;
use super::servant::Servant;
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a server may take until it is ready: after a power cut it first replays its log.
const PATIENCE: Duration = Duration::from_secs(180);
/// Ports tried before giving up.
const PORTS: u32 = 10;

/// A server that has accepted connections.
#[derive(Debug)]
pub(super) struct Server {
    folder: Folder,
    password: String,
    process: Process,
}

impl Server {
    /// Starts the server on `folder` and returns when it is ready.
    pub(super) fn launch(
        folder: Folder,
        binaries: &Binaries,
        servant: &Servant,
        settings: &[String],
        password: String,
    ) -> anyhow::Result<Arc<Server>> {
        for _ in 0..PORTS {
            let port = free_port()?;
            let log = std::fs::File::create(folder.log())
                .with_context(|| format!("write {}", folder.log().display()))?;
            let mut command = servant.command(&binaries.folder.join("postgres"), &folder.path);
            command.arg("-D").arg(folder.data()).args(["-p", &port.to_string()]);
            command.args(settings.iter().flat_map(|setting| ["-c", setting.as_str()]));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let process = Process::spawn(command, port)
                .with_context(|| format!("start {}/postgres", binaries.folder.display()))?;
            match process.wait_until_ready(&folder)? {
                Ready::Yes => {
                    let server = Arc::new(Server { folder, password, process });
                    if server.folder.is_temporary() {
                        stop_at_exit(&server);
                    }
                    return Ok(server);
                }
                Ready::PortTaken => {}
            }
        }
        bail!("no free port for PostgreSQL on 127.0.0.1 in {PORTS} tries")
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.process.port)
    }

    pub(super) fn near_url(&self, database: &str) -> String {
        let url = self.url(database);
        match self.folder.socket() {
            Some(folder) => format!("{url}?host={folder}"),
            None => url,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Stops the server where it stands, as `pg_ctl stop -m immediate` does.
    pub(super) fn crash(&self) -> anyhow::Result<()> {
        self.process.stop(Signal::SIGQUIT)
    }

    /// Stops the server, cutting connections, and removes a temporary folder. Again is harmless.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        // What is about to be removed need not be written down first.
        let word = if self.folder.is_temporary() { Signal::SIGQUIT } else { Signal::SIGINT };
        self.process.stop(word)?;
        self.folder.remove();
        Ok(())
    }
}

/// The server process and the news of its end.
#[derive(Debug)]
struct Process {
    pid: u32,
    port: u16,
    /// Gets the status once, from the thread that waits; `None` after it was read.
    end: Mutex<Option<Receiver<std::io::Result<ExitStatus>>>>,
    /// Where no signal tells the server of our end, a shell at the other end of this pipe does.
    _watchdog: Option<std::process::Child>,
}

enum Ready {
    Yes,
    PortTaken,
}

impl Process {
    fn spawn(mut command: Command, port: u16) -> anyhow::Result<Process> {
        // A process group of its own: Ctrl-C at our terminal is ours to answer, and the server's only afterwards.
        command.process_group(0);
        die_with_us(&mut command);
        let (born, birth) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        std::thread::Builder::new().name("postgres".to_owned()).spawn(move || match command.spawn() {
            Ok(mut child) => {
                let _ = born.send(Ok(child.id()));
                let _ = ended.send(child.wait());
            }
            Err(error) => drop(born.send(Err(error))),
        })?;
        let pid = birth.recv().context("wait for the thread that starts it")??;
        let watchdog = if cfg!(target_os = "linux") { None } else { Some(watchdog(pid)?) };
        Ok(Process { pid, port, end: Mutex::new(Some(end)), _watchdog: watchdog })
    }

    /// The exit status if the server ended within `patience`; none while it runs.
    fn ended(&self, patience: Duration) -> Option<String> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let said = match end.as_ref()?.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => return None,
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(RecvTimeoutError::Disconnected) => "its thread is gone".to_owned(),
        };
        *end = None;
        Some(said)
    }

    /// `postmaster.pid` is how the server says that it is ready, as its own `pg_ctl` reads it: the first line is the
    /// process, the eighth the state.
    fn wait_until_ready(&self, folder: &Folder) -> anyhow::Result<Ready> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let told = std::fs::read_to_string(folder.data().join("postmaster.pid")).unwrap_or_default();
            let mut lines = told.lines();
            let ours = lines.next().is_some_and(|pid| pid.trim() == self.pid.to_string());
            if ours && lines.nth(6).is_some_and(|state| state.starts_with("ready")) {
                return Ok(Ready::Yes);
            }
            if let Some(status) = self.ended(Duration::from_millis(10)) {
                let log = std::fs::read_to_string(folder.log()).unwrap_or_default();
                if log.contains("could not bind") {
                    return Ok(Ready::PortTaken);
                }
                let tail: Vec<&str> = log.lines().rev().take(10).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                bail!("PostgreSQL ended with {status} at its start and wrote:\n{}", tail.join("\n"));
            }
        }
        self.stop(Signal::SIGQUIT)?;
        bail!("PostgreSQL was not ready after {PATIENCE:?}: see {}", folder.log().display())
    }

    fn stop(&self, word: Signal) -> anyhow::Result<()> {
        // One that ended by itself has given its number back.
        self.ended(Duration::ZERO);
        let all = [(Signal::SIGINT, 60), (Signal::SIGQUIT, 10), (Signal::SIGKILL, 5)];
        for (signal, patience) in all.into_iter().skip_while(|(signal, _)| *signal != word) {
            if self.end.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                return Ok(());
            }
            // The number is still the server's: its thread takes the status and tells us, and nobody told us yet.
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
            if self.ended(Duration::from_secs(patience)).is_some() {
                return Ok(());
            }
        }
        bail!("the PostgreSQL process {} does not stop", self.pid)
    }
}

/// A port that is free now; somebody may take it before the server does.
fn free_port() -> anyhow::Result<u16> {
    let probe = std::net::TcpListener::bind(("127.0.0.1", 0)).context("look for a free port on 127.0.0.1")?;
    Ok(probe.local_addr()?.port())
}

/// Makes the child end when the thread that spawns it does, and fail to start if our process is gone by then.
#[cfg(target_os = "linux")]
fn die_with_us(command: &mut Command) {
    let us = nix::unistd::getpid();
    let promise = move || {
        // A clean shutdown that waits for nobody. Set after the change of user, which would clear it.
        nix::sys::prctl::set_pdeathsig(Signal::SIGINT)?;
        if nix::unistd::getppid() == us {
            Ok(())
        } else {
            Err(std::io::Error::from_raw_os_error(nix::libc::ESRCH))
        }
    };
    #[expect(
        unsafe_code,
        reason = "between fork and exec only system calls run: prctl and getppid, no allocation"
    )]
    // SAFETY: the closure is async-signal-safe, see the reason above.
    unsafe {
        command.pre_exec(promise);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_us(_: &mut Command) {}

/// A shell that waits for the end of a pipe that only we hold, then stops the server.
fn watchdog(pid: u32) -> std::io::Result<std::process::Child> {
    Command::new("/bin/sh")
        .args(["-c", "read _; kill -INT \"$0\"", &pid.to_string()])
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// Temporary servers that a normal end of the process takes along. Statics are never dropped, so a cluster that a
/// test binary shares would leave its folder.
static TEMPORARY: Mutex<Vec<Weak<Server>>> = Mutex::new(Vec::new());

fn stop_at_exit(server: &Arc<Server>) {
    static REGISTERED: Once = Once::new();
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(server));
    REGISTERED.call_once(|| {
        #[expect(unsafe_code, reason = "libc's list of last deeds has no safe door")]
        // SAFETY: the function is `extern "C"`, lives as long as the program and does not unwind.
        unsafe {
            nix::libc::atexit(stop_temporary);
        }
    });
}

extern "C" fn stop_temporary() {
    let servers = std::mem::take(&mut *TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner));
    for server in servers.iter().filter_map(Weak::upgrade) {
        let _ = server.stop();
    }
}
