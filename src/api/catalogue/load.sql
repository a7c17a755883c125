-- api: lots of the catalogue
-- The values by which these lots are filtered, sorted and counted.
select
  l.id,
  l.lot_external_id::bigint as "lot!",
  l.vin,
  l.is_removed or v.is_removed as "hidden!",
  l.status,
  l.damage_description,
  l.damage_code,
  l.secondary_damage,
  l.secondary_damage_code,
  l.title_type,
  l.title_state,
  l.sale_type,
  l.sale_type_code,
  l.has_keys_code,
  l.runs_drives,
  l.lot_condition_code,
  l.vehicle_type,
  l.odometer_brand,
  l.site_code,
  l.yard_name,
  l.region,
  l.country,
  (l.current_bid_usd * 100)::bigint as price,
  l.auction_datetime_utc as sale,
  l.updated_at,
  v.year,
  v.make,
  v.model,
  v.body,
  v.fuel,
  v.transmission,
  v.drive,
  v.color
from public.lots as l
join public.vehicles as v on v.vin = l.vin
where l.id = any ($1)
  and l.lot_external_id is not null
