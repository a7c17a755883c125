//! Input of the benchmarks: windows of the simulated feed as CSV files, and the rows of the first window as JSON.
//!
//! The files are written before any measurement, on a blocking thread, in a folder that is deleted with the run.

use crate::auction::mapping::copart;
use crate::auction::payload::Payload;
use crate::auction::reader::{Item, Limits, Reader};
use crate::simulator::{Options, Simulator};
use anyhow::Context;
use chrono::{TimeZone, Utc};
use data_encoding::HEXLOWER;
use memchr::memchr;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Files of consecutive windows, in a temporary folder.
pub struct Files {
    folder: TempDir,
    /// Files in the order of the windows.
    pub windows: Vec<Window>,
}

/// File of one window.
pub struct Window {
    /// Path, which ends in `YYYY/MM/DD/HHmm.csv`. `vinops ingest` reads the window from the path.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

impl Files {
    /// Simulates `windows` windows of `rows` rows each.
    pub async fn simulate(seed: u64, rows: usize, windows: u32) -> anyhow::Result<Files> {
        tokio::task::spawn_blocking(move || Files::simulate_blocking(seed, rows, windows))
            .await
            .context("could not simulate the feed")?
    }

    fn simulate_blocking(seed: u64, rows: usize, windows: u32) -> anyhow::Result<Files> {
        let folder = tempfile::Builder::new()
            .prefix("vinops-bench-feed-")
            .tempdir()
            .context("could not create a folder for the simulated feed")?;
        let start = Utc
            .with_ymd_and_hms(2026, 3, 6, 17, 0, 0)
            .single()
            .context("could not compute the start of the first window")?;
        let mut simulator = Simulator::new(Options::new(seed, rows, start));
        let mut made = Vec::new();
        for k in 0..windows {
            let name = simulator.options().window_start(k).format("%Y/%m/%d/%H%M.csv").to_string();
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().context("window file has no folder")?)?;
            let mut out = Hashing::new(BufWriter::new(File::create(&path)?));
            simulator
                .window(k, &mut out)
                .with_context(|| format!("could not write the file {}", path.display()))?;
            out.flush()?;
            made.push(Window { path, sha256: out.hex() });
        }
        Ok(Files { folder, windows: made })
    }

    /// Writes the rows of the first window as JSON in COPY's text format. Returns the file and the number of rows.
    pub async fn ready_json(&self) -> anyhow::Result<(PathBuf, u64)> {
        let from = self.windows.first().context("no window was simulated")?.path.clone();
        let to = self.folder.path().join("ready.jsonl");
        tokio::task::spawn_blocking(move || Ok((to.clone(), write_json(&from, &to)?)))
            .await
            .context("could not write the rows as JSON")?
    }
}

fn write_json(from: &Path, to: &Path) -> anyhow::Result<u64> {
    let mut reader = Reader::new(BufReader::new(File::open(from)?), Limits::default(), copart())?;
    let payload = Payload::new(reader.header());
    let mut out = BufWriter::with_capacity(1 << 18, File::create(to)?);
    let (mut row, mut rows) = (Vec::new(), 0);
    while let Some(item) = reader.read()? {
        let Item::Row(record) = item else { continue };
        row.clear();
        payload.append(&record, &mut row);
        // COPY's text format treats a backslash as an escape. JSON already escapes line ends and tabs.
        let mut rest = row.as_slice();
        while let Some(at) = memchr(b'\\', rest) {
            out.write_all(&rest[..=at])?;
            out.write_all(b"\\")?;
            rest = &rest[at + 1..];
        }
        out.write_all(rest)?;
        out.write_all(b"\n")?;
        rows += 1;
    }
    out.flush()?;
    Ok(rows)
}

/// Returns the SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> anyhow::Result<String> {
    let mut out = Hashing::new(io::sink());
    let mut file = File::open(path).with_context(|| format!("could not open the file {}", path.display()))?;
    io::copy(&mut file, &mut out).with_context(|| format!("could not read the file {}", path.display()))?;
    Ok(out.hex())
}

/// Writer that computes the SHA-256 of all bytes written through it.
struct Hashing<W> {
    out: W,
    hash: Sha256,
}

impl<W> Hashing<W> {
    fn new(out: W) -> Hashing<W> {
        Hashing { out, hash: Sha256::new() }
    }

    fn hex(self) -> String {
        HEXLOWER.encode(&self.hash.finalize())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_rows_are_the_windows_rows_as_json() {
        let files = Files::simulate(7, 300, 1).await.unwrap();
        let (path, rows) = files.ready_json().await.unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count() as u64, rows);
        assert!((270..=330).contains(&rows));
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(&line.replace("\\\\", "\\")).unwrap();
            assert_eq!(row.as_object().unwrap().len(), 59);
        }
    }
}
