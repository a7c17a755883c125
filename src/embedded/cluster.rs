//! A cluster's folder: its lock, its password, its data, and the settings its server gets.
//!
//! `lock` (ours, held open), `password` and `data/` (the servant's), `postgres.log`. The data appear whole or not at
//! all: `initdb` works in `data.new`, which is renamed when it is done.

use super::servant::Servant;
use super::{Binaries, Options};
use anyhow::{Context, bail};
use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Name of every temporary cluster's folder begins so.
const TEMPORARY: &str = "vinops-pg-";

/// Bytes of the longest folder for a socket: an address has room for 107, and the socket's name takes 17.
const SOCKET_FOLDER: usize = 90;

/// An open cluster folder; nobody else can open it while this lives.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Present when the folder goes with us.
    temporary: Option<TempDir>,
    _lock: File,
}

impl Folder {
    /// The lasting cluster in `path`, created if need be.
    pub(super) fn open(path: &Path, servant: &Servant) -> anyhow::Result<Folder> {
        std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        let lock = lock(path, "lock")?;
        servant.own(path, 0o700)?;
        if let Some(parent) = path.parent() {
            servant.reach(parent)?;
        }
        Ok(Folder { path: path.to_owned(), temporary: None, _lock: lock })
    }

    /// A new cluster in a folder of its own; folders whose process was killed are removed on the way.
    pub(super) fn temporary(servant: &Servant) -> anyhow::Result<Folder> {
        let root = servant.temporary_root();
        sweep(&root);
        let temporary = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(&root)
            .with_context(|| format!("create a folder in {}", root.display()))?;
        // who sweeps must not find the lock before it is held
        let lock = lock(temporary.path(), "lock.new")?;
        let (held, known) = (temporary.path().join("lock.new"), temporary.path().join("lock"));
        std::fs::rename(&held, &known).with_context(|| format!("rename {}", held.display()))?;
        servant.own(temporary.path(), 0o700)?;
        Ok(Folder { path: temporary.path().to_owned(), temporary: Some(temporary), _lock: lock })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    /// Where the server's Unix socket can lie: here, if the name is short enough for one and needs no quoting.
    pub(super) fn socket(&self) -> Option<&str> {
        let folder = self.path.to_str()?;
        let plain = folder.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
        (cfg!(unix) && folder.len() <= SOCKET_FOLDER && plain).then_some(folder)
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// PostgreSQL's major version of the data here; none before the first start.
    pub(super) fn major(&self) -> anyhow::Result<Option<u32>> {
        match std::fs::read_to_string(self.data().join("PG_VERSION")) {
            Ok(version) => Ok(Some(version.trim().parse().context("read PG_VERSION")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", self.data().display())),
        }
    }

    /// Creates the cluster if it is not there, else takes its leftovers away; the superuser's password.
    pub(super) fn prepare(
        &self,
        binaries: &Binaries,
        servant: &Servant,
        durable: bool,
    ) -> anyhow::Result<String> {
        let password = self.path.join("password");
        if self.data().is_dir() {
            wait_for_predecessor(&self.data())?;
            return std::fs::read_to_string(&password)
                .with_context(|| format!("read {}", password.display()));
        }
        let word = format!("{:032x}", rand::random::<u128>());
        std::fs::write(&password, &word).with_context(|| format!("write {}", password.display()))?;
        servant.own(&password, 0o600)?;
        let fresh = self.path.join("data.new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).with_context(|| format!("remove {}", fresh.display()))?;
        }
        let mut initdb = servant.command(&binaries.folder.join("initdb"), &self.path);
        // The locale C is everywhere and sorts by bytes, so that an index made on one machine is good on another.
        initdb
            .arg("--pgdata")
            .arg(&fresh)
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .arg("--pwfile")
            .arg(&password);
        if !durable || self.is_temporary() {
            initdb.arg("--no-sync");
        }
        let said = initdb.output().with_context(|| format!("run {:?}", initdb.get_program()))?;
        if !said.status.success() {
            let complaint = String::from_utf8_lossy(&said.stderr);
            bail!("initdb in {}: {}: {}", fresh.display(), said.status, complaint.trim());
        }
        std::fs::rename(&fresh, self.data()).context("put the new cluster into its place")?;
        Ok(word)
    }

    /// Removes a temporary folder, which must have no server any more.
    pub(super) fn remove(&self) {
        if self.is_temporary() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn lock(folder: &Path, name: &str) -> anyhow::Result<File> {
    let path = folder.join(name);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            bail!(
                "the cluster in {} is in use by another vinops (process {holder}): stop it, connect to its database \
                 with DATABASE_URL, or choose another folder",
                folder.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// Removes what killed processes left; silent, since it is nobody's errand.
fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        // A folder without a lock file is one that is just being made.
        let free =
            File::options().write(true).open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if free && server_of(&path.join("data")).is_none() {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

/// The live server on `data`, where `/proc` can tell: the process that `postmaster.pid` names, at work in that folder.
fn server_of(data: &Path) -> Option<u32> {
    let pid: u32 =
        std::fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()?;
    let workplace = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (workplace == std::fs::canonicalize(data).ok()?).then_some(pid)
}

/// Waits until a predecessor's server has shut down, then removes a `postmaster.pid` that nobody stands behind.
fn wait_for_predecessor(data: &Path) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    while let Some(pid) = server_of(data) {
        if begun.elapsed().as_secs() > 30 {
            bail!("the PostgreSQL process {pid} still serves {}: stop it (kill -INT {pid})", data.display());
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    let stale = data.join("postmaster.pid");
    if cfg!(target_os = "linux") && stale.exists() {
        std::fs::remove_file(&stale).with_context(|| format!("remove the stale {}", stale.display()))?;
    }
    Ok(())
}

/// `name=value` pairs for the server's command line. They are not in `postgresql.conf`, so that a newer vinops
/// improves an older cluster.
pub(super) fn settings(binaries: &Binaries, options: &Options, socket_folder: Option<&str>) -> Vec<String> {
    let megabytes = memory_megabytes();
    let buffers = if options.durable { (megabytes / 8).clamp(128, 2048) } else { 128 };
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("unix_socket_directories={}", socket_folder.map_or("", |folder| folder)),
        "max_connections=200".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "lc_messages=C".to_owned(),
        // The upserts are few, long and repeated: compiling each costs more than it brings.
        "jit=off".to_owned(),
        // Whole windows are sorted and hashed at once, by few connections.
        "work_mem=64MB".to_owned(),
        format!("maintenance_work_mem={}MB", (megabytes / 16).clamp(64, 512)),
        format!("shared_buffers={buffers}MB"),
        "random_page_cost=1.1".to_owned(),
        // A window is written in one burst: checkpoints in its middle would write the same pages twice.
        "max_wal_size=4GB".to_owned(),
        // The same burst fills the usual 16 MB of log before its writer wakes, and then waits for it.
        "wal_buffers=64MB".to_owned(),
        "checkpoint_timeout=15min".to_owned(),
    ];
    if !options.followed {
        // What a transaction makes and fills itself goes to its file, not to the log too.
        settings.extend(["wal_level=minimal", "max_wal_senders=0"].map(str::to_owned));
    }
    // wal_compression stays off: pglz, the only kind every build has, more than doubles the time of a steady window
    if !options.durable {
        settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
    }
    if binaries.has_module("pg_stat_statements") {
        settings.push("shared_preload_libraries=pg_stat_statements".to_owned());
    }
    settings
}

/// This machine's memory, or a modest guess where `/proc` does not say.
fn memory_megabytes() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total
        .and_then(|total| total.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(2048, |kilobytes| kilobytes / 1024)
}
