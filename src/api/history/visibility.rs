//! Visibility in a lot's history: removed vehicles, lots and image links are omitted.

use super::super::lot_path::VisibleLot;
use super::super::problem::Problem;
use crate::db::history::display::DisplayValue;
use crate::db::history::{self, LotSnapshot};
use anyhow::Context;
use sqlx::PgConnection;
use std::collections::HashSet;

/// Visible lots and hidden vehicles of one history.
pub struct HistoryVisibility {
    /// Visible lots of the vehicle, as pairs of source and lot number.
    pub open: HashSet<(String, String)>,
    /// VINs of removed vehicles to which the lot belonged before.
    pub hidden: HashSet<String>,
}

impl HistoryVisibility {
    /// Reads the visibility of the lots and vehicles that a history mentions.
    pub async fn load(
        connection: &mut PgConnection,
        history: &history::LotHistory,
    ) -> anyhow::Result<HistoryVisibility> {
        let open = sqlx::query!(
            r#"-- api: the lots of a vehicle that are in sight
            select l.source as "source!", l.lot_external_id as "lot!"
            from public.lots as l
            where l.vin = $1
              and not l.is_removed
              and l.lot_external_id is not null
              and l.source is not null"#,
            history.vin
        )
        .fetch_all(&mut *connection)
        .await
        .context("could not read the visible lots of a vehicle")?;
        let vins: Vec<String> = history
            .events
            .iter()
            .flat_map(|event| &event.changes)
            .filter(|change| change.column == "vin")
            .flat_map(|change| [change.before.to_text(), change.after.to_text()])
            .chain(history.events.iter().filter_map(|event| event.vin.clone()))
            .collect();
        let hidden = sqlx::query_scalar!(
            r#"-- api: removed vehicles
            select vin from public.vehicles where vin = any ($1) and is_removed"#,
            &vins
        )
        .fetch_all(connection)
        .await
        .context("could not read the removed vehicles of a history")?;
        Ok(HistoryVisibility {
            open: open.into_iter().map(|lot| (lot.source, lot.lot)).collect(),
            hidden: hidden.into_iter().collect(),
        })
    }

    /// Returns the event with the VINs of removed vehicles replaced by null.
    pub fn without_hidden(&self, mut event: history::LotEvent) -> history::LotEvent {
        for change in event.changes.iter_mut().filter(|change| change.column == "vin") {
            for value in [&mut change.before, &mut change.after] {
                if self.hidden.contains(&value.to_text()) {
                    *value = DisplayValue::Nothing;
                }
            }
        }
        event
    }
}

/// Removes the links of removed images from a snapshot of a lot.
///
/// # Errors
/// Returns 410 if the lot then belonged to a vehicle that was removed.
pub async fn hide_removed(
    connection: &mut PgConnection,
    place: &VisibleLot,
    standing: &mut LotSnapshot,
) -> Result<(), Problem> {
    let hidden = sqlx::query!(
        r#"-- api: what of a standing lot was removed
        select
          exists (select from public.vehicles where vin = $1 and is_removed) as "vehicle!",
          array(
            select source_url from public.images where lot_id = $2 and is_removed and source_url is not null
          ) as "links!: Vec<String>""#,
        standing.vin,
        place.id
    )
    .fetch_one(connection)
    .await
    .context("could not read the removed parts of a lot")?;
    if hidden.vehicle {
        return Err(Problem::gone(format!("Lot {} belonged to a vehicle that was removed.", place.lot)));
    }
    for link in [&mut standing.thumbnail_url, &mut standing.image_url] {
        if link.as_ref().is_some_and(|url| hidden.links.contains(url)) {
            *link = None;
        }
    }
    Ok(())
}
