-- verify lots: vehicles that the feed made
select vin as "vin!", source, source_lot
from public.vehicles
where vin = any ($1::text[])
  and row_hash is not null
