//! What of a lot's past is in sight: removed vehicles, lots and links are left out of it.

use super::super::place::Place;
use super::super::problem::Problem;
use crate::db::history::told::Told;
use crate::db::history::{self, Standing};
use anyhow::Context;
use sqlx::PgConnection;
use std::collections::HashSet;

/// What of a history is in sight.
pub struct Sight {
    /// The lots of the vehicle that are, by source and number.
    pub open: HashSet<(String, String)>,
    /// The VINs of removed vehicles that the lot was of before.
    pub hidden: HashSet<String>,
}

impl Sight {
    /// Reads it.
    pub async fn read(connection: &mut PgConnection, told: &history::LotHistory) -> anyhow::Result<Sight> {
        let open = sqlx::query!(
            r#"-- api: the lots of a vehicle that are in sight
            select l.source as "source!", l.lot_external_id as "lot!"
            from public.lots as l
            where l.vin = $1
              and not l.is_removed
              and l.lot_external_id is not null
              and l.source is not null"#,
            told.vin
        )
        .fetch_all(&mut *connection)
        .await
        .context("read which lots are in sight")?;
        let vins: Vec<String> = told
            .events
            .iter()
            .flat_map(|event| &event.changes)
            .filter(|change| change.column == "vin")
            .flat_map(|change| [change.before.said(), change.after.said()])
            .chain(told.events.iter().filter_map(|event| event.vin.clone()))
            .collect();
        let hidden = sqlx::query_scalar!(
            r#"-- api: removed vehicles
            select vin from public.vehicles where vin = any ($1) and is_removed"#,
            &vins
        )
        .fetch_all(connection)
        .await
        .context("read which vehicles are in sight")?;
        Ok(Sight {
            open: open.into_iter().map(|lot| (lot.source, lot.lot)).collect(),
            hidden: hidden.into_iter().collect(),
        })
    }

    /// Returns the event without the VIN of a removed vehicle.
    pub fn without_hidden(&self, mut event: history::Event) -> history::Event {
        for change in event.changes.iter_mut().filter(|change| change.column == "vin") {
            for value in [&mut change.before, &mut change.after] {
                if self.hidden.contains(&value.said()) {
                    *value = Told::Nothing;
                }
            }
        }
        event
    }
}

/// Takes removed links out of a standing lot.
///
/// # Errors
///
/// 410 where the lot was then of a vehicle that was removed.
pub async fn hide(
    connection: &mut PgConnection,
    place: &Place,
    standing: &mut Standing,
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
    .context("read what of the lot was removed")?;
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
