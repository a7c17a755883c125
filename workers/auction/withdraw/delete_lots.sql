-- withdraw: lots of which no version is left
-- Returns their ids. Their image links, heads and former VINs are deleted. A lot that was inserted manually has no hash
-- and is kept.
with deleted_lots as (
  select l.id, u.lot
  from unnest($2::bigint[]) as u (lot)
  join public.lots l on l.source = $1 and l.lot_external_id = u.lot::text
  where l.row_hash is not null
),
deleted_links as (
  delete from public.images i
  using deleted_lots
  where i.lot_id = deleted_lots.id
),
deleted_heads as (
  delete from raw.heads h
  using deleted_lots
  where h.source = $1
    and h.lot = deleted_lots.lot
),
deleted_vins as (
  delete from raw.former_vins f
  using deleted_lots
  where f.source = $1
    and f.lot = deleted_lots.lot
)
select array_agg(id) as ids
from deleted_lots
