-- verify lots: lots and vehicles that a window under way is about to change
-- $1 sources and $2 numbers of lots, $3 VINs
with open_windows as (
  select source, file_id, window_start_utc
  from raw.sightings
  where state = 'ingested'
)
select distinct u.source as "source!", k.lot, null::text as vin
from open_windows u
join staging.copart_raw s on s.file_id = u.file_id and s.window_start_utc = u.window_start_utc
join unnest($1::text[], $2::bigint[]) as k (source, lot) on k.source = u.source and s.lot_external_id = k.lot::text
union all
select distinct u.source, null::bigint, s.vin
from open_windows u
join staging.copart_raw s on s.file_id = u.file_id and s.window_start_utc = u.window_start_utc
where s.vin = any ($3::text[])
