-- verify lots: vehicles that no lot refers to
-- $1 source, $2 the last VIN that was read, $3 vehicles to read
select v.vin as "vin!"
from public.vehicles v
where v.vin > $2
  and v.row_hash is not null
  and ($1::text is null or v.source = $1)
  and not exists (select from public.lots l where l.vin = v.vin)
order by v.vin
limit $3
