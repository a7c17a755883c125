//! Encoder for PostgreSQL's binary COPY format.
//!
//! Bulk data is loaded by COPY because COPY is several times faster than INSERT, and in binary format because neither
//! side then escapes or parses text. A [`CopyBuf`] collects rows. A [`CopyStream`] sends many buffers with bounded
//! memory. A [`CopySpool`] stores the rows of one table while the connection serves another.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::io::{Read, Seek, Write};
use uuid::Uuid;

const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Bytes that a spool keeps in memory before it uses a file.
const SPOOL_MEMORY_BYTES: usize = 8 << 20;
/// Bytes of a spool that are sent at a time.
const SPOOL_READ_BYTES: usize = 1 << 20;
/// Microseconds from the Unix epoch to PostgreSQL's epoch, 2000-01-01.
const EPOCH_2000_MICROS: i64 = 946_684_800_000_000;

/// Encoded rows of one table.
#[derive(Debug, Default)]
pub struct CopyBuf {
    bytes: Vec<u8>,
    rows: u64,
}

impl CopyBuf {
    /// Begins a row of `columns` columns. Exactly that many `put_…` calls must follow.
    pub fn begin_row(&mut self, columns: i16) {
        self.rows += 1;
        self.bytes.extend_from_slice(&columns.to_be_bytes());
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the length of the encoded rows in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true if the buffer has no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    fn put_sized(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(value);
    }

    /// Appends NULL.
    pub fn put_null(&mut self) {
        self.bytes.extend_from_slice(&(-1i32).to_be_bytes());
    }

    /// Appends a `text` or `char(n)`.
    pub fn put_text(&mut self, value: Option<&str>) {
        match value {
            Some(v) => self.put_sized(v.as_bytes()),
            None => self.put_null(),
        }
    }

    /// Appends the `Display` form of a value as `text`.
    pub fn put_display(&mut self, value: Option<impl std::fmt::Display>) {
        let Some(value) = value else { return self.put_null() };
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        // a write to memory does not fail
        let _ = std::io::Write::write_fmt(&mut self.bytes, format_args!("{value}"));
        let length = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Appends a `bytea`.
    pub fn put_bytea(&mut self, value: &[u8]) {
        self.put_sized(value);
    }

    /// Appends an `int`.
    pub fn put_int(&mut self, value: Option<i32>) {
        match value {
            Some(v) => self.put_sized(&v.to_be_bytes()),
            None => self.put_null(),
        }
    }

    /// Appends a `bigint`.
    pub fn put_bigint(&mut self, value: i64) {
        self.put_sized(&value.to_be_bytes());
    }

    /// Appends the header of a `bigint[]` with this many elements. Exactly that many [`CopyBuf::put_bigint`] calls must
    /// follow, in this buffer or in the next buffers of the same stream.
    ///
    /// sqlx would encode an array as a whole, in memory.
    pub fn begin_bigint_array(&mut self, values: usize) {
        const BIGINT_OID: u32 = 20; // pg_type.oid of bigint
        let values = values as u32;
        // length in bytes, dimensions, whether there are NULLs, element type, element count, lower bound
        for word in [20 + 12 * values, 1, 0, BIGINT_OID, values, 1] {
            self.bytes.extend_from_slice(&word.to_be_bytes());
        }
    }

    /// Appends a `boolean`.
    pub fn put_boolean(&mut self, value: Option<bool>) {
        match value {
            Some(v) => self.put_sized(&[u8::from(v)]),
            None => self.put_null(),
        }
    }

    /// Appends a `uuid`.
    pub fn put_uuid(&mut self, value: Option<Uuid>) {
        match value {
            Some(v) => self.put_sized(v.as_bytes()),
            None => self.put_null(),
        }
    }

    /// Appends a `timestamptz`, with microsecond precision.
    pub fn put_timestamptz(&mut self, value: Option<DateTime<Utc>>) {
        match value {
            Some(v) => self.put_sized(&(v.timestamp_micros() - EPOCH_2000_MICROS).to_be_bytes()),
            None => self.put_null(),
        }
    }

    /// Appends a `numeric` of the value `unscaled` / 10^`scale`, for scales up to 4.
    pub fn put_numeric(&mut self, value: Option<(i64, u8)>) {
        let Some((unscaled, scale)) = value else { return self.put_null() };
        // a group is four decimal digits: scale the fraction to one whole group
        let fraction_unit = 10u64.pow(4 - u32::from(scale.min(4)));
        let magnitude = u128::from(unscaled.unsigned_abs()) * u128::from(fraction_unit);
        let mut groups = [0u16; 10];
        let mut used = 0;
        let mut rest = magnitude;
        while rest > 0 {
            groups[used] = (rest % 10_000) as u16;
            rest /= 10_000;
            used += 1;
        }
        let lowest = (0..used).find(|&i| groups[i] != 0).unwrap_or(used);
        let weight = used as i16 - 2;
        let sign: u16 = if unscaled < 0 { 0x4000 } else { 0 };
        self.bytes.extend_from_slice(&((8 + 2 * (used - lowest)) as u32).to_be_bytes());
        self.bytes.extend_from_slice(&((used - lowest) as i16).to_be_bytes());
        self.bytes.extend_from_slice(&(if used == 0 { 0 } else { weight }).to_be_bytes());
        self.bytes.extend_from_slice(&sign.to_be_bytes());
        self.bytes.extend_from_slice(&u16::from(scale).to_be_bytes());
        for group in groups[lowest..used].iter().rev() {
            self.bytes.extend_from_slice(&group.to_be_bytes());
        }
    }

    /// Appends a `jsonb`. `write` appends the JSON text.
    pub fn put_jsonb(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0, 0, 0, 1]);
        write(&mut self.bytes);
        let length = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Returns the rows, and leaves the buffer empty.
    pub fn take(&mut self) -> CopyBuf {
        std::mem::take(self)
    }

    /// Sends the rows by the COPY statement `sql` (`copy … from stdin (format binary)`). Returns the number of rows
    /// copied.
    pub async fn send(self, connection: &mut PgConnection, sql: &str) -> sqlx::Result<u64> {
        if self.is_empty() {
            return Ok(0);
        }
        let mut copy = CopyStream::begin(connection, sql).await?;
        copy.send(self).await?;
        copy.finish().await
    }
}

/// One COPY statement fed by many buffers.
///
/// A COPY statement has a fixed cost. The driver leaves Nagle's algorithm on, so the short message that ends a COPY may
/// wait 40 ms for the server's delayed acknowledgement (over TCP only, not over a Unix socket). So callers use long
/// streams, or statements of some megabytes, and never small statements.
pub struct CopyStream<'c> {
    copy: sqlx::postgres::PgCopyIn<&'c mut PgConnection>,
    begun: bool,
}

impl<'c> CopyStream<'c> {
    /// Begins the COPY statement `sql`.
    pub async fn begin(connection: &'c mut PgConnection, sql: &str) -> sqlx::Result<CopyStream<'c>> {
        Ok(CopyStream { copy: connection.copy_in_raw(sql).await?, begun: false })
    }

    /// Sends the rows of `buf`.
    pub async fn send(&mut self, mut buf: CopyBuf) -> sqlx::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            buf.bytes.splice(0..0, COPY_HEADER.iter().copied());
        }
        self.copy.send(buf.bytes).await.map(|_| ())
    }

    /// Ends the statement. Returns the number of rows copied.
    pub async fn finish(mut self) -> sqlx::Result<u64> {
        if !self.begun {
            self.copy.send(COPY_HEADER).await?;
        }
        // the trailer is optional: the end of the data has the same effect
        self.copy.finish().await
    }
}

/// Buffered rows of one table: in memory up to 8 MiB, then in a temporary file that is deleted with the process.
#[derive(Debug)]
pub struct CopySpool {
    file: tempfile::SpooledTempFile,
    rows: u64,
}

impl Default for CopySpool {
    fn default() -> CopySpool {
        CopySpool { file: tempfile::SpooledTempFile::new(SPOOL_MEMORY_BYTES), rows: 0 }
    }
}

impl CopySpool {
    /// Appends the rows of `buf`, which is empty afterwards.
    pub fn append(&mut self, buf: &mut CopyBuf) -> std::io::Result<()> {
        self.rows += buf.rows;
        self.file.write_all(&buf.bytes)?;
        buf.bytes.clear();
        buf.rows = 0;
        Ok(())
    }

    /// Sends all rows by the COPY statement `sql`. Returns the number of rows copied.
    pub async fn send(mut self, connection: &mut PgConnection, sql: &str) -> anyhow::Result<u64> {
        if self.rows == 0 {
            return Ok(0);
        }
        let mut copy = CopyStream::begin(connection, sql).await?;
        self.file.rewind()?;
        loop {
            let mut bytes = Vec::with_capacity(SPOOL_READ_BYTES);
            let read = (&mut self.file).take(SPOOL_READ_BYTES as u64).read_to_end(&mut bytes)?;
            if read == 0 {
                break;
            }
            copy.send(CopyBuf { bytes, rows: 0 }).await?;
        }
        Ok(copy.finish().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_type_comes_back_as_it_went_in() {
        let t = crate::testing::migrated_database().await;
        let mut c = t.db.pool.acquire().await.unwrap();
        sqlx::raw_sql("create temp table t (i int, b bigint, o boolean, u uuid, z timestamptz, n numeric, j jsonb, s text, y bytea, a bigint[])")
            .execute(&mut *c)
            .await
            .unwrap();
        let mut buf = CopyBuf::default();
        let numbers = [
            (0, 2),
            (5, 1),
            (-5, 2),
            (1, 2),
            (123_456_789, 2),
            (99_999, 1),
            (10_000, 0),
            (i64::MAX, 2),
            (1_000_000, 2),
        ];
        for (i, n) in numbers.iter().enumerate() {
            buf.begin_row(10);
            buf.put_int(Some(i as i32));
            buf.put_bigint(-7);
            buf.put_boolean(Some(true));
            buf.put_uuid(Some(Uuid::from_u128(42)));
            buf.put_timestamptz(DateTime::from_timestamp_micros(1_700_000_000_123_456));
            buf.put_numeric(Some(*n));
            buf.put_jsonb(|out| out.extend_from_slice(br#"{"a":"x"}"#));
            buf.put_text(Some("né\\\t"));
            buf.put_bytea(&[0, 255]);
            buf.begin_bigint_array(3);
            for value in [-7, 0, i64::MAX] {
                buf.put_bigint(value);
            }
        }
        let sent = buf.send(&mut c, "copy t from stdin (format binary)").await.unwrap();
        assert_eq!(sent, numbers.len() as u64);
        let rows: Vec<(String, String)> = sqlx::query_as(
            "select n::text, concat_ws('|', b, o, u, extract(epoch from z), j, s, encode(y, 'hex'), a) from t order by i",
        )
        .fetch_all(&mut *c)
        .await
        .unwrap();
        let texts: Vec<_> = rows.iter().map(|r| r.0.as_str()).collect();
        assert_eq!(
            texts,
            ["0.00", "0.5", "-0.05", "0.01", "1234567.89", "9999.9", "10000", "92233720368547758.07", "10000.00"]
        );
        assert_eq!(
            rows[0].1,
            "-7|t|00000000-0000-0000-0000-00000000002a|1700000000.123456|{\"a\": \"x\"}|né\\\t|00ff|{-7,0,9223372036854775807}"
        );
    }
}
