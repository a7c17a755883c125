//! Tests of the reader with the findings of real files, and with hostile input.
//!
//! Long because each finding and each kind of hostile text is a test of its own, over the same header.

use super::super::Column;
use super::super::mapping::{SourceMapping, copart};
use super::*;
use proptest::prelude::*;
use std::io::Write;

/// A header of the key columns and two more.
const HEADER: &str = "\"Lot number\",\"VIN\",\"Last Updated Time\",\"Make\",\"Special Note\"\n";
const WIDTH: usize = 5;

/// An item of the reader's output, without borrowing from the reader.
#[derive(Clone, Debug, PartialEq)]
enum Got {
    Row(Vec<String>, Flags),
    Rejected(Reason),
}

struct Run {
    items: Vec<Got>,
    /// `row_no`, `byte_offset` and length of each item.
    places: Vec<(u64, u64, u64)>,
}

fn read(file: &[u8], limits: Limits) -> Run {
    read_by(copart(), file, limits)
}

fn read_by(mapping: &'static SourceMapping, file: &[u8], limits: Limits) -> Run {
    let mut reader = Reader::new(file, limits, mapping).unwrap();
    let mut run = Run { items: Vec::new(), places: Vec::new() };
    while let Some(item) = reader.read().unwrap() {
        match item {
            Item::Row(row) => {
                let fields = (0..row.header().width()).map(|i| row.field(i).to_owned()).collect();
                run.items.push(Got::Row(fields, row.flags()));
                run.places.push((row.row_no(), row.byte_offset(), row.raw().len() as u64));
                let begin = row.byte_offset() as usize;
                assert_eq!(&file[begin..begin + row.raw().len()], row.raw());
            }
            Item::Rejected(rejected) => {
                run.items.push(Got::Rejected(rejected.reason));
                run.places.push((rejected.row_no, rejected.byte_offset, rejected.length));
                assert!(rejected.bytes.len() <= limits.kept);
                assert!(file[rejected.byte_offset as usize..].starts_with(rejected.bytes));
            }
        }
    }
    assert_eq!(reader.position(), file.len() as u64);
    run
}

/// Returns Copart's mapping for a source that writes blanks after its commas.
fn with_blanks() -> &'static SourceMapping {
    let mut mapping = copart().clone();
    mapping.quote_before_blank_closes = true;
    Box::leak(Box::new(mapping))
}

fn items(body: impl AsRef<[u8]>) -> Vec<Got> {
    read(&[HEADER.as_bytes(), body.as_ref()].concat(), Limits::default()).items
}

fn row<const N: usize>(fields: [&str; N], repaired: bool) -> Got {
    Got::Row(fields.map(str::to_owned).to_vec(), Flags { repaired, ..Flags::default() })
}

fn refusal(file: &[u8]) -> String {
    Reader::new(file, Limits::default(), copart()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn finding_5_an_inch_quote_inside_a_field_is_kept_and_flagged() {
    assert_eq!(
        items(
            "1,\"V\",\"T\",\"113\" SLEEPER CAB\",\"SUMMIT 850 X 165\"\"\n2,\"V\",\"T\",\"SUMMIT 850 X 165\"\",\"\"\n"
        ),
        [
            row(["1", "V", "T", "113\" SLEEPER CAB", "SUMMIT 850 X 165\""], true),
            row(["2", "V", "T", "SUMMIT 850 X 165\"", ""], true),
        ]
    );
}

#[test]
fn an_inch_quote_before_a_comma_and_a_blank_is_part_of_the_value() {
    let body = "1,\"V\",\"T\",\"LIFT 6\", 35\" TIRES\",\"TRAILER 53\", REEFER\"\n2,V,T,\"6\",\u{a0}8\", 10\"\",\"\"\n3,V,T,\"\",\"53\", \"\n";
    assert_eq!(
        items(body),
        [
            row(["1", "V", "T", "LIFT 6\", 35\" TIRES", "TRAILER 53\", REEFER"], true),
            row(["2", "V", "T", "6\",\u{a0}8\", 10\"", ""], true),
            row(["3", "V", "T", "", "53\", "], true),
        ]
    );
    // In a Latin-1 file a no-break blank is one byte.
    assert_eq!(items(b"1,V,T,\"6\",\xa035\" TIRES\",N\n").len(), 1);
    assert!(
        matches!(&items(b"1,V,T,\"6\",\xa035\" TIRES\",N\n")[0], Got::Row(f, _) if f[3] == "6\",\u{a0}35\" TIRES")
    );
}

#[test]
fn an_inch_quote_before_a_comma_and_a_blank_goes_on_over_line_ends() {
    let body = "1,V,T,\"6\", 35\"\nTIRES\",N\n2,V,T,M,\"a\n53\", b\"\n";
    assert_eq!(
        items(body),
        [row(["1", "V", "T", "6\", 35\"\nTIRES", "N"], true), row(["2", "V", "T", "M", "a\n53\", b"], true)]
    );
}

#[test]
fn a_header_may_have_such_a_name_too() {
    let file = format!("{},\"Lift 6\", 35\" Tires\"\n1,V,T,M,N,\"x\"\n", HEADER.trim_end());
    let reader = Reader::new(file.as_bytes(), Limits::default(), copart()).unwrap();
    assert_eq!(reader.header().names()[5], "Lift 6\", 35\" Tires");
    assert_eq!(reader.header().width(), 6);
}

#[test]
fn a_source_that_writes_blanks_after_its_commas_is_read_by_its_mapping() {
    let file = format!("{HEADER}\"1\", V,T,\"113\" CAB\", N\n");
    let got = |mapping| read_by(mapping, file.as_bytes(), Limits::default()).items;
    assert_eq!(got(with_blanks()), [row(["1", " V", "T", "113\" CAB", " N"], true)]);
    assert_eq!(got(copart()), [Got::Rejected(Reason::OpenQuote)]);
    // If every inner quote is doubled, a blank may follow a comma in any mapping.
    let file = format!("{HEADER}\"1\", V,T,\"113\"\" CAB\", N\n");
    let strict = read(file.as_bytes(), Limits::default()).items;
    assert_eq!(strict, [row(["1", " V", "T", "113\" CAB", " N"], false)]);
}

#[test]
fn finding_5_the_comma_in_the_headers_high_bid_makes_no_column() {
    let file = format!("{},\"High Bid =non-vix,Sealed=Vix\"\n1,V,T,M,N,\"0.0\"\n", HEADER.trim_end());
    let mut reader = Reader::new(file.as_bytes(), Limits::default(), copart()).unwrap();
    assert_eq!(reader.header().width(), 6);
    assert!(matches!(reader.read().unwrap(), Some(Item::Row(r)) if r.get(Column::HighBid) == "0.0"));
}

#[test]
fn escaped_quotes_are_unescaped_and_are_no_repair() {
    assert_eq!(
        items("1,V,T,\"113\"\" CAB\",\"165\"\"\"\n"),
        [row(["1", "V", "T", "113\" CAB", "165\""], false)]
    );
}

#[test]
fn a_quote_that_a_lenient_parser_would_lose_rejects_its_line() {
    assert_eq!(items("1,V,T,\"A\"B,C\n"), [Got::Rejected(Reason::OpenQuote)]);
}

#[test]
fn a_rejected_line_takes_its_position_and_reading_resumes_at_the_next() {
    let run =
        read(format!("{HEADER}1,V,T,M,N\n2,V,T\n3,V,T,M,N,X\n4,V,T,M,N\n").as_bytes(), Limits::default());
    let fields = |found| Got::Rejected(Reason::Fields { found, expected: WIDTH });
    let wanted =
        [row(["1", "V", "T", "M", "N"], false), fields(3), fields(6), row(["4", "V", "T", "M", "N"], false)];
    assert_eq!(run.items, wanted);
    let start = HEADER.len() as u64;
    assert_eq!(run.places, [(1, start, 9), (2, start + 10, 5), (3, start + 16, 11), (4, start + 28, 9)]);
}

#[test]
fn a_field_may_hold_line_ends_by_either_rule() {
    let note = "1,V,T,M,\"a\r\n\nb\"\n2,V,T,\"5\" x\ny\",N\n3,V,T,\"5\"\ny\",N\n";
    assert_eq!(
        items(note),
        [
            row(["1", "V", "T", "M", "a\r\n\nb"], false),
            row(["2", "V", "T", "5\" x\ny", "N"], true),
            row(["3", "V", "T", "5\"\ny", "N"], true),
        ]
    );
}

#[test]
fn a_lost_quote_never_swallows_the_record_after_it() {
    assert_eq!(
        items("1,V,T,\"M,N\n2,V,T,\"5\" x\",\"N\"\n3,V,T,M,N\n"),
        [
            Got::Rejected(Reason::OpenQuote),
            row(["2", "V", "T", "5\" x", "N"], true),
            row(["3", "V", "T", "M", "N"], false)
        ]
    );
}

#[test]
fn joining_stops_at_the_limits() {
    let file = format!("{HEADER}1,V,T,M,\"a\nb\nc\nd\"\n");
    let lines = |lines| read(file.as_bytes(), Limits { lines, ..Limits::default() }).items.len();
    assert_eq!((lines(3), lines(2)), (1, 4));
    let record = |record| read(file.as_bytes(), Limits { record, ..Limits::default() }).items.len();
    // The header has 60 bytes, so only the joined record exceeds the limit.
    let long = file.replace("\nb\n", &format!("\n{}\n", "b".repeat(60)));
    assert_eq!(record(64), 1);
    assert_eq!(read(long.as_bytes(), Limits { record: 64, ..Limits::default() }).items.len(), 4);
}

#[test]
fn line_ends_bom_quoting_and_a_missing_last_line_end_make_no_difference() {
    let wanted = [row(["1", "V", "T", "M", "N"], false), row(["2", "", "T", "", ""], false)];
    let all = "\"1\",\"V\",\"T\",\"M\",\"N\"\n\"2\",\"\",\"T\",\"\",\"\"\n";
    let strings = "1,\"V\",\"T\",\"M\",\"N\"\n2,\"\",\"T\",\"\",\"\"\n";
    let minimal = "1,V,T,M,N\n2,,T,,\n";
    for body in [all, strings, minimal] {
        for bom in ["", "\u{feff}"] {
            for (lf, last) in [("\n", true), ("\r\n", true), ("\n", false), ("\r\n", false)] {
                let file = format!("{bom}{HEADER}{body}").replace('\n', lf);
                let file = if last { file.as_str() } else { file.trim_end() };
                assert_eq!(read(file.as_bytes(), Limits::default()).items, wanted, "{file:?}");
            }
        }
    }
}

#[test]
fn a_file_cut_off_within_a_record_says_so() {
    assert_eq!(
        items("1,V,T,M,N\n2,V,\"T"),
        [row(["1", "V", "T", "M", "N"], false), Got::Rejected(Reason::Truncated)]
    );
}

#[test]
fn a_line_without_end_is_rejected_in_bounded_memory_and_the_next_is_read() {
    let body = io::repeat(b'x').take(200_000_000).chain(&b"\n2,V,T,M,N\n"[..]);
    let mut reader = Reader::new(HEADER.as_bytes().chain(body), Limits::default(), copart()).unwrap();
    match reader.read().unwrap() {
        Some(Item::Rejected(r)) => {
            assert_eq!(
                (r.row_no, r.length, r.bytes.len(), r.reason),
                (1, 200_000_000, 8 << 10, Reason::TooLong)
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(reader.read().unwrap(), Some(Item::Row(r)) if r.row_no() == 2 && r.field(3) == "M"));
    assert!(reader.read().unwrap().is_none());
}

#[test]
fn a_nul_is_replaced_and_flagged_and_the_raw_bytes_stay() {
    let file = [HEADER.as_bytes(), b"1,V,T,A\0B,N\n"].concat();
    let mut reader = Reader::new(&file[..], Limits::default(), copart()).unwrap();
    let Some(Item::Row(row)) = reader.read().unwrap() else { panic!("no row") };
    assert_eq!((row.field(3), row.field(4)), ("A\u{fffd}B", "N"));
    assert_eq!(row.flags(), Flags { nul: true, ..Flags::default() });
    assert_eq!(row.raw(), b"1,V,T,A\0B,N");
}

#[test]
fn a_field_that_is_not_utf_8_is_read_as_latin_1_and_its_neighbours_are_not() {
    let got = items(b"1,V,T,CITRO\xcbN,\"caf\xc3\xa9\"\n");
    let fields = ["1", "V", "T", "CITROËN", "café"].map(str::to_owned).to_vec();
    assert_eq!(got, [Got::Row(fields, Flags { latin1: true, ..Flags::default() })]);
    // Two halves of a character in two fields are valid together but not separately.
    let got = items(b"1,V,T,\xc3,\xa9\n");
    assert!(matches!(&got[0], Got::Row(f, flags) if f[3] == "Ã" && f[4] == "©" && flags.latin1));
}

#[test]
fn an_html_page_is_called_one() {
    let error = refusal(b"\n <html><head><META NAME=\"robots\">\n");
    assert_eq!(
        error,
        "the file is an HTML page and not the feed; the first line begins \" <html><head><META NAME=\\\"robots\\\">\""
    );
    let endless = [b"<!DOCTYPE html>".as_slice(), &[b' '; 70_000]].concat();
    assert!(refusal(&endless).starts_with("the file is an HTML page"));
}

#[test]
fn an_empty_file_is_called_one() {
    for empty in ["", "\u{feff}", "\r\n\n  \n"] {
        assert_eq!(refusal(empty.as_bytes()), "the file is empty");
    }
}

#[test]
fn a_wrong_header_is_refused_with_the_names_it_lacks() {
    let error = refusal(b"id;name\n1;x\n");
    assert_eq!(
        error,
        "the header has no column Lot number, VIN, Last Updated Time; the first line begins \"id;name\""
    );
    assert!(refusal(&[b'x'; 70_000]).starts_with("the first line is longer than 65536 bytes; it begins"));
}

#[test]
fn a_header_alone_is_a_file_of_no_rows() {
    assert_eq!(items(""), []);
    assert_eq!(read(HEADER.trim_end().as_bytes(), Limits::default()).items, []);
}

#[test]
fn a_source_that_fails_in_the_middle_is_an_error_and_not_an_end() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let mut reader = Reader::new(
        HEADER.as_bytes().chain(&b"1,V,T,M,N\n2,V"[..]).chain(Broken),
        Limits::default(),
        copart(),
    )
    .unwrap();
    assert!(reader.read().unwrap().is_some());
    assert_eq!(reader.read().unwrap_err().to_string(), "gone");
}

/// Returns a file with this table. `quote` writes one text.
fn written(table: &[Vec<String>], quote: impl Fn(&str) -> String) -> Vec<u8> {
    let mut file = HEADER.as_bytes().to_vec();
    for row in table {
        let line: Vec<String> = row.iter().map(|v| quote(v)).collect();
        writeln!(file, "{}", line.join(",")).unwrap();
    }
    file
}

fn values(run: Run) -> Vec<Vec<String>> {
    let value = |item| match item {
        Got::Row(fields, _) => fields,
        Got::Rejected(reason) => vec![reason.to_string()],
    };
    run.items.into_iter().map(value).collect()
}

fn table(field: &'static str) -> impl Strategy<Value = Vec<Vec<String>>> {
    prop::collection::vec(prop::collection::vec(field, WIDTH), 0..8)
}

fn tight(chunk: usize) -> Limits {
    Limits { chunk, record: 300, lines: 8, kept: 16 }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_their_places_follow_each_other(
        body in prop::collection::vec(prop::sample::select(b"\"\"\",,,\n\n\ra1\0\xc3\xa9 ".to_vec()), 0..600),
        chunk in 1_usize..40,
    ) {
        let run = read(&[HEADER.as_bytes(), &body].concat(), tight(chunk));
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
        let run = read(&[HEADER.as_bytes(), &body].concat(), tight(7));
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
        prop_assert_eq!(read(&file, tight(chunk)).items, read(&file, tight(4096)).items);
    }

    #[test]
    fn a_table_written_as_rfc_4180_reads_back_equal(table in table("[a-zé,\"\r ]{0,6}")) {
        let file = written(&table, |v| format!("\"{}\"", v.replace('"', "\"\"")));
        prop_assert_eq!(values(read(&file, Limits::default())), table);
    }

    // Without commas and quotes in the text no tail of a record looks like a whole record, which is never joined.
    #[test]
    fn line_ends_in_a_table_written_as_rfc_4180_read_back_equal(table in table("[a-z \r\n]{1,6}")) {
        let file = written(&table, |v| format!("\"{v}\""));
        prop_assert_eq!(values(read(&file, Limits::default())), table);
    }

    #[test]
    fn a_table_written_with_minimal_quoting_reads_back_equal(table in table("[a-zé,\"\r ]{0,6}")) {
        let mut writer = csv::Writer::from_writer(HEADER.as_bytes().to_vec());
        table.iter().for_each(|row| writer.write_record(row).unwrap());
        let run = read(&writer.into_inner().unwrap(), Limits::default());
        prop_assert_eq!(values(run), table);
    }

    // An unescaped quote is certain only where no other stands beside it and no comma or end of the value makes it
    // look like a closing one; the feed's own `165"` at a value's end is a case of its own, below.
    #[test]
    fn a_table_written_with_unescaped_quotes_reads_back_equal(table in table("([a-z ,]|[a-z ]\"[a-z ]){0,6}")) {
        let file = written(&table, |v| format!("\"{v}\""));
        prop_assert_eq!(values(read(&file, Limits::default())), table);
    }

    #[test]
    fn an_inch_quote_at_a_values_end_reads_back_equal(table in table("[a-z][a-z ]{0,4}(\"[a-z]{0,2})?")) {
        let file = written(&table, |v| format!("\"{v}\""));
        prop_assert_eq!(values(read(&file, Limits::default())), table);
    }

    #[test]
    fn inch_quotes_before_a_comma_and_a_blank_read_back_equal(table in table("[a-z]([a-z ,]|[a-z]\", [a-z]|[a-z]\"[a-z]){0,6}\"?")) {
        let file = written(&table, |v| format!("\"{v}\""));
        prop_assert_eq!(values(read(&file, Limits::default())), table);
    }

    #[test]
    fn bytes_are_accounted_for_by_the_mapping_of_any_source(
        body in prop::collection::vec(prop::sample::select(b"\"\"\",,,  \n\xc2\xa0ab".to_vec()), 0..300),
        chunk in 1_usize..50,
    ) {
        let file = [HEADER.as_bytes(), &body].concat();
        for mapping in [copart(), with_blanks()] {
            let run = read_by(mapping, &file, tight(chunk));
            prop_assert_eq!(&run.items, &read_by(mapping, &file, tight(4096)).items);
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
        table in table("[a-z, ]{0,6}"),
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
        let run = read(&file, Limits::default());
        let rows = run.items.into_iter().zip(run.places);
        let got: Vec<_> = rows.filter_map(|(item, (no, at, _))| match item {
            Got::Row(fields, _) => Some((no, at, fields)),
            Got::Rejected(_) => None,
        }).collect();
        prop_assert_eq!(got, wanted);
    }
}
