//! Names of the values of a lot that come from an older version, since they are unreadable in the newest.
//!
//! `lots.carried_columns` and `vehicles.carried_columns` contain names of columns. Readers get names of values: a raw
//! value and its code are one value, and some columns are not shown at all.

/// Columns whose values are shown under other names, or are not shown.
const RENAMED_COLUMNS: [(&str, &[&str]); 17] = [
    ("sale_date_raw", &[]),
    ("sale_day_of_week", &[]),
    ("sale_time_hhmm", &[]),
    ("auction_datetime_utc", &["auction_datetime_utc", "auction_local"]),
    ("damage_description", &["damage"]),
    ("damage_code", &["damage"]),
    ("secondary_damage_code", &["secondary_damage"]),
    ("title_type", &["title"]),
    ("has_keys_code", &["keys"]),
    ("lot_condition_code", &["lot_condition"]),
    ("sale_type_code", &["sale_type"]),
    ("current_bid_usd", &["current_bid"]),
    ("buy_it_now_usd", &["buy_it_now"]),
    ("retail_value_usd", &["retail_value"]),
    ("repair_cost_usd", &["repair_cost"]),
    // the vehicle's columns, where a lot shows its own values
    ("odometer_value", &[]),
    ("vin", &[]),
];

/// Columns whose values are shown under the name of the column.
const SAME_NAME_COLUMNS: [&str; 28] = [
    "tz",
    "site_code",
    "yard_name",
    "city",
    "region",
    "country",
    "location_zip",
    "odometer",
    "odometer_brand",
    "odometer_unit",
    "currency_code",
    "has_keys",
    "secondary_damage",
    "sale_type",
    "item_number",
    "make_offer_eligible",
    "title_state",
    "vehicle_type",
    "runs_drives",
    "year",
    "cylinders",
    "body",
    "fuel",
    "transmission",
    "drive",
    "color",
    "keys",
    "lot_condition",
];

/// Returns the names under which [`super::LotSnapshot`] shows a column. Empty if the column is not shown.
fn shown_names(column: &str) -> Vec<&'static str> {
    match RENAMED_COLUMNS.iter().find(|(name, _)| *name == column) {
        Some((_, values)) => values.to_vec(),
        None => SAME_NAME_COLUMNS.iter().copied().filter(|name| *name == column).collect(),
    }
}

/// Returns the value names, as in [`super::LotSnapshot`], of the carried columns of a lot and of its vehicle.
///
/// The vehicle's odometer is not included, since a lot shows its own odometer.
pub fn value_names<T: AsRef<str>>(lot: Option<&[T]>, vehicle: Option<&[T]>) -> Vec<&'static str> {
    let of_lot = lot.unwrap_or_default().iter().map(AsRef::as_ref);
    let of_vehicle = vehicle.unwrap_or_default().iter().map(AsRef::as_ref);
    let of_vehicle = of_vehicle.filter(|column| !column.starts_with("odometer"));
    let mut values: Vec<&'static str> = Vec::new();
    for value in of_lot.chain(of_vehicle).flat_map(shown_names) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auction::fold::{LOT_GROUPS, VEHICLE_GROUPS};

    #[test]
    fn every_column_that_can_be_carried_is_shown_or_known_not_to_be() {
        for column in LOT_GROUPS.iter().chain(VEHICLE_GROUPS).flat_map(|group| group.table_columns()) {
            let known = RENAMED_COLUMNS.iter().any(|(name, _)| name == column) || SAME_NAME_COLUMNS.contains(column);
            assert!(known, "{column}");
        }
    }

    #[test]
    fn a_word_and_its_code_are_one_value_and_the_odometer_is_the_lots() {
        assert_eq!(value_names(Some(&["damage_description", "damage_code"]), None), ["damage"]);
        assert_eq!(
            value_names(Some(&["sale_date_raw", "auction_datetime_utc"]), None),
            ["auction_datetime_utc", "auction_local"]
        );
        assert_eq!(
            value_names(Some(&["odometer"]), Some(&["odometer", "odometer_unit", "year"])),
            ["odometer", "year"]
        );
        assert_eq!(value_names::<&str>(None, None), [""; 0]);
    }
}
