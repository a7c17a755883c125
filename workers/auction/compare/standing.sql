-- verify lots: what stands of lots
select l.source as "source!", k.lot as "lot!", l.vin as "vin!", l.row_hash is not null as "is_of_feed!"
from unnest($1::text[], $2::bigint[]) as k (source, lot)
join public.lots l on l.source = k.source and l.lot_external_id = k.lot::text
