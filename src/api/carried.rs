//! The fields of a lot whose values come from an older row of the feed, by their paths.

/// The paths in a [`super::lots::Lot`] of values as [`crate::db::history::Standing`] names them, where they differ.
const PATHS: [(&str, Option<&str>); 26] = [
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
    // the three fall back together
    ("odometer_unit", Some("odometer")),
    ("odometer_brand", Some("odometer")),
    // shown with each amount
    ("currency_code", None),
    // shown as the word
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

/// Returns the paths of the fields that show these values, each once.
pub fn paths(values: &[&'static str]) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for value in values {
        let path = PATHS.iter().find(|(name, _)| name == value).map_or(Some(*value), |(_, path)| *path);
        if let Some(path) = path
            && !paths.iter().any(|known| known == path)
        {
            paths.push(path.to_owned());
        }
    }
    paths
}
