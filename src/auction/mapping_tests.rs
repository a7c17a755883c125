//! Tests of mappings: required content, and the result for a source with other names and rules.

use super::super::header::FeedHeader;
use super::super::reader::{ReaderLimits, RecordItem, RecordReader};
use super::super::row::{ParseWarnings, ParsedRow};
use super::*;
use crate::taxonomy::AliasIndex;

/// A feed of changes from a yard in New York, with its own column names.
const OTHER_MAPPING: &str = r#"{
  "kind": "changes",
  "columns": [
    { "ours": "lot_number", "name": "Stock#", "aliases": ["Stock No."] },
    { "ours": "vin", "name": "Chassis" },
    { "ours": "sale_date", "name": "Auction day" },
    { "ours": "sale_time", "name": "Auction time" },
    { "ours": "high_bid", "name": "Bid" },
    { "ours": "odometer", "name": "Distance" },
    { "ours": "location_country", "name": "Country" },
    { "ours": "currency_code", "name": "Currency" }
  ],
  "required": ["lot_number", "vin"],
  "lot_number": "digits",
  "quote_before_blank_closes": true,
  "zone": "America/New_York",
  "odometer_unit": { "default": "km", "by_country": { "USA": "mi" } },
  "default_currency": "CAD"
}"#;

/// Returns the mapping of another source.
pub(crate) fn other_mapping() -> &'static SourceMapping {
    Box::leak(Box::new(SourceMapping::parse(OTHER_MAPPING).unwrap()))
}

fn parse_error(from: &str, to: &str) -> String {
    let text = OTHER_MAPPING.replacen(from, to, 1);
    assert_ne!(text, OTHER_MAPPING, "{from}");
    SourceMapping::parse(&text).unwrap_err().to_string()
}

#[test]
fn coparts_mapping_has_every_column_under_its_name_of_today() {
    for column in Column::ALL {
        assert_eq!(copart_mapping().header_name(column), Some(column.name()), "{column:?}");
    }
    assert!(copart_mapping().required_columns().eq(Column::KEYS));
    assert!(copart_mapping().is_absence_judged() && !copart_mapping().quote_before_blank_closes);
    assert_eq!((copart_mapping().zone, &copart_mapping().default_currency), (ZoneRule::Abbreviation, &None));
}

#[test]
fn a_source_without_a_mapping_of_its_own_is_read_by_coparts() {
    assert!(std::ptr::eq(mapping_for_source("copart"), copart_mapping()));
    assert!(std::ptr::eq(mapping_for_source("a-second-one"), copart_mapping()));
}

#[test]
fn another_source_is_read_by_its_own_names_and_rules() {
    let file = "\"Stock No.\",\"chassis\",\"Auction day\",\"Auction time\",\"Bid\",\"Distance\",\"Country\",\"Currency\"\n\
        7,\"2HGFC2F59GH512345\", 2026-12-04,900,\"$1,275.00\",\"60,019\",\"CAN\",\"\"\n\
        8,\"2HGFC2F59GH512345\",0,0,5,6,\"usa\",\"USD\"\n";
    let mut reader = RecordReader::new(file.as_bytes(), ReaderLimits::default(), other_mapping()).unwrap();
    assert!(reader.header().missing_columns().is_empty() && reader.header().unknown_positions().is_empty());
    let Some(RecordItem::Row(record)) = reader.next_item().unwrap() else { panic!("no row") };
    let mut warnings = ParseWarnings::default();
    let row = ParsedRow::from_record(&record, AliasIndex::built_in(), &mut warnings);
    assert_eq!((row.lot_external_id.as_deref(), row.skip_reason), (Some("7"), None));
    assert_eq!(row.auction_datetime_utc.unwrap().to_rfc3339(), "2026-12-04T14:00:00+00:00");
    assert_eq!(row.current_bid_usd.unwrap().to_string(), "1275.00");
    assert_eq!((row.odometer.unwrap().to_string().as_str(), row.odometer_unit), ("60019.0", Some("km")));
    assert_eq!((row.currency_code, row.source_updated_at), (Some("CAD"), None));
    assert!(row.unreadable.is_empty(), "{:?}", warnings.iter().collect::<Vec<_>>());
    let Some(RecordItem::Row(record)) = reader.next_item().unwrap() else { panic!("no row") };
    let row = ParsedRow::from_record(&record, AliasIndex::built_in(), &mut warnings);
    assert_eq!((row.odometer_unit, row.currency_code), (Some("mi"), Some("USD")));
}

#[test]
fn a_file_of_another_layout_is_refused_with_the_names_of_its_source() {
    let names = vec!["Lot number".to_owned(), "VIN".to_owned()];
    let error = FeedHeader::from_names(names, b"Lot number,VIN", other_mapping()).unwrap_err().to_string();
    assert_eq!(error, "the header has no column Stock#, Chassis; the first line begins \"Lot number,VIN\"");
}

#[test]
fn absence_is_not_judged_in_a_feed_of_changes() {
    assert_eq!(other_mapping().kind, SourceKind::Changes);
    assert!(!other_mapping().is_absence_judged());
}

#[test]
fn a_mapping_that_is_not_strict_json_is_refused_by_the_field_that_is_wrong() {
    let error = |from, to, part: &str| {
        let message = parse_error(from, to);
        assert!(message.starts_with("the mapping is not valid: ") && message.contains(part), "{message}");
    };
    error("\"kind\": \"changes\",", "", "missing field `kind`");
    error("\"changes\"", "\"some\"", "unknown variant `some`");
    error("\"digits\"", "\"text\"", "unknown variant `text`, expected `digits`");
    error("\"zone\":", "\"zones\": 1, \"zone\":", "unknown field `zones`");
    error("\"name\": \"Bid\"", "\"name\": \"Bid\", \"as\": 1", "unknown field `as`");
    error("\"USA\": \"mi\"", "\"USA\": \"ly\"", "unknown variant `ly`");
    error("\"CAD\"\n}", "\"CAD\"\n", "EOF");
}

#[test]
fn a_column_that_drifts_warns_unless_the_mapping_says_refuse() {
    let drift = |drift: &str| {
        let text = OTHER_MAPPING.replacen("\"CAD\"\n}", &format!("\"CAD\",\n  \"drift\": {drift}\n}}"), 1);
        SourceMapping::parse(&text)
    };
    let mapping = drift(r#"{ "odometer": "refuse", "high_bid": "warn" }"#).unwrap();
    for column in Column::ALL {
        let expected = if column == Column::Odometer { DriftPolicy::Refuse } else { DriftPolicy::Warn };
        assert_eq!(mapping.drift_policies[column as usize], expected, "{column:?}");
    }
    assert_eq!(other_mapping().drift_policies, [DriftPolicy::Warn; Column::COUNT]);
    assert_eq!(copart_mapping().drift_policies, [DriftPolicy::Warn; Column::COUNT]);
    let refusal = |text| drift(text).unwrap_err().to_string();
    assert!(refusal(r#"{ "odometer": "ignore" }"#).contains("unknown variant `ignore`, expected `warn` or `refuse`"));
    assert!(refusal(r#"{ "miles": "warn" }"#).starts_with("unknown column \"miles\"; expected one of id, "));
    assert_eq!(refusal(r#"{ "year": "warn" }"#), "column \"year\" of drift has no entry in columns");
}

#[test]
fn a_mapping_that_contradicts_itself_is_refused_by_the_column_that_is_wrong() {
    let unknown = parse_error("\"high_bid\"", "\"bid\"");
    assert!(unknown.starts_with("unknown column \"bid\"; expected one of id, yard_number, "), "{unknown}");
    assert_eq!(parse_error("\"odometer\"", "\"vin\""), "column \"vin\" has two entries");
    let twice = "name \"STOCK #\" of column \"high_bid\" is empty, or is a name of another column too";
    assert_eq!(parse_error("\"Bid\"", "\"STOCK #\""), twice);
    let empty = "name \"#\" of column \"high_bid\" is empty, or is a name of another column too";
    assert_eq!(parse_error("\"Bid\"", "\"#\""), empty);
    assert_eq!(parse_error("\"vin\"]", "\"vin\", \"make\"]"), "required column \"make\" has no entry in columns");
    assert_eq!(parse_error(", \"vin\"]", "]"), "column \"vin\" must be among the required ones");
    assert_eq!(
        parse_error("America/New_York", "New York"),
        "unknown zone \"New York\"; expected abbreviation or an IANA name such as America/New_York"
    );
    assert_eq!(
        parse_error("\"CAD\"\n", "\"cad\"\n"),
        "invalid default_currency \"cad\"; expected three capital letters"
    );
}
