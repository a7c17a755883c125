//! Maps the names in a header to column keys.
//!
//! A row version is stored under the names of the file that stored it, and is shown under the names of any other file
//! that contains it (`raw.file_rows`). Both headers are compared by these keys, which the row hash uses too: two files
//! contain the same version exactly when their columns agree by key.

use super::Column;
use super::header::FeedHeader;
use crate::taxonomy::fold_text;
use serde_json::{Map, Value};

/// Returns the header's names by key. The key of a known column is its canonical name, and that of an unknown column is
/// `?` with the folded name. A repeated folded name is followed by a number: `?aura`, `?aura 2`.
pub fn column_names(header: &FeedHeader) -> Map<String, Value> {
    let name = |place: usize| Value::from(header.names()[place].as_str());
    let known = Column::ALL.into_iter().filter_map(|column| Some((column.name(), header.position(column)?)));
    let mut names: Map<String, Value> = known.map(|(key, place)| (key.to_owned(), name(place))).collect();
    for place in header.unknown_positions() {
        let folded = format!("?{}", fold_text(&header.names()[*place]));
        let mut key = folded.clone();
        let mut nth = 1;
        while names.contains_key(&key) {
            nth += 1;
            key = format!("{folded} {nth}");
        }
        names.insert(key, name(*place));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names_of_header(names: &[&str]) -> Value {
        let header = FeedHeader::from_names(
            names.iter().map(|n| (*n).to_owned()).collect(),
            b"",
            super::super::mapping::copart_mapping(),
        )
        .unwrap();
        Value::Object(column_names(&header))
    }

    #[test]
    fn a_renamed_column_keeps_its_key_and_an_unknown_one_is_known_by_its_folded_name() {
        let names = ["ID", "LOT #", "VIN", "LAST UPDATED TIME", "Copart Select", "Aura-1", "aura 1", "VIN"];
        assert_eq!(
            names_of_header(&names),
            json!({
                "Id": "ID",
                "Lot number": "LOT #",
                "VIN": "VIN",
                "Last Updated Time": "LAST UPDATED TIME",
                "Wholesale": "Copart Select",
                "?aura1": "Aura-1",
                "?aura1 2": "aura 1",
                "?vin2": "VIN (2)",
            })
        );
    }

    #[test]
    fn every_name_of_a_header_has_a_key() {
        let names: Vec<&str> = Column::ALL.map(Column::name).into_iter().chain(["Mood", "", "--"]).collect();
        assert_eq!(names_of_header(&names).as_object().unwrap().len(), names.len());
    }
}
