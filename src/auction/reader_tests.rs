//! Tests of the reader with the findings of real files, and with hostile input.
//!
//! Long because each finding and each kind of hostile text is a test of its own, over the same header.

use super::super::Column;
use super::super::mapping::{SourceMapping, copart_mapping};
use super::*;
use proptest::prelude::*;
use std::io::Write;

/// A header of the key columns and two more.
const HEADER: &str = "\"Lot number\",\"VIN\",\"Last Updated Time\",\"Make\",\"Special Note\"\n";
const WIDTH: usize = 5;

/// An item of the reader's output, without borrowing from the reader.
#[derive(Clone, Debug, PartialEq)]
enum ReadItem {
    Row(Vec<String>, RecordFlags),
    Rejected(RejectionReason),
}

struct ReaderRun {
    items: Vec<ReadItem>,
    /// `row_no`, `byte_offset` and length of each item.
    places: Vec<(u64, u64, u64)>,
}

fn read_file(file: &[u8], limits: ReaderLimits) -> ReaderRun {
    read_with_mapping(copart_mapping(), file, limits)
}

fn read_with_mapping(mapping: &'static SourceMapping, file: &[u8], limits: ReaderLimits) -> ReaderRun {
    let mut reader = RecordReader::new(file, limits, mapping).unwrap();
    let mut run = ReaderRun { items: Vec::new(), places: Vec::new() };
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            RecordItem::Row(row) => {
                let fields = (0..row.header().width()).map(|i| row.field(i).to_owned()).collect();
                run.items.push(ReadItem::Row(fields, row.flags()));
                run.places.push((row.row_no(), row.byte_offset(), row.raw_bytes().len() as u64));
                let begin = row.byte_offset() as usize;
                assert_eq!(&file[begin..begin + row.raw_bytes().len()], row.raw_bytes());
            }
            RecordItem::Rejected(rejected) => {
                run.items.push(ReadItem::Rejected(rejected.reason));
                run.places.push((rejected.row_no, rejected.byte_offset, rejected.length));
                assert!(rejected.bytes.len() <= limits.kept);
                assert!(file[rejected.byte_offset as usize..].starts_with(rejected.bytes));
            }
        }
    }
    assert_eq!(reader.bytes_read(), file.len() as u64);
    run
}

/// Returns Copart's mapping for a source that writes blanks after its commas.
fn mapping_with_blanks() -> &'static SourceMapping {
    let mut mapping = copart_mapping().clone();
    mapping.quote_before_blank_closes = true;
    Box::leak(Box::new(mapping))
}

fn read_items(body: impl AsRef<[u8]>) -> Vec<ReadItem> {
    read_file(&[HEADER.as_bytes(), body.as_ref()].concat(), ReaderLimits::default()).items
}

fn expected_row<const N: usize>(fields: [&str; N], repaired: bool) -> ReadItem {
    ReadItem::Row(fields.map(str::to_owned).to_vec(), RecordFlags { repaired, ..RecordFlags::default() })
}

fn header_error(file: &[u8]) -> String {
    RecordReader::new(file, ReaderLimits::default(), copart_mapping()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn finding_5_an_inch_quote_inside_a_field_is_kept_and_flagged() {
    assert_eq!(
        read_items(
            "1,\"V\",\"T\",\"113\" SLEEPER CAB\",\"SUMMIT 850 X 165\"\"\n2,\"V\",\"T\",\"SUMMIT 850 X 165\"\",\"\"\n"
        ),
        [
            expected_row(["1", "V", "T", "113\" SLEEPER CAB", "SUMMIT 850 X 165\""], true),
            expected_row(["2", "V", "T", "SUMMIT 850 X 165\"", ""], true),
        ]
    );
}

#[test]
fn an_inch_quote_before_a_comma_and_a_blank_is_part_of_the_value() {
    let body = "1,\"V\",\"T\",\"LIFT 6\", 35\" TIRES\",\"TRAILER 53\", REEFER\"\n2,V,T,\"6\",\u{a0}8\", 10\"\",\"\"\n3,V,T,\"\",\"53\", \"\n";
    assert_eq!(
        read_items(body),
        [
            expected_row(["1", "V", "T", "LIFT 6\", 35\" TIRES", "TRAILER 53\", REEFER"], true),
            expected_row(["2", "V", "T", "6\",\u{a0}8\", 10\"", ""], true),
            expected_row(["3", "V", "T", "", "53\", "], true),
        ]
    );
    // In a Latin-1 file a no-break blank is one byte.
    assert_eq!(read_items(b"1,V,T,\"6\",\xa035\" TIRES\",N\n").len(), 1);
    assert!(
        matches!(&read_items(b"1,V,T,\"6\",\xa035\" TIRES\",N\n")[0], ReadItem::Row(f, _) if f[3] == "6\",\u{a0}35\" TIRES")
    );
}

#[test]
fn an_inch_quote_before_a_comma_and_a_blank_goes_on_over_line_ends() {
    let body = "1,V,T,\"6\", 35\"\nTIRES\",N\n2,V,T,M,\"a\n53\", b\"\n";
    assert_eq!(
        read_items(body),
        [
            expected_row(["1", "V", "T", "6\", 35\"\nTIRES", "N"], true),
            expected_row(["2", "V", "T", "M", "a\n53\", b"], true)
        ]
    );
}

#[test]
fn a_header_may_have_such_a_name_too() {
    let file = format!("{},\"Lift 6\", 35\" Tires\"\n1,V,T,M,N,\"x\"\n", HEADER.trim_end());
    let reader = RecordReader::new(file.as_bytes(), ReaderLimits::default(), copart_mapping()).unwrap();
    assert_eq!(reader.header().names()[5], "Lift 6\", 35\" Tires");
    assert_eq!(reader.header().width(), 6);
}

#[test]
fn a_source_that_writes_blanks_after_its_commas_is_read_by_its_mapping() {
    let file = format!("{HEADER}\"1\", V,T,\"113\" CAB\", N\n");
    let got = |mapping| read_with_mapping(mapping, file.as_bytes(), ReaderLimits::default()).items;
    assert_eq!(got(mapping_with_blanks()), [expected_row(["1", " V", "T", "113\" CAB", " N"], true)]);
    assert_eq!(got(copart_mapping()), [ReadItem::Rejected(RejectionReason::OpenQuote)]);
    // If every inner quote is doubled, a blank may follow a comma in any mapping.
    let file = format!("{HEADER}\"1\", V,T,\"113\"\" CAB\", N\n");
    let strict = read_file(file.as_bytes(), ReaderLimits::default()).items;
    assert_eq!(strict, [expected_row(["1", " V", "T", "113\" CAB", " N"], false)]);
}

#[test]
fn finding_5_the_comma_in_the_headers_high_bid_makes_no_column() {
    let file = format!("{},\"High Bid =non-vix,Sealed=Vix\"\n1,V,T,M,N,\"0.0\"\n", HEADER.trim_end());
    let mut reader = RecordReader::new(file.as_bytes(), ReaderLimits::default(), copart_mapping()).unwrap();
    assert_eq!(reader.header().width(), 6);
    assert!(matches!(reader.next_item().unwrap(), Some(RecordItem::Row(r)) if r.get(Column::HighBid) == "0.0"));
}

#[test]
fn escaped_quotes_are_unescaped_and_are_no_repair() {
    assert_eq!(
        read_items("1,V,T,\"113\"\" CAB\",\"165\"\"\"\n"),
        [expected_row(["1", "V", "T", "113\" CAB", "165\""], false)]
    );
}

#[test]
fn a_quote_that_a_lenient_parser_would_lose_rejects_its_line() {
    assert_eq!(read_items("1,V,T,\"A\"B,C\n"), [ReadItem::Rejected(RejectionReason::OpenQuote)]);
}

#[test]
fn a_rejected_line_takes_its_position_and_reading_resumes_at_the_next() {
    let run =
        read_file(format!("{HEADER}1,V,T,M,N\n2,V,T\n3,V,T,M,N,X\n4,V,T,M,N\n").as_bytes(), ReaderLimits::default());
    let fields = |found| ReadItem::Rejected(RejectionReason::Fields { found, expected: WIDTH });
    let wanted = [
        expected_row(["1", "V", "T", "M", "N"], false),
        fields(3),
        fields(6),
        expected_row(["4", "V", "T", "M", "N"], false),
    ];
    assert_eq!(run.items, wanted);
    let start = HEADER.len() as u64;
    assert_eq!(run.places, [(1, start, 9), (2, start + 10, 5), (3, start + 16, 11), (4, start + 28, 9)]);
}

#[test]
fn a_field_may_hold_line_ends_by_either_rule() {
    let note = "1,V,T,M,\"a\r\n\nb\"\n2,V,T,\"5\" x\ny\",N\n3,V,T,\"5\"\ny\",N\n";
    assert_eq!(
        read_items(note),
        [
            expected_row(["1", "V", "T", "M", "a\r\n\nb"], false),
            expected_row(["2", "V", "T", "5\" x\ny", "N"], true),
            expected_row(["3", "V", "T", "5\"\ny", "N"], true),
        ]
    );
}

#[test]
fn a_lost_quote_never_swallows_the_record_after_it() {
    assert_eq!(
        read_items("1,V,T,\"M,N\n2,V,T,\"5\" x\",\"N\"\n3,V,T,M,N\n"),
        [
            ReadItem::Rejected(RejectionReason::OpenQuote),
            expected_row(["2", "V", "T", "5\" x", "N"], true),
            expected_row(["3", "V", "T", "M", "N"], false)
        ]
    );
}

#[test]
fn joining_stops_at_the_limits() {
    let file = format!("{HEADER}1,V,T,M,\"a\nb\nc\nd\"\n");
    let lines = |lines| read_file(file.as_bytes(), ReaderLimits { lines, ..ReaderLimits::default() }).items.len();
    assert_eq!((lines(3), lines(2)), (1, 4));
    let record = |record| read_file(file.as_bytes(), ReaderLimits { record, ..ReaderLimits::default() }).items.len();
    // The header has 60 bytes, so only the joined record exceeds the limit.
    let long = file.replace("\nb\n", &format!("\n{}\n", "b".repeat(60)));
    assert_eq!(record(64), 1);
    assert_eq!(read_file(long.as_bytes(), ReaderLimits { record: 64, ..ReaderLimits::default() }).items.len(), 4);
}

#[test]
fn line_ends_bom_quoting_and_a_missing_last_line_end_make_no_difference() {
    let wanted = [expected_row(["1", "V", "T", "M", "N"], false), expected_row(["2", "", "T", "", ""], false)];
    let all = "\"1\",\"V\",\"T\",\"M\",\"N\"\n\"2\",\"\",\"T\",\"\",\"\"\n";
    let strings = "1,\"V\",\"T\",\"M\",\"N\"\n2,\"\",\"T\",\"\",\"\"\n";
    let minimal = "1,V,T,M,N\n2,,T,,\n";
    for body in [all, strings, minimal] {
        for bom in ["", "\u{feff}"] {
            for (lf, last) in [("\n", true), ("\r\n", true), ("\n", false), ("\r\n", false)] {
                let file = format!("{bom}{HEADER}{body}").replace('\n', lf);
                let file = if last { file.as_str() } else { file.trim_end() };
                assert_eq!(read_file(file.as_bytes(), ReaderLimits::default()).items, wanted, "{file:?}");
            }
        }
    }
}

#[test]
fn a_file_cut_off_within_a_record_says_so() {
    assert_eq!(
        read_items("1,V,T,M,N\n2,V,\"T"),
        [expected_row(["1", "V", "T", "M", "N"], false), ReadItem::Rejected(RejectionReason::Truncated)]
    );
}

#[test]
fn a_line_without_end_is_rejected_in_bounded_memory_and_the_next_is_read() {
    let body = io::repeat(b'x').take(200_000_000).chain(&b"\n2,V,T,M,N\n"[..]);
    let mut reader =
        RecordReader::new(HEADER.as_bytes().chain(body), ReaderLimits::default(), copart_mapping()).unwrap();
    match reader.next_item().unwrap() {
        Some(RecordItem::Rejected(r)) => {
            assert_eq!(
                (r.row_no, r.length, r.bytes.len(), r.reason),
                (1, 200_000_000, 8 << 10, RejectionReason::TooLong)
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(reader.next_item().unwrap(), Some(RecordItem::Row(r)) if r.row_no() == 2 && r.field(3) == "M"));
    assert!(reader.next_item().unwrap().is_none());
}

#[test]
fn a_nul_is_replaced_and_flagged_and_the_raw_bytes_stay() {
    let file = [HEADER.as_bytes(), b"1,V,T,A\0B,N\n"].concat();
    let mut reader = RecordReader::new(&file[..], ReaderLimits::default(), copart_mapping()).unwrap();
    let Some(RecordItem::Row(row)) = reader.next_item().unwrap() else { panic!("no row") };
    assert_eq!((row.field(3), row.field(4)), ("A\u{fffd}B", "N"));
    assert_eq!(row.flags(), RecordFlags { nul: true, ..RecordFlags::default() });
    assert_eq!(row.raw_bytes(), b"1,V,T,A\0B,N");
}

#[test]
fn a_field_that_is_not_utf_8_is_read_as_latin_1_and_its_neighbours_are_not() {
    let got = read_items(b"1,V,T,CITRO\xcbN,\"caf\xc3\xa9\"\n");
    let fields = ["1", "V", "T", "CITROËN", "café"].map(str::to_owned).to_vec();
    assert_eq!(got, [ReadItem::Row(fields, RecordFlags { latin1: true, ..RecordFlags::default() })]);
    // Two halves of a character in two fields are valid together but not separately.
    let got = read_items(b"1,V,T,\xc3,\xa9\n");
    assert!(matches!(&got[0], ReadItem::Row(f, flags) if f[3] == "Ã" && f[4] == "©" && flags.latin1));
}

#[test]
fn an_html_page_is_called_one() {
    let error = header_error(b"\n <html><head><META NAME=\"robots\">\n");
    assert_eq!(
        error,
        "the file is an HTML page and not the feed; the first line begins \" <html><head><META NAME=\\\"robots\\\">\""
    );
    let endless = [b"<!DOCTYPE html>".as_slice(), &[b' '; 70_000]].concat();
    assert!(header_error(&endless).starts_with("the file is an HTML page"));
}

#[test]
fn an_empty_file_is_called_one() {
    for empty in ["", "\u{feff}", "\r\n\n  \n"] {
        assert_eq!(header_error(empty.as_bytes()), "the file is empty");
    }
}

#[test]
fn a_wrong_header_is_refused_with_the_names_it_lacks() {
    let error = header_error(b"id;name\n1;x\n");
    assert_eq!(error, "the header has no column Lot number, VIN, Last Updated Time; the first line begins \"id;name\"");
    assert!(header_error(&[b'x'; 70_000]).starts_with("the first line is longer than 65536 bytes; it begins"));
}

#[test]
fn a_header_alone_is_a_file_of_no_rows() {
    assert_eq!(read_items(""), []);
    assert_eq!(read_file(HEADER.trim_end().as_bytes(), ReaderLimits::default()).items, []);
}

#[test]
fn a_source_that_fails_in_the_middle_is_an_error_and_not_an_end() {
    struct FailingCsvSource;
    impl Read for FailingCsvSource {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let mut reader = RecordReader::new(
        HEADER.as_bytes().chain(&b"1,V,T,M,N\n2,V"[..]).chain(FailingCsvSource),
        ReaderLimits::default(),
        copart_mapping(),
    )
    .unwrap();
    assert!(reader.next_item().unwrap().is_some());
    assert_eq!(reader.next_item().unwrap_err().to_string(), "gone");
}

/// Returns a file with this table. `quote` writes one text.
fn write_table(table: &[Vec<String>], quote: impl Fn(&str) -> String) -> Vec<u8> {
    let mut file = HEADER.as_bytes().to_vec();
    for row in table {
        let line: Vec<String> = row.iter().map(|v| quote(v)).collect();
        writeln!(file, "{}", line.join(",")).unwrap();
    }
    file
}

fn row_values(run: ReaderRun) -> Vec<Vec<String>> {
    let value = |item| match item {
        ReadItem::Row(fields, _) => fields,
        ReadItem::Rejected(reason) => vec![reason.to_string()],
    };
    run.items.into_iter().map(value).collect()
}

fn table_strategy(field: &'static str) -> impl Strategy<Value = Vec<Vec<String>>> {
    prop::collection::vec(prop::collection::vec(field, WIDTH), 0..8)
}

fn tight_limits(chunk: usize) -> ReaderLimits {
    ReaderLimits { chunk, record: 300, lines: 8, kept: 16 }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_their_places_follow_each_other(
        body in prop::collection::vec(prop::sample::select(b"\"\"\",,,\n\n\ra1\0\xc3\xa9 ".to_vec()), 0..600),
        chunk in 1_usize..40,
    ) {
        let run = read_file(&[HEADER.as_bytes(), &body].concat(), tight_limits(chunk));
        let mut behind = HEADER.len() as u64;
        for (i, (row_no, offset, length)) in run.places.iter().enumerate() {
            prop_assert_eq!(*row_no, i as u64 + 1);
            prop_assert!(*offset >= behind);
            behind = offset + length;
        }
    }

    #[test]
    fn all_bytes_that_are_no_line_end_belong_to_a_record_or_a_rejection(
        body in prop::collection::vec(prop::sample::select(b"\"\",,\n\nab".to_vec()), 0..300),
    ) {
        let run = read_file(&[HEADER.as_bytes(), &body].concat(), tight_limits(7));
        let mut seen = vec![false; HEADER.len() + body.len()];
        for (_, offset, length) in run.places {
            seen[offset as usize..(offset + length) as usize].fill(true);
        }
        for (i, byte) in body.iter().enumerate() {
            prop_assert!(seen[HEADER.len() + i] || *byte == b'\n');
        }
    }

    #[test]
    fn the_size_of_the_chunks_changes_nothing(
        body in prop::collection::vec(prop::sample::select(b"\"\",,,,\n\nab".to_vec()), 0..300),
        chunk in 1_usize..50,
    ) {
        let file = [HEADER.as_bytes(), &body].concat();
        prop_assert_eq!(read_file(&file, tight_limits(chunk)).items, read_file(&file, tight_limits(4096)).items);
    }

    #[test]
    fn a_table_written_as_rfc_4180_reads_back_equal(table in table_strategy("[a-zé,\"\r ]{0,6}")) {
        let file = write_table(&table, |v| format!("\"{}\"", v.replace('"', "\"\"")));
        prop_assert_eq!(row_values(read_file(&file, ReaderLimits::default())), table);
    }

    // Without commas and quotes in the text no tail of a record looks like a whole record, which is never joined.
    #[test]
    fn line_ends_in_a_table_written_as_rfc_4180_read_back_equal(table in table_strategy("[a-z \r\n]{1,6}")) {
        let file = write_table(&table, |v| format!("\"{v}\""));
        prop_assert_eq!(row_values(read_file(&file, ReaderLimits::default())), table);
    }

    #[test]
    fn a_table_written_with_minimal_quoting_reads_back_equal(table in table_strategy("[a-zé,\"\r ]{0,6}")) {
        let mut writer = csv::Writer::from_writer(HEADER.as_bytes().to_vec());
        table.iter().for_each(|row| writer.write_record(row).unwrap());
        let run = read_file(&writer.into_inner().unwrap(), ReaderLimits::default());
        prop_assert_eq!(row_values(run), table);
    }

    // An unescaped quote is certain only where no other stands beside it and no comma or end of the value makes it
    // look like a closing one; the feed's own `165"` at a value's end is a case of its own, below.
    #[test]
    fn a_table_written_with_unescaped_quotes_reads_back_equal(table in table_strategy("([a-z ,]|[a-z ]\"[a-z ]){0,6}")) {
        let file = write_table(&table, |v| format!("\"{v}\""));
        prop_assert_eq!(row_values(read_file(&file, ReaderLimits::default())), table);
    }

    #[test]
    fn an_inch_quote_at_a_values_end_reads_back_equal(table in table_strategy("[a-z][a-z ]{0,4}(\"[a-z]{0,2})?")) {
        let file = write_table(&table, |v| format!("\"{v}\""));
        prop_assert_eq!(row_values(read_file(&file, ReaderLimits::default())), table);
    }

    #[test]
    fn inch_quotes_before_a_comma_and_a_blank_read_back_equal(table in table_strategy("[a-z]([a-z ,]|[a-z]\", [a-z]|[a-z]\"[a-z]){0,6}\"?")) {
        let file = write_table(&table, |v| format!("\"{v}\""));
        prop_assert_eq!(row_values(read_file(&file, ReaderLimits::default())), table);
    }

    #[test]
    fn bytes_are_accounted_for_by_the_mapping_of_any_source(
        body in prop::collection::vec(prop::sample::select(b"\"\"\",,,  \n\xc2\xa0ab".to_vec()), 0..300),
        chunk in 1_usize..50,
    ) {
        let file = [HEADER.as_bytes(), &body].concat();
        for mapping in [copart_mapping(), mapping_with_blanks()] {
            let run = read_with_mapping(mapping, &file, tight_limits(chunk));
            prop_assert_eq!(&run.items, &read_with_mapping(mapping, &file, tight_limits(4096)).items);
            let mut seen = vec![false; file.len()];
            for (_, offset, length) in run.places {
                seen[offset as usize..(offset + length) as usize].fill(true);
            }
            for (i, byte) in body.iter().enumerate() {
                prop_assert!(seen[HEADER.len() + i] || *byte == b'\n');
            }
        }
    }

    #[test]
    fn positions_stand_whatever_is_rejected_between(
        table in table_strategy("[a-z, ]{0,6}"),
        broken in prop::collection::vec(prop::sample::select(vec!["", "x,y", "\"", "a,b,\"c", "1,2,3,4,5,6,7", "\"a\"b,c,d,e,f"]), 8),
    ) {
        let mut file = HEADER.as_bytes().to_vec();
        let mut wanted = Vec::new();
        let mut row_no = 0;
        for (row, line) in table.iter().zip(broken) {
            row_no += u64::from(!line.is_empty());
            writeln!(file, "{line}").unwrap();
            row_no += 1;
            wanted.push((row_no, file.len() as u64, row.clone()));
            writeln!(file, "{}", row.iter().map(|v| format!("\"{v}\"")).collect::<Vec<_>>().join(",")).unwrap();
        }
        let run = read_file(&file, ReaderLimits::default());
        let rows = run.items.into_iter().zip(run.places);
        let got: Vec<_> = rows.filter_map(|(item, (no, at, _))| match item {
            ReadItem::Row(fields, _) => Some((no, at, fields)),
            ReadItem::Rejected(_) => None,
        }).collect();
        prop_assert_eq!(got, wanted);
    }
}
