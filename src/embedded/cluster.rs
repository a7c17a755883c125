//! The folder of a cluster: lock, password, data, and the settings of the server.
//!
//! `lock` (vinops's own, kept open), `password` and `data/` (owned by the server's user), `postgres.log`. The data
//! folder is complete or missing: `initdb` works in `data.new`, which is renamed at the end.

use super::os_user::OsUser;
use super::{EmbeddedOptions, ServerBinaries};
use anyhow::{Context, bail};
use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Prefix of the folder names of temporary clusters.
const TEMPORARY_PREFIX: &str = "vinops-pg-";

/// Longest path of a socket's folder, in bytes. A socket address takes 107 bytes, and the name of the socket takes 17.
const MAX_SOCKET_FOLDER_BYTES: usize = 90;

/// An open cluster folder, locked against other processes until this is dropped.
#[derive(Debug)]
pub(super) struct ClusterFolder {
    pub(super) path: PathBuf,
    /// Present if the folder is deleted with the process.
    temporary: Option<TempDir>,
    _lock: File,
}

impl ClusterFolder {
    /// Opens the folder of the permanent cluster in `path`, and creates the folder if it does not exist.
    pub(super) fn open_cluster(path: &Path, os_user: &OsUser) -> anyhow::Result<ClusterFolder> {
        std::fs::create_dir_all(path).with_context(|| format!("could not create the folder {}", path.display()))?;
        let lock = lock_folder(path, "lock")?;
        os_user.set_owner(path, 0o700)?;
        if let Some(parent) = path.parent() {
            os_user.check_access(parent)?;
        }
        Ok(ClusterFolder { path: path.to_owned(), temporary: None, _lock: lock })
    }

    /// Creates a folder for a temporary cluster. Also removes the folders of killed processes.
    pub(super) fn create_temporary(os_user: &OsUser) -> anyhow::Result<ClusterFolder> {
        let root = os_user.temporary_root();
        sweep_temporary(&root);
        let temporary = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempdir_in(&root)
            .with_context(|| format!("could not create a folder in {}", root.display()))?;
        // A process that sweeps must not find the lock file before it is locked.
        let lock = lock_folder(temporary.path(), "lock.new")?;
        let (held, known) = (temporary.path().join("lock.new"), temporary.path().join("lock"));
        std::fs::rename(&held, &known).with_context(|| format!("could not rename the file {}", held.display()))?;
        os_user.set_owner(temporary.path(), 0o700)?;
        Ok(ClusterFolder { path: temporary.path().to_owned(), temporary: Some(temporary), _lock: lock })
    }

    pub(super) fn data_path(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    /// Returns this folder for the server's Unix socket if the path is short enough and needs no quoting.
    pub(super) fn socket_folder(&self) -> Option<&str> {
        let folder = self.path.to_str()?;
        let plain = folder.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
        (cfg!(unix) && folder.len() <= MAX_SOCKET_FOLDER_BYTES && plain).then_some(folder)
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Returns the major version of PostgreSQL that created the data, or `None` before the first start.
    pub(super) fn major_version(&self) -> anyhow::Result<Option<u32>> {
        let file = self.data_path().join("PG_VERSION");
        match std::fs::read_to_string(&file) {
            Ok(version) => {
                let version = version.trim().parse();
                Ok(Some(version.with_context(|| format!("{} contains no version", file.display()))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("could not read the file {}", file.display())),
        }
    }

    /// Creates the cluster if it does not exist, else removes the leftovers of the last server. Returns the superuser's
    /// password.
    pub(super) fn prepare_cluster(
        &self,
        binaries: &ServerBinaries,
        os_user: &OsUser,
        durable: bool,
    ) -> anyhow::Result<String> {
        let password = self.path.join("password");
        if self.data_path().is_dir() {
            wait_for_predecessor(&self.data_path())?;
            return std::fs::read_to_string(&password)
                .with_context(|| format!("could not read the file {}", password.display()));
        }
        let word = format!("{:032x}", rand::random::<u128>());
        std::fs::write(&password, &word).with_context(|| format!("could not write the file {}", password.display()))?;
        os_user.set_owner(&password, 0o600)?;
        let fresh = self.path.join("data.new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh)
                .with_context(|| format!("could not remove the folder {}", fresh.display()))?;
        }
        let mut initdb = os_user.build_command(&binaries.folder.join("initdb"), &self.path);
        // The locale C exists on every system and sorts by bytes, so an index is valid on every machine.
        initdb
            .arg("--pgdata")
            .arg(&fresh)
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .arg("--pwfile")
            .arg(&password);
        if !durable || self.is_temporary() {
            initdb.arg("--no-sync");
        }
        let program = binaries.folder.join("initdb");
        let output = initdb.output().with_context(|| format!("could not run the program {}", program.display()))?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!(
                "initdb failed in {} with {}\ndetail: {}",
                fresh.display(),
                output.status,
                error.trim().replace('\n', "\ndetail: ")
            );
        }
        std::fs::rename(&fresh, self.data_path())
            .with_context(|| format!("could not rename the folder {}", fresh.display()))?;
        Ok(word)
    }

    /// Removes a temporary folder. Its server must have ended.
    pub(super) fn remove_temporary(&self) {
        if self.is_temporary() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn lock_folder(folder: &Path, name: &str) -> anyhow::Result<File> {
    let path = folder.join(name);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("could not open the file {}", path.display()))?;
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
                "the cluster in {} is in use by another vinops (process {holder})\nhint: stop that process, connect to \
                 its database with DATABASE_URL, or choose another folder",
                folder.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("could not lock the file {}", path.display()))
        }
    }
}

/// Removes the folders of killed processes. Ignores errors, since no caller depends on the result.
fn sweep_temporary(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            continue;
        }
        // A folder without a lock file is being created by another process.
        let free = File::options().write(true).open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if free && running_server(&path.join("data")).is_none() {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

/// Returns the pid of the running server on `data`: the process in `postmaster.pid`, if its working directory is
/// `data`.
///
/// Always `None` on systems without `/proc`.
fn running_server(data: &Path) -> Option<u32> {
    let pid: u32 = std::fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()?;
    let workplace = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (workplace == std::fs::canonicalize(data).ok()?).then_some(pid)
}

/// Waits until the server of a previous process has shut down, then removes a stale `postmaster.pid`.
fn wait_for_predecessor(data: &Path) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    while let Some(pid) = running_server(data) {
        if begun.elapsed().as_secs() > 30 {
            bail!(
                "PostgreSQL process {pid} is still running on {}\nhint: stop it with `kill -INT {pid}`",
                data.display()
            );
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    let stale = data.join("postmaster.pid");
    if cfg!(target_os = "linux") && stale.exists() {
        std::fs::remove_file(&stale).with_context(|| format!("could not remove the stale file {}", stale.display()))?;
    }
    Ok(())
}

/// Returns the settings of the server as `name=value`, for the command line.
///
/// They are not in `postgresql.conf`, so a newer vinops also changes the settings of an older cluster.
pub(super) fn server_settings(
    binaries: &ServerBinaries,
    options: &EmbeddedOptions,
    socket_folder: Option<&str>,
) -> Vec<String> {
    let megabytes = memory_megabytes();
    let buffers = if options.durable { (megabytes / 8).clamp(128, 2048) } else { 128 };
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("unix_socket_directories={}", socket_folder.map_or("", |folder| folder)),
        "max_connections=200".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "lc_messages=C".to_owned(),
        // The upserts are few, long and repeated. Compiling them costs more than it saves.
        "jit=off".to_owned(),
        // Few connections sort and hash whole windows at a time.
        "work_mem=64MB".to_owned(),
        format!("maintenance_work_mem={}MB", (megabytes / 16).clamp(64, 512)),
        format!("shared_buffers={buffers}MB"),
        "random_page_cost=1.1".to_owned(),
        // A window is written in one burst. Checkpoints during the burst would write the same pages twice.
        "max_wal_size=4GB".to_owned(),
        // The burst fills the default 16 MB of WAL buffers before the WAL writer wakes, and then waits for it.
        "wal_buffers=64MB".to_owned(),
        "checkpoint_timeout=15min".to_owned(),
    ];
    if !options.followed {
        // Rows loaded into a table created in the same transaction are written to the table's file only, not to the
        // WAL.
        settings.extend(["wal_level=minimal", "max_wal_senders=0"].map(str::to_owned));
    }
    // wal_compression stays off: pglz, the only method of every build, more than doubles the time of a steady window.
    if !options.durable {
        settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
    }
    if binaries.has_module("pg_stat_statements") {
        settings.push("shared_preload_libraries=pg_stat_statements".to_owned());
    }
    settings
}

/// Returns the memory of this machine in megabytes, or 2048 on systems without `/proc/meminfo`.
fn memory_megabytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total
        .and_then(|total| total.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(2048, |kilobytes| kilobytes / 1024)
}
