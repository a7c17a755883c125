//! The fold of lots and vehicles whose versions are irregular, from all stored versions.
//!
//! The set-based upserts compare a staged row with what stands. That is not enough where a version has values that could not be
//! read, or an update time that cannot be right: an older version may know what the greatest does not, and a window that arrives
//! late may be the first that held a version, which moves it ([`crate::auction::version`]). The upserts leave such lots and vehicles alone and name
//! their staged rows. Here all stored versions of each are read, put in order, and folded ([`crate::auction::fold`]); the result
//! replaces what stands, with the same log of changes.
//!
//! The order is that of the upserts: (`version_at`, newest window with the version, row hash), for a vehicle the owner of the VIN
//! first, and the source and the lot before the window. Few rows are irregular, so the price of a look-up per version is small.

use super::Window;
use crate::auction::blank::trim_blanks;
use crate::auction::fold::{LOT_GROUPS, VEHICLE_GROUPS, fold};
use crate::auction::row::Typed;
use crate::db::vocabulary;
use crate::queue::Step;
use crate::taxonomy::Spellings;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use stored::{StoredVersion, read_versions};
use uuid::Uuid;

mod columns;
mod stored;

/// Lots whose versions are in memory at once.
const LOTS_AT_ONCE: usize = 500;

/// The key of a lot: its source and its number.
type LotKey = (String, i64);

/// Folds the lots of these staged rows. Returns how many of them changed.
pub async fn fold_lots(
    step: &mut Step,
    file_id: Uuid,
    window: &Window,
    staged: &[i64],
) -> anyhow::Result<i64> {
    let lots = sqlx::query_scalar!(
        r#"-- fold: the lots of staged rows
        select distinct lot_external_id::bigint as "lot!"
        from staging.copart_raw
        where id = any($1)
          and window_start_utc = $2
          and lot_external_id is not null"#,
        staged,
        window.start
    )
    .fetch_all(&mut **step)
    .await
    .context("look up the lots to fold")?;
    let spellings = vocabulary::spellings(step).await?;
    let mut changed = 0;
    for lots in lots.chunks(LOTS_AT_ONCE) {
        let keys: Vec<LotKey> = lots.iter().map(|lot| (window.source.clone(), *lot)).collect();
        let versions = read_versions(step, &keys).await?;
        let mut rows = Vec::new();
        let mut links = Vec::new();
        for versions in versions.values() {
            if let Some((row, link)) = folded_lot(versions, &spellings) {
                rows.push(row);
                links.push(link);
            }
        }
        changed += write_lots(step, file_id, window, rows, links).await?;
    }
    Ok(changed)
}

/// The picture links of a lot: lot number, thumbnail, listing.
type Links = (String, Option<String>, Option<String>);
/// The same link of each of several lots.
type LinkOfEach = Vec<Option<String>>;

/// Returns a row of `lots` and its picture links, from all versions of the lot; none where no version makes a lot.
fn folded_lot(versions: &[StoredVersion], spellings: &Spellings) -> Option<(Value, Links)> {
    let records: Vec<_> = versions.iter().map(|version| version.row.record()).collect();
    let mut typed: Vec<(&StoredVersion, Typed<'_>)> = versions
        .iter()
        .zip(&records)
        .map(|(version, record)| (version, Typed::read(record, spellings, &mut Default::default())))
        .filter(|(_, typed)| typed.skip_reason.is_none())
        .collect();
    typed.sort_by_key(|(v, t)| Reverse((v.version_at(t).0, v.last_window, v.hash)));
    let (greatest, _) = typed.first()?;
    let in_order: Vec<&Typed<'_>> = typed.iter().map(|(_, typed)| typed).collect();
    let folded = fold(&in_order, LOT_GROUPS)?;
    let t = &folded.typed;
    let links = (
        greatest.lot.to_string(),
        t.image_thumbnail.map(|url| url.to_string()),
        t.image_url.map(|url| url.to_string()),
    );
    Some((columns::lot(greatest, &folded, needs_fold(&typed)), links))
}

async fn write_lots(
    step: &mut Step,
    file_id: Uuid,
    window: &Window,
    rows: Vec<Value>,
    links: Vec<Links>,
) -> anyhow::Result<i64> {
    let changed = columns::write(step, columns::LOTS, (file_id, window.start), rows).await?;
    let (lots, (thumbnails, listings)): (Vec<String>, (LinkOfEach, LinkOfEach)) =
        links.into_iter().map(|(lot, thumbnail, listing)| (lot, (thumbnail, listing))).unzip();
    sqlx::query!(
        r#"-- fold: picture links
        select public.replace_image_links(array_agg(l.id), array_agg(g.thumbnail), array_agg(g.listing), $5)
        from unnest($2::text[], $3::text[], $4::text[]) as g (lot, thumbnail, listing)
        join public.lots l on l.source = $1 and l.lot_external_id = g.lot"#,
        window.source,
        &lots,
        thumbnails as Vec<Option<String>>,
        listings as Vec<Option<String>>,
        window.start
    )
    .fetch_one(&mut **step)
    .await
    .context("replace the picture links of folded lots")?;
    Ok(changed)
}

/// Folds the vehicles of these staged rows. Returns how many of them changed.
pub async fn fold_vehicles(
    step: &mut Step,
    file_id: Uuid,
    window: &Window,
    staged: &[i64],
) -> anyhow::Result<i64> {
    let lots = sqlx::query_file!(
        "workers/auction/fold/lots_of_vehicles.sql",
        file_id,
        window.start,
        window.source,
        staged
    )
    .fetch_all(&mut **step)
    .await
    .context("look up the lots of the vehicles to fold")?;
    let spellings = vocabulary::spellings(step).await?;
    let mut by_vin: BTreeMap<String, Vec<LotKey>> = BTreeMap::new();
    for row in lots {
        by_vin.entry(row.vin).or_default().push((row.source, row.lot));
    }
    let by_vin: Vec<(String, Vec<LotKey>)> = by_vin.into_iter().collect();
    let mut changed = 0;
    for vehicles in by_vin.chunks(LOTS_AT_ONCE) {
        let keys: Vec<LotKey> = vehicles.iter().flat_map(|(_, lots)| lots.iter().cloned()).collect();
        let versions = read_versions(step, &keys).await?;
        let folded = |(vin, lots): &(String, Vec<LotKey>)| {
            let versions = lots.iter().filter_map(|lot| versions.get(lot)).flatten();
            folded_vehicle(vin, &versions.collect::<Vec<_>>(), &spellings)
        };
        let rows: Vec<Value> = vehicles.iter().filter_map(folded).collect();
        changed += columns::write(step, columns::VEHICLES, (file_id, window.start), rows).await?;
    }
    Ok(changed)
}

/// Returns a row of `vehicles`, from all versions with this VIN; none where there is none.
fn folded_vehicle(vin: &str, versions: &[&StoredVersion], spellings: &Spellings) -> Option<Value> {
    let records: Vec<_> = versions.iter().map(|version| version.row.record()).collect();
    let mut typed: Vec<(&StoredVersion, Typed<'_>)> = versions
        .iter()
        .zip(&records)
        .map(|(version, record)| (*version, Typed::read(record, spellings, &mut Default::default())))
        .filter(|(_, typed)| typed.skip_reason.is_none() && typed.vin.as_deref() == Some(vin))
        .collect();
    // the raw VIN that is equal to the normalised one owns the vehicle, else the least does; others never touch its fields
    let owner = |typed: &Typed<'_>| {
        let raw = trim_blanks(typed.vin_raw.unwrap_or_default()).to_ascii_uppercase();
        (raw != vin, raw)
    };
    let first = typed.iter().map(|(_, typed)| owner(typed)).min()?;
    typed.retain(|(_, typed)| owner(typed) == first);
    typed.sort_by_key(|(v, t)| Reverse((v.version_at(t).0, v.source.clone(), v.lot, v.last_window, v.hash)));
    let (greatest, _) = typed.first()?;
    let in_order: Vec<&Typed<'_>> = typed.iter().map(|(_, typed)| typed).collect();
    let folded = fold(&in_order, VEHICLE_GROUPS)?;
    Some(columns::vehicle(vin, greatest, &folded, needs_fold(&typed)))
}

impl StoredVersion {
    /// Returns the order key of the version, and whether that is its update time.
    fn version_at(&self, typed: &Typed<'_>) -> (DateTime<Utc>, bool) {
        crate::auction::version::version_time(typed.source_updated_at, self.first_window)
    }
}

/// Returns whether the next change must fold these versions again, the greatest first: the greatest has values that cannot be
/// read, or the update time of any cannot be right. Such a version may come back in a window where its update time is no longer
/// ahead, and only its first window tells.
fn needs_fold(versions: &[(&StoredVersion, Typed<'_>)]) -> bool {
    versions.first().is_some_and(|(_, greatest)| !greatest.unreadable.is_empty())
        || versions.iter().any(|(version, typed)| !version.version_at(typed).1)
}
