-- api: lots
-- All columns shown to readers, for the visible lots among these ids.
select
  l.id,
  l.lot_external_id as "lot!",
  l.source,
  l.status,
  l.vin,
  l.auction_datetime_utc,
  l.tz,
  l.item_number,
  l.grid_row,
  l.sale_type,
  l.sale_type_code,
  l.title_type,
  l.title_state,
  l.damage_description,
  l.damage_code,
  l.secondary_damage,
  l.secondary_damage_code,
  l.odometer::float8 as odometer,
  l.odometer_unit,
  l.odometer_brand,
  l.has_keys_code,
  l.runs_drives,
  l.lot_condition_code,
  l.vehicle_type,
  l.site_code,
  l.yard_name,
  l.city,
  l.region,
  l.country,
  l.location_zip,
  l.currency_code,
  l.current_bid_usd::text as current_bid,
  l.buy_it_now_usd::text as buy_it_now,
  l.retail_value_usd::text as retail_value,
  l.repair_cost_usd::text as repair_cost,
  l.make_offer_eligible,
  l.special_note,
  l.created_at,
  l.updated_at,
  l.source_updated_at,
  l.carried_columns,
  v.carried_columns as vehicle_carried_columns,
  v.vin_raw,
  v.year,
  v.make,
  v.model,
  v.model_detail,
  v.trim,
  v.body,
  v.fuel,
  v.transmission,
  v.drive,
  v.engine,
  v.cylinders,
  v.color,
  -- a scalar subquery, so that images are looked up only for the requested lots
  coalesce(
    (
      select jsonb_agg(jsonb_build_object('variant', i.variant, 'url', i.source_url) order by i.seq, i.variant)
      from public.images as i
      where i.lot_id = l.id
        and i.valid_until is null
        and not i.is_removed
        and i.source_url is not null
    ),
    '[]'
  ) as "images!: Json<Vec<ImageResponse>>"
from public.lots as l
join public.vehicles as v on v.vin = l.vin
where l.id = any ($1)
  and l.lot_external_id is not null
  and not l.is_removed
  and not v.is_removed
