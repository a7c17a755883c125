//! The lossless payload: a row as a JSON object of header names and texts.
//!
//! The object contains every field, empty ones too, under the names of the row's own file, so that a version of last
//! year can be read without further data. Keys are in the order of JSONB (by length, then bytewise), because PostgreSQL
//! sorts presorted keys faster.
//!
//! [`StoredRow`] is the inverse: it reads a stored payload as the record that the payload was made from, for parsing
//! and hashing.

use super::field_splitter::FieldSpan;
use super::header::{FeedHeader, HeaderError};
use super::mapping::SourceMapping;
use super::reader::FeedRecord;
use super::record::RecordFlags;
use serde_json::{Map, Value};

/// Writes the payloads of one file's rows.
#[derive(Clone, Debug)]
pub struct PayloadWriter {
    /// Field positions, each with the bytes that precede its value: `","Make":"`.
    keys: Vec<(usize, Vec<u8>)>,
}

impl PayloadWriter {
    /// Returns a writer for files with this header.
    pub fn new(header: &FeedHeader) -> PayloadWriter {
        let mut order: Vec<usize> = (0..header.width()).collect();
        order.sort_by_key(|i| (header.names()[*i].len(), header.names()[*i].as_bytes()));
        let key = |(nth, i): (usize, usize)| {
            let mut before = if nth == 0 { b"{\"".to_vec() } else { b"\",\"".to_vec() };
            escape_json(header.names()[i].as_bytes(), &mut before);
            before.extend_from_slice(b"\":\"");
            (i, before)
        };
        PayloadWriter { keys: order.into_iter().enumerate().map(key).collect() }
    }

    /// Appends the row's JSON object to `out`.
    pub fn write_row(&self, record: &FeedRecord<'_>, out: &mut Vec<u8>) {
        let plain = record.needs_no_escape();
        for (i, before) in &self.keys {
            out.extend_from_slice(before);
            let value = record.field(*i).as_bytes();
            if plain { out.extend_from_slice(value) } else { escape_json(value, out) }
        }
        out.extend_from_slice(b"\"}");
    }
}

/// A stored row, which can be read as a record.
#[derive(Clone, Debug)]
pub struct StoredRow {
    header: FeedHeader,
    text: String,
    spans: Vec<FieldSpan>,
}

impl StoredRow {
    /// Returns the stored row of a payload, read with the header of its file as in `raw.csv_files`. A row that was
    /// inserted manually has no file and is read by its own names. `mapping` is the mapping of the file's source.
    ///
    /// # Errors
    /// Returns an error if the names lack a required column.
    pub fn from_payload(
        mut names: Vec<String>,
        payload: &Map<String, Value>,
        mapping: &'static SourceMapping,
    ) -> Result<StoredRow, HeaderError> {
        if names.is_empty() {
            names = payload.keys().cloned().collect();
        }
        let first_line = names.join(",");
        let header = FeedHeader::from_names(names, first_line.as_bytes(), mapping)?;
        Ok(StoredRow::with_header(header, payload))
    }

    /// Returns the stored row of a payload from a file with this header.
    pub fn with_header(header: FeedHeader, payload: &Map<String, Value>) -> StoredRow {
        let mut text = String::new();
        let mut spans = Vec::with_capacity(header.width());
        for name in header.names() {
            let begin = text.len() as u32;
            text.push_str(payload.get(name).and_then(Value::as_str).unwrap_or(""));
            spans.push((begin, text.len() as u32));
        }
        StoredRow { header, text, spans }
    }

    /// Returns the row as a record. Position, offset and raw bytes are unknown: 0 and empty.
    pub fn as_record(&self) -> FeedRecord<'_> {
        FeedRecord {
            header: &self.header,
            row_no: 0,
            byte_offset: 0,
            flags: RecordFlags::default(),
            raw: &[],
            text: &self.text,
            spans: &self.spans,
            quotes: true,
        }
    }
}

/// Appends the text as the body of a JSON string.
fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut from = 0;
    for (i, byte) in text.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[from..i]);
        from = i + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let (high, low) = (HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&text[from..]);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, RowFixture};
    use super::super::mapping::copart_mapping;
    use super::*;

    fn payload_json(row: &RowFixture) -> String {
        row.with_record(|record| {
            let mut out = Vec::new();
            PayloadWriter::new(record.header()).write_row(record, &mut out);
            String::from_utf8(out).unwrap()
        })
    }

    #[test]
    fn a_payload_has_every_column_of_the_file_as_text_under_the_files_own_name() {
        let row =
            fixture::civic_fixture().with_renamed_column("Wholesale", "Copart Select").with_value("Special Note", "");
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&payload_json(&row)).unwrap();
        assert_eq!(object.len(), 59);
        assert_eq!(object["Copart Select"], "N");
        assert_eq!(object["Special Note"], "");
        assert_eq!(object["Odometer"], "60019.0");
    }

    #[test]
    fn keys_come_in_the_order_in_which_jsonb_keeps_them() {
        let text = payload_json(&fixture::civic_fixture());
        assert!(text.starts_with(r#"{"Id":"1","VIN":""#), "{text}");
        assert!(text.ends_with(r#","High Bid =non-vix,Sealed=Vix":"275.0"}"#), "{text}");
        let at: Vec<_> = ["Make", "Trim", "Year", "Color"].iter().map(|k| text.find(&format!("\"{k}\":"))).collect();
        assert!(at.is_sorted() && at[0].is_some());
    }

    #[test]
    fn a_payload_is_json_whatever_the_values_hold() {
        let odd = "5\" \\ \t\u{1}\u{7f}\u{a0}\nя";
        let object: serde_json::Value =
            serde_json::from_str(&payload_json(&fixture::civic_fixture().with_value("Special Note", odd))).unwrap();
        assert_eq!(object["Special Note"], odd);
    }

    #[test]
    fn a_payload_is_read_back_as_the_record_it_was() {
        use super::super::hash::RowHasher;
        use super::super::row::{ParseWarnings, ParsedRow};
        use crate::taxonomy::AliasIndex;
        for row in [
            fixture::civic_fixture(),
            fixture::civic_fixture().with_value("Special Note", "5\" \\ \t\u{a0}\nя").with_value("New Column", "1"),
            fixture::civic_fixture()
                .with_renamed_column("Lot number", "LOT #")
                .with_renamed_column("Wholesale", "Copart Select"),
        ] {
            let payload: Map<String, Value> = serde_json::from_str(&payload_json(&row)).unwrap();
            row.with_record(|record| {
                let kept =
                    StoredRow::from_payload(record.header().names().to_vec(), &payload, copart_mapping()).unwrap();
                let back = kept.as_record();
                assert_eq!(
                    RowHasher::new(back.header()).hash_row(&back),
                    RowHasher::new(record.header()).hash_row(record)
                );
                let aliases = AliasIndex::built_in();
                let read = |record: &FeedRecord<'_>| {
                    format!("{:?}", ParsedRow::from_record(record, aliases, &mut ParseWarnings::default()))
                };
                assert_eq!(read(&back), read(record));
            });
        }
        assert!(StoredRow::from_payload(Vec::new(), &Map::new(), copart_mapping()).is_err(), "nothing is no row");
    }
}
