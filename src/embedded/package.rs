//! Downloads PostgreSQL's programs as an npm package, for machines with npm and without a server.
//!
//! The npm client downloads the package, so its proxies, mirrors and certificates apply and no host is named here. The
//! package must have the hash below: a changed byte is an error. npm drops symbolic links, so the package contains the
//! links of the libraries as a list, and this module creates them again. The package is unpacked into another folder
//! and renamed into place. So a half-unpacked server is never found, and either of two concurrent processes may win.

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha512};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Version of the package. The part up to the first dot is the major version of PostgreSQL.
const PACKAGE_VERSION: &str = "17.10.0-beta.17";
/// PostgreSQL's major version in the package.
pub(super) const PACKAGE_MAJOR_VERSION: u32 = 17;

/// Platforms by their npm names, each with the SHA-512 of its package, computed from the package on 2026-11-21.
const PINNED_HASHES: [(&str, &str); 4] = [
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

/// Returns the folder of the programs. Downloads them into `home` if they do not exist.
pub(super) fn fetch_programs(home: &Path) -> anyhow::Result<PathBuf> {
    let (platform, sha512) = pinned_hash()?;
    let place = home.join(format!("postgresql-{PACKAGE_VERSION}-{platform}"));
    let programs = place.join("native/bin");
    if programs.join("postgres").is_file() {
        return Ok(programs);
    }
    std::fs::create_dir_all(home).with_context(|| format!("could not create the folder {}", home.display()))?;
    let aside =
        tempfile::tempdir_in(home).with_context(|| format!("could not create a folder in {}", home.display()))?;
    let package = format!("@embedded-postgres/{platform}@{PACKAGE_VERSION}");
    tracing::info!(package, "downloading PostgreSQL with npm, about 23 MB on Linux and 51 MB on macOS");
    let tarball = fetch_tarball(&package, aside.path())?;
    verify_hash(&tarball, sha512).with_context(|| format!("invalid package {package}"))?;
    unpack_tarball(&tarball, aside.path()).with_context(|| format!("could not unpack package {package}"))?;
    match std::fs::rename(aside.path().join("package"), &place) {
        // Another process was faster, with the same bytes.
        Err(_) if programs.join("postgres").is_file() => Ok(programs),
        renamed => renamed
            .with_context(|| format!("could not move package {package} to {}", place.display()))
            .map(|()| programs),
    }
}

fn pinned_hash() -> anyhow::Result<(&'static str, &'static str)> {
    let os = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let platform = format!("{os}-{processor}");
    PINNED_HASHES
        .into_iter()
        .find(|(pinned, _)| *pinned == platform)
        .with_context(|| format!("there is no packaged PostgreSQL for {platform}"))
}

/// Downloads the tarball of a package into `folder` with npm, and returns the bytes.
fn fetch_tarball(package: &str, folder: &Path) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("npm")
        .args(["pack", package, "--ignore-scripts", "--loglevel=error", "--pack-destination"])
        .arg(folder)
        .current_dir(folder)
        .output()
        .context("could not run the program npm")?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("npm pack {package} failed with {}: {}", output.status, error.trim());
    }
    let tarball = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .with_context(|| format!("npm pack {package} left no tarball"))?;
    std::fs::read(&tarball).with_context(|| format!("could not read the file {}", tarball.display()))
}

fn verify_hash(tarball: &[u8], sha512: &str) -> anyhow::Result<()> {
    let got = HEXLOWER.encode(&Sha512::digest(tarball));
    if got != sha512 {
        bail!("SHA-512 is {got}, expected {sha512}");
    }
    Ok(())
}

/// One of the symbolic links that npm dropped, both paths relative to the package.
#[derive(Deserialize)]
struct PackageLink {
    source: PathBuf,
    target: PathBuf,
}

fn unpack_tarball(tarball: &[u8], folder: &Path) -> anyhow::Result<()> {
    tar::Archive::new(flate2::read::GzDecoder::new(tarball)).unpack(folder)?;
    let package = folder.join("package");
    let links = std::fs::read(package.join("native/pg-symlinks.json"))?;
    for PackageLink { source, target } in serde_json::from_slice::<Vec<PackageLink>>(&links)? {
        let (place, name) = (package.join(&target), source.file_name());
        if !place.exists() {
            let name = name.with_context(|| format!("invalid link source {}", source.display()))?;
            std::os::unix::fs::symlink(name, &place)
                .with_context(|| format!("could not create the link {}", place.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_another_hash_is_refused() {
        let refused = verify_hash(b"not PostgreSQL", PINNED_HASHES[0].1).unwrap_err().to_string();
        assert!(refused.contains(PINNED_HASHES[0].1), "{refused}");
    }

    #[test]
    fn every_pinned_hash_is_a_sha512() {
        for (platform, sha512) in PINNED_HASHES {
            assert_eq!(sha512.len(), 128, "{platform}");
        }
    }

    #[test]
    #[ignore = "fetches 23 MB through npm"]
    fn the_package_becomes_a_server_that_says_its_version() {
        let home = tempfile::tempdir().unwrap();
        let programs = fetch_programs(home.path()).unwrap();
        let said = Command::new(programs.join("postgres")).arg("--version").output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).contains("17.10"), "{said:?}");
    }
}
