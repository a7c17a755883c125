//! Maps the fields of a file to columns.
//!
//! Copart renames and adds columns without notice (`Copart Select` became `Wholesale` in October 2025; 45, 49, 56 and
//! 59 columns have been seen). Columns are therefore found by name, never by position: first by their own name, then by
//! an alias. Both come from the source's [`SourceMapping`] and are compared without case, blanks and punctuation.
//! Mismatches are reported, not refused: unknown columns stay in the payload and in the hash, and missing ones read as
//! empty. Only a file without a required column is refused, since its rows would have no identity.
//!
//! A repeated column counts at its first position. The second occurrence is an unknown column named `VIN (2)`, since a
//! JSON object has each key once and the second value must not replace the first.

use super::Column;
use super::mapping::SourceMapping;
use crate::taxonomy::fold_text;

/// Maximum number of bytes of the first line that an error shows.
const ERROR_PREVIEW_BYTES: usize = 80;

/// The error for a file without a usable header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file contains only blank lines.
    #[error("the file is empty")]
    Empty,
    /// The file is an HTML page, usually an error page of the server.
    #[error("the file is an HTML page and not the feed; the first line begins {0:?}")]
    Html(String),
    /// The file is a table or a text without the required columns.
    #[error("the header has no column {missing}; the first line begins {begins:?}")]
    MissingKeys {
        /// Names of the missing required columns, separated by commas.
        missing: String,
        /// The beginning of the first line.
        begins: String,
    },
    /// The first line exceeds the maximum record length.
    #[error("the first line is longer than {limit} bytes; it begins {begins:?}")]
    TooLong {
        /// The exceeded limit, in bytes.
        limit: usize,
        /// The beginning of the first line.
        begins: String,
    },
    /// Reading the file failed.
    #[error("could not read the header")]
    Io(#[from] std::io::Error),
}

/// A file's header: the column names, and the position of each known column.
#[derive(Clone, Debug)]
pub struct FeedHeader {
    mapping: &'static SourceMapping,
    names: Vec<String>,
    places: [Option<u16>; Column::COUNT],
    unknown: Vec<usize>,
    missing: Vec<Column>,
    repeated: Vec<String>,
}

impl FeedHeader {
    /// Returns the header with these names, mapped to columns. `first_line` is quoted in errors.
    ///
    /// # Errors
    /// Returns [`HeaderError::MissingKeys`] if a required column is missing.
    pub fn from_names(
        names: Vec<String>,
        first_line: &[u8],
        mapping: &'static SourceMapping,
    ) -> Result<FeedHeader, HeaderError> {
        let folded: Vec<String> = names.iter().map(|n| fold_text(n)).collect();
        let mut places = [None; Column::COUNT];
        let mut taken = vec![false; names.len()];
        let mut take = |column: Column, wanted: &str| {
            if places[column as usize].is_none()
                && let Some(i) = folded.iter().zip(&taken).position(|(name, taken)| name == wanted && !taken)
            {
                places[column as usize] = u16::try_from(i).ok();
                taken[i] = true;
            }
        };
        // A column's own name takes precedence over an alias, at any position.
        mapping.folded_names().for_each(|(name, column)| take(column, name));

        let absent = |column: &Column| places[*column as usize].is_none();
        let keys = mapping.required_columns().filter(absent).filter_map(|column| mapping.header_name(column));
        let keys: Vec<&str> = keys.collect();
        if !keys.is_empty() {
            return Err(HeaderError::MissingKeys { missing: keys.join(", "), begins: error_preview(first_line) });
        }
        let missing = Column::ALL.into_iter().filter(|c| mapping.header_name(*c).is_some() && absent(c)).collect();
        let unknown = (0..names.len()).filter(|i| !taken[*i]).collect();
        let (names, repeated) = number_repeated_names(names);
        Ok(FeedHeader { mapping, names, places, unknown, missing, repeated })
    }

    /// Returns the mapping of the file's source.
    pub fn mapping(&self) -> &'static SourceMapping {
        self.mapping
    }

    /// Returns the names in the file's order. A repeated name is followed by ` (2)`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the number of fields in each record.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    /// Returns the position of a column, or None if the file lacks the column.
    pub fn position(&self, column: Column) -> Option<usize> {
        self.places[column as usize].map(usize::from)
    }

    /// Returns the positions of unknown columns.
    pub fn unknown_positions(&self) -> &[usize] {
        &self.unknown
    }

    /// Returns the names of unknown columns, which are counted as warnings.
    pub fn unknown_names(&self) -> impl Iterator<Item = &str> {
        self.unknown.iter().map(|i| self.names[*i].as_str())
    }

    /// Returns the columns of the mapping that the file lacks, which are counted as warnings. A required column is
    /// never among them.
    pub fn missing_columns(&self) -> &[Column] {
        &self.missing
    }

    /// Returns each repeated name, once per repetition.
    pub fn repeated_names(&self) -> &[String] {
        &self.repeated
    }
}

/// Returns the names with a number added to each repetition, and the repeated names.
fn number_repeated_names(names: Vec<String>) -> (Vec<String>, Vec<String>) {
    let mut repeated = Vec::new();
    let mut given: Vec<String> = Vec::with_capacity(names.len());
    for name in &names {
        let mut unique = name.clone();
        let mut nth = 1;
        // A header may already have a column called `VIN (2)`, before or after the second `VIN`.
        while given.contains(&unique) || (nth > 1 && names.contains(&unique)) {
            nth += 1;
            unique = format!("{name} ({nth})");
        }
        if nth > 1 {
            repeated.push(name.clone());
        }
        given.push(unique);
    }
    (given, repeated)
}

/// Returns the beginning of a line, to be quoted in an error.
pub(super) fn error_preview(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(ERROR_PREVIEW_BYTES)]).into_owned()
}

/// Returns true if the text begins with `<` after an optional byte order mark, as a web page does and no CSV file.
pub fn is_html(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    start.trim_ascii_start().starts_with(b"<")
}

#[cfg(test)]
mod tests {
    use super::super::mapping::copart_mapping;
    use super::*;

    fn map_names(names: &[&str]) -> Result<FeedHeader, HeaderError> {
        FeedHeader::from_names(
            names.iter().map(|n| (*n).to_owned()).collect(),
            names.join(",").as_bytes(),
            copart_mapping(),
        )
    }

    fn feed_names() -> Vec<&'static str> {
        Column::ALL.map(Column::name).to_vec()
    }

    #[test]
    fn a_web_page_is_recognised_behind_blanks_and_a_byte_order_mark() {
        for page in [&b"<html>"[..], b"\n <!DOCTYPE html>", b"\xef\xbb\xbf\n<p>"] {
            assert!(is_html(page), "{page:?}");
        }
        for feed in [&b""[..], b"Id,a<b", b"\xef\xbb\xbf\"Id\",\"Lot number\""] {
            assert!(!is_html(feed), "{feed:?}");
        }
    }

    #[test]
    fn the_header_of_2026_maps_every_column_to_its_place() {
        let header = map_names(&feed_names()).unwrap();
        assert_eq!(header.width(), 59);
        assert!(Column::ALL.into_iter().all(|c| header.position(c) == Some(c as usize)));
        assert!(
            header.unknown_positions().is_empty()
                && header.missing_columns().is_empty()
                && header.repeated_names().is_empty()
        );
    }

    #[test]
    fn finding_3_copart_select_is_wholesale_and_keeps_the_name_of_its_file() {
        let mut names = feed_names();
        names[Column::Wholesale as usize] = "Copart Select";
        let header = map_names(&names).unwrap();
        assert_eq!(header.position(Column::Wholesale), Some(50));
        assert_eq!(header.names()[50], "Copart Select");
        assert!(header.unknown_positions().is_empty() && header.missing_columns().is_empty());
    }

    #[test]
    fn finding_3_a_file_of_the_lot_acv_era_is_accepted_and_its_gaps_are_named() {
        let mut names = feed_names();
        names.truncate(49);
        names[Column::RetailValue as usize] = "Lot ACV";
        names[Column::LotNumber as usize] = "LOT #";
        names.push("Runs on Hope");
        let header = map_names(&names).unwrap();
        assert_eq!(header.position(Column::RetailValue), Some(25));
        assert_eq!(header.position(Column::LotNumber), Some(8));
        assert_eq!(header.unknown_names().collect::<Vec<_>>(), ["Runs on Hope"]);
        assert_eq!(header.missing_columns().len(), 10);
        assert_eq!(header.missing_columns()[0], Column::Rentals);
    }

    #[test]
    fn a_header_without_its_key_columns_is_refused_and_they_are_named() {
        let error = map_names(&["Id", "Lot number", "Make"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the header has no column VIN, Last Updated Time; the first line begins \"Id,Lot number,Make\""
        );
    }

    #[test]
    fn a_repeated_column_counts_where_it_stands_first_and_loses_nothing() {
        let header = map_names(&["VIN", "Lot number", "VIN (2)", "Last Updated Time", "VIN", "vin"]).unwrap();
        assert_eq!(header.position(Column::Vin), Some(0));
        assert_eq!(header.names(), ["VIN", "Lot number", "VIN (2)", "Last Updated Time", "VIN (3)", "vin"]);
        assert_eq!(header.repeated_names(), ["VIN"]);
        assert_eq!(header.unknown_positions(), [2, 4, 5]);
    }

    #[test]
    fn the_own_name_of_a_column_comes_before_an_alias() {
        let header = map_names(&["Copart Select", "VIN", "Lot number", "Last Updated Time", "wholesale"]).unwrap();
        assert_eq!(header.position(Column::Wholesale), Some(4));
        assert_eq!(header.unknown_names().collect::<Vec<_>>(), ["Copart Select"]);
    }
}
