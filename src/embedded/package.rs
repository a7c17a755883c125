//! PostgreSQL's programs out of an npm package, for machines that have npm and no server.
//!
//! The npm client does the fetching, so its proxies, mirrors and certificates apply and no host is named here. What
//! it brings must have the hash written below; a mirror that changed one byte is refused. The package keeps the
//! libraries' symbolic links in a list, since npm drops links; they are made again here. Everything is unpacked aside
//! and renamed into place, so that a half-unpacked server is never found, and of two processes at once either wins.

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha512};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Version of the package and, up to the first dot, of PostgreSQL.
const VERSION: &str = "17.10.0-beta.17";
/// PostgreSQL's major version in the package.
pub(super) const MAJOR: u32 = 17;

/// Platform as npm spells it, and the SHA-512 of its package, read from the package itself on 2026-11-21.
const PINNED: [(&str, &str); 4] = [
    (
        "linux-x64",
        "854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9\
         e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92",
    ),
    (
        "linux-arm64",
        "982f9b42f68111fd160c3d273d65b77865170d4573a320b332d825f85c3a272f\
         4391014afa370fb73933aa186b4bf7c6ce7e6d7a53692889e5f313ea0e1ef522",
    ),
    (
        "darwin-arm64",
        "136771852965adcc802411eebe04eb053c7605a3e55f6bef8d70a53ca1f17f00\
         5ece4fa74d9d35b8012b68a89124ca731d20b237c2757538ca878abfb93b012d",
    ),
    (
        "darwin-x64",
        "81793ae4c232b6d0ff3d6a3a3434a6bbf9f8bf33dca99426c555a310ab9e7309\
         721a658ef7ce006772e36fb1746f03ef5e1a9ca2f1f8146378c9daf47c6789c6",
    ),
];

/// The folder of the programs, fetched into `home` if they are not there yet.
pub(super) fn folder(home: &Path) -> anyhow::Result<PathBuf> {
    let (platform, sha512) = pinned()?;
    let place = home.join(format!("postgresql-{VERSION}-{platform}"));
    let programs = place.join("native/bin");
    if programs.join("postgres").is_file() {
        return Ok(programs);
    }
    std::fs::create_dir_all(home).with_context(|| format!("create {}", home.display()))?;
    let aside =
        tempfile::tempdir_in(home).with_context(|| format!("create a folder in {}", home.display()))?;
    let package = format!("@embedded-postgres/{platform}@{VERSION}");
    tracing::info!("fetch {package} with npm, about 23 MB on Linux and 51 MB on macOS");
    let tarball = fetch(&package, aside.path())?;
    check(&tarball, sha512).with_context(|| format!("refuse {package}"))?;
    unpack(&tarball, aside.path()).with_context(|| format!("unpack {package}"))?;
    match std::fs::rename(aside.path().join("package"), &place) {
        // Somebody else was faster, with the same bytes.
        Err(_) if programs.join("postgres").is_file() => Ok(programs),
        renamed => {
            renamed.with_context(|| format!("put {package} into {}", place.display())).map(|()| programs)
        }
    }
}

fn pinned() -> anyhow::Result<(&'static str, &'static str)> {
    let os = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let platform = format!("{os}-{processor}");
    PINNED
        .into_iter()
        .find(|(pinned, _)| *pinned == platform)
        .with_context(|| format!("there is no packaged PostgreSQL for {platform}"))
}

/// Lets npm put the package's tarball into `folder`.
fn fetch(package: &str, folder: &Path) -> anyhow::Result<Vec<u8>> {
    let said = Command::new("npm")
        .args(["pack", package, "--ignore-scripts", "--loglevel=error", "--pack-destination"])
        .arg(folder)
        .current_dir(folder)
        .output()
        .context("run npm")?;
    if !said.status.success() {
        bail!("npm pack {package}: {}: {}", said.status, String::from_utf8_lossy(&said.stderr).trim());
    }
    let tarball = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .with_context(|| format!("npm pack {package} left no tarball"))?;
    std::fs::read(&tarball).with_context(|| format!("read {}", tarball.display()))
}

fn check(tarball: &[u8], sha512: &str) -> anyhow::Result<()> {
    let got = HEXLOWER.encode(&Sha512::digest(tarball));
    if got != sha512 {
        bail!("its SHA-512 is {got}, not the pinned {sha512}");
    }
    Ok(())
}

/// One of the links that npm dropped, both ends relative to the package.
#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

fn unpack(tarball: &[u8], folder: &Path) -> anyhow::Result<()> {
    tar::Archive::new(flate2::read::GzDecoder::new(tarball)).unpack(folder)?;
    let package = folder.join("package");
    let links = std::fs::read(package.join("native/pg-symlinks.json"))?;
    for Link { source, target } in serde_json::from_slice::<Vec<Link>>(&links)? {
        let (place, name) = (package.join(&target), source.file_name());
        if !place.exists() {
            let name = name.with_context(|| format!("link to {}", source.display()))?;
            std::os::unix::fs::symlink(name, &place).with_context(|| format!("link {}", place.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_another_hash_is_refused() {
        let refused = check(b"not PostgreSQL", PINNED[0].1).unwrap_err().to_string();
        assert!(refused.contains(PINNED[0].1), "{refused}");
    }

    #[test]
    fn every_pinned_hash_is_a_sha512() {
        for (platform, sha512) in PINNED {
            assert_eq!(sha512.len(), 128, "{platform}");
        }
    }

    #[test]
    #[ignore = "fetches 23 MB through npm"]
    fn the_package_becomes_a_server_that_says_its_version() {
        let home = tempfile::tempdir().unwrap();
        let programs = folder(home.path()).unwrap();
        let said = Command::new(programs.join("postgres")).arg("--version").output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).contains("17.10"), "{said:?}");
    }
}
