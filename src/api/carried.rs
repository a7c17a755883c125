//! Converts the names of carried values (values from an older row of the feed) to the paths of JSON fields of a lot.

/// Field paths in a [`super::lots::LotResponse`] of the values whose name in [`crate::db::history::LotSnapshot`]
/// differs from the path. `None` marks a value that has no field of its own.
const FIELD_PATHS: [(&str, Option<&str>); 26] = [
    ("auction_datetime_utc", Some("sale.at")),
    ("auction_local", Some("sale.local")),
    ("tz", Some("sale.zone")),
    ("sale_type", Some("sale.type")),
    ("item_number", Some("sale.item_number")),
    ("site_code", Some("yard.code")),
    ("yard_name", Some("yard.name")),
    ("city", Some("yard.city")),
    ("region", Some("yard.state")),
    ("country", Some("yard.country")),
    ("location_zip", Some("yard.zip")),
    // Value, unit and brand of the odometer are carried over together.
    ("odometer_unit", Some("odometer")),
    ("odometer_brand", Some("odometer")),
    // The currency is part of each amount.
    ("currency_code", None),
    // The field `keys` contains the coded value.
    ("has_keys", None),
    ("lot_condition", Some("condition")),
    ("make_offer_eligible", Some("make_offer")),
    ("year", Some("vehicle.year")),
    ("cylinders", Some("vehicle.cylinders")),
    ("body", Some("vehicle.body")),
    ("fuel", Some("vehicle.fuel")),
    ("transmission", Some("vehicle.transmission")),
    ("drive", Some("vehicle.drive")),
    ("color", Some("vehicle.color")),
    ("secondary_damage", Some("secondary_damage")),
    ("title_state", Some("title_state")),
];

/// Returns the paths of the fields that contain these values, without duplicates.
pub fn carried_paths(values: &[&'static str]) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for value in values {
        let path = FIELD_PATHS.iter().find(|(name, _)| name == value).map_or(Some(*value), |(_, path)| *path);
        if let Some(path) = path
            && !paths.iter().any(|known| known == path)
        {
            paths.push(path.to_owned());
        }
    }
    paths
}
