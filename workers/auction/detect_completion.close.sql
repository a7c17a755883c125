-- detect-completion: let go of the heads of lots that are no longer open
with closed_heads as (
  delete from raw.heads h
  where h.source = $1
    -- implied by the next condition, and the predicate of the index
    and h.last_seen is not null
    and h.absent_since is not null
    and not exists (
      select
      from public.lots l
      where l.source = h.source
        and l.lot_external_id = h.lot::text
        and l.status in ('active', 'scheduled')
    )
  returning h.lot, h.row_hash, h.last_seen
),
-- saves what only the head contains: the time when the stored version was last seen
lot_updates as (
  update public.lots l
  set seen_window = c.last_seen
  from closed_heads c
  where l.source = $1
    and l.lot_external_id = c.lot::text
    and l.row_hash = c.row_hash
    and l.seen_window < c.last_seen
  returning 1
),
vehicle_updates as (
  update public.vehicles v
  set seen_window = c.last_seen
  from closed_heads c
  join public.lots l on l.source = $1 and l.lot_external_id = c.lot::text
  where v.vin = l.vin
    and v.source = $1
    and v.source_lot = c.lot
    and v.row_hash = c.row_hash
    and v.seen_window < c.last_seen
  returning 1
)
select count(*) as "closed!"
from closed_heads
