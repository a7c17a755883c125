-- fold: the lots of vehicles
with requested_vins as (
  select distinct vin
  from unnest($1::text[]) as w (vin)
)
select distinct w.vin as "vin!", k.source as "source!", k.lot as "lot!"
from requested_vins w
cross join lateral (
  select l.source, l.lot_external_id::bigint as lot
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
  -- lots with this VIN in another version and another VIN now
  select f.source, f.lot
  from raw.former_vins f
  where f.vin = w.vin
) k
