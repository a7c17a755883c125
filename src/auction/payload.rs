//! The lossless payload: a row as a JSON object, header names to texts.
//!
//! All fields are there, empty ones too, under the names of their own file, so that nothing has to be known to read
//! a version of last year. Keys come in the order in which JSONB keeps them (by length, then bytewise), because
//! PostgreSQL sorts faster what is sorted.

use super::header::Header;
use super::reader::Record;

/// Writes the rows of one file.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Field position, and all that stands before its value: `","Make":"`.
    keys: Vec<(usize, Vec<u8>)>,
}

impl Payload {
    /// For files with this header.
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

    /// Appends the row's object to `out`.
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

/// The body of a JSON string.
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
}
