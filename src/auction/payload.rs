//! The lossless payload: a row as a JSON object of header names and texts.
//!
//! The object contains every field, empty ones too, under the names of the row's own file, so that a version of last
//! year can be read without further data. Keys are in the order of JSONB (by length, then bytewise), because PostgreSQL
//! sorts presorted keys faster.
//!
//! [`Kept`] is the inverse: it reads a stored payload as the record that the payload was made from, for parsing and
//! hashing.

use super::header::{Header, HeaderError};
use super::mapping::SourceMapping;
use super::reader::Record;
use super::record::Flags;
use super::split::Span;
use serde_json::{Map, Value};

/// Writes the payloads of one file's rows.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Field positions, each with the bytes that precede its value: `","Make":"`.
    keys: Vec<(usize, Vec<u8>)>,
}

impl Payload {
    /// Returns a writer for files with this header.
    pub fn new(header: &Header) -> Payload {
        let mut order: Vec<usize> = (0..header.width()).collect();
        order.sort_by_key(|i| (header.names()[*i].len(), header.names()[*i].as_bytes()));
        let key = |(nth, i): (usize, usize)| {
            let mut before = if nth == 0 { b"{\"".to_vec() } else { b"\",\"".to_vec() };
            escape(header.names()[i].as_bytes(), &mut before);
            before.extend_from_slice(b"\":\"");
            (i, before)
        };
        Payload { keys: order.into_iter().enumerate().map(key).collect() }
    }

    /// Appends the row's JSON object to `out`.
    pub fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let plain = record.plain();
        for (i, before) in &self.keys {
            out.extend_from_slice(before);
            let value = record.field(*i).as_bytes();
            if plain { out.extend_from_slice(value) } else { escape(value, out) }
        }
        out.extend_from_slice(b"\"}");
    }
}

/// A stored row, which can be read as a record.
#[derive(Clone, Debug)]
pub struct Kept {
    header: Header,
    text: String,
    spans: Vec<Span>,
}

impl Kept {
    /// Returns the stored row of a payload, read with the header of its file as in `raw.csv_files`. A row that was
    /// inserted manually has no file and is read by its own names. `mapping` is the mapping of the file's source.
    ///
    /// # Errors
    /// Returns an error if the names lack a required column.
    pub fn read(
        mut names: Vec<String>,
        payload: &Map<String, Value>,
        mapping: &'static SourceMapping,
    ) -> Result<Kept, HeaderError> {
        if names.is_empty() {
            names = payload.keys().cloned().collect();
        }
        let first_line = names.join(",");
        let header = Header::map(names, first_line.as_bytes(), mapping)?;
        Ok(Kept::of_header(header, payload))
    }

    /// Returns the stored row of a payload from a file with this header.
    pub fn of_header(header: Header, payload: &Map<String, Value>) -> Kept {
        let mut text = String::new();
        let mut spans = Vec::with_capacity(header.width());
        for name in header.names() {
            let begin = text.len() as u32;
            text.push_str(payload.get(name).and_then(Value::as_str).unwrap_or(""));
            spans.push((begin, text.len() as u32));
        }
        Kept { header, text, spans }
    }

    /// Returns the row as a record. Position, offset and raw bytes are unknown: 0 and empty.
    pub fn record(&self) -> Record<'_> {
        Record {
            header: &self.header,
            row_no: 0,
            byte_offset: 0,
            flags: Flags::default(),
            raw: &[],
            text: &self.text,
            spans: &self.spans,
            quotes: true,
        }
    }
}

/// Appends the text as the body of a JSON string.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
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
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&text[from..]);
}

#[cfg(test)]
mod tests {
    use super::super::mapping::copart;
    use super::super::specimen::{self, Specimen};
    use super::*;

    fn json(row: &Specimen) -> String {
        row.read(|record| {
            let mut out = Vec::new();
            Payload::new(record.header()).append(record, &mut out);
            String::from_utf8(out).unwrap()
        })
    }

    #[test]
    fn a_payload_has_every_column_of_the_file_as_text_under_the_files_own_name() {
        let row = specimen::civic().renamed("Wholesale", "Copart Select").with("Special Note", "");
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json(&row)).unwrap();
        assert_eq!(object.len(), 59);
        assert_eq!(object["Copart Select"], "N");
        assert_eq!(object["Special Note"], "");
        assert_eq!(object["Odometer"], "60019.0");
    }

    #[test]
    fn keys_come_in_the_order_in_which_jsonb_keeps_them() {
        let text = json(&specimen::civic());
        assert!(text.starts_with(r#"{"Id":"1","VIN":""#), "{text}");
        assert!(text.ends_with(r#","High Bid =non-vix,Sealed=Vix":"275.0"}"#), "{text}");
        let at: Vec<_> =
            ["Make", "Trim", "Year", "Color"].iter().map(|k| text.find(&format!("\"{k}\":"))).collect();
        assert!(at.is_sorted() && at[0].is_some());
    }

    #[test]
    fn a_payload_is_json_whatever_the_values_hold() {
        let odd = "5\" \\ \t\u{1}\u{7f}\u{a0}\nя";
        let object: serde_json::Value =
            serde_json::from_str(&json(&specimen::civic().with("Special Note", odd))).unwrap();
        assert_eq!(object["Special Note"], odd);
    }

    #[test]
    fn a_payload_is_read_back_as_the_record_it_was() {
        use super::super::hash::RowHasher;
        use super::super::row::{Typed, Warnings};
        use crate::taxonomy::Spellings;
        for row in [
            specimen::civic(),
            specimen::civic().with("Special Note", "5\" \\ \t\u{a0}\nя").with("New Column", "1"),
            specimen::civic().renamed("Lot number", "LOT #").renamed("Wholesale", "Copart Select"),
        ] {
            let payload: Map<String, Value> = serde_json::from_str(&json(&row)).unwrap();
            row.read(|record| {
                let kept = Kept::read(record.header().names().to_vec(), &payload, copart()).unwrap();
                let back = kept.record();
                assert_eq!(
                    RowHasher::new(back.header()).hash(&back),
                    RowHasher::new(record.header()).hash(record)
                );
                let spellings = Spellings::compiled();
                let read = |record: &Record<'_>| {
                    format!("{:?}", Typed::read(record, spellings, &mut Warnings::default()))
                };
                assert_eq!(read(&back), read(record));
            });
        }
        assert!(Kept::read(Vec::new(), &Map::new(), copart()).is_err(), "nothing is no row");
    }
}
