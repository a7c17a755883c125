//! Checks of lots' values at past windows.

use super::{OrderFile, expected_values, possible_odometers, window_start};
use crate::pipeline::Pipeline;
use std::collections::HashMap;
use vinops::db::history::{self, FeedPresence};
use vinops::taxonomy::AliasIndex;

/// Checks the values of each lot at each window: those of the files up to then, whenever they were received. At the
/// last window they must be those of `lots`, ties of the hash included.
pub async fn check_past_windows(pipeline: &Pipeline, files: &[OrderFile]) -> Result<(), String> {
    let mut connection = pipeline.pool().acquire().await.unwrap();
    let stored: HashMap<String, (String, Option<String>)> =
        sqlx::query_as::<_, (String, String, Option<String>)>("select l.lot_external_id, s.model, l.odometer::text from lots l cross join lateral (select model from staging.copart_raw s where s.lot_external_id = l.lot_external_id and s.row_hash = l.row_hash limit 1) s")
            .fetch_all(&mut *connection)
            .await
            .unwrap()
            .into_iter()
            .map(|(lot, model, miles)| (lot, (model, miles)))
            .collect();
    let last = files.iter().map(|file| file.window).max().unwrap_or(0);
    for n in 0..=last {
        let then: Vec<OrderFile> = files.iter().filter(|file| file.window <= n).cloned().collect();
        let (lots, _) = expected_values(&then);
        for (lot, stands) in &stored {
            let held = |file: &&OrderFile| file.rows.iter().any(|row| row.number().to_string() == *lot);
            let first = files.iter().filter(held).map(|file| file.window).min().map(window_start);
            let output = history::lot_at(&mut connection, None, lot, window_start(n), AliasIndex::built_in())
                .await
                .unwrap()
                .unwrap();
            let name = format!("lot {lot} at window {n}");
            let miles = output.standing.as_ref().and_then(|standing| standing.odometer.clone());
            let carried = output.standing.as_ref().is_some_and(|standing| standing.carried.contains(&"odometer"));
            let model = output.standing.and_then(|standing| standing.model);
            let may = lots.get(lot).cloned().unwrap_or_default();
            if model.is_some() == may.is_empty() || model.as_ref().is_some_and(|model| !may.contains(model)) {
                return Err(format!("{name} was {model:?}, not one of {may:?}"));
            }
            if let Some(model) = &model {
                let may = possible_odometers(&then, lot, model);
                let miles = miles.as_deref().map(|miles| miles.trim_end_matches(".0").parse().unwrap());
                if !may.contains(&miles) || carried != (model == "MODEL 2" && miles.is_some()) {
                    return Err(format!("{name}: {model} had run {miles:?} (carried: {carried}), not one of {may:?}"));
                }
            }
            if n == last && (model.as_ref(), miles.as_ref()) != (Some(&stands.0), stands.1.as_ref()) {
                return Err(format!("{name} was {model:?}, {miles:?} and is {stands:?}"));
            }
            if output.first_seen != first {
                return Err(format!("{name} was first seen at {:?}, not {first:?}", output.first_seen));
            }
            if (output.presence == FeedPresence::NotYetSeen) != may.is_empty() {
                return Err(format!("{name} was {:?}", output.presence));
            }
            let here = files.iter().filter(|file| file.window == n && !file.rows.is_empty()).collect::<Vec<_>>();
            if here.iter().any(held) && output.presence != FeedPresence::InFeed {
                return Err(format!("{name} stands in the file and is said to be {:?}", output.presence));
            }
        }
    }
    Ok(())
}
