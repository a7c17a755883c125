-- fold: the lots of vehicles
with wanted as (
  select distinct vin
  from staging.copart_raw
  where id = any ($4)
    and window_start_utc = $2
    and vin is not null
)
select distinct w.vin as "vin!", k.source as "source!", k.lot as "lot!"
from wanted w
cross join lateral (
  select $3::text as source, s.lot_external_id::bigint as lot
  from staging.copart_raw s
  where s.file_id = $1
    and s.window_start_utc = $2
    and s.vin = w.vin
    and s.lot_external_id is not null
  union
  select l.source, l.lot_external_id::bigint
  from public.lots l
  where l.vin = w.vin
    and l.lot_external_id is not null
  union
  select v.source, v.source_lot
  from public.vehicles v
  where v.vin = w.vin
    and v.source_lot is not null
    and v.source is not null
  union
  -- lots that had the VIN in an earlier version and have another one now, by the spellings that may own it
  select f.source, r.lot
  from (
    values (w.vin), (lower(w.vin))
    union
    select v.vin_raw
    from public.vehicles v
    where v.vin = w.vin
    union
    select s.vin_raw
    from staging.copart_raw s
    where s.file_id = $1
      and s.window_start_utc = $2
      and s.vin = w.vin
  ) as spellings (vin_raw)
  join raw.rows r on r.payload_jsonb ->> 'VIN' = spellings.vin_raw
  join raw.csv_files f on f.file_id = r.file_id
  where r.lot is not null
) k
