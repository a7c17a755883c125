-- 0013_rollback: deletes the feed's lot columns and the history of the lots. Lots and images stay.

drop function if exists public.upsert_lots_batch;
drop function if exists public.replace_image_links;
drop function if exists raw.reserve_lot_ids;
drop function if exists public.sale_day;
drop function if exists public.feed_status;

drop view if exists audit.upsert_conflicts;
drop table if exists audit.lot_conflicts;
drop table if exists raw.former_vins;

-- the older index does not allow closed links
delete from public.images
where valid_until is not null;
drop index if exists public.images_vin_lot_seq_variant_uidx;
alter table public.images
  drop column if exists valid_until;
create unique index images_vin_lot_seq_variant_uidx
  on public.images (vin, lot_id, seq, coalesce(variant, ''));

alter table public.lots
  reset (fillfactor),
  drop column if exists carried_columns,
  drop column if exists needs_fold,
  drop column if exists seen_window,
  drop column if exists row_hash,
  drop column if exists version_at,
  drop column if exists odometer_unit,
  drop column if exists buy_it_now_usd,
  drop column if exists make_offer_eligible,
  drop column if exists grid_row,
  drop column if exists created_at_raw,
  drop column if exists currency_code,
  drop column if exists special_note,
  drop column if exists current_bid_usd,
  drop column if exists sale_type_code,
  drop column if exists sale_type,
  drop column if exists runs_drives_code,
  drop column if exists runs_drives,
  drop column if exists repair_cost_usd,
  drop column if exists odometer_brand_code,
  drop column if exists lot_condition_code,
  drop column if exists has_keys_code,
  drop column if exists has_keys,
  drop column if exists title_code,
  drop column if exists title_state,
  drop column if exists secondary_damage_code,
  drop column if exists damage_code,
  drop column if exists vehicle_type,
  drop column if exists item_number,
  drop column if exists sale_time_hhmm,
  drop column if exists sale_day_of_week,
  drop column if exists sale_date_raw,
  drop column if exists location_zip,
  drop column if exists yard_name;
