//! Loads the heads from their table with one binary COPY, which is decoded row by row.

use super::{FLAG_ABSENCE_RECORDED, FLAG_ABSENT, FLAG_AMBIGUOUS, LotHead, LotHeads};
use crate::workers::auction::ingest::scan::ROW_BITS;
use anyhow::Context;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

/// The columns of a head that are read.
const HEAD_COLUMNS: &str = "lot, row_hash, row_id, last_seen, absent_since";
/// Bytes before the first row of a binary COPY.
const COPY_HEADER_BYTES: usize = 19;
/// Bytes of a row without times: the count, then (length, value) of bigint, uuid, bigint, and two lengths.
const MIN_ROW_BYTES: usize = 54;
/// Bytes of a time's value.
const TIMESTAMP_BYTES: usize = 8;

/// A file whose versions are among the heads.
struct HeadFile {
    /// The short number of the file, which its row ids begin with.
    file_no: i64,
    /// True if manifests may refer to the file's versions.
    of_month: bool,
    /// True if another file has the same newest window.
    contested: bool,
    /// True if every head is ambiguous.
    all_contested: bool,
}

/// The files of the month and of the newest window, in ascending order.
struct HeadFiles {
    sorted: Vec<HeadFile>,
    /// True if a file received again shares the newest window with another file. Such versions may belong to any file.
    all_contested: bool,
}

impl HeadFiles {
    async fn load(connection: &mut PgConnection, source: &str, month: DateTime<Utc>) -> anyhow::Result<HeadFiles> {
        let next_month = month + chrono::Months::new(1);
        let files = sqlx::query_as!(
            HeadFile,
            r#"-- ingest: the month's files
            select
              f.file_no,
              f.window_start_utc >= $2 and f.window_start_utc < $3 as "of_month!",
              coalesce(f.window_start_utc = s.head_window, false) and n.files > 1 as "contested!",
              n.files > 1 and n.repeated as "all_contested!"
            from raw.sightings f
            join raw.sources s on s.source = f.source
            cross join lateral (
              select
                count(*) as files,
                coalesce(bool_or(g.window_start_utc <> x.window_start_utc), false) as repeated
              from raw.sightings g
              join raw.csv_files x on x.file_id = g.file_id
              where g.source = s.source
                and g.window_start_utc = s.head_window
                and g.state in ('ingested', 'applied', 'incomplete')
            ) n
            where f.source = $1
              and (f.window_start_utc >= $2 and f.window_start_utc < $3 or f.window_start_utc = s.head_window)
            order by f.file_no"#,
            source,
            month,
            next_month
        );
        let sorted = files.fetch_all(connection).await.context("could not read the month's files")?;
        let all_contested = sorted.iter().any(|file| file.all_contested);
        Ok(HeadFiles { sorted, all_contested })
    }

    /// Returns the file that stored a version.
    fn find_file(&self, row_id: i64) -> Option<&HeadFile> {
        let at = self.sorted.binary_search_by_key(&(row_id >> ROW_BITS), |file| file.file_no).ok()?;
        self.sorted.get(at)
    }
}

impl LotHeads {
    /// Reads the heads of `source` for a file of the month that begins at `month`.
    ///
    /// `COPY table TO` bypasses the executor, which is a large part of the cost of a query. Flags are therefore derived
    /// here rather than in SQL. A query is used only if the table also contains heads of another source. One connection
    /// suffices: reading half of the heads over each of two connections took as long.
    pub async fn load(connection: &mut PgConnection, source: &str, month: DateTime<Utc>) -> anyhow::Result<LotHeads> {
        let files = HeadFiles::load(connection, source, month).await?;
        if is_only_source(connection, source).await? {
            let heads = LotHeads::read_copy(connection, &format!("raw.heads ({HEAD_COLUMNS})"), &files).await?;
            // Another source may have been added meanwhile, and its first heads may be among these.
            if is_only_source(connection, source).await? {
                return Ok(heads);
            }
        }
        // COPY takes no parameters, so the source name is checked before it is interpolated.
        anyhow::ensure!(
            source.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
            "source name {source:?} contains characters other than letters, digits, - and _"
        );
        let query = format!("(/* ingest: heads */ select {HEAD_COLUMNS} from raw.heads where source = '{source}')");
        LotHeads::read_copy(connection, &query, &files).await
    }

    async fn read_copy(connection: &mut PgConnection, from: &str, files: &HeadFiles) -> anyhow::Result<LotHeads> {
        let query = format!("copy {from} to stdout (format binary)");
        let mut heads = Vec::new();
        let mut stream = connection.copy_out_raw(&query).await.context("could not read raw.heads")?;
        let mut pending: Vec<u8> = Vec::new();
        let mut begun = false;
        while let Some(chunk) = stream.try_next().await.context("could not read raw.heads")? {
            // The server sends row by row, so almost always nothing is pending.
            let whole = if pending.is_empty() {
                &chunk[..]
            } else {
                pending.extend_from_slice(&chunk);
                &pending
            };
            let mut rest = whole;
            if !begun && rest.len() >= COPY_HEADER_BYTES {
                (rest, begun) = (&rest[COPY_HEADER_BYTES..], true);
            }
            while begun && let Some(length) = row_length(rest) {
                heads.push(LotHead::read_row(&rest[..length], files));
                rest = &rest[length..];
            }
            pending = rest.to_vec();
        }
        Ok(LotHeads::new(heads))
    }
}

impl LotHead {
    /// Decodes a complete row.
    fn read_row(row: &[u8], files: &HeadFiles) -> LotHead {
        let row_id = i64::from_be_bytes(read_field(row, 38));
        let file = files.find_file(row_id);
        let (away, times) = (row[46..50] != [0xff; 4], row.len() - MIN_ROW_BYTES);
        let mut flags = 0;
        if away {
            flags |= FLAG_ABSENT;
        }
        if times > TIMESTAMP_BYTES {
            flags |= FLAG_ABSENCE_RECORDED;
        }
        if files.all_contested || file.is_some_and(|file| file.contested) {
            flags |= FLAG_AMBIGUOUS;
        }
        let row_id = if file.is_some_and(|file| file.of_month) { row_id } else { 0 };
        LotHead {
            lot: i64::from_be_bytes(read_field(row, 6)),
            row_hash: Uuid::from_bytes(read_field(row, 18)),
            row_id,
            flags,
        }
    }
}

/// Returns the length of the first row in `bytes`, or `None` if the row is incomplete or the data ends.
fn row_length(bytes: &[u8]) -> Option<usize> {
    let null = |at: usize| bytes.get(at..at + 4).map(|length| length == (-1i32).to_be_bytes());
    let last_seen = if null(46)? { 0 } else { TIMESTAMP_BYTES };
    let absent_since = if null(50 + last_seen)? { 0 } else { TIMESTAMP_BYTES };
    let length = MIN_ROW_BYTES + last_seen + absent_since;
    (bytes.len() >= length).then_some(length)
}

/// Returns true if no other source has heads.
async fn is_only_source(connection: &mut PgConnection, source: &str) -> anyhow::Result<bool> {
    sqlx::query_scalar!(
        r#"-- ingest: other sources' heads
        select not exists (select from raw.heads where source < $1)
          and not exists (select from raw.heads where source > $1) as "alone!""#,
        source
    )
    .fetch_one(connection)
    .await
    .context("could not read the heads of other sources")
}

fn read_field<const N: usize>(row: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&row[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::migrated_database;

    /// Lots of two sources and three files: one of the month, one of the month before, and two that share the newest
    /// window.
    const FIXTURE_SQL: &str = "
        insert into raw.sources (source, head_window) values ('copart', '2026-03-06T17:15Z'), ('other', null);
        insert into raw.csv_files (file_no, source, path, sha256, bytes, window_start_utc, state)
        overriding system value
        select n, 'copart', to_char(at at time zone 'UTC', 'YYYY/MM/DD/HH24MI') || '-0000000' || n || '.csv',
          lpad(n::text, 64, '0'), 1, at, 'applied'
        from (values (1, '2026-02-28T23:45Z'::timestamptz), (2, '2026-03-06T17:00Z'), (3, '2026-03-06T17:15Z'),
          (4, '2026-03-06T17:15Z')) as f (n, at);
        insert into raw.sightings (source, window_start_utc, file_id, file_no, state)
        select source, window_start_utc, file_id, file_no, state from raw.csv_files;
        insert into raw.heads (source, lot, row_hash, row_id, version_window, last_seen, absent_since)
        select source, lot, lpad(lot::text, 32, '0')::uuid, file_no << 24 | lot, now(), last_seen::timestamptz, absent_since::timestamptz
        from (values
          ('copart', 11, 1, null, null),
          ('copart', 12, 2, null, null),
          ('copart', 13, 2, '2026-03-06T17:00Z', null),
          ('copart', 14, 2, '2026-03-06T17:00Z', '2026-03-06T17:15Z'),
          ('copart', 15, 4, null, null)) as h (source, lot, file_no, last_seen, absent_since)";

    #[tokio::test]
    async fn heads_are_those_of_their_source_and_say_what_their_version_is() {
        let db = migrated_database().await;
        let mut connection = db.db.pool.acquire().await.unwrap();
        sqlx::raw_sql(FIXTURE_SQL).execute(&mut *connection).await.unwrap();
        let month = "2026-03-01T00:00:00Z".parse().unwrap();
        let mut read = Vec::new();
        for other in [false, true] {
            if other {
                let same_lot = "insert into raw.heads (source, lot, row_hash, row_id, version_window)
                    values ('other', 12, gen_random_uuid(), 1, now()), ('a first', 12, gen_random_uuid(), 1, now())";
                sqlx::raw_sql(same_lot).execute(&mut *connection).await.unwrap();
            }
            assert_eq!(is_only_source(&mut connection, "copart").await.unwrap(), !other);
            let mut heads = LotHeads::load(&mut connection, "copart", month).await.unwrap();
            let seen = [11, 12, 13, 14, 15].map(|lot| heads.observe(lot, Uuid::nil()).unwrap());
            assert_eq!(seen.map(|h| h.row_hash.as_u128()), [0x11, 0x12, 0x13, 0x14, 0x15]);
            // The first is in another month.
            assert_eq!(seen.map(|h| h.row_id >> ROW_BITS), [0, 2, 2, 2, 4]);
            assert_eq!(seen.map(|h| h.was_absent()), [false, false, true, true, false]);
            assert_eq!(seen.map(|h| h.flags & FLAG_ABSENCE_RECORDED != 0), [false, false, false, true, false]);
            assert_eq!(seen.map(|h| h.is_ambiguous()), [false, false, false, false, true]);
            read.push(heads.sorted.len());
        }
        assert_eq!(read, [5, 5]);
    }

    #[test]
    fn a_row_is_whole_or_waits_for_the_rest() {
        for times in [&[][..], &[1], &[1, 2]] {
            let mut row = vec![0, 5];
            for length in [8, 16, 8] {
                row.extend((length as u32).to_be_bytes());
                row.extend(vec![7; length]);
            }
            for n in 0..2 {
                match times.get(n) {
                    Some(time) => row.extend([&[0, 0, 0, 8][..], &[*time; 8]].concat()),
                    None => row.extend([0xff; 4]),
                }
            }
            let more = [row.as_slice(), &[0, 5, 0]].concat();
            assert_eq!(row_length(&more), Some(row.len()));
            for cut in 0..row.len() {
                assert_eq!(row_length(&row[..cut]), None, "{cut} of {}", row.len());
            }
        }
        assert_eq!(row_length(&[0xff, 0xff]), None, "the end of the data");
    }
}
