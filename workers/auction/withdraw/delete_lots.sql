-- withdraw: lots of which no version is left
-- Returns their ids; their picture links, heads and former VINs are deleted. A lot that was inserted by hand has no hash and stays.
with gone as (
  select l.id, u.lot
  from unnest($2::bigint[]) as u (lot)
  join public.lots l on l.source = $1 and l.lot_external_id = u.lot::text
  where l.row_hash is not null
),
links as (
  delete from public.images i
  using gone
  where i.lot_id = gone.id
),
heads as (
  delete from raw.heads h
  using gone
  where h.source = $1
    and h.lot = gone.lot
),
former as (
  delete from raw.former_vins f
  using gone
  where f.source = $1
    and f.lot = gone.lot
)
select array_agg(id) as ids
from gone
