//! Flawed records on their way to `audit.parse_errors`.
//!
//! Whether a file is applied is known only at its end, so the first rejected records and the others are spooled
//! separately. An applied file stores all of them, a quarantined one the first [`MAX_KEPT_RECORDS`]. The spools bound
//! the memory: they continue in a temporary file, and a record adds at most the bytes that the reader keeps of it.

use crate::db::copy::{CopyBuf, CopySpool};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

const COPY_PARSE_ERRORS: &str = "copy audit.parse_errors (window_start_utc, file_id, source, row_no, byte_offset, kind, reason, raw) \
    from stdin (format binary)";
/// Maximum number of rejected records stored for a quarantined file, and of repaired records for any file. All are
/// counted.
pub const MAX_KEPT_RECORDS: u64 = 5_000;

/// The file that flawed records belong to.
#[derive(Clone, Copy, Debug)]
pub struct FlawedFile<'a> {
    /// The file's window.
    pub window: DateTime<Utc>,
    /// The id of the file.
    pub file_id: Uuid,
    /// The name of the source.
    pub source: &'a str,
}

/// A record that is unreadable, or readable only with characters replaced.
#[derive(Debug)]
pub struct FlawedRecord<'a> {
    /// The position among the file's records, from 1.
    pub row_no: u64,
    /// The offset of the record in the file, in bytes.
    pub byte_offset: u64,
    /// The description of the flaw.
    pub reason: &'a str,
    /// The bytes of the record.
    pub bytes: &'a [u8],
}

/// The flawed records of a file.
#[derive(Debug, Default)]
pub struct FlawedRecords {
    rejected: u64,
    repaired: u64,
    first: SpooledRows,
    others: SpooledRows,
}

#[derive(Debug, Default)]
struct SpooledRows {
    rows: CopyBuf,
    spool: CopySpool,
}

impl FlawedRecords {
    /// Adds a record that could not be read.
    pub fn add_rejected(&mut self, file: &FlawedFile<'_>, flaw: &FlawedRecord<'_>) {
        let to = if self.rejected < MAX_KEPT_RECORDS { &mut self.first } else { &mut self.others };
        self.rejected += 1;
        write_record(&mut to.rows, file, "rejected", flaw);
    }

    /// Adds a record that was read with characters replaced. Only the first [`MAX_KEPT_RECORDS`] are stored.
    pub fn add_repaired(&mut self, file: &FlawedFile<'_>, flaw: &FlawedRecord<'_>) {
        if self.repaired < MAX_KEPT_RECORDS {
            self.repaired += 1;
            write_record(&mut self.first.rows, file, "repaired", flaw);
        }
    }

    /// Returns the number of bytes that are not spooled yet.
    pub fn pending_bytes(&self) -> usize {
        self.first.rows.len() + self.others.rows.len()
    }

    /// Spools the pending records.
    pub fn spool_pending(&mut self) -> std::io::Result<()> {
        for part in [&mut self.first, &mut self.others] {
            part.spool.append(&mut part.rows)?;
        }
        Ok(())
    }

    /// Returns the number of rejected records that [`FlawedRecords::send_first`] leaves out.
    pub fn omitted_records(&self) -> u64 {
        self.rejected.saturating_sub(MAX_KEPT_RECORDS)
    }

    /// Copies all records into `audit.parse_errors`.
    pub async fn send_all(self, connection: &mut PgConnection) -> anyhow::Result<()> {
        self.first.spool.send(connection, COPY_PARSE_ERRORS).await?;
        self.others.spool.send(connection, COPY_PARSE_ERRORS).await?;
        Ok(())
    }

    /// Copies the first records into `audit.parse_errors`, for a quarantined file.
    pub async fn send_first(self, connection: &mut PgConnection) -> anyhow::Result<()> {
        self.first.spool.send(connection, COPY_PARSE_ERRORS).await?;
        Ok(())
    }
}

fn write_record(rows: &mut CopyBuf, file: &FlawedFile<'_>, kind: &str, flaw: &FlawedRecord<'_>) {
    rows.begin_row(8);
    rows.put_timestamptz(Some(file.window));
    rows.put_uuid(Some(file.file_id));
    rows.put_text(Some(file.source));
    rows.put_int(i32::try_from(flaw.row_no).ok());
    rows.put_bigint(i64::try_from(flaw.byte_offset).unwrap_or(i64::MAX));
    rows.put_text(Some(kind));
    rows.put_text(Some(flaw.reason));
    rows.put_bytea(flaw.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::migrated_database;

    const INSERT_FILE: &str = "insert into raw.csv_files (file_id, path, sha256, bytes, window_start_utc)
        values (gen_random_uuid(), '2026/03/06/1715.csv', repeat('0', 64), 1, '2026-03-06T17:15Z')
        returning file_id, window_start_utc";
    const COUNT_BY_KIND: &str =
        "select kind, count(*), max(row_no) from audit.parse_errors where source = 'other' group by kind order by kind";

    fn flawed_records((file_id, window): (Uuid, DateTime<Utc>), repaired: u64, rejected: u64) -> FlawedRecords {
        let file = &FlawedFile { window, file_id, source: "other" };
        let mut flaws = FlawedRecords::default();
        let flaw = |row_no| FlawedRecord { row_no, byte_offset: 60 * row_no, reason: "why", bytes: b"\xff,\0" };
        (1..=repaired).for_each(|n| flaws.add_repaired(file, &flaw(n)));
        for n in 1..=rejected {
            flaws.add_rejected(file, &flaw(repaired + n));
            if n % 1_000 == 0 {
                flaws.spool_pending().unwrap();
            }
        }
        flaws.spool_pending().unwrap();
        flaws
    }

    #[tokio::test]
    async fn an_applied_file_keeps_every_rejected_record_and_a_quarantined_one_the_first_5000() {
        let test = migrated_database().await;
        let mut connection = test.db.pool.acquire().await.unwrap();
        let file: (Uuid, DateTime<Utc>) = sqlx::query_as(INSERT_FILE).fetch_one(&mut *connection).await.unwrap();
        sqlx::query("select audit.ensure_partitions($1)").bind(file.1).execute(&mut *connection).await.unwrap();
        for (whole, rejected, last) in [(true, 5_003, 11_003), (false, 5_000, 11_000)] {
            let flaws = flawed_records(file, 6_000, 5_003);
            assert_eq!(flaws.omitted_records(), 3);
            if whole {
                flaws.send_all(&mut connection).await.unwrap();
            } else {
                flaws.send_first(&mut connection).await.unwrap();
            }
            let counted: Vec<(String, i64, i32)> =
                sqlx::query_as(COUNT_BY_KIND).fetch_all(&mut *connection).await.unwrap();
            // Repaired records do not crowd out rejected ones.
            let wanted = [("rejected".to_owned(), rejected, last), ("repaired".to_owned(), 5_000, 5_000)];
            assert_eq!(counted, wanted);
            sqlx::query("delete from audit.parse_errors").execute(&mut *connection).await.unwrap();
        }
        assert_eq!(flawed_records(file, 0, 5_000).omitted_records(), 0);
    }
}
