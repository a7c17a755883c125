//! Tests of typed values: the result for each irregularity of the feed.
//!
//! Long because each oddity is a test of its own, over the same row.

use super::super::fixture::{RowFixture, civic_fixture};
use super::*;

/// Returns the result of `f` and the warnings of a row. Values are copied, since they borrow from the reader.
fn parse_fixture<T>(row: &RowFixture, f: impl FnOnce(&ParsedRow<'_>) -> T) -> (T, Vec<(Column, u64, String)>) {
    row.with_record(|record| {
        let mut warnings = ParseWarnings::default();
        let value = f(&ParsedRow::from_record(record, AliasIndex::built_in(), &mut warnings));
        let recorded = warnings.iter().map(|(c, n, first)| (c, n, first.to_owned())).collect();
        (value, recorded)
    })
}

fn decimal_text(decimal: Option<FeedDecimal>) -> Option<String> {
    decimal.map(|d| d.to_string())
}

#[test]
fn a_row_is_read_whole_and_without_a_warning() {
    let (_, warnings) = parse_fixture(&civic_fixture(), |row| {
        assert_eq!(row.lot_external_id.as_deref(), Some("45148624"));
        assert_eq!(row.vin.as_deref(), Some("2HGFC2F59GH512345"));
        assert_eq!(row.skip_reason, None);
        assert_eq!(
            (row.year, row.make, row.model, row.model_detail),
            (Some(2016), Some("HONDA"), Some("CIVIC"), Some("CIVIC LX"))
        );
        assert_eq!((row.sale_date_raw, row.sale_time_hhmm), (Some(20_251_017), Some(1200)));
        assert_eq!(row.auction_datetime_utc.unwrap().to_rfc3339(), "2025-10-17T19:00:00+00:00");
        assert_eq!((row.cylinders, row.item_number), (Some(4), Some(2507)));
        assert_eq!((row.damage_code, row.secondary_damage_code), (Some("damage_front_end"), Some("damage_side")));
        assert_eq!((row.sale_type, row.sale_type_code), (Some("Pure Sale"), Some("sale_pure")));
        assert_eq!((row.has_keys, row.has_keys_code), (Some(true), Some("keys_yes")));
        assert_eq!((decimal_text(row.odometer).as_deref(), row.odometer_unit), (Some("60019.0"), Some("mi")));
        assert_eq!(decimal_text(row.repair_cost_usd).as_deref(), Some("22157.88"));
        assert_eq!(decimal_text(row.current_bid_usd).as_deref(), Some("275.00"));
        assert_eq!((row.special_note, row.grid_row), (Some("REPOSSESSION"), Some("G330")));
        assert_eq!((row.buy_it_now_usd, row.make_offer_eligible), (None, Some(false)));
        let thumbnail = "https://cs.copart.com/v1/AUTH_svc.pdoc00001/lpp/0225/abc_thb.jpg";
        assert_eq!(row.image_thumbnail.unwrap().to_string(), thumbnail);
        assert!(row.image_url.unwrap().to_string().starts_with("https://inventoryv2.copart.io/v1/lotImages/45148624?"));
    });
    assert_eq!(warnings, []);
}

#[test]
fn sentinels_are_unknown_and_raise_no_warning() {
    for miles in ["99999.0", "299999", "999999.0", "9999999.0", "9999999"] {
        let (value, warnings) = parse_fixture(&civic_fixture().with_value("Odometer", miles), |row| {
            (decimal_text(row.odometer), row.odometer_unit)
        });
        assert_eq!((value, warnings), ((None, None), vec![]), "{miles}");
    }
    let row = civic_fixture()
        .with_value("Repair cost", "9999999.99")
        .with_value("High Bid =non-vix,Sealed=Vix", "0.0")
        .with_value("Sale Date M/D/CY", "0")
        .with_value("Sale time (HHMM)", "")
        .with_value("Year", "0")
        .with_value("Secondary Damage", " ");
    let (_, warnings) = parse_fixture(&row, |row| {
        assert_eq!((row.repair_cost_usd, row.current_bid_usd, row.year), (None, None, None));
        assert_eq!((row.sale_date_raw, row.sale_time_hhmm, row.auction_datetime_utc), (None, None, None));
        assert_eq!(row.secondary_damage, None);
    });
    assert_eq!(warnings, []);
}

#[test]
fn zero_is_a_value_where_it_is_one() {
    let row = civic_fixture()
        .with_value("Odometer", "0.0")
        .with_value("Repair cost", "0.0")
        .with_value("Item#", "0")
        .with_value("Cylinders", "0");
    parse_fixture(&row, |row| {
        assert_eq!(decimal_text(row.odometer).as_deref(), Some("0.0"));
        assert_eq!(decimal_text(row.repair_cost_usd).as_deref(), Some("0.00"));
        assert_eq!((row.item_number, row.cylinders), (Some(0), Some(0)));
    });
}

#[test]
fn a_letter_in_a_number_costs_the_number_and_is_counted() {
    let row = civic_fixture()
        .with_value("Odometer", "6OO19.0")
        .with_value("Year", "2150")
        .with_value("Cylinders", "U")
        .with_value("Est. Retail Value", "-1.0")
        .with_value("Buy-It-Now Price", "10000000000.00")
        .with_value("Has Keys-Yes or No", "MAYBE")
        .with_value("Currency Code", "usd")
        .with_value("Last Updated Time", "yesterday");
    let (_, warnings) = parse_fixture(&row, |row| {
        assert_eq!((row.odometer, row.year, row.cylinders), (None, None, None));
        assert_eq!((row.retail_value_usd, row.buy_it_now_usd), (None, None));
        assert_eq!((row.has_keys, row.has_keys_raw, row.has_keys_code), (None, Some("MAYBE"), None));
        assert_eq!((row.currency_code, row.source_updated_at), (None, None));
        assert_eq!(row.skip_reason, None);
    });
    let mut columns: Vec<Column> = warnings.iter().map(|(c, ..)| *c).collect();
    columns.sort_by_key(|c| *c as u8);
    use Column::*;
    assert_eq!(columns, [Year, Odometer, RetailValue, Cylinders, CurrencyCode, BuyItNowPrice, LastUpdatedTime]);
    assert!(warnings.contains(&(Odometer, 1, "6OO19.0".to_owned())));
}

#[test]
fn the_boolean_of_the_keys_follows_their_code_whatever_the_spelling() {
    for (raw, code, keys) in [
        ("YES", Some("keys_yes"), Some(true)),
        ("Yes", Some("keys_yes"), Some(true)),
        (" y ", Some("keys_yes"), Some(true)),
        ("no", Some("keys_no"), Some(false)),
        ("N", Some("keys_no"), Some(false)),
        ("exm", Some("keys_exempt"), None),
        ("MAYBE", None, None),
        ("", None, None),
    ] {
        let (value, warnings) = parse_fixture(&civic_fixture().with_value("Has Keys-Yes or No", raw), |row| {
            (row.has_keys_code.map(str::to_owned), row.has_keys)
        });
        assert_eq!(value, (code.map(str::to_owned), keys), "{raw:?}");
        assert_eq!(warnings, [], "{raw:?}");
    }
    // An alias of this database only.
    let aliases = AliasIndex::from_rows([(TaxonomyDomain::HasKeys, "MAYBE", "keys_no")]);
    civic_fixture().with_value("Has Keys-Yes or No", "maybe").with_record(|record| {
        let row = ParsedRow::from_record(record, &aliases, &mut ParseWarnings::default());
        assert_eq!((row.has_keys_code, row.has_keys), (Some("keys_no"), Some(false)));
    });
}

#[test]
fn yes_and_no_are_read_in_any_case() {
    for (raw, value) in
        [("Y", true), ("yes", true), (" True\u{a0}", true), ("n", false), ("No", false), ("FALSE", false)]
    {
        assert_eq!(
            parse_fixture(&civic_fixture().with_value("Make-an-Offer Eligible", raw), |row| row.make_offer_eligible),
            (Some(value), vec![]),
            "{raw}"
        );
    }
    let (value, warnings) =
        parse_fixture(&civic_fixture().with_value("Make-an-Offer Eligible", "perhaps"), |row| row.make_offer_eligible);
    assert_eq!((value, warnings.len()), (None, 1));
}

#[test]
fn numbers_and_dates_of_a_spreadsheet_are_read() {
    let row = civic_fixture()
        .with_value("Lot number", "45,148,624")
        .with_value("Odometer", "60,019")
        .with_value("Est. Retail Value", "$12,563.00")
        .with_value("Repair cost", "USD 22,157.88")
        .with_value("High Bid =non-vix,Sealed=Vix", "$0.00")
        .with_value("Buy-It-Now Price", "1,275.5 usd")
        .with_value("Item#", "2,507")
        .with_value("Year", "2016.0")
        .with_value("Sale time (HHMM)", "12:00")
        .with_value("Last Updated Time", "2025-10-14 07:01:00.000+0000");
    for date in ["10/17/2025", "2025-10-17", "2025/10/17", "10/17/2025 0:00", "20251017.0", "2025-10-17T00:00:00"] {
        let (_, warnings) = parse_fixture(&row.clone().with_value("Sale Date M/D/CY", date), |row| {
            assert_eq!(row.lot_external_id.as_deref(), Some("45148624"));
            assert_eq!((row.sale_date_raw, row.sale_time_hhmm), (Some(20_251_017), Some(1200)), "{date}");
            assert_eq!(row.auction_datetime_utc.unwrap().to_rfc3339(), "2025-10-17T19:00:00+00:00");
            assert_eq!(decimal_text(row.odometer).as_deref(), Some("60019.0"));
            assert_eq!(decimal_text(row.retail_value_usd).as_deref(), Some("12563.00"));
            assert_eq!(decimal_text(row.repair_cost_usd).as_deref(), Some("22157.88"));
            assert_eq!((row.current_bid_usd, decimal_text(row.buy_it_now_usd).as_deref()), (None, Some("1275.50")));
            assert_eq!((row.item_number, row.year), (Some(2507), Some(2016)));
            assert_eq!(row.source_updated_at.unwrap().to_rfc3339(), "2025-10-14T07:01:00+00:00");
            assert!(row.unreadable.is_empty());
        });
        assert_eq!(warnings, [], "{date}");
    }
}

#[test]
fn what_has_two_readings_is_unreadable() {
    use Column::*;
    for (column, value) in [
        (SaleDate, "17/10/2025"),
        (SaleDate, "10/17/25"),
        (SaleDate, "infinity"),
        (Odometer, "60.019,0"),
        (Odometer, "0,500"),
        (HighBid, "1275,00"),
        (HighBid, "CAD 275.00"),
        (HighBid, "(275.00)"),
        (RepairCost, "€5"),
        (RepairCost, "NaN"),
        (LastUpdatedTime, "infinity"),
        (LastUpdatedTime, "292277-01-01T00:00:00Z"),
        (LastUpdatedTime, "10/14/2025 07:01"),
        (SaleTime, "noon"),
    ] {
        let (set, warnings) = parse_fixture(&civic_fixture().with_value(column.name(), value), |row| row.unreadable);
        assert_eq!(set, ColumnSet::from_columns(&[column]), "{value}");
        assert_eq!(warnings, [(column, 1, value.to_owned())]);
    }
}

#[test]
fn an_odometer_of_a_canadian_lot_is_in_kilometres() {
    for (country, unit) in [("USA", "mi"), ("", "mi"), ("CAN", "km"), ("can", "km"), ("CA", "km"), ("Canada", "km")] {
        let (read, _) =
            parse_fixture(&civic_fixture().with_value("Location country", country), |row| row.odometer_unit);
        assert_eq!(read, Some(unit), "{country:?}");
    }
    let canadian = civic_fixture().with_value("Location country", "CAN");
    assert_eq!(parse_fixture(&canadian.with_value("Odometer", "999999"), |row| row.odometer_unit).0, None);
}

#[test]
fn a_text_longer_than_any_spelling_is_reported_and_has_no_code_and_is_no_word() {
    let columns: Vec<(&str, Column)> = [
        "Damage Description",
        "Secondary Damage",
        "Sale Title Type",
        "Has Keys-Yes or No",
        "Lot Cond. Code",
        "Sale Status",
        "Odometer Brand",
        "Color",
        "Body Style",
        "Fuel Type",
        "Drive",
        "Transmission",
        "Vehicle Type",
        "Runs/Drives",
        "Sale Light",
    ]
    .map(|name| (name, Column::ALL.into_iter().find(|column| column.name() == name).unwrap()))
    .to_vec();
    assert_eq!(columns.len(), ParsedRow::TAXONOMY_VALUES);
    for (name, column) in columns {
        let long = "я".repeat(129);
        let (_, warnings) = parse_fixture(&civic_fixture().with_value(name, &long), |row| {
            assert_eq!(row.unreadable, ColumnSet::from_columns(&[column]));
            assert_eq!(unknown_values(row), []);
        });
        assert_eq!(warnings, [(column, 1, "я".repeat(80))]);
        let (words, warnings) =
            parse_fixture(&civic_fixture().with_value(name, &"я".repeat(128)), |row| unknown_values(row).len());
        assert_eq!((words, warnings), (1, vec![]), "{name}");
    }
    // Written with blanks, the text would fold to a known alias.
    let hail = format!("HAIL{}", " .".repeat(70));
    let (code, _) =
        parse_fixture(&civic_fixture().with_value("Damage Description", &hail), |row| row.damage_code.is_some());
    assert!(!code);
}

#[test]
fn the_raw_vin_is_the_text_of_the_feed() {
    let (_, _) = parse_fixture(&civic_fixture().with_value("VIN", "\u{a0}2hgfc2f59gh512345 "), |row| {
        assert_eq!(row.vin_raw, Some("\u{a0}2hgfc2f59gh512345 "));
        assert_eq!((row.vin.as_deref(), row.skip_reason), (Some("2HGFC2F59GH512345"), None));
    });
    let (_, _) = parse_fixture(&civic_fixture().with_value("VIN", "\u{200b} \u{feff}"), |row| {
        assert_eq!((row.vin_raw, row.skip_reason), (None, Some(SkipReason::VinEmpty)));
    });
}

#[test]
fn the_columns_that_could_not_be_read_are_those_of_the_warnings_and_no_others() {
    let row = civic_fixture()
        .with_value("Odometer", "6OO19.0")
        .with_value("Sale Date M/D/CY", "20251399")
        .with_value("Lot number", "A7")
        .with_value("High Bid =non-vix,Sealed=Vix", "x")
        .with_value("Last Updated Time", "yesterday");
    let (set, warnings) = parse_fixture(&row, |row| row.unreadable);
    use Column::*;
    assert_eq!(set.iter().collect::<Vec<_>>(), [SaleDate, LotNumber, Odometer, HighBid, LastUpdatedTime]);
    assert_eq!(warnings.iter().map(|(column, ..)| *column).collect::<ColumnSet>(), set);
}

#[test]
fn an_empty_value_an_unknown_one_a_spelling_without_a_code_and_a_skipped_vin_are_readable() {
    let row = civic_fixture()
        .with_value("Odometer", " \u{a0}\u{200b}")
        .with_value("Time Zone", "")
        .with_value("Last Updated Time", "")
        .with_value("Repair cost", "9999999.99")
        .with_value("Sale Date M/D/CY", "0")
        .with_value("Damage Description", "EATEN BY GOAT")
        .with_value("VIN", "TRAILER1");
    assert_eq!(parse_fixture(&row, |row| row.unreadable), (ColumnSet::EMPTY, vec![]));
    // A known day without a zone has no instant, and no value is unreadable.
    let row = civic_fixture()
        .with_value("Time Zone", "")
        .with_value("Yard name", "TX - DALLAS")
        .with_value("Location state", "TX");
    assert_eq!(
        parse_fixture(&row, |row| (row.auction_datetime_utc, row.unreadable)),
        ((None, ColumnSet::EMPTY), vec![])
    );
}

#[test]
fn exempt_keys_are_neither_yes_nor_no() {
    let (value, warnings) = parse_fixture(&civic_fixture().with_value("Has Keys-Yes or No", "EXM"), |row| {
        (row.has_keys, row.has_keys_code == Some("keys_exempt"))
    });
    assert_eq!((value, warnings), ((None, true), vec![]));
}

#[test]
fn a_row_without_identity_is_skipped_with_its_reason() {
    let reason = |row: RowFixture| parse_fixture(&row, |row| row.skip_reason).0;
    assert_eq!(reason(civic_fixture().with_value("VIN", " ")), Some(SkipReason::VinEmpty));
    assert_eq!(reason(civic_fixture().with_value("VIN", "TRAILER1")), Some(SkipReason::VinFormat));
    for lot in ["", "0", "4514862A", "-45148624", "1234567890123456789"] {
        assert_eq!(reason(civic_fixture().with_value("Lot number", lot)), Some(SkipReason::LotMissing), "{lot}");
    }
    assert_eq!(
        reason(civic_fixture().with_value("Lot number", "").with_value("VIN", "")),
        Some(SkipReason::LotMissing)
    );
    assert!(
        parse_fixture(&civic_fixture().with_value("Lot number", "045148624"), |r| r.lot_external_id.as_deref()
            == Some("45148624"))
        .0
    );
}

#[test]
fn a_known_day_that_gets_no_instant_is_counted() {
    let nowhere = || civic_fixture().with_value("Yard name", "TX - DALLAS").with_value("Time Zone", "XYZ");
    let (at, warnings) = parse_fixture(&nowhere(), |row| (row.sale_date_raw, row.auction_datetime_utc));
    assert_eq!((at, warnings), ((Some(20_251_017), None), vec![(Column::TimeZone, 1, "XYZ".to_owned())]));
    let (at, warnings) = parse_fixture(&civic_fixture().with_value("Sale Date M/D/CY", "20251399"), |row| {
        (row.sale_date_raw, row.auction_datetime_utc)
    });
    assert_eq!((at, warnings), ((Some(20_251_399), None), vec![(Column::SaleDate, 1, "20251399".to_owned())]));
    let (at, warnings) = parse_fixture(&civic_fixture().with_value("Sale time (HHMM)", "2599"), |row| {
        row.auction_datetime_utc.unwrap().to_rfc3339()
    });
    assert_eq!((at.as_str(), warnings.len()), ("2025-10-17T19:00:00+00:00", 1));
    // Without a day the zone is ignored.
    let (_, warnings) = parse_fixture(&nowhere().with_value("Sale Date M/D/CY", "0"), |_| ());
    assert_eq!(warnings, []);
}

#[test]
fn the_zone_of_a_sale_is_read_from_yard_state_and_country_where_the_abbreviation_is_unknown() {
    let at = |row: RowFixture| parse_fixture(&row, |row| row.auction_datetime_utc.map(|at| at.to_rfc3339()));
    let noon = Some("2025-10-17T19:00:00+00:00".to_owned());
    for odd in ["XYZ", ""] {
        assert_eq!(at(civic_fixture().with_value("Time Zone", odd)), (noon.clone(), vec![]));
        assert_eq!(
            at(civic_fixture().with_value("Time Zone", odd).with_value("Yard name", "")),
            (noon.clone(), vec![])
        );
    }
    // Located in Arizona and sold by another yard, and the reverse.
    let mountain = civic_fixture().with_value("Time Zone", "MDT").with_value("Location state", "AZ");
    let region = mountain.clone().with_value("Yard name", "*NCS - MOUNTAIN REGION");
    assert_eq!(at(region), (Some("2025-10-17T18:00:00+00:00".to_owned()), vec![]));
    assert_eq!(at(mountain.with_value("Yard name", "AZ - PHOENIX")), (noon, vec![]));
    let abroad =
        civic_fixture().with_value("Time Zone", "").with_value("Yard name", "").with_value("Location state", "");
    let abroad = abroad.with_value("Location country", "GBR");
    assert_eq!(at(abroad), (Some("2025-10-17T11:00:00+00:00".to_owned()), vec![]));
}

#[test]
fn finding_4_old_and_new_spellings_have_one_code() {
    for raw in ["HAIL", "hail damage", "Hail  Damage."] {
        assert_eq!(
            parse_fixture(&civic_fixture().with_value("Damage Description", raw), |row| row
                .damage_code
                .map(str::to_owned))
            .0
            .as_deref(),
            Some("damage_hail"),
            "{raw}"
        );
    }
}

fn unknown_values<'a>(row: &ParsedRow<'a>) -> Vec<(TaxonomyDomain, &'a str)> {
    let known = |domain, raw| AliasIndex::built_in().find_code(domain, raw).is_some();
    let words = row.taxonomy_values().into_iter().filter_map(|(domain, raw, coded)| Some((domain, raw?, coded)));
    let words = words.inspect(|(domain, raw, coded)| assert!(coded.is_none_or(|it| it == known(*domain, raw))));
    words.filter(|(domain, raw, _)| !known(*domain, raw)).map(|(domain, raw, _)| (domain, raw)).collect()
}

#[test]
fn a_spelling_that_nobody_knows_is_kept_without_a_code_whichever_its_domain() {
    parse_fixture(&civic_fixture(), |row| assert_eq!(unknown_values(row), [], "{row:?}"));
    let unknown = civic_fixture()
        .with_value("Damage Description", "EATEN BY GOAT")
        .with_value("Sale Title Type", "ZZ")
        .with_value("Color", "OCTARINE")
        .with_value("Lot Cond. Code", "Q")
        .with_value("Sale Light", "BLUE LIGHT");
    parse_fixture(&unknown, |row| {
        assert_eq!((row.damage_description, row.damage_code), (Some("EATEN BY GOAT"), None));
        assert_eq!(row.lot_condition_code, None);
        assert_eq!(
            unknown_values(row),
            [
                (TaxonomyDomain::DamageTypes, "EATEN BY GOAT"),
                (TaxonomyDomain::LotConditions, "Q"),
                (TaxonomyDomain::TitleTypes, "ZZ"),
                (TaxonomyDomain::Colors, "OCTARINE"),
                (TaxonomyDomain::SaleLights, "BLUE LIGHT"),
            ]
        );
    });
}

#[test]
fn warnings_keep_the_first_value_and_a_count_per_column() {
    let mut warnings = ParseWarnings::default();
    warnings.add(Column::Year, "20I6");
    warnings.add(Column::Year, "MMXVI");
    warnings.add(Column::Odometer, "x");
    assert_eq!(warnings.iter().collect::<Vec<_>>(), [(Column::Year, 2, "20I6"), (Column::Odometer, 1, "x")]);
    assert_eq!(warnings.total(), 3);
}
