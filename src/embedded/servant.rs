//! The account that PostgreSQL's processes run as: our own, or, since the server refuses root, `postgres` or else
//! `nobody` when we are root. Only the children change; the folders they need are handed over to them.

use crate::config;
use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, User};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whom the children run as.
#[derive(Clone, Debug)]
pub(super) struct Servant {
    name: String,
    uid: Uid,
    gid: Gid,
    /// We are root and hand down.
    dropped: bool,
}

impl Servant {
    pub(super) fn choose() -> anyhow::Result<Servant> {
        let uid = Uid::effective();
        if !uid.is_root() {
            let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
            return Ok(Servant { name, uid, gid: Gid::effective(), dropped: false });
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name).context("read the user database")? {
                return Ok(Servant { name: user.name, uid: user.uid, gid: user.gid, dropped: true });
            }
        }
        bail!(
            "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as: create one, \
             or set DATABASE_URL"
        )
    }

    /// `program` as this user, in an environment that says nothing about ours.
    pub(super) fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        if self.dropped {
            command.gid(self.gid.as_raw()).uid(self.uid.as_raw());
        }
        command
    }

    /// Hands `path` over and closes it to everybody else.
    pub(super) fn own(&self, path: &Path, mode: u32) -> anyhow::Result<()> {
        let owned = || {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            if self.dropped {
                std::os::unix::fs::chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))?;
            }
            std::io::Result::Ok(())
        };
        owned().with_context(|| format!("give {} to user {}", path.display(), self.name))
    }

    /// Where clusters and fetched programs live unless told otherwise; for root not its home, which is closed to
    /// the servant.
    pub(super) fn default_home(&self) -> anyhow::Result<PathBuf> {
        let candidates = if self.dropped {
            vec![PathBuf::from("/var/lib/vinops"), PathBuf::from("/var/tmp/vinops")]
        } else {
            config::user_data_folder().into_iter().collect()
        };
        for home in &candidates {
            if std::fs::create_dir_all(home).is_ok() && self.reach(home).is_ok() {
                return Ok(home.clone());
            }
        }
        bail!(
            "no folder for a private PostgreSQL: set XDG_DATA_HOME or HOME to a writable folder, or DATABASE_URL"
        )
    }

    /// Where temporary clusters live.
    pub(super) fn temporary_root(&self) -> PathBuf {
        let usual = std::env::temp_dir();
        if self.reach(&usual).is_ok() { usual } else { PathBuf::from("/var/tmp") }
    }

    /// Whether this user may pass every folder on the way to `path`: a folder below a closed one (root's home) would
    /// make the server say "permission denied" without a name.
    pub(super) fn reach(&self, path: &Path) -> anyhow::Result<()> {
        for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            let Ok(meta) = std::fs::metadata(folder) else { continue };
            let pass = match () {
                () if meta.uid() == self.uid.as_raw() => 0o100,
                () if meta.gid() == self.gid.as_raw() => 0o010,
                () => 0o001,
            };
            if meta.mode() & pass == 0 {
                bail!(
                    "{} is closed to user {}, who runs PostgreSQL because root may not: choose a folder outside it",
                    folder.display(),
                    self.name
                );
            }
        }
        Ok(())
    }
}
