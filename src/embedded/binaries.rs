//! Selects the `postgres` and `initdb` programs to run.

use super::os_user::OsUser;
use super::package;
use crate::config;
use anyhow::{Context, bail};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest supported major version of PostgreSQL. The migrations are tested from this version on.
const MIN_MAJOR_VERSION: u32 = 15;

/// The origin of a server's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinariesOrigin {
    /// Named by `VINOPS_PG_BINDIR`.
    Named,
    /// Installed on the machine.
    Installed,
    /// Downloaded with npm, about half as fast.
    Package,
}

/// The programs of a server.
#[derive(Clone, Debug)]
pub struct ServerBinaries {
    /// Folder of `postgres` and `initdb`.
    pub folder: PathBuf,
    /// Full version, such as "15.18".
    pub version: String,
    /// Major version, such as 15.
    pub major: u32,
    /// Origin of the programs.
    pub origin: BinariesOrigin,
}

impl fmt::Display for ServerBinaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            BinariesOrigin::Named => "named by VINOPS_PG_BINDIR,",
            BinariesOrigin::Installed => "installed",
            BinariesOrigin::Package => "fetched with npm",
        };
        write!(f, "PostgreSQL {}, {origin} in {}", self.version, self.folder.display())
    }
}

impl ServerBinaries {
    /// Reads the version of the programs in `folder`.
    ///
    /// # Errors
    ///
    /// Returns an error if a program is missing or prints no version.
    fn probe_folder(folder: &Path, origin: BinariesOrigin) -> anyhow::Result<ServerBinaries> {
        let [postgres, initdb] = ["postgres", "initdb"].map(|program| folder.join(program));
        if !initdb.is_file() {
            bail!("program {} does not exist", initdb.display());
        }
        let output = Command::new(&postgres)
            .arg("--version")
            .output()
            .with_context(|| format!("could not run the program {}", postgres.display()))?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let version =
            parse_version(&output).with_context(|| format!("{} --version printed {output:?}", postgres.display()))?;
        let major = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        Ok(ServerBinaries { folder: folder.to_owned(), major, version, origin })
    }

    /// Returns true if the server has a loadable module. The modules are beside the programs in one of two layouts.
    pub(super) fn has_module(&self, module: &str) -> bool {
        ["../lib", "../lib/postgresql"].iter().any(|lib| {
            self.folder.join(lib).join(format!("{module}.so")).is_file()
                || self.folder.join(lib).join(format!("{module}.dylib")).is_file()
        })
    }
}

/// Returns the version in the output of `postgres --version`: "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)" →
/// "15.18".
fn parse_version(said: &str) -> Option<String> {
    let version = said.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
}

/// Returns the programs of the server to use.
///
/// `major` is the version of an existing cluster, which no other version can open.
pub(super) fn find_binaries(home: &Path, os_user: &OsUser, major: Option<u32>) -> anyhow::Result<ServerBinaries> {
    let fits = |found: &ServerBinaries| major.is_none_or(|major| found.major == major);
    let mut seen = Vec::new();
    if let Some(named) = config::pg_bindir() {
        let found = ServerBinaries::probe_folder(&named, BinariesOrigin::Named).context("VINOPS_PG_BINDIR")?;
        os_user.check_access(&found.folder).context("VINOPS_PG_BINDIR")?;
        if found.major < MIN_MAJOR_VERSION {
            bail!("VINOPS_PG_BINDIR is PostgreSQL {}, but {MIN_MAJOR_VERSION} or newer is required", found.version);
        }
        if fits(&found) {
            return Ok(found);
        }
        seen.push(found);
    } else {
        seen = installed_binaries(os_user);
        if let Some(found) = seen.iter().find(|found| fits(found)) {
            return Ok(found.clone());
        }
        if major.is_none_or(|major| major == package::PACKAGE_MAJOR_VERSION) {
            let folder = package::fetch_programs(home).context(
                "no PostgreSQL server is installed\nhint: install PostgreSQL 15 or newer (Debian: apt-get install \
                 postgresql), or name its folder with VINOPS_PG_BINDIR\nhint: or install npm, which downloads one\n\
                 hint: or set DATABASE_URL to a running server\ndetail: the download with npm failed",
            )?;
            return ServerBinaries::probe_folder(&folder, BinariesOrigin::Package);
        }
    }
    bail!(
        "the cluster in {} belongs to PostgreSQL {}, but only {} is installed\nhint: install that version, name it \
         with VINOPS_PG_BINDIR, or move the folder away to start anew",
        home.display(),
        major.unwrap_or_default(),
        seen.iter().map(|found| found.version.as_str()).collect::<Vec<_>>().join(", "),
    )
}

/// Returns the programs of the installed servers, newest first.
fn installed_binaries(os_user: &OsUser) -> Vec<ServerBinaries> {
    let mut folders: Vec<PathBuf> = Vec::new();
    // Debian, Red Hat, Homebrew on both processors, a build from source.
    for (root, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
        ("/usr/local", "pgsql"),
    ] {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        folders.extend(named.map(|entry| entry.path().join("bin")));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let mut found: Vec<ServerBinaries> = folders
        .iter()
        .filter(|folder| folder.join("postgres").is_file() && os_user.check_access(folder).is_ok())
        .filter_map(|folder| ServerBinaries::probe_folder(folder, BinariesOrigin::Installed).ok())
        .filter(|found| found.major >= MIN_MAJOR_VERSION)
        .collect();
    found.sort_by_key(|found| std::cmp::Reverse(found.major));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(), Some("15.18"));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n").as_deref(), Some("18beta1"));
        assert_eq!(parse_version("").as_deref(), None);
    }
}
