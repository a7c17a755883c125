//! Row fixtures for the tests of this module: one realistic row, changed column by column.

use super::Column;
use super::mapping::{SourceMapping, copart_mapping};
use super::reader::{FeedRecord, ReaderLimits, RecordItem, RecordReader};

/// Column names and values of one row.
#[derive(Clone, Debug)]
pub(crate) struct RowFixture(Vec<(String, String)>);

impl RowFixture {
    /// Sets a value. An unknown name becomes a new last column.
    pub(crate) fn with_value(mut self, name: &str, value: &str) -> RowFixture {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => value.clone_into(v),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Renames a column, as under an older or newer header.
    pub(crate) fn with_renamed_column(mut self, from: &str, to: &str) -> RowFixture {
        self.0.iter_mut().filter(|(n, _)| n == from).for_each(|(n, _)| to.clone_into(n));
        self
    }

    /// Reverses the order of the columns.
    pub(crate) fn reverse_columns(&mut self) {
        self.0.reverse();
    }

    /// Returns a file with this single row, written in RFC 4180.
    pub(crate) fn to_csv(&self) -> Vec<u8> {
        let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(Vec::new());
        writer.write_record(self.0.iter().map(|(n, _)| n)).unwrap();
        writer.write_record(self.0.iter().map(|(_, v)| v)).unwrap();
        writer.into_inner().unwrap()
    }

    /// Returns the row as the database stores it.
    pub(crate) fn to_stored_row(&self) -> super::payload::StoredRow {
        let payload = self.0.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let names = self.0.iter().map(|(name, _)| name.clone()).collect();
        super::payload::StoredRow::from_payload(names, &payload, copart_mapping()).unwrap()
    }

    /// Reads the row's file back and passes the record to `f`.
    pub(crate) fn with_record<T>(&self, f: impl FnOnce(&FeedRecord<'_>) -> T) -> T {
        self.with_record_by(copart_mapping(), f)
    }

    /// Reads the row's file back by a source's mapping and passes the record to `f`.
    pub(crate) fn with_record_by<T>(&self, mapping: &'static SourceMapping, f: impl FnOnce(&FeedRecord<'_>) -> T) -> T {
        let file = self.to_csv();
        let mut reader = RecordReader::new(&file[..], ReaderLimits::default(), mapping).unwrap();
        match reader.next_item().unwrap() {
            Some(RecordItem::Row(record)) => f(&record),
            other => panic!("no record: {other:?}"),
        }
    }
}

/// Returns a row as of October 2025.
pub(crate) fn civic_fixture() -> RowFixture {
    let values = "1|371|CA - VALLEJO|20251017|FRIDAY|1200|PDT|2507|45148624|V|2016|HONDA|CIVIC|CIVIC LX|SEDAN 4D|WHITE|\
        FRONT END|SIDE|CA|SC|YES|D|2HGFC2F59GH512345|60019.0|A|12563.0|22157.88|2.0L  4|FRONT WHEEL DRIVE|AUTOMATIC|\
        GAS|4|Run & Drive Verified|Pure Sale|275.0|REPOSSESSION                |VALLEJO|CA|94590 7203|USA|USD|\
        cs.copart.com/v1/AUTH_svc.pdoc00001/lpp/0225/abc_thb.jpg|2025-10-14-08.55.06.000795| G330|N|0.0|\
        http://inventoryv2.copart.io/v1/lotImages/45148624?country=us&brand=cprt&yardNumber=371|LX|\
        2025-10-14T07:01:00Z|N|N|State Farm Insurance|||||||";
    let names = Column::ALL.map(|c| c.name().to_owned());
    RowFixture(names.into_iter().zip(values.split('|').map(str::to_owned)).collect())
}
