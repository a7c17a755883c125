//! The user account of PostgreSQL's processes: the account of vinops. For root, which the server refuses, `postgres` or
//! else `nobody`. Only the child processes change their user. They become the owners of the folders that they need.

use crate::config;
use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, User};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user account of the child processes.
#[derive(Clone, Debug)]
pub(super) struct OsUser {
    name: String,
    uid: Uid,
    gid: Gid,
    /// True if vinops runs as root, so the child processes change to this user.
    dropped: bool,
}

impl OsUser {
    pub(super) fn select_user() -> anyhow::Result<OsUser> {
        let uid = Uid::effective();
        if !uid.is_root() {
            let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
            return Ok(OsUser { name, uid, gid: Gid::effective(), dropped: false });
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name).context("could not read the user database")? {
                return Ok(OsUser { name: user.name, uid: user.uid, gid: user.gid, dropped: true });
            }
        }
        bail!(
            "PostgreSQL does not run as root, and there is no user postgres or nobody\nhint: create one of these \
             users, or set DATABASE_URL"
        )
    }

    /// Returns a command that runs `program` as this user, with a minimal environment.
    pub(super) fn build_command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        if self.dropped {
            command.gid(self.gid.as_raw()).uid(self.uid.as_raw());
        }
        command
    }

    /// Makes this user the owner of `path` and sets the mode.
    pub(super) fn set_owner(&self, path: &Path, mode: u32) -> anyhow::Result<()> {
        let owned = || {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            if self.dropped {
                std::os::unix::fs::chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))?;
            }
            std::io::Result::Ok(())
        };
        owned().with_context(|| format!("could not make user {} the owner of {}", self.name, path.display()))
    }

    /// Returns the default folder of clusters and downloaded programs. For root not its home, which other users cannot
    /// enter.
    pub(super) fn default_home(&self) -> anyhow::Result<PathBuf> {
        let candidates = if self.dropped {
            vec![PathBuf::from("/var/lib/vinops"), PathBuf::from("/var/tmp/vinops")]
        } else {
            config::user_data_folder().into_iter().collect()
        };
        for home in &candidates {
            if std::fs::create_dir_all(home).is_ok() && self.check_access(home).is_ok() {
                return Ok(home.clone());
            }
        }
        bail!(
            "no writable folder for an embedded PostgreSQL\nhint: set XDG_DATA_HOME or HOME to a writable folder, or \
             set DATABASE_URL"
        )
    }

    /// Returns the folder in which temporary clusters are created.
    pub(super) fn temporary_root(&self) -> PathBuf {
        let usual = std::env::temp_dir();
        if self.check_access(&usual).is_ok() { usual } else { PathBuf::from("/var/tmp") }
    }

    /// Checks that this user may enter every folder of `path`.
    ///
    /// In a folder below one that the user cannot enter (root's home), the server would fail with "permission denied"
    /// without a name.
    ///
    /// # Errors
    ///
    /// Returns an error with the first folder that the user cannot enter.
    pub(super) fn check_access(&self, path: &Path) -> anyhow::Result<()> {
        for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            let Ok(meta) = std::fs::metadata(folder) else { continue };
            let pass = match () {
                () if meta.uid() == self.uid.as_raw() => 0o100,
                () if meta.gid() == self.gid.as_raw() => 0o010,
                () => 0o001,
            };
            if meta.mode() & pass == 0 {
                bail!(
                    "folder {} cannot be entered by user {}, who runs PostgreSQL because root may not\nhint: choose a \
                     folder outside it",
                    folder.display(),
                    self.name
                );
            }
        }
        Ok(())
    }
}
