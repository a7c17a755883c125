//! Input of the benchmarks: windows of the simulated feed as CSV files, and the rows of the first window as JSON.
//!
//! The files are written before any measurement, on a blocking thread, in a folder that is deleted with the run.

use crate::auction::mapping::copart_mapping;
use crate::auction::payload::PayloadWriter;
use crate::auction::reader::{ReaderLimits, RecordItem, RecordReader};
use crate::simulator::{Simulator, SimulatorOptions};
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
pub struct BenchFiles {
    folder: TempDir,
    /// Files in the order of the windows.
    pub windows: Vec<WindowFile>,
}

/// File of one window.
pub struct WindowFile {
    /// Path, which ends in `YYYY/MM/DD/HHmm.csv`. `vinops ingest` reads the window from the path.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

impl BenchFiles {
    /// Simulates `windows` windows of `rows` rows each.
    pub async fn simulate(seed: u64, rows: usize, windows: u32) -> anyhow::Result<BenchFiles> {
        tokio::task::spawn_blocking(move || BenchFiles::simulate_blocking(seed, rows, windows))
            .await
            .context("could not simulate the feed")?
    }

    fn simulate_blocking(seed: u64, rows: usize, windows: u32) -> anyhow::Result<BenchFiles> {
        let folder = tempfile::Builder::new()
            .prefix("vinops-bench-feed-")
            .tempdir()
            .context("could not create a folder for the simulated feed")?;
        let start = Utc
            .with_ymd_and_hms(2026, 3, 6, 17, 0, 0)
            .single()
            .context("could not compute the start of the first window")?;
        let mut simulator = Simulator::new(SimulatorOptions::new(seed, rows, start));
        let mut made = Vec::new();
        for k in 0..windows {
            let name = simulator.options().window_start(k).format("%Y/%m/%d/%H%M.csv").to_string();
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().context("window file has no folder")?)?;
            let mut out = HashingWriter::new(BufWriter::new(File::create(&path)?));
            simulator
                .write_window(k, &mut out)
                .with_context(|| format!("could not write the file {}", path.display()))?;
            out.flush()?;
            made.push(WindowFile { path, sha256: out.hex_digest() });
        }
        Ok(BenchFiles { folder, windows: made })
    }

    /// Writes the rows of the first window as JSON in COPY's text format. Returns the file and the number of rows.
    pub async fn write_ready_json(&self) -> anyhow::Result<(PathBuf, u64)> {
        let from = self.windows.first().context("no window was simulated")?.path.clone();
        let to = self.folder.path().join("ready.jsonl");
        tokio::task::spawn_blocking(move || Ok((to.clone(), write_json(&from, &to)?)))
            .await
            .context("could not write the rows as JSON")?
    }
}

fn write_json(from: &Path, to: &Path) -> anyhow::Result<u64> {
    let mut reader = RecordReader::new(BufReader::new(File::open(from)?), ReaderLimits::default(), copart_mapping())?;
    let payload = PayloadWriter::new(reader.header());
    let mut out = BufWriter::with_capacity(1 << 18, File::create(to)?);
    let (mut row, mut rows) = (Vec::new(), 0);
    while let Some(item) = reader.next_item()? {
        let RecordItem::Row(record) = item else { continue };
        row.clear();
        payload.write_row(&record, &mut row);
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
pub fn hash_file(path: &Path) -> anyhow::Result<String> {
    let mut out = HashingWriter::new(io::sink());
    let mut file = File::open(path).with_context(|| format!("could not open the file {}", path.display()))?;
    io::copy(&mut file, &mut out).with_context(|| format!("could not read the file {}", path.display()))?;
    Ok(out.hex_digest())
}

/// Writer that computes the SHA-256 of all bytes written through it.
struct HashingWriter<W> {
    out: W,
    hash: Sha256,
}

impl<W> HashingWriter<W> {
    fn new(out: W) -> HashingWriter<W> {
        HashingWriter { out, hash: Sha256::new() }
    }

    fn hex_digest(self) -> String {
        HEXLOWER.encode(&self.hash.finalize())
    }
}

impl<W: Write> Write for HashingWriter<W> {
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
        let files = BenchFiles::simulate(7, 300, 1).await.unwrap();
        let (path, rows) = files.write_ready_json().await.unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count() as u64, rows);
        assert!((270..=330).contains(&rows));
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(&line.replace("\\\\", "\\")).unwrap();
            assert_eq!(row.as_object().unwrap().len(), 59);
        }
    }
}
