//! Typed values: what each oddity of the feed becomes.

use super::super::specimen::{Specimen, civic};
use super::*;

/// Typed values as text, since they borrow from a reader that is gone.
fn typed<T>(row: &Specimen, f: impl FnOnce(&Typed<'_>) -> T) -> (T, Vec<(Column, u64, String)>) {
    row.read(|record| {
        let mut warnings = Warnings::default();
        let value = f(&Typed::read(record, Spellings::compiled(), &mut warnings));
        let told = warnings.iter().map(|(c, n, first)| (c, n, first.to_owned())).collect();
        (value, told)
    })
}

fn text(decimal: Option<Decimal>) -> Option<String> {
    decimal.map(|d| d.to_string())
}

#[test]
fn a_row_is_read_whole_and_without_a_warning() {
    let (_, warnings) = typed(&civic(), |row| {
        assert_eq!(row.lot_external_id, Some("45148624"));
        assert_eq!(row.vin.as_deref(), Some("2HGFC2F59GH512345"));
        assert_eq!(row.skip_reason, None);
        assert_eq!(
            (row.year, row.make, row.model, row.model_detail),
            (Some(2016), Some("HONDA"), Some("CIVIC"), Some("CIVIC LX"))
        );
        assert_eq!((row.sale_date_raw, row.sale_time_hhmm), (Some(20_251_017), Some(1200)));
        assert_eq!(row.auction_datetime_utc.unwrap().to_rfc3339(), "2025-10-17T19:00:00+00:00");
        assert_eq!((row.cylinders, row.item_number), (Some(4), Some(2507)));
        assert_eq!(
            (row.damage_code, row.secondary_damage_code),
            (Some("damage_front_end"), Some("damage_side"))
        );
        assert_eq!((row.sale_type, row.sale_type_code), (Some("Pure Sale"), Some("sale_pure")));
        assert_eq!((row.has_keys, row.has_keys_code), (Some(true), Some("keys_yes")));
        assert_eq!((text(row.odometer).as_deref(), row.odometer_unit), (Some("60019.0"), Some("mi")));
        assert_eq!(text(row.repair_cost_usd).as_deref(), Some("22157.88"));
        assert_eq!(text(row.current_bid_usd).as_deref(), Some("275.00"));
        assert_eq!((row.special_note, row.grid_row), (Some("REPOSSESSION"), Some("G330")));
        assert_eq!((row.buy_it_now_usd, row.make_offer_eligible), (None, Some(false)));
        let thumbnail = "https://cs.copart.com/v1/AUTH_svc.pdoc00001/lpp/0225/abc_thb.jpg";
        assert_eq!(row.image_thumbnail.unwrap().to_string(), thumbnail);
        assert!(
            row.image_url
                .unwrap()
                .to_string()
                .starts_with("https://inventoryv2.copart.io/v1/lotImages/45148624?")
        );
    });
    assert_eq!(warnings, []);
}

#[test]
fn sentinels_are_unknown_and_raise_no_warning() {
    for miles in ["99999.0", "299999", "999999.0", "9999999.0", "9999999"] {
        let (value, warnings) =
            typed(&civic().with("Odometer", miles), |row| (text(row.odometer), row.odometer_unit));
        assert_eq!((value, warnings), ((None, None), vec![]), "{miles}");
    }
    let row = civic()
        .with("Repair cost", "9999999.99")
        .with("High Bid =non-vix,Sealed=Vix", "0.0")
        .with("Sale Date M/D/CY", "0")
        .with("Sale time (HHMM)", "")
        .with("Year", "0")
        .with("Secondary Damage", " ");
    let (_, warnings) = typed(&row, |row| {
        assert_eq!((row.repair_cost_usd, row.current_bid_usd, row.year), (None, None, None));
        assert_eq!((row.sale_date_raw, row.sale_time_hhmm, row.auction_datetime_utc), (None, None, None));
        assert_eq!(row.secondary_damage, None);
    });
    assert_eq!(warnings, []);
}

#[test]
fn zero_is_a_value_where_it_is_one() {
    let row =
        civic().with("Odometer", "0.0").with("Repair cost", "0.0").with("Item#", "0").with("Cylinders", "0");
    typed(&row, |row| {
        assert_eq!(text(row.odometer).as_deref(), Some("0.0"));
        assert_eq!(text(row.repair_cost_usd).as_deref(), Some("0.00"));
        assert_eq!((row.item_number, row.cylinders), (Some(0), Some(0)));
    });
}

#[test]
fn a_letter_in_a_number_costs_the_number_and_is_counted() {
    let row = civic()
        .with("Odometer", "6OO19.0")
        .with("Year", "2150")
        .with("Cylinders", "U")
        .with("Est. Retail Value", "-1.0")
        .with("Buy-It-Now Price", "10000000000.00")
        .with("Has Keys-Yes or No", "MAYBE")
        .with("Currency Code", "usd")
        .with("Last Updated Time", "yesterday");
    let (_, warnings) = typed(&row, |row| {
        assert_eq!((row.odometer, row.year, row.cylinders), (None, None, None));
        assert_eq!((row.retail_value_usd, row.buy_it_now_usd), (None, None));
        assert_eq!((row.has_keys, row.has_keys_raw, row.has_keys_code), (None, Some("MAYBE"), None));
        assert_eq!((row.currency_code, row.source_updated_at), (None, None));
        assert_eq!(row.skip_reason, None);
    });
    let mut columns: Vec<Column> = warnings.iter().map(|(c, ..)| *c).collect();
    columns.sort_by_key(|c| *c as u8);
    use Column::*;
    assert_eq!(
        columns,
        [Year, HasKeys, Odometer, RetailValue, Cylinders, CurrencyCode, BuyItNowPrice, LastUpdatedTime]
    );
    assert!(warnings.contains(&(Odometer, 1, "6OO19.0".to_owned())));
}

#[test]
fn exempt_keys_are_neither_yes_nor_no() {
    let (value, warnings) = typed(&civic().with("Has Keys-Yes or No", "EXM"), |row| {
        (row.has_keys, row.has_keys_code == Some("keys_exempt"))
    });
    assert_eq!((value, warnings), ((None, true), vec![]));
}

#[test]
fn a_row_without_identity_is_skipped_with_its_reason() {
    let reason = |row: Specimen| typed(&row, |row| row.skip_reason).0;
    assert_eq!(reason(civic().with("VIN", " ")), Some(SkipReason::VinEmpty));
    assert_eq!(reason(civic().with("VIN", "TRAILER1")), Some(SkipReason::VinFormat));
    for lot in ["", "0", "4514862A", "-45148624", "1234567890123456789"] {
        assert_eq!(reason(civic().with("Lot number", lot)), Some(SkipReason::LotMissing), "{lot}");
    }
    assert_eq!(reason(civic().with("Lot number", "").with("VIN", "")), Some(SkipReason::LotMissing));
    assert!(typed(&civic().with("Lot number", "045148624"), |r| r.lot_external_id == Some("45148624")).0);
}

#[test]
fn a_known_day_that_gets_no_instant_is_counted() {
    let (at, warnings) = typed(&civic().with("Time Zone", "XYZ"), |row| row.auction_datetime_utc);
    assert_eq!((at, warnings), (None, vec![(Column::TimeZone, 1, "XYZ".to_owned())]));
    let (at, warnings) = typed(&civic().with("Sale Date M/D/CY", "20251399"), |row| {
        (row.sale_date_raw, row.auction_datetime_utc)
    });
    assert_eq!(
        (at, warnings),
        ((Some(20_251_399), None), vec![(Column::SaleDate, 1, "20251399".to_owned())])
    );
    let (at, warnings) = typed(&civic().with("Sale time (HHMM)", "2599"), |row| {
        row.auction_datetime_utc.unwrap().to_rfc3339()
    });
    assert_eq!((at.as_str(), warnings.len()), ("2025-10-17T19:00:00+00:00", 1));
    // Without a day the zone is of no account.
    let (_, warnings) = typed(&civic().with("Sale Date M/D/CY", "0").with("Time Zone", "XYZ"), |_| ());
    assert_eq!(warnings, []);
}

#[test]
fn finding_4_old_and_new_spellings_have_one_code() {
    for raw in ["HAIL", "hail damage", "Hail  Damage."] {
        assert_eq!(
            typed(&civic().with("Damage Description", raw), |row| row.damage_code.map(str::to_owned))
                .0
                .as_deref(),
            Some("damage_hail"),
            "{raw}"
        );
    }
}

fn unknown_words<'a>(row: &Typed<'a>) -> Vec<(Domain, &'a str)> {
    let known = |domain, raw| Spellings::compiled().code(domain, raw).is_some();
    let words = row.words().into_iter().filter_map(|(domain, raw, coded)| Some((domain, raw?, coded)));
    let words =
        words.inspect(|(domain, raw, coded)| assert!(coded.is_none_or(|it| it == known(*domain, raw))));
    words.filter(|(domain, raw, _)| !known(*domain, raw)).map(|(domain, raw, _)| (domain, raw)).collect()
}

#[test]
fn a_spelling_that_nobody_knows_is_kept_without_a_code_whichever_its_domain() {
    typed(&civic(), |row| assert_eq!(unknown_words(row), [], "{row:?}"));
    let unknown = civic()
        .with("Damage Description", "EATEN BY GOAT")
        .with("Sale Title Type", "ZZ")
        .with("Color", "OCTARINE")
        .with("Lot Cond. Code", "Q")
        .with("Sale Light", "BLUE LIGHT");
    typed(&unknown, |row| {
        assert_eq!((row.damage_description, row.damage_code), (Some("EATEN BY GOAT"), None));
        assert_eq!(row.lot_condition_code, None);
        assert_eq!(
            unknown_words(row),
            [
                (Domain::DamageTypes, "EATEN BY GOAT"),
                (Domain::LotConditions, "Q"),
                (Domain::TitleTypes, "ZZ"),
                (Domain::Colors, "OCTARINE"),
                (Domain::SaleLights, "BLUE LIGHT"),
            ]
        );
    });
}

#[test]
fn warnings_keep_the_first_value_and_a_count_per_column() {
    let mut warnings = Warnings::default();
    warnings.add(Column::Year, "20I6");
    warnings.add(Column::Year, "MMXVI");
    warnings.add(Column::Odometer, "x");
    assert_eq!(warnings.iter().collect::<Vec<_>>(), [(Column::Year, 2, "20I6"), (Column::Odometer, 1, "x")]);
    assert_eq!(warnings.total(), 3);
}
